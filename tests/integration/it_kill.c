/* Story: SIGKILL of workers (50 %), of the coordinator (40 %) or of both (10 %) at random moments of a real sweep. Whatever
 * dies, every job ends done, none twice, with the numbers of an undisturbed run. ISOBIT_KILLS sets how many (default 10),
 * ISOBIT_KILL_SEED the moments. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "tests/support/cluster.h"
#include "tests/support/outcome.h"
#include "tests/support/support.h"

enum { N_WORKERS = 2 };
static const char *const spec = "sweeps/smoke.yaml";
static const char open_jobs[] = "SELECT count(*) FROM jobs WHERE state IN ('pending', 'leased')";

struct story {
    char *dir, *log;
    char db[512];
    char endpoint[256];
    pid_t coordinator, workers[N_WORKERS];
    struct rng rng;
};

static void start_coordinator(struct story *s)
{
    const char *const extra[] = {"--max-attempts", "1000", NULL};
    s->coordinator = cluster_serve(s->db, s->endpoint, s->log, extra);
}

static void open_story(struct story *s, const char *name)
{
    snprintf(s->db, sizeof(s->db), "%s/%s.db", s->dir, name);
    snprintf(s->endpoint, sizeof(s->endpoint), "tcp://127.0.0.1:0");
    cluster_plan(spec, s->db);
    start_coordinator(s);
    for (int i = 0; i < N_WORKERS; i++)
        s->workers[i] = cluster_worker(s->endpoint, s->log, NULL);
}

static void close_story(struct story *s)
{
    for (int i = 0; i < N_WORKERS; i++)
        cluster_kill(s->workers[i]);
    cluster_kill(s->coordinator);
}

static void kill_something(struct story *s)
{
    uint64_t dice = rng_below(&s->rng, 10);
    int i = (int)rng_below(&s->rng, N_WORKERS);
    if (dice >= 4) {
        cluster_kill(s->workers[i]);
        s->workers[i] = 0;
    }
    if (dice < 5) {
        cluster_kill(s->coordinator);
        usleep((useconds_t)rng_below(&s->rng, 300000));
        start_coordinator(s);
    }
    if (s->workers[i] == 0)
        s->workers[i] = cluster_worker(s->endpoint, s->log, NULL);
}

/* Kills until `n` kills are done or the sweep is; returns how many. */
static int run_disturbed(struct story *s, int n)
{
    int done = 0;
    while (done < n && cluster_query(s->db, open_jobs) > 0) {
        usleep((useconds_t)(100000 + rng_below(&s->rng, 1400000)));
        if (cluster_query(s->db, open_jobs) == 0)
            break;
        kill_something(s);
        done++;
    }
    EXPECT(cluster_await(s->db, open_jobs, 0, 240), "the sweep did not end after %d kills", done);
    return done;
}

/* ---- `isobit run`, which takes its workers with it ---- */

static pid_t start_run(const struct story *s)
{
    const char *const args[] = {
        "run", support_source(spec), "--db",           s->db,  "--device", "cpu", "--workers",
        "1",   "--no-report",        "--max-attempts", "1000", NULL};
    return cluster_start("isobit", args, s->log);
}

static bool is_gone_soon(pid_t pid)
{
    for (int i = 0; i < 300; i++) {
        if (pid <= 0 || kill(pid, 0) != 0)
            return true;
        usleep(10000);
    }
    return false;
}

/* Killed again and again, each time started by the same command; its workers must not outlive it. */
static int run_killed(struct story *s, int n)
{
    int done = 0;
    for (; done < n && (done == 0 || cluster_query(s->db, open_jobs) > 0); done++) {
        pid_t pid = start_run(s);
        usleep((useconds_t)(300000 + rng_below(&s->rng, 1700000)));
        cluster_kill(pid);
        pid_t worker =
            (pid_t)cluster_query(s->db, "SELECT pid FROM workers ORDER BY last_seen DESC LIMIT 1");
        EXPECT(is_gone_soon(worker), "worker %d outlives `isobit run`", (int)worker);
    }
    int status = cluster_wait(start_run(s), 240);
    EXPECT(status == 0, "`isobit run` ended with %d after %d kills", status, done);
    return done;
}

int main(void)
{
    struct story s = {.dir = support_tmpdir(),
                      .rng = {(uint64_t)cluster_env("ISOBIT_KILL_SEED", getpid())}};
    int n_kills = (int)cluster_env("ISOBIT_KILLS", 10), n_done = 0, n_sweeps = 0;
    s.log = xasprintf("%s/log", s.dir);
    printf("seed %llu\n", (unsigned long long)s.rng.state);

    open_story(&s, "undisturbed");
    EXPECT(cluster_await(s.db, open_jobs, 0, 240), "the undisturbed sweep did not end");
    close_story(&s);
    struct buf expected = outcome_read(s.db);
    EXPECT(expected.len > 0, "the undisturbed sweep has no results");

    while (n_done < n_kills && cluster_failures() == 0) {
        char name[32];
        snprintf(name, sizeof(name), "disturbed-%d", n_sweeps++);
        open_story(&s, name);
        n_done += run_disturbed(&s, n_kills - n_done);
        close_story(&s);
        outcome_check(s.db, &expected);
    }
    printf("%d kills in %d sweeps\n", n_done, n_sweeps);
    buf_release(&expected);

    snprintf(s.db, sizeof(s.db), "%s/run-undisturbed.db", s.dir);
    EXPECT(cluster_wait(start_run(&s), 240) == 0, "the undisturbed `isobit run` failed");
    expected = outcome_read(s.db);
    snprintf(s.db, sizeof(s.db), "%s/run-killed.db", s.dir);
    cluster_plan(spec, s.db);
    printf("%d kills of `isobit run`\n", run_killed(&s, (n_kills + 2) / 3));
    outcome_check(s.db, &expected);
    if (cluster_failures() > 0)
        cluster_print_log(s.log);
    buf_release(&expected);
    xfree(s.log);
    support_tmpdir_remove(s.dir);
    return cluster_failures() > 0;
}
