/* The forward pass of all families (evaluation spec, section 7), from the embedding to the residual stream behind the
 * last layer. */
#include "worker/model/model_forward.h"

#include "worker/model/model_magnitude.h"

/* To y with the weights of `role`, and with the bias that is the role behind it. */
static struct kern_norm_out norm_out(const struct model *m, enum role role, int layer, void *y)
{
    return (struct kern_norm_out){.y = y,
                                  .w = weights_compute(&m->weights, role, layer),
                                  .b = weights_compute(&m->weights, role + 1, layer)};
}

/* x, normalized, to one or two places. */
static enum err_code norm_to(struct model *m, struct kern_norm_out out, struct kern_norm_out also,
                             int64_t T, struct err *e)
{
    const struct kern_norm_args a = {
        .x = m->ws.x, .out = out, .also = also, .eps = m->wiring.eps, .T = T, .d = m->wiring.d};
    return kern_layernorm(m->k, &a, e);
}

static enum err_code norm(struct model *m, enum role role, int layer, void *y, int64_t T,
                          struct err *e)
{
    return norm_to(m, norm_out(m, role, layer, y), (struct kern_norm_out){0}, T, e);
}

/* A parallel layer's x as attention sees it, in mixed (which attention overwrites later), and as the MLP does, in h. */
static enum err_code norm_for_both(struct model *m, int layer, int64_t T, struct err *e)
{
    return norm_to(m, norm_out(m, ROLE_NORM1_W, layer, m->ws.mixed),
                   norm_out(m, ROLE_NORM2_W, layer, m->ws.h), T, e);
}

/* y = x W^T + b, with the activation behind the MLP's first matrix, added to y where y is the residual stream. The
 * bias is the role behind the matrix. */
static struct kern_linear_args linear_args(const struct model *m, enum role role, int layer,
                                           const void *x, void *y, int64_t T)
{
    const struct weight_slot *s = weights_slot(&m->weights, role, layer);
    const bool has_bias = role >= ROLE_NORM1_W; /* the projections have none */
    return (struct kern_linear_args){
        .y = y,
        .x = x,
        .w = weights_compute(&m->weights, role, layer),
        .bias = has_bias ? weights_compute(&m->weights, role + 1, layer) : NULL,
        .T = T,
        .N = s->rows,
        .K = s->cols,
        .act = role == ROLE_FFN1_W ? m->wiring.act : KERN_ACT_NONE,
        .is_residual = y == m->ws.x,
    };
}

static enum err_code linear(struct model *m, enum role role, int layer, const void *x, void *y,
                            int64_t T, struct err *e)
{
    const struct kern_linear_args a = linear_args(m, role, layer, x, y, T);
    return kern_linear(m->k, &a, e);
}

static enum err_code embed(struct model *m, int64_t T, struct err *e)
{
    const struct wiring *w = &m->wiring;
    const void *table = weights_compute(&m->weights, ROLE_EMBED, 0);
    const void *positions = weights_compute(&m->weights, ROLE_POSITIONS, 0);
    struct kern_embed_args a = {.out = m->ws.x,
                                .table = table,
                                .pos_table = positions,
                                .ids = m->lists->ids,
                                .pos = m->lists->positions,
                                .T = T,
                                .d = w->d};
    if (!w->has_projection) {
        TRY(kern_embed(m->k, &a, e));
    } else {
        /* Positions first: the projected embedding is then added by the product itself. */
        struct kern_embed_args narrow = {
            .out = m->ws.embed, .table = table, .ids = m->lists->ids, .T = T, .d = w->d_embed};
        a.table = positions;
        a.ids = m->lists->positions;
        a.pos_table = NULL;
        TRY(kern_embed(m->k, &narrow, e));
        TRY(kern_embed(m->k, &a, e));
        TRY(linear(m, ROLE_PROJECT_IN, 0, m->ws.embed, m->ws.x, T, e));
    }
    if (w->has_embed_norm)
        TRY(norm(m, ROLE_EMBED_NORM_W, 0, m->ws.x, T, e));
    return ERR_OK;
}

/* Of a row of QKV: from a head's q to its k, and from there to its v; from a head to the next. */
struct qkv_layout {
    int64_t apart, stride;
};

static struct qkv_layout qkv_layout_of(const struct wiring *w)
{
    if (w->is_qkv_by_head)
        return (struct qkv_layout){w->head_dim, (int64_t)3 * w->head_dim};
    return (struct qkv_layout){w->d, w->head_dim};
}

static enum err_code project_qkv(struct model *m, int layer, const void *in,
                                 const struct model_rows *b, struct err *e)
{
    const struct wiring *w = &m->wiring;
    const struct qkv_layout at = qkv_layout_of(w);
    const struct kern_rotary rotary = {
        .dims = w->rotary_dims,
        .base = w->rotary_base,
        .heads = w->n_heads,
        .k_at = at.apart,
        .head_stride = at.stride,
        .seqs = b->seqs,
        .n_seqs = b->n_seqs,
    };
    struct kern_linear_args a =
        linear_args(m, ROLE_QKV_W, layer, in, m->ws.wide, model_step_rows(m, b->T));
    a.rotary = w->rotary_dims > 0 ? &rotary : NULL;
    return kern_linear(m->k, &a, e);
}

static enum err_code attention(struct model *m, int layer, const struct model_rows *b,
                               struct err *e)
{
    const struct wiring *w = &m->wiring;
    const struct qkv_layout at = qkv_layout_of(w);
    struct kern_attention_args a = {
        .out = m->ws.mixed,
        .qkv = m->ws.wide,
        .row = (int64_t)3 * w->d,
        .k_at = at.apart,
        .v_at = 2 * at.apart,
        .head_stride = at.stride,
        .heads = w->n_heads,
        .head_dim = w->head_dim,
        .scale = w->is_score_scaled_by_layer ? w->score_scale / (float)(layer + 1) : w->score_scale,
        .alibi_slopes = m->alibi_slopes,
        .seqs = b->seqs,
        .n_seqs = b->n_seqs,
        .T = b->T,
    };
    return kern_attention(m->k, &a, e);
}

/* What a sublayer reads: LN(x) in h; x itself when the norm comes after; LN(x) in place of x when the residual
 * is taken behind the norm. */
static enum err_code sublayer_input(struct model *m, enum role role, int layer, int64_t T,
                                    const void **in, struct err *e)
{
    *in = m->ws.x;
    if (m->wiring.is_post_norm)
        return ERR_OK;
    void *y = m->wiring.is_residual_normed ? m->ws.x : m->ws.h;
    *in = y;
    return norm(m, role, layer, y, T, e);
}

static enum err_code watch_pair(struct model *m, struct model_magnitudes *watch,
                                enum model_pair pair, int layer, const void *x, int64_t T,
                                struct err *e)
{
    return watch != NULL ? model_magnitudes_add(m, watch, pair, layer, x, T, e) : ERR_OK;
}

/* Where FFN-1 reads: what sublayer_input left there. */
static const void *ffn_input(const struct model *m)
{
    const bool is_x = m->wiring.is_post_norm || m->wiring.is_residual_normed;
    return is_x ? m->ws.x : m->ws.h;
}

static enum err_code step_qkv(struct model *m, int layer, const struct model_rows *b,
                              struct model_magnitudes *watch, struct err *e)
{
    const int64_t rows = model_step_rows(m, b->T);
    const void *in = m->ws.mixed;
    if (m->wiring.is_parallel)
        TRY(norm_for_both(m, layer, rows, e));
    else
        TRY(sublayer_input(m, ROLE_NORM1_W, layer, rows, &in, e));
    TRY(project_qkv(m, layer, in, b, e));
    TRY(attention(m, layer, b, e));
    return watch_pair(m, watch, MODEL_PAIR_KVQ_ATTN, layer, m->ws.mixed, b->T, e);
}

static enum err_code step_out(struct model *m, int layer, const struct model_rows *b,
                              struct model_magnitudes *watch, struct err *e)
{
    const int64_t rows = model_step_rows(m, b->T);
    const void *in;
    TRY(linear(m, ROLE_OUT_W, layer, m->ws.mixed, m->ws.x, rows, e));
    if (m->wiring.is_post_norm)
        TRY(norm(m, ROLE_NORM1_W, layer, m->ws.x, rows, e));
    if (!m->wiring.is_parallel)
        TRY(sublayer_input(m, ROLE_NORM2_W, layer, rows, &in, e));
    return watch_pair(m, watch, MODEL_PAIR_ATTN_FFN1, layer, ffn_input(m), b->T, e);
}

static enum err_code step_ffn1(struct model *m, int layer, const struct model_rows *b,
                               struct model_magnitudes *watch, struct err *e)
{
    TRY(linear(m, ROLE_FFN1_W, layer, ffn_input(m), m->ws.wide, model_step_rows(m, b->T), e));
    return watch_pair(m, watch, MODEL_PAIR_FFN1_RELU, layer, m->ws.wide, b->T, e);
}

static enum err_code step_ffn2(struct model *m, int layer, const struct model_rows *b,
                               struct err *e)
{
    const int64_t rows = model_step_rows(m, b->T);
    TRY(linear(m, ROLE_FFN2_W, layer, m->ws.wide, m->ws.x, rows, e));
    return m->wiring.is_post_norm ? norm(m, ROLE_NORM2_W, layer, m->ws.x, rows, e) : ERR_OK;
}

enum err_code model_part_run(struct model *m, int layer, enum model_part part,
                             const struct model_rows *b, struct model_magnitudes *watch,
                             struct err *e)
{
    switch (part) {
    case MODEL_PART_QKV:
        return step_qkv(m, layer, b, watch, e);
    case MODEL_PART_OUT:
        return step_out(m, layer, b, watch, e);
    case MODEL_PART_FFN1:
        return step_ffn1(m, layer, b, watch, e);
    case MODEL_PART_FFN2:
        return step_ffn2(m, layer, b, e);
    case MODEL_PARTS:
        break;
    }
    return ERR_OK;
}

enum err_code model_embed(struct model *m, int64_t T, struct err *e)
{
    const int64_t rows = model_step_rows(m, T);
    for (int64_t t = T; t < rows; t++)
        m->lists->ids[t] = m->lists->positions[t] = 0;
    return embed(m, rows, e);
}

enum err_code model_forward(struct model *m, int n_seqs, int64_t T, struct model_magnitudes *watch,
                            struct err *e)
{
    const struct model_rows b = {m->lists->seqs, n_seqs, T};
    TRY(model_embed(m, T, e));
    for (int layer = 0; layer < m->wiring.n_layers; layer++)
        for (int part = 0; part < MODEL_PARTS; part++)
            TRY(model_part_run(m, layer, (enum model_part)part, &b, watch, e));
    return ERR_OK;
}

enum err_code model_hidden(struct model *m, int32_t *rows, int64_t n, int64_t T, const void **out,
                           struct err *e)
{
    const struct wiring *w = &m->wiring;
    const int64_t n_rows = model_step_rows(m, n);
    for (int64_t i = n; i < n_rows; i++)
        rows[i] = rows[n - 1];
    if (w->has_final_norm) {
        struct kern_norm_args a = {
            .x = m->ws.x,
            .out = norm_out(m, ROLE_FINAL_NORM_W, 0, m->ws.h),
            .eps = w->eps,
            .T = T,
            .d = w->d,
            .rows = rows,
            .n_rows = n_rows,
        };
        TRY(kern_layernorm(m->k, &a, e));
    } else {
        TRY(kern_copy_rows(m->k,
                           &(struct kern_rows_args){
                               .y = m->ws.h, .x = m->ws.x, .x_rows = rows, .n = n_rows, .d = w->d},
                           e));
    }
    *out = m->ws.h;
    if (w->has_projection) {
        *out = m->ws.embed;
        TRY(linear(m, ROLE_PROJECT_OUT, 0, m->ws.h, m->ws.embed, n_rows, e));
    }
    return ERR_OK;
}

const void *model_head(const struct model *m)
{
    return weights_compute(&m->weights, m->wiring.is_tied ? ROLE_EMBED : ROLE_HEAD, 0);
}
