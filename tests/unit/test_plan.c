#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "worker/model/plan.h"

/* OPT-30B in fp16. */
static struct plan_shape shape_30b(void)
{
    const int64_t d = 7168, V = 50272, layers = 48;
    return (struct plan_shape){.n_layers = (int)layers,
                               .part = {3 * d * d, d * d, 4 * d * d, 4 * d * d},
                               .total = layers * 12 * d * d + V * d,
                               .small = 2 * d,
                               .head_rows = V,
                               .head_cols = d,
                               .stored_bytes = 2 * (layers * 12 * d * d + V * d),
                               .batch_tokens = 16384,
                               .row_between = 2 * d,
                               .row_within = 2 * 7 * d,
                               .work_bytes = (int64_t)16384 * 14 * d,
                               .n_params = 30e9,
                               .n_products = (double)(layers * 12 * d * d)};
}

static struct plan_device gpu(int64_t budget)
{
    return (struct plan_device){.budget = budget,
                                .memory_bytes = (int64_t)140e9,
                                .reserve = (int64_t)2 << 30,
                                .act_bytes = 2,
                                .head_chunk = 512,
                                .flops_per_s = 400e12,
                                .read_per_s = 2e9};
}

static struct plan plan_for(const struct plan_device *d)
{
    const struct plan_shape s = shape_30b();
    struct plan p;
    struct err e = {0};
    cr_assert_eq(plan_make(&s, d, 2, "m", &p, &e), ERR_OK, "%s", e.text);
    return p;
}

/* Five evaluations of the published data, 226 configurations. */
static const struct plan_work grid = {.n_configs = 226, .tokens = 3.32e6, .scored = 2.3e6};

Test(plan, what_fits_stays_on_the_device)
{
    struct plan_device d = gpu(0);
    struct plan p = plan_for(&d);
    cr_expect_eq(p.mode, PLAN_RESIDENT, "30B takes 120 GB of 140");
    d.memory_bytes = (int64_t)80e9;
    p = plan_for(&d);
    cr_expect_eq(p.mode, PLAN_STREAMING);
    cr_expect_lt(p.budget, d.memory_bytes - d.reserve, "what a batch works in is set aside");
    d = gpu(shape_30b().total * 4);
    cr_expect_eq(plan_for(&d).mode, PLAN_RESIDENT);
    d.budget--;
    cr_expect_eq(plan_for(&d).mode, PLAN_STREAMING);
}

Test(plan, the_master_stays_on_the_host_where_only_the_compute_copy_fits)
{
    const struct plan_shape s = shape_30b();
    struct plan_device d = gpu((int64_t)70e9);
    d.host_bytes = (int64_t)100e9;
    d.link_per_s = 50e9;
    struct plan p = plan_for(&d);
    cr_expect_eq(p.mode, PLAN_HOST_MASTER, "60 GB of compute copy");
    cr_expect_eq(p.master_bytes, 2 * (s.total - s.head_rows * s.head_cols));
    cr_expect_leq(s.total * 2 + p.block_bytes + p.small_bytes, p.budget);
    const struct plan_work one = {.n_configs = 10, .tokens = 1e6, .scored = 1e6};
    const struct plan_cost c = plan_cost_of(&p, &s, &d, &one);
    cr_expect_eq(c.passes, 1);
    cr_expect_eq(c.bytes, (double)s.stored_bytes, "the files are read once");
    cr_expect_float_eq(c.read_s, c.bytes / 2e9 + 10 * (double)p.master_bytes / 50e9, 1e-6);
    d.host_bytes = (int64_t)50e9;
    cr_expect_eq(plan_for(&d).mode, PLAN_STREAMING, "the host has no room for it");
    d.host_bytes = (int64_t)100e9;
    d.budget = (int64_t)60e9;
    cr_expect_eq(plan_for(&d).mode, PLAN_STREAMING);
}

Test(plan, everything_is_within_the_budget)
{
    const struct plan_shape s = shape_30b();
    for (double gb = 2; gb < 120; gb *= 1.3) {
        const struct plan_device d = gpu((int64_t)(gb * 1e9));
        struct plan p;
        struct err e;
        if (plan_make(&s, &d, 2, "m", &p, &e) != ERR_OK)
            continue;
        cr_expect_eq(p.block_bytes + p.small_bytes + p.kept_bytes, p.budget, "%g GB", gb);
        cr_expect_geq(p.kept_bytes, 0);
        const int64_t step = p.is_cut_within ? s.part[2] : s.part[0] + s.part[1] + 2 * s.part[2];
        cr_expect_geq(p.block_bytes, step * (2 * p.n_masters + 2));
        cr_expect_geq(p.block_bytes, s.head_rows * s.head_cols * 2, "the head follows the layers");
        cr_expect_eq(p.head_rows, s.head_rows);
    }
}

Test(plan, more_memory_never_takes_longer)
{
    const struct plan_shape s = shape_30b();
    double last = INFINITY;
    int n = 0;
    for (double gb = 1.5; gb < 130; gb *= 1.05) {
        const struct plan_device d = gpu((int64_t)(gb * 1e9));
        struct plan p;
        struct err e;
        if (plan_make(&s, &d, 2, "m", &p, &e) != ERR_OK)
            continue;
        const double seconds = plan_cost_of(&p, &s, &d, &grid).seconds;
        cr_expect_leq(seconds, last * 1.01, "%g GB: %g s after %g s", gb, seconds, last);
        last = seconds;
        n++;
    }
    cr_expect_gt(n, 50);
}

Test(plan, a_budget_below_the_least_is_refused_with_sizes_and_remedy)
{
    const struct plan_shape s = shape_30b();
    struct plan p;
    struct err e = {0};
    struct plan_device d = gpu((int64_t)5e8);
    cr_assert_eq(plan_make(&s, &d, 2, "models/opt-30b", &p, &e), ERR_NOMEM);
    cr_expect(strstr(e.text, "models/opt-30b needs 120 GB, or at least ") == e.text, "%s", e.text);
    cr_expect_not_null(strstr(e.text, "the budget is 500 MB: raise --memory"), "%s", e.text);
    /* The least that it names is enough, and a little less is not. */
    const int64_t least = s.small * 4 + s.part[2] * 4;
    d.budget = least;
    cr_expect_eq(plan_make(&s, &d, 2, "m", &p, &e), ERR_OK, "%s", e.text);
    cr_expect(p.is_cut_within);
    cr_expect_eq(p.n_masters, 1);
    d.budget = least - 1;
    cr_expect_eq(plan_make(&s, &d, 2, "m", &p, &e), ERR_NOMEM);
}

Test(plan, a_head_that_may_come_in_parts_needs_no_more_than_a_step)
{
    struct plan_shape s = shape_30b();
    struct plan_device d = gpu((int64_t)1e9);
    struct plan p;
    struct err e = {0};
    d.head_step = d.head_chunk = 256;
    d.head_row_bytes = 100;
    s.head_rows *= 10;
    d.budget = s.small * 4 + s.part[2] * 4;
    cr_assert_eq(plan_make(&s, &d, 2, "m", &p, &e), ERR_OK, "%s", e.text);
    cr_expect_lt(p.head_rows, s.head_rows);
    cr_expect_gt(p.head_rows, 0);
    cr_expect_eq(p.head_rows % 256, 0);
    cr_expect_leq(s.head_cols * (p.head_rows * 2 + 256 * 2), p.block_bytes);
    cr_expect_eq(p.row_bytes, s.row_within + 100, "statistics of rows are kept between parts");
    d.budget = s.total * 2;
    cr_assert_eq(plan_make(&s, &d, 2, "m", &p, &e), ERR_OK, "%s", e.text);
    const int64_t step = s.part[0] + s.part[1] + 2 * s.part[2];
    cr_expect_eq(p.block_bytes, 6 * step, "room is for units: the head takes none beyond a step's");
}

Test(plan, weights_as_stored_take_wider_masters)
{
    const struct plan_shape s = shape_30b();
    const struct plan_device d = gpu((int64_t)15e9);
    struct plan narrow, wide;
    struct err e = {0};
    cr_assert_eq(plan_make(&s, &d, 2, "m", &narrow, &e), ERR_OK);
    cr_assert_eq(plan_make(&s, &d, 4, "m", &wide, &e), ERR_OK);
    cr_expect_gt(wide.block_bytes, narrow.block_bytes);
    cr_expect_lt(wide.kept_bytes, narrow.kept_bytes);
    cr_expect_eq(wide.stage_bytes, 4);
}

Test(plan, a_pass_takes_units_until_the_memory_is_full)
{
    const struct plan p = {.kept_bytes = 1000, .row_bytes = 10};
    const int64_t tokens[] = {500, 40, 40, 20, 1, 40};
    cr_expect_eq(plan_take(&p, tokens, 6, 0, 0), 4,
                 "the first lives elsewhere, the next three fill it");
    cr_expect_eq(plan_take(&p, tokens + 4, 2, 0, 0), 2);
    cr_expect_eq(plan_take(&p, tokens, 6, 300, 0), 2, "reference rows take their part");
    cr_expect_eq(plan_take(&p, tokens, 6, 5000, 0), 1, "one always goes");
    cr_expect_eq(plan_take(&p, tokens, 6, 0, 100), 1, "no more than a pass may take on, but one");
    cr_expect_eq(plan_take(&p, tokens + 1, 5, 0, 100), 3);
    cr_expect_eq(plan_take(&p, tokens, 0, 0, 0), 0);
}

Test(plan, cost_counts_a_checkpoint_a_pass)
{
    const struct plan_shape s = shape_30b();
    const struct plan_device d = gpu((int64_t)15e9);
    const struct plan p = plan_for(&d);
    const struct plan_work one = {.n_configs = 1, .tokens = 16384.0 * 100, .scored = 1000};
    const struct plan_cost c = plan_cost_of(&p, &s, &d, &one);
    const int64_t room = 1 + p.kept_bytes / (16384 * p.row_bytes);
    cr_expect_eq(c.passes, (100 + room - 1) / room);
    cr_expect_eq(c.bytes, (double)c.passes * (double)s.stored_bytes);
    cr_expect_float_eq(c.compute_s,
                       (2 * s.n_products * one.tokens + 2.0 * 50272 * 7168 * 1000) / 400e12, 1e-6);
    cr_expect_float_eq(c.seconds, fmax(c.compute_s, c.read_s), 1e-9, "both at a time");
    struct plan single = p;
    single.n_masters = 1;
    const struct plan_cost t = plan_cost_of(&single, &s, &d, &one);
    cr_expect_float_eq(t.seconds, t.compute_s + t.read_s, 1e-9, "in turn");
}
