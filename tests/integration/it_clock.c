/* Story: the wall clock jumps an hour ahead and two hours back while a sweep runs (a bad NTP server, a suspended machine).
 * Leases, heartbeats and timeouts are on the monotonic clock: no session ends, no attempt is lost, every job is done. The
 * coordinator runs in a process whose clock_gettime and gettimeofday are this file's. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "coordinator/serve.h"
#include "tests/support/cluster.h"
#include "tests/support/fake_compute.h"
#include "tests/support/history.h"
#include "tests/support/support.h"

static int64_t offset_s;

/* In place of the C library's, for this program and the libraries in it. */
int clock_gettime(clockid_t id, struct timespec *t)
{
    int rc = (int)syscall(SYS_clock_gettime, id, t);
    if (rc == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
        t->tv_sec += offset_s;
    return rc;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone)
{
    int rc = (int)syscall(SYS_gettimeofday, t, zone);
    t->tv_sec += rc == 0 ? offset_s : 0;
    return rc;
}

struct life {
    char endpoint[256];
    int n_jumps;
};

struct turns {
    struct life *life;
    int64_t start_ns;
};

static void on_turn(void *arg, struct serve *s, int64_t now_ns)
{
    static const int64_t offsets_s[] = {0, 3600, -3600, 0, 3600};
    const struct turns *t = arg;
    (void)s;
    int64_t n = (now_ns - t->start_ns) / CLOCK_NS_PER_S;
    offset_s = offsets_s[n < 4 ? n : 4];
    t->life->n_jumps = n < 4 ? (int)n : 4;
}

static void serve_through_jumps(const char *db, const char *events, struct life *life)
{
    struct serve *s = NULL;
    struct err e;
    struct turns turns = {life, clock_mono_ns()};
    const struct serve_options o = {.db_path = db,
                                    .listen = "tcp://127.0.0.1:0",
                                    .events_path = events,
                                    .grace_ns = 5 * CLOCK_NS_PER_S,
                                    .is_until_done = true,
                                    .turn = on_turn,
                                    .turn_arg = &turns,
                                    .dispatch = {.heartbeat_ns = CLOCK_NS_PER_S / 10,
                                                 .lease_ns = 3 * CLOCK_NS_PER_S / 2,
                                                 .slice_ns = CLOCK_NS_PER_S,
                                                 .max_attempts = 1}};
    if (serve_open(&o, &s, &e) != ERR_OK)
        BUG(e.text);
    strncpy(life->endpoint, serve_endpoint(s), 255);
    enum serve_end end = serve_run(s);
    serve_close(s);
    _exit(end == SERVE_DONE ? 0 : 1);
}

int main(int argc, char **argv)
{
    if (fake_compute_main(argc, argv))
        return 0;
    log_setup(LOG_ERROR, false, NULL);
    char *dir = support_tmpdir(), *db = xasprintf("%s/clock.db", dir);
    char *log = xasprintf("%s/log", dir), *events = xasprintf("%s/events", dir);
    struct life *life =
        mmap(NULL, sizeof(*life), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int status = 0;
    CHECK(life != MAP_FAILED);
    cluster_plan("sweeps/smoke.yaml", db);
    setenv("XDG_RUNTIME_DIR", dir, 1);
    setenv("ISOBIT_FAKE_MS", "100", 1); /* 50 jobs: five seconds */
    pid_t pid = fork();
    if (pid == 0)
        serve_through_jumps(db, events, life);
    while (life->endpoint[0] == '\0' && kill(pid, 0) == 0)
        usleep(10000);
    const char *const args[] = {"--compute-program", fake_compute_path(), NULL};
    pid_t worker = cluster_worker(life->endpoint, log, args);
    CHECK(waitpid(pid, &status, 0) == pid);
    EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the coordinator ended with %d", status);
    EXPECT(life->n_jumps == 4, "the sweep was over after %d jumps", life->n_jumps);
    EXPECT(cluster_wait(worker, 10) == 0, "the worker was not sent away in peace");
    EXPECT(cluster_query(db, "SELECT count(*) FROM jobs WHERE state = 'done'") == 50,
           "not all done");
    EXPECT(cluster_query(db, "SELECT count(*) FROM failures") == 0, "a jump cost an attempt");
    struct history h;
    history_read(events, &h);
    EXPECT(h.n_violations == 0 && h.n_lost == 0 && h.n_done == 50, "the log: %s",
           h.violations.data);
    history_release(&h);
    munmap(life, sizeof(*life));
    xfree(events);
    xfree(log);
    xfree(db);
    support_tmpdir_remove(dir);
    return cluster_failures() > 0;
}
