/* Layer by layer in passes against resident: the same bits, and no more bytes than announced. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "tests/support/demo_job.h"
#include "tests/support/support.h"
#include "worker/ckpt/ckpt.h"
#include "worker/runner.h"

enum { MAX_JOBS = 96, MAX_METRICS = 8 };

/* Every data type, centering, both outlier rules, the baseline, weights as stored. */
static int make_configs(struct config *out)
{
    struct config c = config_default();
    int n = 0;
    c.k = 4;
    for (int d = 0; d < DTYPE_COUNT; d++) {
        c.dtype = (enum dtype)d;
        out[n++] = c;
    }
    c.dtype = DTYPE_int;
    c.block = 0;
    c.center = CENTER_TENSOR;
    out[n++] = c;
    c.block = 64;
    c.center = CENTER_BLOCK;
    c.k = 3;
    out[n++] = c;
    c.center = CENTER_NONE;
    c.outlier_pct = 4;
    out[n++] = c;
    c.outlier_rule = OUTLIER_RULE_PREVIOUS_RESID;
    c.dtype = DTYPE_quantile;
    out[n++] = c;
    c = config_default();
    c.k = 16;
    out[n++] = c;
    c.k = 32;
    out[n++] = c;
    return n;
}

/* Results of a group in the order of its jobs. */
struct results {
    struct job_result r[MAX_JOBS];
    int n_seen[MAX_JOBS];
    char text[1000]; /* of the last failure */
    enum err_code code[MAX_JOBS];
};

static void take(void *arg, int job, const struct job_result *r, const struct err *why)
{
    struct results *all = arg;
    all->n_seen[job]++;
    if (r != NULL)
        all->r[job] = *r;
    else
        snprintf(all->text, sizeof all->text, "%s", why->text);
    all->code[job] = r != NULL ? ERR_OK : why->code;
}

static struct runner_stats run_group(int64_t memory, const struct job *jobs, int n,
                                     struct results *out, struct arena *a)
{
    const struct runner_options o = {.device = "cpu", .threads = 1, .memory_bytes = memory};
    struct runner *r = NULL;
    struct err e = {0};
    cr_assert_eq(runner_new(&o, &r, &e), ERR_OK, "%s", e.text);
    memset(out, 0, sizeof *out);
    runner_run_many(r, jobs, n, &(struct runner_report){take, out, a});
    const struct runner_stats s = *runner_get_stats(r);
    runner_free(r);
    return s;
}

static void expect_equal(const struct job *j, const struct job_result *x,
                         const struct job_result *y)
{
    char what[200];
    snprintf(what, sizeof what, "%s %s k=%d %s center=%d outliers=%g", j->model.name, j->eval.name,
             j->config.k, dtype_label(j->config.dtype), (int)j->config.center,
             j->config.outlier_pct);
    cr_assert_eq(x->n_metrics, y->n_metrics, "%s: %d and %d metrics", what, x->n_metrics,
                 y->n_metrics);
    for (int i = 0; i < x->n_metrics; i++)
        cr_expect(memcmp(&x->metrics[i].value, &y->metrics[i].value, sizeof(double)) == 0,
                  "%s: %s is %.17g, resident %.17g", what, x->metrics[i].name, x->metrics[i].value,
                  y->metrics[i].value);
    cr_assert_eq(x->n_items, y->n_items);
    cr_expect(memcmp(x->samples, y->samples, (size_t)(x->n_items * x->per_item) * sizeof(float)) ==
                  0,
              "%s: samples differ", what);
    cr_expect(memcmp(&x->bits, &y->bits, sizeof x->bits) == 0, "%s: bits differ", what);
    cr_expect_eq(x->tokens, y->tokens, "%s", what);
    cr_expect_eq(x->n_params_linear, y->n_params_linear);
}

static int64_t weight_bytes(const char *dir)
{
    struct ckpt *c = NULL;
    struct err e = {0};
    cr_assert_eq(ckpt_open(&(struct model_ref){.name = dir, .path = dir}, &c, &e), ERR_OK, "%s",
                 e.text);
    int64_t n = ckpt_bytes(c);
    ckpt_close(c);
    return n;
}

/* Evaluations of the first n_configs of a list, resident and within `share` of the checkpoint's bytes. */
struct comparison {
    const char *dir;
    double share;
    int n_configs;
    int n_tasks;
};

static struct runner_stats compare(const struct comparison *c)
{
    static struct results whole, streamed;
    struct config configs[16];
    struct job jobs[MAX_JOBS];
    struct arena a = {0};
    const char *dir = arena_strdup(&a, c->dir);
    int n = 0, n_all = make_configs(configs);
    for (int i = 0; i < n_all && i < c->n_configs; i++)
        for (int t = 0; t < c->n_tasks; t++)
            if (configs[i].k != 32 || t != TASK_weight_std)
                jobs[n++] = demo_job(dir, &configs[i], (enum task)t, 2, &a);
    const int64_t bytes = weight_bytes(dir);
    run_group(0, jobs, n, &whole, &a);
    const struct runner_stats s =
        run_group((int64_t)(c->share * (double)bytes), jobs, n, &streamed, &a);
    int64_t read = 0;
    for (int i = 0; i < n; i++) {
        cr_assert_eq(whole.n_seen[i], 1);
        cr_assert_eq(streamed.n_seen[i], 1);
        cr_assert_eq(streamed.code[i], ERR_OK, "%s", streamed.text);
        expect_equal(&jobs[i], &streamed.r[i], &whole.r[i]);
        read += streamed.r[i].weights_read;
    }
    cr_expect_gt(s.passes, 0);
    cr_expect_eq(s.passes, s.passes_planned);
    cr_expect_eq(s.pass_bytes, s.pass_bytes_planned);
    cr_expect_eq(read, s.pass_bytes);
    cr_expect_eq(s.checkpoint_loads, 0);
    arena_release(&a);
    return s;
}

Test(stream, every_configuration_and_task_of_a_demo_model)
{
    compare(
        &(struct comparison){support_source("sweeps/demo/models/pythia-s0"), 2, 16, TASK_COUNT});
}

/* One of each family, and the form with projections and norms behind the layers. */
Test(stream, shared_models_within_a_quarter_of_their_bytes)
{
    static const char *const models[] = {"bloom-s0", "gpt2-s0", "opt-s0", "opt-s1p", "pythia-s0"};
    for (size_t i = 0; i < ARRAY_LEN(models); i++) {
        char rel[200];
        snprintf(rel, sizeof rel, "models/%s", models[i]);
        const char *dir = support_shared(rel);
        if (dir == NULL)
            return;
        compare(&(struct comparison){dir, 0.25, 2, 2});
    }
}
