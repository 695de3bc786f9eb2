/* Story: checkpoints beyond the memory. A worker whose budget is a quarter of them runs the smoke sweep layer by layer and
 * stores the numbers of a worker that holds them whole, to the last bit; killed in the middle of a pass, it loses no result and
 * counts none twice; one with too little memory for that says so, and no attempt is lost. */
#include <unistd.h>

#include "base/io.h"
#include "tests/support/smoke.h"
#include "tests/support/support.h"

enum { PATIENCE_S = 120 };

/* Order and every digit count: 52 bits of a value's fraction, weighted by job and metric. */
static const char digest[] =
    "SELECT sum((CAST(round((value - round(value)) * 4503599627370496.0) AS INTEGER) % 1000003) * "
    "(length(metric) + job_id % 89)) FROM (SELECT m.value, m.name AS metric, r.job_id FROM metric "
    "m JOIN "
    "run r ON r.job_id = m.job_id)";

static struct smoke start(const char *const *worker)
{
    struct smoke s = smoke_open();
    smoke_serve(&s, NULL);
    smoke_work(&s, worker);
    return s;
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
    struct smoke a = start(whole), b = start(quarter);
    EXPECT(cluster_await(a.db, SMOKE_DONE, SMOKE_JOBS, PATIENCE_S),
           "the resident sweep did not end");
    EXPECT(cluster_await(b.db, SMOKE_DONE, SMOKE_JOBS, PATIENCE_S),
           "the streamed sweep did not end");
    const int64_t x = cluster_query(a.db, digest), y = cluster_query(b.db, digest);
    EXPECT(x == y && x != 0, "results differ: %lld, resident %lld", (long long)y, (long long)x);
    const int64_t bytes = cluster_query(b.db, "SELECT sum(weights_read) FROM jobs");
    EXPECT(bytes > 2 * smaller_file(), "%lld bytes were read", (long long)bytes);
    EXPECT(cluster_query(b.db, "SELECT count(*) FROM failures") == 0, "attempts failed");
    smoke_close(&a);
    smoke_close(&b);
}

static void jobs_share_passes(void)
{
    struct smoke s = start(roomy);
    EXPECT(cluster_await(s.db, SMOKE_DONE, SMOKE_JOBS, PATIENCE_S), "the sweep did not end");
    const int64_t bytes = cluster_query(s.db, "SELECT sum(weights_read) FROM jobs");
    EXPECT(bytes > 2 * smaller_file() && bytes < SMOKE_JOBS / 2 * smaller_file(),
           "%lld bytes were read", (long long)bytes);
    smoke_close(&s);
}

static void a_killed_worker_loses_no_result(void)
{
    struct smoke s = start(quarter);
    for (int i = 0; i < 2000 && cluster_query(s.db, SMOKE_DONE) < 3; i++)
        usleep(10000);
    cluster_kill(s.worker);
    smoke_work(&s, quarter);
    EXPECT(cluster_await(s.db, SMOKE_DONE, SMOKE_JOBS, PATIENCE_S), "the sweep did not end");
    EXPECT(cluster_query(s.db, "SELECT count(*) FROM run") == SMOKE_JOBS, "a result counts twice");
    smoke_close(&s);
}

static void too_little_memory_costs_no_attempt(void)
{
    static const char *const tiny[] = {"--device", "cpu", "--memory", "20000", NULL};
    struct smoke s = start(tiny);
    EXPECT(cluster_await(s.db, "SELECT count(*) FROM refusal", 2, 20), "it did not refuse");
    EXPECT(cluster_query(s.db,
                         "SELECT count(*) FROM attempt WHERE outcome IN ('failed', 'lost')") == 0,
           "attempts were lost");
    EXPECT(cluster_query(s.db, SMOKE_DONE) == 0, "something ran");
    smoke_close(&s);
}

int main(void)
{
    numbers_are_those_of_a_resident_run();
    jobs_share_passes();
    a_killed_worker_loses_no_result();
    too_little_memory_costs_no_attempt();
    return cluster_failures() != 0;
}
