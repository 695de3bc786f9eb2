/* The views against docs/SCHEMA.md: names and order of columns, and what stands in them. */
#include <criterion/criterion.h>
#include <string.h>

#include "schema/store_impl.h"
#include "tests/support/support.h"
#include "tests/support/sweep_fixture.h"

static char *dir;
static struct store *store;
static struct arena arena;
static struct err err;
static int64_t worker_id;

#define OK(call) cr_assert_eq((call), ERR_OK, "%s", err.text)

static void setup(void)
{
    dir = support_tmpdir();
    OK(store_open(arena_printf(&arena, "%s/t.db", dir), STORE_CREATE, &store, &err));
    struct store_worker w = {"uuid-1", "host", "cpu", "isobit 0.1.0", "fp32", "", 1, 1 << 30, 42};
    OK(store_worker_hello(store, &w, &worker_id, &err));
}

static void teardown(void)
{
    store_close(store);
    arena_release(&arena);
    support_tmpdir_remove(dir);
}

TestSuite(views, .init = setup, .fini = teardown);

static enum err_code take_num(void *arg, const struct store_row *r, struct err *e)
{
    (void)e;
    *(double *)arg = store_col_num(r, 0);
    return ERR_OK;
}

static double ask(const char *sql)
{
    double v = -1;
    OK(store_query(store, sql, NULL, 0, take_num, &v, &err));
    return v;
}

/* Gives the job of evaluation number `eval` (from 1) and configuration `config` the value 0.1 * eval. */
static void finish_task(int64_t config, int64_t eval, enum task task)
{
    char *where = arena_printf(&arena, "FROM job WHERE config_id = %lld AND eval_id = %lld",
                               (long long)config, (long long)eval);
    int64_t job = (int64_t)ask(arena_printf(&arena, "SELECT id %s", where));
    int attempt = (int)ask(arena_printf(&arena, "SELECT attempt %s", where)) + 1;
    int64_t set = (int64_t)ask(arena_printf(&arena, "SELECT set_id %s", where));
    struct job_result r = fixture_result(&arena, task, 0.1 * (double)eval);
    struct store_run_facts facts = {1, config, set, "host", 1};
    struct store_samples none = {0};
    bool is_ours = false;
    OK(store_begin(store, &err));
    OK(fixture_lease(store, job, attempt, worker_id, &err));
    OK(store_done(store, &(struct store_fence){job, attempt, worker_id}, &facts, &r, &none,
                  &is_ours, &err));
    OK(store_pin_weights(store, 1, r.weights_sha256, r.n_params, r.n_params_linear, &err));
    OK(store_commit(store, &err));
    cr_assert(is_ours);
}

static void finish(int64_t config, int64_t eval)
{
    finish_task(config, eval, (enum task)((eval - 1) % TASK_COUNT));
}

static void plan(const char *name, int n_configs, int n_evals)
{
    struct sweep sw = fixture_sweep(&arena, name, 1, n_configs, n_evals);
    struct store_plan_counts counts = {0};
    OK(store_plan(store, &sw, 0, &counts, &err));
}

/* ---- names ---- */

static enum err_code add_name(void *arg, const struct store_row *r, struct err *e)
{
    (void)e;
    struct buf *b = arg;
    buf_printf(b, "%s%s", b->len > 0 ? ", " : "", store_col_text(r, 0));
    return ERR_OK;
}

/* More columns may follow the fixed ones. */
Test(views, columns_are_those_of_the_contract)
{
    static const struct {
        const char *view, *columns;
    } contract[] = {
        {"jobs",
         "key, sweep, state, attempts, priority, family, size, k, dtype, exponent_bits, "
         "subnormal_shift, block, "
         "center, outlier_pct, outlier_rule, compute, evaluation, task, worker, seconds, error"},
        {"results", "key, sweep, family, size, n_params, n_params_linear, k, dtype, exponent_bits, "
                    "subnormal_shift, block, center, "
                    "outlier_pct, outlier_rule, compute, evaluation, task, metric, value, stderr, "
                    "n, bits_per_param, "
                    "total_bits_full, total_bits_nominal, total_bits_linear, device, seconds, "
                    "program, weights_sha256, data_sha256, "
                    "finished_at"},
        {"scaling", "sweep, family, size, k, dtype, exponent_bits, subnormal_shift, block, center, "
                    "outlier_pct, outlier_rule, "
                    "compute, n_params, bits_per_param, total_bits_full, total_bits_nominal, "
                    "total_bits_linear, mean_zero_shot, "
                    "mean_zero_shot_norm, nll, perplexity, kl_to_16bit"},
        {"progress", "sweep, pending, leased, done, buried, jobs_per_s, eta_s"},
        {"workers", "worker, host, device, program, state"},
        {"failures", "key, sweep, state, attempt, outcome, code, text"},
        {"cells", "sweep, model_id, config_id, task, job, data, tokenizer"},
        {"samples", "job, codec, blob, item_set"},
        {"items", "data, task, tokenizer, i, gold, chars, bytes, tokens, item_set"},
    };
    for (size_t i = 0; i < ARRAY_LEN(contract); i++) {
        struct buf names = {0};
        const char *params[] = {contract[i].view};
        OK(store_query(store, "SELECT name FROM pragma_table_info(?1) ORDER BY cid", params, 1,
                       add_name, &names, &err));
        size_t n = strlen(contract[i].columns);
        cr_expect(strncmp(names.data, contract[i].columns, n) == 0 &&
                      (names.data[n] == '\0' || names.data[n] == ','),
                  "%s has %s", contract[i].view, names.data);
        buf_release(&names);
    }
}

Test(views, every_view_is_drawn_in_the_document)
{
    struct buf text = {0}, names = {0};
    struct support_run r =
        support_shell(arena_printf(&arena, "cat %s", support_source("docs/SCHEMA.md")));
    buf_add(&text, r.out.data, r.out.len);
    OK(store_query(store, "SELECT name FROM sqlite_schema WHERE type = 'view'", NULL, 0, add_name,
                   &names, &err));
    struct str rest = {names.data, names.len}, name;
    while (str_next_field(&rest, ',', &name)) {
        name = str_trim(name);
        cr_expect_not_null(
            strstr(text.data, arena_printf(&arena, "| `%.*s` |", (int)name.n, name.p)), "%.*s",
            (int)name.n, name.p);
    }
    support_run_release(&r);
    buf_release(&text);
    buf_release(&names);
}

/* ---- contents ---- */

Test(views, mean_zero_shot_waits_for_all_four_tasks)
{
    plan("demo", 2, 5);
    for (int64_t eval = 1; eval <= 4; eval++)
        finish(1, eval);
    cr_expect_eq(ask("SELECT count(*) FROM scaling"), 2);
    cr_expect_eq(ask("SELECT count(mean_zero_shot) FROM scaling"), 0);
    finish(1, 5);
    cr_expect_float_eq(ask("SELECT mean_zero_shot FROM scaling WHERE k = 16"),
                       (0.2 + 0.3 + 0.4 + 0.5) / 4, 1e-12);
    /* The fixture's acc_norm is acc + 0.1, for hellaswag and piqa only. */
    cr_expect_float_eq(ask("SELECT mean_zero_shot_norm FROM scaling WHERE k = 16"),
                       (0.2 + 0.3 + 0.5 + 0.6) / 4, 1e-12);
    cr_expect_float_eq(ask("SELECT perplexity FROM scaling WHERE k = 16"), 0.1, 1e-12);
    cr_expect_float_eq(ask("SELECT nll FROM scaling WHERE k = 16"), log(0.1), 1e-12);
    cr_expect_eq(ask("SELECT kl_to_16bit IS NULL FROM scaling WHERE k = 16"), 1);
    cr_expect_eq(ask("SELECT n_params FROM scaling WHERE k = 16"), 1000000);
    cr_expect_float_eq(ask("SELECT bits_per_param FROM scaling WHERE k = 16"), 4.25, 1e-12);
    cr_expect_eq(ask("SELECT perplexity IS NULL FROM scaling WHERE k = 3"), 1);
}

Test(views, the_first_evaluation_of_a_task_speaks_for_it)
{
    plan("demo", 1, 2 * TASK_COUNT); /* every task twice */
    for (int64_t eval = 2 * TASK_COUNT; eval >= 1; eval--)
        finish(1, eval);
    cr_expect_eq(ask("SELECT count(*) FROM scaling"), 1);
    cr_expect_float_eq(ask("SELECT mean_zero_shot FROM scaling"), (0.2 + 0.3 + 0.4 + 0.5) / 4,
                       1e-12);
    cr_expect_float_eq(ask("SELECT perplexity FROM scaling"), 0.1, 1e-12);
}

/* Perplexity with these max_tokens, in this order; 0 ends the list. */
static void plan_tokens(const char *name, int n_configs, const int64_t *max_tokens)
{
    int n = 0;
    while (max_tokens[n] != 0)
        n++;
    struct sweep sw = fixture_sweep(&arena, name, 1, n_configs, n);
    struct store_plan_counts counts = {0};
    for (int i = 0; i < n; i++) {
        sw.evals[i].spec = sw.evals[0].spec;
        sw.evals[i].spec.name = arena_printf(&arena, "corpus%d", i);
        sw.evals[i].spec.max_tokens = max_tokens[i];
    }
    OK(store_plan(store, &sw, 0, &counts, &err));
}

Test(views, scaling_follows_the_spec_as_planned_last)
{
    plan_tokens("demo", 1, (const int64_t[]){1024, 0});
    finish_task(1, 1, TASK_perplexity);
    plan_tokens("demo", 2, (const int64_t[]){4096, 0}); /* an option edited, a cell added */
    cr_expect_eq(ask("SELECT count(*) FROM scaling"), 2);
    cr_expect_eq(ask("SELECT count(perplexity) FROM scaling"), 0, "the new jobs are not done");
    cr_expect_eq(ask("SELECT count(*) FROM cells"), 0);
    for (int64_t config = 1; config <= 2; config++)
        finish_task(config, 2, TASK_perplexity);
    cr_expect_eq(ask("SELECT count(*) FROM scaling WHERE abs(perplexity - 0.2) < 1e-12"), 2);
    cr_expect_eq(ask("SELECT count(*) FROM cells"), 2);
    cr_expect_eq(ask("SELECT count(*) FROM results WHERE metric = 'perplexity'"), 3, "all stay");
    cr_expect_eq(ask("SELECT total FROM progress"), 3, "a job never leaves its sweep");
    plan_tokens("demo", 1, (const int64_t[]){1024, 0}); /* and back: nothing is run again */
    cr_expect_float_eq(ask("SELECT perplexity FROM scaling"), 0.1, 1e-12);
    cr_expect_eq(ask("SELECT count(*) FROM scaling"), 1, "the other cell has no such job");
}

Test(views, the_first_evaluation_is_that_of_the_sweeps_own_spec)
{
    plan_tokens("first", 1, (const int64_t[]){1024, 4096, 0});
    plan_tokens("second", 1, (const int64_t[]){4096, 1024, 0});
    finish_task(1, 1, TASK_perplexity);
    finish_task(1, 2, TASK_perplexity);
    cr_expect_float_eq(ask("SELECT perplexity FROM scaling WHERE sweep = 'first'"), 0.1, 1e-12);
    cr_expect_float_eq(ask("SELECT perplexity FROM scaling WHERE sweep = 'second'"), 0.2, 1e-12);
    cr_expect_eq(ask("SELECT job FROM cells WHERE sweep = 'second'"), 2);
    plan_tokens("first", 1, (const int64_t[]){4096, 1024, 0}); /* turned round */
    cr_expect_float_eq(ask("SELECT perplexity FROM scaling WHERE sweep = 'first'"), 0.2, 1e-12);
}

Test(views, scaling_and_progress_show_a_shared_job_in_every_sweep)
{
    plan("first", 1, 5);
    plan("second", 2, 5);
    for (int64_t eval = 1; eval <= 5; eval++)
        finish(1, eval);
    cr_expect_eq(ask("SELECT count(mean_zero_shot) FROM scaling WHERE sweep = 'first'"), 1);
    cr_expect_eq(ask("SELECT count(mean_zero_shot) FROM scaling WHERE sweep = 'second'"), 1);
    cr_expect_eq(ask("SELECT count(*) FROM scaling"), 3);
    cr_expect_eq(ask("SELECT done FROM progress WHERE sweep = 'second'"), 5);
    cr_expect_eq(ask("SELECT count(DISTINCT sweep) FROM results"), 1);
}

Test(views, results_carry_the_identity_of_weights_data_and_program)
{
    plan("demo", 1, 5);
    finish(1, 2);
    cr_expect_eq(ask("SELECT count(*) FROM results WHERE metric = 'acc' AND abs(value - 0.2) < "
                     "1e-12 AND stderr = 0.01 "
                     "AND n = 100 AND length(weights_sha256) = 64 AND length(data_sha256) = 64 "
                     "AND program = 'isobit 0.1.0' AND device = 'cpu: test' AND finished_at LIKE "
                     "'20__-__-__T__:__:__Z'"),
                 1);
}

Test(views, progress_of_a_finished_sweep_has_no_time_left)
{
    plan("demo", 1, 1);
    cr_expect_eq(ask("SELECT eta_s IS NULL FROM progress"), 1, "no rate, no estimate");
    finish(1, 1);
    cr_expect_eq(ask("SELECT eta_s FROM progress"), 0);
}
