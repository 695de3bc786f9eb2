#include "worker/model/model_magnitude.h"

#include <math.h>

#include "base/mem.h"
#include "worker/ckpt/convert.h"
#include "worker/model/model_impl.h"

enum { BLOCK_ROWS = 64 };

struct model_magnitudes *model_magnitudes_new(const struct model *m)
{
    struct model_magnitudes *g = xcalloc(1, sizeof(*g));
    const size_t layers = (size_t)m->wiring.n_layers;
    g->n_layers = m->wiring.n_layers;
    g->n_units[MODEL_PAIR_FFN1_RELU] = m->wiring.ffn;
    g->n_units[MODEL_PAIR_KVQ_ATTN] = g->n_units[MODEL_PAIR_ATTN_FFN1] = m->wiring.d;
    const int64_t widest = m->wiring.ffn > m->wiring.d ? m->wiring.ffn : m->wiring.d;
    g->stored = xcalloc((size_t)widest * BLOCK_ROWS, (size_t)m->weights.act_bytes);
    g->values = xcalloc((size_t)widest * BLOCK_ROWS, sizeof(*g->values));
    for (int i = 0; i < MODEL_PAIRS; i++) {
        g->spread[i] = xcalloc(layers * (size_t)g->n_units[i], sizeof(**g->spread));
        g->sum[i] = xcalloc(layers * (size_t)g->n_units[i], sizeof(**g->sum));
    }
    return g;
}

void model_magnitudes_free(struct model_magnitudes *g)
{
    if (g == NULL)
        return;
    for (int i = 0; i < MODEL_PAIRS; i++) {
        xfree(g->spread[i]);
        xfree(g->sum[i]);
    }
    xfree(g->stored);
    xfree(g->values);
    xfree(g);
}

/* How activations are stored; convert.h reads them. A device may keep those of a narrower type in fp32. */
static enum ckpt_dtype stored_as(enum compute c, int act_bytes)
{
    if (act_bytes == (int)sizeof(float))
        return CKPT_F32;
    switch (c) {
    case COMPUTE_FP16:
        return CKPT_F16;
    case COMPUTE_BF16:
        return CKPT_BF16;
    case COMPUTE_FP32:
    case COMPUTE_COUNT:
        break;
    }
    return CKPT_F32;
}

enum err_code model_magnitudes_add(struct model *m, struct model_magnitudes *g,
                                   enum model_pair pair, int layer, const void *x, int64_t T,
                                   struct err *e)
{
    const int64_t n = g->n_units[pair], row_bytes = n * m->weights.act_bytes;
    double *sum = model_magnitudes_sum(g, pair, layer);
    struct convert_counts unused = {0};
    for (int64_t t = 0; t < T; t += BLOCK_ROWS) {
        const int64_t rows = T - t < BLOCK_ROWS ? T - t : BLOCK_ROWS;
        TRY(kern_download(m->k, g->stored, (const char *)x + t * row_bytes,
                          (size_t)(rows * row_bytes), e));
        convert_to_f32(stored_as(m->config.compute, m->weights.act_bytes), g->stored,
                       (size_t)(rows * n), g->values, &unused);
        for (int64_t i = 0; i < rows * n; i++)
            sum[i % n] += fabs((double)g->values[i]);
    }
    return ERR_OK;
}
