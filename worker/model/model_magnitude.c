#include "worker/model/model_magnitude.h"

#include <math.h>

#include "base/mem.h"
#include "worker/ckpt/convert.h"
#include "worker/model/stream_impl.h"

enum { BLOCK_ROWS = 64 };

/* Whose rows make the units of a pair, and which row unit i is (NULL: i). */
struct source {
    enum role role;
    const int32_t *row_of;
};

static struct source source_of(const struct model *m, enum model_pair pair)
{
    switch (pair) {
    case MODEL_PAIR_FFN1_RELU:
        return (struct source){ROLE_FFN1_W, NULL};
    case MODEL_PAIR_KVQ_ATTN:
        return (struct source){ROLE_QKV_W, m->rank_v};
    case MODEL_PAIR_ATTN_FFN1:
        return (struct source){ROLE_OUT_W, NULL};
    case MODEL_PAIRS:
        break;
    }
    CHECK(false);
    return (struct source){0};
}

/* Standard deviations of a layer's units from the exact keys n * sum x^2 - (sum x)^2, in units of 2^-48. */
static enum err_code fill_spread(struct model *m, struct model_magnitudes *g, enum model_pair pair,
                                 int layer, struct err *e)
{
    const struct source src = source_of(m, pair);
    const struct weight_slot *s = weights_slot(&m->weights, src.role, layer);
    unsigned __int128 *keys = xcalloc((size_t)s->rows, sizeof(*keys));
    enum err_code rc = kern_spread(m->k, weights_master(&m->weights, src.role, layer), s->rows,
                                   s->cols, true, keys, e);
    double *out = g->spread[pair] + layer * g->n_units[pair];
    for (int64_t i = 0; rc == ERR_OK && i < g->n_units[pair]; i++)
        out[i] =
            sqrt((double)keys[src.row_of != NULL ? src.row_of[i] : i]) / (double)s->cols * 0x1p-24;
    xfree(keys);
    return rc;
}

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

enum err_code model_magnitudes_spread_of(struct model *m, struct model_magnitudes *g,
                                         enum model_part part, int layer, struct err *e)
{
    for (int i = 0; i < MODEL_PAIRS; i++)
        if (model_part_of(&m->wiring, source_of(m, (enum model_pair)i).role) == part)
            TRY(fill_spread(m, g, (enum model_pair)i, layer, e));
    return ERR_OK;
}

enum err_code model_magnitudes_spreads(struct model *m, struct model_magnitudes *g, struct err *e)
{
    if (model_is_hosted(m))
        return hosted_spreads(m, g, e);
    for (int layer = 0; layer < g->n_layers; layer++)
        for (int part = 0; part < MODEL_PARTS; part++)
            TRY(model_magnitudes_spread_of(m, g, (enum model_part)part, layer, e));
    return ERR_OK;
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
