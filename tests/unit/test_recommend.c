/* Recommendations on planted laws: the choice that was planted, its neighbours, and no choice where nothing is known. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "analysis/recommend.h"
#include "tests/support/planted.h"
#include "tests/support/support.h"

static struct arena arena;
static struct err err;

/* What is told without a single resample, from a noiseless world. */
struct exact {
    struct frame frame;
    struct group *groups;
    int n_groups;
    struct bootstrap b;
};

static struct exact exact_world(const struct planted *p, enum metric_id m)
{
    struct exact w = {.frame = planted_frame(p, &arena)};
    struct items none = {0};
    struct bootstrap_opts off = {0, 1, 1};
    int n_dropped = 0;
    frame_cap(&w.frame, 0);
    w.groups = groups_build(&w.frame, m, BITS_FULL, &arena, &w.n_groups, &n_dropped);
    cr_assert_eq(bootstrap_run(&w.frame, &none, &off, &arena, &w.b, &err), ERR_OK, "%s", err.text);
    return w;
}

static struct planted bloom(void)
{
    struct planted p = planted_paper();
    p.families = 1U << PLANTED_BLOOM;
    p.grids = PLANTED_WIDTHS;
    return p;
}

Test(recommend, names_the_planted_width_and_what_a_bit_changes)
{
    struct planted p = bloom();
    struct exact w = exact_world(&p, METRIC_ZERO_SHOT);
    int n = 0;
    struct advice *a =
        recommend(&w.b, METRIC_ZERO_SHOT, w.groups, w.n_groups, log2(2e10), &arena, &n);
    cr_assert_eq(n, 1);
    cr_expect_str_eq(a->family, "bloom");
    cr_assert_gt(a->n_curves, 2);
    const struct choice *best = &a->curves[0];
    cr_expect_eq(best->k, 4);
    cr_expect_str_eq(best->setting->dtype, "quantile");
    cr_expect_null(best->size, "interpolated");
    cr_expect_float_eq(best->bits, 2e10, 1);
    cr_expect_float_eq(best->n_params, 2e10 / 4.28, 0.1e9);
    cr_expect_eq(best->less.k, 3);
    cr_expect_lt(best->less.change, 0, "one bit less costs accuracy");
    cr_expect_eq(best->more.k, 5);
    cr_expect_lt(best->more.change, 0, "one bit more leaves room for a smaller model only");
    for (int i = 1; i < a->n_curves; i++)
        cr_expect_leq(a->curves[i].value, a->curves[i - 1].value);
    cr_expect(isnan(best->probability), "nothing was drawn");
    cr_expect_not(a->curves[1].is_tied, "without intervals nothing is called a tie");
    arena_release(&arena);
}

/* The same checkpoint and setting at another width. */
static const struct frame_row *row_like(const struct frame *f, const struct frame_row *row, int k)
{
    for (int i = 0; i < f->n; i++) {
        const struct frame_row *r = &f->rows[i];
        struct setting mine = setting_of(row, &arena);
        struct setting its = setting_of(r, &arena);
        if (r->k == k && r->n_params == row->n_params && setting_equal(&mine, &its))
            return r;
    }
    BUG("no such row");
}

Test(recommend, checkpoints_fit_the_budget_and_their_neighbours_are_the_same_checkpoint)
{
    struct planted p = bloom();
    struct exact w = exact_world(&p, METRIC_NLL);
    double budget = 2e10;
    int n = 0;
    struct advice *a = recommend(&w.b, METRIC_NLL, w.groups, w.n_groups, log2(budget), &arena, &n);
    cr_assert_gt(a->n_models, 2);
    double best = INFINITY;
    for (int i = 0; i < w.frame.n; i++)
        if (w.frame.rows[i].total_bits[BITS_FULL] <= budget)
            best = fmin(best, w.frame.rows[i].metric[METRIC_NLL]);
    cr_expect_eq(a->models[0].value, best, "the smallest cross entropy that fits");
    for (int i = 0; i < a->n_models; i++) {
        const struct choice *c = &a->models[i];
        cr_expect_leq(c->bits, budget);
        cr_expect_str_eq(w.frame.rows[c->row].size, c->size);
        if (c->more.k == 0)
            continue;
        cr_expect_eq(c->more.k, c->k + 1);
        cr_expect_gt(c->more.bits, c->bits);
        cr_expect_eq(c->more.is_within, c->more.bits <= budget);
        const struct frame_row *from = &w.frame.rows[c->row];
        const struct frame_row *to = row_like(&w.frame, from, c->more.k);
        cr_expect_float_eq(c->more.change, to->metric[METRIC_NLL] - from->metric[METRIC_NLL], 1e-12,
                           "choice %d", i);
        cr_expect_float_eq(c->more.bits, to->total_bits[BITS_FULL], 1);
    }
    arena_release(&arena);
}

Test(recommend, says_nothing_where_nothing_was_measured)
{
    struct planted p = bloom();
    struct exact w = exact_world(&p, METRIC_NLL);
    int n = 0;
    struct advice *a = recommend(&w.b, METRIC_NLL, w.groups, w.n_groups, log2(10), &arena, &n);
    cr_assert_eq(n, 1);
    cr_expect_eq(a->n_curves, 0);
    cr_expect_eq(a->n_models, 0);
    a = recommend(&w.b, METRIC_NLL, w.groups, w.n_groups, 200, &arena, &n);
    cr_expect_eq(a->n_curves, 0, "never extrapolated");
    cr_expect_gt(a->n_models, 0);
    recommend(&w.b, METRIC_NLL, NULL, 0, 30, &arena, &n);
    cr_expect_eq(n, 0);
    arena_release(&arena);
}

Test(recommend, one_size_gives_checkpoints_but_no_curves)
{
    struct planted p = bloom();
    p.max_sizes = 1;
    struct exact w = exact_world(&p, METRIC_NLL);
    int n = 0;
    double between = (w.frame.rows[0].total_bits[BITS_FULL] + 1) * 1.0000001;
    struct advice *a = recommend(&w.b, METRIC_NLL, w.groups, w.n_groups, log2(between), &arena, &n);
    cr_assert_eq(n, 1);
    cr_expect_eq(a->n_curves, 0);
    cr_expect_gt(a->n_models, 0);
    arena_release(&arena);
}

Test(recommend, the_baseline_of_a_family_competes_once)
{
    struct planted p = bloom();
    struct exact w = exact_world(&p, METRIC_NLL);
    cr_assert_gt(w.n_groups, 1);
    int n = 0;
    struct advice *a = recommend(&w.b, METRIC_NLL, w.groups, w.n_groups, 60, &arena, &n);
    cr_expect_eq(a->n_models_compared, w.frame.n);
    arena_release(&arena);
}

Test(recommend, every_family_and_sweep_has_its_own_advice)
{
    struct planted p = bloom();
    p.families |= 1U << PLANTED_OPT;
    struct exact w = exact_world(&p, METRIC_NLL);
    int n = 0;
    struct advice *a = recommend(&w.b, METRIC_NLL, w.groups, w.n_groups, log2(2e10), &arena, &n);
    cr_assert_eq(n, 2);
    cr_expect_str_neq(a[0].family, a[1].family);
    cr_expect_eq(a[0].n_models_compared + a[1].n_models_compared > 0, true);
    arena_release(&arena);
}

Test(recommend, intervals_hold_the_value_and_shares_add_up)
{
    char *dir = support_tmpdir();
    const char *path = arena_printf(&arena, "%s/p.db", dir);
    struct planted p = bloom();
    p.max_sizes = 3;
    cr_assert_eq(planted_write(&p, path, &err), ERR_OK, "%s", err.text);
    struct store *s = NULL;
    struct frame f;
    struct frame_filter any = {0};
    struct items items;
    struct bootstrap b;
    struct bootstrap_opts o = {300, 1, 2};
    cr_assert_eq(store_open(path, STORE_READ, &s, &err), ERR_OK, "%s", err.text);
    cr_assert_eq(frame_load(s, &any, &arena, &f, &err), ERR_OK, "%s", err.text);
    frame_cap(&f, 100);
    cr_assert_eq(bootstrap_load(s, &f, &o, &arena, &items, &b, &err), ERR_OK, "%s", err.text);
    int n_groups = 0, n_dropped = 0, n = 0;
    struct group *groups = groups_build(&f, METRIC_NLL, BITS_FULL, &arena, &n_groups, &n_dropped);
    struct advice *a = recommend(&b, METRIC_NLL, groups, n_groups, log2(2e10), &arena, &n);
    cr_assert_eq(n, 1);
    double sum = 0;
    for (int i = 0; i < a->n_curves; i++) {
        const struct choice *c = &a->curves[i];
        cr_expect(c->range.low <= c->value && c->value <= c->range.high, "choice %d", i);
        cr_expect_eq(c->is_tied, i > 0 && c->behind.low <= 0 && c->behind.high >= 0);
        if (c->less.k != 0)
            cr_expect(c->less.range.low <= c->less.change && c->less.change <= c->less.range.high);
        sum += c->probability;
    }
    cr_expect_leq(sum, 1 + 1e-9);
    cr_expect_gt(a->curves[0].probability, 0);
    bootstrap_release(&b);
    store_close(s);
    arena_release(&arena);
    support_tmpdir_remove(dir);
}
