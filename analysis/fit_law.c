/* Laws fitted to a group of curves (fit.h): a base curve plus an offset per bit width, and a bivariate power law. */
#include <math.h>
#include <string.h>

#include "analysis/fit.h"

enum { MAX_UNKNOWNS = 33 };

/* Weights as stored (32 bit) are for comparison with other software, not a bit width of the study. */
static bool is_in_law(const struct curve *c, int from_k)
{
    return c->k >= from_k && c->k <= 16;
}

/* ---- symmetric positive definite systems ---- */

/* Cholesky factor L of a[n][n] in its lower triangle (row stride MAX_UNKNOWNS); false when it has none. */
static bool factor(double a[][MAX_UNKNOWNS], int n)
{
    for (int i = 0; i < n; i++)
        for (int j = 0; j <= i; j++) {
            double sum = a[i][j];
            for (int k = 0; k < j; k++)
                sum -= a[i][k] * a[j][k];
            if (i == j && !(sum > 1e-10))
                return false;
            a[i][j] = i == j ? sqrt(sum) : sum / a[j][j];
        }
    return true;
}

/* x = a^-1 x with a's factor. */
static void solve(double l[][MAX_UNKNOWNS], int n, double *x)
{
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < i; k++)
            x[i] -= l[i][k] * x[k];
        x[i] /= l[i][i];
    }
    for (int i = n - 1; i >= 0; i--) {
        for (int k = i + 1; k < n; k++)
            x[i] -= l[k][i] * x[k];
        x[i] /= l[i][i];
    }
}

/* ---- base curve plus offsets ---- */

/* The curves of a fit and the budgets where at least two of them are known. */
struct overlap {
    const struct curve *curves[MAX_UNKNOWNS];
    int n;
    double at[GAP_BUDGETS];
    int n_at;
    bool covers[GAP_BUDGETS][MAX_UNKNOWNS];
    int n_covering[GAP_BUDGETS];
};

static void find_coverage(struct overlap *o)
{
    int n = 0;
    for (int i = 0; i < o->n_at; i++) {
        o->at[n] = o->at[i];
        o->n_covering[n] = 0;
        for (int c = 0; c < o->n; c++) {
            o->covers[n][c] = !isnan(curve_at(o->curves[c], o->at[n]));
            o->n_covering[n] += o->covers[n][c];
        }
        n += o->n_covering[n] >= 2;
    }
    o->n_at = n;
}

/* Offsets of curves that no chain of common budgets connects to the widest cannot be known: such curves are left out. */
static void drop_unconnected(struct overlap *o)
{
    bool is_reached[MAX_UNKNOWNS] = {false};
    is_reached[o->n - 1] = true;
    bool is_growing = true;
    while (is_growing) {
        is_growing = false;
        for (int i = 0; i < o->n_at; i++)
            for (int c = 0; c < o->n; c++)
                for (int d = 0; d < o->n; d++)
                    if (o->covers[i][c] && is_reached[c] && o->covers[i][d] && !is_reached[d])
                        is_growing = is_reached[d] = true;
    }
    int n = 0;
    for (int c = 0; c < o->n; c++)
        if (is_reached[c])
            o->curves[n++] = o->curves[c];
    o->n = n;
    find_coverage(o);
}

static struct overlap overlap_of(const struct group *g, int from_k)
{
    struct overlap o = {0};
    struct group kept = *g;
    struct curve curves[MAX_UNKNOWNS];
    kept.curves = curves;
    kept.n_curves = 0;
    for (int i = 0; i < g->n_curves && kept.n_curves < MAX_UNKNOWNS; i++)
        if (is_in_law(&g->curves[i], from_k) && g->curves[i].n >= 2) {
            o.curves[kept.n_curves] = &g->curves[i];
            curves[kept.n_curves++] = g->curves[i];
        }
    o.n = kept.n_curves;
    if (o.n < 2 || !budgets_of(&kept, GAP_BUDGETS, o.at))
        return (struct overlap){0};
    o.n_at = GAP_BUDGETS;
    find_coverage(&o);
    drop_unconnected(&o);
    return o;
}

/* Normal equations with f eliminated: for each budget, deviations from the mean of the curves that cover it. The last offset is 0. */
static void add_equations(const struct overlap *o, double a[][MAX_UNKNOWNS])
{
    for (int i = 0; i < o->n_at; i++)
        for (int c = 0; c < o->n; c++)
            for (int d = 0; o->covers[i][c] && d < o->n; d++)
                if (o->covers[i][d])
                    a[c][d] += (c == d) - 1.0 / o->n_covering[i];
}

/* weights[d]: how the right-hand side of curve c weighs the points of curve d. */
static void weigh_right_side(const struct overlap *o, int c, double w, double *const *weights)
{
    for (int i = 0; i < o->n_at; i++)
        for (int d = 0; o->covers[i][c] && d < o->n; d++)
            if (o->covers[i][d])
                linear_add_value(o->curves[d], o->at[i], w * ((c == d) - 1.0 / o->n_covering[i]),
                                 weights[d]);
}

static double apply(const struct overlap *o, double *const *weights)
{
    double sum = 0;
    for (int c = 0; c < o->n; c++)
        for (int p = 0; p < o->curves[c]->n; p++)
            sum += weights[c][p] * o->curves[c]->points[p].value;
    return sum;
}

static void find_offsets(const struct overlap *o, double l[][MAX_UNKNOWNS], double *offset,
                         struct linear *as_linear, struct arena *a)
{
    double *weights[MAX_UNKNOWNS];
    for (int c = 0; c < o->n - 1; c++) {
        double row[MAX_UNKNOWNS] = {0}; /* of the inverse, which is symmetric */
        row[c] = 1;
        solve(l, o->n - 1, row);
        for (int d = 0; d < o->n; d++)
            weights[d] = arena_array(a, (size_t)o->curves[d]->n, sizeof(double));
        for (int d = 0; d < o->n - 1; d++)
            weigh_right_side(o, d, row[d], weights);
        offset[c] = apply(o, weights);
        as_linear[c] = linear_of(o->curves, (const double *const *)weights, o->n, a);
    }
}

static double base_at(const struct overlap *o, const double *offset, double x)
{
    double sum = 0;
    int n = 0;
    for (int c = 0; c < o->n; c++) {
        double v = curve_at(o->curves[c], x);
        if (!isnan(v)) {
            sum += v - offset[c];
            n++;
        }
    }
    return n > 0 ? sum / n : NAN;
}

/* Slope of the least-squares line through (x, y) where is_in; NaN without two different x. */
static double line_slope(const double *x, const double *y, const bool *is_in, int n)
{
    double mx = 0, my = 0, xx = 0, xy = 0;
    int m = 0;
    for (int i = 0; i < n; i++)
        if (is_in[i]) {
            mx += x[i];
            my += y[i];
            m++;
        }
    for (int i = 0; i < n; i++)
        if (is_in[i]) {
            xx += (x[i] - mx / m) * (x[i] - mx / m);
            xy += (x[i] - mx / m) * (y[i] - my / m);
        }
    return xx > 0 ? xy / xx : NAN;
}

static void judge_fit(const struct overlap *o, const double *offset, double *slope_off,
                      struct offset_fit *out)
{
    bool is_in[GAP_BUDGETS];
    double off[GAP_BUDGETS];
    double squares = 0, slopes = 0;
    int n = 0;
    memset(is_in, true, sizeof(is_in));
    out->slope = line_slope(o->at, out->base, is_in, o->n_at);
    for (int c = 0; c < o->n; c++) {
        for (int i = 0; i < o->n_at; i++) {
            is_in[i] = o->covers[i][c];
            off[i] = is_in[i] ? curve_at(o->curves[c], o->at[i]) - out->base[i] - offset[c] : 0;
            squares += off[i] * off[i];
            n += is_in[i];
        }
        slope_off[c] = line_slope(o->at, off, is_in, o->n_at) / out->slope;
        slopes += slope_off[c] * slope_off[c];
    }
    out->residual = sqrt(squares / n);
    out->slope_spread = sqrt(slopes / o->n);
}

struct offset_fit offset_fit(const struct group *g, int from_k, struct arena *a)
{
    struct overlap o = overlap_of(g, from_k);
    double l[MAX_UNKNOWNS][MAX_UNKNOWNS] = {{0}};
    add_equations(&o, l);
    if (o.n < 2 || !factor(l, o.n - 1))
        return (struct offset_fit){0};
    size_t n = (size_t)o.n;
    int *k = arena_array(a, n, sizeof(*k));
    double *offset = arena_array(a, n, sizeof(*offset));
    double *slope_off = arena_array(a, n, sizeof(*slope_off));
    struct linear *as_linear = arena_array(a, n, sizeof(*as_linear));
    double *at = arena_array(a, GAP_BUDGETS, sizeof(*at));
    double *base = arena_array(a, GAP_BUDGETS, sizeof(*base));
    for (int c = 0; c < o.n; c++)
        k[c] = o.curves[c]->k;
    find_offsets(&o, l, offset, as_linear, a);
    for (int i = 0; i < o.n_at; i++) {
        at[i] = o.at[i];
        base[i] = base_at(&o, offset, at[i]);
    }
    struct offset_fit fit = {.n_curves = o.n,
                             .k = k,
                             .offset = offset,
                             .as_linear = as_linear,
                             .slope_off = slope_off,
                             .n_budgets = o.n_at,
                             .log2_bits = at,
                             .base = base};
    judge_fit(&o, offset, slope_off, &fit);
    return fit;
}

/* ---- the bivariate power law ---- */

/* log value = c + a log n + b log k by least squares; false when sizes or widths do not differ, or a value is not positive. */
static bool fit_law(const struct group *g, int from_k, struct law_fit *out)
{
    double a[3][MAX_UNKNOWNS] = {{0}};
    double x[MAX_UNKNOWNS] = {0};
    double origin = NAN; /* of log n: keeps the system well conditioned */
    for (int c = 0; c < g->n_curves; c++)
        for (int p = 0; is_in_law(&g->curves[c], from_k) && p < g->curves[c].n; p++) {
            const struct curve_point *point = &g->curves[c].points[p];
            if (!(point->value > 0) || !(point->n_params > 0))
                return false;
            if (isnan(origin))
                origin = log(point->n_params);
            double row[] = {1, log(point->n_params) - origin, log(g->curves[c].k) - log(4)};
            for (int i = 0; i < 3; i++) {
                x[i] += row[i] * log(point->value);
                for (int j = 0; j < 3; j++)
                    a[i][j] += row[i] * row[j];
            }
        }
    if (!factor(a, 3))
        return false;
    solve(a, 3, x);
    out->a = x[1];
    out->b = x[2];
    out->c = x[0] - x[1] * origin - x[2] * log(4);
    return true;
}

static double law_at(const struct law_fit *law, int k, double n_params)
{
    return exp(law->c + law->a * log(n_params) + law->b * log(k));
}

static double law_residual(const struct group *g, int from_k, const struct law_fit *law)
{
    double squares = 0;
    int n = 0;
    for (int c = 0; c < g->n_curves; c++)
        for (int p = 0; is_in_law(&g->curves[c], from_k) && p < g->curves[c].n; p++, n++) {
            const struct curve_point *point = &g->curves[c].points[p];
            double off = law_at(law, g->curves[c].k, point->n_params) - point->value;
            squares += off * off;
        }
    return sqrt(squares / n);
}

/* The group without one size. */
static struct group without_size(const struct group *g, double n_params, struct arena *a)
{
    struct group out = *g;
    out.curves = arena_array(a, (size_t)g->n_curves + 1, sizeof(*out.curves));
    for (int c = 0; c < g->n_curves; c++) {
        const struct curve *from = &g->curves[c];
        struct curve *to = &out.curves[c];
        to->k = from->k;
        to->points = arena_array(a, (size_t)from->n + 1, sizeof(*to->points));
        for (int p = 0; p < from->n; p++)
            if (from->points[p].n_params != n_params)
                to->points[to->n++] = from->points[p];
    }
    return out;
}

struct held_out {
    int n;
    double law, curve; /* sums of squared errors */
};

static void hold_out(const struct group *g, int from_k, double n_params, struct held_out *sum)
{
    struct arena a = {0};
    struct group rest = without_size(g, n_params, &a);
    struct law_fit law = {0};
    struct overlap o = overlap_of(&rest, from_k);
    struct offset_fit fit = offset_fit(&rest, from_k, &a);
    bool is_fitted = fit.n_curves > 0 && fit_law(&rest, from_k, &law);
    for (int c = 0; is_fitted && c < g->n_curves; c++)
        for (int p = 0; p < g->curves[c].n; p++) {
            const struct curve_point *point = &g->curves[c].points[p];
            double offset = NAN;
            for (int i = 0; i < fit.n_curves; i++)
                offset = fit.k[i] == g->curves[c].k ? fit.offset[i] : offset;
            double curve = base_at(&o, fit.offset, point->log2_bits) + offset - point->value;
            if (point->n_params != n_params || isnan(curve))
                continue;
            double by_law = law_at(&law, g->curves[c].k, n_params) - point->value;
            sum->law += by_law * by_law;
            sum->curve += curve * curve;
            sum->n++;
        }
    arena_release(&a);
}

struct law_fit law_fit(const struct group *g, int from_k, struct arena *a)
{
    struct law_fit out = {.law_error = NAN, .curve_error = NAN};
    out.is_fitted = fit_law(g, from_k, &out);
    if (!out.is_fitted)
        return out;
    out.residual = law_residual(g, from_k, &out);
    int n_points = 0;
    for (int c = 0; c < g->n_curves; c++)
        n_points += g->curves[c].n;
    double *sizes = arena_array(a, (size_t)n_points + 1, sizeof(*sizes));
    int n_sizes = 0;
    struct held_out sum = {0};
    for (int c = 0; c < g->n_curves; c++)
        for (int p = 0; is_in_law(&g->curves[c], from_k) && p < g->curves[c].n; p++) {
            double n_params = g->curves[c].points[p].n_params;
            bool is_known = false;
            for (int i = 0; i < n_sizes; i++)
                is_known = is_known || sizes[i] == n_params;
            if (is_known)
                continue;
            sizes[n_sizes++] = n_params;
            hold_out(g, from_k, n_params, &sum);
        }
    out.n_held_out = sum.n;
    if (sum.n > 0) {
        out.law_error = sqrt(sum.law / sum.n);
        out.curve_error = sqrt(sum.curve / sum.n);
    }
    return out;
}
