/* Configurations: how the compute weights of one come about, and its bits (quantization spec,
 * sections 5 and 6). */
#include "base/mem.h"
#include "schema/bits.h"
#include "worker/model/model_hosted.h"
#include "worker/model/model_quant.h"
#include "worker/model/stream_config.h"

static void rank_tensor(const struct model *m, const struct config *c,
                        const struct weight_tensor *t, struct quant_tensor *q)
{
    const struct rank_source from = model_rank_source(m, c, t);
    q->rank_w16 = NULL;
    if (!from.is_ranked)
        return;
    const struct weight_slot *s = weights_slot(&m->weights, from.role, from.layer);
    q->rank_w16 = weights_master(&m->weights, from.role, from.layer);
    q->rank_rows = s->rows;
    q->rank_cols = s->cols;
    q->rank_by_rows = from.by_rows;
    q->rank_at = from.map;
}

static void rank_all(const struct model *m, const struct config *c)
{
    struct quant_tensor *q = m->groups[QUANT_LINEAR].tensors;
    for (int i = 0; i < m->weights.n_tensors; i++)
        if (weights_is_linear(m->weights.tensors[i].role))
            rank_tensor(m, c, &m->weights.tensors[i], q++);
}

static bool is_in_force(const struct config *c, enum quant_group_id id)
{
    switch (id) {
    case QUANT_LINEAR:
        return c->k <= 8;
    case QUANT_HEAD:
        return c->k <= 8 && c->quant_head;
    case QUANT_EMBED:
        return c->k <= 8 && c->quant_embed;
    case QUANT_GROUPS:
        break;
    }
    return false;
}

static enum err_code check_config(const struct model *m, const struct config *c, struct err *e)
{
    if (m->wiring.is_tied && c->k <= 8 && (c->quant_head || c->quant_embed))
        return err_set(
            e, ERR_UNSUPPORTED,
            "%s: %s with tied embeddings would quantize the %s too; leave it out for this "
            "model",
            ckpt_dir(m->ckpt), c->quant_head ? "quant_head" : "quant_embed",
            c->quant_head ? "input embedding" : "head");
    return ERR_OK;
}

/* Puts everything that a configuration may leave alone at its 16-bit value. The linear layers need no cast when they are
 * about to be quantized, nor the rest when it is as it was; casting all else costs less than telling tensors apart. */
static enum err_code restore(struct model *m, const struct config *c, struct err *e)
{
    if (m->is_rest_cast && c->k <= 8)
        return ERR_OK;
    TRY(weights_cast_all(&m->weights, e));
    m->is_rest_cast = true;
    return ERR_OK;
}

static enum err_code apply(struct model *m, const struct config *c, struct err *e)
{
    if (c->k == 32) {
        m->is_rest_cast = false;
        m->has_run_stored = true;
        return weights_read_stored(&m->weights, e);
    }
    if (model_is_hosted(m)) {
        TRY(hosted_apply(m, c, e));
        m->has_run_stored = false;
        return ERR_OK;
    }
    TRY(restore(m, c, e));
    rank_all(m, c);
    for (int i = 0; i < QUANT_GROUPS; i++) {
        struct quant_group *g = &m->groups[i];
        if (!is_in_force(c, (enum quant_group_id)i))
            continue;
        if (i != QUANT_LINEAR)
            m->is_rest_cast = false;
        TRY(quant_apply(m->k, c, g->tensors, g->n, g->cache, g->n_keep, e));
    }
    return ERR_OK;
}

/* At k >= 16 the accounting still asks which tensors are linear layers. */
static void account(struct model *m, const struct config *c)
{
    int n = 0, n_max = 0;
    for (int i = 0; i < QUANT_GROUPS; i++)
        n_max += m->groups[i].n;
    struct bits_tensor *t = xcalloc((size_t)n_max, sizeof *t);
    for (int i = 0; i < QUANT_GROUPS; i++) {
        const struct quant_group *g = &m->groups[i];
        if (i != QUANT_LINEAR && !is_in_force(c, (enum quant_group_id)i))
            continue;
        for (int j = 0; j < g->n; j++)
            t[n++] = (struct bits_tensor){.out = g->tensors[j].rows,
                                          .in = g->tensors[j].cols,
                                          .n_keep = c->k <= 8 ? g->n_keep[j] : 0};
    }
    m->bits = bits_of(c, t, n, m->info.n_params);
    xfree(t);
}

enum err_code model_set_config(struct model *m, const struct config *c, struct bits *bits,
                               struct err *e)
{
    CHECK(m->n_started == m->n_finished);
    if (!m->has_config || !config_equal(c, &m->config)) {
        TRY(check_config(m, c, e));
        m->has_config = false;
        TRY(apply(m, c, e));
        if (model_is_hosted(m))
            stream_bits(m, c, &m->bits);
        else
            account(m, c);
        m->config = *c;
        m->has_config = true;
    }
    *bits = m->bits;
    return ERR_OK;
}
