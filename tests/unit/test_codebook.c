/* Codebooks against the value tables of the quantization spec, sections 2.1 to 2.7. */
#include <criterion/criterion.h>

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "worker/quant/quant.h"

static struct config config_of(enum dtype dtype, int k, int exponent_bits, int shift)
{
    return (struct config){.k = k,
                           .dtype = dtype,
                           .block = 64,
                           .exponent_bits = exponent_bits,
                           .subnormal_shift = shift};
}

static struct codebook fill(enum dtype dtype, int k, int exponent_bits, int shift)
{
    struct err e;
    struct codebook b;
    struct config c = config_of(dtype, k, exponent_bits, shift);
    cr_assert_eq(codebook_fill(&c, NULL, &b, &e), ERR_OK, "%s", e.text);
    return b;
}

static void expect_values(const char *what, const struct codebook *b, const double *v, int n,
                          double tolerance)
{
    cr_expect_eq(b->n, n, "%s: %d values, expected %d", what, b->n, n);
    for (int i = 0; i < n && i < b->n; i++)
        cr_expect_float_eq(b->v[i], v[i], tolerance, "%s: value %d is %.9g, expected %.9g", what, i,
                           (double)b->v[i], v[i]);
}

/* 0 and both signs of positive[n], ascending. */
static void expect_symmetric(const char *what, const struct codebook *b, const double *positive,
                             int n)
{
    double v[QUANT_BOOK_MAX];
    for (int i = 0; i < n; i++) {
        v[n + 1 + i] = (float)positive[i];
        v[n - 1 - i] = -v[n + 1 + i];
    }
    v[n] = 0;
    expect_values(what, b, v, 2 * n + 1, 0);
}

#define SYMMETRIC(what, book, ...)                                                                 \
    do {                                                                                           \
        const double positive[] = {__VA_ARGS__};                                                   \
        struct codebook b_ = (book);                                                               \
        expect_symmetric(what, &b_, positive, (int)ARRAY_LEN(positive));                           \
    } while (0)

Test(codebook, integers_and_floats_have_the_values_of_the_tables)
{
    SYMMETRIC("int3", fill(DTYPE_int, 3, 0, 0), 1. / 3, 2. / 3, 1);
    SYMMETRIC("int4", fill(DTYPE_int, 4, 0, 0), 1. / 7, 2. / 7, 3. / 7, 4. / 7, 5. / 7, 6. / 7, 1);
    SYMMETRIC("E2M0", fill(DTYPE_float, 3, 2, 0), .25, .5, 1);
    SYMMETRIC("E2M0 s=2", fill(DTYPE_float, 3, 2, 2), .25, .5, 1);
    SYMMETRIC("E2M0 s=4", fill(DTYPE_float, 3, 2, 4), .25, .5, 1);
    SYMMETRIC("E2M1", fill(DTYPE_float, 4, 2, 0), 1. / 12, 1. / 6, .25, 1. / 3, .5, 2. / 3, 1);
    SYMMETRIC("E2M1 s=2", fill(DTYPE_float, 4, 2, 2), 1. / 48, 1. / 6, .25, 1. / 3, .5, 2. / 3, 1);
    SYMMETRIC("E2M1 s=4", fill(DTYPE_float, 4, 2, 4), 1. / 192, 1. / 6, .25, 1. / 3, .5, 2. / 3, 1);
    SYMMETRIC("E3M0", fill(DTYPE_float, 4, 3, 0), 1. / 64, 1. / 32, 1. / 16, .125, .25, .5, 1);
    static const double smallest[] = {192, 448, 960, 1984}; /* E3M1 to E3M4 */
    for (int k = 5; k <= 8; k++) {
        struct codebook b = fill(DTYPE_float, k, 3, 0);
        cr_expect_eq(b.v[b.n / 2 + 1], (float)(1 / smallest[k - 5]), "E3M%d", k - 4);
    }
}

Test(codebook, one_exponent_bit_is_the_integer_type)
{
    for (int k = 3; k <= 8; k++) {
        struct codebook i = fill(DTYPE_int, k, 0, 0);
        struct codebook f = fill(DTYPE_float, k, 1, 0);
        cr_expect_eq(i.n, f.n);
        cr_expect_eq(memcmp(i.v, f.v, (size_t)i.n * sizeof(float)), 0, "k=%d", k);
    }
}

Test(codebook, dynamic_is_asymmetric_with_its_printed_values)
{
    static const double k3[] = {-.775, -.325, -.055, 0, .055, .325, .775, 1};
    static const double k4[] = {-.8875, -.6625, -.4375, -.2125, -.0775, -.0325, -.0055, 0,
                                .0055,  .0325,  .0775,  .2125,  .4375,  .6625,  .8875,  1};
    struct codebook b = fill(DTYPE_dynamic, 3, 0, 0);
    for (int i = 0; i < 8; i++)
        cr_expect_eq(b.v[i], (float)k3[i]);
    b = fill(DTYPE_dynamic, 4, 0, 0);
    for (int i = 0; i < 16; i++)
        cr_expect_eq(b.v[i], (float)k4[i]);
    b = fill(DTYPE_dynamic, 8, 0, 0);
    cr_expect_eq(b.n, 256);
    cr_expect_eq(b.v[0], -0.99296875F);
    cr_expect_eq(b.v[255], 1.0F);
    cr_expect_eq(b.v[127], 0.0F);
    cr_expect_eq(b.v[128], 5.5e-7F);
}

Test(codebook, normal_float_has_its_published_table_and_follows_its_formula)
{
    static const double nf4[] = {-1,
                                 -0.6961928009986877,
                                 -0.5250730514526367,
                                 -0.39491748809814453,
                                 -0.28444138169288635,
                                 -0.18477343022823334,
                                 -0.09105003625154495,
                                 0,
                                 0.07958029955625534,
                                 0.16093020141124725,
                                 0.24611230194568634,
                                 0.33791524171829224,
                                 0.44070982933044434,
                                 0.5626170039176941,
                                 0.7229568362236023,
                                 1};
    static const double nf3[] = {-1, -.53502271, -.24693143, 0, .18333748, .38199395, .62298574, 1};
    struct codebook b = fill(DTYPE_nf, 4, 0, 0);
    expect_values("nf4", &b, nf4, 16, 0);
    b = fill(DTYPE_nf, 3, 0, 0);
    expect_values("nf3", &b, nf3, 8, 5e-8);
}

Test(codebook, every_type_and_width_is_ascending_with_its_count_and_zero)
{
    for (int d = 0; d < DTYPE_COUNT; d++) {
        if (dtype_is_data_dependent((enum dtype)d))
            continue;
        bool is_float = d == DTYPE_float;
        bool is_odd = is_float || d == DTYPE_int;
        for (int k = is_float ? 3 : 2; k <= 8; k++) {
            for (int exponent = 1; exponent <= (is_float ? k - 1 : 1); exponent++) {
                struct codebook b = fill((enum dtype)d, k, is_float ? exponent : 0, 0);
                cr_expect_eq(b.n, (1 << k) - (is_odd ? 1 : 0), "type %d k=%d", d, k);
                cr_expect_eq(b.v[b.n - 1], 1.0F);
                int n_zero = 0;
                for (int i = 0; i < b.n; i++) {
                    cr_expect(i == 0 || b.v[i] > b.v[i - 1], "type %d k=%d E%d value %d", d, k,
                              exponent, i);
                    n_zero += b.v[i] == 0 && !signbit(b.v[i]);
                    cr_expect(!is_odd || b.v[i] == -b.v[b.n - 1 - i]);
                }
                cr_expect_eq(n_zero, 1, "type %d k=%d", d, k);
            }
        }
    }
}

/* ---- quantile ---- */

/* `count` weights of one value. */
struct pile {
    float value;
    int64_t count;
};

/* pile[n] ascends. */
static struct codebook quantile(int k, const struct pile *pile, int n)
{
    struct err e;
    struct codebook b;
    struct order_statistics s;
    struct config c = config_of(DTYPE_quantile, k, 0, 0);
    int64_t count = 0;
    for (int i = 0; i < n; i++)
        count += pile[i].count;
    cr_assert_eq(codebook_ranks(&c, count, &s, &e), ERR_OK, "%s", e.text);
    int64_t end = 0;
    for (int i = 0, j = 0; i < n; i++) {
        end += pile[i].count;
        for (; j < s.n && s.rank[j] < end; j++)
            s.value[j] = pile[i].value;
    }
    cr_assert_eq(codebook_fill(&c, &s, &b, &e), ERR_OK, "%s", e.text);
    return b;
}

Test(codebook, quantile_takes_the_order_statistics_of_the_checkpoint)
{
    /* The spec's data times 100. */
    static const struct pile data[] = {
        {-210, 1}, {-140, 1}, {-110, 1}, {-80, 1}, {-55, 1}, {-40, 1}, {-20, 1}, {-5, 1},
        {3, 1},    {15, 1},   {33, 1},   {50, 1},  {77, 1},  {105, 1}, {160, 1}, {190, 1}};
    static const double expected[] = {-.875, -.5, -.25, 0, .01875, .20625, .48125, 1};
    struct codebook b = quantile(3, data, ARRAY_LEN(data));
    for (int i = 0; i < 8; i++)
        cr_expect_eq(b.v[i], (float)expected[i], "value %d is %.9g", i, (double)b.v[i]);
    cr_expect_eq(b.n, 8);
}

Test(codebook, quantile_keeps_duplicates_and_survives_degenerate_tensors)
{
    struct codebook b = quantile(4, NULL, 0); /* every column is kept */
    cr_expect(b.n == 1 && b.v[0] == 0);
    static const struct pile zeros = {0, 10};
    b = quantile(4, &zeros, 1);
    cr_expect(b.n == 1 && b.v[0] == 0 && !signbit(b.v[0]));
    static const struct pile one = {-3, 1};
    b = quantile(4, &one, 1);
    cr_expect(b.n == 16 && b.v[0] == -1 && b.v[14] == -1 && b.v[15] == 0);
    /* With 16 weights at k = 4 the order statistics are 1 to 15. */
    static const struct pile few[] = {{-3, 2}, {0, 10}, {2, 4}};
    b = quantile(4, few, ARRAY_LEN(few));
    cr_expect_eq(b.n, 16);
    for (int i = 0; i < 16; i++) {
        float expected = i < 1 ? -1.0F : i < 12 ? 0.0F : (float)(2. / 3);
        cr_expect_eq(b.v[i], expected, "value %d is %.9g", i, (double)b.v[i]);
        cr_expect(b.v[i] != 0 || !signbit(b.v[i]));
    }
}

/* (2j + 1) / (2n) of the way from rank 0 to the last, rounded to the nearest rank, half up. */
Test(codebook, quantile_ranks_are_those_of_the_definition)
{
    static const int64_t counts[] = {1, 2, 3, 7, 16, 255, 256, 1000003, (int64_t)1 << 50};
    for (int k = 2; k <= 8; k++) {
        for (size_t i = 0; i < ARRAY_LEN(counts); i++) {
            struct config c = config_of(DTYPE_quantile, k, 0, 0);
            struct order_statistics s;
            struct err e;
            cr_assert_eq(codebook_ranks(&c, counts[i], &s, &e), ERR_OK, "%s", e.text);
            cr_expect_eq(s.n, (1 << k) - 1);
            for (int j = 0; j < s.n; j++) {
                /* In units of 1 / (2n): half a rank is n. */
                __int128 position = (__int128)(2 * j + 1) * (counts[i] - 1);
                __int128 off = position - (__int128)2 * s.n * s.rank[j];
                cr_expect(-s.n <= off && off < s.n, "k=%d, %ld weights: rank %d is %ld", k,
                          (long)counts[i], j, (long)s.rank[j]);
            }
        }
    }
}

/* 64-bit positions: with 2^40 weights (2j + 1)(N - 1) is beyond 32 bits and, at k = 8, near 2^49. */
Test(codebook, quantile_positions_do_not_overflow)
{
    static const struct pile halves[] = {{-4, (int64_t)1 << 39}, {8, (int64_t)1 << 39}};
    struct codebook b = quantile(8, halves, ARRAY_LEN(halves));
    /* p = 255/510 = 1/2 falls on index (255 * (2^40 - 1) + 255) / 510 = 2^39: the first of the upper half */
    cr_expect_eq(b.v[126], -.5F);
    cr_expect_eq(b.v[127], 0);
    cr_expect_eq(b.v[128], 1);
}

/* fp16 numbers as if drawn from a normal distribution, counted by its distribution function. */
Test(codebook, quantile_of_normal_weights_tends_to_the_gaussian_limit)
{
    static const double k4[] = {-1, -.698807, -.527517, -.396918, -.285946, -.185775, -.091550, 0,
                                0,  .091550,  .185775,  .285946,  .396918,  .527517,  .698807,  1};
    static const double k3[] = {-1, -.540281, -.249862, 0, 0, .249862, .540281, 1};
    enum { LARGEST = 0x7bff, N = 2 * LARGEST + 1 };
    struct pile *piles = xcalloc(N, sizeof(*piles));
    for (int h = 1; h <= LARGEST; h++) {
        int exponent = h >> 10;
        double at = exponent > 0 ? ldexp(1024 + (h & 0x3ff), exponent - 25) : ldexp(h & 0x3ff, -24);
        double half = ldexp(0.5, exponent > 0 ? exponent - 25 : -24);
        double share = 0.5 * (erfc((at - half) * M_SQRT1_2) - erfc((at + half) * M_SQRT1_2));
        piles[LARGEST + h] = (struct pile){(float)at, (int64_t)(share * 1e12)};
        piles[LARGEST - h] = (struct pile){-(float)at, (int64_t)(share * 1e12)};
    }
    struct codebook b = quantile(4, piles, N);
    expect_values("k=4", &b, k4, 16, 1e-3);
    b = quantile(3, piles, N);
    expect_values("k=3", &b, k3, 8, 1e-3);
    xfree(piles);
}

/* ---- the worked block of section 2.7, in double as the spec prints it ---- */

Test(codebook, worked_block_has_its_indices_values_and_error)
{
    static const double x[8] = {0.10, -0.90, 0.44, 0.30, -0.05, 0.62, 0.00, -0.27};
    static const struct {
        const char *name;
        enum dtype dtype;
        int k, exponent_bits;
        int index[8];
        double value[8];
        double mse;
    } rows[] = {
        {"int3",
         DTYPE_int,
         3,
         0,
         {3, 0, 4, 4, 3, 5, 3, 2},
         {0, -.9, .3, .3, 0, .6, 0, -.3},
         0.00417500},
        {"E2M0",
         DTYPE_float,
         3,
         2,
         {3, 0, 5, 4, 3, 5, 3, 2},
         {0, -.9, .45, .225, 0, .45, 0, -.225},
         0.00614375},
        {"dynamic3",
         DTYPE_dynamic,
         3,
         0,
         {4, 0, 5, 5, 2, 6, 3, 1},
         {.0495, -.6975, .2925, .2925, -.0495, .6975, 0, -.2925},
         0.00898522},
        {"int4",
         DTYPE_int,
         4,
         0,
         {8, 0, 10, 9, 7, 12, 7, 5},
         {.128571, -.9, .385714, .257143, 0, .642857, 0, -.257143},
         0.00109847},
        {"E2M1",
         DTYPE_float,
         4,
         2,
         {8, 0, 12, 11, 6, 13, 7, 3},
         {.075, -.9, .45, .3, -.075, .6, 0, -.3},
         0.00033125},
        {"E3M0",
         DTYPE_float,
         4,
         3,
         {11, 0, 13, 12, 4, 13, 7, 2},
         {.1125, -.9, .45, .225, -.05625, .45, 0, -.225},
         0.00460566},
        {"dynamic4",
         DTYPE_dynamic,
         4,
         0,
         {10, 0, 12, 12, 4, 13, 7, 3},
         {.06975, -.79875, .39375, .39375, -.06975, .59625, 0, -.19125},
         0.00365630},
        {"nf4",
         DTYPE_nf,
         4,
         0,
         {8, 0, 12, 11, 6, 14, 7, 4},
         {.071622, -.9, .396639, .304124, -.081945, .650661, 0, -.255997},
         0.00060739},
    };
    for (size_t r = 0; r < ARRAY_LEN(rows); r++) {
        struct codebook b = fill(rows[r].dtype, rows[r].k, rows[r].exponent_bits, 0);
        double mse = 0;
        for (int i = 0; i < 8; i++) {
            int j = 0;
            while (j < b.n - 1 && 0.5F * (b.v[j] + b.v[j + 1]) < (float)(x[i] / 0.9))
                j++;
            cr_expect_eq(j, rows[r].index[i], "%s: index %d is %d", rows[r].name, i, j);
            double value = (double)b.v[j] * 0.9;
            cr_expect_float_eq(value, rows[r].value[i], 5.1e-7, "%s: value %d is %.7f",
                               rows[r].name, i, value);
            mse += (value - x[i]) * (value - x[i]) / 8;
        }
        cr_expect_float_eq(mse, rows[r].mse, 6e-9, "%s: error %.8f", rows[r].name, mse);
    }
}

Test(codebook, impossible_options_are_refused_with_what_is_possible)
{
    static const struct {
        enum dtype dtype;
        int k, exponent_bits, shift;
        const char *part;
    } rows[] = {
        {DTYPE_int, 1, 0, 0, "dtype int; use k from 2 to 8"},
        {DTYPE_int, 9, 0, 0, "use k from 2 to 8"},
        {DTYPE_nf, 16, 0, 0, "dtype nf; use k from 2 to 8"},
        {DTYPE_float, 2, 1, 0, "dtype float; use k from 3 to 8"},
        {DTYPE_float, 3, 3, 0, "use 1 to 2"},
        {DTYPE_float, 8, 0, 0, "use 1 to 7"},
        {DTYPE_float, 4, -1, 0, "use 1 to 3"},
        {DTYPE_float, 4, 2, 1, "use 0, 2 or 4"},
        {DTYPE_float, 4, 2, -2, "use 0, 2 or 4"},
        {DTYPE_COUNT, 4, 0, 0, "does not exist"},
        {(enum dtype) - 1, 4, 0, 0, "does not exist"},
        {DTYPE_dynamic, INT32_MAX, 0, 0, "use k from 2 to 8"},
        {DTYPE_quantile, 9, 0, 0, "dtype quantile; use k from 2 to 8"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct config c = config_of(rows[i].dtype, rows[i].k, rows[i].exponent_bits, rows[i].shift);
        struct codebook b;
        struct err e = {0};
        cr_expect_eq(codebook_fill(&c, NULL, &b, &e), ERR_FORMAT, "row %zu", i);
        cr_expect(strstr(e.text, rows[i].part) != NULL, "row %zu: '%s' does not say '%s'", i,
                  e.text, rows[i].part);
    }
    struct config c = config_of(DTYPE_quantile, 9, 0, 0);
    struct order_statistics s;
    struct err e = {0};
    cr_expect_eq(codebook_ranks(&c, 100, &s, &e), ERR_FORMAT);
    cr_expect(strstr(e.text, "use k from 2 to 8") != NULL, "%s", e.text);
}
