#include "worker/model/window.h"

#include <string.h>

#include "base/mem.h"
#include "worker/model/window_reader.h"

enum { PLACE_ALIGN = 64 }; /* elements: 128 bytes of fp16 */

static int64_t aligned(int64_t n)
{
    return (n + PLACE_ALIGN - 1) / PLACE_ALIGN * PLACE_ALIGN;
}

static bool is_small(enum role role)
{
    return !weights_is_per_layer(role) && role != ROLE_EMBED && role != ROLE_POSITIONS &&
           role != ROLE_HEAD;
}

/* All layers are alike, so the places of one serve all. */
static void lay_places(const struct model *m, int n_cuts, struct window_place *place,
                       int64_t cut_elements[MODEL_PARTS], int64_t *small)
{
    memset(cut_elements, 0, MODEL_PARTS * sizeof *cut_elements);
    *small = 0;
    for (int role = 0; role < ROLE_COUNT; role++) {
        const struct weight_slot *s = weights_slot(&m->weights, (enum role)role, 0);
        struct window_place *p = &place[role];
        *p = (struct window_place){0};
        int64_t *sum = small;
        if (weights_is_per_layer((enum role)role)) {
            p->cut = n_cuts == 1 ? 0 : (int)model_part_of(&m->wiring, (enum role)role);
            sum = &cut_elements[p->cut];
        } else if (!is_small((enum role)role)) {
            continue;
        }
        p->at = *sum;
        *sum += aligned(s->rows * s->cols);
    }
}

void window_sizes(const struct model *m, int64_t part[MODEL_PARTS], int64_t *small)
{
    struct window_place unused[ROLE_COUNT];
    lay_places(m, MODEL_PARTS, unused, part, small);
}

static int64_t most_elements(const struct window *w)
{
    int64_t most = 0;
    for (int i = 0; i < w->n_cuts; i++)
        most = w->cut_elements[i] > most ? w->cut_elements[i] : most;
    return most;
}

static bool is_host(const struct window *w)
{
    return kern_get_info(w->m->k)->is_host;
}

static int64_t step_bytes(const struct window *w)
{
    return most_elements(w) * w->plan.stage_bytes;
}

/* Buffers that the reader fills in turn. */
static int n_buffers(const struct window *w)
{
    return w->all != NULL ? (int)window_steps(w) : is_host(w) ? w->plan.n_masters : 2;
}

static char *host_buffer(const struct window *w, int64_t step)
{
    const int64_t i = step % n_buffers(w);
    return w->all != NULL ? w->all + i * step_bytes(w) : w->host[i];
}

static char *master_of(const struct window *w, int64_t step)
{
    return is_host(w) ? host_buffer(w, step) : w->master[step % w->plan.n_masters];
}

static enum err_code alloc_host(struct window *w, struct err *e)
{
    void *p = NULL;
    if (w->plan.mode == PLAN_HOST_MASTER) {
        TRY(kern_host_alloc(w->m->k, (size_t)w->plan.master_bytes, "fp16 weights on the host", &p,
                            e));
        w->all = p;
        return ERR_OK;
    }
    for (int i = 0; i < (is_host(w) ? w->plan.n_masters : 2); i++) {
        if (!is_host(w))
            TRY(kern_host_alloc(w->m->k, (size_t)step_bytes(w), "a layer on its way", &p, e));
        w->host[i] = is_host(w) ? w->master[i] : p;
    }
    return ERR_OK;
}

static enum err_code alloc_into(struct window *w, struct err *e)
{
    void *p = NULL;
    TRY(kern_alloc(w->m->k, (size_t)w->plan.block_bytes, "a layer of weights", &p, e));
    w->block = p;
    TRY(kern_alloc(w->m->k, (size_t)w->plan.small_bytes, "norms and projections", &p, e));
    w->small = p;
    for (int i = 0; i < w->plan.n_masters; i++)
        w->master[i] = w->block + i * step_bytes(w);
    w->compute = w->block + w->plan.n_masters * step_bytes(w);
    return alloc_host(w, e);
}

enum err_code window_open(const struct model *m, const struct plan *p, struct weight_view *view,
                          struct window *w, struct err *e)
{
    *w = (struct window){.m = m, .plan = *p, .view = view, .now = -1};
    w->n_cuts = p->is_cut_within ? MODEL_PARTS : 1;
    w->fill = (struct window_fill){m->ckpt, p->stage_bytes, window_fill_threads(m->k)};
    lay_places(m, w->n_cuts, w->place, w->cut_elements, &w->small_elements);
    enum err_code rc = alloc_into(w, e);
    if (rc != ERR_OK)
        window_close(w);
    return rc;
}

void window_close(struct window *w)
{
    if (w->m == NULL)
        return;
    struct kern *k = w->m->k;
    window_end(w);
    for (int i = 0; i < 2; i++)
        if (w->host[i] != NULL && !is_host(w))
            kern_host_free(k, w->host[i]);
    kern_host_free(k, w->all);
    kern_free(k, w->small);
    kern_free(k, w->block);
    *w = (struct window){0};
}

static enum err_code cast(struct window *w, void *dst, const void *src, int64_t n, struct err *e)
{
    return w->plan.stage_bytes == 2 ? kern_cast_f16(w->m->k, dst, src, n, e)
                                    : kern_cast_f32(w->m->k, dst, src, n, e);
}

/* Elements between the start of the tensor's step (or of the small ones) and the tensor. */
static int64_t place_of(const struct window *w, const struct weight_tensor *t)
{
    return w->place[t->role].at + t->at - weights_slot(&w->m->weights, t->role, t->layer)->at;
}

/* ---- small tensors ---- */

static char *small_compute(const struct window *w)
{
    return w->small + w->small_elements * w->plan.stage_bytes;
}

static void view_small(struct window *w)
{
    const int act = w->m->weights.act_bytes;
    for (int role = 0; role < ROLES_GLOBAL; role++) {
        if (!is_small((enum role)role))
            continue;
        const int64_t at = w->place[role].at;
        w->view->master[role] =
            (const uint16_t *)(const void *)(w->small + at * w->plan.stage_bytes);
        w->view->compute[role] = small_compute(w) + at * act;
    }
}

static enum err_code read_small(struct window *w, void *stage, struct err *e)
{
    for (int i = 0; i < w->m->weights.n_tensors; i++) {
        const struct weight_tensor *t = &w->m->weights.tensors[i];
        if (!is_small(t->role))
            continue;
        TRY(window_fill_part(&w->fill, t->src, t->is_transposed, stage, e));
        TRY(kern_upload(w->m->k, w->small + place_of(w, t) * w->plan.stage_bytes, stage,
                        (size_t)t->src->count * (size_t)w->plan.stage_bytes, e));
        TRY(kern_sync(w->m->k, e));
        w->bytes_read += ckpt_stored_bytes(t->src);
    }
    return ERR_OK;
}

enum err_code window_small(struct window *w, struct err *e)
{
    void *stage = xcalloc((size_t)w->small_elements + 1, (size_t)w->plan.stage_bytes);
    enum err_code rc = read_small(w, stage, e);
    xfree(stage);
    view_small(w);
    return rc == ERR_OK ? window_cast_small(w, e) : rc;
}

enum err_code window_cast_small(struct window *w, struct err *e)
{
    return cast(w, small_compute(w), w->small, w->small_elements, e);
}

/* ---- steps ---- */

int64_t window_steps(const struct window *w)
{
    return (int64_t)w->m->wiring.n_layers * w->n_cuts;
}

int window_layer(const struct window *w)
{
    return (int)(w->now / w->n_cuts);
}

int window_parts(const struct window *w, int *first)
{
    const int cut = (int)(w->now % w->n_cuts);
    *first = w->n_cuts == 1 ? 0 : cut;
    return w->n_cuts == 1 ? MODEL_PARTS : cut + 1;
}

static bool is_of_step(const struct window *w, const struct weight_tensor *t, int64_t step)
{
    return weights_is_per_layer(t->role) && t->layer == step / w->n_cuts &&
           w->place[t->role].cut == step % w->n_cuts;
}

bool window_holds(const struct window *w, enum role role)
{
    return weights_is_per_layer(role) && w->place[role].cut == w->now % w->n_cuts;
}

/* In the reader's thread. */
static enum err_code read_step(void *arg, int64_t step, struct err *e)
{
    struct window *w = arg;
    char *dst = host_buffer(w, step);
    if (w->all != NULL && step < w->n_kept)
        return ERR_OK;
    for (int i = 0; i < w->m->weights.n_tensors; i++) {
        const struct weight_tensor *t = &w->m->weights.tensors[i];
        if (is_of_step(w, t, step))
            TRY(window_fill_tensor(&w->fill, t->src, t->is_transposed,
                                   dst + place_of(w, t) * w->plan.stage_bytes, e));
    }
    ckpt_forget_pages(w->m->ckpt);
    w->n_kept = step + 1;
    return ERR_OK;
}

enum err_code window_begin(struct window *w, struct err *e)
{
    w->now = -1;
    w->n_queued = 0;
    if (w->all == NULL)
        w->n_counted = 0;
    return window_reader_start(read_step, w, window_steps(w), n_buffers(w), &w->reader, e);
}

void window_end(struct window *w)
{
    struct err ignored;
    window_reader_stop(w->reader);
    w->reader = NULL;
    if (w->n_queued > 0) /* a copy may still be on its way out of a host buffer */
        ERR_IGNORE(kern_copy_wait(w->m->k, &ignored));
}

static enum err_code queue_copy(struct window *w, struct err *e)
{
    const int64_t step = w->n_queued;
    TRY(window_reader_wait(w->reader, step, e));
    w->n_queued++;
    const int64_t bytes = w->cut_elements[step % w->n_cuts] * w->plan.stage_bytes;
    return kern_copy_ahead(w->m->k, w->master[step % w->plan.n_masters], host_buffer(w, step),
                           (size_t)bytes, e);
}

enum err_code window_poll(struct window *w, struct err *e)
{
    const bool is_due = !is_host(w) && w->plan.n_masters == 2 && w->n_queued == w->now + 1 &&
                        w->n_queued < window_steps(w);
    return is_due && window_reader_has(w->reader, w->n_queued) ? queue_copy(w, e) : ERR_OK;
}

/* The copy of the step that is due now ends in front of the work that follows; the host buffer is then the reader's again,
 * and the copy of the step behind it may start as soon as the work before this step is done. */
static enum err_code take_copied(struct window *w, struct err *e)
{
    struct kern *k = w->m->k;
    if (w->n_queued == w->now) {
        TRY(kern_copy_mark(k, e));
        TRY(queue_copy(w, e));
    }
    TRY(kern_copy_join(k, e));
    TRY(kern_copy_wait(k, e));
    window_reader_release(w->reader, w->now + 1);
    if (w->plan.n_masters == 2)
        TRY(kern_copy_mark(k, e));
    return window_poll(w, e);
}

static void view_step(struct window *w)
{
    const int act = w->m->weights.act_bytes;
    const char *master = master_of(w, w->now);
    for (int role = ROLES_GLOBAL; role < ROLE_COUNT; role++) {
        const bool is_here = window_holds(w, (enum role)role);
        const int64_t at = w->place[role].at;
        w->view->master[role] =
            is_here ? (const uint16_t *)(const void *)(master + at * w->plan.stage_bytes) : NULL;
        w->view->compute[role] = is_here ? w->compute + at * act : NULL;
    }
}

enum err_code window_next(struct window *w, struct err *e)
{
    if (is_host(w) && w->now >= 0)
        window_reader_release(w->reader, w->now + 1);
    w->now++;
    CHECK(w->now < window_steps(w));
    if (is_host(w))
        TRY(window_reader_wait(w->reader, w->now, e));
    else
        TRY(take_copied(w, e));
    for (int i = 0; i < w->m->weights.n_tensors && w->now >= w->n_counted; i++)
        if (is_of_step(w, &w->m->weights.tensors[i], w->now))
            w->bytes_read += ckpt_stored_bytes(w->m->weights.tensors[i].src);
    w->n_counted = w->now >= w->n_counted ? w->now + 1 : w->n_counted;
    view_step(w);
    return ERR_OK;
}

enum err_code window_cast(struct window *w, struct err *e)
{
    const int cut = (int)(w->now % w->n_cuts);
    return cast(w, w->compute, master_of(w, w->now), w->cut_elements[cut], e);
}

const uint16_t *window_master_of(const struct window *w, const struct weight_tensor *t)
{
    const struct weight_slot *s = weights_slot(&w->m->weights, t->role, t->layer);
    return w->view->master[t->role] + (t->at - s->at);
}

void *window_compute_of(const struct window *w, const struct weight_tensor *t)
{
    const struct weight_slot *s = weights_slot(&w->m->weights, t->role, t->layer);
    return (char *)w->view->compute[t->role] + (t->at - s->at) * w->m->weights.act_bytes;
}
