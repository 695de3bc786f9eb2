/* kern_score and kern_kl on the cpu against soft maxima in double. */
#include "tests/support/head_parts.h"
#include "tests/support/kern_score.h"

#include <string.h>

/* Around the edges of row blocks, vocabulary tiles and spans. */
static const struct score_shape shapes[] = {{1, 4, 2},      {3, 16, 255},  {5, 8, 257},
                                            {130, 24, 700}, {2, 16, 2049}, {129, 8, 4096},
                                            {4, 12, 50304}};

Test(score, log_likelihoods_equal_a_soft_max_in_double)
{
    struct kern *k = fixture_kern(2);
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++)
        score_check(k, &shapes[i], NULL, i + 1);
    kern_close(k);
}

/* One row of the head in several places of the vocabulary: within a tile, in the next tile and in another span. */
Test(score, ties_of_the_arg_max_go_to_the_smallest_id)
{
    enum { D = 4, V = 5000 };
    static const int32_t places[] = {7, 8, 300, 4999};
    struct kern *k = fixture_kern(2);
    struct err e = {0};
    struct rng r = {1};
    float *head = fixture_normal(&r, V * D, 0.1);
    float x[D] = {1.0F, 2.0F, 3.0F, 4.0F}, logprob[4];
    uint8_t is_top[4];
    for (size_t i = 0; i < 4; i++)
        memcpy(head + places[i] * D, x, sizeof x);
    static const int32_t row[4] = {0};
    struct kern_score_args a = {.x = x,
                                .head = head,
                                .R = 1,
                                .d = D,
                                .V = V,
                                .row = row,
                                .token = places,
                                .n = 4,
                                .logprob = logprob,
                                .is_top = is_top};
    cr_assert_eq(kern_score(k, &a, &e), ERR_OK);
    for (size_t i = 0; i < 4; i++) {
        cr_expect_eq(is_top[i] != 0, i == 0, "place %d", places[i]);
        cr_expect_float_eq(logprob[i], logf(0.25F), 1e-4, "%g", (double)logprob[i]);
    }
    xfree(head);
    kern_close(k);
}

Test(score, logits_far_apart_neither_overflow_nor_vanish)
{
    enum { V = 3000 };
    struct kern *k = fixture_kern(1);
    struct err e = {0};
    float *head = fixture_zeros(V);
    float x = 1000.0F, logprob[2];
    uint8_t is_top[2];
    for (int i = 0; i < V; i++)
        head[i] = (float)i * 0.01F; /* logits 0, 10, …, 29990 */
    static const int32_t row[2] = {0}, token[2] = {V - 1, 0};
    struct kern_score_args a = {.x = &x,
                                .head = head,
                                .R = 1,
                                .d = 1,
                                .V = V,
                                .row = row,
                                .token = token,
                                .n = 2,
                                .logprob = logprob,
                                .is_top = is_top};
    cr_assert_eq(kern_score(k, &a, &e), ERR_OK);
    cr_expect_float_eq(logprob[0], -4.5e-5, 1e-3, "%g", (double)logprob[0]);
    cr_expect_float_eq(logprob[1], -29990.0, 1e-1, "%g", (double)logprob[1]);
    cr_expect(is_top[0] && !is_top[1]);
    xfree(head);
    kern_close(k);
}

static void check_kl(struct kern *k, const struct score_shape *s, double noise, uint64_t seed)
{
    struct rng r = {seed};
    struct err e = {0};
    float *x = fixture_normal(&r, s->R * s->d, 1.0), *ref = fixture_normal(&r, s->R * s->d, noise);
    float *head = fixture_normal(&r, s->V * s->d, 0.5);
    double *kl = xcalloc((size_t)s->R, sizeof *kl);
    uint8_t *same = xcalloc((size_t)s->R, 1);
    for (int64_t i = 0; i < s->R * s->d; i++)
        ref[i] += x[i];
    double *q = score_logits(s, NULL, x, head), *p = score_logits(s, NULL, ref, head);
    struct kern_kl_args a = {.x = x,
                             .ref = ref,
                             .head = head,
                             .R = s->R,
                             .d = s->d,
                             .V = s->V,
                             .kl = kl,
                             .same_top = same};
    cr_assert_eq(kern_kl(k, &a, &e), ERR_OK);
    for (int64_t i = 0; i < s->R; i++) {
        const double *pi = p + i * s->V, *qi = q + i * s->V;
        double lp = score_log_sum_exp(pi, s->V), lq = score_log_sum_exp(qi, s->V), expected = 0.0;
        for (int64_t v = 0; v < s->V; v++)
            expected += exp(pi[v] - lp) * ((pi[v] - lp) - (qi[v] - lq));
        cr_assert_float_eq(kl[i], expected, 2e-6, "V %ld row %ld: %g, expected %g", (long)s->V,
                           (long)i, kl[i], expected);
        cr_assert_eq(same[i] != 0, score_top(pi, s->V) == score_top(qi, s->V));
    }
    fixture_free(x, ref, head, kl, same, p, q);
}

Test(score, divergences_equal_their_definition_in_double)
{
    struct kern *k = fixture_kern(2);
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
        check_kl(k, &shapes[i], 0.3, i + 1);
        check_kl(k, &shapes[i], 0.003, i + 1);
    }
    kern_close(k);
}

/* Parts within a span and across spans, a last one of a few rows, laid out for the products and not. */
Test(score, a_head_in_parts_has_the_answers_of_the_whole)
{
    static const struct score_shape heads[] = {{5, 8, 1000}, {130, 24, 5379}, {67, 12, 4096}};
    struct kern *k = fixture_kern(2);
    struct err e = {0};
    const int64_t step = kern_get_info(k)->head_step;
    for (size_t i = 0; i < ARRAY_LEN(heads); i++) {
        struct head_operands o = head_operands_new(heads[i].R, heads[i].d, heads[i].V, step, i + 1);
        const struct head_device at = {o.x, o.ref, o.head};
        struct head_answers whole, parts;
        cr_assert_eq(head_answers_get(k, &o, &at, 0, &whole, &e), ERR_OK, "%s", e.text);
        cr_expect_eq(head_answers_wrong(&o, &whole), 0);
        for (int64_t part = step; part < o.V + step; part += 2 * step) {
            cr_assert_eq(head_answers_get(k, &o, &at, part, &parts, &e), ERR_OK, "%s", e.text);
            cr_expect_eq(head_answers_differ(&o, &whole, &parts), 0, "V %ld in parts of %ld",
                         (long)o.V, (long)part);
            head_answers_release(&parts);
        }
        head_answers_release(&whole);
        head_operands_free(&o);
    }
    kern_close(k);
}
