/* How many Slurm jobs there should be: what to submit, what to cancel, when to pause. Each turn tells it what the queue looks
 * like and asks what to do. Pure.
 *
 * A job that failed soon after its start, or that left idle while work was waiting and nobody did any, is a failed start; after
 * a few in a row nothing more is submitted, because whatever is wrong would be wrong for the next one too and would only fill
 * the queue. */
#ifndef ISOBIT_COORDINATOR_ALLOC_H
#define ISOBIT_COORDINATOR_ALLOC_H

#include "coordinator/slurm_text.h"

enum { ALLOC_MAX_FAILED_SUBMITS = 10, ALLOC_MAX_FAILED_STARTS = 3 };

struct alloc_limits {
    int64_t max;     /* jobs, queued and running */
    int64_t backlog; /* of them queued */
    int64_t idle_s;  /* after which a worker without a job leaves */
};

struct alloc {
    struct alloc_limits limits;
    struct slurm_job *v; /* jobs that have not ended */
    int n, cap;
    int failed_submits, failed_starts; /* in a row */
    int64_t n_finished;                /* jobs of ours that were done at the last look */
    int64_t stuck_s;                   /* how long work has been waiting and nothing was done */
    bool is_paused;
};

void alloc_release(struct alloc *a);

/* How a job that is no longer there ended. */
enum alloc_verdict {
    ALLOC_LEFT,   /* in peace */
    ALLOC_TAKEN,  /* by the cluster or by people */
    ALLOC_FAILED, /* soon after its start */
    ALLOC_USELESS /* it found nothing to do although work was waiting */
};
struct alloc_end {
    struct slurm_job job;
    enum alloc_verdict verdict;
};
/* Our own jobs, and how long ago they were counted before. */
struct alloc_work {
    int64_t n_pending, n_finished;
    int64_t passed_s;
};
/* Takes in the whole queue as squeue shows it. *ends (owned by `arena`): jobs that have ended since the last call. */
void alloc_observe(struct alloc *a, const struct slurm_job *seen, int n_seen,
                   const struct alloc_work *work, struct arena *arena, struct alloc_end **ends,
                   int *n_ends);

/* How many to submit now. */
int alloc_to_submit(const struct alloc *a, int64_t n_pending);
/* Whether queued jobs should go: nothing waits for them. */
bool alloc_is_queue_idle(const struct alloc *a, int64_t n_pending);
int alloc_count(const struct alloc *a, enum slurm_phase phase);

void alloc_submitted(struct alloc *a, int64_t id);
void alloc_submit_failed(struct alloc *a);
/* After a pause. */
void alloc_resume(struct alloc *a);

#endif
