/* Scaling curves: linear interpolation of a metric over log2(total bits), one curve per bit width (paper section 4: bivariate power
 * laws fit badly; curves are nearly parallel). Never extrapolated. Pure. */
#ifndef ISOBIT_ANALYSIS_FIT_H
#define ISOBIT_ANALYSIS_FIT_H

#include "analysis/frame.h"

enum { GAP_BUDGETS = 64 };

struct curve_point {
    double log2_bits;
    double value;
    double n_params;
    const char *size;
    const int
        *rows; /* rows of the frame behind it, more than one where checkpoints have equal bits */
    int n_rows;
};

struct curve {
    int k, n;
    struct curve_point *points; /* [n], ascending log2_bits, all different; finite values */
};

/* All bit widths of one family in one setting, ascending k, the 16-bit baseline last. */
struct group {
    const char *sweep, *family;
    struct setting setting;
    struct curve *curves;
    int n_curves;
    int n_merged; /* points that stand for several checkpoints of equal bits, as their mean */
};

/* Values that are not finite are left out and counted in *n_dropped. Order: as the frame's. Everything is owned by `a`. Time:
 * n log n in the rows. */
struct group *groups_build(const struct frame *f, enum metric_id m, enum bits_id b, struct arena *a,
                           int *n_groups, int *n_dropped);

/* Interpolated value at x = log2(bits); NaN outside the curve's support. */
double curve_at(const struct curve *c, double x);

struct best {
    double log2_bits;
    int k; /* 0: no curve covers this budget */
    double value;
    int n_covering; /* curves that cover the budget; an optimum among one is no finding */
};
/* At x = log2(bits). */
struct best best_at(const struct group *g, double x, bool is_larger_better);

/* n budgets, evenly spaced in log2 over the part of the axis that at least two curves cover; false when there is none. */
bool budgets_of(const struct group *g, int n, double *log2_bits);

/* Mean over 64 budgets of the common support of curve x minus curve y (paper.md section 2: G); NaN without common support. */
double curve_gap(const struct curve *x, const struct curve *y);
/* These budgets, as log2(bits); false without common support. */
bool gap_budgets(const struct curve *x, const struct curve *y, double log2_bits[GAP_BUDGETS]);

const struct curve *group_curve(const struct group *g, int k); /* NULL: none */

/* Gives the points of `g` new values, by row of the frame: a resample, or the frame's own column again. */
void group_set_values(struct group *g, const double *values);

/* ---- numbers that are linear in the values of rows ----
 * Interpolation, G and offsets are: their weights are found once, and a resample costs one sum of products. */
struct linear {
    int n; /* 0: there is no such number (no common support) */
    const int *rows;
    const double *weights;
};
/* Sum of weights[i] * values[rows[i]]; NaN for n == 0. */
double linear_at(const struct linear *l, const double *values);
struct linear linear_value(const struct curve *c, double x, struct arena *a);
struct linear linear_gap(const struct curve *x, const struct curve *y, struct arena *a);
/* From weights on the points of each curve. */
struct linear linear_of(const struct curve *const *curves, const double *const *weights, int n,
                        struct arena *a);
/* Adds w times the value of c at x to the weights of its points; x lies inside the curve's support. */
void linear_add_value(const struct curve *c, double x, double w, double *weights);
/* x - y; empty when either is. */
struct linear linear_difference(const struct linear *x, const struct linear *y, struct arena *a);

/* ---- base curve plus an offset per bit width (paper section 4) ----
 * Least squares of value(k, x) = f(x) + offset(k) over GAP_BUDGETS budgets x that at least two of the curves cover, f free at each
 * of them; curves are taken as interpolated. Offsets are relative to the widest curve of the fit. */
struct offset_fit {
    int n_curves;                   /* 0: no fit (fewer than two curves that overlap) */
    const int *k;                   /* ascending */
    const double *offset;           /* of each; the last is 0 */
    const struct linear *as_linear; /* the offsets as functionals of row values */
    const double
        *slope_off;  /* how much steeper the curve is than f + offset, as a share of f's slope */
    double residual; /* root mean square */
    double slope;    /* of f, per doubling of bits */
    double slope_spread; /* root mean square of slope_off */
    int n_budgets;
    const double *log2_bits; /* budgets */
    const double *base;      /* f at each, at the level of the widest curve */
};
/* Curves with from_k <= k only. Owned by `a`. */
struct offset_fit offset_fit(const struct group *g, int from_k, struct arena *a);

/* ---- a bivariate power law for comparison: log value = c + a log(parameters) + b log k ----
 * Positive metrics only. Leave-one-size-out: each size in turn is predicted from the others, by the law and by base curve plus
 * offset (where the others' curves cover its bits; never extrapolated), and the errors are compared on the same points. */
struct law_fit {
    bool is_fitted;
    double c, a, b;
    double residual;               /* root mean square, in the metric's unit */
    int n_held_out;                /* points that both could predict; 0: too few sizes */
    double law_error, curve_error; /* root mean square over these; NaN when there are none */
};
struct law_fit law_fit(const struct group *g, int from_k, struct arena *a);

#endif
