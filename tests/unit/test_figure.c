#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "analysis/bands.h"
#include "analysis/figure.h"
#include "analysis/gnuplot_script.h"
#include "analysis/html_json.h"
#include "tests/support/planted.h"

static const char *const families[] = {"opt", "pythia"};

/* Two families, every kind of configuration, no noise. */
static struct frame planted(struct arena *a)
{
    struct planted p = planted_paper();
    p.families = 1U << PLANTED_OPT | 1U << PLANTED_PYTHIA;
    p.max_params = 1e12;
    return planted_frame(&p, a);
}

static const struct figure *find(const struct figure *figures, int n, const char *name)
{
    for (int i = 0; i < n; i++)
        if (strcmp(figures[i].name, name) == 0)
            return &figures[i];
    cr_assert_fail("no picture %s", name);
    return NULL;
}

static const struct series *line_of(const struct panel *p, const char *label)
{
    for (int i = 0; i < p->n_series; i++)
        if (strcmp(p->series[i].label, label) == 0)
            return &p->series[i];
    return NULL;
}

Test(figure, every_picture_of_the_paper_has_its_counterpart_in_both_metrics)
{
    static const char *const names[] = {"scaling",   "widths",   "block-size",
                                        "data-type", "outliers", "exponent-bits"};
    struct arena a = {0};
    struct frame f = planted(&a);
    int n = 0;
    const struct figure *figures = figures_build(&f, BITS_FULL, NULL, &a, &n);
    cr_assert_eq(n, 13);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        find(figures, n, arena_printf(&a, "%s-perplexity", names[i]));
        find(figures, n, arena_printf(&a, "%s-zero-shot", names[i]));
    }
    find(figures, n, "perplexity-zero-shot");
    arena_release(&a);
}

Test(figure, a_scaling_line_holds_the_sizes_of_a_family_in_ascending_bits)
{
    struct arena a = {0};
    struct frame f = planted(&a);
    int n = 0;
    const struct figure *figures = figures_build(&f, BITS_FULL, NULL, &a, &n);
    const struct figure *fig = find(figures, n, "scaling-perplexity");
    cr_assert_eq(fig->n_panels, 2);
    for (int i = 0; i < 2; i++) {
        cr_expect_eq(strncmp(fig->panels[i].title, families[i], strlen(families[i])), 0);
        cr_expect_eq(fig->panels[i].n_series, 4); /* 3, 4, 8, 16 */
        const struct series *four = line_of(&fig->panels[i], "4 bit");
        cr_assert_not_null(four);
        cr_expect_eq(four->n, 5);
        for (int j = 1; j < four->n; j++)
            cr_expect_lt(four->x[j - 1], four->x[j]);
        cr_expect_lt(four->y[four->n - 1], four->y[0]);
        cr_expect_str_eq(four->color, figure_color_of_k(4));
        cr_expect_null(four->low);
    }
    const struct figure *all = find(figures, n, "widths-perplexity");
    cr_expect_eq(all->panels[0].n_series, 7);
    arena_release(&a);
}

Test(figure, outliers_are_dashed_and_have_the_colour_of_their_width)
{
    struct arena a = {0};
    struct frame f = planted(&a);
    int n = 0;
    const struct figure *figures = figures_build(&f, BITS_FULL, NULL, &a, &n);
    const struct panel *p = &find(figures, n, "outliers-zero-shot")->panels[0];
    const struct series *plain = line_of(p, "3 bit");
    const struct series *kept = line_of(p, "3 bit + 2 %");
    cr_assert(plain != NULL && kept != NULL);
    cr_expect(!plain->is_dashed && kept->is_dashed);
    cr_expect_str_eq(plain->color, kept->color);
    cr_expect_gt(kept->y[kept->n - 1], plain->y[plain->n - 1], "columns kept undo the collapse");
    arena_release(&a);
}

Test(figure, exponent_lines_have_their_best_where_it_was_planted)
{
    struct arena a = {0};
    struct frame f = planted(&a);
    int n = 0;
    const struct figure *figures = figures_build(&f, BITS_FULL, NULL, &a, &n);
    const struct panel *p = &find(figures, n, "exponent-bits-perplexity")->panels[0];
    struct planted_law law = planted_paper().law;
    for (int k = 3; k <= 8; k++) {
        const struct series *s = line_of(p, arena_printf(&a, "%d bit", k));
        cr_assert_not_null(s);
        int best = 0;
        for (int i = 1; i < s->n; i++)
            best = s->y[i] < s->y[best] ? i : best;
        cr_expect_eq((int)s->x[best], law.best_exponent[k], "k = %d: E = %g", k, s->x[best]);
    }
    arena_release(&a);
}

Test(figure, one_size_or_one_width_makes_no_line_that_is_not_there)
{
    struct arena a = {0};
    struct planted small = planted_paper();
    small.max_sizes = 1;
    small.grids = PLANTED_WIDTHS;
    struct frame f = planted_frame(&small, &a);
    int n = 0;
    const struct figure *figures = figures_build(&f, BITS_FULL, NULL, &a, &n);
    const struct panel *p = &find(figures, n, "scaling-perplexity")->panels[0];
    cr_expect_eq(p->series[0].n, 1);
    f.n = 0;
    figures_build(&f, BITS_FULL, NULL, &a, &n);
    cr_expect_eq(n, 0);
    arena_release(&a);
}

Test(figure, intervals_follow_the_metric_that_is_shown)
{
    struct arena a = {0};
    struct frame f = planted(&a);
    struct figure_intervals v = {0};
    v.low[METRIC_NLL] = arena_array(&a, (size_t)f.n, sizeof(double));
    v.high[METRIC_NLL] = arena_array(&a, (size_t)f.n, sizeof(double));
    for (int i = 0; i < f.n; i++) {
        v.low[METRIC_NLL][i] = f.rows[i].metric[METRIC_NLL] - 0.1;
        v.high[METRIC_NLL][i] = f.rows[i].metric[METRIC_NLL] + 0.1;
    }
    int n = 0;
    const struct figure *figures = figures_build(&f, BITS_FULL, &v, &a, &n);
    const struct series *s = line_of(&find(figures, n, "scaling-perplexity")->panels[0], "4 bit");
    cr_assert_not_null(s->low);
    cr_expect_float_eq(s->low[0], s->y[0] * exp(-0.1), 1e-9);
    cr_expect_float_eq(s->high[0], s->y[0] * exp(0.1), 1e-9);
    cr_expect_null(line_of(&find(figures, n, "scaling-zero-shot")->panels[0], "4 bit")->low);
    arena_release(&a);
}

/* ---- bands ---- */

/* Two rows of a family in three resamples: what moves both goes, what moves one stays. */
Test(bands, what_a_family_shares_is_taken_out)
{
    struct arena a = {0};
    struct frame_row rows[] = {{.sweep = "s", .family = "f"}, {.sweep = "s", .family = "f"}};
    struct frame f = {.rows = rows, .n = 2};
    double moved_together[] = {1, 2, 2, 3, 3, 4};
    bool is_drawn[] = {true, true};
    struct bootstrap b = {.n_rows = 2, .n_resamples = 3};
    b.value[METRIC_NLL] = moved_together;
    b.is_drawn[METRIC_NLL] = is_drawn;
    struct figure_intervals plain = bands_plain(&b, &a);
    struct figure_intervals paired = bands_paired(&b, &f, &a);
    cr_expect_float_eq(plain.low[METRIC_NLL][0], 1.05, 1e-12); /* type 7 over {1, 2, 3} */
    cr_expect_float_eq(plain.high[METRIC_NLL][0], 2.95, 1e-12);
    cr_expect_float_eq(paired.low[METRIC_NLL][0], 2, 1e-12);
    cr_expect_float_eq(paired.high[METRIC_NLL][1], 3, 1e-12);
    cr_expect_null(paired.low[METRIC_ZERO_SHOT]);
    arena_release(&a);
}

Test(bands, a_row_without_items_has_none)
{
    struct arena a = {0};
    struct frame_row rows[] = {{.sweep = "s", .family = "f"}, {.sweep = "s", .family = "g"}};
    struct frame f = {.rows = rows, .n = 2};
    double values[] = {1, 5, 2, 5, 3, 5};
    bool is_drawn[] = {true, false};
    struct bootstrap b = {.n_rows = 2, .n_resamples = 3};
    b.value[METRIC_NLL] = values;
    b.is_drawn[METRIC_NLL] = is_drawn;
    struct figure_intervals paired = bands_paired(&b, &f, &a);
    cr_expect_float_eq(paired.low[METRIC_NLL][0], 2, 1e-12, "alone in its family");
    cr_expect(isnan(paired.low[METRIC_NLL][1]) && isnan(paired.high[METRIC_NLL][1]));
    arena_release(&a);
}

/* ---- gnuplot's text ---- */

Test(gnuplot_script, names_from_a_database_run_nothing)
{
    double x[] = {1e6, 2e6};
    double y[] = {10, 9};
    const char *names[] = {"a\"b", "`id`"};
    struct series line = {
        .label = "it's `id`", .color = "#123456", .x = x, .y = y, .names = names, .n = 2};
    struct panel panel = {.title = "\"; system('id'); \"", .series = &line, .n_series = 1};
    struct figure fig = {.name = "x",
                         .title = "t'",
                         .x_title = "x",
                         .y_title = "y",
                         .labels = LABELS_AT_END,
                         .panels = &panel,
                         .n_panels = 1};
    struct buf script = {0};
    struct buf data = {0};
    gnuplot_add_script(&script, &fig);
    gnuplot_add_data(&data, &fig);
    cr_expect_not_null(strstr(script.data, "set title '\"; system(''id''); \"'\n"));
    cr_expect_not_null(strstr(script.data, "'it''s `id`'"));
    cr_expect_not_null(strstr(data.data, "1000000 10 10 10 \"a b\"\n"));
    buf_release(&script);
    buf_release(&data);
}

/* ---- JSON for a page ---- */

Test(html_json, commas_digits_and_texts_are_right)
{
    struct buf out = {0};
    double values[] = {1.0 / 3, NAN, INFINITY, 12345678};
    hj_open(&out, '{');
    hj_put_text(&out, "t", "</script>\"\\\n\t:");
    hj_put_text(&out, "n", NULL);
    hj_put_numbers(&out, "v", values, 4, 3);
    hj_put_bool(&out, "b", false);
    hj_name(&out, "o");
    hj_open(&out, '[');
    hj_open(&out, '{');
    hj_close(&out, '}');
    hj_int(&out, -5);
    hj_close(&out, ']');
    hj_close(&out, '}');
    cr_expect_str_eq(out.data, "{\"t\":\"\\u003c/script>\\\"\\\\\\n\\u0009:\",\"n\":null,"
                               "\"v\":[0.333,null,null,1.23e+07],\"b\":false,\"o\":[{},-5]}");
    buf_release(&out);
}
