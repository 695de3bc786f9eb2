/* Per-item scores from a database: they give the stored metrics again, and samples that cannot be trusted are left out. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "analysis/bootstrap.h"
#include "analysis/zstd_blob.h"
#include "schema/store_impl.h"
#include "tests/support/planted.h"
#include "tests/support/support.h"

static char *dir, *path;
static struct arena arena;
static struct err err;

#define OK(call) cr_assert_eq((call), ERR_OK, "%s", err.text)

static void setup(void)
{
    dir = support_tmpdir();
    path = arena_printf(&arena, "%s/p.db", dir);
    struct planted p = planted_paper();
    p.families = 1U << PLANTED_PYTHIA;
    p.grids = PLANTED_WIDTHS;
    p.max_sizes = 2;
    OK(planted_write(&p, path, &err));
}

static void teardown(void)
{
    arena_release(&arena);
    support_tmpdir_remove(dir);
}

TestSuite(item_scores, .init = setup, .fini = teardown);

struct loaded {
    struct store *store;
    struct frame frame;
    struct items items;
};

static struct loaded load(void)
{
    struct loaded l = {0};
    struct frame_filter any = {0};
    OK(store_open(path, STORE_READ, &l.store, &err));
    OK(frame_load(l.store, &any, &arena, &l.frame, &err));
    frame_cap(&l.frame, 100);
    OK(items_read(l.store, &l.frame, &arena, &l.items, &err));
    return l;
}

/* A change of the tables, as damage or another program would make it. */
static void change(const char *sql)
{
    struct store *s = NULL;
    OK(store_open(path, STORE_WRITE, &s, &err));
    OK(store_exec(s, sql, &err));
    store_close(s);
}

Test(item_scores, items_of_a_row_give_its_stored_metrics)
{
    struct loaded l = load();
    cr_assert_gt(l.frame.n, 10);
    cr_expect_eq(l.items.n, l.frame.n * PLANTED_TASKS);
    cr_expect_eq(l.items.n_unreadable, 0, "%s", l.items.unreadable);
    for (int i = 0; i < l.frame.n; i++) {
        const struct frame_row *row = &l.frame.rows[i];
        double acc = 0, norm = 0;
        for (int t = 0; t < PLANTED_TASKS; t++) {
            const struct item_job *j = items_of(&l.items, row->job[t]);
            cr_assert_not_null(j);
            bool is_normed = t == TASK_hellaswag || t == TASK_piqa;
            if (t != TASK_perplexity) {
                acc += items_accuracy(j, SCORE_ACC, 0, j->n) / 4;
                norm += items_accuracy(j, is_normed ? SCORE_NORM : SCORE_ACC, 0, j->n) / 4;
            } else {
                cr_expect_float_eq(items_nll(j, 0, j->n), row->metric[METRIC_NLL], 1e-5);
            }
        }
        cr_expect_float_eq(acc, row->metric[METRIC_ZERO_SHOT], 1e-9, "row %d", i);
        cr_expect_float_eq(norm, row->metric[METRIC_ZERO_SHOT_NORM], 1e-9, "row %d", i);
    }
    cr_expect_null(items_of(&l.items, 0));
    store_close(l.store);
}

Test(item_scores, parts_of_a_job_add_up_to_it)
{
    struct loaded l = load();
    const struct item_job *j = items_of(&l.items, l.frame.rows[0].job[TASK_piqa]);
    int half = j->n / 3;
    double whole = items_accuracy(j, SCORE_ACC, 0, half) * half +
                   items_accuracy(j, SCORE_ACC, half, j->n) * (j->n - half);
    cr_expect_float_eq(whole / j->n, items_accuracy(j, SCORE_ACC, 0, j->n), 1e-12);
    cr_expect(isnan(items_accuracy(j, SCORE_ACC, 5, 5)));
    cr_expect(isnan(items_nll(j, 0, j->n)), "accuracy tasks have no cross entropy");
    store_close(l.store);
}

Test(item_scores, damaged_samples_are_left_out_and_named)
{
    static const struct {
        const char *sql, *why;
    } damages[] = {
        {"UPDATE sample SET codec = 'zstd-f32/9' WHERE job_id = 1", "codec"},
        {"UPDATE sample SET codec = 'raw' WHERE job_id = 2", "codec"},
        {"UPDATE sample SET blob = x'' WHERE job_id = 3", "damaged"},
        {"UPDATE sample SET blob = x'28b52ffd00' WHERE job_id = 4", "damaged"},
        {"UPDATE sample SET blob = substr(blob, 1, length(blob) / 2) WHERE job_id = 5", "damaged"},
        {"UPDATE sample SET blob = CAST('no zstd at all' AS BLOB) WHERE job_id = 6", "damaged"},
    };
    for (size_t i = 0; i < ARRAY_LEN(damages); i++) {
        change(damages[i].sql);
        struct loaded l = load();
        cr_assert_eq(l.items.n_unreadable, (int)i + 1, "%s", damages[i].sql);
        cr_expect_eq(l.items.n, l.frame.n * PLANTED_TASKS - (int)i - 1);
        cr_expect_not_null(strstr(l.items.unreadable, "job 1: codec"), "%s", l.items.unreadable);
        store_close(l.store);
    }
}

Test(item_scores, samples_without_their_facts_are_left_out)
{
    change("DELETE FROM item WHERE i = 3 AND set_id IN (SELECT id FROM item_set WHERE task = "
           "'piqa')");
    change("DELETE FROM item WHERE set_id IN (SELECT id FROM item_set WHERE task = 'lambada')");
    change("UPDATE item SET chars = '[1,2,3]' WHERE i = 0 AND set_id IN (SELECT id FROM item_set "
           "WHERE task = 'winogrande')");
    change("UPDATE item SET bytes = '[[' WHERE i = 1 AND set_id IN (SELECT id FROM item_set WHERE "
           "task = 'hellaswag')");
    struct loaded l = load();
    cr_expect_eq(l.items.n, l.frame.n, "perplexity is left");
    cr_expect_eq(l.items.n_unreadable, 4 * l.frame.n);
    struct bootstrap b;
    struct bootstrap_opts o = {50, 1, 2};
    OK(bootstrap_run(&l.frame, &l.items, &o, &arena, &b, &err));
    cr_expect_eq(b.n_not_drawn, l.frame.n);
    bootstrap_release(&b);
    store_close(l.store);
}

Test(item_scores, other_items_of_the_same_file_and_tokenizer_are_kept_apart)
{
    change("INSERT INTO item_set SELECT 1000, 'other', data_sha256, task, tokenizer_sha256 FROM "
           "item_set WHERE task = 'perplexity' LIMIT 1");
    change("INSERT INTO item SELECT 1000, i, gold, chars, bytes, tokens FROM item WHERE i < 9 AND "
           "set_id = (SELECT min(id) FROM item_set WHERE task = 'perplexity')");
    struct loaded l = load();
    cr_expect_eq(l.items.n_unreadable, 0, "%s", l.items.unreadable);
    store_close(l.store);
}

Test(item_scores, samples_longer_than_their_items_are_left_out)
{
    change("DELETE FROM item WHERE i >= 7 AND set_id IN (SELECT id FROM item_set WHERE task = "
           "'perplexity')");
    struct loaded l = load();
    cr_expect_eq(l.items.n_unreadable, l.frame.n);
    store_close(l.store);
}

Test(item_scores, a_perplexity_that_is_no_number_is_capped_and_not_mistaken_for_absent)
{
    change("UPDATE metric SET value = NULL WHERE name IN ('nll', 'perplexity') AND job_id IN "
           "(SELECT job FROM cells WHERE task = 'perplexity' LIMIT 2)");
    change("UPDATE metric SET value = 5.0 WHERE name = 'nll' AND job_id IN "
           "(SELECT job FROM cells WHERE task = 'perplexity' LIMIT 1 OFFSET 2)");
    change("UPDATE job SET state = 'pending' WHERE id IN "
           "(SELECT job FROM cells WHERE task = 'perplexity' LIMIT 1 OFFSET 3)");
    change("DELETE FROM metric WHERE job_id IN (SELECT id FROM job WHERE state = 'pending')");
    change("DELETE FROM run WHERE job_id IN (SELECT id FROM job WHERE state = 'pending')");
    struct loaded l = load();
    int n_infinite = 0, n_absent = 0;
    for (int i = 0; i < l.frame.n; i++) {
        n_infinite += isinf(l.frame.rows[i].raw_nll) != 0;
        n_absent += isnan(l.frame.rows[i].metric[METRIC_NLL]) != 0;
    }
    cr_expect_eq(n_infinite, 2);
    cr_expect_eq(n_absent, 1);
    cr_expect_eq(l.frame.n_capped, 3);
    frame_cap(&l.frame, 0);
    cr_expect_eq(l.frame.n_capped, 0);
    n_absent = 0;
    for (int i = 0; i < l.frame.n; i++)
        n_absent += isnan(l.frame.rows[i].metric[METRIC_NLL]) != 0;
    cr_expect_eq(n_absent, 3, "without a cap infinite values cannot be drawn");
    store_close(l.store);
}

Test(item_scores, samples_of_other_tasks_are_not_taken_for_items)
{
    struct loaded l = load();
    l.frame.rows[0].job[TASK_weight_std] = l.frame.rows[0].job[TASK_piqa];
    l.frame.rows[0].job[TASK_piqa] = 0;
    OK(items_read(l.store, &l.frame, &arena, &l.items, &err));
    cr_expect_eq(l.items.n, l.frame.n * PLANTED_TASKS - 1);
    store_close(l.store);
}

Test(item_scores, a_reader_keeps_its_snapshot_while_a_sweep_writes)
{
    struct store *reader = NULL;
    OK(store_open(path, STORE_READ, &reader, &err));
    OK(store_snapshot(reader, &err));
    int64_t before = 0, after = 0;
    OK(store_query_int(reader, "SELECT count(*) FROM samples", 0, &before, &err));
    change("DELETE FROM sample WHERE job_id < 10");
    OK(store_query_int(reader, "SELECT count(*) FROM samples", 0, &after, &err));
    cr_expect_eq(before, after);
    store_close(reader);
    struct loaded l = load();
    cr_expect_eq(l.items.n, l.frame.n * PLANTED_TASKS - 9);
    store_close(l.store);
}

Test(zstd_blob, refuses_what_is_no_stream_of_floats, .init = NULL, .fini = NULL)
{
    float out[4];
    size_t n = 0;
    cr_expect_not(zstd_blob_unpack("junk", 4, out, 4, &n));
    cr_expect_not(zstd_blob_unpack("", 0, out, 4, &n) && n > 0);
    /* zstd of "abc": a frame of three bytes, no whole float */
    static const unsigned char three[] = {0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x03,
                                          0x19, 0x00, 0x00, 'a',  'b',  'c'};
    cr_expect_not(zstd_blob_unpack(three, sizeof(three), out, 4, &n));
}
