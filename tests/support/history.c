#include "tests/support/history.h"

#include <string.h>

#include "base/io.h"
#include "base/json.h"
#include "base/mem.h"

enum { MAX_TOLD = 20 };

struct job {
    int64_t last, open, done; /* attempts; 0: none */
    bool has_ended;           /* the last attempt, otherwise than done */
};

struct reader {
    struct history *h;
    struct job *jobs; /* by number */
    int64_t n_jobs, line;
    bool was_torn; /* the line before is no JSON: a start must follow */
};

static void violation(struct reader *r, int64_t job, int64_t attempt, const char *what)
{
    if (r->h->n_violations++ < MAX_TOLD)
        buf_printf(&r->h->violations, "line %lld: job %lld attempt %lld: %s\n", (long long)r->line,
                   (long long)job, (long long)attempt, what);
}

static struct job *job_of(struct reader *r, int64_t id)
{
    CHECK(id >= 0 && id < 100000000);
    if (id >= r->n_jobs) {
        int64_t n = 2 * id + 1024;
        r->jobs = xrealloc(r->jobs, (size_t)n * sizeof(*r->jobs));
        memset(r->jobs + r->n_jobs, 0, (size_t)(n - r->n_jobs) * sizeof(*r->jobs));
        r->n_jobs = n;
    }
    return &r->jobs[id];
}

/* Told again: the same facts may stand twice, and an attempt in force may have begun unseen. */
static void on_leased(struct reader *r, int64_t id, int64_t attempt, bool is_again)
{
    struct job *j = job_of(r, id);
    if (j->done != 0)
        violation(r, id, attempt, "leased although it is done");
    if (!is_again && j->open != 0)
        violation(r, id, attempt, "leased while somebody holds it");
    if (attempt < j->last || (!is_again && attempt == j->last))
        violation(r, id, attempt, "the attempt does not grow");
    *j = (struct job){.last = attempt, .open = attempt};
}

static void on_done(struct reader *r, int64_t id, int64_t attempt, bool is_again)
{
    struct job *j = job_of(r, id);
    if (j->done == attempt && is_again)
        return;
    if (j->done != 0)
        violation(r, id, attempt, "done twice");
    else if (attempt != j->last)
        violation(r, id, attempt, "done in an attempt that is not the last one leased");
    else if (j->has_ended)
        violation(r, id, attempt, "done after that attempt had ended");
    else if (!is_again && j->open != attempt)
        violation(r, id, attempt, "done although nobody holds it");
    j->done = attempt;
    j->open = 0;
}

static void on_ended(struct reader *r, int64_t id, int64_t attempt, bool is_again)
{
    struct job *j = job_of(r, id);
    if (is_again && (j->has_ended || attempt < j->last))
        return;
    if (j->done != 0)
        violation(r, id, attempt, "ended after it was done");
    else if (attempt != j->last || (!is_again && j->open != attempt))
        violation(r, id, attempt, "ended although nobody holds it");
    j->has_ended = true;
    j->open = 0;
}

/* Leases that ended unseen are over; those in force are told again. */
static void on_start(struct reader *r)
{
    r->h->n_starts++;
    for (int64_t i = 0; i < r->n_jobs; i++)
        r->jobs[i].open = 0;
}

static void on_changed(struct reader *r, const json_t *line)
{
    bool is_taken_back = strcmp(json_opt_str(line, "op", ""), "retry") == 0 &&
                         strcmp(json_opt_str(line, "state", ""), "done") == 0;
    const char *op = json_opt_str(line, "op", "");
    bool ends_leases = strcmp(op, "cancel") == 0 || strcmp(op, "hold") == 0;
    for (int64_t i = 0; i < r->n_jobs; i++) {
        r->jobs[i].done = is_taken_back ? 0 : r->jobs[i].done;
        r->jobs[i].open = ends_leases ? 0 : r->jobs[i].open;
    }
}

static void on_event(struct reader *r, const json_t *line)
{
    const char *event = json_opt_str(line, "event", "");
    int64_t job = json_opt_int(line, "job", -1), attempt = json_opt_int(line, "attempt", -1);
    bool is_again = json_opt_bool(line, "again", false);
    struct history *h = r->h;
    h->n_events++;
    h->n_failed += strcmp(event, "failed") == 0;
    h->n_lost += strcmp(event, "lost") == 0;
    h->n_buried += strcmp(event, "buried") == 0;
    h->n_fenced += strcmp(event, "fenced") == 0;
    if (strcmp(event, "start") == 0)
        on_start(r);
    else if (r->was_torn)
        violation(r, job, attempt, "a torn line before it");
    if (strcmp(event, "changed") == 0)
        on_changed(r, line);
    else if (strcmp(event, "leased") == 0)
        on_leased(r, job, attempt, is_again);
    else if (strcmp(event, "done") == 0)
        on_done(r, job, attempt, is_again);
    else if (strcmp(event, "failed") == 0 || strcmp(event, "lost") == 0 ||
             strcmp(event, "returned") == 0 || strcmp(event, "refused") == 0)
        on_ended(r, job, attempt, is_again);
    r->was_torn = false;
}

void history_read(const char *path, struct history *out)
{
    struct reader r = {.h = out};
    struct buf text = {.max = (size_t)1 << 31};
    struct err e;
    *out = (struct history){0};
    CHECK(io_read_file(path, (size_t)1 << 31, &text, &e) == ERR_OK);
    struct str rest = {text.data, text.len}, line;
    while (str_next_line(&rest, &line)) {
        json_t *doc = NULL;
        r.line++;
        if (line.n == 0)
            continue;
        if (json_parse(line, "event", &doc, &e) == ERR_OK) {
            on_event(&r, doc);
        } else {
            out->n_torn++;
            r.was_torn = true;
        }
        json_decref(doc);
    }
    for (int64_t i = 0; i < r.n_jobs; i++) {
        out->n_done += r.jobs[i].done != 0;
        out->n_open += r.jobs[i].open != 0;
    }
    xfree(r.jobs);
    buf_release(&text);
}

void history_release(struct history *h)
{
    buf_release(&h->violations);
}
