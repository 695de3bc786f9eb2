/* kern_linear and kern_logits on the cpu against products in double. */
#include "tests/support/kern_linear.h"

/* fp32 sums of K products: the error grows like sqrt(K) * 2^-24 of their size; 2e-6 leaves room up to K = 4096. */
static const double tolerance = 2e-6;

static const struct linear_shape shapes[] = {
    {1, 1, 1, KERN_ACT_NONE, true, false},
    {1, 3, 7, KERN_ACT_RELU, true, false},
    {5, 17, 12, KERN_ACT_GELU_ERF, true, false},
    {40, 144, 48, KERN_ACT_NONE, true, false},
    {40, 48, 48, KERN_ACT_NONE, true, true},
    {127, 513, 64, KERN_ACT_GELU_TANH, true, false},
    {129, 255, 65, KERN_ACT_GELU_ERF, false, false},
    {300, 1031, 33, KERN_ACT_NONE, false, true},
    {513, 770, 1024, KERN_ACT_RELU, true, false},
    {64, 64, 4096, KERN_ACT_NONE, true, false},
};

Test(linear, equals_a_double_product_over_a_table_of_shapes)
{
    struct kern *k = fixture_kern(2);
    for (int i = 0; i < (int)ARRAY_LEN(shapes); i++)
        linear_check(k, &shapes[i], NULL, i, tolerance);
    kern_close(k);
}

Test(linear, does_not_depend_on_the_number_of_threads)
{
    struct kern *one = fixture_kern(1), *four = fixture_kern(4);
    linear_check_same(one, four, 200, 700, 96);
    kern_close(one);
    kern_close(four);
}

/* One weight of 1 and a ramp of inputs: the activation itself, at every tail of a vector. Error relative to |x|. */
static void check_act(struct kern *k, enum kern_act act, double limit)
{
    enum { N = 20011 };
    float *w = fixture_zeros(N), *y = fixture_zeros(N);
    float one = 1.0F, worst = 0.0F;
    struct err e = {0};
    for (int i = 0; i < N; i++)
        w[i] = (float)(i - N / 2) * 2e-3F;
    struct kern_linear_args a = {.y = y, .x = &one, .w = w, .T = 1, .N = N, .K = 1, .act = act};
    cr_assert_eq(kern_linear(k, &a, &e), ERR_OK);
    for (int i = 0; i < N; i++) {
        double error =
            fabs((double)y[i] - linear_act((double)w[i], act)) / fmax(fabs((double)w[i]), 1e-6);
        worst = fmaxf(worst, (float)error);
        cr_assert_lt(error, limit, "act %d at %g: %g", (int)act, (double)w[i], error);
    }
    cr_log_info("act %d: largest error %g of |x|", (int)act, (double)worst);
    xfree(w);
    xfree(y);
}

Test(linear, activations_are_exact_to_single_precision)
{
    struct kern *k = fixture_kern(1);
    check_act(k, KERN_ACT_RELU, 1e-12);
    check_act(k, KERN_ACT_GELU_ERF, 2e-7);
    check_act(k, KERN_ACT_GELU_TANH, 2e-7);
    kern_close(k);
}

Test(linear, logits_are_a_plain_product)
{
    enum { R = 3, D = 20, V = 1001 };
    struct kern *k = fixture_kern(2);
    struct rng r = {3};
    struct err e = {0};
    float *x = fixture_normal(&r, R * D, 1.0), *head = fixture_normal(&r, V * D, 0.2);
    float *logits = fixture_zeros(R * V);
    struct kern_logits_args a = {.x = x, .head = head, .R = R, .d = D, .V = V, .logits = logits};
    cr_assert_eq(kern_logits(k, &a, &e), ERR_OK);
    double *ref =
        linear_reference(&(struct linear_shape){.T = R, .N = V, .K = D}, NULL, x, head, NULL, NULL);
    cr_expect_lt(fixture_error(logits, ref, R * V), tolerance);
    fixture_free(x, head, logits, ref);
    kern_close(k);
}

Test(linear, devices_that_do_not_exist_are_refused_with_the_remedy)
{
    struct kern *k = NULL;
    struct err e = {0};
    cr_expect_eq(kern_open(&(struct kern_options){.device = "tpu"}, &k, &e), ERR_FORMAT);
    cr_expect(strstr(e.text, "cuda:N") != NULL, "%s", e.text);
    cr_expect_eq(kern_open(&(struct kern_options){.device = "cpu:1"}, &k, &e), ERR_FORMAT);
    struct kern_options half = {.device = "cpu", .compute = KERN_FP16};
    cr_expect_eq(kern_open(&half, &k, &e), ERR_UNSUPPORTED);
    cr_expect_eq(k, NULL);
}

Test(linear, memory_that_is_not_there_is_an_error)
{
    struct kern *k = fixture_kern(1);
    struct err e = {0};
    void *p = NULL;
    mem_fail_after(1);
    cr_expect_eq(kern_alloc(k, 100, "a tensor", &p, &e), ERR_NOMEM);
    cr_expect(strstr(e.text, "a tensor") != NULL, "%s", e.text);
    mem_fail_after(0);
    cr_expect_eq(kern_alloc(k, SIZE_MAX, "a tensor", &p, &e), ERR_NOMEM);
    kern_free(k, NULL);
    kern_close(k);
}
