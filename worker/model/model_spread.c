/* Spread of the weights that make a unit: of masters on the device, or of those in the window. */
#include "worker/model/model_spread.h"

#include <math.h>

#include "base/mem.h"
#include "worker/model/model_hosted.h"
#include "worker/model/stream_impl.h"

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

static enum err_code fill_part(struct model *m, struct model_magnitudes *g, enum model_part part,
                               int layer, struct err *e)
{
    for (int i = 0; i < MODEL_PAIRS; i++)
        if (model_part_of(&m->wiring, source_of(m, (enum model_pair)i).role) == part)
            TRY(fill_spread(m, g, (enum model_pair)i, layer, e));
    return ERR_OK;
}

static enum err_code fill_layer(struct model *m, struct model_magnitudes *g, int layer,
                                struct err *e)
{
    for (int part = 0; part < MODEL_PARTS; part++)
        TRY(fill_part(m, g, (enum model_part)part, layer, e));
    return ERR_OK;
}

enum err_code model_spreads_of_step(struct model *m, struct model_magnitudes *g, struct err *e)
{
    const struct window *w = &m->stream->window;
    int part;
    const int end = window_parts(w, &part);
    for (; part < end; part++)
        TRY(fill_part(m, g, (enum model_part)part, window_layer(w), e));
    return ERR_OK;
}

static enum err_code fill_step(struct model *m, void *arg, struct err *e)
{
    return model_spreads_of_step(m, arg, e);
}

/* The view stands for the master meanwhile. */
static enum err_code fill_hosted(struct model *m, struct model_magnitudes *g, struct err *e)
{
    m->weights.view = &m->stream->view;
    enum err_code rc = hosted_walk(m, fill_step, g, e);
    m->weights.view = NULL;
    return rc;
}

enum err_code model_magnitudes_spreads(struct model *m, struct model_magnitudes *g, struct err *e)
{
    if (model_is_hosted(m))
        return fill_hosted(m, g, e);
    for (int layer = 0; layer < g->n_layers; layer++)
        TRY(fill_layer(m, g, layer, e));
    return ERR_OK;
}
