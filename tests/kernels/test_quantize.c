/* kern_quantize on the cpu, against a second implementation that follows the quantization spec word by word: doubles for the
 * fp16 numbers, one float operation at a time, no tables. What all operations on weights refuse. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/quant_vec.h"
#include "tests/support/kern_fixture.h"
#include "tests/support/quant_reference.h"

/* ---- quantization by definition ---- */

struct result {
    float *out;
    uint8_t *codes;
    uint16_t *absmax;
};

static struct result result_new(int64_t n, int64_t n_blocks)
{
    return (struct result){xcalloc((size_t)n, sizeof(float)), xcalloc((size_t)n, 1),
                           xcalloc((size_t)n_blocks, sizeof(uint16_t))};
}

static void result_free(struct result *r)
{
    xfree(r->out);
    xfree(r->codes);
    xfree(r->absmax);
}

static int reference_code(const struct kern_quant_args *a, float x, float m)
{
    float t = m == 0 ? 0.0F : x / m;
    t = fminf(1, fmaxf(-1, t));
    int lo = 0; /* midpoints ascend: all below lo are < t, none from hi on */
    int hi = a->n_book - 1;
    while (lo < hi) {
        int at = (lo + hi) / 2;
        volatile float sum = a->book[at] + a->book[at + 1];
        if (0.5F * sum < t)
            lo = at + 1;
        else
            hi = at;
    }
    return lo;
}

static void reference_block(const struct kern_quant_args *a, int64_t start, int64_t end,
                            const uint16_t *mean, struct result *r, int64_t block)
{
    uint16_t *y = xcalloc((size_t)(end - start), sizeof(*y));
    int max = 0;
    for (int64_t i = start; i < end; i++) {
        uint16_t v = mean != NULL ? nearest_f16(value_of(a->w16[i]) - value_of(*mean)) : a->w16[i];
        y[i - start] = is_kept(a, i) ? 0 : v;
        max = abs((int)y[i - start] & 0x7fff) > max ? y[i - start] & 0x7fff : max;
    }
    float m = (float)value_of(max);
    r->absmax[block] = (uint16_t)max;
    for (int64_t i = start; i < end; i++) {
        int code = reference_code(a, (float)value_of(y[i - start]), m);
        volatile float product = max == 0 ? 0.0F : a->book[code] * m;
        volatile float x = mean != NULL ? product + (float)value_of(*mean) : product;
        r->codes[i] = is_kept(a, i) ? 0 : (uint8_t)code;
        r->out[i] = a->is_dequant_fp32 ? x : (float)value_of(nearest_f16(x));
        if (is_kept(a, i))
            r->out[i] = (float)value_of(a->w16[i]);
    }
    xfree(y);
}

static void reference_quantize(const struct kern_quant_args *a, struct result *r)
{
    int64_t n = a->rows * a->cols;
    int64_t size = a->block == 0 ? n : a->block;
    uint16_t whole = reference_mean(a, 0, n);
    for (int64_t start = 0, b = 0; start < n; start += size, b++) {
        int64_t end = start + size < n ? start + size : n;
        uint16_t own = reference_mean(a, start, end);
        const uint16_t *mean = a->center == KERN_CENTER_TENSOR  ? &whole
                               : a->center == KERN_CENTER_BLOCK ? &own
                                                                : NULL;
        reference_block(a, start, end, mean, r, b);
    }
}

/* Runs both and compares every bit. */
static void compare(struct kern *k, struct kern_quant_args a, const char *what)
{
    struct err e;
    int64_t n = a.rows * a.cols;
    int64_t n_blocks = a.block == 0 ? 1 : (n + a.block - 1) / a.block;
    struct result expected = result_new(n, n_blocks);
    struct result got = result_new(n, n_blocks);
    reference_quantize(&a, &expected);
    a.out = got.out;
    a.codes = got.codes;
    a.absmax = got.absmax;
    cr_assert_eq(kern_quantize(k, &a, &e), ERR_OK, "%s: %s", what, e.text);
    for (int64_t b = 0; b < n_blocks; b++)
        cr_assert_eq(got.absmax[b], expected.absmax[b], "%s: block %ld: absmax", what, (long)b);
    for (int64_t i = 0; i < n; i++) {
        cr_assert_eq(got.codes[i], expected.codes[i], "%s: index of %04x at %ld: %d, expected %d",
                     what, a.w16[i], (long)i, got.codes[i], expected.codes[i]);
        cr_assert_eq(f32_bits(got.out[i]), f32_bits(expected.out[i]),
                     "%s: value of %04x at %ld: %a, expected %a", what, a.w16[i], (long)i,
                     got.out[i], expected.out[i]);
    }
    result_free(&expected);
    result_free(&got);
}

/* ---- codebooks ---- */

struct levels {
    float v[256];
    int n;
};

static struct levels even_book(int k)
{
    struct levels b = {.n = (1 << k) - 1};
    for (int i = 0; i < b.n; i++)
        b.v[i] = (float)(2.0 * i / (b.n - 1) - 1);
    return b;
}

/* Powers of two from `lowest` up, both signs, and 0: midpoints on exact quotients. */
static struct levels power_book(int lowest)
{
    struct levels b = {0};
    for (int p = lowest; p <= 0; p++) {
        b.v[b.n++] = ldexpf(1, p);
        b.v[b.n++] = -ldexpf(1, p);
    }
    b.v[b.n++] = 0;
    qsort(b.v, (size_t)b.n, sizeof(float), by_value);
    return b;
}

/* Quotients of fp16 numbers, as quantile codebooks have them, with duplicates and a pile near zero. */
static struct levels random_book(struct rng *r, int n)
{
    struct levels b = {.n = n};
    for (int i = 0; i < n; i++) {
        double scale = rng_below(r, 4) == 0 ? ldexp(1, -(int)rng_below(r, 30)) : 1;
        b.v[i] = (float)value_of(nearest_f16(scale * (2 * rng_uniform(r) - 1)));
        if (i > 0 && rng_below(r, 5) == 0)
            b.v[i] = b.v[rng_below(r, (uint64_t)i)];
    }
    qsort(b.v, (size_t)n, sizeof(float), by_value);
    return b;
}

enum { N_BOOKS = 18 };
static struct levels book_at(int i, struct rng *r)
{
    if (i < 7)
        return even_book(2 + i);
    switch (i) {
    case 7:
        return power_book(-2);
    case 8:
        return power_book(-6);
    case 9:
        return power_book(-100);
    case 10:
        return (struct levels){.v = {0}, .n = 1};
    case 11:
        return (struct levels){.v = {-1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1},
                               .n = 18};
    case 12:
        return random_book(r, 16);
    case 13:
        return random_book(r, 17);
    case 14:
        return random_book(r, 2);
    default:
        return random_book(r, 256);
    }
}

/* Every fp16 x with |x| <= m, each block of `block` led by m itself. Returns how many. */
static int64_t all_within(int m, int block, uint16_t *w)
{
    int64_t n = 0;
    for (int mag = 0; mag <= m; mag++) {
        for (int sign = 0; sign <= 0x8000; sign += 0x8000) {
            if (block > 0 && n % block == 0)
                w[n++] = (uint16_t)m;
            w[n++] = (uint16_t)(mag | sign);
        }
    }
    return n;
}

Test(quantize, every_fp16_value_has_the_index_of_the_definition)
{
    struct kern *k = fixture_kern(2);
    struct rng r = {42};
    uint16_t *w = xcalloc(3 * PATTERNS, sizeof(*w));
    static const int maxima[] = {1, 2, 3, 0x03ff, 0x0400, 0x0401, 0x3c00, 0x3555, 0x7bff};
    for (int i = 0; i < N_BOOKS; i++) {
        struct levels b = book_at(i, &r);
        for (size_t j = 0; j < ARRAY_LEN(maxima) + 2; j++) {
            int m = j < ARRAY_LEN(maxima) ? maxima[j] : 1 + (int)rng_below(&r, FINITE - 1);
            int block = (j % 3 == 0) ? 64 : j % 3 == 1 ? 4096 : 0;
            struct kern_quant_args a = {
                .w16 = w, .rows = 1, .block = block, .book = b.v, .n_book = b.n};
            a.cols = all_within(m, block, w);
            char what[80];
            (void)snprintf(what, sizeof what, "book %d of %d entries, absmax %04x, block %d", i,
                           b.n, m, block);
            compare(k, a, what);
        }
    }
    xfree(w);
    kern_close(k);
}

/* Spec 2.7: E2M0 with a block maximum of 1 is exact in fp32; the lower neighbour wins. */
Test(quantize, ties_go_to_the_lower_neighbour)
{
    struct kern *k = fixture_kern(1);
    static const float e2m0[] = {-1, -.5F, -.25F, 0, .25F, .5F, 1};
    static const double x[] = {1, .125, .375, .75, -.125, -.375, -.75, -0.0};
    static const float expected[] = {1, 0, .25F, .5F, -.25F, -.5F, -1, 0};
    uint16_t w[ARRAY_LEN(x)];
    float out[ARRAY_LEN(x)];
    for (size_t i = 0; i < ARRAY_LEN(x); i++)
        w[i] = nearest_f16(x[i]);
    struct kern_quant_args a = {
        .w16 = w, .rows = 1, .cols = ARRAY_LEN(x), .book = e2m0, .n_book = 7, .out = out};
    struct err e;
    cr_assert_eq(kern_quantize(k, &a, &e), ERR_OK);
    for (size_t i = 0; i < ARRAY_LEN(x); i++)
        cr_expect_eq(out[i], expected[i], "%g became %g", x[i], (double)out[i]);
    kern_close(k);
}

Test(quantize, blocks_centering_and_kept_columns_follow_the_definition)
{
    static const struct {
        int64_t rows, cols, block;
        int32_t n_keep;
    } shapes[] = {
        {37, 53, 64, 0},  {37, 53, 64, 3},      {5, 4099, 0, 7},     {3, 2, 64, 1},
        {64, 64, 32, 2},  {11, 1000, 4096, 20}, {13, 1024, 5000, 5}, {1, 1, 1, 0},
        {9, 100, 7, 100}, {130, 100, 0, 0},
    };
    struct rng r = {3};
    struct kern *k = fixture_kern(2);
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
        int64_t n = shapes[i].rows * shapes[i].cols;
        uint16_t *w = xcalloc((size_t)n, sizeof(*w));
        int32_t *keep = xcalloc((size_t)shapes[i].n_keep + 1, sizeof(*keep));
        random_weights(&r, w, n);
        for (int32_t j = 0; j < shapes[i].n_keep; j++)
            keep[j] = (int32_t)(j * shapes[i].cols / shapes[i].n_keep);
        for (int variant = 0; variant < 12; variant++) {
            struct levels b = book_at(variant % 2 == 0 ? 2 : 6, &r);
            struct kern_quant_args a = {
                .w16 = w,
                .rows = shapes[i].rows,
                .cols = shapes[i].cols,
                .block = shapes[i].block,
                .book = b.v,
                .n_book = b.n,
                .center = (enum kern_center)(variant / 4),
                .keep = keep,
                .n_keep = shapes[i].n_keep,
                .is_dequant_fp32 = variant % 4 >= 2,
            };
            char what[80];
            (void)snprintf(what, sizeof what, "shape %zu, variant %d", i, variant);
            compare(k, a, what);
        }
        xfree(keep);
        xfree(w);
    }
    kern_close(k);
}

/* ---- instruction sets ---- */

struct vec_result {
    float out[300];
    uint8_t codes[300];
    uint16_t max[300], y[300];
};

static void run_vec(const struct quant_vec *vec, const struct levels *b, const uint16_t *w, int n,
                    int block, bool is_fp32, struct vec_result *r)
{
    static struct book book;
    float mean[300];
    for (int i = 0; i < 300; i++)
        mean[i] = is_fp32 ? 0.01F : -0.0F;
    book_init(&book, b->v, b->n);
    memset(r, 0, sizeof(*r));
    vec->subtract(w, 0.3F, n, r->y);
    vec->maxima(w, n, block, r->max);
    struct quant_run run = {
        .book = &book,
        .is_fp32 = is_fp32,
        .y = w,
        .n = n,
        .block = block,
        .max = r->max,
        .mean = mean,
        .out = r->out,
        .codes = r->codes,
    };
    vec->write(&run);
}

/* Any length and block, so that what is left of a vector is met as well. */
Test(quantize, every_instruction_set_gives_the_same_bits)
{
    const struct quant_vec *best = quant_vec_select();
    if (best == &quant_vec_plain)
        cr_skip("this machine runs the plain loops only");
    struct rng r = {31};
    static struct vec_result got[2];
    uint16_t w[300];
    for (int round = 0; round < 3000; round++) {
        struct levels b = book_at(round % N_BOOKS, &r);
        int n = 1 + (int)rng_below(&r, 300);
        int block = 1 + (int)rng_below(&r, (uint64_t)n);
        random_weights(&r, w, n);
        if (round % 2 == 0)
            memset(w, 0, (size_t)block * sizeof(*w));
        run_vec(best, &b, w, n, block, round % 3 == 0, &got[0]);
        run_vec(&quant_vec_plain, &b, w, n, block, round % 3 == 0, &got[1]);
        cr_assert_eq(memcmp(&got[0], &got[1], sizeof(got[0])), 0, "round %d: %s and plain differ",
                     round, best->name);
    }
}

/* Blocks of two neighbours (h, h + 1): every mean is a tie. Blocks of three, (h, h, h + 1): none is. */
Test(quantize, means_are_rounded_to_nearest_even)
{
    struct kern *k = fixture_kern(2);
    uint16_t *w = xcalloc(3 * PATTERNS, sizeof(*w));
    struct levels b = even_book(2);
    for (int block = 2; block <= 3; block++) {
        int64_t n = 0;
        for (int h = 0; h + 1 < FINITE; h++) {
            int sign = (h & 4) << 13;
            for (int i = 0; i < block; i++)
                w[n++] = (uint16_t)((h + (i == block - 1)) | sign);
        }
        struct kern_quant_args a = {
            .w16 = w,
            .rows = n / block,
            .cols = block,
            .block = block,
            .book = b.v,
            .n_book = b.n,
            .center = KERN_CENTER_BLOCK,
        };
        compare(k, a, block == 2 ? "ties" : "thirds");
    }
    xfree(w);
    kern_close(k);
}

Test(quantize, a_zero_block_gives_plus_zero_and_its_mean_when_centered)
{
    struct kern *k = fixture_kern(1);
    struct err e;
    struct levels b = even_book(3);
    uint16_t w[64];
    float out[64];
    for (int i = 0; i < 64; i++)
        w[i] = 0x8000;
    struct kern_quant_args a = {
        .w16 = w, .rows = 8, .cols = 8, .block = 64, .book = b.v, .n_book = b.n, .out = out};
    cr_assert_eq(kern_quantize(k, &a, &e), ERR_OK);
    for (int i = 0; i < 64; i++)
        cr_assert_eq(f32_bits(out[i]), 0);
    for (int i = 0; i < 64; i++)
        w[i] = nearest_f16(0.25);
    for (int center = KERN_CENTER_TENSOR; center <= KERN_CENTER_BLOCK; center++) {
        a.center = (enum kern_center)center;
        cr_assert_eq(kern_quantize(k, &a, &e), ERR_OK);
        for (int i = 0; i < 64; i++)
            cr_assert_eq(out[i], 0.25F);
    }
    kern_close(k);
}

Test(quantize, results_do_not_depend_on_the_number_of_threads)
{
    enum { ROWS = 211, COLS = 317, N = ROWS * COLS };
    struct rng r = {11};
    uint16_t *w = xcalloc(N, sizeof(*w));
    random_weights(&r, w, N);
    struct levels b = even_book(5);
    static const int32_t keep[] = {0, 5, 316};
    float *out[2] = {xcalloc(N, sizeof(float)), xcalloc(N, sizeof(float))};
    int64_t ranks[KERN_RANKS];
    float statistics[2][KERN_RANKS];
    for (int i = 0; i < KERN_RANKS; i++)
        ranks[i] = (int64_t)i * ROWS * (COLS - 3) / KERN_RANKS;
    for (int variant = 0; variant < 6; variant++) {
        for (int i = 0; i < 2; i++) {
            struct kern *k = fixture_kern(i == 0 ? 1 : 5);
            struct err e;
            struct kern_quant_args a = {.w16 = w,
                                        .rows = ROWS,
                                        .cols = COLS,
                                        .block = variant % 2 == 0 ? 64 : 0,
                                        .book = b.v,
                                        .n_book = b.n,
                                        .center = (enum kern_center)(variant / 2),
                                        .keep = keep,
                                        .n_keep = 3,
                                        .out = out[i]};
            cr_assert_eq(kern_quantize(k, &a, &e), ERR_OK);
            cr_assert_eq(kern_order_statistics(k, &a, ranks, KERN_RANKS, statistics[i], &e),
                         ERR_OK);
            kern_close(k);
        }
        cr_expect_eq(memcmp(out[0], out[1], N * sizeof(float)), 0, "variant %d", variant);
        cr_expect_eq(memcmp(statistics[0], statistics[1], sizeof(statistics[0])), 0, "variant %d",
                     variant);
    }
    xfree(out[0]);
    xfree(out[1]);
    xfree(w);
}

static void expect_refused(struct kern *k, struct kern_quant_args a, enum err_code code,
                           const char *part)
{
    struct err e = {0};
    cr_expect_eq(kern_quantize(k, &a, &e), code, "expected an error with '%s'", part);
    cr_expect(strstr(e.text, part) != NULL, "'%s' does not say '%s'", e.text, part);
}

static void expect_no_statistics(struct kern *k, struct kern_quant_args a, const char *part)
{
    struct err e = {0};
    const int64_t rank = 0;
    float value;
    cr_expect_eq(kern_order_statistics(k, &a, &rank, 1, &value, &e), ERR_NUMERIC);
    cr_expect(strstr(e.text, part) != NULL, "'%s' does not say '%s'", e.text, part);
}

Test(quantize, what_cannot_be_quantized_is_refused)
{
    struct kern *k = fixture_kern(2);
    struct levels b = even_book(4);
    enum { N = 10000 };
    uint16_t *w = xcalloc(N, sizeof(*w));
    float *out = xcalloc(N, sizeof(*out));
    const struct kern_quant_args good = {
        .w16 = w, .rows = 100, .cols = 100, .block = 64, .book = b.v, .n_book = b.n, .out = out};
    static const int64_t blocks[] = {64, 5000, 0};
    static const uint16_t patterns[] = {0x7c00, 0xfc00, 0x7e00, 0xffff};
    for (size_t i = 0; i < ARRAY_LEN(blocks) * ARRAY_LEN(patterns); i++) {
        struct kern_quant_args a = good;
        a.block = blocks[i % ARRAY_LEN(blocks)];
        w[7001] = patterns[i / ARRAY_LEN(blocks)];
        w[7003] = 0x7c00;
        for (int center = 0; center <= KERN_CENTER_BLOCK; center++) {
            a.center = (enum kern_center)center;
            expect_refused(k, a, ERR_NUMERIC, "flat index 7001");
        }
        a.center = KERN_CENTER_NONE;
        expect_no_statistics(k, a, "2 of its weights are not finite fp16 numbers and cannot");
        a.center = KERN_CENTER_BLOCK;
        expect_no_statistics(k, a, "flat index 7001");
        w[7001] = w[7003] = 0;
    }

    /* 64 weights of 60000 and one of -60000 in the next block: the difference to the mean is no fp16 number. */
    struct kern_quant_args a = good;
    for (int i = 0; i < N; i++)
        w[i] = nearest_f16(60000);
    w[777] = nearest_f16(-60000);
    a.center = KERN_CENTER_TENSOR;
    expect_refused(k, a, ERR_NUMERIC, "flat index 777 (-60000)");
    expect_no_statistics(k, a, "1 of its weights are not finite fp16 numbers after centering");

    /* The difference is a number, but the nearest entry with the mean added again is not. */
    struct levels coarse = even_book(2);
    for (int i = 0; i < N; i++)
        w[i] = nearest_f16(60000);
    w[128] = nearest_f16(49680);
    w[140] = 0x7bff;
    a.center = KERN_CENTER_BLOCK;
    a.book = coarse.v, a.n_book = coarse.n;
    expect_refused(k, a, ERR_NUMERIC, "flat index 140 (65504)");

    /* What is kept at 16 bit must be a number, too. */
    int32_t column_40[] = {40};
    a = good;
    a.keep = column_40, a.n_keep = 1;
    w[140] = 0x7e00;
    expect_refused(k, a, ERR_NUMERIC, "flat index 140");

    float descending[] = {0, -1};
    float wide[] = {-1, 2};
    float nan_book[] = {-1, NAN};
    int32_t unsorted[] = {3, 3};
    int32_t outside[] = {100};
    a = good;
    a.book = descending, a.n_book = 2;
    expect_refused(k, a, ERR_FORMAT, "entry 1");
    a.book = wide;
    expect_refused(k, a, ERR_FORMAT, "entry 1");
    a.book = nan_book;
    expect_refused(k, a, ERR_FORMAT, "entry 1");
    a = good;
    a.n_book = 257;
    expect_refused(k, a, ERR_FORMAT, "257 entries");
    a = good;
    a.keep = unsorted, a.n_keep = 2;
    expect_refused(k, a, ERR_FORMAT, "kept column 3");
    a = good;
    a.keep = outside, a.n_keep = 1;
    expect_refused(k, a, ERR_FORMAT, "kept column 100");
    a = good;
    a.block = -1;
    expect_refused(k, a, ERR_FORMAT, "block size -1");
    a = good;
    a.rows = INT64_MAX;
    expect_refused(k, a, ERR_FORMAT, "rows");

    unsigned __int128 key = 0;
    struct err e;
    cr_expect_eq(kern_spread(k, w, 1, 1 << 24, true, &key, &e), ERR_UNSUPPORTED);
    xfree(w);
    xfree(out);
    kern_close(k);
}
