#include "tests/support/disturb.h"

#include <stdio.h>
#include <unistd.h>

#include "base/mem.h"
#include "tests/support/support.h"

static const char open_jobs[] =
    "SELECT ifnull(sum(n), 0) FROM tally WHERE state IN ('pending', 'leased')";

struct disturb disturb_new(void (*plan)(const char *db), int *n_kills)
{
    struct disturb d = {.dir = support_tmpdir(), .plan = plan, .pause_ms = 1400};
    d.rng.state = (uint64_t)cluster_env("ISOBIT_KILL_SEED", getpid());
    d.log = xasprintf("%s/log", d.dir);
    *n_kills = (int)cluster_env("ISOBIT_KILLS", *n_kills);
    printf("seed %llu\n", (unsigned long long)d.rng.state);
    return d;
}

void disturb_free(struct disturb *d)
{
    if (cluster_failures() > 0)
        cluster_print_log(d->log);
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

/* Until `n` kills are done or the sweep is; returns how many. */
static int run(struct disturb *d, int n)
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

void disturb_sweeps(struct disturb *d, int n_kills, const struct buf *expected)
{
    int n_done = 0, n_sweeps = 0;
    while (n_done < n_kills && cluster_failures() == 0) {
        char name[32];
        snprintf(name, sizeof(name), "disturbed-%d", n_sweeps++);
        disturb_open(d, name);
        n_done += run(d, n_kills - n_done);
        disturb_close(d);
        outcome_check(d->db, d->events, expected);
    }
    printf("%d kills in %d sweeps\n", n_done, n_sweeps);
}
