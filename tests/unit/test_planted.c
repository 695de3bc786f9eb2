/* From a law to a database and back: written through the store, read, resampled and fitted as any sweep is. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/bootstrap.h"
#include "analysis/stat.h"
#include "tests/support/planted.h"
#include "tests/support/support.h"

/* A database of a law, loaded. */
struct world {
    char *dir, *path;
    struct store *store;
    struct arena arena;
    struct frame frame;
    struct items items;
    struct bootstrap bootstrap;
};

static struct world world_open(const struct planted *p, int n_resamples)
{
    struct world w = {.dir = support_tmpdir()};
    struct err e = {0};
    w.path = xasprintf("%s/planted.db", w.dir);
    struct frame_filter all = {0};
    struct bootstrap_opts opts = {.n_resamples = n_resamples, .seed = 7, .n_threads = 1};
    bool ok = planted_write(p, w.path, &e) == ERR_OK &&
              store_open(w.path, STORE_READ, &w.store, &e) == ERR_OK &&
              frame_load(w.store, &all, &w.arena, &w.frame, &e) == ERR_OK &&
              items_read(w.store, &w.frame, &w.arena, &w.items, &e) == ERR_OK &&
              bootstrap_run(&w.frame, &w.items, &opts, &w.arena, &w.bootstrap, &e) == ERR_OK;
    cr_assert(ok, "%s", e.text);
    return w;
}

static void world_close(struct world *w)
{
    bootstrap_release(&w->bootstrap);
    store_close(w->store);
    arena_release(&w->arena);
    xfree(w->path);
    support_tmpdir_remove(w->dir);
}

/* One family, three sizes, 4 and 5 bit beside the baseline. */
static bool is_left_out(const char *family, const char *size, const struct config *c, enum task t)
{
    (void)family;
    (void)size;
    (void)t;
    return c->k < 16 && (c->dtype != DTYPE_quantile || (c->k != 4 && c->k != 5));
}

static struct planted small(void)
{
    struct planted p = planted_paper();
    p.grids = PLANTED_WIDTHS;
    p.families = 1U << PLANTED_GPT2;
    p.max_sizes = 3;
    return p;
}

static const struct frame_row *twin(const struct frame *f, const struct frame_row *row)
{
    for (int i = 0; i < f->n; i++)
        if (strcmp(f->rows[i].family, row->family) == 0 &&
            strcmp(f->rows[i].size, row->size) == 0 && f->rows[i].k == row->k &&
            f->rows[i].block == row->block &&
            (row->k >= 16 || strcmp(f->rows[i].dtype, row->dtype) == 0))
            return &f->rows[i];
    cr_assert_fail("no %s %s %d bit", row->family, row->size, row->k);
    return NULL;
}

Test(planted, rows_hold_the_law_within_their_standard_errors)
{
    struct planted p = small();
    struct world w = world_open(&p, 100);
    struct frame truth = planted_frame(&p, &w.arena);
    cr_assert_eq(w.frame.n, truth.n);
    double worst = 0;
    for (int i = 0; i < w.frame.n; i++) {
        const struct frame_row *row = &w.frame.rows[i];
        const struct frame_row *want = twin(&truth, row);
        cr_expect_float_eq(row->total_bits[BITS_FULL], want->total_bits[BITS_FULL], 0.5);
        cr_expect_float_eq(row->total_bits[BITS_NOMINAL], want->total_bits[BITS_NOMINAL], 0.5);
        for (int m = METRIC_ZERO_SHOT; m <= METRIC_NLL; m += METRIC_NLL - METRIC_ZERO_SHOT)
            worst = fmax(worst, fabs(row->metric[m] - want->metric[m]) / w.bootstrap.stderr_[m][i]);
    }
    /* All rows share their items, so the worst of 78 numbers is hardly worse than one. */
    cr_expect_lt(worst, 4.5, "%g standard errors", worst);
    cr_expect_gt(worst, 0.5, "%g standard errors: no noise?", worst);
    world_close(&w);
}

static double true_gap(const struct planted *p, enum metric_id m, int k, struct arena *a)
{
    struct frame f = planted_frame(p, a);
    int n = 0, n_dropped = 0;
    struct group *g = groups_build(&f, m, BITS_FULL, a, &n, &n_dropped);
    for (int i = 0; i < n; i++)
        if (strcmp(g[i].setting.dtype, "quantile") == 0)
            return curve_gap(group_curve(&g[i], k), group_curve(&g[i], 4));
    return NAN;
}

static struct linear gap_between(struct world *w, enum metric_id m, int k)
{
    int n = 0, n_dropped = 0;
    struct group *g = groups_build(&w->frame, m, BITS_FULL, &w->arena, &n, &n_dropped);
    for (int i = 0; i < n; i++)
        if (strcmp(g[i].setting.dtype, "quantile") == 0)
            return linear_gap(group_curve(&g[i], k), group_curve(&g[i], 4), &w->arena);
    return (struct linear){0};
}

static double measured(const struct world *w, enum metric_id m, const struct linear *l)
{
    double *values = xcalloc((size_t)w->frame.n, sizeof(*values));
    for (int i = 0; i < w->frame.n; i++)
        values[i] = w->frame.rows[i].metric[m];
    double v = linear_at(l, values);
    xfree(values);
    return v;
}

Test(planted, offsets_are_recovered_within_their_noise)
{
    struct planted p = small();
    struct world w = world_open(&p, 400);
    const enum metric_id metrics[] = {METRIC_ZERO_SHOT, METRIC_NLL};
    const int widths[] = {3, 5, 6, 7, 8, 16};
    for (size_t m = 0; m < ARRAY_LEN(metrics); m++)
        for (size_t k = 0; k < ARRAY_LEN(widths); k++) {
            double truth = true_gap(&p, metrics[m], widths[k], &w.arena);
            struct linear gap = gap_between(&w, metrics[m], widths[k]);
            struct interval range = bootstrap_interval(&w.bootstrap, metrics[m], &gap);
            double se = (range.high - range.low) / 3.92;
            double off = measured(&w, metrics[m], &gap) - truth;
            cr_expect_leq(fabs(off), 3.5 * se, "%s, %d bit: off by %g, standard error %g",
                          metric_info_of(metrics[m])->option, widths[k], off, se);
            cr_expect_gt(se, 0);
        }
    world_close(&w);
}

/* How many sweeps are drawn; 400 unless the environment wants another number. */
static int n_draws(void)
{
    const char *text = getenv("ISOBIT_PLANTED_DRAWS");
    int64_t n = 400;
    if (text != NULL)
        cr_assert(parse_i64(str_of(text), &n));
    return (int)n;
}

Test(planted, intervals_of_95_per_cent_cover_the_truth_so_often)
{
    struct planted p = small();
    p.is_left_out = is_left_out;
    for (int t = 0; t < PLANTED_TASKS; t++)
        p.n_items[t] = 160;
    p.difficulty_share = 0.8;
    const enum metric_id metrics[] = {METRIC_ZERO_SHOT, METRIC_NLL};
    int n_covered[ARRAY_LEN(metrics)] = {0};
    int n = n_draws();
    for (int draw = 0; draw < n; draw++) {
        p.seed = 1000 + (uint64_t)draw;
        struct world w = world_open(&p, 500);
        for (size_t m = 0; m < ARRAY_LEN(metrics); m++) {
            struct linear gap = gap_between(&w, metrics[m], 5);
            struct interval range = bootstrap_interval(&w.bootstrap, metrics[m], &gap);
            double truth = true_gap(&p, metrics[m], 5, &w.arena);
            n_covered[m] += range.low <= truth && truth <= range.high;
        }
        world_close(&w);
    }
    for (size_t m = 0; m < ARRAY_LEN(metrics); m++) {
        double share = (double)n_covered[m] / n;
        printf("%s: %.1f %% of %d intervals cover the truth\n", metric_info_of(metrics[m])->option,
               100 * share, n);
        cr_expect(0.92 <= share && share <= 0.98, "%s: %g", metric_info_of(metrics[m])->option,
                  share);
    }
}

Test(planted, the_planted_correlation_is_there)
{
    struct planted p = planted_paper();
    p.grids = PLANTED_WIDTHS;
    planted_correlate(&p, -0.94);
    struct arena a = {0};
    struct frame f = planted_frame(&p, &a);
    double *x = arena_array(&a, (size_t)f.n, sizeof(*x));
    double *y = arena_array(&a, (size_t)f.n, sizeof(*y));
    for (int i = 0; i < f.n; i++) {
        x[i] = f.rows[i].metric[METRIC_ZERO_SHOT];
        y[i] = fmin(f.rows[i].metric[METRIC_PERPLEXITY], 100);
    }
    cr_expect_float_eq(stat_pearson(x, y, f.n), -0.94, 1e-6);
    arena_release(&a);
}

Test(planted, missing_cells_stay_pending_and_have_no_numbers)
{
    struct planted p = small();
    p.missing = 0.3;
    p.n_items[TASK_hellaswag] = 50;
    struct world w = world_open(&p, 0);
    int64_t n_pending = 0, n_jobs = 0;
    struct err e;
    cr_assert_eq(store_query_int(w.store, "SELECT count(*) FROM jobs WHERE state = 'pending'", 0,
                                 &n_pending, &e),
                 ERR_OK);
    cr_assert_eq(store_query_int(w.store, "SELECT count(*) FROM jobs", 0, &n_jobs, &e), ERR_OK);
    cr_expect_lt(fabs((double)n_pending / (double)n_jobs - 0.3), 0.1);
    int n_complete = 0;
    for (int i = 0; i < w.frame.n; i++)
        n_complete += isfinite(w.frame.rows[i].metric[METRIC_ZERO_SHOT]);
    cr_expect_lt(n_complete, w.frame.n / 2, "all four tasks are rarely there");
    cr_expect_gt(n_complete, 0);
    world_close(&w);
}

Test(planted, the_full_grid_has_35030_jobs)
{
    struct planted p = planted_full_size();
    struct arena a = {0};
    int n_models = 0, n_configs = 0;
    (void)planted_models(&p, &a, &n_models);
    (void)planted_configs(&p, &a, &n_configs);
    cr_expect_eq(n_models * n_configs * PLANTED_TASKS, 35030);
    arena_release(&a);
}
