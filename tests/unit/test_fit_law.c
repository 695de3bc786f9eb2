/* Base curve plus offsets, the power law and gaps against NumPy (tests/golden/fits), and what they do without enough data. */
#include <criterion/criterion.h>
#include <math.h>

#include "analysis/fit.h"
#include "base/json.h"
#include "tests/support/support.h"

static struct arena arena;

static json_t *golden(const char *list)
{
    json_t *doc = NULL;
    struct err e;
    cr_assert_eq(json_read(support_source("tests/golden/fits/values.json"), 4 << 20, &doc, &e),
                 ERR_OK, "%s", e.text);
    json_t *wanted = json_incref(json_object_get(doc, list));
    json_decref(doc);
    cr_assert_gt(json_array_size(wanted), 0, "%s", list);
    return wanted;
}

static double item(const json_t *o, const char *key, size_t i)
{
    const json_t *v = json_array_get(json_object_get(o, key), i);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

static double member(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

static void expect_near(double mine, double theirs, const char *what, size_t group, size_t i)
{
    cr_expect(isnan(mine) ? isnan(theirs) : fabs(mine - theirs) <= 1e-9 * fmax(1, fabs(theirs)),
              "%s, group %zu, %zu: %.17g, NumPy %.17g", what, group, i, mine, theirs);
}

/* Row r of the frame is the r-th point of the group, so that linear_at over `values` must give what the curves give. */
static struct group group_of(const json_t *json, double *values)
{
    const json_t *list = json_object_get(json, "curves");
    struct group g = {.curves = arena_array(&arena, json_array_size(list), sizeof(struct curve))};
    int row = 0;
    size_t i;
    json_t *c;
    json_array_foreach(list, i, c)
    {
        size_t n = json_array_size(json_object_get(c, "x"));
        struct curve_point *points = arena_array(&arena, n, sizeof(*points));
        int *rows = arena_array(&arena, n, sizeof(*rows));
        for (size_t p = 0; p < n; p++) {
            rows[p] = row;
            points[p] = (struct curve_point){.log2_bits = item(c, "x", p),
                                             .value = item(c, "y", p),
                                             .n_params = item(c, "n", p),
                                             .rows = &rows[p],
                                             .n_rows = 1};
            values[row++] = points[p].value;
        }
        g.curves[g.n_curves++] =
            (struct curve){.k = (int)member(c, "k"), .points = points, .n = (int)n};
    }
    return g;
}

Test(fit_law, gaps_are_numpys_as_curves_and_as_functionals)
{
    json_t *groups = golden("groups");
    size_t i;
    json_t *json;
    json_array_foreach(groups, i, json)
    {
        double values[256];
        struct group g = group_of(json, values);
        const struct curve *widest = &g.curves[g.n_curves - 1];
        for (int c = 0; c < g.n_curves; c++) {
            double want = item(json, "gaps", (size_t)c);
            struct linear l = linear_gap(&g.curves[c], widest, &arena);
            expect_near(curve_gap(&g.curves[c], widest), want, "gap", i, (size_t)c);
            expect_near(linear_at(&l, values), want, "linear gap", i, (size_t)c);
        }
    }
    json_decref(groups);
    arena_release(&arena);
}

Test(fit_law, base_curve_and_offsets_are_the_least_squares_of_numpy)
{
    json_t *groups = golden("groups");
    size_t i;
    json_t *json;
    json_array_foreach(groups, i, json)
    {
        double values[256];
        struct group g = group_of(json, values);
        const json_t *want = json_object_get(json, "fit");
        struct offset_fit fit = offset_fit(&g, 4, &arena);
        cr_assert_eq(fit.n_curves, (int)json_array_size(json_object_get(want, "k")), "group %zu",
                     i);
        for (int c = 0; c < fit.n_curves; c++) {
            cr_expect_eq(fit.k[c], (int)item(want, "k", (size_t)c));
            expect_near(fit.offset[c], item(want, "offset", (size_t)c), "offset", i, (size_t)c);
            expect_near(fit.slope_off[c], item(want, "slope_off", (size_t)c), "slope", i,
                        (size_t)c);
            if (c < fit.n_curves - 1)
                expect_near(linear_at(&fit.as_linear[c], values), fit.offset[c], "functional", i,
                            (size_t)c);
        }
        expect_near(fit.residual, member(want, "residual"), "residual", i, 0);
        expect_near(fit.slope, member(want, "slope"), "base slope", i, 0);
        expect_near(fit.slope_spread, member(want, "slope_spread"), "slope spread", i, 0);
    }
    json_decref(groups);
    arena_release(&arena);
}

Test(fit_law, power_law_and_left_out_sizes_are_numpys)
{
    json_t *groups = golden("groups");
    size_t i;
    json_t *json;
    json_array_foreach(groups, i, json)
    {
        double values[256];
        struct group g = group_of(json, values);
        const json_t *want = json_object_get(json, "law");
        struct law_fit law = law_fit(&g, 4, &arena);
        cr_assert(law.is_fitted);
        expect_near(law.a, member(want, "a"), "a", i, 0);
        expect_near(law.b, member(want, "b"), "b", i, 0);
        expect_near(law.c, member(want, "c"), "c", i, 0);
        expect_near(law.residual, member(want, "residual"), "residual", i, 0);
        cr_expect_eq(law.n_held_out, (int)member(want, "held_out"), "group %zu", i);
        expect_near(law.law_error, member(want, "law_error"), "law error", i, 0);
        expect_near(law.curve_error, member(want, "curve_error"), "curve error", i, 0);
    }
    json_decref(groups);
    arena_release(&arena);
}

/* ---- by hand ---- */

#define AT(x, y, n)                                                                                \
    {                                                                                              \
        .log2_bits = (x), .value = (y), .n_params = (n)                                            \
    }

Test(fit_law, parallel_lines_have_their_distance_as_offset_and_no_residual)
{
    struct curve_point four[] = {AT(20, 4, 1), AT(22, 3, 2), AT(24, 2, 3)};
    struct curve_point sixteen[] = {AT(21, 3.75, 1), AT(23, 2.75, 2), AT(25, 1.75, 3)};
    struct curve curves[] = {{4, 3, four}, {16, 3, sixteen}};
    struct group g = {.curves = curves, .n_curves = 2};
    struct offset_fit fit = offset_fit(&g, 4, &arena);
    cr_assert_eq(fit.n_curves, 2);
    cr_expect_float_eq(fit.offset[0], -0.25, 1e-12);
    cr_expect_eq(fit.offset[1], 0);
    cr_expect_lt(fit.residual, 1e-12);
    cr_expect_lt(fit.slope_spread, 1e-12);
    cr_expect_float_eq(fit.slope, -0.5, 1e-12);
    arena_release(&arena);
}

Test(fit_law, curves_that_nothing_connects_to_the_widest_are_left_out)
{
    struct curve_point low[] = {AT(10, 4, 1), AT(12, 3, 2)};
    struct curve_point low2[] = {AT(10, 5, 1), AT(12, 4, 2)};
    struct curve_point high[] = {AT(20, 4, 1), AT(22, 3, 2)};
    struct curve_point high2[] = {AT(20, 4.5, 1), AT(22, 3.5, 2)};
    struct curve curves[] = {{4, 2, low}, {5, 2, low2}, {8, 2, high}, {16, 2, high2}};
    struct group g = {.curves = curves, .n_curves = 4};
    struct offset_fit fit = offset_fit(&g, 4, &arena);
    cr_assert_eq(fit.n_curves, 2);
    cr_expect_eq(fit.k[0], 8);
    cr_expect_float_eq(fit.offset[0], -0.5, 1e-12);
    arena_release(&arena);
}

Test(fit_law, one_size_or_one_width_gives_no_law_and_no_offsets)
{
    struct curve_point one[] = {AT(20, 4, 1e6)};
    struct curve_point other[] = {AT(22, 3, 1e6)};
    struct curve single_size[] = {{4, 1, one}, {16, 1, other}};
    struct group sizes = {.curves = single_size, .n_curves = 2};
    cr_expect_eq(offset_fit(&sizes, 4, &arena).n_curves, 0);
    cr_expect_not(law_fit(&sizes, 4, &arena).is_fitted);

    struct curve_point line[] = {AT(20, 4, 1e6), AT(22, 3, 4e6)};
    struct curve single_width[] = {{4, 2, line}};
    struct group widths = {.curves = single_width, .n_curves = 1};
    cr_expect_eq(offset_fit(&widths, 4, &arena).n_curves, 0);
    cr_expect_not(law_fit(&widths, 4, &arena).is_fitted);

    struct group nothing = {0};
    cr_expect_eq(offset_fit(&nothing, 4, &arena).n_curves, 0);
    cr_expect_not(law_fit(&nothing, 4, &arena).is_fitted);
    arena_release(&arena);
}

Test(fit_law, a_law_of_logarithms_needs_positive_values)
{
    struct curve_point a[] = {AT(20, 0, 1e6), AT(22, 3, 4e6)};
    struct curve_point b[] = {AT(22, 2, 1e6), AT(24, 1, 4e6)};
    struct curve curves[] = {{4, 2, a}, {16, 2, b}};
    struct group g = {.curves = curves, .n_curves = 2};
    cr_expect_not(law_fit(&g, 4, &arena).is_fitted);
    arena_release(&arena);
}

Test(fit_law, weights_as_stored_are_no_width_of_the_study)
{
    struct curve_point four[] = {AT(20, 4, 1), AT(24, 2, 2)};
    struct curve_point sixteen[] = {AT(20, 5, 1), AT(24, 3, 2)};
    struct curve_point stored[] = {AT(20, 9, 1), AT(24, 9, 2)};
    struct curve curves[] = {{4, 2, four}, {16, 2, sixteen}, {32, 2, stored}};
    struct group g = {.curves = curves, .n_curves = 3};
    struct offset_fit fit = offset_fit(&g, 4, &arena);
    cr_assert_eq(fit.n_curves, 2);
    cr_expect_float_eq(fit.offset[0], -1, 1e-12);
    arena_release(&arena);
}

Test(fit_law, a_point_of_two_checkpoints_weighs_both_rows)
{
    int pair[] = {0, 1};
    int last[] = {2};
    struct curve_point points[] = {{.log2_bits = 20, .value = 3, .rows = pair, .n_rows = 2},
                                   {.log2_bits = 22, .value = 1, .rows = last, .n_rows = 1}};
    struct curve curve = {4, 2, points};
    struct group g = {.curves = &curve, .n_curves = 1};
    const double values[] = {2, 4, 1};
    struct linear l = linear_value(&curve, 21, &arena);
    cr_expect_eq(l.n, 3);
    cr_expect_float_eq(linear_at(&l, values), 2, 1e-12);
    cr_expect_eq(linear_value(&curve, 23, &arena).n, 0, "never extrapolated");
    const double resampled[] = {5, 7, 2};
    group_set_values(&g, resampled);
    cr_expect_float_eq(points[0].value, 6, 1e-12);
    cr_expect_float_eq(points[1].value, 2, 1e-12);
    arena_release(&arena);
}
