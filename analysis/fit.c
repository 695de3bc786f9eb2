#include "analysis/fit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { GAP_BUDGETS = 64, MAX_K = 33 };

double curve_at(const struct curve *c, double x)
{
    if (c->n == 0 || x < c->points[0].log2_bits || x > c->points[c->n - 1].log2_bits)
        return NAN;
    for (int i = 1; i < c->n; i++) {
        const struct curve_point *p = &c->points[i - 1];
        const struct curve_point *q = &c->points[i];
        if (x <= q->log2_bits)
            return p->value +
                   (q->value - p->value) * (x - p->log2_bits) / (q->log2_bits - p->log2_bits);
    }
    return c->points[0].value;
}

struct best best_at(const struct group *g, double x, bool is_larger_better)
{
    struct best best = {.log2_bits = x, .value = NAN};
    for (int i = 0; i < g->n_curves; i++) {
        double v = curve_at(&g->curves[i], x);
        if (isnan(v))
            continue;
        best.n_covering++;
        if (best.k == 0 || (is_larger_better ? v > best.value : v < best.value)) {
            best.k = g->curves[i].k;
            best.value = v;
        }
    }
    return best;
}

static int compare_double(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The second smallest start and the second largest end bound what two curves can cover. */
bool budgets_of(const struct group *g, int n, double *log2_bits)
{
    double starts[MAX_K];
    double ends[MAX_K];
    int m = 0;
    for (int i = 0; i < g->n_curves && m < MAX_K; i++) {
        if (g->curves[i].n < 2)
            continue;
        starts[m] = g->curves[i].points[0].log2_bits;
        ends[m++] = g->curves[i].points[g->curves[i].n - 1].log2_bits;
    }
    if (m < 2)
        return false;
    qsort(starts, (size_t)m, sizeof(*starts), compare_double);
    qsort(ends, (size_t)m, sizeof(*ends), compare_double);
    double from = starts[1];
    double to = ends[m - 2];
    if (!(from < to))
        return false;
    for (int i = 0; i < n; i++)
        log2_bits[i] = n > 1 ? from + (to - from) * i / (n - 1) : from;
    return true;
}

double curve_gap(const struct curve *x, const struct curve *y)
{
    if (x->n < 2 || y->n < 2)
        return NAN;
    double from = fmax(x->points[0].log2_bits, y->points[0].log2_bits);
    double to = fmin(x->points[x->n - 1].log2_bits, y->points[y->n - 1].log2_bits);
    if (!(from < to))
        return NAN;
    double sum = 0;
    for (int i = 0; i < GAP_BUDGETS; i++) {
        double at = fmin(from + (to - from) * i / (GAP_BUDGETS - 1), to);
        sum += curve_at(x, at) - curve_at(y, at);
    }
    return sum / GAP_BUDGETS;
}

const struct curve *group_curve(const struct group *g, int k)
{
    for (int i = 0; i < g->n_curves; i++)
        if (g->curves[i].k == k)
            return &g->curves[i];
    return NULL;
}

static int compare_point(const void *a, const void *b)
{
    double x = ((const struct curve_point *)a)->log2_bits;
    double y = ((const struct curve_point *)b)->log2_bits;
    return (x > y) - (x < y);
}

/* Equal budgets have no slope between them: one point with the mean value stands for them. */
static void merge_equal(struct curve *c)
{
    int n = 0;
    for (int i = 0; i < c->n;) {
        int j = i;
        double sum = 0;
        while (j < c->n && c->points[j].log2_bits == c->points[i].log2_bits)
            sum += c->points[j++].value;
        c->points[n] = c->points[i];
        c->points[n++].value = sum / (j - i);
        i = j;
    }
    c->n = n;
}

static bool belongs(const struct frame_row *row, const struct group *g, struct arena *a)
{
    if (strcmp(row->sweep, g->sweep) != 0 || strcmp(row->family, g->family) != 0)
        return false;
    struct setting s = setting_of(row, a);
    return row->k >= 16 ? strcmp(s.compute, g->setting.compute) == 0
                        : setting_equal(&s, &g->setting);
}

static void add_point(struct group *g, const struct frame_row *row, double value, double bits,
                      int capacity, struct arena *a)
{
    struct curve *c = NULL;
    for (int i = 0; i < g->n_curves; i++)
        if (g->curves[i].k == row->k)
            c = &g->curves[i];
    if (c == NULL) {
        c = &g->curves[g->n_curves++];
        *c = (struct curve){.k = row->k,
                            .points = arena_array(a, (size_t)capacity, sizeof(*c->points))};
    }
    c->points[c->n++] = (struct curve_point){log2(bits), value, row->n_params, row->size};
}

static int compare_curve(const void *a, const void *b)
{
    return ((const struct curve *)a)->k - ((const struct curve *)b)->k;
}

static void fill_group(struct group *g, const struct frame *f, enum metric_id m, enum bits_id b,
                       struct arena *a, int *n_dropped)
{
    int capacity = 0;
    for (int i = 0; i < f->n; i++)
        capacity += belongs(&f->rows[i], g, a);
    g->curves = arena_array(a, MAX_K, sizeof(*g->curves));
    for (int i = 0; i < f->n; i++) {
        const struct frame_row *row = &f->rows[i];
        if (!belongs(row, g, a) || (row->k == 16 && m == METRIC_KL))
            continue;
        if (isfinite(row->metric[m]) && row->total_bits[b] > 0)
            add_point(g, row, row->metric[m], row->total_bits[b], capacity, a);
        else
            ++*n_dropped;
    }
    for (int i = 0; i < g->n_curves; i++) {
        qsort(g->curves[i].points, (size_t)g->curves[i].n, sizeof(struct curve_point),
              compare_point);
        merge_equal(&g->curves[i]);
    }
    qsort(g->curves, (size_t)g->n_curves, sizeof(*g->curves), compare_curve);
}

static bool is_known(const struct group *groups, int n, const struct group *g)
{
    for (int i = 0; i < n; i++)
        if (strcmp(groups[i].sweep, g->sweep) == 0 && strcmp(groups[i].family, g->family) == 0 &&
            setting_equal(&groups[i].setting, &g->setting))
            return true;
    return false;
}

struct group *groups_build(const struct frame *f, enum metric_id m, enum bits_id b, struct arena *a,
                           int *n_groups, int *n_dropped)
{
    struct group *groups = arena_array(a, (size_t)f->n + 1, sizeof(*groups));
    int n = 0;
    *n_dropped = 0;
    for (int i = 0; i < f->n; i++) {
        const struct frame_row *row = &f->rows[i];
        struct group g = {
            .sweep = row->sweep, .family = row->family, .setting = setting_of(row, a)};
        if (row->k < 16 && !is_known(groups, n, &g))
            groups[n++] = g;
    }
    for (int i = 0; i < n; i++)
        fill_group(&groups[i], f, m, b, a, n_dropped);
    *n_groups = n;
    return groups;
}
