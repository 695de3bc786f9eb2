/* Configurations in a window: which of its tensors are quantized, and the keys that rank their inputs. */
#include "worker/model/stream_config.h"

#include "base/mem.h"
#include "schema/bits.h"
#include "worker/model/model_quant.h"

/* Columns of an embedding on their way at a time. */
enum { COLUMNS_BYTES = 64 << 20 };

static struct window *window_of(const struct model *m)
{
    return &m->stream->window;
}

/* Keys of the lines of a role that stands in front of the tensor; every producer of a rank precedes its consumer. */
static const unsigned __int128 *keys_of(const struct model *m, const struct rank_source *from)
{
    const struct rank_keys *k = &m->stream->keys;
    switch (from->role) {
    case ROLE_QKV_W:
        return k->qkv;
    case ROLE_OUT_W:
        return k->out;
    case ROLE_FFN1_W:
        return k->ffn1;
    case ROLE_FFN2_W:
        return k->ffn2[from->layer % 2];
    default:
        return k->embed;
    }
}

static struct quant_tensor quant_tensor_in(const struct model *m, const struct config *c,
                                           const struct weight_tensor *t)
{
    struct quant_tensor q = {.name = t->src->name,
                             .w16 = window_master_of(window_of(m), t),
                             .rows = t->rows,
                             .cols = t->cols,
                             .out = model_is_hosted(m) ? weights_compute_at(&m->weights, t->at)
                                                       : window_compute_of(window_of(m), t)};
    const struct rank_source from = model_rank_source(m, c, t);
    if (!from.is_ranked || c->outlier_pct == 0)
        return q;
    const struct weight_slot *s = weights_slot(&m->weights, from.role, from.layer);
    q.rank_keys = keys_of(m, &from);
    q.rank_w16 = (const uint16_t *)(const void *)q.rank_keys;
    q.rank_rows = s->rows;
    q.rank_cols = s->cols;
    q.rank_by_rows = from.by_rows;
    q.rank_at = from.map;
    return q;
}

/* Quantizes what `is_here` names of the linear layers. */
static enum err_code quantize(struct model *m, const struct config *c, struct quant_cache *cache,
                              bool (*is_here)(const struct model *m, const struct weight_tensor *t),
                              struct err *e)
{
    const int n_all = m->groups[QUANT_LINEAR].n;
    struct quant_tensor *q = xcalloc((size_t)n_all, sizeof *q);
    int64_t *n_keep = xcalloc((size_t)n_all, sizeof *n_keep);
    int n = 0;
    for (int i = 0; i < m->weights.n_tensors; i++) {
        const struct weight_tensor *t = &m->weights.tensors[i];
        if (weights_is_linear(t->role) && is_here(m, t))
            q[n++] = quant_tensor_in(m, c, t);
    }
    enum err_code rc = n > 0 ? quant_apply(m->k, c, q, n, cache, n_keep, e) : ERR_OK;
    xfree(q);
    xfree(n_keep);
    return rc;
}

static bool is_of_step(const struct model *m, const struct weight_tensor *t)
{
    return window_holds(window_of(m), t->role) && t->layer == window_layer(window_of(m));
}

struct quant_cache *stream_cache_new(const struct model *m)
{
    int n = 0;
    for (int i = 0; i < m->weights.n_tensors; i++)
        n += weights_is_linear(m->weights.tensors[i].role) && is_of_step(m, &m->weights.tensors[i]);
    return quant_cache_new(n);
}

static bool is_small(const struct model *m, const struct weight_tensor *t)
{
    (void)m;
    return !weights_is_per_layer(t->role);
}

enum err_code stream_quantize_step(struct model *m, const struct config *c,
                                   struct quant_cache *cache, struct err *e)
{
    return quantize(m, c, cache, is_of_step, e);
}

enum err_code stream_apply(struct model *m, const struct config *c, struct quant_cache *cache,
                           bool *is_cast, struct err *e)
{
    if (c->k > 8 || !*is_cast)
        TRY(window_cast(window_of(m), e));
    *is_cast = true;
    return c->k <= 8 ? stream_quantize_step(m, c, cache, e) : ERR_OK;
}

enum err_code stream_apply_small(struct model *m, const struct config *c, struct err *e)
{
    if (!m->wiring.has_projection)
        return ERR_OK;
    if (c->k <= 8)
        return quantize(m, c, NULL, is_small, e);
    if (!model_is_hosted(m))
        return window_cast_small(window_of(m), e);
    for (int i = 0; i < m->weights.n_tensors; i++) {
        const struct weight_tensor *t = &m->weights.tensors[i];
        if (weights_is_linear(t->role) && is_small(m, t))
            TRY(kern_cast_f16(m->k, weights_compute_at(&m->weights, t->at),
                              window_master_of(window_of(m), t), t->src->count, e));
    }
    return ERR_OK;
}

/* ---- ranks ---- */

static enum err_code keep_rows(struct model *m, enum role role, unsigned __int128 **keys,
                               struct err *e)
{
    const struct weight_slot *s = weights_slot(&m->weights, role, 0);
    if (*keys == NULL)
        *keys = xcalloc((size_t)s->rows, sizeof **keys);
    return kern_spread(m->k, window_of(m)->view->master[role], s->rows, s->cols, true, *keys, e);
}

enum err_code stream_keep_keys(struct model *m, struct err *e)
{
    struct rank_keys *k = &m->stream->keys;
    const struct window *w = window_of(m);
    if (window_holds(w, ROLE_QKV_W))
        TRY(keep_rows(m, ROLE_QKV_W, &k->qkv, e));
    if (window_holds(w, ROLE_OUT_W))
        TRY(keep_rows(m, ROLE_OUT_W, &k->out, e));
    if (window_holds(w, ROLE_FFN1_W))
        TRY(keep_rows(m, ROLE_FFN1_W, &k->ffn1, e));
    if (window_holds(w, ROLE_FFN2_W))
        TRY(keep_rows(m, ROLE_FFN2_W, &k->ffn2[window_layer(w) % 2], e));
    return ERR_OK;
}

/* Spread of the embedding's columns: a few of them at a time are read as rows, into the window's block. */
static enum err_code column_keys(struct model *m, const struct weight_tensor *t, void *stage,
                                 int64_t n_at_once, struct err *e)
{
    struct window *w = window_of(m);
    for (int64_t at = 0; at < t->cols; at += n_at_once) {
        const int64_t n = t->cols - at < n_at_once ? t->cols - at : n_at_once;
        const struct ckpt_tensor part = ckpt_part(t->src, !t->is_transposed, at, n);
        TRY(ckpt_read_f16(m->ckpt, &part, !t->is_transposed, stage, NULL, e));
        TRY(kern_upload(m->k, w->block, stage, (size_t)(n * t->rows) * sizeof(uint16_t), e));
        TRY(kern_spread(m->k, (const uint16_t *)(const void *)w->block, n, t->rows, true,
                        m->stream->keys.embed + at, e));
    }
    m->stream->bytes_read += ckpt_stored_bytes(t->src);
    return ERR_OK;
}

enum err_code stream_embed_keys(struct model *m, struct err *e)
{
    struct rank_keys *k = &m->stream->keys;
    if (k->has_embed)
        return ERR_OK;
    if (m->wiring.has_projection) {
        TRY(keep_rows(m, ROLE_PROJECT_IN, &k->embed, e));
    } else {
        const struct weight_tensor *t = weights_tensor(&m->weights, ROLE_EMBED);
        const int64_t column = t->rows * (int64_t)sizeof(uint16_t);
        int64_t n = window_of(m)->plan.block_bytes / column;
        if (n == 0)
            return err_set(e, ERR_NOMEM,
                           "%s: ranks of the first layer's outliers need %lld bytes for a column "
                           "of the embedding; raise --memory",
                           ckpt_dir(m->ckpt), (long long)column);
        n = n * column > COLUMNS_BYTES ? COLUMNS_BYTES / column + 1 : n;
        n = n < t->cols ? n : t->cols;
        if (k->embed == NULL)
            k->embed = xcalloc((size_t)t->cols, sizeof *k->embed);
        void *stage = NULL;
        TRY(big_alloc((size_t)(n * column), "columns of the embedding", &stage, e));
        enum err_code rc = column_keys(m, t, stage, n, e);
        big_free(stage, (size_t)(n * column));
        TRY(rc);
    }
    k->has_embed = true;
    return ERR_OK;
}

/* ---- what a configuration is ---- */

void stream_bits(const struct model *m, const struct config *c, struct bits *bits)
{
    const int n_max = m->groups[QUANT_LINEAR].n;
    struct bits_tensor *t = xcalloc((size_t)n_max, sizeof *t);
    int n = 0;
    for (int i = 0; i < m->weights.n_tensors; i++) {
        const struct weight_tensor *w = &m->weights.tensors[i];
        if (!weights_is_linear(w->role))
            continue;
        const bool is_kept = c->k <= 8 && model_rank_source(m, c, w).is_ranked;
        t[n++] = (struct bits_tensor){.out = w->rows,
                                      .in = w->cols,
                                      .n_keep = is_kept ? bits_n_keep(c->outlier_pct, w->cols) : 0};
    }
    *bits = bits_of(c, t, n, m->info.n_params);
    xfree(t);
}
