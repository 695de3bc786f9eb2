#include "analysis/stat.h"

#include <math.h>
#include <stdlib.h>

#include "base/mem.h"

double stat_pearson(const double *x, const double *y, int n)
{
    double mean_x = 0, mean_y = 0;
    for (int i = 0; i < n; i++) {
        mean_x += x[i] / n;
        mean_y += y[i] / n;
    }
    double xx = 0, yy = 0, xy = 0;
    for (int i = 0; i < n; i++) {
        xx += (x[i] - mean_x) * (x[i] - mean_x);
        yy += (y[i] - mean_y) * (y[i] - mean_y);
        xy += (x[i] - mean_x) * (y[i] - mean_y);
    }
    return xx > 0 && yy > 0 ? xy / sqrt(xx) / sqrt(yy) : NAN;
}

struct place {
    double value;
    int at;
};

static int compare_place(const void *a, const void *b)
{
    double x = ((const struct place *)a)->value;
    double y = ((const struct place *)b)->value;
    return (x > y) - (x < y);
}

void stat_ranks(const double *v, int n, double *out)
{
    struct place *places = xcalloc((size_t)n + 1, sizeof(*places));
    for (int i = 0; i < n; i++)
        places[i] = (struct place){v[i], i};
    qsort(places, (size_t)n, sizeof(*places), compare_place);
    for (int i = 0; i < n;) {
        int end = i;
        while (end < n && places[end].value == places[i].value)
            end++;
        double rank = (i + 1 + end) / 2.0; /* mean of the ranks i + 1 to end */
        while (i < end)
            out[places[i++].at] = rank;
    }
    xfree(places);
}

double stat_spearman(const double *x, const double *y, int n)
{
    double *ranks = xcalloc((size_t)n * 2 + 1, sizeof(*ranks));
    stat_ranks(x, n, ranks);
    stat_ranks(y, n, ranks + n);
    double r = stat_pearson(ranks, ranks + n, n);
    xfree(ranks);
    return r;
}

static int sign_of(double v)
{
    return (v > 0) - (v < 0);
}

double stat_kendall(const double *x, const double *y, int n)
{
    double agree = 0, pairs_x = 0, pairs_y = 0; /* pairs that are no tie in x, in y */
    for (int i = 0; i < n; i++)
        for (int j = 0; j < i; j++) {
            int dx = sign_of(x[i] - x[j]);
            int dy = sign_of(y[i] - y[j]);
            agree += dx * dy;
            pairs_x += dx != 0;
            pairs_y += dy != 0;
        }
    return pairs_x > 0 && pairs_y > 0 ? agree / sqrt(pairs_x) / sqrt(pairs_y) : NAN;
}

/* With df degrees of freedom the tail is a finite sum: terms x^i / (1 3 5 ... or 2 4 6 ...), times a normal tail or e^(-x/2). */
double stat_chi2_above(double x, int df)
{
    if (!(x > 0))
        return isnan(x) ? NAN : 1;
    double half = exp(-x / 2);
    double sum = df % 2 == 0 ? half : erfc(sqrt(x / 2));
    double term = df % 2 == 0 ? half : half * sqrt(2 / (M_PI * x));
    for (int i = df % 2 == 0 ? 2 : 1; i < df; i += 2) {
        term *= x / i;
        sum += term;
    }
    return sum;
}

/* Ties within a block take variance away; the statistic is divided by what is left. */
static double tie_correction(const double *ranks, int n)
{
    double lost = 0;
    for (int i = 0; i < n; i++) {
        double same = 0;
        for (int j = 0; j < n; j++)
            same += ranks[j] == ranks[i];
        lost += same * same - 1; /* summed over a group of t ties: t (t^2 - 1) */
    }
    return lost;
}

struct friedman stat_friedman(const double *v, int n_blocks, int n_columns, double *mean_rank)
{
    double *ranks = xcalloc((size_t)n_columns + 1, sizeof(*ranks));
    double lost = 0;
    for (int c = 0; c < n_columns; c++)
        mean_rank[c] = n_blocks > 0 ? 0 : NAN;
    for (int b = 0; b < n_blocks; b++) {
        stat_ranks(v + (size_t)b * (size_t)n_columns, n_columns, ranks);
        for (int c = 0; c < n_columns; c++)
            mean_rank[c] += ranks[c] / n_blocks;
        lost += tie_correction(ranks, n_columns);
    }
    xfree(ranks);
    struct friedman none = {NAN, NAN};
    double k = n_columns, n = n_blocks;
    double left = 1 - lost / (k * (k * k - 1) * n);
    if (n_blocks < 2 || n_columns < 3 || !(left > 0))
        return none;
    double sum = 0;
    for (int c = 0; c < n_columns; c++)
        sum += (mean_rank[c] - (k + 1) / 2) * (mean_rank[c] - (k + 1) / 2);
    double statistic = 12 * n / (k * (k + 1)) * sum / left;
    return (struct friedman){statistic, stat_chi2_above(statistic, n_columns - 1)};
}
