#include "coordinator/autoalloc.h"

#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/json.h"
#include "base/log.h"
#include "base/signals.h"
#include "coordinator/control.h"
#include "coordinator/lock.h"
#include "coordinator/slurm_cli.h"
#include "schema/store_work.h"

static const double ask_timeout_s = 10;

struct autoalloc {
    const struct autoalloc_options *o;
    struct slurm_cli cli;
    struct alloc alloc;
    struct signals signals;
    int64_t turn_ns;        /* when the last picture was taken */
    char trouble[1000];     /* what went wrong last, so that it is told once */
    char told_connect[300]; /* the address that was told last */
    bool was_paused;
    bool is_over;
};

/* What the coordinator says. */
struct facts {
    bool is_served; /* and hands out work */
    char *connect;
    int64_t pending, leased, done;
};

static void tell_once(struct autoalloc *a, const char *event, const char *text)
{
    if (strncmp(a->trouble, text, sizeof(a->trouble) - 1) == 0)
        return;
    snprintf(a->trouble, sizeof(a->trouble), "%s", text);
    log_event(LOG_WARN, "slurm", event, "text=\"%s\"", text);
}

/* ---- the coordinator ---- */

/* "tcp://0.0.0.0:5555" is where it listens, not where it is. */
static char *reachable(const char *endpoint)
{
    static const char *const any[] = {"tcp://0.0.0.0:", "tcp://[::]:", "tcp://*:"};
    char host[HOST_NAME_MAX + 1] = "localhost";
    gethostname(host, sizeof(host) - 1);
    for (size_t i = 0; i < ARRAY_LEN(any); i++)
        if (str_starts(str_of(endpoint), any[i]))
            return xasprintf("tcp://%s:%s", host, endpoint + strlen(any[i]));
    return xstrdup(endpoint);
}

static enum err_code ask_live(const char *db_path, char **connect, struct err *e)
{
    struct lock_owner owner;
    json_t *reply = NULL;
    *connect = NULL;
    if (!lock_is_held(db_path, &owner) || owner.control[0] == '\0')
        return ERR_OK;
    json_t *request = json_pack("{s:s}", "op", "workers");
    enum err_code rc = control_request(db_path, request, false, ask_timeout_s, &reply, e);
    json_decref(request);
    TRY(rc);
    const char *endpoint = json_opt_str(reply, "endpoint", NULL);
    if (endpoint != NULL && !json_opt_bool(reply, "is_draining", false))
        *connect = reachable(endpoint);
    json_decref(reply);
    return ERR_OK;
}

enum err_code autoalloc_find_coordinator(const char *db_path, char **out, struct err *e)
{
    return ask_live(db_path, out, e);
}

/* Read from the database, as `status` does: whoever asks through the lock would be in the way of a coordinator that starts. */
static enum err_code count_jobs(const char *db_path, struct store_counts *n, struct err *e)
{
    struct store *store = NULL;
    TRY(store_open(db_path, STORE_READ, &store, e));
    enum err_code rc = store_count(store, n, e);
    store_close(store);
    return rc;
}

static enum err_code ask_facts(const struct autoalloc_options *o, struct facts *f, struct err *e)
{
    struct store_counts n;
    *f = (struct facts){0};
    TRY(count_jobs(o->script.db_path, &n, e));
    f->pending = n.n[JOB_PENDING];
    f->leased = n.n[JOB_LEASED];
    f->done = n.n[JOB_DONE];
    TRY(ask_live(o->script.db_path, &f->connect, e));
    f->is_served = f->connect != NULL;
    if (f->is_served && o->script.connect != NULL) {
        xfree(f->connect);
        f->connect = xstrdup(o->script.connect);
    }
    return ERR_OK;
}

static void tell_address(struct autoalloc *a, const char *connect)
{
    if (strcmp(a->told_connect, connect) == 0)
        return;
    snprintf(a->told_connect, sizeof(a->told_connect), "%s", connect);
    bool is_local = str_starts(str_of(connect), "tcp://127.") ||
                    str_starts(str_of(connect), "tcp://localhost:") ||
                    str_starts(str_of(connect), "tcp://[::1]:");
    log_event(is_local ? LOG_WARN : LOG_INFO, "slurm", "coordinator", "address=%s%s", connect,
              is_local ? " text=\"workers on other nodes cannot reach it: serve with --listen "
                         "tcp://HOST:PORT --keys DIR\""
                       : "");
}

/* ---- Slurm ---- */

static const char *verdict_name(enum alloc_verdict v)
{
    switch (v) {
    case ALLOC_LEFT:
        return "left";
    case ALLOC_TAKEN:
        return "taken";
    case ALLOC_FAILED:
        return "failed-start";
    case ALLOC_USELESS:
        return "found-nothing";
    }
    return "";
}

/* Why a job failed at its start: its status, and the last line of its log where that can be read here. */
static void tell_failed(struct autoalloc *a, const struct slurm_job *job)
{
    struct slurm_ending how = {0};
    struct err e;
    char *path = xasprintf("%s/slurm-%lld.log", a->o->script.log_dir, (long long)job->id),
         words[400];
    io_last_line(path, words, sizeof(words));
    if (slurm_cli_ending(&a->cli, job->id, &how, &e) != ERR_OK)
        log_event(LOG_WARN, "slurm", "no-ending", "text=\"%s\"", e.text);
    log_event(LOG_ERROR, "slurm", "failed-start",
              "job=%lld state=%s status=%lld signal=%lld log=%s text=\"%s\"", (long long)job->id,
              job->state, (long long)how.status, (long long)how.signal, path, words);
    xfree(path);
}

static void tell_pause(struct autoalloc *a, enum alloc_verdict last)
{
    if (a->alloc.is_paused == a->was_paused)
        return;
    a->was_paused = a->alloc.is_paused;
    if (!a->was_paused)
        return;
    const char *why = a->alloc.failed_submits >= ALLOC_MAX_FAILED_SUBMITS
                          ? "sbatch has refused again and again"
                      : last == ALLOC_USELESS
                          ? "workers leave idle although jobs are pending: ask `isobit explain`, "
                            "and whether their nodes reach the coordinator"
                          : "workers fail as soon as they start";
    log_event(LOG_ERROR, "slurm", "paused",
              "why=\"%s\" then=\"nothing more is submitted; mend it and give kill -USR1 %lld\"",
              why, (long long)getpid());
}

static enum err_code look(struct autoalloc *a, const struct facts *f, struct arena *arena,
                          struct err *e)
{
    struct slurm_job *seen = NULL;
    struct alloc_end *ends = NULL;
    int n_seen = 0, n_ends = 0;
    enum alloc_verdict last = ALLOC_LEFT;
    TRY(slurm_cli_queue(&a->cli, a->o->script.name, arena, &seen, &n_seen, e));
    int64_t now_ns = clock_mono_ns();
    const struct alloc_work work = {
        .n_pending = f->pending,
        .n_finished = f->done,
        .passed_s = a->turn_ns != 0 ? (now_ns - a->turn_ns) / CLOCK_NS_PER_S : 0};
    if (work.passed_s > 0 || a->turn_ns == 0)
        a->turn_ns = now_ns; /* else the rest of a second is kept for the next turn */
    alloc_observe(&a->alloc, seen, n_seen, &work, arena, &ends, &n_ends);
    for (int i = 0; i < n_ends; i++) {
        last = ends[i].verdict;
        log_event(LOG_INFO, "slurm", "ended", "job=%lld state=%s ran=%lld verdict=%s",
                  (long long)ends[i].job.id, ends[i].job.state, (long long)ends[i].job.run_s,
                  verdict_name(last));
        if (last == ALLOC_FAILED)
            tell_failed(a, &ends[i].job);
    }
    tell_pause(a, last);
    return ERR_OK;
}

static enum err_code submit(struct autoalloc *a, const struct facts *f, struct err *e)
{
    struct slurm_script script = a->o->script;
    struct buf text = {0};
    int64_t id = 0;
    script.connect = f->connect;
    enum err_code rc = slurm_write_script(&script, &text, e);
    if (rc == ERR_OK)
        rc = slurm_cli_submit(&a->cli, (struct str){text.data, text.len}, &id, e);
    buf_release(&text);
    if (rc != ERR_OK) {
        alloc_submit_failed(&a->alloc);
        return rc;
    }
    alloc_submitted(&a->alloc, id);
    log_event(LOG_INFO, "slurm", "submitted", "job=%lld queued=%d running=%d pending=%lld",
              (long long)id, alloc_count(&a->alloc, SLURM_QUEUED),
              alloc_count(&a->alloc, SLURM_RUNNING), (long long)f->pending);
    return ERR_OK;
}

static enum err_code cancel_queued(struct autoalloc *a, struct arena *arena, struct err *e)
{
    int64_t *ids = arena_array(arena, (size_t)a->alloc.n + 1, sizeof(*ids));
    int n = 0;
    for (int i = 0; i < a->alloc.n; i++)
        if (a->alloc.v[i].phase == SLURM_QUEUED)
            ids[n++] = a->alloc.v[i].id;
    TRY(slurm_cli_cancel_queued(&a->cli, ids, n, e));
    if (n > 0)
        log_event(LOG_INFO, "slurm", "cancelled", "queued=%d why=\"nothing waits for them\"", n);
    return ERR_OK;
}

/* ---- the loop ---- */

static enum err_code adjust(struct autoalloc *a, const struct facts *f, struct arena *arena,
                            struct err *e)
{
    TRY(look(a, f, arena, e));
    if (alloc_is_queue_idle(&a->alloc, f->pending))
        return cancel_queued(a, arena, e);
    if (!f->is_served)
        return ERR_OK;
    tell_address(a, f->connect);
    for (int n = alloc_to_submit(&a->alloc, f->pending); n > 0; n--)
        TRY(submit(a, f, e));
    return ERR_OK;
}

static void turn(struct autoalloc *a)
{
    struct facts f;
    struct arena arena = {0};
    struct err e = {0};
    enum err_code rc = ask_facts(a->o, &f, &e);
    if (rc != ERR_OK) {
        tell_once(a, "no-answer", e.text);
        return;
    }
    if (!f.is_served)
        tell_once(a, "not-served",
                  "no coordinator hands out this database's jobs: nothing is submitted");
    rc = adjust(a, &f, &arena, &e);
    if (rc != ERR_OK)
        tell_once(a, "trouble", e.text);
    else if (f.is_served)
        a->trouble[0] = '\0';
    tell_pause(a, ALLOC_LEFT);
    a->is_over |= a->o->is_until_done && f.pending == 0 && f.leased == 0;
    xfree(f.connect);
    arena_release(&arena);
}

static void wait_for_signal(struct autoalloc *a)
{
    struct pollfd p = {.fd = a->signals.fd, .events = POLLIN};
    poll(&p, 1, (int)(a->o->poll_ns / CLOCK_NS_PER_MS));
    for (int number; (number = signals_next(&a->signals)) != 0;) {
        if (number != SIGUSR1) {
            a->is_over = true;
        } else if (a->alloc.is_paused) {
            alloc_resume(&a->alloc);
            log_event(LOG_INFO, "slurm", "resumed", "why=\"SIGUSR1\"");
        }
    }
}

/* Those that run now, which may be more than did when it last looked; without an answer, those of then. */
static int count_running(const struct autoalloc *a, struct arena *arena)
{
    struct slurm_job *seen = NULL;
    struct err e;
    int n_seen = 0, n = 0;
    if (slurm_cli_queue(&a->cli, a->o->script.name, arena, &seen, &n_seen, &e) != ERR_OK)
        return alloc_count(&a->alloc, SLURM_RUNNING);
    for (int i = 0; i < n_seen; i++)
        n += seen[i].phase == SLURM_RUNNING;
    return n;
}

/* Those that run go on: they have work in hand, and leave by themselves. */
static void leave(struct autoalloc *a)
{
    struct arena arena = {0};
    struct err e;
    if (cancel_queued(a, &arena, &e) != ERR_OK)
        log_event(LOG_WARN, "slurm", "not-cancelled", "text=\"%s\"", e.text);
    int n = count_running(a, &arena);
    if (n > 0)
        fprintf(stderr,
                "%d Slurm job%s with workers go%s on; they end after %lld s without work, or at "
                "once with: scancel --name=%s\n",
                n, n == 1 ? "" : "s", n == 1 ? "es" : "", (long long)a->o->limits.idle_s,
                a->o->script.name);
    arena_release(&arena);
}

enum err_code autoalloc_run(const struct autoalloc_options *o, struct err *e)
{
    struct autoalloc a = {.o = o, .alloc.limits = o->limits};
    TRY(slurm_cli_open(&a.cli, e));
    enum err_code rc = signals_open(&a.signals, SIGUSR1, e);
    while (rc == ERR_OK && !a.is_over) {
        turn(&a);
        if (!a.is_over)
            wait_for_signal(&a);
    }
    if (rc == ERR_OK)
        leave(&a);
    if (rc == ERR_OK && a.alloc.is_paused)
        rc = err_set(e, ERR_STOPPED, "told to leave while paused (why: see above)");
    signals_close(&a.signals);
    alloc_release(&a.alloc);
    slurm_cli_close(&a.cli);
    return rc;
}
