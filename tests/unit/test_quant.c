/* quant_apply on the cpu: which columns it keeps, what it remembers, and the error of every data type on normal
 * weights against the tables of the spec (quantization.md 2.8, paper.md 7). */
#include <criterion/criterion.h>

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "kernels/cpu/f16.h"
#include "schema/bits.h"
#include "worker/quant/quant.h"

static struct kern *open_cpu(void)
{
    struct err e;
    struct kern *k = NULL;
    struct kern_options o = {.device = "cpu", .threads = 2};
    cr_assert_eq(kern_open(&o, &k, &e), ERR_OK, "%s", e.text);
    return k;
}

static struct config config_of(enum dtype dtype, int k, int64_t block)
{
    return (struct config){.k = k, .dtype = dtype, .block = block};
}

static void normal_weights(struct rng *r, uint16_t *w, int64_t n, float scale)
{
    for (int64_t i = 0; i < n; i++)
        w[i] = f32_to_f16((float)rng_normal(r) * scale);
}

/* ---- error on normal draws ---- */

struct expected_error {
    enum dtype dtype;
    int k, exponent_bits, shift;
    double mse[4]; /* blocks of 64, 256, 1024, 4096; 0: not printed */
    double digit;  /* of the last place printed */
};

static const struct expected_error errors[] = {
    {DTYPE_int, 3, 0, 0, {.0633, .0871, .1110, .1353}, 1e-4},
    {DTYPE_float, 3, 2, 0, {.0513, .0623, .0724, .0830}, 1e-4},
    {DTYPE_dynamic, 3, 0, 0, {.0631, .0766, .0881, .0980}, 1e-4},
    {DTYPE_quantile, 3, 0, 0, {.0502, .0630, .0750, .0872}, 1e-4},
    {DTYPE_int, 4, 0, 0, {.01162, .01599, .02040, .02485}, 1e-5},
    {DTYPE_float, 4, 2, 0, {.01117, .01238, .01325, .01416}, 1e-5},
    {DTYPE_float, 4, 2, 2, {.01353, .01604, .01841, .02097}, 1e-5},
    {DTYPE_float, 4, 2, 4, {.01489, .01816, .02141, .02496}, 1e-5},
    {DTYPE_float, 4, 3, 0, {.03541, .03787, .03819, .03798}, 1e-5},
    {DTYPE_dynamic, 4, 0, 0, {.01945, .02445, .02899, .03306}, 1e-5},
    {DTYPE_quantile, 4, 0, 0, {.00954, .01102, .01237, .01379}, 1e-5},
    {DTYPE_nf, 4, 0, 0, {.00846}, 1e-5},
    {DTYPE_int, 5, 0, 0, {.00253, .00348, .00444, .00541}, 1e-5},
    {DTYPE_float, 5, 2, 0, {.00269, .00301, .00319, .00334}, 1e-5},
    {DTYPE_float, 5, 3, 0, {.00996, .01050, .01061, .01065}, 1e-5},
    {DTYPE_float, 5, 4, 0, {.0354}, 1e-4},
    {DTYPE_dynamic, 5, 0, 0, {.00535, .00684, .00825, .00956}, 1e-5},
    {DTYPE_quantile, 5, 0, 0, {.00257, .00264, .00271, .00282}, 1e-5},
    {DTYPE_int, 6, 0, 0, {.00059, .00082, .00104, .00127}, 1e-5},
    {DTYPE_quantile, 6, 0, 0, {.00090, .00081, .00073, .00069}, 1e-5},
    {DTYPE_dynamic, 6, 0, 0, {.0014}, 1e-4},
    {DTYPE_float, 6, 2, 0, {.00065}, 1e-5},
    {DTYPE_float, 6, 3, 0, {.0025}, 1e-4},
    {DTYPE_float, 6, 4, 0, {.00998}, 1e-5},
    {DTYPE_int, 8, 0, 0, {3.5e-5, .00005, .00006, .00008}, 1e-5},
    {DTYPE_dynamic, 8, 0, 0, {9.1e-5}, 1e-6},
    {DTYPE_quantile, 8, 0, 0, {2.0e-4, .00014, .00010, .00007}, 1e-5},
    {DTYPE_float, 8, 2, 0, {4.0e-5}, 1e-6},
    {DTYPE_float, 8, 3, 0, {1.5e-4}, 1e-5},
    {DTYPE_float, 8, 4, 0, {6.2e-4}, 1e-5},
};

static double mean_squared_error(const float *x, const float *out, int64_t n)
{
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++)
        sum += (double)(x[i] - out[i]) * (double)(x[i] - out[i]);
    return sum / (double)n;
}

/* How far two samples of n weights may differ, relatively: by three times the scatter of the blocks' maxima, whose
 * squares the error follows; with 8-bit quantiles it is mostly the error of the few weights beyond the last one. */
static double tolerance(const struct expected_error *row, int64_t block, int64_t n)
{
    if (row->dtype == DTYPE_quantile && row->k == 8)
        return 0.06;
    return 0.005 + 0.5 * sqrt((double)block / (double)n);
}

Test(quant, squared_error_on_normal_weights_is_that_of_the_tables)
{
    enum { N_ROWS = 512, N_COLS = 4096 };
    const int64_t n = (int64_t)N_ROWS * N_COLS;
    static const int64_t blocks[] = {64, 256, 1024, 4096};
    struct rng r = {2024};
    struct kern *k = open_cpu();
    uint16_t *w = xcalloc((size_t)n, sizeof(*w));
    float *out = xcalloc((size_t)n, sizeof(*out));
    float *x = xcalloc((size_t)n, sizeof(*x));
    normal_weights(&r, w, n, 1);
    for (int64_t i = 0; i < n; i++)
        x[i] = f16_to_f32(w[i]);
    struct quant_tensor t = {
        .name = "normal", .w16 = w, .rows = N_ROWS, .cols = N_COLS, .out = out};
    struct quant_cache *cache = quant_cache_new(1);
    for (size_t i = 0; i < ARRAY_LEN(errors); i++) {
        const struct expected_error *row = &errors[i];
        for (size_t b = 0; b < ARRAY_LEN(blocks) && row->mse[b] > 0; b++) {
            struct config c = config_of(row->dtype, row->k, blocks[b]);
            c.exponent_bits = row->exponent_bits;
            c.subnormal_shift = row->shift;
            c.dequant = DEQUANT_FP32;
            struct err e;
            int64_t n_keep = -1;
            cr_assert_eq(quant_apply(k, &c, &t, 1, cache, &n_keep, &e), ERR_OK, "%s", e.text);
            double mse = mean_squared_error(x, out, n);
            cr_expect_float_eq(
                mse, row->mse[b], 0.51 * row->digit + tolerance(row, blocks[b], n) * row->mse[b],
                "%s k=%d E=%d s=%d block %ld: error %.6g, printed %g", dtype_label(row->dtype),
                row->k, row->exponent_bits, row->shift, (long)blocks[b], mse, row->mse[b]);
        }
    }
    quant_cache_free(cache);
    xfree(x);
    xfree(w);
    xfree(out);
    kern_close(k);
}

/* ---- outlier columns ---- */

enum { ROWS = 40, COLS = 50 };

/* A tensor whose column j is fed by line at[j] of a source; lines spread as `spread` says. */
struct pair {
    uint16_t w[ROWS * COLS];
    uint16_t source[COLS * 30];
    int32_t at[COLS];
    float out[ROWS * COLS];
};

/* source [COLS, 30] by rows or [30, COLS] by columns; line i takes values +-spread[i]. */
static struct pair *pair_new(bool by_rows, const float *spread)
{
    struct rng r = {77};
    struct pair *p = xcalloc(1, sizeof(*p));
    normal_weights(&r, p->w, ROWS * COLS, 0.1F);
    for (int line = 0; line < COLS; line++) {
        for (int i = 0; i < 30; i++) {
            uint16_t v = f32_to_f16(i % 2 == 0 ? spread[line] : -spread[line]);
            p->source[by_rows ? line * 30 + i : i * COLS + line] = v;
        }
        p->at[line] = (line + 7) % COLS;
    }
    return p;
}

static struct quant_tensor tensor_of(struct pair *p, bool by_rows)
{
    return (struct quant_tensor){
        .name = "h.3.mlp",
        .w16 = p->w,
        .rows = ROWS,
        .cols = COLS,
        .out = p->out,
        .rank_w16 = p->source,
        .rank_rows = by_rows ? COLS : 30,
        .rank_cols = by_rows ? 30 : COLS,
        .rank_by_rows = by_rows,
        .rank_at = p->at,
    };
}

static bool is_column_exact(const struct pair *p, int col)
{
    for (int r = 0; r < ROWS; r++) {
        if (p->out[r * COLS + col] != f16_to_f32(p->w[r * COLS + col]))
            return false;
    }
    return true;
}

Test(quant, columns_fed_by_the_lines_that_spread_most_stay_16_bit)
{
    float spread[COLS];
    for (int i = 0; i < COLS; i++)
        spread[i] = 0.5F;
    spread[3] = 2; /* feeds column 46 */
    spread[12] = 4;
    struct kern *k = open_cpu();
    for (int by_rows = 0; by_rows <= 1; by_rows++) {
        struct pair *p = pair_new(by_rows, spread);
        struct quant_tensor t = tensor_of(p, by_rows);
        struct config c = config_of(DTYPE_int, 3, 64);
        c.outlier_pct = 8; /* 4 of 50: two outstanding lines, then ties to the smaller column */
        int64_t n_keep = 0;
        struct err e;
        cr_assert_eq(quant_apply(k, &c, &t, 1, NULL, &n_keep, &e), ERR_OK, "%s", e.text);
        cr_expect_eq(n_keep, 4);
        for (int j = 0; j < COLS; j++) {
            bool is_kept = j == 46 || j == 5 || j == 0 || j == 1;
            cr_expect_eq(is_column_exact(p, j), is_kept, "by_rows %d: column %d", by_rows, j);
        }
        xfree(p);
    }
    kern_close(k);
}

Test(quant, without_a_source_or_a_share_nothing_is_kept)
{
    float spread[COLS] = {1};
    struct kern *k = open_cpu();
    struct pair *p = pair_new(true, spread);
    struct quant_tensor t[] = {tensor_of(p, true), tensor_of(p, true)};
    t[0].rank_w16 = NULL;
    struct config c = config_of(DTYPE_int, 4, 64);
    c.outlier_pct = 2;
    int64_t n_keep[2] = {-1, -1};
    struct err e;
    cr_assert_eq(quant_apply(k, &c, t, 2, NULL, n_keep, &e), ERR_OK);
    cr_expect(n_keep[0] == 0 && n_keep[1] == 1);
    c.outlier_pct = 0;
    cr_assert_eq(quant_apply(k, &c, t, 2, NULL, n_keep, &e), ERR_OK);
    cr_expect(n_keep[0] == 0 && n_keep[1] == 0);
    xfree(p);
    kern_close(k);
}

/* ---- the cache ---- */

/* Every configuration in turn, with one cache and without, twice. */
Test(quant, what_is_remembered_of_a_tensor_changes_no_result)
{
    float spread[COLS];
    for (int i = 0; i < COLS; i++)
        spread[i] = (float)(i % 7);
    struct kern *k = open_cpu();
    struct pair *p = pair_new(true, spread);
    struct quant_tensor t = tensor_of(p, true);
    struct quant_tensor other = t; /* ranked by columns of itself: another rule */
    other.rank_w16 = p->w;
    other.rank_rows = ROWS;
    other.rank_cols = COLS;
    other.rank_by_rows = false;
    struct quant_cache *cache = quant_cache_new(1);
    float first[ROWS * COLS];
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 36; i++) {
            struct config c = config_of(i % 2 == 0 ? DTYPE_quantile : DTYPE_nf, 3 + i / 12, 64);
            c.outlier_pct = i % 4 < 2 ? 0 : 6;
            c.center = (enum center)(i % 3);
            const struct quant_tensor *use = i < 18 ? &t : &other;
            int64_t n_keep[2];
            struct err e;
            cr_assert_eq(quant_apply(k, &c, use, 1, NULL, &n_keep[0], &e), ERR_OK, "%s", e.text);
            memcpy(first, p->out, sizeof(first));
            memset(p->out, 0, sizeof(p->out));
            cr_assert_eq(quant_apply(k, &c, use, 1, cache, &n_keep[1], &e), ERR_OK, "%s", e.text);
            cr_expect_eq(memcmp(first, p->out, sizeof(first)), 0, "round %d, configuration %d",
                         round, i);
            cr_expect_eq(n_keep[0], n_keep[1]);
        }
    }
    quant_cache_free(cache);
    quant_cache_free(NULL);
    xfree(p);
    kern_close(k);
}

/* Spec 2.4: the quantiles of what goes into blocks; a huge column that is kept must not count. */
Test(quant, quantiles_leave_out_the_kept_columns)
{
    float spread[COLS] = {0};
    spread[7] = 1; /* feeds column 0 */
    struct kern *k = open_cpu();
    struct pair *p = pair_new(true, spread);
    for (int r = 0; r < ROWS; r++) {
        for (int j = 0; j < COLS; j++)
            p->w[r * COLS + j] = f32_to_f16(j == 0 ? 1000 : (float)(r % 4) - 1.5F);
    }
    struct quant_tensor t = tensor_of(p, true);
    struct config c = config_of(DTYPE_quantile, 3, 0);
    c.outlier_pct = 2;
    int64_t n_keep = 0;
    struct err e;
    cr_assert_eq(quant_apply(k, &c, &t, 1, NULL, &n_keep, &e), ERR_OK, "%s", e.text);
    cr_expect_eq(n_keep, 1);
    for (int j = 0; j < COLS; j++)
        cr_expect(is_column_exact(p, j), "column %d: four values fit into 3 bits", j);
    xfree(p);
    kern_close(k);
}

/* ---- errors ---- */

Test(quant, errors_name_the_tensor)
{
    float spread[COLS] = {1};
    struct kern *k = open_cpu();
    struct pair *p = pair_new(true, spread);
    struct quant_tensor t = tensor_of(p, true);
    int64_t n_keep = 0;
    struct err e = {0};
    static const enum dtype dtypes[] = {DTYPE_int, DTYPE_quantile};
    for (size_t i = 0; i < ARRAY_LEN(dtypes); i++) {
        struct config c = config_of(dtypes[i], 4, 64);
        p->w[123] = 0x7c00;
        cr_expect_eq(quant_apply(k, &c, &t, 1, NULL, &n_keep, &e), ERR_NUMERIC);
        cr_expect(strstr(e.text, "quantizing h.3.mlp: ") == e.text, "%s", e.text);
        p->w[123] = 0;
    }
    struct config c = config_of(DTYPE_int, 4, 64);
    c.outlier_pct = 2;
    p->at[5] = COLS;
    cr_expect_eq(quant_apply(k, &c, &t, 1, NULL, &n_keep, &e), ERR_FORMAT);
    cr_expect(strstr(e.text, "input column 5") != NULL, "%s", e.text);
    p->at[5] = -1;
    cr_expect_eq(quant_apply(k, &c, &t, 1, NULL, &n_keep, &e), ERR_FORMAT);
    c.k = 9;
    cr_expect_eq(quant_apply(k, &c, &t, 1, NULL, &n_keep, &e), ERR_FORMAT);
    c = config_of((enum dtype)99, 4, 64);
    cr_expect_eq(quant_apply(k, &c, &t, 1, NULL, &n_keep, &e), ERR_FORMAT);
    xfree(p);
    kern_close(k);
}
