#include "worker/model/plan.h"

#include <math.h>

#include "base/str.h"

static const char *const mode_labels[] = {
#define X(id, label) label,
    PLAN_MODE_LIST(X)
#undef X
};

const char *plan_mode_label(enum plan_mode m)
{
    return mode_labels[m];
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Weights of the largest step. */
static int64_t step_elements(const struct plan_shape *s, bool is_cut_within)
{
    int64_t all = 0, most = 0;
    for (int i = 0; i < PLAN_PARTS; i++) {
        all += s->part[i];
        most = larger(most, s->part[i]);
    }
    return is_cut_within ? most : all;
}

static int64_t budget_of(const struct plan_shape *s, const struct plan_device *d)
{
    const int64_t there = larger(d->memory_bytes - d->reserve - s->work_bytes, 0);
    return d->budget > 0 ? smaller(d->budget, there) : there;
}

/* So many rows of the head in the compute type, and a chunk of it as it is read. */
static int64_t head_bytes(const struct plan_shape *s, const struct plan_device *d, int64_t rows,
                          int stage_bytes)
{
    return s->head_cols * (rows * d->act_bytes + smaller(rows, d->head_chunk) * stage_bytes);
}

/* The rows of the head that fit into so many bytes: all, or a multiple of the device's step; 0: too few. */
static int64_t head_rows_in(const struct plan_shape *s, const struct plan_device *d, int64_t bytes,
                            int stage_bytes)
{
    if (head_bytes(s, d, s->head_rows, stage_bytes) <= bytes)
        return s->head_rows;
    int64_t rows = d->head_step > 0 ? s->head_rows / d->head_step * d->head_step : 0;
    while (rows > 0 && head_bytes(s, d, rows, stage_bytes) > bytes)
        rows -= d->head_step;
    return rows;
}

/* Least rows of the head that can be worked on at a time. */
static int64_t head_rows_min(const struct plan_shape *s, const struct plan_device *d)
{
    return d->head_step > 0 ? smaller(d->head_step, s->head_rows) : s->head_rows;
}

/* Fills in a way of streaming; false when the budget is too small for it. *least is what it takes. */
static bool try_streaming(const struct plan_shape *s, const struct plan_device *d, struct plan *p,
                          int64_t *least)
{
    const int64_t step = step_elements(s, p->is_cut_within);
    const int64_t window = step * (p->n_masters * p->stage_bytes + d->act_bytes);
    p->small_bytes = s->small * (p->stage_bytes + d->act_bytes);
    p->row_bytes = p->is_cut_within ? s->row_within : s->row_between;
    p->pass_bytes = s->stored_bytes;
    *least = p->small_bytes + larger(window, head_bytes(s, d, head_rows_min(s, d), p->stage_bytes));
    if (*least > p->budget)
        return false;
    p->block_bytes = *least - p->small_bytes;
    p->head_chunk = smaller(s->head_rows, d->head_chunk);
    p->head_rows = head_rows_in(s, d, p->block_bytes, p->stage_bytes);
    if (p->head_rows < s->head_rows)
        p->row_bytes += d->head_row_bytes;
    p->kept_bytes = p->budget - p->small_bytes - p->block_bytes;
    return true;
}

/* Seconds a token: reading is shared by the tokens of a pass, and hidden behind computing with a second master. */
static double seconds_a_token(const struct plan_shape *s, const struct plan_device *d,
                              const struct plan *p)
{
    const double tokens = (double)s->batch_tokens + (double)p->kept_bytes / (double)p->row_bytes;
    const double read = (double)p->pass_bytes / d->read_per_s / tokens;
    const double compute = 2 * s->n_products / d->flops_per_s;
    return p->n_masters == 2 ? fmax(read, compute) : read + compute;
}

/* The master on the host, the compute copy of everything on the device, and two layers on their way. */
static bool try_host_master(const struct plan_shape *s, const struct plan_device *d, struct plan *p)
{
    const int64_t step = step_elements(s, false);
    p->mode = PLAN_HOST_MASTER;
    p->n_masters = 2;
    p->stage_bytes = 2;
    p->master_bytes = s->n_layers * step * 2;
    p->block_bytes = larger(p->n_masters * step, d->head_chunk * larger(s->head_cols, 1)) * 2;
    p->small_bytes = s->small * (2 + d->act_bytes);
    p->head_rows = s->head_rows;
    p->head_chunk = smaller(s->head_rows, d->head_chunk);
    return p->master_bytes <= d->host_bytes &&
           s->total * d->act_bytes + p->block_bytes + p->small_bytes <= p->budget;
}

static enum err_code refuse(const struct plan *p, int64_t least, const char *what, struct err *e)
{
    char whole[32], streamed[32], have[32];
    return err_set(e, ERR_NOMEM,
                   "%s needs %s, or at least %s to be run layer by layer; the budget is %s: raise "
                   "--memory or use a device with more",
                   what, fmt_bytes((double)p->resident_bytes, whole),
                   fmt_bytes((double)least, streamed), fmt_bytes((double)p->budget, have));
}

enum err_code plan_make(const struct plan_shape *s, const struct plan_device *d, int stage_bytes,
                        const char *what, struct plan *out, struct err *e)
{
    struct plan best = {.stage_bytes = stage_bytes, .budget = budget_of(s, d)};
    best.resident_bytes = s->total * (2 + d->act_bytes);
    if (best.resident_bytes <= best.budget) {
        *out = best;
        return ERR_OK;
    }
    *out = best;
    if (stage_bytes == 2 && try_host_master(s, d, out))
        return ERR_OK;
    best.mode = PLAN_STREAMING;
    int64_t least = INT64_MAX;
    double best_s = INFINITY;
    for (int i = 0; i < 4; i++) { /* the first of equals counts */
        struct plan p = best;
        int64_t needs = 0;
        p.is_cut_within = i >= 2;
        p.n_masters = i % 2 == 0 ? 2 : 1;
        if (try_streaming(s, d, &p, &needs) && seconds_a_token(s, d, &p) < best_s) {
            best_s = seconds_a_token(s, d, &p);
            *out = p;
        }
        least = smaller(least, needs);
    }
    return isinf(best_s) ? refuse(&best, least, what, e) : ERR_OK;
}

int64_t plan_take(const struct plan *p, const int64_t *tokens, int64_t n, int64_t taken,
                  int64_t tokens_max)
{
    int64_t left = p->kept_bytes - taken, sum = n > 0 ? tokens[0] : 0, i = n > 0;
    for (; i < n; i++) { /* the first one lives where a batch works */
        left -= tokens[i] * p->row_bytes;
        sum += tokens[i];
        if (left < 0 || (tokens_max > 0 && sum > tokens_max))
            break;
    }
    return i;
}

struct plan_cost plan_cost_of(const struct plan *p, const struct plan_shape *s,
                              const struct plan_device *d, const struct plan_work *w)
{
    struct plan_cost c = {.passes = 1, .configs_per_pass = (double)w->n_configs};
    const double head = (double)s->head_rows * (double)s->head_cols;
    const double flops = 2 * s->n_products * w->tokens + 2 * head * w->scored;
    c.compute_s = flops * (double)w->n_configs / d->flops_per_s;
    if (p->mode == PLAN_STREAMING) {
        const double units = ceil(w->tokens / (double)s->batch_tokens);
        const double room =
            1 + floor((double)p->kept_bytes / (double)(s->batch_tokens * p->row_bytes));
        c.passes = (int64_t)ceil(units * (double)w->n_configs / room);
        c.configs_per_pass = room / units;
    }
    c.bytes = (double)c.passes * (double)s->stored_bytes;
    c.read_s = c.bytes / d->read_per_s;
    if (p->mode == PLAN_HOST_MASTER)
        c.read_s += (double)p->master_bytes * (double)w->n_configs / d->link_per_s;
    c.seconds = p->mode == PLAN_STREAMING && p->n_masters == 2 ? fmax(c.compute_s, c.read_s)
                                                               : c.compute_s + c.read_s;
    return c;
}
