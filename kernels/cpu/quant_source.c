#include "kernels/cpu/quant_source.h"

#include <string.h>

#include "base/mem.h"
#include "kernels/backend.h"
#include "kernels/cpu/f16.h"
#include "kernels/quant_check.h"

/* A sum of fp16 values in units of 2^-24, and how many they are. Exact: 128 bits hold 2^87 of them. */
struct sum {
    __int128 units;
    int64_t n;
};

/* fp16(units / n * 2^-24), rounded once. In these units the spacing of binary16 is 2^shift, where a quotient of
 * 11 + shift bits has its leading 11 bits kept; below 2^11 it is 1, subnormal or not. The carry of rounding up runs
 * into the exponent as it should. */
static uint16_t mean_round(struct sum s)
{
    if (s.n == 0)
        return 0;
    unsigned __int128 mag = (unsigned __int128)(s.units < 0 ? -s.units : s.units);
    uint64_t whole =
        (uint64_t)(mag / (uint64_t)s.n); /* a mean is no larger than 65504, below 2^40 units */
    uint64_t rest = (uint64_t)(mag % (uint64_t)s.n);
    int shift = 0;
    while (whole >> shift >= 2048)
        shift++;
    uint64_t kept = whole >> shift;
    /* Twice the dropped part against one spacing, both in units of 1/n. */
    unsigned __int128 dropped = (unsigned __int128)(whole - (kept << shift)) * (uint64_t)s.n + rest;
    unsigned __int128 spacing = (unsigned __int128)(uint64_t)s.n << shift;
    uint64_t is_up = 2 * dropped > spacing || (2 * dropped == spacing && (kept & 1) != 0);
    uint64_t bits = ((uint64_t)shift << 10) + kept + is_up;
    return (uint16_t)(bits | (s.units < 0 ? 0x8000U : 0));
}

/* Puts +0 into the kept columns of y[n], which begins at flat index `start`; returns how many. Goes row by row, so that
 * no element needs a division. */
static int mask_kept(const struct quant_source *s, int64_t start, int n, uint16_t *y)
{
    int n_live = 0;
    int64_t col = start % s->cols;
    for (int done = 0; done < n; col = 0) {
        int len = s->cols - col < n - done ? (int)(s->cols - col) : n - done;
        for (int i = 0; i < len; i++) {
            y[done + i] &= s->live[col + i];
            n_live += s->live[col + i] & 1;
        }
        done += len;
    }
    return n - n_live;
}

/* Sum over at most QUANT_PART elements. */
static struct sum part_sum(const struct quant_source *s, int64_t start, int n)
{
    uint16_t y[QUANT_PART];
    const uint16_t *from = s->w16 + start;
    int n_kept = 0;
    if (s->live != NULL) {
        memcpy(y, from, (size_t)n * sizeof(*y));
        n_kept = mask_kept(s, start, n, y);
        from = y;
    }
    return (struct sum){.units = (int64_t)(s->vec->sum(from, n) * 0x1p24), .n = n - n_kept};
}

uint16_t quant_source_mean(const struct quant_source *s, int64_t start, int64_t n)
{
    if (s->center == KERN_CENTER_NONE)
        return 0;
    if (s->center == KERN_CENTER_TENSOR)
        return s->tensor_mean;
    struct sum total = {0};
    for (int64_t at = 0; at < n; at += QUANT_PART) {
        struct sum part = part_sum(s, start + at, n - at < QUANT_PART ? (int)(n - at) : QUANT_PART);
        total.units += part.units;
        total.n += part.n;
    }
    return mean_round(total);
}

/* Integers, so that the order in which threads add does not matter. */
static uint16_t tensor_mean(const struct quant_source *s)
{
    struct sum total = {0};
#pragma omp parallel num_threads(s->threads)
    {
        struct sum mine = {0};
#pragma omp for schedule(static) nowait
        for (int64_t at = 0; at < s->n; at += QUANT_PART) {
            int64_t rest = s->n - at;
            struct sum part = part_sum(s, at, rest < QUANT_PART ? (int)rest : QUANT_PART);
            mine.units += part.units;
            mine.n += part.n;
        }
#pragma omp critical(quant_source_mean)
        {
            total.units += mine.units;
            total.n += mine.n;
        }
    }
    return mean_round(total);
}

void quant_source_read(const struct quant_source *s, int64_t start, int n, uint16_t mean,
                       uint16_t *y)
{
    if (s->center == KERN_CENTER_NONE)
        memcpy(y, s->w16 + start, (size_t)n * sizeof(*y));
    else
        s->vec->subtract(s->w16 + start, f16_to_f32(mean), n, y);
    if (s->live != NULL)
        (void)mask_kept(s, start, n, y);
}

static enum err_code keep_init(struct quant_source *s, const struct kern_quant_args *a,
                               struct err *e)
{
    TRY(quant_check_keep(a, e));
    s->live = xmalloc((size_t)a->cols * sizeof(*s->live));
    memset(s->live, 0xff, (size_t)a->cols * sizeof(*s->live));
    for (int32_t i = 0; i < a->n_keep; i++)
        s->live[a->keep[i]] = 0;
    return ERR_OK;
}

/* A sum means nothing with infinities in it. */
static enum err_code check_finite(const struct quant_source *s, struct err *e)
{
    for (int64_t at = 0; at < s->n; at += QUANT_PART) {
        int n = s->n - at < QUANT_PART ? (int)(s->n - at) : QUANT_PART;
        uint16_t max = 0;
        s->vec->maxima(s->w16 + at, n, n, &max);
        if (max >= F16_INFINITY)
            return quant_source_refuse(s, at + quant_find_not_finite(s->w16 + at, n), e);
    }
    return ERR_OK;
}

int quant_find_not_finite(const uint16_t *y, int n)
{
    int i = 0;
    while (i < n && (y[i] & F16_MAGNITUDE) < F16_INFINITY)
        i++;
    return i;
}

enum err_code quant_source_init(struct quant_source *s, const struct kern *k,
                                const struct kern_quant_args *a, struct err *e)
{
    *s = (struct quant_source){.vec = quant_vec_select(),
                               .w16 = a->w16,
                               .cols = a->cols,
                               .threads = k->info.threads,
                               .center = a->center};
    TRY(quant_check_shape(a, &s->n, &s->block, e));
    s->n_blocks = (s->n + s->block - 1) / s->block;
    if (a->n_keep > 0)
        TRY(keep_init(s, a, e));
    if (s->center != KERN_CENTER_NONE)
        TRY(check_finite(s, e));
    if (s->center == KERN_CENTER_TENSOR)
        s->tensor_mean = tensor_mean(s);
    return ERR_OK;
}

void quant_source_release(struct quant_source *s)
{
    xfree(s->live);
    *s = (struct quant_source){0};
}

enum err_code quant_source_refuse(const struct quant_source *s, int64_t i, struct err *e)
{
    const bool is_finite = (s->w16[i] & F16_MAGNITUDE) < F16_INFINITY;
    return quant_refuse(i, is_finite, (double)f16_to_f32(s->w16[i]), e);
}
