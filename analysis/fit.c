#include "analysis/fit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_K = 33 };

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

bool gap_budgets(const struct curve *x, const struct curve *y, double at[GAP_BUDGETS])
{
    if (x->n < 2 || y->n < 2)
        return false;
    double from = fmax(x->points[0].log2_bits, y->points[0].log2_bits);
    double to = fmin(x->points[x->n - 1].log2_bits, y->points[y->n - 1].log2_bits);
    if (!(from < to))
        return false;
    for (int i = 0; i < GAP_BUDGETS; i++)
        at[i] = fmin(from + (to - from) * i / (GAP_BUDGETS - 1), to);
    return true;
}

double curve_gap(const struct curve *x, const struct curve *y)
{
    double at[GAP_BUDGETS];
    if (!gap_budgets(x, y, at))
        return NAN;
    double sum = 0;
    for (int i = 0; i < GAP_BUDGETS; i++)
        sum += curve_at(x, at[i]) - curve_at(y, at[i]);
    return sum / GAP_BUDGETS;
}

const struct curve *group_curve(const struct group *g, int k)
{
    for (int i = 0; i < g->n_curves; i++)
        if (g->curves[i].k == k)
            return &g->curves[i];
    return NULL;
}

/* ---- groups ---- */

/* A row with a value, on its way to a curve. */
struct cell {
    const struct frame_row *row;
    int index; /* of the row */
    struct setting setting;
    double log2_bits, value;
};

/* The order in which cells become points: by group, curve, bits. The settings of a baseline say nothing but its compute. */
static int compare_family(const struct cell *x, const struct cell *y)
{
    int by_sweep = strcmp(x->row->sweep, y->row->sweep);
    return by_sweep != 0 ? by_sweep : strcmp(x->row->family, y->row->family);
}

static int compare_group(const struct cell *x, const struct cell *y)
{
    int by_family = compare_family(x, y);
    if (by_family != 0)
        return by_family;
    return x->row->k >= 16 && y->row->k >= 16 ? strcmp(x->setting.compute, y->setting.compute)
                                              : setting_compare(&x->setting, &y->setting);
}

static int compare_cell(const void *a, const void *b)
{
    const struct cell *x = a;
    const struct cell *y = b;
    int by_group = compare_group(x, y);
    if (by_group != 0)
        return by_group;
    if (x->row->k != y->row->k)
        return x->row->k - y->row->k;
    if (x->log2_bits != y->log2_bits)
        return x->log2_bits < y->log2_bits ? -1 : 1;
    return x->index - y->index;
}

struct cells {
    struct cell *v;
    int n;
};

/* Where the baselines of a group's family and compute start; in a list sorted by compare_cell. */
static int first_baseline(const struct cells *baselines, const struct cell *of)
{
    int low = 0;
    int high = baselines->n;
    while (low < high) {
        int mid = (low + high) / 2;
        const struct cell *c = &baselines->v[mid];
        int order = compare_family(c, of);
        if (order == 0)
            order = strcmp(c->setting.compute, of->setting.compute);
        if (order < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* One curve from cells of one bit width. Equal bits have no slope between them: one point with the mean value stands for them. */
static void add_curve(struct group *g, const struct cell *cells, int n, struct arena *a)
{
    struct curve *c = &g->curves[g->n_curves++];
    int *rows = arena_array(a, (size_t)n, sizeof(*rows));
    *c = (struct curve){.k = cells[0].row->k,
                        .points = arena_array(a, (size_t)n, sizeof(*c->points))};
    for (int i = 0; i < n;) {
        int j = i;
        double sum = 0;
        for (; j < n && cells[j].log2_bits == cells[i].log2_bits; j++) {
            rows[j] = cells[j].index;
            sum += cells[j].value;
        }
        c->points[c->n++] = (struct curve_point){.log2_bits = cells[i].log2_bits,
                                                 .value = sum / (j - i),
                                                 .n_params = cells[i].row->n_params,
                                                 .size = cells[i].row->size,
                                                 .rows = rows + i,
                                                 .n_rows = j - i};
        g->n_merged += j - i > 1;
        i = j;
    }
}

static void add_curves(struct group *g, const struct cell *cells, int n, struct arena *a)
{
    for (int i = 0; i < n && g->n_curves < MAX_K;) {
        int j = i + 1;
        while (j < n && cells[j].row->k == cells[i].row->k)
            j++;
        add_curve(g, cells + i, j - i, a);
        i = j;
    }
}

/* Cells with a finite value, quantized ones and baselines apart, each sorted. */
static void collect_cells(const struct frame *f, enum metric_id m, enum bits_id b, struct arena *a,
                          struct cells *quantized, struct cells *baselines, int *n_dropped)
{
    quantized->v = arena_array(a, (size_t)f->n + 1, sizeof(*quantized->v));
    baselines->v = arena_array(a, (size_t)f->n + 1, sizeof(*baselines->v));
    for (int i = 0; i < f->n; i++) {
        const struct frame_row *row = &f->rows[i];
        double value = row->metric[m];
        if (row->k == 16 && m == METRIC_KL) /* its divergence from itself is no measurement */
            continue;
        if (!isfinite(value) || !(row->total_bits[b] > 0)) {
            ++*n_dropped;
            continue;
        }
        struct cells *to = row->k < 16 ? quantized : baselines;
        to->v[to->n++] = (struct cell){.row = row,
                                       .index = i,
                                       .setting = setting_of(row, a),
                                       .log2_bits = log2(row->total_bits[b]),
                                       .value = value};
    }
    qsort(quantized->v, (size_t)quantized->n, sizeof(struct cell), compare_cell);
    qsort(baselines->v, (size_t)baselines->n, sizeof(struct cell), compare_cell);
}

static struct group make_group(const struct cell *cells, int n, const struct cells *baselines,
                               struct arena *a)
{
    struct group g = {.sweep = cells->row->sweep,
                      .family = cells->row->family,
                      .setting = cells->setting,
                      .curves = arena_array(a, MAX_K, sizeof(struct curve))};
    add_curves(&g, cells, n, a);
    int from = first_baseline(baselines, cells);
    int to = from;
    while (to < baselines->n && compare_family(&baselines->v[to], cells) == 0 &&
           strcmp(baselines->v[to].setting.compute, cells->setting.compute) == 0)
        to++;
    add_curves(&g, baselines->v + from, to - from, a);
    return g;
}

struct placed_group {
    struct group group;
    int first; /* row of the frame */
};

static int compare_first(const void *a, const void *b)
{
    return ((const struct placed_group *)a)->first - ((const struct placed_group *)b)->first;
}

struct group *groups_build(const struct frame *f, enum metric_id m, enum bits_id b, struct arena *a,
                           int *n_groups, int *n_dropped)
{
    struct cells quantized = {0};
    struct cells baselines = {0};
    *n_dropped = 0;
    collect_cells(f, m, b, a, &quantized, &baselines, n_dropped);
    struct placed_group *placed = arena_array(a, (size_t)quantized.n + 1, sizeof(*placed));
    int n = 0;
    for (int i = 0; i < quantized.n;) {
        int j = i;
        int first = quantized.v[i].index;
        for (; j < quantized.n && compare_group(&quantized.v[i], &quantized.v[j]) == 0; j++)
            first = quantized.v[j].index < first ? quantized.v[j].index : first;
        placed[n++] =
            (struct placed_group){make_group(&quantized.v[i], j - i, &baselines, a), first};
        i = j;
    }
    qsort(placed, (size_t)n, sizeof(*placed), compare_first);
    struct group *groups = arena_array(a, (size_t)n + 1, sizeof(*groups));
    for (int i = 0; i < n; i++)
        groups[i] = placed[i].group;
    *n_groups = n;
    return groups;
}

void group_set_values(struct group *g, const double *values)
{
    for (int c = 0; c < g->n_curves; c++)
        for (int p = 0; p < g->curves[c].n; p++) {
            struct curve_point *point = &g->curves[c].points[p];
            double sum = 0;
            for (int i = 0; i < point->n_rows; i++)
                sum += values[point->rows[i]];
            point->value = sum / point->n_rows;
        }
}
