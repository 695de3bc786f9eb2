/* Story: workers that are stopped (SIGSTOP) past their lease and go on (SIGCONT) as if nothing had been. Each time the result
 * they come back with is fenced, because their jobs went to others meanwhile. ISOBIT_FENCES says how often (default 6; the
 * full run has 100). */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "tests/support/cluster.h"
#include "tests/support/fake_compute.h"
#include "tests/support/support.h"

enum { N_WORKERS = 4, N_VICTIMS = 3 }; /* one is left to take over */

struct story {
    char *dir, *log, *events, *db;
    char endpoint[256];
    pid_t coordinator, workers[N_WORKERS];
    struct rng rng;
};

static int64_t leased_to(const struct story *s, pid_t pid)
{
    char *sql = xasprintf("SELECT leased FROM workers WHERE pid = %d", (int)pid);
    int64_t n = cluster_query(s->db, sql);
    xfree(sql);
    return n;
}

static bool await_leases(const struct story *s, pid_t pid, bool has_some, double seconds)
{
    int64_t end_ns = clock_mono_ns() + (int64_t)(seconds * CLOCK_NS_PER_S);
    while ((leased_to(s, pid) > 0) != has_some)
        if (clock_mono_ns() > end_ns)
            return false;
        else
            usleep(20000);
    return true;
}

static bool await_fence(const struct story *s, pid_t pid, int more_than)
{
    for (int i = 0; i < 100; i++) {
        if (cluster_fenced(s->db, s->events, pid) > more_than)
            return true;
        usleep(100000);
    }
    return false;
}

/* Stops `n` workers while they work, lets them go on when their leases are over; how many of their results were fenced. */
static int stop_and_go(struct story *s, int n)
{
    int before[N_VICTIMS], fenced = 0;
    for (int i = 0; i < n; i++) {
        EXPECT(await_leases(s, s->workers[i], true, 20), "worker %d has no job", i);
        before[i] = cluster_fenced(s->db, s->events, s->workers[i]);
    }
    usleep((useconds_t)rng_below(&s->rng, 200000));
    for (int i = 0; i < n; i++)
        CHECK(kill(s->workers[i], SIGSTOP) == 0);
    for (int i = 0; i < n; i++)
        EXPECT(await_leases(s, s->workers[i], false, 10), "the lease of worker %d did not end", i);
    for (int i = 0; i < n; i++)
        CHECK(kill(s->workers[i], SIGCONT) == 0);
    for (int i = 0; i < n; i++) {
        bool is_fenced = await_fence(s, s->workers[i], before[i]);
        EXPECT(is_fenced, "the late result of worker %d was not fenced", i);
        fenced += is_fenced;
    }
    return fenced;
}

int main(int argc, char **argv)
{
    if (fake_compute_main(argc, argv))
        return 0;
    struct story s = {
        .dir = support_tmpdir(), .endpoint = "tcp://127.0.0.1:0", .rng = {(uint64_t)getpid()}};
    const char *const work[] = {"--compute-program", fake_compute_path(), NULL};
    int n_wanted = (int)cluster_env("ISOBIT_FENCES", 6), n_stopped = 0, n_late = 0;
    s.log = xasprintf("%s/log", s.dir);
    s.events = xasprintf("%s/events", s.dir);
    const char *const serve[] = {"--max-attempts", "1000", "--events", s.events, NULL};
    s.db = xasprintf("%s/fence.db", s.dir);
    setenv("ISOBIT_FAKE_MS", "600", 1);
    cluster_plan("tests/support/hostile.yaml", s.db);
    s.coordinator = cluster_serve(s.db, s.endpoint, s.log, serve);
    for (int i = 0; i < N_WORKERS; i++)
        s.workers[i] = cluster_worker(s.endpoint, s.log, work);
    EXPECT(cluster_await(s.db, "SELECT count(*) > 8 FROM jobs WHERE state = 'done'", 1, 30),
           "the workers do not work");
    while (n_stopped < n_wanted && cluster_failures() == 0) {
        int n = n_wanted - n_stopped < N_VICTIMS ? n_wanted - n_stopped : N_VICTIMS;
        n_late += stop_and_go(&s, n);
        n_stopped += n;
    }
    printf("%d/%d late results fenced\n", n_late, n_stopped);
    int64_t twice = cluster_query(
        s.db,
        "SELECT count(*) FROM (SELECT 1 FROM results GROUP BY key, metric HAVING count(*) > 1)");
    EXPECT(twice == 0, "%lld results stand twice", (long long)twice);
    for (int i = 0; i < N_WORKERS; i++)
        cluster_kill(s.workers[i]);
    cluster_kill(s.coordinator);
    if (cluster_failures() > 0)
        cluster_print_log(s.log);
    xfree(s.log);
    xfree(s.events);
    xfree(s.db);
    support_tmpdir_remove(s.dir);
    return cluster_failures() > 0;
}
