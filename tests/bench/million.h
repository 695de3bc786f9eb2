/* A database of a million jobs of which half are done, 1000 leased and 1000 buried, with 16 workers. */
#ifndef ISOBIT_TESTS_BENCH_MILLION_H
#define ISOBIT_TESTS_BENCH_MILLION_H

#include "schema/store_impl.h"
#include "schema/store_work.h"
#include "tests/bench/bench.h"
#include "tests/support/sweep_fixture.h"

static const char million_fill[] =
    "INSERT INTO worker (id, uuid, host, device, program, numerics, memory_bytes, computes, pid, "
    "state, first_seen_ms, last_seen_ms, public_key) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL "
    "SELECT i + 1 "
    "FROM n WHERE i < 16) SELECT i, printf('%032d', i), 'host', 'cpu', 'isobit 0.1.0', 1, 0, "
    "'fp32', i, 'live', 0, 0, '' FROM n;"
    "INSERT INTO provenance VALUES (1, 'cpu', 'host', 'isobit 0.1.0', 1, 'a', 'b', 'c', '');"
    "UPDATE job SET state = 'done', attempt = 1 WHERE id <= 500000;"
    "UPDATE job SET state = 'leased', attempt = 1, worker_id = 1 + id % 16 "
    "WHERE id BETWEEN 500001 AND 501000;"
    "UPDATE job SET state = 'buried', attempt = 3, failures = 3 WHERE id BETWEEN 501001 AND 502000;"
    "INSERT INTO run SELECT id, 1, 1 + id % 16, 1, 0.5, 100, 5000, 1700000000000, 0 FROM job "
    "WHERE state = 'done';"
    "INSERT INTO metric SELECT id, 'acc', 0.5, 0.01, 100 FROM job WHERE state = 'done';"
    "INSERT INTO attempt SELECT id, 3, 1, 0, 1, 'failed', 'CRASHED', 'the compute process ended' "
    "FROM job WHERE state = 'buried';"
    "INSERT INTO pace SELECT unixepoch('now') / 60, 1, 1000";

/* arg: the path. For bench_start, so that the memory it takes is not this process's. */
static inline void million_make(void *arg)
{
    struct arena a = {0};
    struct err e;
    struct store *s = NULL;
    struct store_plan_counts counts;
    struct sweep sw = fixture_sweep(&a, "million", 20, 10000, 5);
    bench_must(store_open(arg, STORE_CREATE, &s, &e), &e);
    bench_must(store_plan(s, &sw, 0, &counts, &e), &e);
    bench_must(store_begin(s, &e), &e);
    bench_must(store_exec(s, million_fill, &e), &e);
    bench_must(store_recount(s, &e), &e);
    bench_must(store_commit(s, &e), &e);
    store_close(s);
    arena_release(&a);
}

#endif
