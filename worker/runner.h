/* job -> load -> quantize -> evaluate -> result. Keeps between jobs what the next one can use: the checkpoint, the
 * configuration in force, tokenized evaluations, the 16-bit run's hidden states. Serves `eval` and the compute
 * child of `run` alike. Thread: one at a time; `progress` is called from it. */
#ifndef ISOBIT_WORKER_RUNNER_H
#define ISOBIT_WORKER_RUNNER_H

#include <stdatomic.h>

#include "base/err.h"
#include "schema/job.h"
#include "schema/wire.h"

struct runner; /* opaque */

struct runner_options {
    const char *device;   /* "cpu" */
    int threads;          /* 0: all cores of the affinity mask */
    int64_t memory_bytes; /* budget; 0: what the device has */
    double
        pass_minutes; /* a pass over a checkpoint beyond the budget takes on no more; 0: no limit */
    /* Called every now and then with a counter that grows while work goes on, so that a hang can be told from a long
     * layer; returning true asks the runner to stop (ERR_STOPPED). May be NULL. */
    bool (*progress)(void *arg, int64_t counter);
    void *progress_arg;
};

/* Counters of everything since runner_new; loads counts reads of a checkpoint's weights, passes those of one that does
 * not fit, with what was announced for them. */
struct runner_stats {
    int64_t checkpoint_loads, configurations, jobs, tokens;
    int64_t passes, passes_planned, pass_bytes, pass_bytes_planned;
};

MUST_USE enum err_code runner_new(const struct runner_options *o, struct runner **out,
                                  struct err *e);
void runner_free(struct runner *r);

/* Runs one job. The result is owned by `a`. A failed job leaves the runner usable. */
MUST_USE enum err_code runner_run(struct runner *r, const struct job *job, struct job_result *out,
                                  struct arena *a, struct err *e);
/* What was lacking when a job just failed with a code that says it may work elsewhere. */
enum wire_lack runner_lacks(const struct runner *r);
/* Opens the job's checkpoint; *is_streamed when it does not fit the memory, so that jobs of it should come together. */
MUST_USE enum err_code runner_opens(struct runner *r, const struct job *job, bool *is_streamed,
                                    struct err *e);
/* What will come behind `job`: while the device computes, evaluations of its checkpoint are tokenized, and the first other
 * checkpoint's files are read and hashed, on threads of their own. Changes no result. Everything is copied; jobs beyond
 * RUNNER_MAX_EXPECTED are not looked at. */
enum { RUNNER_MAX_EXPECTED = 16 };
void runner_expect(struct runner *r, const struct job *job, const struct job *next, int n);
/* Where results of a group go, each job once: its result, owned by `a`, or why there is none. */
struct runner_report {
    void (*done)(void *arg, int job, const struct job_result *result, const struct err *why);
    void *arg;
    struct arena *a;
};
/* Runs jobs[n]. Those of a checkpoint that does not fit the memory share passes over it. */
void runner_run_many(struct runner *r, const struct job *jobs, int n,
                     const struct runner_report *report);
const struct runner_stats *runner_get_stats(const struct runner *r);

#endif
