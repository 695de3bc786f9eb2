#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/rng.h"
#include "base/sha256.h"
#include "schema/store_work.h"
#include "tests/support/planted.h"
#include "worker/zstd_samples.h"

enum { JOBS_PER_COMMIT = 1000, MAX_CHOICES = 4, NOISE_PER_ITEM = 64 };

/* The tasks differ in difficulty; the differences add up to nothing, so that the mean stays what the law says. */
static const double task_shift[PLANTED_TASKS] = {
    [TASK_lambada] = -0.08, [TASK_winogrande] = 0.02, [TASK_hellaswag] = -0.04, [TASK_piqa] = 0.10};

/* What the items of a task share over all models and configurations. */
struct task_items {
    int64_t n;
    int n_choices;
    double *difficulty; /* standard normal; perplexity: nats per token */
    struct item *items;
    char data_sha256[65];
};

struct writing {
    const struct planted *p;
    struct store *store;
    struct arena arena;
    struct planted_model *models;
    struct config *configs;
    int n_models, n_configs;
    struct sweep sweep;
    struct task_items tasks[PLANTED_TASKS];
    float *noise; /* standard normal; a job reads on from a place of its own */
    int64_t n_noise;
    float *ll; /* of one job */
    struct rng rng;
    int64_t worker_id;
};

/* ---- items ---- */

static void fill_item(struct writing *w, const struct task_items *t, enum task task, int64_t i)
{
    int32_t *facts = arena_array(&w->arena, (size_t)t->n_choices * 2, sizeof(*facts));
    int32_t *tokens = facts + t->n_choices;
    for (int c = 0; c < t->n_choices; c++) {
        facts[c] = 30 + (int32_t)((i * 7 + c * 13) % 40);
        tokens[c] = 1 + facts[c] / 4;
    }
    if (task == TASK_perplexity) {
        tokens[0] = 1536 + (int32_t)rng_below(&w->rng, 1024);
        facts[0] = tokens[0] * 4;
    }
    bool has_gold = t->n_choices > 1;
    t->items[i] = (struct item){.gold = has_gold ? (int)(i % t->n_choices) : -1,
                                .n_choices = t->n_choices,
                                .chars = facts,
                                .bytes = facts,
                                .tokens = tokens};
}

static void make_items(struct writing *w, enum task task)
{
    struct task_items *t = &w->tasks[task];
    t->n = w->p->n_items[task];
    t->n_choices = task_choices(task);
    t->difficulty = arena_array(&w->arena, (size_t)t->n, sizeof(*t->difficulty));
    t->items = arena_array(&w->arena, (size_t)t->n, sizeof(*t->items));
    double spread = task == TASK_perplexity ? w->p->nll_difficulty : 1;
    for (int64_t i = 0; i < t->n; i++) {
        t->difficulty[i] = spread * rng_normal(&w->rng);
        fill_item(w, t, task, i);
    }
    char text[64];
    snprintf(text, sizeof(text), "planted items %s %llu", task_label(task),
             (unsigned long long)w->p->seed);
    sha256_bytes(text, strlen(text), t->data_sha256);
}

/* ---- results ---- */

/* Inverse of the standard normal distribution function, by bisection: called once per job. */
static double normal_quantile(double p)
{
    double low = -8, high = 8;
    for (int i = 0; i < 60; i++) {
        double middle = (low + high) / 2;
        if (0.5 * erfc(-middle / M_SQRT2) < p)
            low = middle;
        else
            high = middle;
    }
    return (low + high) / 2;
}

static void add_metric(struct job_result *r, const char *name, double value, double se, int64_t n)
{
    ((struct metric *)r->metrics)[r->n_metrics++] =
        (struct metric){.name = name, .value = value, .stderr_ = se, .n = n};
}

static void add_share(struct job_result *r, const char *name, int64_t hits, int64_t n)
{
    double p = (double)hits / (double)n;
    add_metric(r, name, p, sqrt(p * (1 - p) / (double)(n > 1 ? n - 1 : 1)), n);
}

static bool is_hit(const float *ll, const struct item *it, bool per_char)
{
    int best = 0;
    for (int c = 1; c < it->n_choices; c++) {
        double mine = per_char ? (double)ll[c] / it->chars[c] : ll[c];
        double other = per_char ? (double)ll[best] / it->chars[best] : ll[best];
        if (mine > other)
            best = c;
    }
    return best == it->gold;
}

/* An item is answered right when its margin is positive: threshold of the share, minus difficulty, minus own noise. The
 * variance of the latter two is 1, so that the share of right answers is the planted one. */
static double margin(const struct writing *w, const struct task_items *t, double threshold,
                     const float *noise, int64_t i)
{
    double rho = w->p->difficulty_share;
    return threshold - sqrt(rho) * t->difficulty[i] - sqrt(1 - rho) * noise[i];
}

static void score_words(const struct writing *w, const struct task_items *t, double threshold,
                        const float *noise, struct job_result *r)
{
    int64_t hits = 0;
    double sum = 0;
    for (int64_t i = 0; i < t->n; i++) {
        double m = margin(w, t, threshold, noise, i);
        w->ll[2 * i] = (float)(-3 + m);
        w->ll[2 * i + 1] = m > 0;
        hits += m > 0;
        sum += w->ll[2 * i];
    }
    add_share(r, "acc", hits, t->n);
    add_metric(r, "perplexity", exp(-sum / (double)t->n), NAN, t->n);
    r->per_item = 2;
}

static void score_choices(const struct writing *w, const struct task_items *t, double threshold,
                          const float *noise, bool has_norm, struct job_result *r)
{
    int64_t hits = 0, hits_norm = 0;
    for (int64_t i = 0; i < t->n; i++) {
        double m = margin(w, t, threshold, noise, i);
        const struct item *it = &t->items[i];
        float *ll = w->ll + i * t->n_choices;
        for (int c = 0; c < t->n_choices; c++) /* one rival decides, the others lie below both */
            ll[c] =
                (float)(-30 - (c == it->gold ? 0 : m) -
                        (c == it->gold || c == (it->gold + 1) % t->n_choices ? 0 : fabs(m) + 1));
        hits += is_hit(ll, it, false);
        hits_norm += is_hit(ll, it, true);
    }
    add_share(r, "acc", hits, t->n);
    if (has_norm) {
        add_share(r, "acc_norm", hits_norm, t->n);
        add_share(r, "acc_bytes", hits_norm, t->n);
    }
    r->per_item = t->n_choices;
}

static void score_documents(const struct writing *w, const struct task_items *t, double nll,
                            double kl, const float *noise, struct job_result *r)
{
    double sum = 0;
    int64_t tokens = 0;
    for (int64_t i = 0; i < t->n; i++) {
        int32_t n = t->items[i].tokens[0];
        double per_token = nll + t->difficulty[i] + w->p->nll_noise * noise[i];
        w->ll[i] = (float)(-per_token * n);
        sum += w->ll[i];
        tokens += n;
    }
    double mean = -sum / (double)tokens;
    add_metric(r, "nll", mean, NAN, tokens);
    add_metric(r, "perplexity", exp(mean), NAN, tokens);
    add_metric(r, "bits_per_byte", mean / log(2) / 4, NAN, tokens);
    add_metric(r, "tokens", (double)tokens, NAN, tokens);
    if (kl >= 0)
        add_metric(r, "kl_to_16bit", kl, NAN, tokens);
    r->per_item = 1;
}

static void fill_result(struct writing *w, const struct planted_model *m, const struct config *c,
                        enum task task, struct job_result *r)
{
    const struct task_items *t = &w->tasks[task];
    /* Two jobs hardly ever start at the same place, so that no item meets the same noise in both. */
    const float *noise = w->noise + rng_below(&w->rng, (uint64_t)(w->n_noise - t->n));
    double p = planted_accuracy(w->p, m, c) / 100 + task_shift[task];
    double threshold = normal_quantile(fmin(fmax(p, 0.001), 0.999));
    double nll = planted_nll(w->p, m, c);
    const struct config baseline = config_default();
    double kl = c->k >= 16 ? -1 : fmax(0.3 * (nll - planted_nll(w->p, m, &baseline)), 1e-4);
    switch (task) {
    case TASK_perplexity:
        score_documents(w, t, nll, kl, noise, r);
        break;
    case TASK_lambada:
        score_words(w, t, threshold, noise, r);
        break;
    case TASK_winogrande:
        score_choices(w, t, threshold, noise, false, r);
        break;
    case TASK_hellaswag:
    case TASK_piqa:
        score_choices(w, t, threshold, noise, true, r);
        break;
    case TASK_weight_std:
    case TASK_COUNT:
        BUG("not a task that is planted");
    }
    r->n = r->n_items = t->n;
    r->samples = w->ll;
}

/* ---- writing ---- */

static void make_sweep(struct writing *w)
{
    struct sweep *sw = &w->sweep;
    *sw = (struct sweep){.name = "planted",
                         .path = "planted.yaml",
                         .text = "name: planted\n",
                         .dir = "/planted",
                         .n_models = w->n_models,
                         .n_configs = w->n_configs,
                         .n_evals = PLANTED_TASKS};
    sw->n_jobs = (int64_t)w->n_models * w->n_configs * PLANTED_TASKS;
    sw->models = arena_array(&w->arena, (size_t)w->n_models, sizeof(*sw->models));
    sw->evals = arena_array(&w->arena, PLANTED_TASKS, sizeof(*sw->evals));
    sw->jobs = arena_array(&w->arena, (size_t)sw->n_jobs, sizeof(*sw->jobs));
    sw->configs = w->configs;
    for (int i = 0; i < w->n_models; i++) {
        const struct planted_model *m = &w->models[i];
        const char *name = arena_printf(&w->arena, "planted/%s-%s", m->family_name, m->size);
        sw->models[i].ref = (struct model_ref){.family = m->family_name,
                                               .size = m->size,
                                               .name = name,
                                               .path = arena_printf(&w->arena, "/%s", name)};
    }
    for (int t = 0; t < PLANTED_TASKS; t++)
        sw->evals[t].spec = (struct eval_spec){
            .name = task_label((enum task)t),
            .task = (enum task)t,
            .data = arena_printf(&w->arena, "planted/%s.jsonl", task_label((enum task)t)),
            .data_path = "/planted/items.jsonl",
            .method = t == TASK_perplexity ? METHOD_ROLLING : (enum method)0};
    int64_t n = 0;
    for (int m = 0; m < w->n_models; m++)
        for (int c = 0; c < w->n_configs; c++)
            for (int t = 0; t < PLANTED_TASKS; t++)
                sw->jobs[n++] = (struct sweep_job){m, c, t};
}

static void identity_of(const struct writing *w, const struct planted_model *m, enum task task,
                        struct job_result *r)
{
    enum { CONTEXT = 2048 };
    char text[128];
    snprintf(text, sizeof(text), "weights %s %s", m->family_name, m->size);
    sha256_bytes(text, strlen(text), r->weights_sha256);
    snprintf(text, sizeof(text), "tokenizer %s", m->family_name);
    sha256_bytes(text, strlen(text), r->tokenizer_sha256);
    memcpy(r->data_sha256, w->tasks[task].data_sha256, sizeof(r->data_sha256));
    items_identity(&w->sweep.evals[task].spec, CONTEXT, r->data_sha256, r->tokenizer_sha256,
                   r->items_sha256);
}

static enum err_code write_job(struct writing *w, const struct sweep_job *job, int64_t id,
                               struct err *e)
{
    const struct planted_model *m = &w->models[job->model];
    const struct config *c = &w->configs[job->config];
    enum task task = (enum task)job->eval;
    const struct task_items *t = &w->tasks[task];
    struct metric metrics[8];
    struct job_result r = {.metrics = metrics,
                           .tokens = t->n * 20,
                           .seconds = 1,
                           .bits = planted_bits(w->p, m, c),
                           .n_params = (int64_t)m->n_params,
                           .n_params_linear = (int64_t)(m->n_params * w->p->linear_share),
                           .device = "cpu: planted",
                           .program = "isobit 0.1.0"};
    identity_of(w, m, task, &r);
    fill_result(w, m, c, task, &r);
    void *packed = NULL;
    struct store_samples samples = {0};
    char codec[32] = "";
    if (w->p->has_samples)
        TRY(zstd_samples_pack(r.samples, r.n_items, r.per_item, &packed, &samples.n, codec, e));
    samples.data = packed;
    samples.codec = codec;
    struct store_fence fence = {id, 1, w->worker_id};
    struct store_run_facts facts = {job->model + 1, job->config + 1, 1, "planted", 1};
    bool is_ours = false;
    struct store_lease lease = {
        .first = id, .n = 1, .worker_id = w->worker_id, .set_id = 1, .attempt = 1};
    enum err_code rc = store_lease(w->store, &lease, e);
    if (rc == ERR_OK)
        rc = store_done(w->store, &fence, &facts, &r, &samples, &is_ours, e);
    xfree(packed);
    return rc;
}

static bool is_missing(struct writing *w, const struct sweep_job *job)
{
    const struct planted *p = w->p;
    const struct planted_model *m = &w->models[job->model];
    bool is_out =
        p->is_left_out != NULL &&
        p->is_left_out(m->family_name, m->size, &w->configs[job->config], (enum task)job->eval);
    return rng_uniform(&w->rng) < p->missing || is_out;
}

/* In a fresh database rows are numbered in the order of the sweep's lists, from 1. */
static enum err_code write_jobs(struct writing *w, struct err *e)
{
    for (int64_t i = 0; i < w->sweep.n_jobs; i++) {
        if (i % JOBS_PER_COMMIT == 0 && i > 0) {
            TRY(store_commit(w->store, e));
            TRY(store_begin(w->store, e));
        }
        if (!is_missing(w, &w->sweep.jobs[i]))
            TRY(write_job(w, &w->sweep.jobs[i], i + 1, e));
    }
    return ERR_OK;
}

static enum err_code write_facts(struct writing *w, struct err *e)
{
    struct store_worker worker = {.uuid = "planted",
                                  .host = "planted",
                                  .device = "cpu: planted",
                                  .program = "isobit 0.1.0",
                                  .computes = "fp32",
                                  .numerics = 1,
                                  .memory_bytes = (int64_t)1 << 30,
                                  .pid = 1};
    TRY(store_worker_hello(w->store, &worker, &w->worker_id, e));
    for (int i = 0; i < w->n_models; i++)
        for (int t = 0; t < PLANTED_TASKS; t++) {
            struct job_result r = {0};
            identity_of(w, &w->models[i], (enum task)t, &r);
            struct item_list list = {.items = w->tasks[t].items, .n = w->tasks[t].n};
            memcpy(list.tokenizer_sha256, r.tokenizer_sha256, sizeof(list.tokenizer_sha256));
            memcpy(list.items_sha256, r.items_sha256, sizeof(list.items_sha256));
            TRY(store_items(w->store, r.data_sha256, (enum task)t, &list, e));
            double n = w->models[i].n_params;
            TRY(store_pin_weights(w->store, i + 1, r.weights_sha256, (int64_t)n,
                                  (int64_t)(n * w->p->linear_share), e));
        }
    for (int t = 0; t < PLANTED_TASKS; t++)
        TRY(store_pin_data(w->store, t + 1, w->tasks[t].data_sha256, e));
    return ERR_OK;
}

static enum err_code write_all(struct writing *w, const char *path, struct err *e)
{
    TRY(store_open(path, STORE_CREATE, &w->store, e));
    struct store_plan_counts counts;
    TRY(store_plan(w->store, &w->sweep, 0, &counts, e));
    TRY(store_begin(w->store, e));
    TRY(write_facts(w, e));
    TRY(write_jobs(w, e));
    return store_commit(w->store, e);
}

enum err_code planted_write(const struct planted *p, const char *path, struct err *e)
{
    struct writing w = {.p = p, .rng = {.state = p->seed}};
    w.models = planted_models(p, &w.arena, &w.n_models);
    w.configs = planted_configs(p, &w.arena, &w.n_configs);
    make_sweep(&w);
    int64_t longest = 0;
    for (int t = 0; t < PLANTED_TASKS; t++) {
        make_items(&w, (enum task)t);
        longest = w.tasks[t].n > longest ? w.tasks[t].n : longest;
    }
    w.n_noise = (longest + 1) * NOISE_PER_ITEM;
    w.ll = arena_array(&w.arena, (size_t)longest * MAX_CHOICES, sizeof(*w.ll));
    w.noise = arena_array(&w.arena, (size_t)w.n_noise, sizeof(*w.noise));
    for (int64_t i = 0; i < w.n_noise; i++)
        w.noise[i] = (float)rng_normal(&w.rng);
    enum err_code rc = write_all(&w, path, e);
    store_close(w.store);
    arena_release(&w.arena);
    return rc;
}
