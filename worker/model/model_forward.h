/* The forward pass: whole, for weights that are on the device, and in the parts of which it is made,
 * for those that pass through a window. Private to worker/model. */
#ifndef ISOBIT_WORKER_MODEL_MODEL_FORWARD_H
#define ISOBIT_WORKER_MODEL_MODEL_FORWARD_H

#include "worker/model/model_impl.h"

/* How a batch lies in the rows of the work space. */
struct model_rows {
    const struct kern_seq *seqs;
    int n_seqs;
    int64_t T;
};

/* lists.ids and positions to ws.x. */
MUST_USE enum err_code model_embed(struct model *m, int64_t T, struct err *e);
MUST_USE enum err_code model_part_run(struct model *m, int layer, enum model_part part,
                                      const struct model_rows *b, struct model_magnitudes *watch,
                                      struct err *e);
/* Runs all layers; ws.x then holds the residual stream of T tokens. The lists ids, positions and seqs are filled. `watch`
 * is NULL or where sizes of activations are added. */
MUST_USE enum err_code model_forward(struct model *m, int n_seqs, int64_t T,
                                     struct model_magnitudes *watch, struct err *e);
/* Final norm and projection of x's rows[n], which has room for model_step_rows; *out is [n, d_embed] and stays until the
 * next batch. */
MUST_USE enum err_code model_hidden(struct model *m, int32_t *rows, int64_t n, int64_t T,
                                    const void **out, struct err *e);
const void *model_head(const struct model *m);

#endif
