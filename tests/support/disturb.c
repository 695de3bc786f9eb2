#include "tests/support/disturb.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"
#include "schema/store.h"
#include "tests/support/support.h"

static const char open_jobs[] =
    "SELECT ifnull(sum(n), 0) FROM tally WHERE state IN ('pending', 'leased')";

static int env_or(const char *name, int def)
{
    int64_t v = 0;
    const char *text = getenv(name);
    return text != NULL && parse_i64(str_of(text), &v) ? (int)v : def;
}

struct disturb disturb_new(void (*plan)(const char *db), int *n_kills)
{
    struct disturb d = {.dir = support_tmpdir(), .plan = plan, .pause_ms = 1400};
    d.rng.state = (uint64_t)env_or("ISOBIT_KILL_SEED", (int)getpid());
    d.log = xasprintf("%s/log", d.dir);
    *n_kills = env_or("ISOBIT_KILLS", *n_kills);
    printf("seed %llu\n", (unsigned long long)d.rng.state);
    return d;
}

void disturb_free(struct disturb *d)
{
    if (cluster_failures() > 0) {
        char *command = xasprintf("tail -n 60 %s >&2", d->log);
        struct support_run r = support_shell(command);
        fprintf(stderr, "%s", r.err.data != NULL ? r.err.data : "no log\n");
        support_run_release(&r);
        xfree(command);
    }
    xfree(d->log);
    support_tmpdir_remove(d->dir);
}

void disturb_start_coordinator(struct disturb *d)
{
    const char *const extra[] = {"--max-attempts", "1000", "--events", d->events, NULL};
    d->coordinator = cluster_serve(d->db, d->endpoint, d->log, extra);
}

void disturb_open(struct disturb *d, const char *name)
{
    snprintf(d->db, sizeof(d->db), "%s/%s.db", d->dir, name);
    snprintf(d->events, sizeof(d->events), "%s.jsonl", d->db);
    snprintf(d->endpoint, sizeof(d->endpoint), "tcp://127.0.0.1:0");
    d->plan(d->db);
    disturb_start_coordinator(d);
    for (int i = 0; i < DISTURB_WORKERS; i++)
        d->workers[i] = cluster_worker(d->endpoint, d->log, d->worker_args);
}

void disturb_close(struct disturb *d)
{
    for (int i = 0; i < DISTURB_WORKERS; i++)
        cluster_kill(d->workers[i]);
    cluster_kill(d->coordinator);
}

bool disturb_await_end(const struct disturb *d, double seconds)
{
    return cluster_await(d->db, open_jobs, 0, seconds);
}

static void kill_something(struct disturb *d)
{
    uint64_t dice = rng_below(&d->rng, 10);
    int i = (int)rng_below(&d->rng, DISTURB_WORKERS);
    if (dice >= 4) {
        cluster_kill(d->workers[i]);
        d->workers[i] = 0;
    }
    if (dice < 5) {
        cluster_kill(d->coordinator);
        usleep((useconds_t)rng_below(&d->rng, 300000));
        disturb_start_coordinator(d);
    }
    if (d->workers[i] == 0)
        d->workers[i] = cluster_worker(d->endpoint, d->log, d->worker_args);
}

int disturb_run(struct disturb *d, int n)
{
    int done = 0;
    while (done < n && cluster_query(d->db, open_jobs) > 0) {
        usleep((useconds_t)(100000 + rng_below(&d->rng, (uint64_t)d->pause_ms * 1000)));
        if (cluster_query(d->db, open_jobs) == 0)
            break;
        kill_something(d);
        done++;
    }
    EXPECT(disturb_await_end(d, 600), "the sweep did not end after %d kills", done);
    return done;
}

/* ---- what came of it ---- */

static enum err_code add_result(void *arg, const struct store_row *r, struct err *e)
{
    (void)e;
    buf_printf(arg, "%s|%s=%.17g\n", store_col_text(r, 0), store_col_text(r, 1),
               store_col_num(r, 2));
    return ERR_OK;
}

struct buf disturb_results(const char *db)
{
    struct buf out = {0};
    struct store *s = NULL;
    struct err e;
    CHECK(store_open(db, STORE_READ, &s, &e) == ERR_OK);
    CHECK(store_query(s, "SELECT key, metric, value FROM results ORDER BY 1, 2", NULL, 0,
                      add_result, &out, &e) == ERR_OK);
    store_close(s);
    return out;
}

static void check_history(const struct disturb *d)
{
    struct history h;
    int64_t n_jobs = cluster_query(d->db, "SELECT count(*) FROM job");
    history_read(d->events, &h);
    EXPECT(h.n_violations == 0, "the event log tells of %lld violations:\n%s",
           (long long)h.n_violations, h.violations.data);
    EXPECT(h.n_done == n_jobs && h.n_open == 0,
           "the event log knows %lld jobs done and %lld open of %lld", (long long)h.n_done,
           (long long)h.n_open, (long long)n_jobs);
    printf(
        "event log: %lld events, %lld starts, %lld torn lines, %lld lost, %lld fenced: every job "
        "once\n",
        (long long)h.n_events, (long long)h.n_starts, (long long)h.n_torn, (long long)h.n_lost,
        (long long)h.n_fenced);
    history_release(&h);
}

void disturb_check(const struct disturb *d, const struct buf *expected)
{
    static const struct {
        const char *sql, *what;
    } zero[] = {
        {"SELECT count(*) FROM job WHERE state <> 'done'", "jobs that are not done"},
        {"SELECT count(*) FROM (SELECT 1 FROM results GROUP BY job, metric HAVING count(*) > 1)",
         "results that stand twice"},
        {"SELECT count(*) FROM job WHERE id NOT IN (SELECT job_id FROM metric)",
         "done jobs without a result"},
        {"SELECT count(*) FROM (SELECT set_id, state, n FROM tally WHERE n <> 0 EXCEPT "
         "SELECT set_id, state, count(*) FROM job GROUP BY 1, 2)",
         "counts that differ from a recount"},
    };
    for (size_t i = 0; i < ARRAY_LEN(zero); i++) {
        int64_t n = cluster_query(d->db, zero[i].sql);
        EXPECT(n == 0, "%lld %s", (long long)n, zero[i].what);
    }
    struct buf got = disturb_results(d->db);
    EXPECT(got.len == expected->len && memcmp(got.data, expected->data, got.len) == 0,
           "results differ from the undisturbed run (%zu and %zu bytes)", got.len, expected->len);
    buf_release(&got);
    if (io_exists(d->events))
        check_history(d);
}
