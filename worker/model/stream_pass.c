/* A pass from front to end: memory for its units, their embeddings, the layers step by step, and the
 * answers. */
#include <string.h>

#include "base/mem.h"
#include "worker/model/model_answer.h"
#include "worker/model/model_spread.h"
#include "worker/model/stream_answers.h"
#include "worker/model/stream_config.h"
#include "worker/model/stream_tables.h"

/* ---- memory of a pass ---- */

/* The window for weights of this kind; the other kind's is closed. */
static enum err_code ensure_window(struct stream_run *r, const struct plan *plan, struct err *e)
{
    struct window *w = &r->s->window;
    if (w->m != NULL && w->plan.stage_bytes == plan->stage_bytes)
        return ERR_OK;
    kern_free(r->m->k, r->s->kept);
    r->s->kept = NULL;
    r->s->kept_bytes = 0;
    window_close(w);
    return window_open(r->m, plan, &r->s->view, w, e);
}

enum { PLACE_ALIGN = 256 };

static int64_t unit_bytes(const struct stream_run *r, int64_t unit)
{
    const int64_t bytes =
        model_step_rows(r->m, r->p->units[unit].n_tokens) * r->s->window.plan.row_bytes;
    return (bytes + PLACE_ALIGN - 1) / PLACE_ALIGN * PLACE_ALIGN;
}

static enum err_code ensure_kept(struct stream_run *r, struct err *e)
{
    int64_t bytes = 0;
    for (int64_t i = 1; i < r->p->n_units; i++)
        bytes += unit_bytes(r, i);
    if (bytes <= r->s->kept_bytes)
        return ERR_OK;
    kern_free(r->m->k, r->s->kept);
    r->s->kept = NULL;
    r->s->kept_bytes = 0;
    TRY(kern_alloc(r->m->k, (size_t)bytes, "activations of a pass", &r->s->kept, e));
    r->s->kept_bytes = bytes;
    return ERR_OK;
}

/* The work space of unit i: with steps of whole layers only the residual stream is its own. */
static struct workspace workspace_at(const struct stream_run *r, int64_t unit, char *kept)
{
    struct workspace ws = r->base;
    const int64_t rows = model_step_rows(r->m, r->p->units[unit].n_tokens);
    const int64_t act = r->m->weights.act_bytes, d = r->m->wiring.d;
    ws.x = kept;
    if (r->s->window.plan.is_cut_within) {
        ws.h = kept + rows * d * act;
        ws.mixed = kept + 2 * rows * d * act;
        ws.wide = kept + 3 * rows * d * act;
    }
    return ws;
}

static void lay_places(struct stream_run *r)
{
    int64_t from = 0; /* bytes of r->s->kept, which is NULL with one unit */
    for (int64_t i = 0; i < r->p->n_units; i++) {
        struct stream_place *at = &r->places[i];
        at->ws = i == 0 ? r->base : workspace_at(r, i, (char *)r->s->kept + from);
        from += i == 0 ? 0 : unit_bytes(r, i);
        at->first = i;
        for (int64_t j = 0; j < i && at->first == i; j++)
            if (r->p->units[j].batch == r->p->units[i].batch)
                at->first = j;
    }
}

/* ---- front ---- */

static enum err_code pick_batch(struct stream_run *r, int64_t unit, struct err *e)
{
    struct model_batch b;
    struct model_answer *unused;
    struct stream_place *at = &r->places[unit];
    int64_t T;
    r->p->build(r->p->arg, unit, &b, &unused);
    TRY(model_lay_out(r->m, &b, &T, e));
    at->seqs = xcalloc((size_t)b.n_seqs, sizeof *at->seqs);
    memcpy(at->seqs, r->m->lists->seqs, (size_t)b.n_seqs * sizeof *at->seqs);
    at->rows = (struct model_rows){at->seqs, b.n_seqs, T};
    return stream_pick(r->m, T, e);
}

static enum err_code embed_all(struct stream_run *r, struct err *e)
{
    int config = -1;
    for (int64_t i = 0; i < r->p->n_units; i++) {
        if (r->places[i].first != i)
            continue;
        r->m->ws = r->base;
        TRY(pick_batch(r, i, e));
        for (int64_t j = i; j < r->p->n_units; j++) {
            if (r->places[j].first != i)
                continue;
            TRY(stream_small_for(r, j, &config, e));
            r->places[j].rows = r->places[i].rows;
            r->m->ws.x = r->places[j].ws.x;
            TRY(model_embed(r->m, r->places[j].rows.T, e));
        }
        TRY(stream_step_done(r, e));
    }
    return ERR_OK;
}

/* ---- layers ---- */

static enum err_code run_unit(struct stream_run *r, int64_t unit, struct err *e)
{
    struct window *w = &r->s->window;
    const struct stream_place *at = &r->places[unit];
    int part;
    const int end = window_parts(w, &part);
    r->m->ws = at->ws;
    for (; part < end; part++)
        TRY(model_part_run(r->m, window_layer(w), (enum model_part)part, &at->rows,
                           r->p->units[unit].magnitudes, e));
    TRY(window_poll(w, e));
    return stream_step_done(r, e);
}

static enum err_code run_step(struct stream_run *r, struct quant_cache *cache, struct err *e)
{
    bool is_cast = false;
    int config = -1;
    const struct model_magnitudes *watched = NULL;
    if (r->has_outliers)
        TRY(stream_keep_keys(r->m, e));
    for (int64_t i = 0; i < r->p->n_units; i++) {
        const struct stream_unit *u = &r->p->units[i];
        if (u->config != config)
            TRY(stream_apply(r->m, &r->p->configs[u->config], cache, &is_cast, e));
        config = u->config;
        if (u->magnitudes != watched && u->magnitudes != NULL)
            TRY(model_spreads_of_step(r->m, u->magnitudes, e));
        watched = u->magnitudes;
        TRY(run_unit(r, i, e));
    }
    return ERR_OK;
}

static enum err_code run_layers(struct stream_run *r, struct err *e)
{
    struct window *w = &r->s->window;
    TRY(window_begin(w, e));
    for (int64_t step = 0; step < window_steps(w); step++) {
        TRY(window_next(w, e));
        struct quant_cache *cache = stream_cache_new(r->m);
        enum err_code rc = run_step(r, cache, e);
        quant_cache_free(cache);
        TRY(rc);
    }
    return ERR_OK;
}

/* ---- a pass ---- */

/* Tables that are picked by rows count as one read; a tied one counts where it is the head. */
static int64_t picked_bytes(const struct model *m)
{
    int64_t bytes = 0;
    for (int i = 0; i < m->weights.n_tensors; i++) {
        const struct weight_tensor *t = &m->weights.tensors[i];
        if (t->role == ROLE_POSITIONS || (t->role == ROLE_EMBED && !m->wiring.is_tied))
            bytes += ckpt_stored_bytes(t->src);
    }
    return bytes;
}

static enum err_code run_pass(struct stream_run *r, struct err *e)
{
    const bool is_stored = r->p->configs[0].k == 32;
    TRY(ensure_window(r, is_stored ? &r->m->plan_stored : &r->m->plan, e));
    TRY(ensure_kept(r, e));
    lay_places(r);
    TRY(window_small(&r->s->window, e));
    if (r->has_outliers)
        TRY(stream_embed_keys(r->m, e));
    r->s->bytes_read += picked_bytes(r->m);
    TRY(embed_all(r, e));
    TRY(run_layers(r, e));
    window_end(&r->s->window);
    return stream_answers(r, e);
}

enum err_code model_stream_run(struct model *m, const struct stream_pass *p, int64_t *bytes,
                               struct err *e)
{
    CHECK(m->stream != NULL && p->n_units > 0);
    struct stream_run r = {.m = m,
                           .s = m->stream,
                           .p = p,
                           .base = m->ws,
                           .places = xcalloc((size_t)p->n_units, sizeof *r.places)};
    for (int i = 0; i < p->n_configs; i++)
        r.has_outliers |= p->configs[i].k <= 8 && p->configs[i].outlier_pct > 0;
    m->lists = &m->flights[0].lists;
    m->stream->bytes_read = 0;
    m->stream->window.bytes_read = 0;
    m->config.compute = p->configs[0].compute;
    enum err_code rc = run_pass(&r, e);
    window_end(&m->stream->window);
    m->ws = r.base;
    *bytes = m->stream->bytes_read + m->stream->window.bytes_read;
    for (int64_t i = 0; i < p->n_units; i++)
        xfree(r.places[i].seqs);
    xfree(r.places);
    return rc;
}
