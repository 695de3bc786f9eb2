#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "analysis/figure.h"
#include "analysis/fit.h"
#include "analysis/pivot.h"

#define AT(x, y)                                                                                   \
    {                                                                                              \
        .log2_bits = (x), .value = (y)                                                             \
    }

static struct curve_point line_points[] = {AT(20, 4.0), AT(22, 3.0), AT(26, 1.0)};
static const struct curve line = {.k = 4, .points = line_points, .n = 3};

Test(fit, interpolation_is_linear_in_log2_bits_and_never_extrapolates)
{
    cr_expect_float_eq(curve_at(&line, 21), 3.5, 1e-12);
    cr_expect_float_eq(curve_at(&line, 22), 3.0, 1e-12);
    cr_expect_float_eq(curve_at(&line, 24), 2.0, 1e-12);
    cr_expect_float_eq(curve_at(&line, 20), 4.0, 1e-12);
    cr_expect_float_eq(curve_at(&line, 26), 1.0, 1e-12);
    cr_expect(isnan(curve_at(&line, 19.999)));
    cr_expect(isnan(curve_at(&line, 26.001)));
}

Test(fit, gap_of_parallel_curves_is_their_distance)
{
    struct curve_point shifted[] = {AT(19, 4.75), AT(27, 0.75)};
    struct curve other = {.k = 16, .points = shifted, .n = 2};
    struct curve_point straight[] = {AT(20, 4.0), AT(26, 1.0)};
    struct curve mine = {.k = 4, .points = straight, .n = 2};
    cr_expect_float_eq(curve_gap(&mine, &other), -0.25, 1e-12);
    struct curve_point far[] = {AT(30, 1), AT(31, 1)};
    struct curve apart = {.k = 8, .points = far, .n = 2};
    cr_expect(isnan(curve_gap(&mine, &apart)));
}

static struct frame_row row(const char *family, const char *size, int k, const char *dtype,
                            int64_t block, double bits, double nll)
{
    struct frame_row r = {.sweep = "s",
                          .family = family,
                          .size = size,
                          .k = k,
                          .dtype = k < 16 ? dtype : NULL,
                          .exponent_bits = k < 16 && strcmp(dtype, "float") == 0 ? (k + 1) / 2 : 0,
                          .block = block,
                          .center = "none",
                          .outlier_rule = "previous",
                          .compute = "fp32",
                          .n_params = bits / k};
    for (int b = 0; b < BITS_COUNT; b++)
        r.total_bits[b] = bits;
    for (int m = 0; m < METRIC_COUNT; m++)
        r.metric[m] = NAN;
    r.metric[METRIC_NLL] = nll;
    return r;
}

Test(fit, groups_share_the_baseline_and_find_the_best_width)
{
    struct frame_row rows[] = {
        row("a", "s0", 16, "", 0, 16e6, 3.0),           row("a", "s1", 16, "", 0, 64e6, 2.0),
        row("a", "s0", 4, "int", 64, 4e6, 3.1),         row("a", "s1", 4, "int", 64, 16e6, 2.1),
        row("a", "s0", 4, "float", 64, 4e6, 3.05),      row("a", "s1", 4, "float", 64, 16e6, 2.05),
        row("a", "s2", 4, "float", 64, 64e6, INFINITY),
    };
    struct frame f = {.rows = rows, .n = ARRAY_LEN(rows)};
    struct arena a = {0};
    int n = 0;
    int n_dropped = 0;
    struct group *g = groups_build(&f, METRIC_NLL, BITS_FULL, &a, &n, &n_dropped);
    cr_assert_eq(n, 2);
    cr_expect_eq(n_dropped, 1);
    cr_assert_eq(g[0].n_curves, 2);
    cr_expect_eq(g[0].curves[0].k, 4);
    cr_expect_eq(g[0].curves[1].k, 16);
    struct best b = best_at(&g[0], log2(16e6), false);
    cr_expect_eq(b.k, 4);
    cr_expect_float_eq(b.value, 2.1, 1e-12);
    cr_expect_eq(b.n_covering, 2);
    cr_expect_eq(best_at(&g[0], 1, false).k, 0);
    double budgets[3];
    cr_expect_not(budgets_of(&g[0], 3, budgets), "the two curves meet in one budget only");
    cr_expect_eq(main_group(g, n, "a"), &g[1], "float wins a tie");
    arena_release(&a);
}

Test(fit, sizes_with_equal_bits_are_averaged)
{
    struct frame_row rows[] = {row("a", "s0", 4, "int", 64, 4e6, 3.0),
                               row("a", "s0b", 4, "int", 64, 4e6, 3.2),
                               row("a", "s1", 4, "int", 64, 8e6, 2.0)};
    struct frame f = {.rows = rows, .n = ARRAY_LEN(rows)};
    struct arena a = {0};
    int n = 0;
    int n_dropped = 0;
    struct group *g = groups_build(&f, METRIC_NLL, BITS_FULL, &a, &n, &n_dropped);
    cr_assert_eq(g[0].curves[0].n, 2);
    cr_expect_float_eq(g[0].curves[0].points[0].value, 3.1, 1e-12);
    arena_release(&a);
}

Test(fit, a_float_with_other_exponent_bits_is_another_setting)
{
    struct frame_row rows[] = {row("a", "s0", 4, "float", 64, 4e6, 3.0),
                               row("a", "s0", 4, "float", 64, 4e6, 3.2)};
    rows[1].exponent_bits = 3;
    struct arena a = {0};
    struct setting s0 = setting_of(&rows[0], &a);
    struct setting s1 = setting_of(&rows[1], &a);
    cr_expect_not(setting_equal(&s0, &s1));
    cr_expect_str_eq(setting_label(&s1, &a), "float E3, block 64");
    cr_expect(setting_is_plain(&s0));
    cr_expect_not(setting_is_plain(&s1));
    arena_release(&a);
}

Test(pivot, models_by_rows_widths_by_columns_baseline_in_each_row)
{
    struct frame_row rows[] = {
        row("a", "s0", 16, "", 0, 16e6, 3.0), row("a", "s0", 3, "int", 64, 3e6, 4.0),
        row("a", "s0", 4, "int", 64, 4e6, 3.1), row("b", "s0", 16, "", 0, 16e6, 2.5)};
    struct frame f = {.rows = rows, .n = ARRAY_LEN(rows)};
    struct arena a = {0};
    struct pivot p = pivot_build(&f, METRIC_NLL, &a);
    cr_assert_eq(p.n_k, 3);
    cr_assert_eq(p.n_rows, 2);
    cr_expect_float_eq(p.rows[0].value[0], 4.0, 0);
    cr_expect_float_eq(p.rows[0].value[2], 3.0, 0);
    cr_expect(isnan(p.rows[1].value[0]));
    cr_expect_float_eq(p.rows[1].value[2], 2.5, 0);
    arena_release(&a);
}
