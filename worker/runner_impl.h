/* struct runner, shared by the files that make it up. From the top down: runner_jobs.c (its life,
 * jobs on a resident checkpoint), runner_passes.c (groups of jobs on one that runs layer by layer),
 * runner_model.c (the checkpoint in force), runner_ahead.c (host work for jobs to come),
 * runner_sets.c (evaluations ready to run), runner.c (facts). Private. */
#ifndef ISOBIT_WORKER_RUNNER_IMPL_H
#define ISOBIT_WORKER_RUNNER_IMPL_H

#include "worker/eval/ahead.h"
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

/* Host work for jobs to come, on threads of its own. */
struct foresight {
    struct arena arena; /* strings of evals */
    struct eval_spec
        evals[RUNNER_MAX_EXPECTED]; /* asked for, not begun: they wait for their checkpoint */
    int n_evals;
    struct eval_ahead *sets; /* being tokenized for the checkpoint in force; NULL: none */
    struct ckpt *next;       /* opened and being hashed; NULL: none */
    char *next_key;
};

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
    /* The configuration in force. */
    bool has_config;
    struct config config;
    struct bits bits;
    struct prepared prepared[MAX_PREPARED];
    int n_prepared;
    char set_tokenizer[SHA256_HEX]; /* what the prepared sets were made with */
    int64_t set_context;
    struct foresight ahead;
    int64_t counter;
    enum wire_lack lacks; /* what an error now would mean, when its code says elsewhere */
    struct runner_stats stats;
    int64_t unreported_bytes; /* of weight files read since the last result */
};

/* ---- runner.c ---- */

bool runner_tell_progress(void *arg);
/* "path|hub|revision"; caller frees. */
char *runner_model_key(const struct model_ref *m);
/* Of one checkpoint and arithmetic. */
bool runner_is_like(const struct job *a, const struct job *b);
struct config runner_baseline(const struct runner *r);
/* KL needs a head and embeddings that are the baseline's own. */
bool runner_is_compared(const struct config *c, enum task t);

/* ---- runner_sets.c ---- */

/* The evaluation, packed for the checkpoint in force. */
MUST_USE enum err_code runner_prepare(struct runner *r, const struct eval_spec *ev,
                                      struct prepared **out, struct err *e);
/* The evaluation's place among the prepared ones, or NULL. */
struct prepared *runner_find_prepared(struct runner *r, const struct eval_spec *ev);
/* Gives up what depends on the model; the sets stay. */
void runner_unpack(struct runner *r);
void runner_drop_prepared(struct runner *r);
/* Those that are being made: for another tokenizer or context they are of no use. */
void runner_drop_sets_ahead(struct runner *r);

/* ---- runner_ahead.c ---- */

/* The checkpoint of this key when it was opened ahead, the caller's now; else NULL. */
struct ckpt *runner_ahead_take(struct runner *r, const char *key);
/* Begins what waits for the checkpoint that is in force now. */
void runner_ahead_begin(struct runner *r);
/* Gives up everything. */
void runner_ahead_stop(struct runner *r);

/* ---- runner_model.c ---- */

/* Puts a checkpoint in force. */
MUST_USE enum err_code runner_ensure_model(struct runner *r, const struct model_ref *m,
                                           enum compute compute, struct err *e);
void runner_unload(struct runner *r);
/* Everything of a result that the evaluation does not know. */
void runner_describe(struct runner *r, const struct bits *bits, struct job_result *out,
                     struct arena *a);

/* ---- runner_passes.c ---- */

/* Jobs of one checkpoint and arithmetic, in passes. Those that it does not get to in one go are left to the next call:
 * done[i] is set for those that were reported. */
void runner_run_passes(struct runner *r, const struct job *jobs, int n, bool *done,
                       const struct runner_report *report);

#endif
