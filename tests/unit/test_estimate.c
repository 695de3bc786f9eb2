#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "coordinator/estimate.h"
#include "schema/rates.h"
#include "tests/support/support.h"

static struct arena arena;
static struct err e;

/* Nothing of a developer's own cache may be seen. */
static void hide_hub(const char *dir)
{
    cr_assert_eq(setenv("HF_HUB_CACHE", dir, 1), 0);
}

static struct sweep parsed(const char *text, const char *path)
{
    struct sweep sw = {0};
    cr_assert_eq(sweep_parse(str_of(text), path, &arena, &sw, &e), ERR_OK, "%s", e.text);
    return sw;
}

static void expect_near(double got, double want, double tolerance, const char *what)
{
    cr_expect(fabs(got - want) <= tolerance * want, "%s: %g, expected %g", what, got, want);
}

/* Models spec, section 4: parameters in G, GPU-hours at 400 TFLOP/s of 226 configurations. The table rounds to whole
 * hours and counts each family's tokens by GPT-2's BPE. */
static const struct {
    const char *family;
    int n_configs, n_models;
    double params, hours, tolerance;
} table[] = {
    {"gpt2", 226, 4, 2.8e9, 4, 0.1},        {"opt", 226, 8, 119.6e9, 182, 0.01},
    {"pythia", 226, 9, 45.1e9, 68, 0.02},   {"bloom", 226, 5, 13.4e9, 20, 0.03},
    {"bloomz", 226, 5, 13.4e9, 20, 0.03},   {"bloom", 25, 1, 176.2e9, 29.7, 0.01},
    {"bloomz", 25, 1, 176.2e9, 29.7, 0.01},
};

Test(estimate, paper_costs_what_its_table_says)
{
    struct sweep sw;
    struct estimate est;
    hide_hub("/nonexistent");
    cr_assert_eq(sweep_load(support_source("sweeps/paper.yaml"), &arena, &sw, &e), ERR_OK, "%s",
                 e.text);
    estimate_sweep(&sw, &arena, &est);
    cr_assert_eq(est.n_groups, (int)ARRAY_LEN(table));
    double pass = 0;
    double hours = 0;
    double by_size = 0;
    double bytes = 0;
    double bytes_per_job = 0;
    for (int i = 0; i < est.n_groups; i++) {
        const struct estimate_group *g = &est.groups[i];
        cr_expect_str_eq(g->family, table[i].family);
        cr_expect_eq(g->n_configs, table[i].n_configs);
        cr_expect_eq(g->n_models, table[i].n_models);
        expect_near(g->n_params, table[i].params, 0.01, g->family);
        expect_near(g->hours_flat, table[i].hours, table[i].tolerance, g->family);
        if (g->n_configs != 226)
            continue;
        pass += g->flops_pass;
        hours += g->hours_flat;
        by_size += g->hours_by_size;
        bytes += g->weights_bytes;
        bytes_per_job += g->weights_bytes * 226 * 5;
    }
    expect_near(pass, 1.89e18, 0.005, "FLOPs of a pass over the 31 models");
    expect_near(hours, 296, 0.005, "GPU-hours of the 31 models");
    expect_near(by_size, 350, 0.02, "GPU-hours at rates by size");
    /* The table has fp16 sizes throughout; GPT-2's files are fp32, 5.6 GB more. */
    expect_near(bytes, 389e9 + 5.6e9, 0.005, "bytes of 31 checkpoints");
    expect_near(bytes_per_job, 439e12, 0.02, "bytes with a load for each job");
    cr_expect_eq(est.n_cells, 31 * 226 + 2 * 25);
    cr_expect_eq(est.n_models_absent, 33);
    cr_expect_eq(est.n_models_unknown, 0);
    cr_expect_eq(est.n_evals_absent, 5);
    arena_release(&arena);
}

/* The same table: 1.26e18 with shared prefixes and the head only for scored tokens. */
Test(estimate, shared_contexts_and_scored_heads_cost_two_thirds)
{
    struct buf text = {0};
    hide_hub("/nonexistent");
    buf_adds(&text,
             "models:\n"
             "  - {family: gpt2, sizes: [gpt2, gpt2-medium, gpt2-large, gpt2-xl], hub: "
             "openai-community/{size}}\n"
             "  - {family: opt, sizes: [125m, 350m, 1.3b, 2.7b, 6.7b, 13b, 30b, 66b], hub: "
             "facebook/opt-{size}}\n"
             "  - {family: p, sizes: [70m, 160m, 410m, 1b, 1.4b, 2.8b, 6.9b, 12b], hub: "
             "EleutherAI/pythia-{size}}\n"
             "  - {family: n, sizes: 20b, hub: EleutherAI/gpt-neox-{size}}\n"
             "  - {family: b, sizes: [560m, 1b1, 1b7, 3b, 7b1], hub: bigscience/bloom-{size}}\n"
             "  - {family: z, sizes: [560m, 1b1, 1b7, 3b, 7b1], hub: bigscience/bloomz-{size}}\n"
             "configurations: [{k: 16}]\nevaluations:\n"
             "  - {task: perplexity, data: none.jsonl}\n");
    for (int t = 1; t < TASK_COUNT; t++)
        buf_printf(&text, "  - {task: %s, data: none.jsonl}\n", task_label((enum task)t));
    struct sweep sw = parsed(text.data, "spec.yaml");
    struct estimate est;
    estimate_sweep(&sw, &arena, &est);
    cr_expect_eq(sw.n_models, 31);
    expect_near(est.flops, 1.89e18, 0.005, "a pass");
    expect_near(est.flops_shared, 1.26e18, 0.02, "a pass as the engine computes it");
    buf_release(&text);
    arena_release(&arena);
}

Test(estimate, rates_step_with_size)
{
    cr_expect_eq(rate_flat(), 400e12);
    cr_expect_eq(rate_by_size(0.19e9), 40e12);
    cr_expect_eq(rate_by_size(0.2e9), 100e12);
    cr_expect_eq(rate_by_size(0.6e9), 200e12);
    cr_expect_eq(rate_by_size(3.5e9), 400e12);
}

static void write_text(const char *dir, const char *name, const char *text)
{
    char *path = xasprintf("%s/%s", dir, name);
    support_write(path, text, strlen(text));
    xfree(path);
}

static struct estimate estimated(const char *dir, const char *evaluation)
{
    char *text =
        xasprintf("models: [{family: a, sizes: b, path: m}]\nconfigurations: [{k: [4, 16]}]\n"
                  "evaluations: [{%s}]\n",
                  evaluation);
    char *path = xasprintf("%s/spec.yaml", dir);
    struct sweep sw = parsed(text, path);
    struct estimate est;
    estimate_sweep(&sw, &arena, &est);
    xfree(path);
    xfree(text);
    return est;
}

Test(estimate, tokens_come_from_the_data_that_is_here)
{
    char *dir = support_tmpdir();
    write_text(dir, "ten.jsonl", "{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n");
    struct buf corpus = {0};
    for (int i = 0; i < 43; i++)
        buf_adds(&corpus, "a hundred bytes of text, more or less, that are one document of a "
                          "corpus and end here: 0123456789 ..\n");
    write_text(dir, "corpus.jsonl", corpus.data);
    const struct {
        const char *evaluation;
        enum tokens_source source;
        double tokens;
    } rows[] = {
        {"task: lambada, data: ten.jsonl", TOKENS_LINES, 10 * 430230.0 / 5153},
        {"task: lambada, data: ten.jsonl, limit: 4", TOKENS_LINES, 4 * 430230.0 / 5153},
        {"task: lambada, data: none.jsonl", TOKENS_PUBLISHED, 430230},
        {"task: hellaswag, data: none.jsonl, limit: 100", TOKENS_PUBLISHED,
         100 * 3173049.0 / 10042},
        {"task: perplexity, data: none.jsonl", TOKENS_PUBLISHED, 1048576},
        {"task: perplexity, data: none.jsonl, max_tokens: 5000", TOKENS_SPEC, 5000},
        {"task: perplexity, data: corpus.jsonl", TOKENS_BYTES, (double)corpus.len / 4.3},
        {"task: perplexity, data: corpus.jsonl, limit: 10", TOKENS_BYTES,
         (double)corpus.len / 4.3 * 10 / 43},
        {"task: perplexity, data: corpus.jsonl, max_tokens: 100", TOKENS_SPEC, 100},
        {"task: perplexity, data: corpus.jsonl, max_tokens: 100000", TOKENS_BYTES,
         (double)corpus.len / 4.3},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct estimate est = estimated(dir, rows[i].evaluation);
        cr_expect_eq(est.evals[0].source, rows[i].source, "%s", rows[i].evaluation);
        expect_near(est.evals[0].tokens, rows[i].tokens, 1e-9, rows[i].evaluation);
        cr_expect(est.evals[0].shared_tokens <= est.evals[0].tokens);
    }
    buf_release(&corpus);
    arena_release(&arena);
    support_tmpdir_remove(dir);
}

Test(estimate, a_model_is_known_by_its_config_or_its_files_or_not_at_all)
{
    char *dir = support_tmpdir();
    struct estimate est = estimated(dir, "task: piqa, data: none");
    cr_expect_eq(est.models[0].source, SHAPE_UNKNOWN);
    cr_expect_eq(est.n_models_unknown, 1);
    cr_expect_eq(est.flops, 0);

    char *model = xasprintf("%s/m", dir);
    cr_assert_eq(io_make_dirs(model, &e), ERR_OK);
    write_text(model, "config.json", "{\"model_type\": \"llama\"}");
    write_text(model, "pytorch_model.bin", "0123456789");
    est = estimated(dir, "task: piqa, data: none");
    cr_expect_eq(est.models[0].source, SHAPE_FILES);
    cr_expect_eq(est.models[0].n_params, 5);
    cr_expect(est.models[0].is_here);

    write_text(model, "config.json",
               "{\"model_type\": \"gpt2\", \"n_embd\": 64, \"n_layer\": 3, \"n_head\": 4,"
               "\"n_positions\": 512, \"vocab_size\": 4096}");
    write_text(model, "model.safetensors", "0123456789abcdef");
    est = estimated(dir, "task: piqa, data: none");
    cr_expect_eq(est.models[0].source, SHAPE_CONFIG);
    cr_expect_eq(est.models[0].n_params,
                 3 * (12 * 64 * 64 + 13 * 64) + 4096 * 64 + 512 * 64 + 2 * 64);
    cr_expect_eq(est.models[0].weights_bytes, 16,
                 "safetensors is what is read when both are there");
    cr_expect_eq(est.models[0].n_configs, 2);
    cr_expect_eq(est.bytes_once, 16);
    cr_expect_eq(est.bytes_per_config_loads, 32);
    xfree(model);
    arena_release(&arena);
    support_tmpdir_remove(dir);
}

Test(estimate, a_hub_model_is_found_in_the_cache_by_its_revision)
{
    char *dir = support_tmpdir();
    char *base = xasprintf("%s/models--facebook--opt-125m", dir);
    char *snapshot = xasprintf("%s/snapshots/abc123", base);
    char *refs = xasprintf("%s/refs", base);
    cr_assert_eq(io_make_dirs(snapshot, &e), ERR_OK);
    cr_assert_eq(io_make_dirs(refs, &e), ERR_OK);
    write_text(refs, "main", "abc123\n");
    write_text(snapshot, "pytorch_model.bin", "0123");
    hide_hub(dir);
    struct sweep sw =
        parsed("models:\n  - {family: o, sizes: [125m, 350m], hub: facebook/opt-{size}}\n"
               "  - {family: r, sizes: 125m, hub: facebook/opt-125m@abc123}\n"
               "configurations: [{k: 16}]\nevaluations: [{task: piqa, data: x}]\n",
               "spec.yaml");
    struct estimate est;
    estimate_sweep(&sw, &arena, &est);
    cr_expect(est.models[0].is_here);
    cr_expect_eq(est.models[0].weights_bytes, 4);
    cr_expect_not(est.models[1].is_here);
    cr_expect_eq(est.models[1].weights_bytes, 2 * est.models[1].n_params);
    cr_expect(est.models[2].is_here);
    cr_expect_eq(est.n_models_absent, 1);
    xfree(refs);
    xfree(snapshot);
    xfree(base);
    arena_release(&arena);
    support_tmpdir_remove(dir);
}

Test(estimate, text_and_json_say_the_same)
{
    struct sweep sw;
    struct estimate est;
    struct buf out = {0};
    hide_hub("/nonexistent");
    cr_assert_eq(sweep_load(support_source("sweeps/paper.yaml"), &arena, &sw, &e), ERR_OK, "%s",
                 e.text);
    estimate_sweep(&sw, &arena, &est);
    estimate_print(&sw, &est, &out);
    static const char *const lines[] = {
        "35,280 jobs", "33 models, 226 configurations", "16: 165", "1.89e+18", "296 h",
        "35,030",      "max_tokens of the spec"};
    for (size_t i = 0; i < ARRAY_LEN(lines); i++)
        cr_expect_not_null(strstr(out.data, lines[i]), "%s", lines[i]);
    json_t *j = estimate_to_json(&sw, &est);
    cr_expect_eq(json_integer_value(json_object_get(j, "jobs")), 35280);
    const json_t *k = json_object_get(json_object_get(j, "axes"), "k");
    cr_expect_eq(json_integer_value(json_object_get(k, "16")), 165);
    cr_expect_eq(json_array_size(json_object_get(j, "models")), 33);
    const json_t *block = json_object_get(json_object_get(j, "axes"), "block");
    cr_expect_eq(json_integer_value(json_object_get(block, "tensor")), 31 * 24 * 5);
    cr_expect_eq(json_real_value(json_object_get(json_object_get(j, "totals"), "gpu_hours_flat")),
                 est.hours_flat);
    json_decref(j);
    buf_release(&out);
    arena_release(&arena);
}
