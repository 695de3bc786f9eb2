#include "worker/eval/stats.h"

#include <math.h>
#include <stdlib.h>

#include "base/mem.h"

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

struct place {
    double value;
    int64_t at;
};

static int compare_places(const void *pa, const void *pb)
{
    const struct place *a = pa, *b = pb;
    if (a->value != b->value)
        return a->value < b->value ? -1 : 1;
    return (a->at > b->at) - (a->at < b->at);
}

/* Twice the ranks from 0, so that the mean of two is an integer; equal values get the mean of theirs. */
static void fill_ranks(const double *x, int64_t n, struct place *places, double *rank)
{
    for (int64_t i = 0; i < n; i++)
        places[i] = (struct place){x[i], i};
    qsort(places, (size_t)n, sizeof(*places), compare_places);
    for (int64_t i = 0, end; i < n; i = end) {
        for (end = i + 1; end < n && places[end].value == places[i].value;)
            end++;
        for (int64_t j = i; j < end; j++)
            rank[places[j].at] = (double)(i + end - 1);
    }
}

double stats_spearman(const double *x, const double *y, int64_t n)
{
    struct place *places = xcalloc((size_t)n, sizeof(*places));
    double *rx = xcalloc((size_t)n, sizeof(*rx)), *ry = xcalloc((size_t)n, sizeof(*ry));
    fill_ranks(x, n, places, rx);
    fill_ranks(y, n, places, ry);
    const double mean = (double)(n - 1);
    double xy = 0, xx = 0, yy = 0;
    for (int64_t i = 0; i < n; i++) {
        xy += (rx[i] - mean) * (ry[i] - mean);
        xx += (rx[i] - mean) * (rx[i] - mean);
        yy += (ry[i] - mean) * (ry[i] - mean);
    }
    xfree(places);
    xfree(rx);
    xfree(ry);
    return xx > 0 && yy > 0 ? xy / sqrt(xx * yy) : NAN;
}
