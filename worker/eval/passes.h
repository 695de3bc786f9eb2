/* Evaluations of several configurations on a checkpoint that does not fit the memory: their batches are cut into passes,
 * each of which reads the checkpoint once (docs/STREAMING.md). Scores are those of eval_run. Thread: one at a time. */
#ifndef ISOBIT_WORKER_EVAL_PASSES_H
#define ISOBIT_WORKER_EVAL_PASSES_H

#include "worker/eval/pack.h"

/* One evaluation under one configuration. args: model, progress and progress_arg are not looked at. */
struct pass_item {
    struct config config;
    struct eval_run_args args;
    struct eval_scores scores; /* filled; empty when it failed. The caller releases them */
    double seconds;            /* its share by tokens */
    enum err_code code;        /* ERR_OK, or why it has no scores (ERR_NUMERIC); others go on */
    struct err why;
};

struct passes_options {
    int64_t taken_bytes; /* of the memory that the plan leaves for activations, by reference rows */
    double minutes;      /* that a pass should not exceed, by expected rates; 0: no limit */
    bool (*progress)(void *arg); /* may be NULL */
    void *progress_arg;
    /* Called for an item behind the pass that finished it: its scores and seconds, or its code, stand. */
    void (*done)(void *arg, int item);
    void *done_arg;
};

struct passes_stats {
    int64_t n_planned, planned_bytes; /* announced before the first pass */
    int64_t n_run, bytes;             /* counted */
};

/* What was read since the last call of `done` is in stats when it is called. Items of equal configurations stand together, those that record in front of those that compare with it; all compute
 * alike, and all have k 32 or none. Errors: those of model_stream_run; items that were
 * not done then have empty scores. */
MUST_USE enum err_code passes_run(struct model *m, struct pass_item *items, int n,
                                  const struct passes_options *o, struct passes_stats *stats,
                                  struct err *e);

#endif
