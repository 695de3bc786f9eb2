/* Quantizers, order statistics and rank keys of the cuda module against the cpu backend: every bit must agree, under every
 * option and on awkward tensors. The cpu works once for all compute types. A plain program; skips (77) where there is no
 * module or no GPU. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/cuda_lab.h"
#include "worker/quant/quant.h"

struct tensor {
    uint16_t *host;
    void *device;
    int64_t rows, cols;
};

static struct tensor tensor_new(struct lab *l, int64_t rows, int64_t cols)
{
    struct tensor t = {.rows = rows, .cols = cols};
    t.host = xcalloc((size_t)(rows * cols), sizeof(uint16_t));
    t.device = lab_device_alloc(l, (size_t)(rows * cols) * sizeof(uint16_t));
    return t;
}

static void tensor_upload(struct lab *l, struct tensor *t)
{
    struct err e;
    lab_must(
        kern_upload(l->gpu, t->device, t->host, (size_t)(t->rows * t->cols) * sizeof(uint16_t), &e),
        &e);
    lab_must(kern_sync(l->gpu, &e), &e); /* kerns of other compute types read it */
}

static void tensor_free(struct lab *l, struct tensor *t)
{
    kern_free(l->gpu, t->device);
    xfree(t->host);
}

/* Weights of many sizes, with runs of zeros and of halves of the maximum, where quotients meet midpoints. */
static void tensor_fill(struct lab *l, struct tensor *t)
{
    for (int64_t i = 0; i < t->rows * t->cols; i++) {
        double x = 0.02 * rng_normal(&l->rng);
        if (i / 97 % 5 == 1)
            x = ldexp(1, (int)rng_below(&l->rng, 12) - 20);
        if (i / 131 % 7 == 2)
            x = 0;
        if (i / 211 % 11 == 3)
            x *= 1000;
        t->host[i] = f32_to_f16((float)x);
        if (rng_below(&l->rng, 50) == 0)
            t->host[i] ^= 0x8000;
    }
    tensor_upload(l, t);
}

/* What the cpu makes of a tensor. */
struct reference {
    enum err_code code;
    struct err e;
    float *out;
    uint8_t *codes;
    uint16_t *max;
    int64_t n, n_blocks;
};

/* `a` holds everything but weights and outputs, here and below. */
static void reference_init(struct lab *l, const struct tensor *t, struct kern_quant_args a,
                           struct reference *r)
{
    *r = (struct reference){.n = t->rows * t->cols};
    int64_t block = a.block <= 0 || a.block > r->n ? r->n : a.block;
    r->n_blocks = (r->n + block - 1) / block;
    r->out = xcalloc((size_t)r->n, sizeof(float));
    r->codes = xcalloc((size_t)r->n, 1);
    r->max = xcalloc((size_t)r->n_blocks, sizeof(uint16_t));
    a.rows = t->rows;
    a.cols = t->cols;
    a.w16 = t->host;
    a.out = r->out;
    a.codes = r->codes;
    a.absmax = r->max;
    r->code = kern_quantize(l->cpu, &a, &r->e);
}

static void reference_release(struct reference *r)
{
    xfree(r->out);
    xfree(r->codes);
    xfree(r->max);
}

/* What the GPU makes of it in one compute type; codes and max are poisoned where it writes none. */
struct quant_result {
    void *device_out, *device_codes, *device_max;
    void *out; /* compute type */
    uint8_t *codes;
    uint16_t *max;
};

static void poison(struct lab *l, void *device, void *host, size_t bytes)
{
    struct err e;
    memset(host, POISON, bytes);
    lab_must(kern_upload(l->gpu, device, host, bytes, &e), &e);
}

/* The output and the maxima; with codes also those. */
static void check_quantized(struct lab *l, const struct tensor *t, const struct reference *r,
                            struct quant_result *g, bool has_codes, const char *what)
{
    struct err e;
    int64_t n_bad = 0, first = -1;
    const size_t bytes = (size_t)r->n * (size_t)kern_get_info(l->gpu)->act_bytes;
    lab_must(kern_download(l->gpu, g->out, g->device_out, bytes, &e), &e);
    lab_must(
        kern_download(l->gpu, g->max, g->device_max, (size_t)r->n_blocks * sizeof(uint16_t), &e),
        &e);
    if (has_codes)
        lab_must(kern_download(l->gpu, g->codes, g->device_codes, (size_t)r->n, &e), &e);
    for (int64_t i = 0; i < r->n; i++) {
        bool is_same =
            f32_bits(lab_element(l, g->out, i)) == f32_bits(lab_round_to(l->compute, r->out[i])) &&
            (!has_codes || r->codes[i] == g->codes[i]);
        n_bad += !is_same;
        first = !is_same && first < 0 ? i : first;
    }
    for (int64_t b = 0; b < r->n_blocks; b++)
        n_bad += r->max[b] != g->max[b];
    lab_check(l, n_bad == 0, "%s%s: %ld of %ld differ, first %ld: weight %04x, cpu's code %d", what,
              has_codes ? "" : ", without codes", (long)n_bad, (long)r->n, (long)first,
              first >= 0 ? t->host[first] : 0, first >= 0 ? r->codes[first] : 0);
}

/* Centered weights near 65504 that fp32 holds and fp16 does not: right to refuse when computing in fp16. */
static bool is_beyond_fp16(const struct lab *l, const struct reference *r)
{
    bool is_beyond = false;
    for (int64_t i = 0; i < r->n && l->compute == KERN_FP16; i++)
        is_beyond = is_beyond || !isfinite(f32_round_to_f16(r->out[i]));
    return is_beyond;
}

/* With codes and without: other kernels run. */
static void run_quantize(struct lab *l, const struct tensor *t, struct kern_quant_args a,
                         const struct reference *r, struct quant_result *g, const char *what)
{
    const bool is_refused = r->code == ERR_OK && is_beyond_fp16(l, r);
    a.rows = t->rows;
    a.cols = t->cols;
    a.w16 = t->device;
    a.out = g->device_out;
    a.absmax = g->device_max;
    for (int i = 0; i < 2; i++) {
        const bool has_codes = i == 0;
        struct err e = {0};
        poison(l, g->device_out, g->out, (size_t)r->n * (size_t)kern_get_info(l->gpu)->act_bytes);
        poison(l, g->device_max, g->max, (size_t)r->n_blocks * sizeof(uint16_t));
        poison(l, g->device_codes, g->codes, (size_t)r->n);
        a.codes = has_codes ? g->device_codes : NULL;
        enum err_code code = kern_quantize(l->gpu, &a, &e);
        if (is_refused)
            lab_check(l, code == ERR_NUMERIC, "%s: weights beyond fp16 were taken", what);
        else
            lab_check(l, code == r->code && strcmp(r->e.text, e.text) == 0,
                      "%s (codes: %d): cpu says '%s', cuda '%s'", what, has_codes, r->e.text,
                      e.text);
        if (code == ERR_OK && r->code == ERR_OK)
            check_quantized(l, t, r, g, has_codes, what);
    }
}

static void check_quantize(struct lab *l, enum kern_compute c, const struct tensor *t,
                           struct kern_quant_args a, const struct reference *r, const char *what)
{
    const size_t n = (size_t)r->n, max_bytes = (size_t)r->n_blocks * sizeof(uint16_t);
    lab_use(l, c);
    struct quant_result g = {.device_out = lab_device_alloc(l, n * sizeof(float)),
                             .device_codes = lab_device_alloc(l, n),
                             .device_max = lab_device_alloc(l, max_bytes),
                             .out = xmalloc(n * sizeof(float)),
                             .codes = xmalloc(n),
                             .max = xmalloc(max_bytes)};
    run_quantize(l, t, a, r, &g, what);
    kern_free(l->gpu, g.device_out);
    kern_free(l->gpu, g.device_codes);
    kern_free(l->gpu, g.device_max);
    xfree(g.out);
    xfree(g.codes);
    xfree(g.max);
}

static void test_quantize(struct lab *l, const struct tensor *t, struct kern_quant_args a,
                          const char *what)
{
    struct reference r;
    reference_init(l, t, a, &r);
    for (int c = KERN_FP32; c < LAB_COMPUTES; c++)
        if (l->gpus[c] != NULL)
            check_quantize(l, (enum kern_compute)c, t, a, &r, what);
    reference_release(&r);
}

static void test_quantize_fp32(struct lab *l, const struct tensor *t, struct kern_quant_args a,
                               const char *what)
{
    struct reference r;
    reference_init(l, t, a, &r);
    check_quantize(l, KERN_FP32, t, a, &r, what);
    reference_release(&r);
}

/* Codebook of a configuration, by the cpu. False when there is none. */
static bool book_of_config(struct lab *l, const struct tensor *t, struct config c,
                           struct kern_quant_args *a, struct codebook *book)
{
    struct err e;
    config_normalize(&c);
    struct kern_quant_args on_cpu = *a;
    on_cpu.w16 = t->host;
    on_cpu.rows = t->rows;
    on_cpu.cols = t->cols;
    enum err_code code = codebook_of_weights(l->cpu, &c, &on_cpu, book, &e);
    a->book = book->v;
    a->n_book = book->n;
    return code == ERR_OK;
}

/* Type d at k bits, all else by default. */
static bool book_of(struct lab *l, const struct tensor *t, enum dtype d, int k,
                    struct kern_quant_args *a, struct codebook *book)
{
    struct config c = config_default();
    c.k = k;
    c.dtype = d;
    return book_of_config(l, t, c, a, book);
}

/* rank[n] on both sides. */
static void test_ranks(struct lab *l, const struct tensor *t, struct kern_quant_args a,
                       const int64_t *rank, int n, const char *what)
{
    struct err e_cpu = {0}, e_gpu = {0};
    float value[2][KERN_RANKS];
    memset(value, POISON, sizeof(value));
    a.rows = t->rows;
    a.cols = t->cols;
    a.w16 = t->host;
    enum err_code on_cpu = kern_order_statistics(l->cpu, &a, rank, n, value[0], &e_cpu);
    a.w16 = t->device;
    enum err_code on_gpu = kern_order_statistics(l->gpu, &a, rank, n, value[1], &e_gpu);
    lab_check(l, on_cpu == on_gpu && strcmp(e_cpu.text, e_gpu.text) == 0,
              "%s: %d order statistics: cpu says '%s', cuda '%s'", what, n, e_cpu.text, e_gpu.text);
    int n_bad = 0, first = -1;
    for (int i = 0; i < n && on_cpu == ERR_OK; i++) {
        bool is_same = f32_bits(value[0][i]) == f32_bits(value[1][i]);
        n_bad += !is_same;
        first = !is_same && first < 0 ? i : first;
    }
    lab_check(l, n_bad == 0, "%s: %d of %d order statistics differ, first of rank %ld: %a, cpu %a",
              what, n_bad, n, first >= 0 ? (long)rank[first] : -1,
              first >= 0 ? (double)value[1][first] : 0, first >= 0 ? (double)value[0][first] : 0);
}

static int compare_ranks(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a;
    int64_t y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* From end to end, and neighbours around three places. */
static void test_order_statistics(struct lab *l, const struct tensor *t, struct kern_quant_args a,
                                  const char *what)
{
    enum { SPREAD = 130, NEAR = (KERN_RANKS - SPREAD) / 3 };
    const int64_t count = t->rows * (t->cols - a.n_keep);
    int64_t rank[KERN_RANKS];
    int n = 0;
    for (int i = 0; i < SPREAD && count > 0; i++)
        rank[n++] = i * (count - 1) / (SPREAD - 1);
    for (int i = 0; i < 3 * NEAR; i++) {
        const int64_t r = (1 + i / NEAR) * count / 4 + i % NEAR - NEAR / 2;
        if (r >= 0 && r < count)
            rank[n++] = r;
    }
    qsort(rank, (size_t)n, sizeof(rank[0]), compare_ranks);
    test_ranks(l, t, a, rank, n, what);
}

/* No rank at all, and the ends alone. */
static void test_few_ranks(struct lab *l, const struct tensor *t, struct kern_quant_args a,
                           const char *what)
{
    const int64_t ends[] = {0, t->rows * (t->cols - a.n_keep) - 1};
    test_ranks(l, t, a, NULL, 0, what);
    test_ranks(l, t, a, ends, 1, what);
    test_ranks(l, t, a, ends + 1, 1, what);
    test_ranks(l, t, a, ends, 2, what);
}

static void test_spread(struct lab *l, const struct tensor *t, const char *what)
{
    struct err e;
    for (int by_rows = 0; by_rows < 2; by_rows++) {
        int64_t n = by_rows ? t->rows : t->cols;
        size_t bytes = (size_t)n * sizeof(unsigned __int128);
        unsigned __int128 *keys[2] = {xmalloc(bytes), xmalloc(bytes)};
        lab_must(kern_spread(l->cpu, t->host, t->rows, t->cols, by_rows != 0, keys[0], &e), &e);
        lab_must(kern_spread(l->gpu, t->device, t->rows, t->cols, by_rows != 0, keys[1], &e), &e);
        lab_check(l, memcmp(keys[0], keys[1], bytes) == 0, "%s: rank keys differ (by rows: %d)",
                  what, by_rows);
        xfree(keys[0]);
        xfree(keys[1]);
    }
}

static const int64_t blocks[] = {0, 1, 7, 24, 32, 64, 100, 128, 256, 512, 1024, 2048, 4096, 10000};

static void test_blocks_and_options(struct lab *l, const struct tensor *t)
{
    int32_t keep[3];
    int32_t n_keep = 0;
    for (int64_t c = 0; c < t->cols && n_keep < 3; c += 1 + t->cols / 3)
        keep[n_keep++] = (int32_t)c;
    for (size_t b = 0; b < ARRAY_LEN(blocks); b++) {
        for (int option = 0; option < 12; option++) {
            struct codebook book;
            struct kern_quant_args a = {.block = blocks[b],
                                        .center = (enum kern_center)(option % 3),
                                        .keep = option / 3 % 2 != 0 ? keep : NULL,
                                        .n_keep = option / 3 % 2 != 0 ? n_keep : 0,
                                        .is_dequant_fp32 = option / 6 != 0};
            const char *what = lab_label("%ld x %ld block %ld option %d", (long)t->rows,
                                         (long)t->cols, (long)blocks[b], option);
            if (book_of(l, t, DTYPE_quantile, 4, &a, &book))
                test_quantize(l, t, a, what);
            if (option < 6 && (b == 0 || a.center == KERN_CENTER_BLOCK))
                test_order_statistics(l, t, a, what);
        }
    }
}

static void test_types(struct lab *l, const struct tensor *t)
{
    static const int64_t some[] = {0, 64, 100, 512, 4096};
    for (int d = 0; d < DTYPE_COUNT; d++) {
        for (int k = 2; k <= 8; k++) {
            for (size_t b = 0; b < ARRAY_LEN(some); b++) {
                struct codebook book;
                struct kern_quant_args a = {.block = some[b]};
                if (book_of(l, t, (enum dtype)d, k, &a, &book))
                    test_quantize(l, t, a,
                                  lab_label("type %s k %d block %ld", dtype_label((enum dtype)d), k,
                                            (long)some[b]));
            }
        }
    }
    static const float odd[][5] = {{0}, {-1}, {-0.5F, -0.5F, 0, 0, 1}, {-1, -0.25F, 0.25F, 1, 1}};
    static const int n_odd[] = {1, 1, 5, 5};
    for (size_t i = 0; i < ARRAY_LEN(n_odd); i++) {
        struct kern_quant_args a = {.block = 64, .book = odd[i], .n_book = n_odd[i]};
        test_quantize(l, t, a, lab_label("book %zu", i));
    }
}

/* All finite fp16 numbers, in one block that they share with 1 and in many. */
static void test_all_patterns(struct lab *l)
{
    struct tensor t = tensor_new(l, 62, 1024);
    for (int i = 0; i < 62 * 1024; i++)
        t.host[i] = (uint16_t)(i % 2 * 0x8000 + i / 2);
    tensor_upload(l, &t);
    test_types(l, &t);
    test_blocks_and_options(l, &t);
    tensor_free(l, &t);
}

/* Every pair of significands once: row m holds all y <= m against the maximum m, in blocks of a row. */
static void test_all_quotients(struct lab *l)
{
    enum { N = 1024 };
    struct tensor t = tensor_new(l, N, 2 * N);
    for (int m = 0; m < N; m++)
        for (int i = 0; i < 2 * N; i++) {
            int y = i < N ? 0x3800 + i : 0x3c00 + i - N;
            int max = 0x3c00 + m;
            t.host[m * 2 * N + i] = (uint16_t)(i == 0 ? max : i < N ? y : y <= max ? y : max);
        }
    tensor_upload(l, &t);
    for (int k = 4; k <= 8; k++) {
        struct codebook book;
        struct kern_quant_args a = {.block = 2 * N};
        for (int d = 0; d < DTYPE_COUNT; d++)
            if (book_of(l, &t, (enum dtype)d, k, &a, &book))
                test_quantize(l, &t, a, lab_label("all quotients, type %d k %d", d, k));
    }
    tensor_free(l, &t);
}

/* Books that the module computes instead of looking them up, and some that are nearly like them: every float there is,
 * and one with an entry that is a unit in the last place off. */
static void test_floats(struct lab *l, const struct tensor *t)
{
    static const int64_t some[] = {64, 256, 512, 4096, 24};
    struct config c = config_default();
    c.dtype = DTYPE_float;
    for (c.k = 2; c.k <= 8; c.k++)
        for (c.exponent_bits = 1; c.exponent_bits < c.k; c.exponent_bits++)
            for (c.subnormal_shift = 0; c.subnormal_shift <= 4; c.subnormal_shift += 2)
                for (size_t b = 0; b < ARRAY_LEN(some); b++) {
                    struct codebook book;
                    struct kern_quant_args a = {.block = some[b]};
                    if (!book_of_config(l, t, c, &a, &book))
                        continue;
                    const char *what = lab_label("float k %d E %d s %d block %ld", c.k,
                                                 c.exponent_bits, c.subnormal_shift, (long)some[b]);
                    test_quantize(l, t, a, what);
                    book.v[1] = nextafterf(book.v[1], 0);
                    test_quantize(l, t, a, what);
                }
}

/* Every quotient of two binary16 numbers down to 2^-15, of both signs, against the int and the float type: row m holds
 * the numbers of one exponent against the maximum m. Values in fp32 tell neighbours apart. */
static void test_all_signed_quotients(struct lab *l)
{
    enum { N = 1024, EXPONENTS = 15 };
    struct tensor t = tensor_new(l, N, 2 * N);
    for (int down = 0; down < EXPONENTS; down++) {
        for (int m = 0; m < N; m++)
            for (int i = 0; i < 2 * N; i++) {
                int y = 0x3c00 - (down << 10) + i % N, max = 0x3c00 + m;
                t.host[m * 2 * N + i] =
                    (uint16_t)(i == 0 ? max : (y < max ? y : max) + i / N * 0x8000);
            }
        tensor_upload(l, &t);
        for (int k = 3; k <= 8; k++)
            for (int d = 0; d < 2; d++) {
                const enum dtype type = d == 0 ? DTYPE_int : DTYPE_float;
                struct codebook book;
                struct kern_quant_args a = {.block = 2 * N, .is_dequant_fp32 = true};
                if (book_of(l, &t, type, k, &a, &book))
                    test_quantize_fp32(l, &t, a,
                                       lab_label("2^-%d, type %d k %d", down, (int)type, k));
            }
    }
    tensor_free(l, &t);
}

/* What is refused, and in which words. */
static void test_refusals(struct lab *l)
{
    static const float book[] = {-1, 0, 1};
    static const int32_t beyond[] = {0, 40};
    struct tensor t = tensor_new(l, 8, 40);
    tensor_fill(l, &t);
    struct kern_quant_args a = {.block = 64, .book = book, .n_book = 3};
    t.host[77] = 0x7c00;
    t.host[301] = 0x7e01;
    tensor_upload(l, &t);
    for (int center = 0; center < 3; center++) {
        a.center = (enum kern_center)center;
        test_quantize(l, &t, a, "infinity");
        test_order_statistics(l, &t, a, "infinity");
    }
    a.center = KERN_CENTER_NONE;
    a.block = 0;
    test_quantize(l, &t, a, "infinity in one block");
    a.block = -3;
    test_quantize(l, &t, a, "negative block");
    a.block = 64;
    a.keep = beyond;
    a.n_keep = 2;
    test_quantize(l, &t, a, "column beyond the last");
    a.n_keep = 0;
    a.n_book = 0;
    test_quantize(l, &t, a, "empty book");
    for (int i = 0; i < 320; i++)
        t.host[i] = i % 2 == 0 ? 0x7bff : 0xfbff;
    t.host[3] = 0x7bff;
    tensor_upload(l, &t);
    a.n_book = 3;
    for (int center = 0; center < 3; center++) {
        a.center = (enum kern_center)center;
        test_quantize(l, &t, a, "largest weights");
        test_order_statistics(l, &t, a, "largest weights");
    }
    tensor_free(l, &t);
}

/* One value of every kind, and where it changes from one to the next. */
static void test_equal_weights(struct lab *l)
{
    static const uint16_t values[][2] = {{0x0000, 0x0000}, {0x8000, 0x8000}, {0x8000, 0x0000},
                                         {0x3c00, 0x3c00}, {0xfbff, 0x7bff}, {0x8001, 0x0001},
                                         {0xbc00, 0x8000}, {0x83ff, 0x8400}};
    static const int32_t keep[] = {0, 20, 39};
    struct tensor t = tensor_new(l, 9, 40);
    for (size_t v = 0; v < ARRAY_LEN(values); v += l->is_short ? 3 : 1) {
        for (int i = 0; i < 360; i++)
            t.host[i] = values[v][i % 3 == 0];
        tensor_upload(l, &t);
        for (int option = 0; option < 6; option++) {
            struct kern_quant_args a = {.block = 64,
                                        .center = (enum kern_center)(option % 3),
                                        .keep = option < 3 ? NULL : keep,
                                        .n_keep = option < 3 ? 0 : 3};
            const char *what = lab_label("values %zu option %d", v, option);
            test_order_statistics(l, &t, a, what);
            test_few_ranks(l, &t, a, what);
        }
    }
    tensor_free(l, &t);
}

static void test_refused_ranks(struct lab *l)
{
    static const int32_t keep[] = {1};
    static const int64_t ranks[][2] = {{-1, 0}, {5, 4}, {0, 12}};
    struct tensor t = tensor_new(l, 4, 4);
    tensor_upload(l, &t);
    struct kern_quant_args a = {.block = 64, .keep = keep, .n_keep = 1};
    for (size_t i = 0; i < ARRAY_LEN(ranks); i++)
        test_ranks(l, &t, a, ranks[i], 2, lab_label("refused ranks %zu", i));
    tensor_free(l, &t);
}

/* ---- calls that are checked later ---- */

/* Calls on `good`, but on `bad` where the bit of `bad_calls` is set, with order statistics of `good` in between. What is to
 * come: the first bad one, in the cpu's words. */
static void run_later(struct lab *l, const struct tensor *good, const struct tensor *bad,
                      unsigned bad_calls, const struct reference *why, const char *what)
{
    enum { CALLS = 12 };
    static const float book[] = {-1, 0, 1};
    const int64_t rank = 17;
    struct err e = {0};
    int64_t call = -1;
    void *out = lab_device_alloc(l, (size_t)(good->rows * good->cols) * sizeof(float));
    struct kern_quant_args a = {.rows = good->rows,
                                .cols = good->cols,
                                .block = 64,
                                .book = book,
                                .n_book = 3,
                                .out = out,
                                .is_checked_later = true};
    for (int i = 0; i < CALLS; i++) {
        float value;
        a.w16 = (bad_calls >> i & 1) != 0 ? bad->device : good->device;
        a.center = (enum kern_center)(i % 3);
        lab_must(kern_quantize(l->gpu, &a, &e), &e);
        a.w16 = good->device;
        if (i % 4 == 1)
            lab_must(kern_order_statistics(l->gpu, &a, &rank, 1, &value, &e), &e);
    }
    enum err_code code = kern_quant_check(l->gpu, &call, &e);
    if (bad_calls == 0)
        lab_check(l, code == ERR_OK, "%s: refused: %s", what, e.text);
    else
        lab_check(l,
                  code == why->code && call == __builtin_ctz(bad_calls) &&
                      strcmp(e.text, why->e.text) == 0,
                  "%s: call %ld, '%s'; cpu '%s'", what, (long)call, e.text, why->e.text);
    kern_free(l->gpu, out);
}

/* Order statistics that are refused are no call. */
static void run_refused_statistics(struct lab *l, const struct tensor *good,
                                   const struct tensor *bad)
{
    struct err e;
    float value;
    const int64_t rank = 0;
    for (int center = 0; center < 3; center++) {
        struct kern_quant_args a = {.w16 = bad->device,
                                    .rows = bad->rows,
                                    .cols = bad->cols,
                                    .block = 64,
                                    .center = (enum kern_center)center,
                                    .is_checked_later = true};
        lab_check(l, kern_order_statistics(l->gpu, &a, &rank, 1, &value, &e) == ERR_NUMERIC,
                  "weights that are not finite were ranked");
        run_later(l, good, bad, 0, NULL, "behind refused order statistics");
    }
}

/* Faults of deferred calls: which call, what is said, and that the kern goes on. */
static void test_checked_later(struct lab *l)
{
    static const uint16_t patterns[] = {0x7c00, 0xfc00, 0x7e00};
    static const unsigned bad_calls[] = {1, 1 << 5, 1 << 11, 1 << 3 | 1 << 4 | 1 << 9};
    static const float book[] = {-1, 0, 1};
    struct tensor good = tensor_new(l, 16, 100), bad = tensor_new(l, 16, 100);
    tensor_fill(l, &good);
    for (size_t p = 0; p < ARRAY_LEN(patterns); p++) {
        struct reference why;
        memcpy(bad.host, good.host, 1600 * sizeof(uint16_t));
        bad.host[321 + p] = patterns[p];
        tensor_upload(l, &bad);
        reference_init(l, &bad, (struct kern_quant_args){.block = 64, .book = book, .n_book = 3},
                       &why);
        for (int c = KERN_FP32; c < LAB_COMPUTES; c++) {
            if (l->gpus[c] == NULL)
                continue;
            lab_use(l, (enum kern_compute)c);
            for (size_t i = 0; i < ARRAY_LEN(bad_calls); i++) {
                run_later(l, &good, &bad, bad_calls[i], &why, lab_label("bad calls %zu", i));
                run_later(l, &good, &bad, 0, NULL, "after a fault");
            }
            run_refused_statistics(l, &good, &bad);
        }
        reference_release(&why);
    }
    tensor_free(l, &good);
    tensor_free(l, &bad);
}

/* More books than are kept, there and back: those that come again are kept, made anew, and never another's. */
static void test_many_books(struct lab *l)
{
    const int n = l->is_short ? 20 : 1000;
    struct tensor t = tensor_new(l, 1, 64);
    tensor_fill(l, &t);
    for (int i = 0; i < 2 * n; i++) {
        float book[16] = {-1};
        for (int j = 1; j < 16; j++)
            book[j] = (float)(j - 8 + (i < n ? i : 2 * n - 1 - i) * 1e-4) / 8;
        struct kern_quant_args a = {
            .block = 64, .book = book, .n_book = 16, .is_dequant_fp32 = true};
        test_quantize(l, &t, a, lab_label("book %d of many", i));
    }
    tensor_free(l, &t);
}

static void test_quantizers(struct lab *l)
{
    static const int64_t shapes[][2] = {{1, 1}, {3, 5}, {7, 33}, {64, 64}, {129, 1000}, {40, 4097}};
    for (size_t i = l->is_short ? 2 : 0; i < (l->is_short ? 4 : ARRAY_LEN(shapes)); i++) {
        struct tensor t = tensor_new(l, shapes[i][0], shapes[i][1]);
        tensor_fill(l, &t);
        test_blocks_and_options(l, &t);
        test_spread(l, &t, lab_label("%ld x %ld", (long)t.rows, (long)t.cols));
        if (i >= 3)
            test_types(l, &t);
        if (i == 4)
            test_floats(l, &t);
        tensor_free(l, &t);
    }
    test_refusals(l);
    test_equal_weights(l);
    test_refused_ranks(l);
    test_checked_later(l);
    test_many_books(l);
    if (l->is_short)
        return;
    test_all_patterns(l);
    test_all_quotients(l);
    test_all_signed_quotients(l);
}

/* The three operations with which the module divides, for every pair of binary16 significands. */
static void test_division(struct lab *l)
{
    int n_bad = 0;
    for (int a = 1024; a < 2048; a++) {
        for (int b = 1024; b < 2048; b++) {
            float y = (float)a * (a < b ? 1.0F : 0.5F), m = (float)b;
            volatile float r = 1.0F / m, q = y * r, t = y / m;
            n_bad += fmaf(fmaf(-q, m, y), r, q) != t;
        }
    }
    lab_check(l, n_bad == 0, "%d quotients are not correctly rounded", n_bad);
}

int main(int argc, char **argv)
{
    (void)argc;
    static const struct lab_part parts[] = {
        {"division", test_division}, {"quantizers", test_quantizers}, {NULL, NULL}};
    return lab_main_once(parts, argv);
}
