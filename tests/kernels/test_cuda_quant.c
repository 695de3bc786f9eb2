/* Quantizers, histograms and rank keys of the cuda module against the cpu backend: every bit must agree, under every option
 * and on awkward tensors. A plain program; skips (77) where there is no module or no GPU. */
#include <math.h>
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

struct quant_result {
    float *out; /* cpu */
    void *device_out;
    uint8_t *codes, *codes_gpu;
    uint16_t *max, *max_gpu;
    int64_t n, n_blocks;
};

static int64_t count_differences(struct lab *l, const struct quant_result *r, int64_t *first)
{
    struct err e;
    int64_t n_bad = 0;
    size_t bytes = (size_t)r->n * (size_t)kern_get_info(l->gpu)->act_bytes;
    void *raw = xmalloc(bytes);
    lab_must(kern_download(l->gpu, raw, r->device_out, bytes, &e), &e);
    *first = -1;
    for (int64_t i = 0; i < r->n; i++) {
        bool is_same =
            f32_bits(lab_element(l, raw, i)) == f32_bits(lab_round_to(l->compute, r->out[i])) &&
            r->codes[i] == r->codes_gpu[i];
        n_bad += !is_same;
        *first = !is_same && *first < 0 ? i : *first;
    }
    for (int64_t b = 0; b < r->n_blocks; b++)
        n_bad += r->max[b] != r->max_gpu[b];
    xfree(raw);
    return n_bad;
}

static void check_quantized(struct lab *l, const struct tensor *t, struct quant_result *r,
                            const void *max, const char *what, const char *how)
{
    struct err e;
    int64_t first;
    lab_must(kern_download(l->gpu, r->max_gpu, max, (size_t)r->n_blocks * sizeof(uint16_t), &e),
             &e);
    int64_t n_bad = count_differences(l, r, &first);
    lab_check(l, n_bad == 0, "%s%s: %ld of %ld differ, first %ld: weight %04x code %d, cpu %d",
              what, how, (long)n_bad, (long)r->n, (long)first, first >= 0 ? t->host[first] : 0,
              first >= 0 ? r->codes_gpu[first] : 0, first >= 0 ? r->codes[first] : 0);
}

/* Centered weights near 65504 that fp32 holds and fp16 does not: right to refuse when computing in fp16. */
static bool is_beyond_fp16(const struct lab *l, const struct quant_result *r)
{
    bool is_beyond = false;
    for (int64_t i = 0; i < r->n && l->compute == KERN_FP16; i++)
        is_beyond = is_beyond || !isfinite(f32_round_to_f16(r->out[i]));
    return is_beyond;
}

/* `a` holds everything but weights and outputs. */
static void test_quantize(struct lab *l, const struct tensor *t, struct kern_quant_args a,
                          const char *what)
{
    struct err e_cpu = {0}, e_gpu = {0}, e;
    struct quant_result r = {.n = t->rows * t->cols};
    int64_t block = a.block <= 0 || a.block > r.n ? r.n : a.block;
    size_t n = (size_t)r.n, max_bytes;
    r.n_blocks = (r.n + block - 1) / block;
    max_bytes = (size_t)r.n_blocks * sizeof(uint16_t);
    r.out = xcalloc(n, sizeof(float));
    r.codes = xcalloc(n, 1);
    r.codes_gpu = xcalloc(n, 1);
    r.max = xcalloc((size_t)r.n_blocks, sizeof(uint16_t));
    r.max_gpu = xcalloc((size_t)r.n_blocks, sizeof(uint16_t));
    r.device_out = lab_device_alloc(l, n * sizeof(float));
    void *codes = lab_device_alloc(l, n), *max = lab_device_alloc(l, max_bytes);
    a.rows = t->rows;
    a.cols = t->cols;
    a.w16 = t->host;
    a.out = r.out;
    a.codes = r.codes;
    a.absmax = r.max;
    enum err_code on_cpu = kern_quantize(l->cpu, &a, &e_cpu);
    a.w16 = t->device;
    a.out = r.device_out;
    a.codes = codes;
    a.absmax = max;
    enum err_code on_gpu = kern_quantize(l->gpu, &a, &e_gpu);
    if (on_cpu == ERR_OK && is_beyond_fp16(l, &r)) {
        lab_check(l, on_gpu == ERR_NUMERIC, "%s: weights beyond fp16 were taken", what);
        goto out;
    }
    lab_check(l, on_cpu == on_gpu && strcmp(e_cpu.text, e_gpu.text) == 0,
              "%s: cpu says '%s', cuda '%s'", what, e_cpu.text, e_gpu.text);
    if (on_cpu == ERR_OK && on_gpu == ERR_OK) {
        lab_must(kern_download(l->gpu, r.codes_gpu, codes, n, &e), &e);
        check_quantized(l, t, &r, max, what, "");
        /* Without codes, other kernels run. */
        memset(r.max_gpu, POISON, max_bytes);
        lab_must(kern_upload(l->gpu, max, r.max_gpu, max_bytes, &e), &e);
        void *poison = xmalloc(n * sizeof(float));
        memset(poison, POISON, n * sizeof(float));
        lab_must(kern_upload(l->gpu, r.device_out, poison, n * sizeof(float), &e), &e);
        xfree(poison);
        a.codes = NULL;
        lab_must(kern_quantize(l->gpu, &a, &e), &e);
        check_quantized(l, t, &r, max, what, ", without codes");
    } else if (on_gpu != ERR_OK) {
        a.codes = NULL;
        on_gpu = kern_quantize(l->gpu, &a, &e_gpu);
        lab_check(l, on_cpu == on_gpu && strcmp(e_cpu.text, e_gpu.text) == 0,
                  "%s, without codes: cpu says '%s', cuda '%s'", what, e_cpu.text, e_gpu.text);
    }
out:;
    void *device[] = {r.device_out, codes, max};
    void *host[] = {r.out, r.codes, r.codes_gpu, r.max, r.max_gpu};
    for (size_t i = 0; i < ARRAY_LEN(device); i++)
        kern_free(l->gpu, device[i]);
    for (size_t i = 0; i < ARRAY_LEN(host); i++)
        xfree(host[i]);
}

/* Codebook of a configuration; the cpu's histogram serves the quantile type. False when there is none. */
static bool book_of_config(struct lab *l, const struct tensor *t, struct config c,
                           struct kern_quant_args *a, struct codebook *book)
{
    struct err e;
    int64_t *hist = xcalloc(65536, sizeof(*hist));
    config_normalize(&c);
    struct kern_quant_args on_cpu = *a;
    on_cpu.w16 = t->host;
    on_cpu.rows = t->rows;
    on_cpu.cols = t->cols;
    enum err_code code = kern_histogram(l->cpu, &on_cpu, hist, &e);
    if (code == ERR_OK)
        code = codebook_fill(&c, hist, book, &e);
    xfree(hist);
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

static void test_histogram(struct lab *l, const struct tensor *t, struct kern_quant_args a,
                           const char *what)
{
    struct err e_cpu = {0}, e_gpu = {0};
    int64_t *hist[2] = {xcalloc(65536, sizeof(int64_t)), xcalloc(65536, sizeof(int64_t))};
    a.rows = t->rows;
    a.cols = t->cols;
    a.w16 = t->host;
    enum err_code on_cpu = kern_histogram(l->cpu, &a, hist[0], &e_cpu);
    a.w16 = t->device;
    enum err_code on_gpu = kern_histogram(l->gpu, &a, hist[1], &e_gpu);
    lab_check(l, on_cpu == on_gpu && strcmp(e_cpu.text, e_gpu.text) == 0,
              "%s: histogram: cpu says '%s', cuda '%s'", what, e_cpu.text, e_gpu.text);
    lab_check(l, on_cpu != ERR_OK || memcmp(hist[0], hist[1], 65536 * sizeof(int64_t)) == 0,
              "%s: histogram differs", what);
    xfree(hist[0]);
    xfree(hist[1]);
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
            if (option < 6)
                test_histogram(l, t, a, what);
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
                    test_quantize(l, &t, a, lab_label("2^-%d, type %d k %d", down, (int)type, k));
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
        test_histogram(l, &t, a, "infinity");
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
    }
    tensor_free(l, &t);
}

static void test_quantizers(struct lab *l)
{
    static const int64_t shapes[][2] = {{1, 1}, {3, 5}, {7, 33}, {64, 64}, {129, 1000}, {40, 4097}};
    for (size_t i = 0; i < (l->is_short ? 4 : ARRAY_LEN(shapes)); i++) {
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
    if (l->is_short)
        return;
    test_all_patterns(l);
    test_all_quotients(l);
    if (l->compute == KERN_FP32)
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

static void run_all(struct lab *l)
{
    test_division(l);
    test_quantizers(l);
}

int main(void)
{
    return lab_main(run_all);
}
