/* What a forward pass tells of single units: the spread of the weights that make a unit, beside the magnitude of what it
 * puts out. Pairs of weights and outputs, with one unit each on both sides (table 2 of the first paper):
 *
 *   FFN1_RELU  rows of FFN-1                        outputs of its activation function
 *   KVQ_ATTN   the V rows of the fused QKV          attention's output, where the output projection reads it
 *   ATTN_FFN1  rows of attention's output projection  the residual stream, where FFN-1 reads it (behind its norm) */
#ifndef ISOBIT_WORKER_MODEL_MODEL_MAGNITUDE_H
#define ISOBIT_WORKER_MODEL_MODEL_MAGNITUDE_H

#include "worker/model/model.h"

enum model_pair { MODEL_PAIR_FFN1_RELU, MODEL_PAIR_KVQ_ATTN, MODEL_PAIR_ATTN_FFN1, MODEL_PAIRS };

/* Host memory: for every pair, layer and unit the standard deviation of its weights in the fp16 master, and the sum of
 * magnitudes over all tokens so far. */
struct model_magnitudes {
    int n_layers;
    int64_t n_units[MODEL_PAIRS];
    double *spread[MODEL_PAIRS], *sum[MODEL_PAIRS]; /* [n_layers, n_units] */
    /* A few rows on their way from the device. */
    unsigned char *stored;
    float *values;
};

/* All zero. Caller frees with model_magnitudes_free. */
struct model_magnitudes *model_magnitudes_new(const struct model *m);
/* Fills the spreads of all layers, for a model whose weights are on the device. */
MUST_USE enum err_code model_magnitudes_spreads(struct model *m, struct model_magnitudes *g,
                                                struct err *e);
void model_magnitudes_free(struct model_magnitudes *g);

static inline const double *model_magnitudes_spread(const struct model_magnitudes *g,
                                                    enum model_pair pair, int layer)
{
    return g->spread[pair] + layer * g->n_units[pair];
}

static inline double *model_magnitudes_sum(const struct model_magnitudes *g, enum model_pair pair,
                                           int layer)
{
    return g->sum[pair] + layer * g->n_units[pair];
}

/* Adds x[T, n_units of the pair] (device, compute type). For model_forward.c. */
MUST_USE enum err_code model_magnitudes_add(struct model *m, struct model_magnitudes *g,
                                            enum model_pair pair, int layer, const void *x,
                                            int64_t T, struct err *e);

#endif
