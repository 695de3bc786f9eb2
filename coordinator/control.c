#include "coordinator/control.h"

#include <limits.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/mem.h"
#include "coordinator/estimate.h"
#include "coordinator/lock.h"
#include "schema/link.h"
#include "schema/store_work.h"

/* ---- carrying out ---- */

/* An operation fills `reply`, an empty object. */
typedef enum err_code (*op_fn)(struct store *s, const json_t *request, json_t *reply,
                               struct err *e);

/* As `isobit plan --priority` has them. */
enum { MAX_PRIORITY = 1000 };

static void put_int(json_t *reply, const char *key, int64_t v)
{
    json_object_set_new(reply, key, json_integer(v));
}

/* Sizes as far as shapes tell them, so that the largest checkpoints can go first. */
static enum err_code note_sizes(struct store *s, const struct sweep *sw, struct arena *a,
                                struct err *e)
{
    struct estimate est;
    estimate_sweep(sw, a, &est);
    for (int i = 0; i < sw->n_models; i++)
        if (est.models[i].n_params > 0)
            TRY(store_note_size(s, &sw->models[i].ref, est.models[i].n_params, e));
    return ERR_OK;
}

static enum err_code plan_text(struct store *s, const json_t *request, struct arena *a,
                               json_t *reply, struct err *e)
{
    const char *text = NULL, *path = NULL;
    struct sweep sw;
    struct store_plan_counts n = {0};
    TRY(json_need_str(request, "spec_text", "request", &text, e));
    TRY(json_need_str(request, "spec_path", "request", &path, e));
    TRY(sweep_parse(str_of(text), path, a, &sw, e));
    TRY(store_plan(s, &sw, (int)json_opt_int(request, "priority", 0), &n, e));
    if (n.models_new > 0)
        TRY(note_sizes(s, &sw, a, e));
    put_int(reply, "jobs_total", n.jobs_total);
    put_int(reply, "jobs_new", n.jobs_new);
    put_int(reply, "jobs_known", n.jobs_known);
    put_int(reply, "models_new", n.models_new);
    put_int(reply, "configs_new", n.configs_new);
    put_int(reply, "evals_new", n.evals_new);
    json_object_set_new(reply, "has_other_evals", json_boolean(n.has_other_evals));
    return ERR_OK;
}

static enum err_code op_plan(struct store *s, const json_t *request, json_t *reply, struct err *e)
{
    struct arena a = {0};
    enum err_code rc = plan_text(s, request, &a, reply, e);
    arena_release(&a);
    return rc;
}

/* "<0.2.0" -> "0.2.0". */
static enum err_code version_bound(const char *text, const char **version, struct err *e)
{
    *version = NULL;
    if (text == NULL)
        return ERR_OK;
    if (text[0] != '<' || text[1] < '0' || text[1] > '9')
        return err_set(e, ERR_USAGE,
                       "--program \"%s\": expected '<' and a version, such as '<0.2.0'", text);
    *version = text + 1;
    return ERR_OK;
}

/* retry, cancel, hold, release: the name of the operation says which. */
static enum err_code op_change(struct store *s, const json_t *request, json_t *reply, struct err *e)
{
    const char *pattern = NULL, *before = NULL;
    const char *state = json_opt_str(request, "state", NULL);
    struct store_changed n = {0};
    TRY(json_need_str(request, "pattern", "request", &pattern, e));
    int what = store_change_of(json_opt_str(request, "op", ""));
    if (what == STORE_RETRY && state != NULL) {
        if (strcmp(state, "done") != 0)
            return err_set(e, ERR_USAGE,
                           "state \"%s\": only results of done jobs can be taken back", state);
        TRY(version_bound(json_opt_str(request, "program", NULL), &before, e));
        TRY(store_invalidate(s, pattern, before, &n, e));
    } else {
        TRY(store_change(s, (enum store_change)what, pattern, &n, e));
    }
    put_int(reply, "matched", n.matched);
    put_int(reply, "changed", n.changed);
    return ERR_OK;
}

static enum err_code op_priority(struct store *s, const json_t *request, json_t *reply,
                                 struct err *e)
{
    const char *pattern = NULL;
    int64_t priority = 0;
    struct store_changed n = {0};
    TRY(json_need_str(request, "pattern", "request", &pattern, e));
    TRY(json_need_int(request, "priority", "request", -MAX_PRIORITY, MAX_PRIORITY, &priority, e));
    TRY(store_prioritize(s, pattern, (int)priority, &n, e));
    put_int(reply, "matched", n.matched);
    put_int(reply, "changed", n.changed);
    return ERR_OK;
}

static enum err_code op_backup(struct store *s, const json_t *request, json_t *reply, struct err *e)
{
    const char *out = NULL;
    int64_t bytes = 0;
    TRY(json_need_str(request, "out", "request", &out, e));
    TRY(store_backup(s, out, &bytes, e));
    put_int(reply, "bytes", bytes);
    return ERR_OK;
}

static enum err_code op_status(struct store *s, const json_t *request, json_t *reply, struct err *e)
{
    (void)request;
    struct store_counts n;
    TRY(store_count(s, &n, e));
    for (int i = 0; i < JOB_STATE_COUNT; i++)
        put_int(reply, job_state_label((enum job_state)i), n.n[i]);
    return ERR_OK;
}

static const struct {
    const char *name;
    op_fn run;
    bool is_write; /* in a transaction */
} ops[] = {
    {"plan", op_plan, true},         {"retry", op_change, true},   {"cancel", op_change, true},
    {"priority", op_priority, true}, {"hold", op_change, true},    {"release", op_change, true},
    {"backup", op_backup, false},    {"status", op_status, false},
};

static size_t find_op(const char *name)
{
    size_t i = 0;
    while (i < ARRAY_LEN(ops) && strcmp(ops[i].name, name) != 0)
        i++;
    return i;
}

bool control_is_change(const json_t *request)
{
    size_t i = find_op(json_opt_str(request, "op", ""));
    return i < ARRAY_LEN(ops) && ops[i].is_write;
}

static enum err_code execute(struct store *s, const json_t *request, json_t *reply, struct err *e)
{
    const char *name = NULL;
    TRY(json_need_str(request, "op", "request", &name, e));
    size_t i = find_op(name);
    if (i == ARRAY_LEN(ops))
        return err_set(e, ERR_UNSUPPORTED,
                       "request: there is no operation \"%s\"; is the coordinator older?", name);
    if (!ops[i].is_write)
        return ops[i].run(s, request, reply, e);
    TRY(store_begin(s, e));
    enum err_code rc = ops[i].run(s, request, reply, e);
    if (rc == ERR_OK)
        rc = store_commit(s, e);
    else
        store_rollback(s);
    return rc;
}

json_t *control_execute(struct store *s, const json_t *request)
{
    struct err e;
    json_t *reply = json_object();
    if (execute(s, request, reply, &e) != ERR_OK) {
        json_decref(reply);
        return json_pack("{s:b, s:s, s:s}", "ok", 0, "code", err_name(e.code), "text", e.text);
    }
    json_object_set_new(reply, "ok", json_true());
    return reply;
}

/* ---- asking ---- */

static void pause_briefly(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 20 * CLOCK_NS_PER_MS}, NULL);
}

/* Takes over *reply, or turns it into the error that it tells. */
static enum err_code check_reply(json_t *reply, json_t **out, struct err *e)
{
    if (json_opt_bool(reply, "ok", false)) {
        *out = reply;
        return ERR_OK;
    }
    enum err_code code = err_from_name(json_opt_str(reply, "code", "IO"));
    err_set(e, code != ERR_OK ? code : ERR_IO, "%s",
            json_opt_str(reply, "text", "the coordinator gave no reason"));
    json_decref(reply);
    return e->code;
}

static enum err_code execute_here(const char *db_path, const json_t *request, bool may_create,
                                  json_t **reply, struct err *e)
{
    struct store *s = NULL;
    TRY(store_open(db_path, may_create ? STORE_CREATE : STORE_WRITE, &s, e));
    enum err_code rc = check_reply(control_execute(s, request), reply, e);
    if (rc == ERR_OK)
        store_close(s);
    else
        store_discard(s);
    return rc;
}

/* Where a request goes, and until when an answer is waited for. */
struct asking {
    const char *db_path;
    struct lock_owner owner;
    int64_t deadline_ns;
    bool has_left; /* OUT: the owner gave the lock back without an answer: ask whoever has it now */
};

static bool owner_has_left(const struct asking *q)
{
    struct lock_owner now;
    return !lock_is_held(q->db_path, &now) || strcmp(now.control, q->owner.control) != 0;
}

/* Waits for the one message that answers; others (of another version) are dropped. */
static enum err_code await_reply(struct link *l, struct asking *q, json_t **reply, struct err *e)
{
    static const int64_t look_ns = 250 * CLOCK_NS_PER_MS;
    for (;;) {
        struct link_inbox in;
        while (link_receive(l, &in)) {
            json_t *body =
                !in.is_bad && in.msg.type == WIRE_REPLY ? json_incref(in.msg.body) : NULL;
            link_inbox_release(&in);
            if (body != NULL)
                return check_reply(body, reply, e);
        }
        q->has_left = owner_has_left(q);
        if (q->has_left)
            return err_set(e, ERR_BUSY, "the coordinator (process %lld) left without an answer",
                           (long long)q->owner.pid);
        int64_t left_ns = q->deadline_ns - clock_mono_ns();
        if (left_ns <= 0)
            return err_set(e, ERR_TIMEOUT,
                           "the coordinator (process %lld) did not answer; `isobit status` tells "
                           "whether it did what was "
                           "asked",
                           (long long)q->owner.pid);
        bool is_readable = false;
        struct link *links[] = {l};
        link_wait(links, 1, NULL, 0, left_ns < look_ns ? left_ns : look_ns, &is_readable);
    }
}

/* The connection is made in the background; until then nothing can be sent. */
static enum err_code send_request(struct link *l, const json_t *request, int64_t deadline_ns,
                                  struct err *e)
{
    enum err_code rc = link_send(l, NULL, WIRE_REQUEST, request, NULL, 0, e);
    while (rc == ERR_BUSY && clock_mono_ns() < deadline_ns) {
        pause_briefly();
        rc = link_send(l, NULL, WIRE_REQUEST, request, NULL, 0, e);
    }
    return rc;
}

static enum err_code ask_owner(struct asking *q, const json_t *request, json_t **reply,
                               struct err *e)
{
    struct link_context *context = NULL;
    struct link *l = NULL;
    enum err_code rc = link_context_new(&context, e);
    if (rc == ERR_OK)
        rc = link_connect(context, q->owner.control, &(struct link_options){0}, &l, e);
    if (rc == ERR_OK)
        rc = send_request(l, request, q->deadline_ns, e);
    if (rc == ERR_OK)
        rc = await_reply(l, q, reply, e);
    link_close(l);
    link_context_free(context);
    return rc;
}

static bool is_this_host(const char *host)
{
    char here[HOST_NAME_MAX + 1] = "";
    gethostname(here, sizeof(here) - 1);
    return strcmp(here, host) == 0;
}

enum err_code control_request(const char *db_path, const json_t *request, bool may_create,
                              double timeout_s, json_t **reply, struct err *e)
{
    int64_t deadline_ns = clock_mono_ns() + (int64_t)(timeout_s * (double)CLOCK_NS_PER_S);
    if (!may_create && !io_exists(db_path))
        return err_set(e, ERR_NOTFOUND,
                       "%s does not exist; `isobit plan SPEC.yaml --db %s` makes it", db_path,
                       db_path);
    for (;;) {
        struct lock lock;
        struct asking q = {.db_path = db_path, .deadline_ns = deadline_ns};
        enum err_code rc = lock_take(db_path, &lock, &q.owner, e);
        if (rc == ERR_OK) {
            rc = execute_here(db_path, request, may_create, reply, e);
            lock_release(&lock);
            return rc;
        }
        if (rc != ERR_BUSY)
            return rc;
        bool is_served = q.owner.control[0] != '\0';
        if (is_served && !is_this_host(q.owner.host))
            return err_set(e, ERR_BUSY,
                           "%s is served by process %lld on %s; give the command there", db_path,
                           (long long)q.owner.pid, q.owner.host);
        if (is_served)
            rc = ask_owner(&q, request, reply, e);
        /* Every request may be given twice, so one whose coordinator left is given again. */
        bool is_over = is_served && !q.has_left;
        if (is_over || clock_mono_ns() >= deadline_ns)
            return rc;
        pause_briefly(); /* else a short command holds the lock: it is done in a moment */
    }
}
