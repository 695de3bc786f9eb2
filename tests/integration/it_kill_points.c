/* Story: the coordinator dies exactly where it matters: with a lease decided and not written, written and not sent, with
 * results that have arrived and are not written, written and not acknowledged. The first commits of a sweep, one after the
 * other, each before its first write and after its sync (6 commits; ISOBIT_TEST_FULL=1: 40). A worker keeps on through it. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "coordinator/serve.h"
#include "tests/support/disturb.h"
#include "tests/support/fake_compute.h"
#include "tests/support/fault_vfs.h"
#include "tests/support/support.h"
#include "tests/support/sweep_fixture.h"

static void plan_few(const char *db)
{
    struct arena a = {0};
    struct err e;
    struct store *s = NULL;
    struct store_plan_counts counts;
    struct sweep sw = fixture_sweep(&a, "points", 2, 6, 5);
    CHECK(store_open(db, STORE_CREATE, &s, &e) == ERR_OK);
    CHECK(store_plan(s, &sw, 0, &counts, &e) == ERR_OK);
    store_close(s);
    arena_release(&a);
}

/* In a process of its own; `endpoint` is shared with it. */
static void serve_until_killed(const struct disturb *d, char *endpoint, int64_t commit,
                               bool is_after)
{
    struct serve *s = NULL;
    struct err e;
    const struct serve_options o = {.db_path = d->db,
                                    .listen = "tcp://127.0.0.1:0",
                                    .events_path = d->events,
                                    .grace_ns = CLOCK_NS_PER_S,
                                    .dispatch = {.heartbeat_ns = CLOCK_NS_PER_S / 10,
                                                 .lease_ns = 3 * CLOCK_NS_PER_S / 2,
                                                 .slice_ns = 2 * CLOCK_NS_PER_S,
                                                 .max_attempts = 1000}};
    fault_vfs_install();
    fault_vfs_kill(commit, is_after);
    setenv("XDG_RUNTIME_DIR", d->dir, 1);
    if (serve_open(&o, &s, &e) != ERR_OK)
        BUG(e.text);
    strncpy(endpoint, serve_endpoint(s), 255);
    serve_run(s);
    _exit(0);
}

/* The coordinator's first life, until the kill; its address is where the next one listens. */
static void die_at(struct disturb *d, int64_t commit, bool is_after)
{
    char *endpoint = mmap(NULL, 256, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int status = 0;
    CHECK(endpoint != MAP_FAILED);
    snprintf(d->db, sizeof(d->db), "%s/%lld%s.db", d->dir, (long long)commit, is_after ? "a" : "b");
    snprintf(d->events, sizeof(d->events), "%s.jsonl", d->db);
    d->plan(d->db);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0)
        serve_until_killed(d, endpoint, commit, is_after);
    for (int i = 0; i < 1000 && endpoint[0] == '\0' && kill(pid, 0) == 0; i++)
        usleep(10000);
    snprintf(d->endpoint, sizeof(d->endpoint), "%s", endpoint);
    d->workers[0] = cluster_worker(d->endpoint, d->log, d->worker_args);
    CHECK(waitpid(pid, &status, 0) == pid);
    EXPECT(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL,
           "commit %lld: the coordinator was not killed", (long long)commit);
    munmap(endpoint, 256);
}

int main(int argc, char **argv)
{
    if (fake_compute_main(argc, argv))
        return 0;
    log_setup(LOG_ERROR, false, NULL);
    int unused = 0;
    struct disturb d = disturb_new(plan_few, &unused);
    const char *const args[] = {"--compute-program", fake_compute_path(), NULL};
    d.worker_args = args;
    disturb_open(&d, "undisturbed");
    EXPECT(disturb_await_end(&d, 60), "the undisturbed sweep did not end");
    disturb_close(&d);
    struct buf expected = outcome_read(d.db);

    int n_points = getenv("ISOBIT_TEST_FULL") != NULL ? 40 : 6;
    memset(d.workers, 0, sizeof(d.workers));
    setenv("ISOBIT_FAKE_MS", "5", 1); /* so that there are as many commits */
    for (int i = 0; i < 2 * n_points && cluster_failures() == 0; i++) {
        die_at(&d, 1 + i / 2, i % 2 != 0);
        disturb_start_coordinator(&d);
        EXPECT(disturb_await_end(&d, 60), "the sweep did not end");
        disturb_close(&d);
        outcome_check(d.db, d.events, &expected);
    }
    printf("%d points of death\n", 2 * n_points);
    buf_release(&expected);
    disturb_free(&d);
    return cluster_failures() > 0;
}
