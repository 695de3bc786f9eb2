/* Scaling curves: linear interpolation of a metric over log2(total bits), one curve per bit width (paper section 4: bivariate power
 * laws fit badly; curves are nearly parallel). Never extrapolated. Pure. */
#ifndef ISOBIT_ANALYSIS_FIT_H
#define ISOBIT_ANALYSIS_FIT_H

#include "analysis/frame.h"

struct curve_point {
    double log2_bits;
    double value;
    double n_params;
    const char *size;
};

struct curve {
    int k;
    struct curve_point *points; /* ascending log2_bits, all different; finite values */
    int n;
};

/* All bit widths of one family in one setting, ascending k, the 16-bit baseline last. */
struct group {
    const char *sweep, *family;
    struct setting setting;
    struct curve *curves;
    int n_curves;
};

/* Values that are not finite are left out and counted in *n_dropped; sizes with equal bits are averaged. Order: as the frame's.
 * Everything is owned by `a`. */
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

const struct curve *group_curve(const struct group *g, int k); /* NULL: none */

#endif
