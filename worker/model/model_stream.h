/* Passes over a checkpoint that does not fit: the batches of a pass go through the layers together, each under its own
 * configuration, and get the answers that model_run would give them (docs/STREAMING.md). Thread: one at a time. */
#ifndef ISOBIT_WORKER_MODEL_MODEL_STREAM_H
#define ISOBIT_WORKER_MODEL_MODEL_STREAM_H

#include "worker/model/model.h"

/* A batch under a configuration. Units of one configuration stand together. */
struct stream_unit {
    int config;    /* index into the pass's */
    int64_t batch; /* equal numbers: equal sequences */
    int64_t n_tokens;
    struct model_magnitudes *magnitudes; /* NULL, or where sizes of activations are added */
};

struct stream_pass {
    const struct config *configs; /* all of k <= 16, or all of k 32 */
    int n_configs;
    const struct stream_unit *units; /* as many as plan_take allows */
    int64_t n_units;
    /* The batch of a unit; it and its answers stay until the next call. `magnitudes` is not looked at. */
    void (*build)(void *arg, int64_t unit, struct model_batch *out, struct model_answer **answers);
    /* The answers of the unit built last are there. */
    enum err_code (*take)(void *arg, int64_t unit, struct err *e);
    bool (*progress)(void *arg); /* now and then; true asks to stop */
    void *arg;
};

/* Tokens as a unit keeps them, for plan_take. */
int64_t model_stream_tokens(const struct model *m, int64_t n_tokens);
/* Bytes that so many passes will read; the first one with outliers looks at the embedding once more. */
int64_t model_stream_bytes(const struct model *m, int64_t n_passes, bool has_outliers);
/* Runs one pass. *bytes is what it read of the files. Errors: those of model_run and of reading weights; ERR_STOPPED. */
MUST_USE enum err_code model_stream_run(struct model *m, const struct stream_pass *p,
                                        int64_t *bytes, struct err *e);
/* What model_set_config says of a configuration, without putting it in force. Errors: ERR_NOMEM for one that cannot be
 * streamed. */
MUST_USE enum err_code model_stream_check(const struct model *m, const struct config *c,
                                          struct bits *bits, struct err *e);

#endif
