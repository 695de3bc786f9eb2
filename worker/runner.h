/* job -> load -> quantize -> evaluate -> result. Keeps between jobs what the next one can use: the checkpoint, the
 * configuration in force, tokenized evaluations, the 16-bit run's hidden states. Serves `eval` and the compute
 * child of `run` alike. Thread: one at a time; `progress` is called from it. */
#ifndef ISOBIT_WORKER_RUNNER_H
#define ISOBIT_WORKER_RUNNER_H

#include <stdatomic.h>

#include "base/err.h"
#include "schema/job.h"

struct runner; /* opaque */

struct runner_options {
    const char *device;   /* "cpu" */
    int threads;          /* 0: all cores of the affinity mask */
    int64_t memory_bytes; /* budget; 0: what the device has */
    /* Called every now and then with a counter that grows while work goes on, so that a hang can be told from a long
     * layer; returning true asks the runner to stop (ERR_STOPPED). May be NULL. */
    bool (*progress)(void *arg, int64_t counter);
    void *progress_arg;
};

/* Counters of everything since runner_new; loads counts reads of a checkpoint's weights. */
struct runner_stats {
    int64_t checkpoint_loads, configurations, jobs, tokens;
};

MUST_USE enum err_code runner_new(const struct runner_options *o, struct runner **out,
                                  struct err *e);
void runner_free(struct runner *r);

/* Runs one job. The result is owned by `a`. A failed job leaves the runner usable. */
MUST_USE enum err_code runner_run(struct runner *r, const struct job *job, struct job_result *out,
                                  struct arena *a, struct err *e);
const struct runner_stats *runner_get_stats(const struct runner *r);

#endif
