/* A sweep made in memory: n_models x n_configs x the five evaluations of the paper, for tests of the store and of
 * dispatch. Models are "s0" (smallest) upwards; configuration 0 is the 16-bit baseline. */
#ifndef ISOBIT_TESTS_SUPPORT_SWEEP_FIXTURE_H
#define ISOBIT_TESTS_SUPPORT_SWEEP_FIXTURE_H

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "schema/store_work.h"

static inline struct sweep fixture_sweep(struct arena *a, const char *name, int n_models,
                                         int n_configs, int n_evals)
{
    struct sweep sw = {.name = name, .path = "demo.yaml", .text = "name: demo\n", .dir = "/data"};
    sw.n_models = n_models;
    sw.n_configs = n_configs;
    sw.n_evals = n_evals;
    sw.n_jobs = (int64_t)n_models * n_configs * n_evals;
    sw.models = arena_array(a, (size_t)n_models, sizeof(*sw.models));
    sw.configs = arena_array(a, (size_t)n_configs, sizeof(*sw.configs));
    sw.evals = arena_array(a, (size_t)n_evals, sizeof(*sw.evals));
    sw.jobs = arena_array(a, (size_t)sw.n_jobs, sizeof(*sw.jobs));
    for (int i = 0; i < n_models; i++)
        sw.models[i].ref =
            (struct model_ref){.family = "pythia",
                               .size = arena_printf(a, "s%d", i),
                               .name = arena_printf(a, "models/pythia-s%d", i),
                               .path = arena_printf(a, "/data/models/pythia-s%d", i)};
    for (int i = 0; i < n_configs; i++) {
        struct config c = config_default();
        if (i > 0)
            c = (struct config){
                .k = 3 + (i - 1) % 6, .block = 64 * (1 + (i - 1) / 6), .compute = COMPUTE_FP32};
        config_normalize(&c);
        sw.configs[i] = c;
    }
    for (int i = 0; i < n_evals; i++)
        sw.evals[i].spec =
            (struct eval_spec){.name = task_label((enum task)(i % TASK_COUNT)),
                               .task = (enum task)(i % TASK_COUNT),
                               .data = arena_printf(a, "data/%d.jsonl", i),
                               .data_path = arena_printf(a, "/data/data/%d.jsonl", i)};
    int64_t n = 0;
    for (int m = 0; m < n_models; m++)
        for (int c = 0; c < n_configs; c++)
            for (int v = 0; v < n_evals; v++)
                sw.jobs[n++] = (struct sweep_job){m, c, v};
    return sw;
}

/* Leases one job. */
static inline enum err_code fixture_lease(struct store *s, int64_t job, int attempt,
                                          int64_t worker_id, struct err *e)
{
    char sql[64];
    struct store_lease l = {.first = job, .n = 1, .attempt = attempt, .worker_id = worker_id};
    snprintf(sql, sizeof(sql), "SELECT set_id FROM job WHERE id = %lld", (long long)job);
    TRY(store_query_int(s, sql, 0, &l.set_id, e));
    return store_lease(s, &l, e);
}

/* A result whose numbers follow from the job, with the metrics of its task. */
static inline struct job_result fixture_result(struct arena *a, enum task task, double value)
{
    struct job_result r = {
        .n = 100, .tokens = 5000, .seconds = 0.5, .n_params = 1000000, .n_params_linear = 800000};
    r.bits = (struct bits){4.25, 4250000, 4.25e6, 3400000, 0};
    r.device = "cpu: test";
    r.program = "isobit 0.1.0";
    memset(r.weights_sha256, 'a', 64);
    memset(r.data_sha256, 'b', 64);
    memset(r.tokenizer_sha256, 'c', 64);
    struct metric *m = arena_array(a, 3, sizeof(*m));
    r.metrics = m;
    if (task == TASK_perplexity) {
        m[r.n_metrics++] = (struct metric){"nll", log(value), NAN, 100};
        m[r.n_metrics++] = (struct metric){"perplexity", value, NAN, 100};
        m[r.n_metrics++] = (struct metric){"kl_to_16bit", INFINITY, NAN, 100};
    } else if (task == TASK_weight_std) {
        m[r.n_metrics++] = (struct metric){"spearman_attn_ffn1", value, 0.01, 12};
    } else {
        m[r.n_metrics++] = (struct metric){"acc", value, 0.01, 100};
        if (task == TASK_hellaswag || task == TASK_piqa)
            m[r.n_metrics++] = (struct metric){"acc_norm", value + 0.1, 0.01, 100};
    }
    return r;
}

#endif
