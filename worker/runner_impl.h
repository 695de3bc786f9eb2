/* struct runner, shared by runner.c (what is kept between jobs, jobs on a resident checkpoint) and runner_passes.c (groups of
 * jobs on one that runs layer by layer). Private. */
#ifndef ISOBIT_WORKER_RUNNER_IMPL_H
#define ISOBIT_WORKER_RUNNER_IMPL_H

#include "worker/eval/eval.h"
#include "worker/eval/pack.h"
#include "worker/runner.h"

/* An evaluation ready to run on the checkpoint in force. The set outlives the checkpoint as long as tokenizer and
 * context stay the same; packing and reference rows belong to the model. */
struct prepared {
    char *key;
    struct eval_set set;
    bool is_packed;
    struct eval_pack pack;
    struct model_ref_rows *ref; /* NULL until the 16-bit run was made */
};

enum { MAX_PREPARED = 64 };

struct runner {
    char *device;
    struct runner_options options;
    struct kern *kern;
    enum compute compute; /* of kern */
    /* The checkpoint in force; all NULL when there is none. */
    char *model_key;
    struct ckpt *ckpt;
    struct model *model;
    struct tok *tok;
    char weights_sha256[SHA256_HEX];
    /* The configuration in force. */
    bool has_config;
    struct config config;
    struct bits bits;
    struct prepared prepared[MAX_PREPARED];
    int n_prepared;
    char set_tokenizer[SHA256_HEX]; /* what the prepared sets were made with */
    int64_t set_context;
    int64_t counter;
    struct runner_stats stats;
    int64_t unreported_bytes; /* of weight files read since the last result */
};

bool runner_tell_progress(void *arg);
/* The checkpoint of a job, and its evaluation packed for it. */
MUST_USE enum err_code runner_ensure_model(struct runner *r, const struct model_ref *m,
                                           enum compute compute, struct err *e);
MUST_USE enum err_code runner_prepare(struct runner *r, const struct eval_spec *ev,
                                      struct prepared **out, struct err *e);
void runner_drop_prepared(struct runner *r);
struct config runner_baseline(const struct runner *r);
/* KL needs a head and embeddings that are the baseline's own. */
bool runner_is_compared(const struct config *c, enum task t);
/* Everything of a result that the evaluation does not know. */
void runner_describe(struct runner *r, const struct bits *bits, struct job_result *out,
                     struct arena *a);

/* Jobs of one checkpoint and arithmetic, in passes. Those that it does not get to in one go are left to the next call:
 * done[i] is set for those that were reported. */
void runner_run_passes(struct runner *r, const struct job *jobs, int n, bool *done,
                       const struct runner_report *report);

#endif
