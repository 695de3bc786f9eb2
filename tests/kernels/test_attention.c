/* kern_attention on the cpu against the definition in double. */
#include "tests/support/kern_fixture.h"

#include <string.h>

static const double tolerance = 1e-6;

enum { SEQS_MAX = 8 };

struct layout {
    const char *name;
    int heads, head_dim;
    bool is_by_head, has_alibi;
    int n_seqs;
    struct kern_seq seqs[SEQS_MAX]; /* start is filled in */
};

static const struct layout layouts[] = {
    {"one token", 1, 8, false, false, 1, {{0, 1, -1, 0}}},
    {"odd head size", 3, 5, false, false, 2, {{0, 17, -1, 0}, {0, 33, -1, 0}}},
    {"gpt2 fixture", 4, 12, false, false, 2, {{0, 40, -1, 0}, {0, 3, -1, 0}}},
    {"by head", 2, 32, true, false, 3, {{0, 100, -1, 0}, {0, 16, -1, 0}, {0, 15, -1, 0}}},
    {"alibi", 6, 8, true, true, 2, {{0, 45, -1, 0}, {0, 130, -1, 0}}},
    {"long", 1, 64, true, false, 1, {{0, 700, -1, 0}}},
    {"children",
     2,
     16,
     true,
     false,
     6,
     {{0, 21, -1, 0}, {0, 5, 0, 21}, {0, 30, -1, 0}, {0, 17, 0, 21}, {0, 1, 2, 30}, {0, 9, -1, 0}}},
    {"children with alibi", 4, 16, true, true, 3, {{0, 64, -1, 0}, {0, 32, 0, 64}, {0, 31, 0, 64}}},
};

struct problem {
    struct kern_seq seqs[SEQS_MAX];
    struct kern_attention_args a;
    float *qkv, *out;
    float slopes[SEQS_MAX];
};

static void problem_make(const struct layout *l, struct problem *p, uint64_t seed)
{
    struct rng r = {seed};
    int64_t T = 0, hd = l->head_dim, d = l->heads * hd;
    memcpy(p->seqs, l->seqs, sizeof p->seqs);
    for (int i = 0; i < l->n_seqs; i++) {
        p->seqs[i].start = (int32_t)T;
        T += p->seqs[i].len;
    }
    for (int h = 0; h < l->heads; h++)
        p->slopes[h] = exp2f((float)-(h + 1));
    p->qkv = fixture_normal(&r, T * 3 * d, 1.0);
    p->out = fixture_zeros(T * d);
    p->a = (struct kern_attention_args){
        .out = p->out,
        .qkv = p->qkv,
        .row = 3 * d,
        .k_at = l->is_by_head ? hd : d,
        .v_at = l->is_by_head ? 2 * hd : 2 * d,
        .head_stride = l->is_by_head ? 3 * hd : hd,
        .heads = l->heads,
        .head_dim = l->head_dim,
        .scale = 1.0F / sqrtf((float)hd),
        .alibi_slopes = l->has_alibi ? p->slopes : NULL,
        .seqs = p->seqs,
        .n_seqs = l->n_seqs,
        .T = T,
    };
}

static void problem_release(struct problem *p)
{
    xfree(p->qkv);
    xfree(p->out);
}

/* Channel c of head h's vector at `at` (q, k or v) of row t. */
static double element(const struct problem *p, int64_t t, int64_t at, int h, int c)
{
    return (double)p->qkv[t * p->a.row + at + h * p->a.head_stride + c];
}

/* Row in T of key j of a sequence: the parent's keys come first. */
static int64_t key_row(const struct problem *p, const struct kern_seq *s, int64_t j)
{
    int64_t before = s->parent >= 0 ? p->seqs[s->parent].len : 0;
    return j < before ? p->seqs[s->parent].start + j : s->start + j - before;
}

static void reference_query(const struct problem *p, const struct kern_seq *s, int64_t t, int h,
                            double *out)
{
    const struct kern_attention_args *a = &p->a;
    const int64_t pos = s->pos0 + t;
    double *w = xcalloc((size_t)pos + 1, sizeof *w), sum = 0.0, top = -INFINITY;
    for (int64_t j = 0; j <= pos; j++) {
        for (int c = 0; c < a->head_dim; c++)
            w[j] += element(p, s->start + t, a->q_at, h, c) *
                    element(p, key_row(p, s, j), a->k_at, h, c);
        w[j] *= (double)a->scale;
        if (a->alibi_slopes != NULL)
            w[j] += (double)a->alibi_slopes[h] * (double)j;
        top = fmax(top, w[j]);
    }
    for (int64_t j = 0; j <= pos; j++)
        sum += exp(w[j] - top);
    for (int c = 0; c < a->head_dim; c++) {
        out[c] = 0.0;
        for (int64_t j = 0; j <= pos; j++)
            out[c] += exp(w[j] - top) / sum * element(p, key_row(p, s, j), a->v_at, h, c);
    }
    xfree(w);
}

static double *reference(const struct problem *p)
{
    const struct kern_attention_args *a = &p->a;
    const int64_t d = (int64_t)a->heads * a->head_dim;
    double *ref = xcalloc((size_t)(a->T * d), sizeof *ref);
    for (int i = 0; i < a->n_seqs; i++)
        for (int64_t t = 0; t < p->seqs[i].len; t++)
            for (int h = 0; h < a->heads; h++)
                reference_query(p, &p->seqs[i], t, h,
                                ref + (p->seqs[i].start + t) * d + h * a->head_dim);
    return ref;
}

Test(attention, equals_the_definition_over_a_table_of_layouts)
{
    struct kern *k = fixture_kern(2);
    for (size_t i = 0; i < ARRAY_LEN(layouts); i++) {
        struct problem p = {0};
        struct err e = {0};
        problem_make(&layouts[i], &p, i + 1);
        double *ref = reference(&p);
        cr_assert_eq(kern_attention(k, &p.a, &e), ERR_OK, "%s", e.text);
        int64_t n = p.a.T * p.a.heads * p.a.head_dim;
        double error = fixture_error(p.out, ref, n);
        cr_expect_lt(error, tolerance, "%s: %g", layouts[i].name, error);
        cr_expect_eq(p.out[n], 0.0F, "%s writes behind its output", layouts[i].name);
        problem_release(&p);
        xfree(ref);
    }
    kern_close(k);
}

Test(attention, does_not_depend_on_the_number_of_threads)
{
    for (size_t i = 0; i < ARRAY_LEN(layouts); i++) {
        struct problem one = {0}, many = {0};
        struct err e = {0};
        struct kern *k1 = fixture_kern(1), *k4 = fixture_kern(4);
        problem_make(&layouts[i], &one, i + 1);
        problem_make(&layouts[i], &many, i + 1);
        cr_assert_eq(kern_attention(k1, &one.a, &e), ERR_OK);
        cr_assert_eq(kern_attention(k4, &many.a, &e), ERR_OK);
        size_t n = (size_t)(one.a.T * one.a.heads * one.a.head_dim) * sizeof(float);
        cr_expect_arr_eq(one.out, many.out, n, "%s", layouts[i].name);
        problem_release(&one);
        problem_release(&many);
        kern_close(k1);
        kern_close(k4);
    }
}

/* The first tokens of a sequence must not feel what follows; a mask off by one would show here. */
Test(attention, later_tokens_change_nothing_before_them)
{
    struct kern *k = fixture_kern(2);
    struct problem p = {0};
    struct err e = {0};
    problem_make(&layouts[3], &p, 9);
    const int64_t d = (int64_t)p.a.heads * p.a.head_dim;
    cr_assert_eq(kern_attention(k, &p.a, &e), ERR_OK);
    float *before = xcalloc((size_t)(p.a.T * d), sizeof *before);
    memcpy(before, p.out, (size_t)(p.a.T * d) * sizeof *before);
    for (int64_t i = 50 * p.a.row; i < 51 * p.a.row; i++)
        p.qkv[i] += 3.0F;
    cr_assert_eq(kern_attention(k, &p.a, &e), ERR_OK);
    cr_expect_arr_eq(before, p.out, (size_t)(50 * d) * sizeof *before);
    cr_expect_arr_neq(before + 50 * d, p.out + 50 * d, (size_t)d * sizeof *before);
    cr_expect_arr_neq(before + 99 * d, p.out + 99 * d, (size_t)d * sizeof *before);
    cr_expect_arr_eq(before + 100 * d, p.out + 100 * d, (size_t)(31 * d) * sizeof *before);
    xfree(before);
    problem_release(&p);
    kern_close(k);
}
