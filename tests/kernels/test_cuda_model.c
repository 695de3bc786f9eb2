/* Whole models on the cuda module: fp16 perplexities within 2e-4 of transformers' ppl_fp16, fp32 ones as the cpu's,
 * quantized ones within 1e-3 of the cpu's. A plain program; skips (77) without a GPU or reference material. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/json.h"
#include "base/mem.h"
#include "kernels/kernels.h"
#include "tests/support/support.h"
#include "worker/runner.h"

enum { SKIPPED = 77, STREAM_TOKENS = 65536, WINDOW = 512 };

static const char *const models[] = {"pythia-s2", "gpt2-s0", "gpt2-s2",
                                     "bloom-s1",  "opt-s1p", "opt-s2"};

struct story {
    struct runner *cpu, *gpu;
    int n_checks, n_failures, n_models;
};

static bool run(struct runner *r, const char *model, const struct config *c, double *perplexity)
{
    struct arena a = {0};
    struct err e;
    struct job_result out = {0};
    const char *rel = arena_printf(&a, "models/%s", model);
    struct job job = {
        .config = *c,
        .model = {.family = "f",
                  .size = "s",
                  .name = rel,
                  .path = arena_strdup(&a, support_shared(rel))},
        .eval = {.name = "heldout",
                 .task = TASK_perplexity,
                 .data = "heldout_420k.txt",
                 .data_path = arena_strdup(&a, support_shared("data/heldout_420k.txt")),
                 .window = WINDOW,
                 .max_tokens = STREAM_TOKENS,
                 .method = METHOD_STRIDED}};
    bool is_ok = runner_run(r, &job, &out, &a, &e) == ERR_OK;
    if (!is_ok)
        printf("FAILED: %s: %s\n", model, e.text);
    *perplexity = NAN;
    for (int i = 0; i < out.n_metrics; i++)
        if (strcmp(out.metrics[i].name, "perplexity") == 0)
            *perplexity = out.metrics[i].value;
    arena_release(&a);
    return is_ok;
}

static void check_near(struct story *s, const char *model, const char *what, double found,
                       double expected, double tolerance)
{
    double off = fabs(found / expected - 1);
    bool is_ok = off <= tolerance;
    s->n_checks++;
    s->n_failures += !is_ok;
    printf("%s%s %s: %.8g, expected %.8g, off by %.2g\n", is_ok ? "" : "FAILED: ", model, what,
           found, expected, off);
}

static struct config config_of(int k, enum dtype d, int64_t block, enum compute compute)
{
    struct config c = config_default();
    c.k = k;
    c.dtype = d;
    c.block = block;
    c.compute = compute;
    config_normalize(&c);
    return c;
}

static void test_baseline(struct story *s, const char *model, const json_t *ref)
{
    double found, on_cpu;
    struct config half = config_of(16, DTYPE_int, 64, COMPUTE_FP16),
                  full = config_of(16, DTYPE_int, 64, COMPUTE_FP32);
    double expected = json_opt_num(ref, "ppl_fp16", NAN);
    if (run(s->cpu, model, &full, &on_cpu) && run(s->gpu, model, &full, &found))
        check_near(s, model, "fp32", found, on_cpu, 5e-6);
    else
        s->n_failures++;
    if (run(s->gpu, model, &half, &found))
        check_near(s, model, "fp16", found, expected, 2e-4);
    else
        s->n_failures++;
}

static void test_quantized(struct story *s, const char *model)
{
    static const struct {
        int k;
        enum dtype dtype;
        int64_t block;
    } all[] = {
        {4, DTYPE_int, 64}, {3, DTYPE_float, 128}, {4, DTYPE_quantile, 64}, {8, DTYPE_dynamic, 0}};
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        double on_cpu, on_gpu;
        struct config c = config_of(all[i].k, all[i].dtype, all[i].block, COMPUTE_FP32);
        struct config g = config_of(all[i].k, all[i].dtype, all[i].block, COMPUTE_FP16);
        c.outlier_pct = g.outlier_pct = i == 1 ? 2 : 0;
        char *what = xasprintf("k %d %s block %ld fp16", c.k, dtype_label(c.dtype), (long)c.block);
        if (run(s->cpu, model, &c, &on_cpu) && run(s->gpu, model, &g, &on_gpu))
            check_near(s, model, what, on_gpu, on_cpu, 1e-3);
        else
            s->n_failures++;
        xfree(what);
    }
}

static void test_model(struct story *s, const char *model)
{
    char *name = xasprintf("reference/%s.json", model), *dir = xasprintf("models/%s", model);
    const char *path = support_shared(name);
    struct err e;
    json_t *ref = NULL;
    if (path != NULL && support_shared(dir) != NULL &&
        support_shared("data/heldout_420k.txt") != NULL) {
        if (json_read(path, (size_t)16 << 20, &ref, &e) != ERR_OK) {
            printf("FAILED: %s\n", e.text);
            s->n_failures++;
        } else {
            s->n_models++;
            test_baseline(s, model, ref);
            test_quantized(s, model);
        }
        json_decref(ref);
    }
    xfree(name);
    xfree(dir);
}

/* True when the module and a GPU are here. */
static bool has_gpu(void)
{
    struct err e;
    struct kern *k = NULL;
    struct kern_options o = {.device = "cuda:0"};
    enum err_code code = kern_open(&o, &k, &e);
    if (code == ERR_OK)
        printf("%s\n", kern_get_info(k)->device);
    else
        printf("SKIPPED: %s\n", e.text);
    kern_close(k);
    return code == ERR_OK;
}

int main(void)
{
    struct story s = {0};
    struct err e;
    if (!has_gpu())
        return SKIPPED;
    if (runner_new(&(struct runner_options){.device = "cpu"}, &s.cpu, &e) != ERR_OK ||
        runner_new(&(struct runner_options){.device = "cuda:0"}, &s.gpu, &e) != ERR_OK) {
        printf("FAILED: %s\n", e.text);
        return 1;
    }
    for (size_t i = 0; i < ARRAY_LEN(models); i++)
        test_model(&s, models[i]);
    runner_free(s.cpu);
    runner_free(s.gpu);
    printf("%d checks, %d failed\n", s.n_checks, s.n_failures);
    return s.n_failures > 0 ? 1 : s.n_models == 0 ? SKIPPED : 0;
}
