/* Which tensors of a model a configuration quantizes, and whose units rank the inputs of each.
 * Private to worker/model. */
#ifndef ISOBIT_WORKER_MODEL_MODEL_QUANT_H
#define ISOBIT_WORKER_MODEL_MODEL_QUANT_H

#include "worker/model/model_impl.h"

/* Lists of tensors and rank maps; after the weights are there. */
void model_quant_init(struct model *m);
void model_quant_release(struct model *m);

/* Whose lines rank the inputs of a linear layer under a configuration (quantization spec, section 6). */
struct rank_source {
    bool is_ranked; /* false: the layer stays untreated */
    enum role role;
    int layer;
    bool by_rows;
    const int32_t *map; /* line of each input */
};
struct rank_source model_rank_source(const struct model *m, const struct config *c,
                                     const struct weight_tensor *t);

#endif
