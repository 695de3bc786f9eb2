/* Means, shares and ratios with their standard errors (evaluation spec, section 3). Pure. */
#ifndef ISOBIT_WORKER_EVAL_STATS_H
#define ISOBIT_WORKER_EVAL_STATS_H

#include <stdint.h>

struct estimate {
    double value;
    double stderr_; /* NaN with fewer than two observations */
};

/* Mean and s / sqrt(n), s the sample standard deviation (n - 1). */
struct estimate stats_mean(const double *x, int64_t n);
/* p = hits / n and sqrt(p (1 - p) / (n - 1)), which is the same for 0/1 values. */
struct estimate stats_share(int64_t hits, int64_t n);
/* r = sum num / sum den over independent observations (documents, windows); delta method:
 * sqrt(n / (n - 1) * sum (num_i - r den_i)^2) / sum den. */
struct estimate stats_ratio(const double *num, const double *den, int64_t n);
/* exp of an estimate: value e^v, standard error e^v * se (delta method). */
struct estimate stats_exp(struct estimate x);

/* Spearman's rank correlation; equal values share the mean of their ranks. NaN when a side is constant or n < 2. */
double stats_spearman(const double *x, const double *y, int64_t n);

#endif
