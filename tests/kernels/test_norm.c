/* kern_layernorm on the cpu against the definition in double. */
#include "tests/support/kern_fixture.h"

/* Rounding of the output and of w, b products: a few units of 2^-24. */
static const double tolerance = 3e-7;

static double *reference(const struct kern_norm_args *a)
{
    const float *x = a->x, *w = a->out.w, *b = a->out.b;
    int64_t n = a->rows != NULL ? a->n_rows : a->T;
    double *ref = xcalloc((size_t)(n * a->d), sizeof *ref);
    for (int64_t i = 0; i < n; i++) {
        const float *row = x + (a->rows != NULL ? a->rows[i] : i) * a->d;
        double mean = 0.0, variance = 0.0;
        for (int64_t c = 0; c < a->d; c++)
            mean += (double)row[c] / (double)a->d;
        for (int64_t c = 0; c < a->d; c++)
            variance += ((double)row[c] - mean) * ((double)row[c] - mean) / (double)a->d;
        for (int64_t c = 0; c < a->d; c++)
            ref[i * a->d + c] = ((double)row[c] - mean) / sqrt(variance + (double)a->eps) *
                                    (w != NULL ? (double)w[c] : 1.0) +
                                (b != NULL ? (double)b[c] : 0.0);
    }
    return ref;
}

Test(norm, equals_the_definition_over_widths_with_and_without_weights)
{
    static const int64_t widths[] = {1, 2, 3, 7, 48, 64, 255, 768, 4097};
    enum { T = 5 };
    struct kern *k = fixture_kern(2);
    struct err e = {0};
    for (size_t i = 0; i < ARRAY_LEN(widths); i++)
        for (int has = 0; has < 4; has++) {
            struct rng r = {i + 1};
            const int64_t d = widths[i];
            float *x = fixture_normal(&r, T * d, 2.0), *w = fixture_normal(&r, d, 1.0);
            float *b = fixture_normal(&r, d, 1.0), *y = fixture_zeros(T * d);
            struct kern_norm_args a = {.out.y = y,
                                       .x = x,
                                       .out.w = has & 1 ? w : NULL,
                                       .out.b = has & 2 ? b : NULL,
                                       .eps = 1e-5F,
                                       .T = T,
                                       .d = d};
            double *ref = reference(&a);
            cr_assert_eq(kern_layernorm(k, &a, &e), ERR_OK);
            if (d > 1) /* a single value minus its mean is 0 */
                cr_expect_lt(fixture_error(y, ref, T * d), tolerance, "width %ld", (long)d);
            void *all[] = {x, w, b, y, ref};
            for (size_t j = 0; j < ARRAY_LEN(all); j++)
                xfree(all[j]);
        }
    kern_close(k);
}

/* x with other weights, beside the first, on chosen rows too: what a call of its own gives. */
Test(norm, has_a_second_output)
{
    enum { T = 7, D = 37 };
    static const int32_t chosen[] = {6, 0, 2, 2, 5, 1, 3};
    struct kern *k = fixture_kern(2);
    struct err e = {0};
    struct rng r = {5};
    float *x = fixture_normal(&r, T * D, 2.0), *w = fixture_normal(&r, 2 * D, 1.0),
          *b = fixture_normal(&r, 2 * D, 1.0), *y = fixture_zeros(4 * T * D);
    for (int has_rows = 0; has_rows < 2; has_rows++) {
        const struct kern_norm_out one = {y, w, b}, two = {y + T * D, w + D, b + D},
                                   three = {y + 2 * T * D, w, b},
                                   four = {y + 3 * T * D, w + D, b + D};
        struct kern_norm_args a = {.x = x,
                                   .out = one,
                                   .also = two,
                                   .eps = 1e-5F,
                                   .T = T,
                                   .d = D,
                                   .rows = has_rows ? chosen : NULL,
                                   .n_rows = T};
        cr_assert_eq(kern_layernorm(k, &a, &e), ERR_OK);
        a.also.y = NULL;
        a.out = three;
        cr_assert_eq(kern_layernorm(k, &a, &e), ERR_OK);
        a.out = four;
        cr_assert_eq(kern_layernorm(k, &a, &e), ERR_OK);
        cr_expect_arr_eq(y, three.y, 2 * T * D * sizeof *y);
    }
    fixture_free(x, w, b, y);
    kern_close(k);
}

Test(norm, works_in_place_and_on_chosen_rows)
{
    enum { T = 9, D = 30 };
    static const int32_t rows[] = {0, 3, 4, 8};
    struct kern *k = fixture_kern(2);
    struct err e = {0};
    struct rng r = {5};
    float *x = fixture_normal(&r, T * D, 1.0), *y = fixture_zeros(T * D);
    struct kern_norm_args a = {
        .out.y = y, .x = x, .eps = 1e-5F, .T = T, .d = D, .rows = rows, .n_rows = 4};
    double *ref = reference(&a);
    cr_assert_eq(kern_layernorm(k, &a, &e), ERR_OK);
    cr_expect_lt(fixture_error(y, ref, 4 * D), tolerance);
    cr_expect_eq(y[4 * D], 0.0F);
    xfree(ref);
    struct kern_norm_args in_place = {.out.y = x, .x = x, .eps = 1e-5F, .T = T, .d = D};
    ref = reference(&in_place);
    cr_assert_eq(kern_layernorm(k, &in_place, &e), ERR_OK);
    cr_expect_lt(fixture_error(x, ref, T * D), tolerance);
    fixture_free(x, y, ref);
    kern_close(k);
}

/* A mean of 1000 standard deviations: single-precision sums would lose most digits of the variance. */
Test(norm, large_means_cost_no_more_than_the_rounding_of_the_input)
{
    enum { D = 512 };
    struct kern *k = fixture_kern(1);
    struct err e = {0};
    struct rng r = {6};
    float *x = fixture_normal(&r, D, 1.0), *y = fixture_zeros(D);
    for (int i = 0; i < D; i++)
        x[i] += 1000.0F;
    struct kern_norm_args a = {.out.y = y, .x = x, .eps = 1e-5F, .T = 1, .d = D};
    double *ref = reference(&a);
    cr_assert_eq(kern_layernorm(k, &a, &e), ERR_OK);
    double error = fixture_error(y, ref, D);
    cr_expect_lt(error, 1e-4, "%g", error);
    xfree(x);
    xfree(y);
    xfree(ref);
    kern_close(k);
}
