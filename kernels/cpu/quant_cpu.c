/* Blockwise quantize-dequantize on the CPU (quantization spec, sections 1, 3, 4 and 6). Blocks of up to QUANT_PART
 * elements are done whole, each by one thread, while they are in its cache; a longer block (the whole tensor) is gone
 * over twice, in parts: for its maximum, then for its codes. Every element is a function of its block alone, so the
 * result does not depend on the number of threads. */
#include <math.h>

#include "base/mem.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/quant_book.h"
#include "kernels/cpu/quant_source.h"
#include "kernels/cpu/simd.h"

struct quantizer {
    struct quant_source src;
    struct book book;
    bool is_fp32; /* products are not rounded to fp16 */
    float *out;   /* each may be NULL */
    uint8_t *codes;
    uint16_t *absmax;
};

struct scale {
    float m, mean; /* x^ = F[j] * m + mean */
};

/* Each thread's own. */
struct scratch {
    uint16_t y[QUANT_PART];
    float t[QUANT_PART];
    uint16_t cell[QUANT_PART];
    uint8_t codes[QUANT_PART];
};

static inline uint16_t part_max(const uint16_t *y, int n)
{
    int16_t max = 0;
#pragma omp simd reduction(max : max)
    for (int i = 0; i < n; i++) {
        int16_t mag = (int16_t)(y[i] & F16_MAGNITUDE);
        max = mag > max ? mag : max;
    }
    return (uint16_t)max;
}

static inline float dequantize(float f, struct scale s, bool is_fp32)
{
    float x = f * s.m + s.mean;
    return is_fp32 ? x : f32_round_to_f16(x);
}

static inline void encode_large(const struct book *b, float m, const uint16_t *y, int n,
                                struct scratch *s, uint8_t *codes)
{
#pragma omp simd
    for (int i = 0; i < n; i++) {
        s->t[i] = f16_to_f32(y[i]) / m;
        s->cell[i] = book_cell(s->t[i]);
    }
    for (int i = 0; i < n; i++)
        codes[i] = book_find(b, s->t[i], s->cell[i]);
}

static inline void decode_small(const struct quantizer *q, struct scale sc, const uint8_t *codes,
                                int n, float *out)
{
    float value[BOOK_SMALL];
#pragma omp simd
    for (int j = 0; j < BOOK_SMALL; j++)
        value[j] = dequantize(q->book.v[j], sc, q->is_fp32);
    for (int i = 0; i < n; i++)
        out[i] = value[codes[i]];
}

static inline void decode_large(const struct quantizer *q, struct scale sc, const uint8_t *codes,
                                int n, float *out)
{
    for (int i = 0; i < n; i++)
        out[i] = q->book.v[codes[i]];
#pragma omp simd
    for (int i = 0; i < n; i++)
        out[i] = dequantize(out[i], sc, q->is_fp32);
}

/* Codes and values of elements [start, start + n) of one block, y their source. */
static inline void part_write(const struct quantizer *q, struct scratch *s, int64_t start,
                              const uint16_t *y, int n, struct scale sc)
{
    bool is_small = q->book.n <= BOOK_SMALL;
    uint8_t *codes = q->codes != NULL ? q->codes + start : s->codes;
    if (sc.m == 0) {
        memset(codes, q->book.zero_code, (size_t)n);
        for (int i = 0; q->out != NULL && i < n; i++)
            q->out[start + i] = 0 + sc.mean;
        return;
    }
    if (is_small)
        book_encode_small(&q->book, sc.m, y, n, codes);
    else
        encode_large(&q->book, sc.m, y, n, s, codes);
    if (q->out == NULL)
        return;
    if (is_small)
        decode_small(q, sc, codes, n, q->out + start);
    else
        decode_large(q, sc, codes, n, q->out + start);
}

/* Where y has a value that is not finite; then the block cannot be quantized. */
static int64_t find_not_finite(const uint16_t *y, int n, int64_t start)
{
    int i = 0;
    while (i < n - 1 && (y[i] & F16_MAGNITUDE) < F16_INFINITY)
        i++;
    return start + i;
}

static struct scale scale_of(const struct quantizer *q, uint16_t max, uint16_t mean)
{
    /* -0 is what can be added to any number, zeros of either sign too, without changing it. */
    return (struct scale){
        .m = f16_to_f32(max),
        .mean = q->src.center == KERN_CENTER_NONE ? -0.0F : f16_to_f32(mean),
    };
}

/* Blocks [first, end), none longer than QUANT_PART. Returns the flat index of the first element that is not finite, or
 * INT64_MAX. */
ISOBIT_CLONES
static int64_t blocks_write(const struct quantizer *q, struct scratch *s, int64_t first,
                            int64_t end)
{
    const struct quant_source *src = &q->src;
    for (int64_t b = first; b < end; b++) {
        int64_t start = b * src->block;
        int n = (int)(src->n - start < src->block ? src->n - start : src->block);
        const uint16_t *y = src->w16 + start;
        uint16_t mean = 0;
        if (!quant_source_is_plain(src)) {
            mean = quant_source_mean(src, start, n);
            quant_source_read(src, start, n, mean, s->y);
            y = s->y;
        }
        uint16_t max = part_max(y, n);
        if (max >= F16_INFINITY)
            return find_not_finite(y, n, start);
        if (q->absmax != NULL)
            q->absmax[b] = max;
        part_write(q, s, start, y, n, scale_of(q, max, mean));
    }
    return INT64_MAX;
}

/* Threads take runs of blocks, about QUANT_PART elements at a time. */
static int64_t short_blocks(const struct quantizer *q)
{
    int64_t per_run = QUANT_PART / q->src.block;
    int64_t n_runs = (q->src.n_blocks + per_run - 1) / per_run;
    int64_t bad = INT64_MAX;
#pragma omp parallel num_threads(q->src.threads) reduction(min : bad)
    {
        struct scratch *s = xmalloc(sizeof(*s));
#pragma omp for schedule(static)
        for (int64_t r = 0; r < n_runs; r++) {
            int64_t first = r * per_run;
            int64_t end = first + per_run < q->src.n_blocks ? first + per_run : q->src.n_blocks;
            int64_t at = blocks_write(q, s, first, end);
            bad = at < bad ? at : bad;
        }
        xfree(s);
    }
    return bad;
}

/* One part of a long block: its source, in scratch or in place. */
static const uint16_t *part_read(const struct quantizer *q, struct scratch *s, int64_t start, int n,
                                 uint16_t mean)
{
    if (quant_source_is_plain(&q->src))
        return q->src.w16 + start;
    quant_source_read(&q->src, start, n, mean, s->y);
    return s->y;
}

ISOBIT_CLONES
static uint16_t long_part_max(const struct quantizer *q, struct scratch *s, int64_t start, int n,
                              uint16_t mean)
{
    return part_max(part_read(q, s, start, n, mean), n);
}

ISOBIT_CLONES
static void long_part_write(const struct quantizer *q, struct scratch *s, int64_t start, int n,
                            uint16_t max, uint16_t mean)
{
    part_write(q, s, start, part_read(q, s, start, n, mean), n, scale_of(q, max, mean));
}

static int part_len(int64_t at, int64_t end)
{
    return end - at < QUANT_PART ? (int)(end - at) : QUANT_PART;
}

static int64_t long_block(const struct quantizer *q, int64_t b)
{
    int64_t start = b * q->src.block;
    int64_t end = q->src.n - start < q->src.block ? q->src.n : start + q->src.block;
    uint16_t mean = quant_source_mean(&q->src, start, end - start);
    int64_t bad = INT64_MAX;
    unsigned max = 0;
#pragma omp parallel num_threads(q->src.threads) reduction(min : bad)
    {
        struct scratch *s = xmalloc(sizeof(*s));
#pragma omp for schedule(static) reduction(max : max)
        for (int64_t at = start; at < end; at += QUANT_PART) {
            int n = part_len(at, end);
            unsigned part = long_part_max(q, s, at, n, mean);
            max = part > max ? part : max;
            if (part >= F16_INFINITY) {
                int64_t i = find_not_finite(part_read(q, s, at, n, mean), n, at);
                bad = i < bad ? i : bad;
            }
        }
#pragma omp for schedule(static)
        for (int64_t at = start; at < end; at += QUANT_PART) {
            if (max < F16_INFINITY)
                long_part_write(q, s, at, part_len(at, end), (uint16_t)max, mean);
        }
        xfree(s);
    }
    if (q->absmax != NULL)
        q->absmax[b] = (uint16_t)max;
    return bad;
}

/* Kept columns come back at 16 bit. */
static void restore_columns(const struct quantizer *q, const struct kern_quant_args *a)
{
#pragma omp parallel for num_threads(q->src.threads) schedule(static)
    for (int64_t r = 0; r < a->rows; r++) {
        for (int32_t i = 0; i < a->n_keep; i++) {
            int64_t at = r * a->cols + a->keep[i];
            if (q->codes != NULL)
                q->codes[at] = 0;
            if (q->out != NULL)
                q->out[at] = f16_to_f32(a->w16[at]);
        }
    }
}

/* Adding the mean again can pass the largest fp16 number, though only beside weights near 65504. */
static int64_t find_overflow(const struct quantizer *q)
{
    for (int64_t i = 0; i < q->src.n; i++) {
        if (isinf(q->out[i]))
            return i;
    }
    return INT64_MAX;
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

static enum err_code quantize(struct quantizer *q, const struct kern_quant_args *a, struct err *e)
{
    int64_t bad = INT64_MAX;
    if (q->src.block <= QUANT_PART) {
        bad = short_blocks(q);
    } else {
        for (int64_t b = 0; b < q->src.n_blocks && bad == INT64_MAX; b++)
            bad = long_block(q, b);
    }
    if (bad != INT64_MAX)
        return quant_source_refuse(&q->src, bad, e);
    restore_columns(q, a);
    if (q->out != NULL && q->src.center != KERN_CENTER_NONE && !q->is_fp32)
        bad = find_overflow(q);
    if (bad != INT64_MAX)
        return quant_source_refuse(&q->src, bad, e);
    return ERR_OK;
}

enum err_code cpu_quantize(struct kern *k, const struct kern_quant_args *a, struct err *e)
{
    TRY(check_book(a, e));
    struct quantizer q = {
        .is_fp32 = a->is_dequant_fp32,
        .out = a->out,
        .codes = a->codes,
        .absmax = a->absmax,
    };
    book_init(&q.book, a->book, a->n_book);
    enum err_code code = quant_source_init(&q.src, k, a, e);
    if (code == ERR_OK)
        code = quantize(&q, a, e);
    quant_source_release(&q.src);
    return code;
}
