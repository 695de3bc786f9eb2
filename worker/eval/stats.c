#include "worker/eval/stats.h"

#include <math.h>

struct estimate stats_mean(const double *x, int64_t n)
{
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < n; i++)
        sum += x[i];
    double mean = sum / (double)n;
    for (int64_t i = 0; i < n; i++)
        squares += (x[i] - mean) * (x[i] - mean);
    double se = n > 1 ? sqrt(squares / ((double)(n - 1) * (double)n)) : NAN;
    return (struct estimate){mean, se};
}

struct estimate stats_share(int64_t hits, int64_t n)
{
    double p = (double)hits / (double)n;
    return (struct estimate){p, n > 1 ? sqrt(p * (1 - p) / (double)(n - 1)) : NAN};
}

struct estimate stats_ratio(const double *num, const double *den, int64_t n)
{
    double sum_num = 0, sum_den = 0, squares = 0;
    for (int64_t i = 0; i < n; i++) {
        sum_num += num[i];
        sum_den += den[i];
    }
    double r = sum_num / sum_den;
    for (int64_t i = 0; i < n; i++)
        squares += (num[i] - r * den[i]) * (num[i] - r * den[i]);
    double se = n > 1 ? sqrt((double)n / (double)(n - 1) * squares) / sum_den : NAN;
    return (struct estimate){r, se};
}

struct estimate stats_exp(struct estimate x)
{
    double v = exp(x.value);
    return (struct estimate){v, v * x.stderr_};
}
