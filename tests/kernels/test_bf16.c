/* compute bf16 on the cpu: products of operands rounded once to bf16, summed in fp32. What is exact about it is held to the
 * same bounds as fp32, against double precision on the rounded operands; by the processor's own instructions where it has
 * them, and without them everywhere. Criterion runs each test in a process of its own, so that oneDNN sees the limit. */
#include "tests/support/kern_score.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/bf16.h"
#include "kernels/cpu/dnnl_cpu.h"

static const double tolerance = 2e-6;

/* Around the edges of row tiles, panels, pairs of the reduction, and panels of oneDNN's. */
static const struct linear_shape shapes[] = {
    {1, 1, 1, KERN_ACT_NONE, true, false},        {1, 3, 7, KERN_ACT_RELU, true, false},
    {40, 144, 48, KERN_ACT_NONE, true, true},     {127, 513, 64, KERN_ACT_RELU, true, false},
    {129, 255, 65, KERN_ACT_NONE, false, false},  {300, 1031, 33, KERN_ACT_NONE, false, true},
    {513, 770, 1024, KERN_ACT_RELU, true, false}, {2048, 64, 256, KERN_ACT_NONE, true, false},
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

static void check_shapes(const char *isa)
{
    struct kern *k = open_bf16(2, isa);
    for (int i = 0; i < (int)ARRAY_LEN(shapes); i++)
        linear_check(k, &shapes[i], f32_round_to_bf16, i, tolerance);
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
    struct kern *one = open_bf16(1, isa), *four = open_bf16(4, isa);
    linear_check_same(one, four, 500, 700, 1100);
    kern_close(one);
    kern_close(four);
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
    fixture_free(x, w, y);
    kern_close(k);
}

/* The same head as reference: no divergence at all from itself. */
static void check_scores(struct kern *k, const struct score_shape *s)
{
    struct rng r = {(uint64_t)s->V};
    struct err e = {0};
    float *x = fixture_normal(&r, s->R * s->d, 1.0), *head = fixture_normal(&r, s->V * s->d, 0.3);
    double *kl = xcalloc((size_t)s->R, sizeof *kl);
    uint8_t *same = xcalloc((size_t)s->R, 1);
    struct kern_kl_args a = {.x = x,
                             .ref = x,
                             .head = head,
                             .R = s->R,
                             .d = s->d,
                             .V = s->V,
                             .kl = kl,
                             .same_top = same};
    score_check(k, s, f32_round_to_bf16, (uint64_t)s->V);
    cr_assert_eq(kern_kl(k, &a, &e), ERR_OK, "%s", e.text);
    for (int64_t i = 0; i < s->R; i++)
        cr_assert(fabs(kl[i]) < 1e-6 && same[i]);
    fixture_free(x, head, kl, same);
}

Test(bf16, scores_are_soft_maxima_of_the_rounded_products)
{
    static const struct score_shape scored[] = {
        {1, 4, 2}, {130, 24, 700}, {3, 16, 2049}, {2, 250, 140001} /* a head of two bands */
    };
    struct kern *k = open_bf16(2, NULL);
    for (size_t i = 0; i < ARRAY_LEN(scored); i++)
        check_scores(k, &scored[i]);
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
