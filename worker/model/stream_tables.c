/* Tables of a checkpoint that runs in passes: rows of embeddings and positions are picked out of the mapped files for each
 * batch; the head follows behind the layers, where the window was. */
#include "worker/model/stream_tables.h"

#include "worker/model/stream_impl.h"

static enum err_code picked_get(struct model *m, size_t bytes, struct err *e)
{
    struct stream *s = m->stream;
    if (s->picked_bytes >= bytes)
        return ERR_OK;
    kern_host_free(m->k, s->picked);
    s->picked = NULL;
    s->picked_bytes = 0;
    TRY(kern_host_alloc(m->k, bytes, "rows of embeddings", &s->picked, e));
    s->picked_bytes = bytes;
    return ERR_OK;
}

/* rows[T] of a table go to `out` in the compute type; `stage` is device memory for them as they are read. */
static enum err_code pick_rows(struct model *m, enum role role, const int32_t *rows, int64_t T,
                               void *stage, void *out, struct err *e)
{
    struct stream *s = m->stream;
    const struct weight_tensor *t = weights_tensor(&m->weights, role);
    const size_t row_bytes = (size_t)t->cols * (size_t)s->window.plan.stage_bytes;
    TRY(picked_get(m, (size_t)T * row_bytes, e));
    for (int64_t i = 0; i < T; i++) {
        const struct ckpt_tensor row = ckpt_part(t->src, t->is_transposed, rows[i], 1);
        TRY(window_fill_part(&s->window.fill, &row, t->is_transposed,
                             (char *)s->picked + (size_t)i * row_bytes, e));
    }
    TRY(kern_upload(m->k, stage, s->picked, (size_t)T * row_bytes, e));
    TRY(s->window.plan.stage_bytes == 2 ? kern_cast_f16(m->k, out, stage, T * t->cols, e)
                                        : kern_cast_f32(m->k, out, stage, T * t->cols, e));
    return kern_sync(m->k, e); /* `picked` is used again */
}

/* The picked rows lie where a batch works but does not yet: embeddings in `mixed`, positions in the second half of `wide`,
 * whose first part they pass on their way: 4 + act bytes of 3 act an element at most. */
enum err_code stream_pick(struct model *m, int64_t T, struct err *e)
{
    struct batch_lists *l = m->lists;
    struct stream *s = m->stream;
    char *positions = (char *)m->ws.wide + T * m->wiring.d * (int64_t)sizeof(float);
    TRY(pick_rows(m, ROLE_EMBED, l->ids, T, m->ws.wide, m->ws.mixed, e));
    s->view.compute[ROLE_EMBED] = m->ws.mixed;
    s->view.compute[ROLE_POSITIONS] = NULL;
    if (weights_tensor(&m->weights, ROLE_POSITIONS) != NULL) {
        TRY(pick_rows(m, ROLE_POSITIONS, l->positions, T, m->ws.wide, positions, e));
        s->view.compute[ROLE_POSITIONS] = positions;
    }
    for (int64_t i = 0; i < T; i++)
        l->ids[i] = l->positions[i] = (int32_t)i;
    return ERR_OK;
}

/* One chunk of the head: from the files to `stage`, through a host buffer of the window or straight there when the device is
 * the host. */
static enum err_code read_chunk(struct model *m, const struct ckpt_tensor *part, bool is_transposed,
                                char *stage, struct err *e)
{
    struct window *w = &m->stream->window;
    const bool is_host = kern_get_info(m->k)->is_host;
    m->stream->bytes_read += ckpt_stored_bytes(part);
    if (is_host)
        return window_fill_part(&w->fill, part, is_transposed, stage, e);
    const int64_t bytes = part->count * w->plan.stage_bytes;
    char *host = m->stream->picked;
    TRY(kern_copy_wait(m->k, e));
    TRY(window_fill_part(&w->fill, part, is_transposed, host, e));
    TRY(kern_copy_mark(m->k, e));
    TRY(kern_copy_ahead(m->k, stage, host, (size_t)bytes, e));
    return kern_copy_join(m->k, e);
}

enum err_code stream_head(struct model *m, int64_t first, int64_t n, struct err *e)
{
    struct stream *s = m->stream;
    const struct window *w = &s->window;
    const enum role role = m->wiring.is_tied ? ROLE_EMBED : ROLE_HEAD;
    const struct weight_tensor *t = weights_tensor(&m->weights, role);
    const int64_t out_row = t->cols * m->weights.act_bytes, chunk = w->plan.head_chunk;
    char *stage = w->block + w->plan.head_rows * out_row;
    TRY(picked_get(m, (size_t)(chunk * t->cols * w->plan.stage_bytes), e));
    for (int64_t at = 0; at < n; at += chunk) {
        const int64_t rows = n - at < chunk ? n - at : chunk;
        const struct ckpt_tensor part = ckpt_part(t->src, t->is_transposed, first + at, rows);
        TRY(read_chunk(m, &part, t->is_transposed, stage, e));
        TRY(w->plan.stage_bytes == 2
                ? kern_cast_f16(m->k, w->block + at * out_row,
                                (const uint16_t *)(const void *)stage, rows * t->cols, e)
                : kern_cast_f32(m->k, w->block + at * out_row, (const float *)(const void *)stage,
                                rows * t->cols, e));
    }
    s->view.compute[role] = w->block;
    ckpt_forget_pages(m->ckpt);
    return kern_copy_wait(m->k, e);
}
