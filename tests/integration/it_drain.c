/* Story: leaving in order. A worker or a coordinator that is told to stop finishes what runs, hands back the rest, loses no
 * result and costs no attempt; told twice, it leaves at once and the database still knows where to go on. */
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/support/fake_compute.h"
#include "tests/support/smoke.h"
#include "tests/support/support.h"

static const char leased[] = "SELECT count(*) FROM jobs WHERE state = 'leased'";
static const char failed[] = "SELECT count(*) FROM failures";

static struct smoke start(const char *self, const char *job_ms)
{
    struct smoke s = smoke_open();
    const char *const with_fake[] = {"--compute-program", self, "--grace", "5", NULL};
    const char *const patient[] = {"--grace", "10", NULL};
    setenv("ISOBIT_FAKE_MS", job_ms, 1);
    smoke_serve(&s, patient);
    smoke_work(&s, with_fake);
    return s;
}

static bool await_some_done(const struct smoke *s, int64_t n)
{
    for (int i = 0; i < 1000; i++) {
        if (cluster_query(s->db, SMOKE_DONE) >= n)
            return true;
        usleep(10000);
    }
    return false;
}

static void worker_hands_back_on(int signal, const char *self)
{
    struct smoke s = start(self, "100");
    EXPECT(await_some_done(&s, 2), "no job was done");
    kill(s.worker, signal);
    int status = cluster_wait(s.worker, 5);
    EXPECT(status == 0, "worker ended with %d after signal %d", status, signal);
    s.worker = 0;
    EXPECT(cluster_await(s.db, leased, 0, 1.0), "leases remain after the worker's BYE");
    EXPECT(cluster_query(s.db, SMOKE_DONE) < SMOKE_JOBS, "the sweep was over before the signal");
    EXPECT(cluster_query(s.db, failed) == 0, "leaving cost an attempt");
    smoke_close(&s);
}

static void coordinator_sends_workers_away(const char *self)
{
    struct smoke s = start(self, "100");
    EXPECT(await_some_done(&s, 2), "no job was done");
    kill(s.coordinator, SIGINT);
    int status = cluster_wait(s.coordinator, 8);
    EXPECT(status == 0, "coordinator ended with %d", status);
    s.coordinator = 0;
    status = cluster_wait(s.worker, 3);
    EXPECT(status == 0, "worker ended with %d", status);
    s.worker = 0;
    EXPECT(cluster_query(s.db, leased) == 0, "leases remain");
    EXPECT(cluster_query(s.db, failed) == 0, "leaving cost an attempt");
    smoke_close(&s);
}

static void second_signal_ends_at_once(const char *self)
{
    struct smoke s = start(self, "60000");
    EXPECT(cluster_await(s.db, "SELECT count(*) > 0 FROM jobs WHERE state = 'leased'", 1, 10),
           "nothing was leased");
    int64_t start_ns = clock_mono_ns();
    kill(s.coordinator, SIGTERM);
    usleep(200000);
    kill(s.coordinator, SIGTERM);
    int status = cluster_wait(s.coordinator, 5);
    EXPECT(status == 1, "coordinator ended with %d", status);
    EXPECT(clock_seconds_since(start_ns) < 3, "it took %.1f s", clock_seconds_since(start_ns));
    s.coordinator = 0;

    kill(s.worker, SIGTERM);
    usleep(200000);
    kill(s.worker, SIGTERM);
    status = cluster_wait(s.worker, 5);
    EXPECT(status == 1, "worker ended with %d", status);
    s.worker = 0;
    smoke_close(&s);
}

static void restart_goes_on_and_until_done_ends(const char *self)
{
    struct smoke s = start(self, "20");
    const char *const until_done[] = {"--until-done", NULL};
    const char *const with_fake[] = {"--compute-program", self, NULL};
    EXPECT(await_some_done(&s, 5), "no job was done");
    kill(s.coordinator, SIGTERM);
    EXPECT(cluster_wait(s.coordinator, 8) == 0, "coordinator did not end");
    cluster_wait(s.worker, 3);
    smoke_serve(&s, until_done);
    smoke_work(&s, with_fake);
    int status = cluster_wait(s.coordinator, 30);
    EXPECT(status == 0, "coordinator ended with %d", status);
    s.coordinator = 0;
    EXPECT(cluster_wait(s.worker, 3) == 0, "worker was not sent away");
    s.worker = 0;
    EXPECT(cluster_query(s.db, SMOKE_DONE) == SMOKE_JOBS, "%lld of 50 jobs are done",
           (long long)cluster_query(s.db, SMOKE_DONE));
    smoke_close(&s);
}

/* A worker whose machine is taken away in 5 s leaves before, with nothing cut short. */
static void worker_leaves_before_its_time_ends(const char *self)
{
    struct smoke s = start(self, "100");
    const char *const args[] = {"--compute-program", self, "--walltime", "5s",
                                "--grace",           "1",  NULL};
    EXPECT(await_some_done(&s, 2), "no job was done");
    cluster_kill(s.worker);
    int64_t n_before = cluster_query(s.db, SMOKE_DONE);
    int64_t start_ns = clock_mono_ns();
    smoke_work(&s, args);
    EXPECT(await_some_done(&s, n_before + 3), "no job was done");
    int status = cluster_wait(s.worker, 8);
    double seconds = clock_seconds_since(start_ns);
    EXPECT(status == 0 && seconds < 5.0, "it ended with %d after %.1f s", status, seconds);
    s.worker = 0;
    EXPECT(cluster_await(s.db,
                         "SELECT count(*) FROM failures WHERE worker <> "
                         "(SELECT worker FROM workers ORDER BY first_seen LIMIT 1)",
                         0, 1),
           "leaving cost an attempt");
    smoke_close(&s);
}

int main(int argc, char **argv)
{
    if (fake_compute_main(argc, argv))
        return 0;
    const char *self = fake_compute_path();
    worker_hands_back_on(SIGTERM, self);
    worker_hands_back_on(SIGINT, self);
    coordinator_sends_workers_away(self);
    second_signal_ends_at_once(self);
    restart_goes_on_and_until_done_ends(self);
    worker_leaves_before_its_time_ends(self);
    return cluster_failures() > 0;
}
