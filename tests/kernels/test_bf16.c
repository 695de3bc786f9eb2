/* compute bf16 on the cpu: products of operands rounded once to bf16, summed in fp32. What is exact about it is held to the
 * same bounds as fp32, against double precision on the rounded operands; by the processor's own instructions where it has
 * them, and without them everywhere. Criterion runs each test in a process of its own, so that oneDNN sees the limit. */
#include "tests/support/kern_fixture.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/bf16.h"
#include "kernels/cpu/dnnl_cpu.h"

static const double tolerance = 2e-6;

struct shape {
    int64_t T, N, K;
    bool has_bias, is_residual;
    enum kern_act act;
};

/* Around the edges of row tiles, panels, pairs of the reduction, and panels of oneDNN's. */
static const struct shape shapes[] = {
    {1, 1, 1, true, false, KERN_ACT_NONE},        {1, 3, 7, true, false, KERN_ACT_RELU},
    {40, 144, 48, true, true, KERN_ACT_NONE},     {127, 513, 64, true, false, KERN_ACT_RELU},
    {129, 255, 65, false, false, KERN_ACT_NONE},  {300, 1031, 33, false, true, KERN_ACT_NONE},
    {513, 770, 1024, true, false, KERN_ACT_RELU}, {2048, 64, 256, true, false, KERN_ACT_NONE},
};

static struct kern *open_bf16(int threads, const char *isa)
{
    struct kern *k = NULL;
    struct err e = {0};
    struct kern_options o = {.device = "cpu", .compute = KERN_BF16, .threads = threads};
    if (isa != NULL)
        setenv("DNNL_MAX_CPU_ISA", isa, 1);
    cr_assert_eq(kern_open(&o, &k, &e), ERR_OK, "%s", e.text);
    return k;
}

static void free_all(void **p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        xfree(p[i]);
}

Test(bf16, numbers_are_rounded_to_nearest_even)
{
    static const uint32_t low[] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff};
    for (uint32_t high = 0; high < 1U << 16; high++)
        for (size_t i = 0; i < ARRAY_LEN(low); i++) {
            const float f = f32_of_bits(high << 16 | low[i]);
            const uint16_t found = f32_to_bf16(f);
            bool is_up = low[i] > 0x8000 || (low[i] == 0x8000 && (high & 1) != 0);
            if (isnan(f))
                cr_assert(isnan(f32_of_bits((uint32_t)found << 16)), "%08x", f32_bits(f));
            else
                cr_assert_eq(found, high + is_up, "%08x gives %04x", f32_bits(f), found);
            cr_assert_eq(bf16_round_bits(f), (uint32_t)found << 16);
        }
}

static double *reference(const struct shape *s, const float *x, const float *w, const float *bias,
                         const float *y)
{
    double *ref = xcalloc((size_t)(s->T * s->N), sizeof *ref);
    float *xr = fixture_zeros(s->T * s->K), *wr = fixture_zeros(s->N * s->K);
    for (int64_t i = 0; i < s->T * s->K; i++)
        xr[i] = f32_round_to_bf16(x[i]);
    for (int64_t i = 0; i < s->N * s->K; i++)
        wr[i] = f32_round_to_bf16(w[i]);
    for (int64_t t = 0; t < s->T; t++)
        for (int64_t n = 0; n < s->N; n++) {
            double sum = s->has_bias ? (double)bias[n] : 0.0;
            for (int64_t k = 0; k < s->K; k++)
                sum += (double)xr[t * s->K + k] * (double)wr[n * s->K + k];
            sum = s->act == KERN_ACT_RELU && sum < 0.0 ? 0.0 : sum;
            ref[t * s->N + n] = sum + (s->is_residual ? (double)y[t * s->N + n] : 0.0);
        }
    free_all((void *[]){xr, wr}, 2);
    return ref;
}

static void check_shape(struct kern *k, const struct shape *s, int row)
{
    struct rng r = {(uint64_t)row + 1};
    struct err e = {0};
    float *x = fixture_normal(&r, s->T * s->K, 1.0);
    float *w = fixture_normal(&r, s->N * s->K, 1.0 / sqrt((double)s->K));
    float *bias = fixture_normal(&r, s->N, 1.0), *y = fixture_normal(&r, s->T * s->N, 1.0);
    double *ref = reference(s, x, w, bias, y);
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
    free_all((void *[]){x, w, bias, y, ref}, 5);
}

static void check_shapes(const char *isa)
{
    struct kern *k = open_bf16(2, isa);
    for (int i = 0; i < (int)ARRAY_LEN(shapes); i++)
        check_shape(k, &shapes[i], i);
    kern_close(k);
}

Test(bf16, products_are_those_of_the_rounded_operands)
{
    check_shapes(NULL);
}

Test(bf16, products_are_the_same_without_bf16_instructions)
{
    check_shapes("AVX512_CORE");
    cr_expect(!dnnl_cpu_has_bf16());
}

Test(bf16, products_are_the_same_without_avx512)
{
    check_shapes("AVX2");
    cr_expect(!dnnl_cpu_has_avx512());
}

Test(bf16, the_device_says_how_it_computes)
{
    struct kern *k = open_bf16(1, "AVX2");
    cr_expect(strstr(kern_get_info(k)->device, "bf16 without instructions") != NULL, "%s",
              kern_get_info(k)->device);
    cr_expect(strstr(kern_get_info(k)->note, "no faster") != NULL, "%s", kern_get_info(k)->note);
    cr_expect_eq(kern_get_info(k)->act_bytes, 4);
    kern_close(k);
}

static void check_threads(const char *isa)
{
    enum { T = 500, N = 700, K = 1100 };
    struct rng r = {7};
    struct err e = {0};
    float *x = fixture_normal(&r, T * K, 1.0), *w = fixture_normal(&r, N * K, 0.1);
    float *one = fixture_zeros(T * N), *many = fixture_zeros(T * N);
    for (int threads = 1; threads <= 4; threads += 3) {
        struct kern *k = open_bf16(threads, isa);
        struct kern_linear_args a = {
            .y = threads == 1 ? one : many, .x = x, .w = w, .T = T, .N = N, .K = K};
        cr_assert_eq(kern_linear(k, &a, &e), ERR_OK);
        kern_close(k);
    }
    cr_expect_arr_eq(one, many, T * N * sizeof(float));
    free_all((void *[]){x, w, one, many}, 4);
}

Test(bf16, products_do_not_depend_on_the_number_of_threads)
{
    check_threads(NULL);
}

Test(bf16, nor_do_they_without_instructions)
{
    check_threads("AVX2");
}

Test(bf16, what_is_no_number_stays_so)
{
    enum { T = 3, N = 20, K = 40 };
    struct kern *k = open_bf16(1, NULL);
    struct err e = {0};
    struct rng r = {1};
    float *x = fixture_normal(&r, T * K, 1.0), *w = fixture_normal(&r, N * K, 1.0);
    float *y = fixture_zeros(T * N);
    uint32_t all_ones = 0x7fffffff; /* rounding must not carry it into the sign */
    memcpy(x + K, &all_ones, sizeof all_ones);
    struct kern_linear_args a = {.y = y, .x = x, .w = w, .T = T, .N = N, .K = K};
    cr_assert_eq(kern_linear(k, &a, &e), ERR_OK);
    for (int i = 0; i < N; i++)
        cr_expect(isfinite(y[i]) && isnan(y[N + i]) && isfinite(y[2 * N + i]));
    free_all((void *[]){x, w, y}, 3);
    kern_close(k);
}

static double log_sum_exp(const double *l, int64_t n)
{
    double top = l[0], sum = 0.0;
    for (int64_t i = 1; i < n; i++)
        top = fmax(top, l[i]);
    for (int64_t i = 0; i < n; i++)
        sum += exp(l[i] - top);
    return top + log(sum);
}

/* Two targets a row; the same head as reference: no divergence at all from itself. */
static void check_scores(struct kern *k, int64_t R, int64_t d, int64_t V)
{
    struct rng r = {(uint64_t)V};
    struct err e = {0};
    struct shape s = {.T = R, .N = V, .K = d};
    float *x = fixture_normal(&r, R * d, 1.0), *head = fixture_normal(&r, V * d, 0.3);
    float *logprob = fixture_zeros(2 * R);
    uint8_t *is_top = xcalloc((size_t)(2 * R), 1), *same = xcalloc((size_t)R, 1);
    int32_t *row = xcalloc((size_t)(2 * R), sizeof *row), *token = xcalloc((size_t)(2 * R), 4);
    double *kl = xcalloc((size_t)R, sizeof *kl), *l = reference(&s, x, head, NULL, NULL);
    for (int64_t i = 0; i < 2 * R; i++) {
        row[i] = (int32_t)(i / 2);
        token[i] = (int32_t)rng_below(&r, (uint64_t)V);
    }
    struct kern_score_args a = {.x = x,
                                .head = head,
                                .R = R,
                                .d = d,
                                .V = V,
                                .row = row,
                                .token = token,
                                .n = 2 * R,
                                .logprob = logprob,
                                .is_top = is_top};
    struct kern_kl_args b = {
        .x = x, .ref = x, .head = head, .R = R, .d = d, .V = V, .kl = kl, .same_top = same};
    cr_assert_eq(kern_score(k, &a, &e), ERR_OK, "%s", e.text);
    cr_assert_eq(kern_kl(k, &b, &e), ERR_OK, "%s", e.text);
    for (int64_t i = 0; i < 2 * R; i++) {
        const double *lr = l + row[i] * V;
        double expected = lr[token[i]] - log_sum_exp(lr, V);
        cr_assert_float_eq((double)logprob[i], expected, 2e-6 * (1.0 + fabs(expected)),
                           "V %ld target %ld: %g, expected %g", (long)V, (long)i,
                           (double)logprob[i], expected);
        cr_assert(fabs(kl[row[i]]) < 1e-6 && same[row[i]]);
    }
    free_all((void *[]){x, head, logprob, is_top, same, row, token, kl, l}, 9);
}

Test(bf16, scores_are_soft_maxima_of_the_rounded_products)
{
    struct kern *k = open_bf16(2, NULL);
    check_scores(k, 1, 4, 2);
    check_scores(k, 130, 24, 700);
    check_scores(k, 3, 16, 2049);
    check_scores(k, 2, 250, 140001); /* a head of two bands */
    kern_close(k);
}

Test(bf16, fp16_is_refused_with_what_there_is)
{
    struct kern *k = NULL;
    struct err e = {0};
    struct kern_options o = {.device = "cpu", .compute = KERN_FP16};
    cr_expect_eq(kern_open(&o, &k, &e), ERR_UNSUPPORTED);
    cr_expect(strstr(e.text, "bf16") != NULL && strstr(e.text, "GPU") != NULL, "%s", e.text);
}
