/* Log-likelihoods under a head in double, and kern_score held to them. Header only. */
#ifndef ISOBIT_TESTS_SUPPORT_KERN_SCORE_H
#define ISOBIT_TESTS_SUPPORT_KERN_SCORE_H

#include "tests/support/kern_linear.h"

struct score_shape {
    int64_t R, d, V;
};

/* [R, V]; caller frees with xfree. */
static inline double *score_logits(const struct score_shape *s, linear_round_fn round,
                                   const float *x, const float *head)
{
    return linear_reference(&(struct linear_shape){.T = s->R, .N = s->V, .K = s->d}, round, x, head,
                            NULL, NULL);
}

static inline double score_log_sum_exp(const double *l, int64_t n)
{
    double top = l[0], sum = 0.0;
    for (int64_t i = 1; i < n; i++)
        top = fmax(top, l[i]);
    for (int64_t i = 0; i < n; i++)
        sum += exp(l[i] - top);
    return top + log(sum);
}

static inline int64_t score_top(const double *l, int64_t n)
{
    int64_t top = 0;
    for (int64_t i = 1; i < n; i++)
        top = l[i] > l[top] ? i : top;
    return top;
}

enum { SCORE_TARGETS = 3 }; /* a row: the likeliest token, and two at random */

static inline void score_check(struct kern *k, const struct score_shape *s, linear_round_fn round,
                               uint64_t seed)
{
    struct rng r = {seed};
    struct err e = {0};
    int64_t n = s->R * SCORE_TARGETS;
    float *x = fixture_normal(&r, s->R * s->d, 1.0), *head = fixture_normal(&r, s->V * s->d, 0.7);
    float *logprob = fixture_zeros(n);
    uint8_t *is_top = xcalloc((size_t)n, 1);
    int32_t *row = xcalloc((size_t)n, sizeof *row), *token = xcalloc((size_t)n, sizeof *token);
    double *l = score_logits(s, round, x, head);
    for (int64_t i = 0; i < n; i++) {
        row[i] = (int32_t)(i / SCORE_TARGETS);
        token[i] = i % SCORE_TARGETS == 0 ? (int32_t)score_top(l + row[i] * s->V, s->V)
                                          : (int32_t)rng_below(&r, (uint64_t)s->V);
    }
    struct kern_score_args a = {.x = x,
                                .head = head,
                                .R = s->R,
                                .d = s->d,
                                .V = s->V,
                                .row = row,
                                .token = token,
                                .n = n,
                                .logprob = logprob,
                                .is_top = is_top};
    cr_assert_eq(kern_score(k, &a, &e), ERR_OK, "%s", e.text);
    for (int64_t i = 0; i < n; i++) {
        const double *lr = l + row[i] * s->V;
        double expected = lr[token[i]] - score_log_sum_exp(lr, s->V);
        cr_assert_float_eq((double)logprob[i], expected, 2e-6 * (1.0 + fabs(expected)),
                           "V %ld target %ld: %g, expected %g", (long)s->V, (long)i,
                           (double)logprob[i], expected);
        cr_assert_eq(is_top[i] != 0, token[i] == score_top(lr, s->V));
    }
    fixture_free(x, head, logprob, is_top, row, token, l);
}

#endif
