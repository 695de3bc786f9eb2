/* Products in double, with bias, activation and residual, and kern_linear held to them. Header only. */
#ifndef ISOBIT_TESTS_SUPPORT_KERN_LINEAR_H
#define ISOBIT_TESTS_SUPPORT_KERN_LINEAR_H

#include "tests/support/kern_fixture.h"

struct linear_shape {
    int64_t T, N, K;
    enum kern_act act;
    bool has_bias, is_residual;
};
/* What becomes of an operand before it is multiplied; NULL: nothing. */
typedef float (*linear_round_fn)(float);

static inline double linear_act(double x, enum kern_act act)
{
    switch (act) {
    case KERN_ACT_NONE:
        return x;
    case KERN_ACT_RELU:
        return x > 0.0 ? x : 0.0;
    case KERN_ACT_GELU_ERF:
        return 0.5 * x * erfc(-x / sqrt(2.0));
    case KERN_ACT_GELU_TANH:
        return 0.5 * x * (1.0 + tanh(sqrt(2.0 / acos(-1.0)) * (x + 0.044715 * x * x * x)));
    }
    return NAN;
}

/* v[n] in double, rounded first; caller frees with xfree. */
static inline double *linear_operand(const float *v, int64_t n, linear_round_fn round)
{
    double *out = xcalloc((size_t)n, sizeof *out);
    for (int64_t i = 0; i < n; i++)
        out[i] = (double)(round != NULL ? round(v[i]) : v[i]);
    return out;
}

/* act(x w^T + bias), plus y for a residual: [T, N]; caller frees with xfree. */
static inline double *linear_reference(const struct linear_shape *s, linear_round_fn round,
                                       const float *x, const float *w, const float *bias,
                                       const float *y)
{
    double *ref = xcalloc((size_t)(s->T * s->N), sizeof *ref);
    double *xr = linear_operand(x, s->T * s->K, round), *wr = linear_operand(w, s->N * s->K, round);
    for (int64_t t = 0; t < s->T; t++)
        for (int64_t n = 0; n < s->N; n++) {
            double sum = s->has_bias ? (double)bias[n] : 0.0;
            for (int64_t k = 0; k < s->K; k++)
                sum += xr[t * s->K + k] * wr[n * s->K + k];
            ref[t * s->N + n] =
                linear_act(sum, s->act) + (s->is_residual ? (double)y[t * s->N + n] : 0.0);
        }
    fixture_free(xr, wr);
    return ref;
}

/* `row`: of the test's table, and the seed. */
static inline void linear_check(struct kern *k, const struct linear_shape *s, linear_round_fn round,
                                int row, double tolerance)
{
    struct rng r = {(uint64_t)row + 1};
    struct err e = {0};
    float *x = fixture_normal(&r, s->T * s->K, 1.0);
    float *w = fixture_normal(&r, s->N * s->K, 1.0 / sqrt((double)s->K));
    float *bias = fixture_normal(&r, s->N, 1.0), *y = fixture_normal(&r, s->T * s->N, 1.0);
    double *ref = linear_reference(s, round, x, w, bias, y);
    struct kern_linear_args a = {.y = y,
                                 .x = x,
                                 .w = w,
                                 .bias = s->has_bias ? bias : NULL,
                                 .T = s->T,
                                 .N = s->N,
                                 .K = s->K,
                                 .act = s->act,
                                 .is_residual = s->is_residual};
    cr_assert_eq(kern_linear(k, &a, &e), ERR_OK, "%s", e.text);
    double error = fixture_error(y, ref, s->T * s->N);
    cr_expect_lt(error, tolerance, "shape %d: %g", row, error);
    cr_expect_eq(y[s->T * s->N], 0.0F, "shape %d writes behind its output", row);
    fixture_free(x, w, bias, y, ref);
}

/* The same bits, whichever of the two computes. */
static inline void linear_check_same(struct kern *one, struct kern *other, int64_t T, int64_t N,
                                     int64_t K)
{
    struct rng r = {7};
    struct err e = {0};
    float *x = fixture_normal(&r, T * K, 1.0), *w = fixture_normal(&r, N * K, 0.1);
    float *y = fixture_zeros(T * N), *z = fixture_zeros(T * N);
    struct kern_linear_args a = {.y = y, .x = x, .w = w, .T = T, .N = N, .K = K};
    cr_assert_eq(kern_linear(one, &a, &e), ERR_OK);
    a.y = z;
    cr_assert_eq(kern_linear(other, &a, &e), ERR_OK);
    cr_expect_arr_eq(y, z, (size_t)(T * N) * sizeof *y);
    fixture_free(x, w, y, z);
}

#endif
