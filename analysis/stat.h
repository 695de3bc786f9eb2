/* Correlations and rank tests, as SciPy defines them (tests/golden/stats). Inputs are finite; ties share their mean rank. Pure. */
#ifndef ISOBIT_ANALYSIS_STAT_H
#define ISOBIT_ANALYSIS_STAT_H

/* NaN for n < 2 or a side without spread. */
double stat_pearson(const double *x, const double *y, int n);
double stat_spearman(const double *x, const double *y, int n);
/* Tau-b (Kendall 1945). Looks at every pair: for the handful of bit widths, not for the rows of a sweep. */
double stat_kendall(const double *x, const double *y, int n);

/* Ranks from 1, ascending, into out[n]. */
void stat_ranks(const double *v, int n, double *out);

/* Friedman's test: do the columns of v[n_blocks][n_columns] differ within blocks? Fills mean_rank[n_columns] (1: smallest). */
struct friedman {
    double statistic,
        p; /* NaN for fewer than 2 blocks or 3 columns, or when every block is one tie */
};
struct friedman stat_friedman(const double *v, int n_blocks, int n_columns, double *mean_rank);

/* P(X > x) for chi-square with `df` degrees of freedom, df >= 1. */
double stat_chi2_above(double x, int df);

#endif
