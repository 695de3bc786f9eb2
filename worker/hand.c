#include "worker/hand.h"

#include <limits.h>
#include <string.h>

#include "base/mem.h"

static void job_release(struct hand_job *j)
{
    json_decref(j->start);
    json_decref(j->body);
    xfree(j->blob);
}

void hand_release(struct hand *h)
{
    for (int i = 0; i < h->n; i++)
        job_release(&h->v[i]);
    xfree(h->v);
    *h = (struct hand){0};
}

struct hand_job *hand_find(struct hand *h, int64_t job, int64_t attempt)
{
    for (int i = 0; i < h->n; i++)
        if (h->v[i].job == job && (attempt < 0 || h->v[i].attempt == attempt))
            return &h->v[i];
    return NULL;
}

static struct hand_job *find_state(struct hand *h, enum hand_state state)
{
    for (int i = 0; i < h->n; i++)
        if (h->v[i].state == state)
            return &h->v[i];
    return NULL;
}

struct hand_job *hand_running(struct hand *h)
{
    return find_state(h, HAND_RUNNING);
}

int hand_n_running(const struct hand *h)
{
    int n = 0;
    for (int i = 0; i < h->n; i++)
        n += h->v[i].state == HAND_RUNNING;
    return n;
}

bool hand_is_same_model(const struct hand_job *a, const struct hand_job *b)
{
    return json_equal(json_object_get(a->start, "model"), json_object_get(b->start, "model")) != 0;
}

struct hand_job *hand_next_waiting(struct hand *h)
{
    return find_state(h, HAND_WAITING);
}

int hand_split_running(struct hand *h)
{
    const int n = hand_n_running(h);
    for (int i = 0; i < h->n; i++)
        if (h->v[i].state == HAND_RUNNING) {
            h->v[i].state = HAND_WAITING;
            h->v[i].share_max = n / 2 > 1 ? n / 2 : 1;
        }
    return n;
}

static void append(struct hand *h, struct hand_job j)
{
    if (h->n == h->cap) {
        h->cap = h->cap > 0 ? 2 * h->cap : 64;
        h->v = xrealloc(h->v, (size_t)h->cap * sizeof(*h->v));
    }
    h->v[h->n++] = j;
}

struct lease {
    int64_t slice, limit_s;
    json_t *model, *configs, *evals, *jobs;
};

static enum err_code read_lease(const json_t *body, struct lease *l, struct err *e)
{
    TRY(json_need_int(body, "slice", "LEASE", 0, INT64_MAX, &l->slice, e));
    l->limit_s = json_opt_int(body, "limit_s", 0);
    TRY(json_need_obj(body, "model", "LEASE", &l->model, e));
    TRY(json_need_arr(body, "configs", "LEASE", &l->configs, e));
    TRY(json_need_arr(body, "evals", "LEASE", &l->evals, e));
    TRY(json_need_arr(body, "jobs", "LEASE", &l->jobs, e));
    if (json_array_size(l->jobs) > HAND_MAX_SLICE)
        return err_set(e, ERR_FORMAT, "LEASE: %zu jobs, at most %d are allowed",
                       json_array_size(l->jobs), HAND_MAX_SLICE);
    return ERR_OK;
}

static enum err_code read_job(const struct lease *l, size_t i, struct hand_job *out, struct err *e)
{
    int64_t v[4];
    const json_t *row = json_array_get(l->jobs, i);
    for (size_t c = 0; c < ARRAY_LEN(v); c++) {
        const json_t *cell = json_array_get(row, c);
        if (!json_is_integer(cell) || json_integer_value(cell) < 0)
            return err_set(e, ERR_FORMAT, "LEASE: jobs[%zu] is not [job, attempt, config, eval]",
                           i);
        v[c] = json_integer_value(cell);
    }
    json_t *config = json_array_get(l->configs, (size_t)v[2]);
    json_t *eval = json_array_get(l->evals, (size_t)v[3]);
    if (config == NULL || eval == NULL)
        return err_set(e, ERR_FORMAT,
                       "LEASE: jobs[%zu] points to config %lld of %zu, eval %lld of %zu", i,
                       (long long)v[2], json_array_size(l->configs), (long long)v[3],
                       json_array_size(l->evals));
    *out =
        (struct hand_job){.job = v[0], .attempt = v[1], .slice = l->slice, .limit_s = l->limit_s};
    out->start = json_pack("{s:I, s:I, s:O, s:O, s:O}", "job", (json_int_t)v[0], "attempt",
                           (json_int_t)v[1], "model", l->model, "config", config, "eval", eval);
    CHECK(out->start != NULL);
    return ERR_OK;
}

enum err_code hand_lease(struct hand *h, const json_t *body, struct err *e)
{
    struct lease l;
    TRY(read_lease(body, &l, e));
    int n_before = h->n;
    enum err_code rc = ERR_OK;
    for (size_t i = 0; i < json_array_size(l.jobs) && rc == ERR_OK; i++) {
        struct hand_job j = {0};
        rc = read_job(&l, i, &j, e);
        if (rc == ERR_OK && h->n >= HAND_MAX_JOBS)
            rc = err_set(e, ERR_FORMAT, "LEASE: more than %d jobs in hand", HAND_MAX_JOBS);
        if (rc == ERR_OK && hand_find(h, j.job, j.attempt) == NULL)
            append(h, j);
        else
            job_release(&j);
    }
    while (rc != ERR_OK && h->n > n_before)
        job_release(&h->v[--h->n]);
    return rc;
}

void hand_answer(struct hand_job *j, enum wire_type type, json_t *body,
                 const struct wire_frame *blob)
{
    CHECK(j->state != HAND_ANSWERED && body != NULL);
    j->state = HAND_ANSWERED;
    j->type = type;
    j->body = body;
    if (blob == NULL)
        return;
    j->blob = xmalloc(blob->size);
    memcpy(j->blob, blob->data, blob->size);
    j->blob_bytes = blob->size;
}

void hand_answer_fail(struct hand_job *j, enum err_code code, const char *text)
{
    hand_answer(j, WIRE_FAIL,
                json_pack("{s:I, s:I, s:s, s:o}", "job", (json_int_t)j->job, "attempt",
                          (json_int_t)j->attempt, "code", err_name(code), "text", wire_text(text)),
                NULL);
}

void hand_answer_return(struct hand_job *j, const char *reason, const char *text)
{
    hand_answer(j, WIRE_RETURN,
                json_pack("{s:s, s:o, s:[[I, I]]}", "reason", reason, "text", wire_text(text),
                          "jobs", (json_int_t)j->job, (json_int_t)j->attempt),
                NULL);
}

void hand_answer_missing(struct hand_job *j, enum wire_lack lacks, enum err_code code,
                         const char *text)
{
    hand_answer_return(j, "missing", text);
    json_object_set_new(j->body, "code", json_string(err_name(code)));
    json_object_set_new(j->body, "lacks", json_string(wire_lack_label(lacks)));
}

void hand_return_missing(struct hand *h, const struct hand_job *like, enum wire_lack lacks,
                         enum err_code code, const char *text)
{
    static const char *const members[] = {
        [WIRE_LACK_CHECKPOINT] = "model", [WIRE_LACK_DATA] = "eval"};
    if (lacks == WIRE_LACK_CONFIGURATION)
        return;
    const json_t *wanted = json_object_get(like->start, members[lacks]);
    for (int i = 0; i < h->n; i++)
        if (h->v[i].state == HAND_WAITING &&
            json_equal(json_object_get(h->v[i].start, members[lacks]), wanted))
            hand_answer_missing(&h->v[i], lacks, code, text);
}

void hand_return_waiting(struct hand *h, const char *reason, const char *text)
{
    for (int i = 0; i < h->n; i++)
        if (h->v[i].state == HAND_WAITING)
            hand_answer_return(&h->v[i], reason, text);
}

bool hand_settle(struct hand *h, int64_t job, int64_t attempt)
{
    struct hand_job *j = hand_find(h, job, attempt);
    if (j == NULL || j->state != HAND_ANSWERED)
        return false;
    job_release(j);
    int i = (int)(j - h->v);
    memmove(j, j + 1, (size_t)(h->n - i - 1) * sizeof(*j));
    h->n--;
    return true;
}

int hand_open_slices(const struct hand *h)
{
    int n = 0;
    int64_t last = -1; /* jobs of a slice stand together */
    for (int i = 0; i < h->n; i++)
        if (h->v[i].state != HAND_ANSWERED && h->v[i].slice != last) {
            last = h->v[i].slice;
            n++;
        }
    return n;
}

json_t *hand_held_json(const struct hand *h)
{
    json_t *held = json_array();
    for (int i = 0; i < h->n; i++)
        json_array_append_new(
            held, json_pack("[I, I]", (json_int_t)h->v[i].job, (json_int_t)h->v[i].attempt));
    return held;
}
