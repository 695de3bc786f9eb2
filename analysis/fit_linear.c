/* Functionals of curves as weights on rows (fit.h, "numbers that are linear in the values of rows"). */
#include <math.h>

#include "analysis/fit.h"

double linear_at(const struct linear *l, const double *values)
{
    if (l->n == 0)
        return NAN;
    double sum = 0;
    for (int i = 0; i < l->n; i++)
        sum += l->weights[i] * values[l->rows[i]];
    return sum;
}

void linear_add_value(const struct curve *c, double x, double w, double *weights)
{
    for (int i = 1; i < c->n; i++) {
        const struct curve_point *p = &c->points[i - 1];
        const struct curve_point *q = &c->points[i];
        if (x <= q->log2_bits) {
            double share = (x - p->log2_bits) / (q->log2_bits - p->log2_bits);
            weights[i - 1] += w * (1 - share);
            weights[i] += w * share;
            return;
        }
    }
    weights[0] += w;
}

static int rows_of(const struct curve *c)
{
    int n = 0;
    for (int i = 0; i < c->n; i++)
        n += c->points[i].n_rows;
    return n;
}

/* A point that stands for several rows is their mean. */
static int spread_weights(const struct curve *c, const double *weights, int *rows, double *out,
                          int n)
{
    for (int i = 0; i < c->n; i++)
        for (int j = 0; weights[i] != 0 && j < c->points[i].n_rows; j++) {
            rows[n] = c->points[i].rows[j];
            out[n++] = weights[i] / c->points[i].n_rows;
        }
    return n;
}

struct linear linear_of(const struct curve *const *curves, const double *const *weights, int n,
                        struct arena *a)
{
    int capacity = 1;
    for (int i = 0; i < n; i++)
        capacity += rows_of(curves[i]);
    int *rows = arena_array(a, (size_t)capacity, sizeof(*rows));
    double *out = arena_array(a, (size_t)capacity, sizeof(*out));
    struct linear l = {.rows = rows, .weights = out};
    for (int i = 0; i < n; i++)
        l.n = spread_weights(curves[i], weights[i], rows, out, l.n);
    return l;
}

struct linear linear_value(const struct curve *c, double x, struct arena *a)
{
    if (isnan(curve_at(c, x)))
        return (struct linear){0};
    double *weights = arena_array(a, (size_t)c->n, sizeof(*weights));
    linear_add_value(c, x, 1, weights);
    const double *w = weights;
    return linear_of(&c, &w, 1, a);
}

struct linear linear_gap(const struct curve *x, const struct curve *y, struct arena *a)
{
    double at[GAP_BUDGETS];
    if (!gap_budgets(x, y, at))
        return (struct linear){0};
    double *wx = arena_array(a, (size_t)x->n, sizeof(*wx));
    double *wy = arena_array(a, (size_t)y->n, sizeof(*wy));
    for (int i = 0; i < GAP_BUDGETS; i++) {
        linear_add_value(x, at[i], 1.0 / GAP_BUDGETS, wx);
        linear_add_value(y, at[i], -1.0 / GAP_BUDGETS, wy);
    }
    const struct curve *curves[] = {x, y};
    const double *weights[] = {wx, wy};
    return linear_of(curves, weights, 2, a);
}

struct linear linear_difference(const struct linear *x, const struct linear *y, struct arena *a)
{
    if (x->n == 0 || y->n == 0)
        return (struct linear){0};
    int *rows = arena_array(a, (size_t)x->n + (size_t)y->n, sizeof(*rows));
    double *weights = arena_array(a, (size_t)x->n + (size_t)y->n, sizeof(*weights));
    for (int i = 0; i < x->n; i++) {
        rows[i] = x->rows[i];
        weights[i] = x->weights[i];
    }
    for (int i = 0; i < y->n; i++) {
        rows[x->n + i] = y->rows[i];
        weights[x->n + i] = -y->weights[i];
    }
    return (struct linear){x->n + y->n, rows, weights};
}
