/* Rotary embeddings of kern_linear on the cpu: the product in double, then the definition. */
#include "tests/support/kern_fixture.h"

static const double tolerance = 2e-6;

enum { SEQS_MAX = 4 };

struct layout {
    const char *name;
    int heads, head_dim, dims;
    bool is_by_head;
    int64_t T; /* rows behind the last sequence are there, at position 0 */
    int n_seqs;
    struct kern_seq seqs[SEQS_MAX];
};

static const struct layout layouts[] = {
    {"a quarter", 2, 32, 8, true, 131, 3, {{0, 100, -1, 0}, {100, 16, -1, 0}, {116, 15, -1, 0}}},
    {"all", 2, 16, 16, true, 50, 1, {{0, 50, -1, 0}}},
    {"one pair", 3, 6, 2, true, 9, 1, {{0, 9, -1, 0}}},
    {"heads of q, then of k", 3, 20, 10, false, 40, 1, {{0, 40, -1, 0}}},
    {"children", 4, 16, 4, true, 60, 3, {{0, 21, -1, 0}, {21, 5, 0, 21}, {26, 30, 0, 21}}},
    {"long", 1, 64, 16, true, 2100, 1, {{0, 2048, -1, 0}}},
};

struct problem {
    struct kern_rotary rotary;
    int64_t T, N, K;
    float *x, *w, *bias, *y;
};

static struct problem problem_make(const struct layout *l)
{
    struct rng r = {(uint64_t)l->heads * 100 + (uint64_t)l->head_dim};
    struct problem p = {.T = l->T, .N = (int64_t)3 * l->heads * l->head_dim, .K = 24};
    p.rotary = (struct kern_rotary){
        .dims = l->dims,
        .base = 10000.0F,
        .heads = l->heads,
        .k_at = l->is_by_head ? l->head_dim : l->heads * l->head_dim,
        .head_stride = l->is_by_head ? 3 * l->head_dim : l->head_dim,
        .seqs = l->seqs,
        .n_seqs = l->n_seqs,
    };
    p.x = fixture_normal(&r, p.T * p.K, 1.0);
    p.w = fixture_normal(&r, p.N * p.K, 0.2);
    p.bias = fixture_normal(&r, p.N, 1.0);
    p.y = fixture_zeros(p.T * p.N);
    return p;
}

static void problem_release(struct problem *p)
{
    void *all[] = {p->x, p->w, p->bias, p->y};
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        xfree(all[i]);
}

static double *product(const struct problem *p)
{
    double *ref = xcalloc((size_t)(p->T * p->N), sizeof *ref);
    for (int64_t t = 0; t < p->T; t++)
        for (int64_t n = 0; n < p->N; n++) {
            double sum = (double)p->bias[n];
            for (int64_t k = 0; k < p->K; k++)
                sum += (double)p->x[t * p->K + k] * (double)p->w[n * p->K + k];
            ref[t * p->N + n] = sum;
        }
    return ref;
}

static void turn(const struct kern_rotary *r, double *x, int64_t pos)
{
    const int half = r->dims / 2;
    for (int i = 0; i < half; i++) {
        const double angle = (double)pos * pow((double)r->base, -2.0 * i / r->dims);
        const double lo = x[i], hi = x[i + half];
        x[i] = lo * cos(angle) - hi * sin(angle);
        x[i + half] = hi * cos(angle) + lo * sin(angle);
    }
}

static void rotate(const struct problem *p, double *ref)
{
    const struct kern_rotary *r = &p->rotary;
    for (int i = 0; i < r->n_seqs; i++)
        for (int32_t t = 0; t < r->seqs[i].len; t++)
            for (int h = 0; h < r->heads; h++) {
                double *row = ref + (r->seqs[i].start + t) * p->N + h * r->head_stride;
                turn(r, row + r->q_at, r->seqs[i].pos0 + t);
                turn(r, row + r->k_at, r->seqs[i].pos0 + t);
            }
}

static void run(struct kern *k, const struct problem *p)
{
    struct err e = {0};
    const struct kern_linear_args a = {.y = p->y,
                                       .x = p->x,
                                       .w = p->w,
                                       .bias = p->bias,
                                       .T = p->T,
                                       .N = p->N,
                                       .K = p->K,
                                       .rotary = &p->rotary};
    cr_assert_eq(kern_linear(k, &a, &e), ERR_OK, "%s", e.text);
}

Test(rotary, equals_the_definition_over_a_table_of_layouts)
{
    struct kern *k = fixture_kern(2); /* one for all: tables are kept from call to call */
    for (size_t i = 0; i < ARRAY_LEN(layouts); i++) {
        struct problem p = problem_make(&layouts[i]);
        double *ref = product(&p);
        rotate(&p, ref);
        run(k, &p);
        const double error = fixture_error(p.y, ref, p.T * p.N);
        cr_expect_lt(error, tolerance, "%s: %g", layouts[i].name, error);
        cr_expect_eq(p.y[p.T * p.N], 0.0F, "%s writes behind its output", layouts[i].name);
        xfree(ref);
        problem_release(&p);
    }
    kern_close(k);
}

Test(rotary, does_not_depend_on_the_number_of_threads)
{
    for (size_t i = 0; i < ARRAY_LEN(layouts); i++) {
        struct problem one = problem_make(&layouts[i]), many = problem_make(&layouts[i]);
        struct kern *k1 = fixture_kern(1), *k4 = fixture_kern(4);
        run(k1, &one);
        run(k4, &many);
        cr_expect_arr_eq(one.y, many.y, (size_t)(one.T * one.N) * sizeof(float), "%s",
                         layouts[i].name);
        problem_release(&one);
        problem_release(&many);
        kern_close(k1);
        kern_close(k4);
    }
}
