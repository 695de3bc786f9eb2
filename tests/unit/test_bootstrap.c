/* Draws against NumPy (tests/golden/fits), sums against plain loops, and what the bootstrap promises: the same numbers for a seed
 * whatever the threads, the same draw for all configurations, nothing drawn where nothing is stored. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "analysis/bootstrap.h"
#include "analysis/draw.h"
#include "base/json.h"
#include "base/rng.h"
#include "tests/support/support.h"

static struct arena arena;
static struct err err;

static json_t *golden(const char *list)
{
    json_t *doc = NULL;
    cr_assert_eq(json_read(support_source("tests/golden/fits/values.json"), 4 << 20, &doc, &err),
                 ERR_OK, "%s", err.text);
    json_t *wanted = json_incref(json_object_get(doc, list));
    json_decref(doc);
    cr_assert_gt(json_array_size(wanted), 0, "%s", list);
    return wanted;
}

static double item(const json_t *o, const char *key, size_t i)
{
    return json_number_value(json_array_get(json_object_get(o, key), i));
}

static double member(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

Test(draw, resampled_accuracy_and_nats_per_token_are_numpys)
{
    enum { MAX_ITEMS = 128, RESAMPLES = 70 };
    json_t *draws = golden("draws");
    size_t i;
    json_t *d;
    json_array_foreach(draws, i, d)
    {
        int n = (int)json_array_size(json_object_get(d, "right"));
        cr_assert_leq(n, MAX_ITEMS);
        uint64_t right[MAX_ITEMS / 64] = {0};
        float nll[MAX_ITEMS], tokens[MAX_ITEMS];
        for (int k = 0; k < n; k++) {
            right[k / 64] |= (uint64_t)item(d, "right", (size_t)k) << k % 64;
            nll[k] = (float)item(d, "nll", (size_t)k);
            tokens[k] = (float)item(d, "tokens", (size_t)k);
        }
        uint16_t *counts = xcalloc(draw_counts_size(n), sizeof(*counts));
        for (int r = 0; r < RESAMPLES; r++) {
            uint32_t hits[DRAW_BLOCK];
            double sums[2 * DRAW_BLOCK];
            const uint64_t *bits = right;
            const float *columns[] = {nll, tokens};
            draw_counts((uint64_t)member(d, "seed"), (enum task)member(d, "task"), n,
                        r / DRAW_BLOCK, counts);
            draw_sum_bits(counts, n, &bits, 1, hits);
            draw_sum_floats(counts, n, columns, 2, sums);
            int at = r % DRAW_BLOCK;
            cr_expect_float_eq((double)hits[at] / n, item(d, "accuracy", (size_t)r), 1e-12,
                               "case %zu, resample %d", i, r);
            double want = item(d, "per_token", (size_t)r);
            cr_expect_leq(fabs(sums[at] / sums[DRAW_BLOCK + at] - want), 1e-9 * want,
                          "case %zu, resample %d", i, r);
        }
        xfree(counts);
    }
    json_decref(draws);
}

Test(draw, sums_are_those_of_a_plain_loop_for_every_number_of_items_and_columns)
{
    const int n_items[] = {1, 3, 31, 32, 33, 63, 64, 65, 200};
    enum { COLUMNS = 300, MAX_ITEMS = 200 }; /* more than a tile */
    static uint64_t bits[COLUMNS][MAX_ITEMS / 64 + 1];
    static float numbers[COLUMNS][MAX_ITEMS];
    static uint32_t hits[COLUMNS * DRAW_BLOCK];
    static double sums[COLUMNS * DRAW_BLOCK];
    const uint64_t *bit_columns[COLUMNS];
    const float *number_columns[COLUMNS];
    struct rng rng = {3};
    for (int c = 0; c < COLUMNS; c++) {
        bit_columns[c] = bits[c];
        number_columns[c] = numbers[c];
        for (int w = 0; w <= MAX_ITEMS / 64; w++)
            bits[c][w] = rng_u64(&rng);
        for (int i = 0; i < MAX_ITEMS; i++)
            numbers[c][i] = (float)rng_normal(&rng);
    }
    for (size_t k = 0; k < ARRAY_LEN(n_items); k++) {
        int n = n_items[k];
        uint16_t *counts = xcalloc(draw_counts_size(n), sizeof(*counts));
        draw_counts(9, TASK_piqa, n, 2, counts);
        draw_sum_bits(counts, n, bit_columns, COLUMNS, hits);
        draw_sum_floats(counts, n, number_columns, COLUMNS, sums);
        for (int c = 0; c < COLUMNS; c++)
            for (int r = 0; r < DRAW_BLOCK; r++) {
                uint32_t want = 0;
                double number = 0;
                for (int i = 0; i < n; i++) {
                    uint32_t times = counts[i * DRAW_BLOCK + r];
                    want += times * (uint32_t)(bits[c][i / 64] >> i % 64 & 1);
                    number += times * (double)numbers[c][i];
                }
                cr_assert_eq(hits[c * DRAW_BLOCK + r], want, "n %d column %d resample %d", n, c, r);
                cr_assert_float_eq(sums[c * DRAW_BLOCK + r], number, 1e-9, "n %d column %d", n, c);
            }
        for (int r = 0; r < DRAW_BLOCK; r++) {
            int total = 0;
            for (int i = 0; i < n; i++)
                total += counts[i * DRAW_BLOCK + r];
            cr_assert_eq(total, n, "a resample has as many items as the task");
        }
        xfree(counts);
    }
}

Test(bootstrap, quantiles_and_spread_are_numpys)
{
    json_t *spreads = golden("spreads");
    size_t i;
    json_t *s;
    json_array_foreach(spreads, i, s)
    {
        int n = (int)json_array_size(json_object_get(s, "v"));
        double *v = arena_array(&arena, (size_t)n, sizeof(*v));
        for (int k = 0; k < n; k++)
            v[k] = item(s, "v", (size_t)k);
        cr_expect_float_eq(spread_of(v, n), member(s, "spread"), 1e-12, "n = %d", n);
        struct interval range = interval_of(v, n);
        cr_expect_float_eq(range.low, member(s, "low"), 1e-12, "n = %d", n);
        cr_expect_float_eq(range.high, member(s, "high"), 1e-12, "n = %d", n);
    }
    double one = 3;
    cr_expect(isnan(interval_of(&one, 1).low));
    cr_expect(isnan(spread_of(&one, 1)));
    json_decref(spreads);
    arena_release(&arena);
}

/* ---- a small world: ROWS configurations over the same items ---- */

enum { ROWS = 6, ITEMS = 400, DOCUMENTS = 90, TASKS = TASK_piqa + 1 };

struct world {
    struct frame frame;
    struct items items;
};

static struct item_job *job_of(struct world *w, int row, enum task t)
{
    for (int i = 0; i < w->items.n; i++)
        if (w->items.jobs[i].job == w->frame.rows[row].job[t])
            return &w->items.jobs[i];
    BUG("no such job");
}

static void add_job(struct world *w, int row, enum task t, struct rng *rng)
{
    struct item_job *j = &w->items.jobs[w->items.n++];
    *j = (struct item_job){.job = w->items.n, .task = t, .n = ITEMS, .set = (int)t};
    w->frame.rows[row].job[t] = j->job;
    if (t == TASK_perplexity) {
        float *nll = arena_array(&arena, DOCUMENTS, sizeof(*nll));
        static double tokens[DOCUMENTS];
        for (int i = 0; i < DOCUMENTS; i++) {
            tokens[i] = 100 + i;
            nll[i] = (float)(tokens[i] * (3 + 0.1 * row + 0.3 * rng_normal(rng)));
        }
        j->n = DOCUMENTS;
        j->nll = nll;
        j->tokens = tokens;
        return;
    }
    uint64_t *bits = arena_array(&arena, ITEMS / 64 + 1, sizeof(*bits));
    for (int i = 0; i < ITEMS; i++)
        bits[i / 64] |= (uint64_t)(rng_uniform(rng) < 0.6) << i % 64;
    j->right[SCORE_ACC] = bits;
    if (t == TASK_hellaswag || t == TASK_piqa)
        j->right[SCORE_NORM] = bits;
}

static struct world small_world(void)
{
    struct world w = {
        .frame = {.rows = arena_array(&arena, ROWS, sizeof(struct frame_row)),
                  .n = ROWS,
                  .cap = 100},
        .items = {.jobs = arena_array(&arena, (size_t)ROWS * TASKS, sizeof(struct item_job))}};
    struct rng rng = {11};
    for (int row = 0; row < ROWS; row++) {
        double acc = 0;
        for (int t = 0; t < TASKS; t++)
            add_job(&w, row, (enum task)t, &rng);
        for (int t = 0; t < TASKS; t++)
            if (t != TASK_perplexity)
                acc += items_accuracy(job_of(&w, row, (enum task)t), SCORE_ACC, 0, ITEMS) / 4;
        double *metric = w.frame.rows[row].metric;
        metric[METRIC_ZERO_SHOT] = metric[METRIC_ZERO_SHOT_NORM] = acc;
        metric[METRIC_NLL] = items_nll(job_of(&w, row, TASK_perplexity), 0, DOCUMENTS);
        metric[METRIC_PERPLEXITY] = exp(metric[METRIC_NLL]);
        metric[METRIC_KL] = NAN;
    }
    return w;
}

static struct bootstrap run(const struct world *w, int64_t n, int64_t seed, int64_t threads)
{
    struct bootstrap b;
    struct bootstrap_opts o = {n, seed, threads};
    cr_assert_eq(bootstrap_run(&w->frame, &w->items, &o, &arena, &b, &err), ERR_OK, "%s", err.text);
    return b;
}

Test(bootstrap, a_seed_gives_the_same_numbers_on_any_number_of_threads)
{
    struct world w = small_world();
    struct bootstrap one = run(&w, 500, 7, 1);
    for (int64_t threads = 2; threads <= 5; threads++) {
        struct bootstrap many = run(&w, 500, 7, threads);
        for (int m = 0; m < METRIC_COUNT; m++) {
            if (m == METRIC_KL)
                continue;
            cr_expect_eq(memcmp(one.value[m], many.value[m], one.bytes), 0, "%lld threads, %s",
                         (long long)threads, metric_info_of((enum metric_id)m)->option);
            cr_expect_eq(memcmp(one.stderr_[m], many.stderr_[m], ROWS * sizeof(double)), 0);
        }
        for (int t = 0; t < TASKS; t++)
            cr_expect_eq(one.task[t][SCORE_ACC][3].stderr_, many.task[t][SCORE_ACC][3].stderr_);
        bootstrap_release(&many);
    }
    struct bootstrap fewer = run(&w, 130, 7, 2);
    cr_expect_eq(memcmp(one.value[METRIC_NLL], fewer.value[METRIC_NLL], fewer.bytes), 0,
                 "fewer resamples are the first of more");
    struct bootstrap other = run(&w, 500, 8, 1);
    cr_expect_neq(memcmp(one.value[METRIC_NLL], other.value[METRIC_NLL], one.bytes), 0,
                  "another seed draws otherwise");
    bootstrap_release(&fewer);
    bootstrap_release(&other);
    bootstrap_release(&one);
    arena_release(&arena);
}

Test(bootstrap, standard_errors_are_those_of_theory)
{
    struct world w = small_world();
    struct bootstrap b = run(&w, 4000, 1, 2);
    for (int row = 0; row < ROWS; row++) {
        double variance = 0;
        for (int t = 0; t < TASKS; t++) {
            struct task_estimate v = b.task[t][SCORE_ACC][row];
            if (t == TASK_perplexity)
                continue;
            double p = items_accuracy(job_of(&w, row, (enum task)t), SCORE_ACC, 0, ITEMS);
            double theory = sqrt(p * (1 - p) / ITEMS);
            cr_expect_float_eq(v.value, p, 1e-12);
            cr_expect_float_eq(v.stderr_ / theory, 1, 0.05, "row %d task %d", row, t);
            variance += v.stderr_ * v.stderr_ / 16;
        }
        cr_expect_float_eq(b.stderr_[METRIC_ZERO_SHOT][row] / sqrt(variance), 1, 0.05);
    }
    bootstrap_release(&b);
    arena_release(&arena);
}

Test(bootstrap, configurations_that_agree_on_every_item_never_differ)
{
    struct world w = small_world();
    for (int t = 0; t < TASKS; t++) {
        struct item_job *to = job_of(&w, 1, (enum task)t);
        const struct item_job *from = job_of(&w, 0, (enum task)t);
        to->nll = from->nll;
        memcpy(to->right, from->right, sizeof(to->right));
    }
    memcpy(w.frame.rows[1].metric, w.frame.rows[0].metric, sizeof(w.frame.rows[0].metric));
    struct bootstrap b = run(&w, 200, 1, 2);
    for (int r = 0; r < 200; r++) {
        const double *v = b.value[METRIC_ZERO_SHOT] + (size_t)r * ROWS;
        const double *nll = b.value[METRIC_NLL] + (size_t)r * ROWS;
        cr_assert_eq(v[0], v[1], "resample %d", r);
        cr_assert_eq(nll[0], nll[1], "resample %d", r);
        cr_assert_neq(nll[0], nll[2]);
    }
    bootstrap_release(&b);
    arena_release(&arena);
}

Test(bootstrap, rows_without_items_keep_their_value_and_say_so)
{
    struct world w = small_world();
    w.frame.rows[2].job[TASK_piqa] = 0;
    w.frame.rows[4].job[TASK_perplexity] = 999; /* done, but its samples could not be read */
    w.frame.rows[5].metric[METRIC_ZERO_SHOT] = NAN;
    struct bootstrap b = run(&w, 100, 1, 2);
    cr_expect_eq(b.n_not_drawn, 2);
    cr_expect_not(b.is_drawn[METRIC_ZERO_SHOT][2]);
    cr_expect(b.is_drawn[METRIC_NLL][2]);
    cr_expect(isnan(b.stderr_[METRIC_ZERO_SHOT][2]));
    for (int r = 0; r < 100; r++) {
        cr_expect_eq(b.value[METRIC_ZERO_SHOT][(size_t)r * ROWS + 2],
                     w.frame.rows[2].metric[METRIC_ZERO_SHOT]);
        cr_expect_eq(b.value[METRIC_NLL][(size_t)r * ROWS + 4], w.frame.rows[4].metric[METRIC_NLL]);
        cr_expect(isnan(b.value[METRIC_ZERO_SHOT][(size_t)r * ROWS + 5]), "not measured stays so");
    }
    bootstrap_release(&b);
    arena_release(&arena);
}

Test(bootstrap, items_that_contradict_the_stored_value_are_not_drawn)
{
    struct world w = small_world();
    w.frame.rows[1].metric[METRIC_NLL] += 0.5;
    w.frame.rows[3].metric[METRIC_ZERO_SHOT_NORM] -= 0.01;
    struct bootstrap b = run(&w, 100, 1, 2);
    cr_expect_eq(b.n_contradicted, 2);
    cr_expect_eq(b.n_not_drawn, 2);
    cr_expect_not(b.is_drawn[METRIC_PERPLEXITY][1]);
    cr_expect(b.is_drawn[METRIC_ZERO_SHOT][3]);
    for (int r = 0; r < 100; r++)
        cr_expect_eq(b.value[METRIC_NLL][(size_t)r * ROWS + 1], w.frame.rows[1].metric[METRIC_NLL]);
    bootstrap_release(&b);
    arena_release(&arena);
}

Test(bootstrap, an_infinite_document_is_capped_in_every_resample)
{
    struct world w = small_world();
    ((float *)job_of(&w, 0, TASK_perplexity)->nll)[5] = INFINITY;
    ((float *)job_of(&w, 1, TASK_perplexity)->nll)[5] = NAN;
    w.frame.rows[0].metric[METRIC_NLL] = w.frame.rows[1].metric[METRIC_NLL] = log(100);
    struct bootstrap b = run(&w, 100, 1, 1);
    for (int r = 0; r < 100; r++)
        for (int row = 0; row < 2; row++) {
            double nll = b.value[METRIC_NLL][(size_t)r * ROWS + (size_t)row];
            double ppl = b.value[METRIC_PERPLEXITY][(size_t)r * ROWS + (size_t)row];
            cr_assert(nll <= log(100), "resample %d row %d: %g", r, row, nll);
            cr_assert_float_eq(ppl, exp(nll), 1e-9);
        }
    bootstrap_release(&b);
    arena_release(&arena);
}

Test(bootstrap, without_resamples_there_are_no_matrices_and_no_intervals)
{
    struct world w = small_world();
    struct bootstrap b = run(&w, 0, 1, 1);
    cr_expect_null(b.value[METRIC_NLL]);
    const int row = 0;
    const double weight = 1;
    struct linear l = {1, &row, &weight};
    cr_expect(isnan(bootstrap_interval(&b, METRIC_NLL, &l).low));
    cr_expect(isnan(b.stderr_[METRIC_NLL][0]));
    bootstrap_release(&b);
    arena_release(&arena);
}

Test(bootstrap, an_empty_frame_is_no_special_case)
{
    struct world w = {.frame = {.cap = 100}};
    struct bootstrap b = run(&w, 100, 1, 3);
    cr_expect_eq(b.n_rows, 0);
    bootstrap_release(&b);
    arena_release(&arena);
}

Test(bootstrap, a_matrix_that_does_not_fit_is_an_error)
{
    struct world w = small_world();
    struct bootstrap b;
    struct bootstrap_opts o = {100, 1, 1};
    for (long n = 1; n <= 4; n++) {
        mem_fail_after(n);
        cr_expect_eq(bootstrap_run(&w.frame, &w.items, &o, &arena, &b, &err), ERR_NOMEM,
                     "allocation %ld", n);
        cr_expect_null(b.value[METRIC_NLL], "nothing is left behind");
    }
    mem_fail_after(0);
    arena_release(&arena);
}

Test(bootstrap, the_share_of_resamples_names_the_best_curve)
{
    struct world w = small_world();
    int rows[] = {0, 1, 2};
    struct curve_point points[3];
    struct curve curves[3];
    for (int c = 0; c < 3; c++) {
        points[c] = (struct curve_point){.log2_bits = 20,
                                         .value = w.frame.rows[c].metric[METRIC_NLL],
                                         .rows = &rows[c],
                                         .n_rows = 1};
        curves[c] = (struct curve){.k = 4 + c, .points = &points[c], .n = 1};
    }
    points[2].log2_bits = 21; /* does not cover the budget */
    struct group g = {.curves = curves, .n_curves = 3};
    struct bootstrap b = run(&w, 1000, 1, 2);
    double p[3];
    bootstrap_best(&b, METRIC_NLL, &g, 20, p);
    int wins = 0;
    for (int r = 0; r < 1000; r++)
        wins += b.value[METRIC_NLL][(size_t)r * ROWS] <= b.value[METRIC_NLL][(size_t)r * ROWS + 1];
    cr_expect_float_eq(p[0], wins / 1000.0, 1e-9);
    cr_expect_float_eq(p[0] + p[1], 1, 1e-9);
    cr_expect_eq(p[2], 0);
    cr_expect_gt(p[0], 0.5, "row 0 is better by a tenth of a nat");
    bootstrap_release(&b);
    arena_release(&arena);
}
