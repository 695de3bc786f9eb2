/* Life of a model: from a checkpoint and a device to weights, or a window of them, and buffers. */
#include "worker/model/model_open.h"

#include <math.h>
#include <stdio.h>

#include "base/mem.h"
#include "worker/model/model_hosted.h"
#include "worker/model/model_plan.h"
#include "worker/model/model_quant.h"
#include "worker/model/stream_impl.h"

/* Slopes of the paper "Train short, test long" as BLOOM computes them: n = 2^floor(log2 H) heads take 2^(-8i/n),
 * i = 1..n; the others take every second of the series for 2n heads. */
static float *make_slopes(int n_heads)
{
    float *slopes = xcalloc((size_t)n_heads, sizeof *slopes);
    int n = 1;
    while (2 * n <= n_heads)
        n *= 2;
    for (int h = 0; h < n_heads; h++)
        slopes[h] = (float)(h < n ? exp2(-8.0 * (h + 1) / n) : exp2(-4.0 * (2 * (h - n) + 1) / n));
    return slopes;
}

/* Large enough that a tile of every product has neighbours, no larger than the device has use for (docs/ENGINE.md has
 * the figures). Depends on the checkpoint and the kind of device alone. */
enum { TOKENS_MIN = 1024, TOKENS_STEP = 128 };

static int64_t choose_max_tokens(const struct wiring *w, const struct kern_info *info)
{
    int64_t per_token = model_row_cols(w) * info->act_bytes;
    int64_t n = info->activation_bytes / per_token / TOKENS_STEP * TOKENS_STEP;
    n = n < TOKENS_MIN ? TOKENS_MIN : n > info->batch_tokens ? info->batch_tokens : n;
    return n > w->context ? n : w->context;
}

static enum err_code alloc_rows(struct model *m, int64_t cols, void **out, struct err *e)
{
    size_t bytes;
    if (!size_mul((size_t)model_step_rows(m, m->max_tokens), (size_t)cols, &bytes) ||
        !size_mul(bytes, (size_t)m->weights.act_bytes, &bytes))
        return err_set(e, ERR_NOMEM, "activations: size overflow");
    return kern_alloc(m->k, bytes, "activations", out, e);
}

static void lists_init(struct batch_lists *l, size_t T)
{
    l->ids = xcalloc(T, sizeof *l->ids);
    l->positions = xcalloc(T, sizeof *l->positions);
    l->seqs = xcalloc(T, sizeof *l->seqs);
    l->rows = xcalloc(T, sizeof *l->rows);
    l->first = xcalloc(T + 1, sizeof *l->first);
}

static enum err_code workspace_init(struct model *m, struct err *e)
{
    const struct wiring *w = &m->wiring;
    m->ws.wide_cols = model_wide_cols(w);
    TRY(alloc_rows(m, w->d, &m->ws.x, e));
    TRY(alloc_rows(m, w->d, &m->ws.h, e));
    TRY(alloc_rows(m, m->ws.wide_cols, &m->ws.wide, e));
    TRY(alloc_rows(m, w->d, &m->ws.mixed, e));
    if (w->has_projection)
        TRY(alloc_rows(m, w->d_embed, &m->ws.embed, e));
    for (int i = 0; i < MODEL_IN_FLIGHT; i++)
        lists_init(&m->flights[i].lists, (size_t)model_step_rows(m, m->max_tokens));
    m->lists = &m->flights[0].lists;
    return ERR_OK;
}

static void lists_release(struct batch_lists *l)
{
    void *all[] = {l->ids,   l->positions, l->seqs,   l->rows,    l->first,  l->row, l->token,
                   l->order, l->logprob,   l->is_top, l->ref_row, l->ref_at, l->kl,  l->same_top};
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        xfree(all[i]);
}

static void fill_info(struct model *m, const char *label)
{
    const struct wiring *w = &m->wiring;
    m->info = (struct model_info){.family = label,
                                  .n_layers = w->n_layers,
                                  .d = w->d,
                                  .n_heads = w->n_heads,
                                  .head_dim = w->head_dim,
                                  .ffn = w->ffn,
                                  .vocab = w->vocab,
                                  .context = w->context,
                                  .n_params = m->weights.n_params,
                                  .flushed = m->weights.flushed};
    const struct quant_group *g = &m->groups[QUANT_LINEAR];
    for (int i = 0; i < g->n; i++)
        m->info.n_params_linear += g->tensors[i].rows * g->tensors[i].cols;
}

/* ---- opening ---- */

/* Within a budget, as somebody else planned, or resident. */
struct model_way {
    bool is_limited;
    int64_t memory_bytes;
    const struct plan *plan, *stored;
};

/* Everything that needs no memory on the device. */
static enum err_code open_shapes(struct model *m, const char **label, struct err *e)
{
    char what[512];
    const struct family_ops *ops;
    snprintf(what, sizeof what, "%s/config.json", ckpt_dir(m->ckpt));
    const json_t *config = ckpt_config(m->ckpt);
    TRY(family_find(config, what, label, &ops, e));
    TRY(family_wire(ops, config, what, &m->wiring, e));
    TRY(weights_plan(ops, &m->wiring, m->ckpt, m->k, &m->weights, e));
    m->max_tokens = choose_max_tokens(&m->wiring, kern_get_info(m->k));
    return ERR_OK;
}

static enum err_code load_as_planned(struct model *m, struct err *e)
{
    if (m->plan.mode == PLAN_RESIDENT)
        return weights_load(&m->weights, e);
    m->stream = xcalloc(1, sizeof *m->stream);
    if (m->plan.mode == PLAN_HOST_MASTER)
        return hosted_load(m, e);
    m->weights.view = &m->stream->view;
    return ERR_OK;
}

static enum err_code open_into(struct model *m, const struct model_way *way, struct err *e)
{
    const char *label;
    TRY(open_shapes(m, &label, e));
    if (way->is_limited) {
        struct model_plan p;
        TRY(model_make_plans(m, way->memory_bytes, &p, e));
        m->plan = p.plan;
        m->plan_stored = p.stored;
    } else if (way->plan != NULL) {
        m->plan = *way->plan;
        m->plan_stored = *way->stored;
    }
    TRY(load_as_planned(m, e));
    TRY(workspace_init(m, e));
    if (m->wiring.position == POSITION_ALIBI)
        m->alibi_slopes = make_slopes(m->wiring.n_heads);
    model_quant_init(m);
    fill_info(m, label);
    return ERR_OK;
}

static enum err_code open_model(struct ckpt *ckpt, struct kern *k, const struct model_way *way,
                                struct model **out, struct err *e)
{
    struct model *m = xcalloc(1, sizeof *m);
    m->ckpt = ckpt;
    m->k = k;
    enum err_code code = open_into(m, way, e);
    if (code != ERR_OK) {
        model_close(m);
        return code;
    }
    *out = m;
    return ERR_OK;
}

enum err_code model_open(struct ckpt *ckpt, struct kern *k, struct model **out, struct err *e)
{
    return open_model(ckpt, k, &(struct model_way){0}, out, e);
}

enum err_code model_open_within(struct ckpt *ckpt, struct kern *k, int64_t memory_bytes,
                                struct model **out, struct err *e)
{
    return open_model(
        ckpt, k, &(struct model_way){.is_limited = true, .memory_bytes = memory_bytes}, out, e);
}

enum err_code model_open_planned(struct ckpt *ckpt, struct kern *k, const struct plan *plan,
                                 const struct plan *stored, struct model **out, struct err *e)
{
    return open_model(ckpt, k, &(struct model_way){.plan = plan, .stored = stored}, out, e);
}

enum err_code model_plan_only(struct ckpt *ckpt, struct kern *k, int64_t memory_bytes,
                              struct model_plan *out, struct err *e)
{
    struct model *m = xcalloc(1, sizeof *m);
    const char *label;
    m->ckpt = ckpt;
    m->k = k;
    enum err_code code = open_shapes(m, &label, e);
    if (code == ERR_OK)
        code = model_make_plans(m, memory_bytes, out, e);
    model_close(m);
    return code;
}

static void stream_release(struct model *m)
{
    struct stream *s = m->stream;
    if (s == NULL)
        return;
    void *keys[] = {s->keys.embed, s->keys.qkv,     s->keys.out,
                    s->keys.ffn1,  s->keys.ffn2[0], s->keys.ffn2[1]};
    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        xfree(keys[i]);
    kern_free(m->k, s->kept);
    kern_host_free(m->k, s->picked);
    window_close(&s->window);
    xfree(s);
    m->stream = NULL;
}

void model_close(struct model *m)
{
    if (m == NULL)
        return;
    model_abandon(m);
    stream_release(m);
    void *buffers[] = {m->ws.x, m->ws.h, m->ws.wide, m->ws.mixed, m->ws.embed};
    for (size_t i = 0; i < ARRAY_LEN(buffers); i++)
        kern_free(m->k, buffers[i]);
    for (int i = 0; i < MODEL_IN_FLIGHT; i++)
        lists_release(&m->flights[i].lists);
    model_quant_release(m);
    weights_release(&m->weights);
    xfree(m->alibi_slopes);
    xfree(m);
}
