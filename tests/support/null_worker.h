/* A worker without a compute child: answers every job at once with one metric, straight from the protocol's messages, so
 * that what limits a run is the coordinator. For benchmarks and for stories about many jobs. */
#ifndef ISOBIT_TESTS_SUPPORT_NULL_WORKER_H
#define ISOBIT_TESTS_SUPPORT_NULL_WORKER_H

#include <stdbool.h>
#include <stdint.h>

#include "schema/link.h"

enum { NULL_WORKER_BINS = 4096 };

/* May lie in shared memory: written by the worker, read by whoever measures. */
struct null_worker_stats {
    int64_t first_ns, last_ns; /* first LEASE, last ACK */
    int64_t n_accepted, n_fenced;
    int64_t bins
        [NULL_WORKER_BINS]; /* result to acknowledge, in steps of 0.1 ms; the last one: longer */
};

struct null_worker_options {
    const char *endpoint;
    const struct link_keys *keys; /* NULL: none */
    int credit;
    double jobs_per_s; /* at most; 0: as fast as it goes */
    struct null_worker_stats *stats;
};

/* Works until the coordinator says DRAIN, then returns. Aborts (CHECK) on a refusal. */
void null_worker_run(const struct null_worker_options *o);

/* The time in ms under which `share` of all acknowledgements came, over several workers. */
double null_worker_quantile(const struct null_worker_stats *stats, int n, double share);

#endif
