#include <criterion/criterion.h>
#include <math.h>

#include "analysis/fit.h"
#include "analysis/stat.h"
#include "base/json.h"
#include "tests/support/support.h"

enum { MAX_VALUES = 512 };

static json_t *golden(const char *list)
{
    json_t *doc = NULL;
    struct err e;
    cr_assert_eq(json_read(support_source("tests/golden/stats/values.json"), 1 << 20, &doc, &e),
                 ERR_OK, "%s", e.text);
    json_t *wanted = json_incref(json_object_get(doc, list));
    json_decref(doc);
    cr_assert_gt(json_array_size(wanted), 0, "%s", list);
    return wanted;
}

static int numbers(const json_t *o, const char *key, double *out)
{
    const json_t *list = json_object_get(o, key);
    size_t n = json_array_size(list);
    cr_assert_leq(n, MAX_VALUES);
    for (size_t i = 0; i < n; i++)
        out[i] = json_number_value(json_array_get(list, i));
    return (int)n;
}

static double number(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    cr_assert(json_is_number(v), "%s", key);
    return json_number_value(v);
}

static void expect_near(double mine, double theirs, const char *what, size_t i)
{
    cr_expect_leq(fabs(mine - theirs), 1e-9 * fmax(1, fabs(theirs)), "%s %zu: %.17g, SciPy %.17g",
                  what, i, mine, theirs);
}

Test(stat, correlations_are_scipys_with_and_without_ties)
{
    json_t *pairs = golden("pairs");
    size_t i;
    json_t *c;
    json_array_foreach(pairs, i, c)
    {
        double x[MAX_VALUES], y[MAX_VALUES], ranks[MAX_VALUES], want[MAX_VALUES];
        int n = numbers(c, "x", x);
        cr_assert_eq(numbers(c, "y", y), n);
        expect_near(stat_pearson(x, y, n), number(c, "pearson"), "pearson", i);
        expect_near(stat_spearman(x, y, n), number(c, "spearman"), "spearman", i);
        expect_near(stat_kendall(x, y, n), number(c, "kendall"), "kendall", i);
        numbers(c, "ranks", want);
        stat_ranks(x, n, ranks);
        for (int r = 0; r < n; r++)
            expect_near(ranks[r], want[r], "rank", i);
    }
    json_decref(pairs);
}

Test(stat, friedman_and_its_p_value_are_scipys)
{
    json_t *blocks = golden("blocks");
    size_t i;
    json_t *c;
    json_array_foreach(blocks, i, c)
    {
        const json_t *rows = json_object_get(c, "v");
        double v[MAX_VALUES], mean_rank[MAX_VALUES], want[MAX_VALUES];
        int n = 0;
        int n_columns = (int)json_array_size(json_array_get(rows, 0));
        for (size_t r = 0; r < json_array_size(rows); r++)
            for (int k = 0; k < n_columns; k++)
                v[n++] = json_number_value(json_array_get(json_array_get(rows, r), (size_t)k));
        struct friedman f = stat_friedman(v, (int)json_array_size(rows), n_columns, mean_rank);
        expect_near(f.statistic, number(c, "statistic"), "friedman", i);
        expect_near(f.p, number(c, "p"), "p", i);
        numbers(c, "mean_rank", want);
        for (int k = 0; k < n_columns; k++)
            expect_near(mean_rank[k], want[k], "mean rank", i);
    }
    json_decref(blocks);
}

Test(stat, tails_of_chi_square_are_scipys)
{
    json_t *list = golden("chi2");
    size_t i;
    json_t *c;
    json_array_foreach(list, i, c)
    {
        double want = number(c, "above");
        double mine = stat_chi2_above(number(c, "x"), (int)number(c, "df"));
        cr_expect_leq(fabs(mine / want - 1), 1e-9, "x %g, df %g: %.17g, SciPy %.17g",
                      number(c, "x"), number(c, "df"), mine, want);
    }
    json_decref(list);
}

Test(stat, interpolation_is_numpys)
{
    json_t *lines = golden("lines");
    size_t i;
    json_t *c;
    json_array_foreach(lines, i, c)
    {
        double x[MAX_VALUES], y[MAX_VALUES], at[MAX_VALUES], want[MAX_VALUES];
        struct curve_point points[MAX_VALUES] = {0};
        int n = numbers(c, "x", x);
        numbers(c, "y", y);
        for (int p = 0; p < n; p++)
            points[p] = (struct curve_point){.log2_bits = x[p], .value = y[p]};
        struct curve curve = {.k = 4, .points = points, .n = n};
        int n_at = numbers(c, "at", at);
        numbers(c, "value", want);
        for (int p = 0; p < n_at; p++)
            expect_near(curve_at(&curve, at[p]), want[p], "line", i);
    }
    json_decref(lines);
}

Test(stat, without_spread_there_is_no_correlation)
{
    const double flat[] = {2, 2, 2}, rising[] = {1, 2, 3};
    cr_expect(isnan(stat_pearson(flat, rising, 3)));
    cr_expect(isnan(stat_spearman(rising, flat, 3)));
    cr_expect(isnan(stat_kendall(flat, rising, 3)));
    cr_expect(isnan(stat_pearson(rising, rising, 1)));
    cr_expect(isnan(stat_spearman(rising, rising, 0)));
    double mean_rank[3];
    const double ties[] = {1, 1, 1, 1, 1, 1};
    cr_expect(isnan(stat_friedman(ties, 2, 3, mean_rank).p), "every block is one tie");
    cr_expect(isnan(stat_friedman(rising, 1, 3, mean_rank).p), "one block");
    cr_expect(isnan(stat_friedman(rising, 0, 3, mean_rank).p), "no block");
    cr_expect_float_eq(stat_chi2_above(0, 3), 1, 0);
}
