/* Story: checkpoints beyond the memory. A worker whose budget is a quarter of them runs the smoke sweep layer by layer and
 * stores the numbers of a worker that holds them whole, to the last bit; killed in the middle of a pass, it loses no result and
 * counts none twice; one with too little memory for that says so, and no attempt is lost. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"
#include "tests/support/cluster.h"
#include "tests/support/support.h"

enum { JOBS = 50, PATIENCE_S = 120 };

static const char done[] = "SELECT count(*) FROM jobs WHERE state = 'done'";
/* Order and every digit count: 52 bits of a value's fraction, weighted by job and metric. */
static const char digest[] =
    "SELECT sum((CAST(round((value - round(value)) * 4503599627370496.0) AS INTEGER) % 1000003) * "
    "(length(metric) + job_id % 89)) FROM (SELECT m.value, m.name AS metric, r.job_id FROM metric "
    "m JOIN "
    "run r ON r.job_id = m.job_id)";

struct story {
    char *dir, *log, *db;
    char endpoint[256];
    pid_t coordinator, worker;
};

static struct story open_story(const char *const *worker)
{
    struct story s = {.dir = support_tmpdir(), .endpoint = "tcp://127.0.0.1:0"};
    s.log = xasprintf("%s/log", s.dir);
    s.db = xasprintf("%s/stream.db", s.dir);
    cluster_plan("sweeps/smoke.yaml", s.db);
    s.coordinator = cluster_serve(s.db, s.endpoint, s.log, NULL);
    s.worker = cluster_worker(s.endpoint, s.log, worker);
    return s;
}

static void close_story(struct story *s)
{
    cluster_kill(s->worker);
    cluster_kill(s->coordinator);
    xfree(s->log);
    xfree(s->db);
    support_tmpdir_remove(s->dir);
}

static const char *const whole[] = {"--device", "cpu", "--threads", "1", NULL};
static const char *const quarter[] = {"--device", "cpu",    "--threads", "1",
                                      "--memory", "340000", NULL};

static const char *const roomy[] = {"--device", "cpu", "--memory", "3000000", NULL};

static int64_t smaller_file(void)
{
    return io_file_size(support_source("sweeps/demo/models/pythia-s0/model.safetensors"));
}

static void numbers_are_those_of_a_resident_run(void)
{
    struct story a = open_story(whole), b = open_story(quarter);
    EXPECT(cluster_await(a.db, done, JOBS, PATIENCE_S), "the resident sweep did not end");
    EXPECT(cluster_await(b.db, done, JOBS, PATIENCE_S), "the streamed sweep did not end");
    const int64_t x = cluster_query(a.db, digest), y = cluster_query(b.db, digest);
    EXPECT(x == y && x != 0, "results differ: %lld, resident %lld", (long long)y, (long long)x);
    const int64_t bytes = cluster_query(b.db, "SELECT sum(weights_read) FROM jobs");
    EXPECT(bytes > 2 * smaller_file(), "%lld bytes were read", (long long)bytes);
    EXPECT(cluster_query(b.db, "SELECT count(*) FROM failures") == 0, "attempts failed");
    close_story(&a);
    close_story(&b);
}

static void jobs_share_passes(void)
{
    struct story s = open_story(roomy);
    EXPECT(cluster_await(s.db, done, JOBS, PATIENCE_S), "the sweep did not end");
    const int64_t bytes = cluster_query(s.db, "SELECT sum(weights_read) FROM jobs");
    EXPECT(bytes > 2 * smaller_file() && bytes < JOBS / 2 * smaller_file(), "%lld bytes were read",
           (long long)bytes);
    close_story(&s);
}

static void a_killed_worker_loses_no_result(void)
{
    struct story s = open_story(quarter);
    for (int i = 0; i < 2000 && cluster_query(s.db, done) < 3; i++)
        usleep(10000);
    cluster_kill(s.worker);
    s.worker = cluster_worker(s.endpoint, s.log, quarter);
    EXPECT(cluster_await(s.db, done, JOBS, PATIENCE_S), "the sweep did not end");
    EXPECT(cluster_query(s.db, "SELECT count(*) FROM run") == JOBS, "a result counts twice");
    close_story(&s);
}

static void too_little_memory_costs_no_attempt(void)
{
    static const char *const tiny[] = {"--device", "cpu", "--memory", "20000", NULL};
    struct story s = open_story(tiny);
    EXPECT(cluster_await(s.db, "SELECT count(*) FROM refusal", 2, 20), "it did not refuse");
    EXPECT(cluster_query(s.db,
                         "SELECT count(*) FROM attempt WHERE outcome IN ('failed', 'lost')") == 0,
           "attempts were lost");
    EXPECT(cluster_query(s.db, done) == 0, "something ran");
    close_story(&s);
}

int main(void)
{
    numbers_are_those_of_a_resident_run();
    jobs_share_passes();
    a_killed_worker_loses_no_result();
    too_little_memory_costs_no_attempt();
    return cluster_failures() != 0;
}
