/* Story: a hostile network. Between two workers and their coordinator, a proxy loses, doubles, delays and reorders messages,
 * hangs up and cuts the line for longer than a lease. Every job ends done, none twice, with the numbers of an undisturbed run.
 * ISOBIT_PROXY_ROUNDS says how many times it turns hostile (default 12; the full run has 500), ISOBIT_PROXY_SEED how. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/rng.h"
#include "tests/support/cluster.h"
#include "tests/support/fake_compute.h"
#include "tests/support/outcome.h"
#include "tests/support/proxy.h"
#include "tests/support/support.h"

enum { N_WORKERS = 2 };
static const char open_jobs[] = "SELECT count(*) FROM jobs WHERE state IN ('pending', 'leased')";

struct story {
    char *dir, *log;
    char db[512], events[520], endpoint[256];
    pid_t coordinator, workers[N_WORKERS];
    struct proxy proxy;
    struct rng rng;
};

static void open_sweep(struct story *s, const char *name, bool is_hostile)
{
    const char *const serve[] = {"--max-attempts", "1000", "--events", s->events, NULL};
    const char *const work[] = {"--compute-program", fake_compute_path(), NULL};
    snprintf(s->db, sizeof(s->db), "%s/%s.db", s->dir, name);
    snprintf(s->events, sizeof(s->events), "%s.jsonl", s->db);
    snprintf(s->endpoint, sizeof(s->endpoint), "tcp://127.0.0.1:0");
    cluster_plan("tests/support/hostile.yaml", s->db);
    s->coordinator = cluster_serve(s->db, s->endpoint, s->log, serve);
    if (is_hostile)
        proxy_start(&s->proxy, s->endpoint, rng_u64(&s->rng));
    for (int i = 0; i < N_WORKERS; i++)
        s->workers[i] = cluster_worker(is_hostile ? s->proxy.endpoint : s->endpoint, s->log, work);
}

static void close_sweep(struct story *s)
{
    EXPECT(cluster_wait(s->coordinator, 0) == -1, "the coordinator did not survive");
    for (int i = 0; i < N_WORKERS; i++) {
        EXPECT(cluster_wait(s->workers[i], 0) == -1, "worker %d did not survive", i);
        cluster_kill(s->workers[i]);
    }
    cluster_kill(s->coordinator);
    if (s->proxy.pid > 0)
        proxy_stop(&s->proxy);
}

static void wait_ms(struct story *s, int least, int most)
{
    usleep((useconds_t)(least + (int)rng_below(&s->rng, (uint64_t)(most - least))) * 1000);
}

/* One round: half a second of noise, a broken line, or a partition of up to twice the lease (1.5 s here). */
static void turn_hostile(struct story *s)
{
    struct proxy_mood mood = {0};
    uint64_t dice = rng_below(&s->rng, 20);
    if (dice < 10) {
        mood = (struct proxy_mood){.drop = 0.4 * rng_uniform(&s->rng),
                                   .duplicate = 0.5 * rng_uniform(&s->rng),
                                   .delay = rng_uniform(&s->rng),
                                   .delay_ms = 10 + (int)rng_below(&s->rng, 400)};
        proxy_set(&s->proxy, &mood);
        wait_ms(s, 100, 900);
    } else if (dice < 16) {
        mood.hangs_up = true;
        proxy_set(&s->proxy, &mood);
        wait_ms(s, 1, 400);
    } else {
        mood.is_cut = true;
        proxy_set(&s->proxy, &mood);
        wait_ms(s, 200, 3000);
    }
    mood = (struct proxy_mood){0};
    proxy_set(&s->proxy, &mood);
    wait_ms(s, 50, 400);
}

/* Turns hostile until it has `n` times or the sweep is done; returns how often. */
static int run_disturbed(struct story *s, int n)
{
    int done = 0;
    while (done < n && cluster_query(s->db, open_jobs) > 0) {
        turn_hostile(s);
        done++;
    }
    EXPECT(cluster_await(s->db, open_jobs, 0, 120), "the sweep did not end after %d rounds", done);
    return done;
}

int main(int argc, char **argv)
{
    if (fake_compute_main(argc, argv))
        return 0;
    struct story s = {.dir = support_tmpdir(),
                      .rng = {(uint64_t)cluster_env("ISOBIT_PROXY_SEED", getpid())}};
    int n_rounds = (int)cluster_env("ISOBIT_PROXY_ROUNDS", 12), n_done = 0, n_sweeps = 0;
    s.log = xasprintf("%s/log", s.dir);
    setenv("ISOBIT_FAKE_MS", "10", 1);
    printf("seed %llu\n", (unsigned long long)s.rng.state);

    open_sweep(&s, "undisturbed", false);
    EXPECT(cluster_await(s.db, open_jobs, 0, 120), "the undisturbed sweep did not end");
    close_sweep(&s);
    struct buf expected = outcome_read(s.db);
    EXPECT(expected.len > 0, "the undisturbed sweep has no results");
    while (n_done < n_rounds && cluster_failures() == 0) {
        char name[32];
        snprintf(name, sizeof(name), "hostile-%d", n_sweeps++);
        open_sweep(&s, name, true);
        n_done += run_disturbed(&s, n_rounds - n_done);
        close_sweep(&s);
        outcome_check(s.db, s.events, &expected);
    }
    printf("%d hostile rounds in %d sweeps of %lld jobs, %d failures\n", n_done, n_sweeps,
           (long long)cluster_query(s.db, "SELECT count(*) FROM jobs"), cluster_failures());
    if (cluster_failures() > 0)
        cluster_print_log(s.log);
    buf_release(&expected);
    xfree(s.log);
    support_tmpdir_remove(s.dir);
    return cluster_failures() > 0;
}
