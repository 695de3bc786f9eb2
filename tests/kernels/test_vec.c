/* The inner loops in every instruction set that this machine can run: each against double precision. */
#include "tests/support/kern_fixture.h"

#include <string.h>

#include "kernels/cpu/vec.h"

enum { TABLES_MAX = 3 };

static int tables(const struct vec_ops **out)
{
    int n = 0;
    out[n++] = &vec_ops_plain;
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        out[n++] = &vec_ops_avx2;
    if (__builtin_cpu_supports("avx512f"))
        out[n++] = &vec_ops_avx512;
#endif
    return n;
}

Test(vec, exp_is_exact_to_two_units_in_the_last_place)
{
    enum { N = 349001 };
    const struct vec_ops *t[TABLES_MAX];
    float *x = fixture_zeros(N), *y = fixture_zeros(N);
    for (int i = 0; i < N; i++)
        x[i] = -87.0F + 5e-4F * (float)i;
    for (int i = 0, n = tables(t); i < n; i++) {
        t[i]->exp(y, x, N);
        double worst = 0.0;
        for (int j = 0; j < N; j++) {
            double ref = exp((double)x[j]);
            double unit = ldexp(1.0, ilogb(ref) - 23);
            worst = fmax(worst, fabs((double)y[j] - ref) / unit);
        }
        cr_log_info("%s: exp within %.3f units", t[i]->name, worst);
        cr_expect_lt(worst, 2.0, "%s: %g units", t[i]->name, worst);
    }
    xfree(x);
    xfree(y);
}

Test(vec, exp_is_clamped_outside_its_range)
{
    const struct vec_ops *t[TABLES_MAX];
    float x[] = {-INFINITY, -1e30F, 1e30F, INFINITY}, y[4];
    for (int i = 0, n = tables(t); i < n; i++) {
        t[i]->exp(y, x, 4);
        cr_expect(y[0] >= 0.0F && y[0] < 1e-37F && y[1] == y[0], "%s", t[i]->name);
        cr_expect(y[2] > 1e38F && isfinite(y[2]) && y[3] == y[2], "%s", t[i]->name);
    }
}

Test(vec, transposes_any_shape)
{
    enum { SIDE = 19 };
    const struct vec_ops *t[TABLES_MAX];
    float x[SIDE * SIDE], y[SIDE * (SIDE + 1)];
    for (int i = 0; i < SIDE * SIDE; i++)
        x[i] = (float)i;
    for (int i = 0, n = tables(t); i < n; i++)
        for (int rows = 1; rows <= SIDE; rows++)
            for (int cols = 1; cols <= SIDE; cols++) {
                const int ldy = rows + cols % 2, ldx = SIDE - (SIDE - cols) * (rows % 2);
                memset(y, 0xff, sizeof(y));
                t[i]->transpose(y, ldy, x, ldx, rows, cols);
                for (int r = 0; r < rows; r++)
                    for (int c = 0; c < cols; c++)
                        cr_assert_eq(y[c * ldy + r], x[r * ldx + c], "%s %dx%d", t[i]->name, rows,
                                     cols);
                cr_assert(ldy == rows || isnan(y[rows]), "%s writes between rows", t[i]->name);
            }
}

Test(vec, row_sums_are_exact_at_every_length)
{
    enum { N = 67 };
    const struct vec_ops *t[TABLES_MAX];
    struct rng r = {1};
    float *p = fixture_normal(&r, N, 2.0), *q = fixture_normal(&r, N, 2.0);
    for (int i = 0, tn = tables(t); i < tn; i++)
        for (int n = 1; n <= N; n++) {
            float max = t[i]->max(p, n);
            double sum = 0.0, d = 0.0, top = -INFINITY;
            for (int j = 0; j < n; j++)
                top = fmax(top, (double)p[j]);
            for (int j = 0; j < n; j++) {
                sum += exp((double)p[j] - top);
                d += exp((double)p[j] - top) * ((double)p[j] - (double)q[j]);
            }
            struct vec_divergence v = t[i]->divergence(p, q, n, max);
            cr_assert_eq((double)max, top);
            cr_assert_float_eq((double)t[i]->sum_exp(p, n, max), sum, 1e-6 * sum, "%s", t[i]->name);
            cr_assert_float_eq(v.s, sum, 1e-6 * sum);
            cr_assert_float_eq(v.d, d, 1e-5 * (1.0 + fabs(d)), "%s: %g, expected %g", t[i]->name,
                               v.d, d);
        }
    xfree(p);
    xfree(q);
}

/* One tile of queries over every small number of keys and head size: all tile shapes and masks. */
static void check_attend(const struct vec_ops *t, int hd, int64_t n_keys, int64_t n_common)
{
    enum { HD_MAX = 40, KEYS_MAX = 40 };
    struct rng r = {(uint64_t)(hd * 1000 + n_keys)};
    float *k = fixture_normal(&r, n_keys * hd, 1.0), *v = fixture_normal(&r, n_keys * hd, 1.0);
    float *q = fixture_normal(&r, hd * VEC_QUERIES, 0.3), slope = 0.25F;
    float scores[KEYS_MAX * VEC_QUERIES], out[HD_MAX * VEC_QUERIES], sums[VEC_QUERIES];
    t->attend(&(struct vec_attend){.k = k,
                                   .v = v,
                                   .q = q,
                                   .n_keys = n_keys,
                                   .n_common = n_common,
                                   .head_dim = hd,
                                   .slope = hd % 2 == 0 ? &slope : NULL,
                                   .scores = scores,
                                   .out = out,
                                   .sums = sums});
    for (int l = 0; l < VEC_QUERIES; l++) {
        int64_t n = n_common + l < n_keys ? n_common + l : n_keys;
        double sum = 0.0, expected[HD_MAX] = {0.0};
        for (int64_t j = 0; j < n; j++) {
            double s = hd % 2 == 0 ? (double)slope * (double)j : 0.0;
            for (int c = 0; c < hd; c++)
                s += (double)k[j * hd + c] * (double)q[c * VEC_QUERIES + l];
            sum += exp(s);
            for (int c = 0; c < hd; c++)
                expected[c] += exp(s) * (double)v[j * hd + c];
        }
        for (int c = 0; c < hd; c++)
            cr_assert_float_eq((double)(out[c * VEC_QUERIES + l] / sums[l]), expected[c] / sum,
                               5e-6, "%s: head size %d, %ld keys, lane %d", t->name, hd,
                               (long)n_keys, l);
    }
    xfree(k);
    xfree(v);
    xfree(q);
}

Test(vec, attention_tiles_of_every_shape_equal_the_definition)
{
    const struct vec_ops *t[TABLES_MAX];
    for (int i = 0, n = tables(t); i < n; i++)
        for (int hd = 1; hd <= 26; hd++)
            for (int64_t keys = 1; keys <= 40; keys += hd % 3 + 1)
                check_attend(t[i], hd, keys, keys > 16 ? keys - 15 : 1);
}
