#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "base/cli.h"
#include "base/io.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "tests/support/demo_job.h"
#include "tests/support/support.h"
#include "worker/runner.h"

static struct arena paths; /* of all jobs */

static struct job job_of(const char *model, int k, enum task task)
{
    struct config c = config_default();
    c.k = k;
    return demo_job(arena_strdup(&paths, support_source(model)), &c, task, 6, &paths);
}

static const char model_a[] = "sweeps/demo/models/pythia-s0";
static const char model_b[] = "sweeps/demo/models/gpt2-s0";

static struct runner *new_runner(const struct runner_options *o)
{
    struct runner *r = NULL;
    struct err e = {0};
    cr_assert_eq(runner_new(o, &r, &e), ERR_OK, "%s", e.text);
    return r;
}

static struct job_result run(struct runner *r, const struct job *j, struct arena *a)
{
    struct job_result out = {0};
    struct err e = {0};
    cr_assert_eq(runner_run(r, j, &out, a, &e), ERR_OK, "%s", e.text);
    return out;
}

static double metric(const struct job_result *r, const char *name)
{
    for (int i = 0; i < r->n_metrics; i++)
        if (strcmp(r->metrics[i].name, name) == 0)
            return r->metrics[i].value;
    return NAN;
}

static const struct runner_options on_cpu = {.device = "cpu", .threads = 1};

Test(runner, a_checkpoint_is_read_once_for_all_its_jobs)
{
    struct runner *r = new_runner(&on_cpu);
    struct arena a = {0};
    const int bits[] = {16, 4, 8};
    int64_t n = 0;
    for (size_t i = 0; i < ARRAY_LEN(bits); i++) {
        for (int t = 0; t < TASK_COUNT; t++, n++) {
            struct job j = job_of(model_a, bits[i], (enum task)t);
            struct job_result out = run(r, &j, &a);
            cr_expect_eq(out.n, 6);
            cr_expect_eq(out.n_items, 6);
            cr_expect_gt(out.tokens, 0);
            cr_expect(isfinite(out.metrics[0].value));
        }
    }
    const struct runner_stats *s = runner_get_stats(r);
    cr_expect_eq(s->checkpoint_loads, 1);
    cr_expect_eq(s->configurations, 3);
    cr_expect_eq(s->jobs, n);
    struct job j = job_of(model_b, 16, TASK_lambada);
    run(r, &j, &a);
    cr_expect_eq(s->checkpoint_loads, 2);
    runner_free(r);
    arena_release(&a);
}

Test(runner, comparison_with_16_bit_does_not_depend_on_the_order_of_jobs)
{
    struct runner *alone = new_runner(&on_cpu), *after = new_runner(&on_cpu);
    struct arena a = {0};
    struct job quantized = job_of(model_a, 4, TASK_perplexity),
               baseline = job_of(model_a, 16, TASK_perplexity);
    struct job_result first = run(alone, &quantized, &a);
    run(after, &baseline, &a);
    struct job_result second = run(after, &quantized, &a);
    cr_assert_eq(first.n_metrics, second.n_metrics);
    for (int i = 0; i < first.n_metrics; i++)
        cr_expect_eq(first.metrics[i].value, second.metrics[i].value, "%s", first.metrics[i].name);
    cr_expect_gt(metric(&first, "kl_to_16bit"), 0);
    cr_expect_lt(metric(&first, "kl_to_16bit"), 1);
    cr_expect_gt(metric(&first, "same_top"), 0.5);
    cr_expect_eq(metric(&first, "kl_positions"), fmin(4096, metric(&first, "tokens")));
    cr_expect_eq(runner_get_stats(alone)->configurations, 2,
                 "the baseline was put in force for it");
    runner_free(alone);
    runner_free(after);
    arena_release(&a);
}

Test(runner, comparison_with_16_bit_is_left_out_where_it_means_nothing)
{
    struct runner *r = new_runner(&on_cpu);
    struct arena a = {0};
    for (int k = 16; k <= 32; k += 16) {
        struct job j = job_of(model_a, k, TASK_perplexity);
        struct job_result out = run(r, &j, &a);
        cr_expect(isnan(metric(&out, "kl_to_16bit")), "k = %d", k);
        cr_expect(isfinite(metric(&out, "bits_per_byte")));
    }
    struct job j = job_of(model_a, 8, TASK_perplexity);
    j.config.quant_head = true;
    struct job_result out = run(r, &j, &a);
    cr_expect(isnan(metric(&out, "kl_to_16bit")));
    runner_free(r);
    arena_release(&a);
}

Test(runner, eight_bits_are_close_to_sixteen_and_three_are_farther)
{
    struct runner *r = new_runner(&on_cpu);
    struct arena a = {0};
    double kl[2];
    const int bits[] = {8, 3};
    for (int i = 0; i < 2; i++) {
        struct job j = job_of(model_a, bits[i], TASK_perplexity);
        struct job_result out = run(r, &j, &a);
        kl[i] = metric(&out, "kl_to_16bit");
    }
    cr_expect_lt(kl[0], 0.01);
    cr_expect_gt(kl[1], 10 * kl[0]);
    runner_free(r);
    arena_release(&a);
}

Test(runner, results_carry_the_identity_of_everything_they_rest_on)
{
    struct runner *r = new_runner(&on_cpu);
    struct arena a = {0};
    struct err e = {0};
    struct job j = job_of(model_a, 4, TASK_lambada);
    struct job_result out = run(r, &j, &a);
    char hex[SHA256_HEX];
    cr_assert_eq(
        sha256_file(support_source("sweeps/demo/models/pythia-s0/model.safetensors"), hex, &e),
        ERR_OK);
    cr_expect_str_eq(out.weights_sha256, hex);
    cr_assert_eq(sha256_file(j.eval.data_path, hex, &e), ERR_OK);
    cr_expect_str_eq(out.data_sha256, hex);
    cr_expect_eq(strlen(out.tokenizer_sha256), 64);
    cr_expect_str_eq(out.program, cli_version);
    cr_expect(strstr(out.device, "cpu") == out.device, "%s", out.device);
    cr_expect_gt(out.n_params, out.n_params_linear);
    cr_expect_float_eq(out.bits.per_param, 4.25, 0.01);
    cr_expect_eq(out.items->n, 6);
    cr_expect_str_eq(out.items->tokenizer_sha256, out.tokenizer_sha256);
    cr_expect_eq(out.items->items[0].gold, -1);
    cr_expect_gt(out.items->items[0].chars[0], 0);
    runner_free(r);
    arena_release(&a);
}

Test(runner, weight_std_reports_three_correlations_over_layers)
{
    static const char *const names[] = {"spearman_ffn1_relu", "spearman_kvq_attn",
                                        "spearman_attn_ffn1"};
    struct arena a = {0};
    struct runner *r = new_runner(&on_cpu);
    struct job j = job_of(model_a, 16, TASK_weight_std);
    struct job_result out = run(r, &j, &a);
    cr_assert_eq(out.n_metrics, 3);
    for (int i = 0; i < 3; i++) {
        const struct metric *m = &out.metrics[i];
        cr_expect_str_eq(m->name, names[i]);
        cr_expect(fabs(m->value) <= 1 && m->value != 0, "%s %g", m->name, m->value);
        cr_expect(m->n >= 2 && m->stderr_ > 0);
    }
    cr_expect_eq(out.n, 6);
    j.config.compute = COMPUTE_BF16; /* which the cpu stores as fp32 */
    struct job_result faster = run(r, &j, &a);
    for (int i = 0; i < 3; i++)
        cr_expect_float_eq(faster.metrics[i].value, out.metrics[i].value, 0.02, "%s %g, %g",
                           names[i], faster.metrics[i].value, out.metrics[i].value);
    runner_free(r);
    arena_release(&a);
}

/* Evaluations and a checkpoint announced ahead, one of them without a file: every job answers as it does unannounced. */
Test(runner, what_is_expected_changes_no_result)
{
    enum { JOBS = 4 };
    struct job jobs[JOBS] = {job_of(model_a, 16, TASK_perplexity), job_of(model_a, 16, TASK_piqa),
                             job_of(model_a, 16, TASK_lambada), job_of(model_b, 16, TASK_piqa)};
    struct runner *told = new_runner(&on_cpu);
    struct arena a = {0};
    struct err e = {0};
    struct job_result out;
    jobs[2].eval.data_path = "no/such/file.jsonl";
    for (int i = 0; i < JOBS; i++) {
        runner_expect(told, &jobs[i], jobs + i + 1, JOBS - i - 1);
        if (i == 2) {
            cr_expect_eq(runner_run(told, &jobs[i], &out, &a, &e), ERR_NOTFOUND);
            cr_expect(strstr(e.text, "no/such/file.jsonl") != NULL, "%s", e.text);
            continue;
        }
        struct runner *fresh = new_runner(&on_cpu);
        const struct job_result ahead = run(told, &jobs[i], &a), own = run(fresh, &jobs[i], &a);
        cr_assert_eq(ahead.n_metrics, own.n_metrics);
        for (int m = 0; m < own.n_metrics; m++)
            cr_expect_eq(ahead.metrics[m].value, own.metrics[m].value);
        cr_expect_str_eq(ahead.weights_sha256, own.weights_sha256);
        runner_free(fresh);
    }
    cr_expect_eq(runner_get_stats(told)->checkpoint_loads, 2);
    runner_expect(told, &jobs[3], jobs, 3); /* and nothing of it comes */
    runner_free(told);
    arena_release(&a);
}

Test(runner, a_failed_job_leaves_it_usable)
{
    struct runner *r = new_runner(&on_cpu);
    struct arena a = {0};
    struct job good = job_of(model_a, 16, TASK_piqa);
    struct job bad[4] = {good, good, good, good};
    const enum err_code codes[] = {ERR_NOTFOUND, ERR_NOTFOUND, ERR_FORMAT, ERR_FORMAT};
    const enum wire_lack lacks[] = {WIRE_LACK_CHECKPOINT, WIRE_LACK_DATA};
    bad[0].model.path = "no/such/folder";
    bad[1].eval.data_path = "no/such/file.jsonl";
    bad[2].eval.task = TASK_winogrande; /* other records than the task has */
    bad[3].config.k = 9;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct job_result out = {0};
        struct err e = {0};
        cr_expect_eq(runner_run(r, &bad[i], &out, &a, &e), codes[i], "row %zu: %s", i, e.text);
        if (i < ARRAY_LEN(lacks))
            cr_expect_eq(runner_lacks(r), lacks[i], "row %zu", i);
        struct job_result fine = run(r, &good, &a);
        cr_expect_eq(fine.n, 6);
    }
    runner_free(r);
    arena_release(&a);
}

static bool stop_at_third(void *arg, int64_t counter)
{
    int64_t *last = arg;
    cr_expect_gt(counter, *last, "the counter grows");
    *last = counter;
    return counter == 3;
}

Test(runner, a_job_can_be_stopped_and_run_again)
{
    int64_t last = 0;
    struct runner_options o = on_cpu;
    o.progress = stop_at_third;
    o.progress_arg = &last;
    struct runner *r = new_runner(&o);
    struct arena a = {0};
    struct err e = {0};
    struct job_result out = {0};
    struct job j = job_of(model_a, 4, TASK_perplexity);
    cr_expect_eq(runner_run(r, &j, &out, &a, &e), ERR_STOPPED, "%s", e.text);
    struct job_result again = run(r, &j, &a);
    cr_expect(isfinite(metric(&again, "kl_to_16bit")));
    runner_free(r);
    arena_release(&a);
}

Test(runner, a_checkpoint_beyond_the_memory_budget_is_refused)
{
    struct runner_options o = on_cpu;
    o.memory_bytes = 100000;
    struct runner *r = new_runner(&o);
    struct arena a = {0};
    struct err e = {0};
    struct job_result out = {0};
    struct job j = job_of(model_a, 16, TASK_lambada);
    cr_expect_eq(runner_run(r, &j, &out, &a, &e), ERR_NOMEM, "%s", e.text);
    cr_expect_eq(runner_get_stats(r)->checkpoint_loads, 0);
    runner_free(r);
    arena_release(&a);
}

/* Every large allocation fails once: an error each time, never a crash, and the runner works afterwards. */
Test(runner, failing_allocations_are_ordinary_errors)
{
    struct arena a = {0};
    struct job j = job_of(model_a, 4, TASK_perplexity);
    j.eval.limit = 1;
    int failures = 0;
    for (long n = 1;; n++) {
        struct runner *r = new_runner(&on_cpu);
        struct job_result out = {0};
        struct err e = {0};
        mem_fail_after(n);
        enum err_code rc = runner_run(r, &j, &out, &a, &e);
        mem_fail_after(0);
        cr_assert(rc == ERR_OK || rc == ERR_NOMEM, "allocation %ld: %s", n, e.text);
        if (rc == ERR_NOMEM)
            run(r, &j, &a);
        runner_free(r);
        if (rc == ERR_OK)
            break;
        failures++;
    }
    cr_expect_gt(failures, 0);
    arena_release(&a);
}
