/* Blockwise quantize-dequantize on the CPU (quantization spec, sections 1, 3, 4 and 6). Blocks of up to QUANT_PART
 * elements are done whole, each by one thread, while they are in its cache; a longer block (the whole tensor) is gone
 * over twice, in parts: for its maximum, then for its codes. Every element is a function of its block alone, so the
 * result does not depend on the number of threads. */
#include <math.h>
#include <stdbool.h>

#include "base/mem.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/f16.h"
#include "kernels/cpu/quant_book.h"
#include "kernels/cpu/quant_source.h"

struct quantizer {
    struct quant_source src;
    struct book book;
    bool is_fp32; /* products are not rounded to fp16 */
    float *out;   /* each may be NULL */
    uint8_t *codes;
    uint16_t *absmax;
};

/* Each thread's own; blocks may be as short as one element. */
struct scratch {
    uint16_t y[QUANT_PART];
    uint16_t max[QUANT_PART];
    float mean[QUANT_PART];
};

/* The sources of elements [start, start + n): in place when nothing changes them, else written to y. */
static const uint16_t *source_of(const struct quantizer *q, int64_t start, int n, uint16_t mean,
                                 uint16_t *y)
{
    if (quant_source_is_plain(&q->src))
        return q->src.w16 + start;
    quant_source_read(&q->src, start, n, mean, y);
    return y;
}

static float mean_to_add(const struct quantizer *q, uint16_t mean)
{
    return q->src.center == KERN_CENTER_NONE ? -0.0F : f16_to_f32(mean);
}

/* Adding the mean again can pass the largest fp16 number, though only beside weights near 65504. Returns the first
 * flat index where it did, or INT64_MAX. */
static int64_t find_overflow(const struct quant_run *r, int64_t start)
{
    if (r->out == NULL || r->is_fp32)
        return INT64_MAX;
    for (int at = 0, b = 0; at < r->n; at += r->block, b++) {
        if (f16_to_f32(r->max[b]) + fabsf(r->mean[b]) <= 65504)
            continue;
        int end = r->n - at < r->block ? r->n : at + r->block;
        for (int i = at; i < end; i++) {
            if (isinf(r->out[i]))
                return start + i;
        }
    }
    return INT64_MAX;
}

/* Codes and values of y[n], whole blocks or a part of one, from flat index `start` on; returns as find_overflow. */
static int64_t run_write(const struct quantizer *q, const uint16_t *y, int64_t start, int n,
                         int block, const uint16_t *max, const float *mean)
{
    struct quant_run r = {
        .book = &q->book,
        .is_fp32 = q->is_fp32,
        .y = y,
        .n = n,
        .block = block,
        .max = max,
        .mean = mean,
        .out = q->out != NULL ? q->out + start : NULL,
        .codes = q->codes != NULL ? q->codes + start : NULL,
    };
    q->src.vec->write(&r);
    return find_overflow(&r, start);
}

/* Sources of whole blocks, elements [start, start + n), with their means. */
static const uint16_t *blocks_read(const struct quantizer *q, struct scratch *s, int64_t start,
                                   int n)
{
    const struct quant_source *src = &q->src;
    int block = (int)src->block;
    const uint16_t *y = NULL;
    if (src->center != KERN_CENTER_BLOCK)
        y = source_of(q, start, n, src->tensor_mean, s->y);
    for (int at = 0, b = 0; at < n; at += block, b++) {
        uint16_t mean = src->tensor_mean;
        if (src->center == KERN_CENTER_BLOCK) {
            int len = n - at < block ? n - at : block;
            mean = quant_source_mean(src, start + at, len);
            y = source_of(q, start + at, len, mean, s->y + at) - at;
        }
        s->mean[b] = mean_to_add(q, mean);
    }
    return y;
}

/* Whole blocks, elements [start, start + n). Returns the flat index of the first that is not finite, before or after
 * quantizing, or INT64_MAX. */
static int64_t blocks_write(const struct quantizer *q, struct scratch *s, int64_t start, int n)
{
    int block = (int)q->src.block;
    uint16_t *max = q->absmax != NULL ? q->absmax + start / block : s->max;
    const uint16_t *y = blocks_read(q, s, start, n);
    q->src.vec->maxima(y, n, block, max);
    for (int at = 0, b = 0; at < n; at += block, b++) {
        if (max[b] >= F16_INFINITY)
            return start + quant_find_not_finite(y, n);
    }
    return run_write(q, y, start, n, block, max, s->mean);
}

static int part_len(int64_t at, int64_t end, int64_t step)
{
    return (int)(end - at < step ? end - at : step);
}

/* Threads take as many whole blocks as fit a part. */
static int64_t short_blocks(const struct quantizer *q)
{
    int64_t step = QUANT_PART / q->src.block * q->src.block;
    int64_t bad = INT64_MAX;
#pragma omp parallel num_threads(q->src.threads) reduction(min : bad)
    {
        struct scratch *s = xmalloc(sizeof(*s));
#pragma omp for schedule(static)
        for (int64_t start = 0; start < q->src.n; start += step) {
            int64_t at = blocks_write(q, s, start, part_len(start, q->src.n, step));
            bad = at < bad ? at : bad;
        }
        xfree(s);
    }
    return bad;
}

/* The largest magnitude of elements [start, end) of one block, fp16 bits; *bad as blocks_write. */
static uint16_t long_block_max(const struct quantizer *q, int64_t start, int64_t end, uint16_t mean,
                               int64_t *bad)
{
    int64_t first_bad = INT64_MAX;
    unsigned max = 0;
#pragma omp parallel num_threads(q->src.threads) reduction(min : first_bad) reduction(max : max)
    {
        struct scratch *s = xmalloc(sizeof(*s));
#pragma omp for schedule(static)
        for (int64_t at = start; at < end; at += QUANT_PART) {
            int n = part_len(at, end, QUANT_PART);
            const uint16_t *y = source_of(q, at, n, mean, s->y);
            q->src.vec->maxima(y, n, n, s->max);
            max = s->max[0] > max ? s->max[0] : max;
            int64_t i = s->max[0] >= F16_INFINITY ? at + quant_find_not_finite(y, n) : INT64_MAX;
            first_bad = i < first_bad ? i : first_bad;
        }
        xfree(s);
    }
    *bad = first_bad;
    return (uint16_t)max;
}

static int64_t long_block(const struct quantizer *q, int64_t b)
{
    int64_t start = b * q->src.block;
    int64_t end = q->src.n - start < q->src.block ? q->src.n : start + q->src.block;
    uint16_t mean = quant_source_mean(&q->src, start, end - start);
    int64_t bad = INT64_MAX;
    uint16_t max = long_block_max(q, start, end, mean, &bad);
    if (bad != INT64_MAX)
        return bad;
    if (q->absmax != NULL)
        q->absmax[b] = max;
    float add = mean_to_add(q, mean);
#pragma omp parallel num_threads(q->src.threads) reduction(min : bad)
    {
        struct scratch *s = xmalloc(sizeof(*s));
#pragma omp for schedule(static)
        for (int64_t at = start; at < end; at += QUANT_PART) {
            int n = part_len(at, end, QUANT_PART);
            const uint16_t *y = source_of(q, at, n, mean, s->y);
            int64_t i = run_write(q, y, at, n, n, &max, &add);
            bad = i < bad ? i : bad;
        }
        xfree(s);
    }
    return bad;
}

/* Kept columns come back at 16 bit. Returns the flat index of the first weight in them that is no finite number, or
 * INT64_MAX. */
static int64_t restore_columns(const struct quantizer *q, const struct kern_quant_args *a)
{
    int64_t bad = INT64_MAX;
#pragma omp parallel for num_threads(q->src.threads) schedule(static) reduction(min : bad)
    for (int64_t r = 0; r < a->rows; r++) {
        for (int32_t i = 0; i < a->n_keep; i++) {
            int64_t at = r * a->cols + a->keep[i];
            if ((a->w16[at] & F16_MAGNITUDE) >= F16_INFINITY)
                bad = at < bad ? at : bad;
            if (q->codes != NULL)
                q->codes[at] = 0;
            if (q->out != NULL)
                q->out[at] = f16_to_f32(a->w16[at]);
        }
    }
    return bad;
}

static enum err_code check_book(const struct kern_quant_args *a, struct err *e)
{
    if (a->n_book < 1 || a->n_book > BOOK_MAX)
        return err_set(e, ERR_FORMAT, "a codebook of %d entries; 1 to %d are possible", a->n_book,
                       BOOK_MAX);
    for (int j = 0; j < a->n_book; j++) {
        if (!(fabsf(a->book[j]) <= 1) || (j > 0 && a->book[j] < a->book[j - 1]))
            return err_set(e, ERR_FORMAT,
                           "codebook entry %d (%g) is not within -1..1 and ascending", j,
                           (double)a->book[j]);
    }
    return ERR_OK;
}

static enum err_code quantize(const struct quantizer *q, const struct kern_quant_args *a,
                              struct err *e)
{
    int64_t bad = INT64_MAX;
    if (q->src.block <= QUANT_PART) {
        bad = short_blocks(q);
    } else {
        for (int64_t b = 0; b < q->src.n_blocks && bad == INT64_MAX; b++)
            bad = long_block(q, b);
    }
    if (bad == INT64_MAX && a->n_keep > 0)
        bad = restore_columns(q, a);
    return bad == INT64_MAX ? ERR_OK : quant_source_refuse(&q->src, bad, e);
}

enum err_code cpu_quantize(struct kern *k, const struct kern_quant_args *a, struct err *e)
{
    TRY(check_book(a, e));
    struct quantizer *q = xmalloc(sizeof(*q));
    *q = (struct quantizer){
        .is_fp32 = a->is_dequant_fp32,
        .out = a->out,
        .codes = a->codes,
        .absmax = a->absmax,
    };
    book_init(&q->book, a->book, a->n_book);
    enum err_code code = quant_source_init(&q->src, k, a, e);
    if (code == ERR_OK)
        code = quantize(q, a, e);
    quant_source_release(&q->src);
    xfree(q);
    return code;
}
