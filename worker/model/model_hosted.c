/* A checkpoint whose compute copy fits the device and whose fp16 master does not: the master stays in host memory, and each
 * configuration quantizes it on its way in, layer by layer, into the one compute copy on which all evaluations then run. */
#include "worker/model/model_hosted.h"

#include "base/mem.h"
#include "worker/model/stream_config.h"

/* Tensors outside the layers, chunk by chunk through the window's block. */
static enum err_code load_table(struct model *m, const struct weight_tensor *t, struct err *e)
{
    struct window *w = &m->stream->window;
    const int64_t chunk_rows = w->plan.block_bytes / 2 / (t->cols > 0 ? t->cols : 1);
    const bool is_vector = t->src->n_dims == 1;
    const int64_t chunk = is_vector || chunk_rows > t->rows ? t->rows : chunk_rows;
    void *stage = NULL;
    TRY(big_alloc((size_t)(chunk * t->cols) * sizeof(uint16_t), "a part of a table", &stage, e));
    enum err_code rc = ERR_OK;
    for (int64_t at = 0; at < t->rows && rc == ERR_OK; at += chunk) {
        const int64_t n = t->rows - at < chunk ? t->rows - at : chunk;
        const struct ckpt_tensor part = ckpt_part(t->src, t->is_transposed, at, n);
        rc = ckpt_read_f16(m->ckpt, &part, t->is_transposed, stage, &m->weights.flushed, e);
        if (rc == ERR_OK)
            rc = kern_upload(m->k, w->block, stage, (size_t)(n * t->cols) * sizeof(uint16_t), e);
        if (rc == ERR_OK)
            rc = kern_cast_f16(m->k, weights_compute_at(&m->weights, t->at + at * t->cols),
                               (const uint16_t *)(const void *)w->block, n * t->cols, e);
        if (rc == ERR_OK)
            rc = kern_sync(m->k, e);
    }
    big_free(stage, (size_t)(chunk * t->cols) * sizeof(uint16_t));
    return rc;
}

static enum err_code load_tables(struct model *m, struct err *e)
{
    for (int i = 0; i < m->weights.n_tensors; i++)
        if (!weights_is_per_layer(m->weights.tensors[i].role))
            TRY(load_table(m, &m->weights.tensors[i], e));
    ckpt_forget_pages(m->ckpt);
    return ERR_OK;
}

enum err_code hosted_load(struct model *m, struct err *e)
{
    struct weights *w = &m->weights;
    TRY(kern_alloc(m->k, (size_t)w->n_elements * (size_t)w->act_bytes, "compute weights",
                   &w->compute, e));
    TRY(window_open(m, &m->plan, &m->stream->view, &m->stream->window, e));
    TRY(window_small(&m->stream->window, e));
    return load_tables(m, e);
}

/* 16-bit values of the step's tensors: all, or those that nobody quantizes. */
static enum err_code cast_step(struct model *m, bool is_all, struct err *e)
{
    const struct window *w = &m->stream->window;
    for (int i = 0; i < m->weights.n_tensors; i++) {
        const struct weight_tensor *t = &m->weights.tensors[i];
        if (t->layer == window_layer(w) && window_holds(w, t->role) &&
            (is_all || !weights_is_linear(t->role)))
            TRY(kern_cast_f16(m->k, weights_compute_at(&m->weights, t->at), window_master_of(w, t),
                              t->src->count, e));
    }
    return ERR_OK;
}

static enum err_code apply_step(struct model *m, void *arg, struct err *e)
{
    const struct config *c = arg;
    if (c->k <= 8 && c->outlier_pct > 0)
        TRY(stream_keep_keys(m, e));
    if (c->k > 8 || !m->is_rest_cast)
        TRY(cast_step(m, c->k > 8, e));
    if (c->k > 8)
        return ERR_OK;
    struct quant_cache *cache = stream_cache_new(m);
    enum err_code rc = stream_quantize_step(m, c, cache, e);
    quant_cache_free(cache);
    return rc;
}

static enum err_code walk(struct model *m, hosted_visit *visit, void *arg, struct err *e)
{
    struct window *w = &m->stream->window;
    TRY(window_begin(w, e));
    for (int64_t step = 0; step < window_steps(w); step++) {
        TRY(window_next(w, e));
        TRY(visit(m, arg, e));
        TRY(window_poll(w, e));
    }
    return kern_sync(m->k, e);
}

enum err_code hosted_walk(struct model *m, hosted_visit *visit, void *arg, struct err *e)
{
    enum err_code rc = walk(m, visit, arg, e);
    window_end(&m->stream->window);
    return rc;
}

enum err_code hosted_apply(struct model *m, const struct config *c, struct err *e)
{
    if (c->k <= 8 && (c->quant_head || c->quant_embed))
        return err_set(e, ERR_NOMEM,
                       "%s: %s needs the master of the whole checkpoint on the device; raise "
                       "--memory",
                       ckpt_dir(m->ckpt), c->quant_head ? "quant_head" : "quant_embed");
    if (!m->is_rest_cast && m->has_run_stored)
        TRY(load_tables(m, e));
    if (c->k <= 8 && c->outlier_pct > 0)
        TRY(stream_embed_keys(m, e));
    TRY(stream_apply_small(m, c, e));
    struct config wanted = *c;
    enum err_code rc = hosted_walk(m, apply_step, &wanted, e);
    m->is_rest_cast = rc == ERR_OK;
    return rc;
}
