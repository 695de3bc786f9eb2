/* How a model runs: its sizes and the device's, and the plans that follow from both (plan.h). */
#include "worker/model/model_plan.h"

#include <unistd.h>

#include "schema/rates.h"
#include "worker/model/window.h"

static int64_t work_row_bytes(const struct model *m)
{
    const struct wiring *w = &m->wiring;
    const int64_t cols = model_row_cols(w) + (w->has_projection ? (int64_t)w->d_embed : 0);
    return cols * m->weights.act_bytes;
}

static struct plan_shape shape_of(const struct model *m)
{
    const struct wiring *w = &m->wiring;
    const int64_t act = m->weights.act_bytes;
    struct plan_shape s = {.n_layers = w->n_layers,
                           .total = m->weights.n_elements,
                           .head_rows = w->vocab,
                           .head_cols = w->d_embed,
                           .batch_tokens = model_step_rows(m, m->max_tokens),
                           .row_between = w->d * act,
                           .row_within = model_row_cols(w) * act,
                           .n_params = (double)m->weights.n_params};
    window_sizes(m, s.part, &s.small);
    s.work_bytes = s.batch_tokens * work_row_bytes(m);
    for (int i = 0; i < m->weights.n_tensors; i++) {
        const struct weight_tensor *t = &m->weights.tensors[i];
        s.stored_bytes += ckpt_stored_bytes(t->src);
        s.n_products += weights_is_linear(t->role) ? (double)t->rows * (double)t->cols : 0;
    }
    return s;
}

/* Scratch memory of kernels, of the library of products and of the driver. */
static const int64_t gpu_reserve = (int64_t)2 << 30;

/* Rows of a head that are read and cast at a time. */
enum { HOST_CHUNK = 256, GPU_CHUNK = 512 };

/* What may be pinned. */
static int64_t host_memory(void)
{
    return (int64_t)(0.8 * (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE));
}

/* Of a row with one target: for its likelihood, and for its divergence. */
static int64_t head_row_bytes(const struct model *m)
{
    return kern_head_bytes(m->k, m->wiring.vocab, 1, 1) +
           kern_head_bytes(m->k, m->wiring.vocab, 1, 0);
}

static struct plan_device device_of(const struct model *m, int64_t memory_bytes)
{
    const struct kern_info *info = kern_get_info(m->k);
    const double n = (double)m->weights.n_params;
    return (struct plan_device){.budget = memory_bytes,
                                .memory_bytes = info->memory_bytes,
                                .reserve = info->is_host ? 0 : gpu_reserve,
                                .act_bytes = info->act_bytes,
                                .head_step = info->head_step,
                                .head_chunk = info->is_host ? HOST_CHUNK : GPU_CHUNK,
                                .head_row_bytes = head_row_bytes(m),
                                .flops_per_s = info->is_host ? rate_cpu_core() * info->threads
                                                             : rate_by_size(n),
                                .host_bytes = info->is_host ? 0 : host_memory(),
                                .read_per_s = rate_storage(),
                                .link_per_s = rate_link()};
}

enum err_code model_make_plans(struct model *m, int64_t memory_bytes, struct model_plan *out,
                               struct err *e)
{
    struct err unused;
    *out = (struct model_plan){.shape = shape_of(m), .device = device_of(m, memory_bytes)};
    TRY(plan_make(&out->shape, &out->device, 2, ckpt_dir(m->ckpt), &out->plan, e));
    if (out->plan.mode == PLAN_STREAMING && m->wiring.d_embed > m->wiring.d)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: embeddings wider than the layers are not run layer by layer; raise "
                       "--memory",
                       ckpt_dir(m->ckpt));
    if (out->plan.mode == PLAN_RESIDENT ||
        plan_make(&out->shape, &out->device, 4, "", &out->stored, &unused) != ERR_OK)
        out->stored = out->plan;
    return ERR_OK;
}

void model_get_plan(const struct model *m, struct model_plan *out)
{
    *out = (struct model_plan){.plan = m->plan,
                               .stored = m->plan_stored,
                               .shape = shape_of(m),
                               .device = device_of(m, m->plan.budget)};
}
