/* Which tensors are quantized, and whose units rank whose inputs (quantization spec, sections 5
 * and 6). */
#include "worker/model/model_quant.h"

#include "base/mem.h"

static struct quant_tensor quant_tensor_of(const struct model *m, const struct weight_tensor *t)
{
    if (m->stream != NULL) /* placed step by step */
        return (struct quant_tensor){.name = t->src->name, .rows = t->rows, .cols = t->cols};
    return (struct quant_tensor){.name = t->src->name,
                                 .w16 = m->weights.master + t->at,
                                 .rows = t->rows,
                                 .cols = t->cols,
                                 .out = weights_compute_at(&m->weights, t->at)};
}

static void group_init(struct model *m, enum quant_group_id id, bool (*is_member)(enum role role))
{
    struct quant_group *g = &m->groups[id];
    const struct weights *w = &m->weights;
    g->tensors = xcalloc((size_t)w->n_tensors, sizeof *g->tensors);
    g->n_keep = xcalloc((size_t)w->n_tensors, sizeof *g->n_keep);
    for (int i = 0; i < w->n_tensors; i++)
        if (is_member(w->tensors[i].role))
            g->tensors[g->n++] = quant_tensor_of(m, &w->tensors[i]);
    g->cache = quant_cache_new(g->n);
}

static bool is_head(enum role role)
{
    return role == ROLE_HEAD;
}

static bool is_embed(enum role role)
{
    return role == ROLE_EMBED;
}

void model_quant_init(struct model *m)
{
    const struct wiring *w = &m->wiring;
    int n = w->ffn > w->d ? w->ffn : w->d;
    m->rank_same = xcalloc((size_t)n, sizeof *m->rank_same);
    for (int i = 0; i < n; i++)
        m->rank_same[i] = i;
    m->rank_v = xcalloc((size_t)w->d, sizeof *m->rank_v);
    for (int i = 0; i < w->d; i++) {
        int h = i / w->head_dim, c = i % w->head_dim;
        m->rank_v[i] = w->is_qkv_by_head ? (3 * h + 2) * w->head_dim + c : 2 * w->d + i;
    }
    group_init(m, QUANT_LINEAR, weights_is_linear);
    group_init(m, QUANT_HEAD, is_head);
    group_init(m, QUANT_EMBED, is_embed);
}

void model_quant_release(struct model *m)
{
    for (int i = 0; i < QUANT_GROUPS; i++) {
        xfree(m->groups[i].tensors);
        xfree(m->groups[i].n_keep);
        quant_cache_free(m->groups[i].cache);
    }
    xfree(m->rank_same);
    xfree(m->rank_v);
}

/* The units that write the residual stream in front of a layer: FFN-2 of the layer before; in front of the first
 * one the channels of the token embedding, or the rows of the projection behind it. */
static struct rank_source rank_by_residual(const struct model *m, int layer)
{
    if (layer > 0)
        return (struct rank_source){true, ROLE_FFN2_W, layer - 1, true, m->rank_same};
    if (m->wiring.has_projection)
        return (struct rank_source){true, ROLE_PROJECT_IN, 0, true, m->rank_same};
    return (struct rank_source){true, ROLE_EMBED, 0, false, m->rank_same};
}

struct rank_source model_rank_source(const struct model *m, const struct config *c,
                                     const struct weight_tensor *t)
{
    const bool by_residual = c->outlier_rule == OUTLIER_RULE_PREVIOUS_RESID;
    if (t->role == ROLE_QKV_W || (t->role == ROLE_FFN1_W && by_residual))
        return rank_by_residual(m, t->layer);
    if (t->role == ROLE_OUT_W)
        return (struct rank_source){true, ROLE_QKV_W, t->layer, true, m->rank_v};
    if (t->role == ROLE_FFN2_W)
        return (struct rank_source){true, ROLE_FFN1_W, t->layer, true, m->rank_same};
    if (t->role == ROLE_FFN1_W)
        return (struct rank_source){true, ROLE_OUT_W, t->layer, true, m->rank_same};
    return (struct rank_source){0}; /* project_in and project_out stay untreated */
}
