/* Whole models on the cuda module: logits of every architecture variant against those of transformers, fp16 perplexities
 * within 2e-4 of transformers' ppl_fp16, fp32 ones as the cpu's, quantized ones within 1e-3 of the cpu's, accuracies of the
 * tasks within two items of transformers'. Names of fixtures and models as arguments limit it to them. A plain program; skips (77)
 * without a GPU or reference material. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/json.h"
#include "base/mem.h"
#include "kernels/kernels.h"
#include "tests/support/chosen.h"
#include "tests/support/support.h"
#include "worker/model/model.h"
#include "worker/runner.h"

enum { SKIPPED = 77, STREAM_TOKENS = 65536, WINDOW = 512 };

/* Fixtures, then models. */
enum { N_FIXTURES = 7 };
static const char *const subjects[] = {"gpt2",
                                       "opt-prenorm",
                                       "opt-postnorm-proj",
                                       "neox-parallel",
                                       "neox-sequential",
                                       "bloom-6heads",
                                       "bloom-8heads",
                                       "bloom-s0",
                                       "bloom-s1",
                                       "bloom-s2",
                                       "gpt2-s0",
                                       "gpt2-s1",
                                       "gpt2-s2",
                                       "opt-s0",
                                       "opt-s1p",
                                       "opt-s2",
                                       "opt-s3",
                                       "pythia-s0",
                                       "pythia-s1",
                                       "pythia-s2",
                                       "pythia-s3",
                                       NULL};

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

/* ---- tasks ---- */

static double metric_of(const struct job_result *r, const char *name)
{
    for (int i = 0; i < r->n_metrics; i++)
        if (strcmp(r->metrics[i].name, name) == 0)
            return r->metrics[i].value;
    return NAN;
}

static void test_task(struct story *s, const char *model, enum task task, const char *data,
                      const json_t *ref)
{
    static const char *const names[] = {"acc", "acc_norm"};
    struct arena a = {0};
    struct err e;
    struct job_result out = {0};
    const int64_t n = json_integer_value(json_object_get(ref, "n"));
    const char *path = support_shared(data);
    if (ref == NULL || path == NULL)
        return;
    struct job job = {
        .config = config_of(16, DTYPE_int, 64, COMPUTE_FP16),
        .eval = {.name = data, .task = task, .data = data, .data_path = path, .limit = n}};
    job.eval.data_path = arena_strdup(&a, path);
    const char *rel = arena_printf(&a, "models/%s", model);
    job.model = (struct model_ref){.name = rel, .path = arena_strdup(&a, support_shared(rel))};
    if (runner_run(s->gpu, &job, &out, &a, &e) != ERR_OK) {
        printf("FAILED: %s: %s\n", model, e.text);
        s->n_failures++;
    }
    for (size_t i = 0; i < ARRAY_LEN(names) && out.n_metrics > 0; i++) {
        const double expected = json_opt_num(ref, names[i], NAN), found = metric_of(&out, names[i]);
        if (isnan(expected))
            continue;
        bool is_ok = fabs(found - expected) * (double)n <= 2.5;
        s->n_checks++;
        s->n_failures += !is_ok;
        printf("%s%s %s %s: %.4f, expected %.4f over %ld items\n", is_ok ? "" : "FAILED: ", model,
               task_label(task), names[i], found, expected, (long)n);
    }
    arena_release(&a);
}

static void test_tasks(struct story *s, const char *model, const json_t *tasks)
{
    static const struct {
        enum task task;
        const char *key, *data;
    } all[] = {{TASK_lambada, "lambada_openai", "data/tasks/lambada_test.jsonl"},
               {TASK_piqa, "piqa", "data/tasks/piqa_valid.jsonl"},
               {TASK_winogrande, "winogrande", "data/tasks/winogrande_dev.jsonl"},
               {TASK_hellaswag, "hellaswag", "data/tasks/hellaswag_val.jsonl"}};
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        test_task(s, model, all[i].task, all[i].data, json_object_get(tasks, all[i].key));
}

/* ---- fixtures ---- */

enum { BATCH = 2, LENGTH = 40 };

/* expected.safetensors: input_ids [2, 40] I32, logits_fp32 [2, 40, V] F32; the file is a header and plain arrays. */
static const void *expected_part(const struct buf *file, const char *name)
{
    struct err e;
    uint64_t n;
    json_t *header = NULL;
    memcpy(&n, file->data, sizeof n);
    if (json_parse((struct str){file->data + 8, n}, "header", &header, &e) != ERR_OK)
        return NULL;
    const json_t *offsets = json_object_get(json_object_get(header, name), "data_offsets");
    int64_t at = json_integer_value(json_array_get(offsets, 0));
    json_decref(header);
    return file->data + 8 + n + at;
}

static void compare_logits(struct story *s, const char *name, struct model *m,
                           const struct buf *file, double tolerance)
{
    struct err e;
    const int32_t *ids = expected_part(file, "input_ids");
    const float *ref = expected_part(file, "logits_fp32");
    const int64_t n = LENGTH * model_get_info(m)->vocab;
    float *y = xcalloc((size_t)n, sizeof *y);
    double diff = 0, size = 0;
    for (int b = 0; b < BATCH; b++) {
        if (model_logits(m, ids + (size_t)b * LENGTH, LENGTH, y, &e) != ERR_OK)
            diff = NAN;
        for (int64_t i = 0; i < n; i++) {
            const double r = (double)ref[b * n + i], d = (double)y[i] - r;
            diff += d * d;
            size += r * r;
        }
    }
    const double error = sqrt(diff / size);
    const bool is_ok = error <= tolerance;
    s->n_checks++;
    s->n_failures += !is_ok;
    printf("%sfixture %s: logits off by %.3g, allowed %.3g\n", is_ok ? "" : "FAILED: ", name, error,
           tolerance);
    xfree(y);
}

static enum err_code open_fixture(const char *dir, enum kern_compute compute, struct ckpt **ckpt,
                                  struct kern **k, struct model **m, struct err *e)
{
    static const enum compute stored[] = {COMPUTE_FP32, COMPUTE_FP16, COMPUTE_BF16};
    struct config c = config_of(compute == KERN_FP32 ? 32 : 16, DTYPE_int, 64, stored[compute]);
    struct bits bits;
    TRY(ckpt_open(&(struct model_ref){.name = dir, .path = dir}, ckpt, e));
    TRY(kern_open(&(struct kern_options){.device = "cuda:0", .compute = compute}, k, e));
    TRY(model_open(*ckpt, *k, m, e));
    return model_set_config(*m, &c, &bits, e);
}

static void test_fixture(struct story *s, const char *name)
{
    static const double tolerance[] = {5e-6, 4e-3, 3e-2};
    struct err e;
    char *rel = xasprintf("fixtures/families/%s", name), *path = NULL;
    const char *dir = support_shared(rel);
    struct buf file = {0};
    if (dir != NULL) {
        path = xasprintf("%s/expected.safetensors", dir);
        for (int c = KERN_FP32; c <= KERN_BF16; c++) {
            struct ckpt *ckpt = NULL;
            struct kern *k = NULL;
            struct model *m = NULL;
            buf_reset(&file);
            if (io_read_file(path, (size_t)1 << 26, &file, &e) == ERR_OK &&
                open_fixture(dir, (enum kern_compute)c, &ckpt, &k, &m, &e) == ERR_OK) {
                s->n_models++;
                compare_logits(s, name, m, &file, tolerance[c]);
            } else {
                printf("FAILED: fixture %s: %s\n", name, e.text);
                s->n_failures++;
            }
            model_close(m);
            kern_close(k);
            ckpt_close(ckpt);
        }
    }
    buf_release(&file);
    xfree(path);
    xfree(rel);
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
            test_tasks(s, model, json_object_get(ref, "tasks"));
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

int main(int argc, char **argv)
{
    struct story s = {0};
    struct err e;
    (void)argc;
    if (!chosen_are_known(argv, subjects))
        return 2;
    if (!has_gpu())
        return SKIPPED;
    if (runner_new(&(struct runner_options){.device = "cpu"}, &s.cpu, &e) != ERR_OK ||
        runner_new(&(struct runner_options){.device = "cuda:0"}, &s.gpu, &e) != ERR_OK) {
        printf("FAILED: %s\n", e.text);
        return 1;
    }
    for (int i = 0; subjects[i] != NULL; i++)
        if (chosen(argv, subjects[i]))
            (i < N_FIXTURES ? test_fixture : test_model)(&s, subjects[i]);
    runner_free(s.cpu);
    runner_free(s.gpu);
    printf("%d checks, %d failed\n", s.n_checks, s.n_failures);
    return s.n_failures > 0 ? 1 : s.n_models == 0 ? SKIPPED : 0;
}
