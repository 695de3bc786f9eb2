/* The engine against the numbers that Hugging Face transformers gave for the reference models: token ids, per-token
 * losses, perplexities, task log-likelihoods and accuracies, and perplexities of quantized weights. Tolerances are those
 * an independent implementation reached (evaluation spec, section 11). ISOBIT_TEST_FULL=1 runs all models and all items;
 * otherwise small models, the items whose log-likelihoods are listed and two quantized models. */
#include <dirent.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/json.h"
#include "base/mem.h"
#include "tests/support/support.h"
#include "worker/model/model.h"
#include "worker/runner.h"
#include "worker/tok/tok.h"

enum { STREAM_TOKENS = 65536, WINDOW = 512 };
static const double ppl_tolerance = 5e-6; /* relative; fp32 summation order */
static const double quant_ppl_tolerance =
    2e-5; /* relative; anything above is a wrong rounding somewhere */
/* Relative: bf16 keeps 8 bits of every factor of a product. transformers, which rounds everything between them too, is off by up
 * to 1e-2 on these models (docs/ENGINE.md). */
static const double bf16_ppl_tolerance = 5e-4;
static const double nll_tolerance = 5e-5; /* nats per token; the references have 5 decimals */
static const double ll_tolerance = 5e-4; /* nats per continuation; the references have 4 decimals */

struct story {
    struct runner *runner;
    bool is_full;
    int n_checks, n_failures;
    const char *model;
};

static void check(struct story *s, bool is_ok, const char *fmt, ...) PRINTF_LIKE(3, 4);
static void check(struct story *s, bool is_ok, const char *fmt, ...)
{
    s->n_checks++;
    if (is_ok)
        return;
    s->n_failures++;
    va_list ap;
    va_start(ap, fmt);
    printf("FAILED: %s: ", s->model);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
}

static bool is_near(double found, double expected, double relative)
{
    return fabs(found - expected) <= relative * fabs(expected);
}

static struct config config_of(int k)
{
    struct config c = config_default();
    c.k = k;
    config_normalize(&c);
    return c;
}

static bool run_job(struct story *s, const struct config *c, const struct eval_spec *ev,
                    struct arena *a, struct job_result *out)
{
    struct err e = {0};
    const char *rel = arena_printf(a, "models/%s", s->model);
    const char *path = support_shared(rel);
    if (path == NULL)
        return false;
    struct job job = {.config = *c,
                      .eval = *ev,
                      .model = {.name = arena_strdup(a, rel), .path = arena_strdup(a, path)}};
    bool is_ok = runner_run(s->runner, &job, out, a, &e) == ERR_OK;
    check(s, is_ok, "%s: %s", ev->name, e.text);
    return is_ok;
}

static double metric(const struct job_result *r, const char *name)
{
    for (int i = 0; i < r->n_metrics; i++)
        if (strcmp(r->metrics[i].name, name) == 0)
            return r->metrics[i].value;
    return NAN;
}

/* The held-out text as the references read it. */
static struct eval_spec stream_spec(struct arena *a)
{
    return (struct eval_spec){.name = "heldout",
                              .task = TASK_perplexity,
                              .data = "heldout_420k.txt",
                              .data_path = arena_strdup(a, support_shared("data/heldout_420k.txt")),
                              .window = WINDOW,
                              .max_tokens = STREAM_TOKENS,
                              .method = METHOD_STRIDED};
}

static void check_perplexity(struct story *s, const struct config *c, const char *label,
                             double expected, double tolerance)
{
    struct arena a = {0};
    struct job_result r = {0};
    struct eval_spec ev = stream_spec(&a);
    if (run_job(s, c, &ev, &a, &r)) {
        double found = metric(&r, "perplexity");
        check(s, is_near(found, expected, tolerance),
              "perplexity %s: %.8g, expected %.8g (off by %.2g)", label, found, expected,
              found / expected - 1);
        check(s, metric(&r, "tokens") == STREAM_TOKENS / WINDOW * (WINDOW - 1), "scored tokens: %g",
              metric(&r, "tokens"));
    }
    arena_release(&a);
}

/* ---- first window: ids, losses, logits ---- */

struct opened {
    struct kern *kern;
    struct ckpt *ckpt;
    struct tok *tok;
    struct model *model;
};

static enum err_code open_model(const char *path, struct opened *o, struct err *e)
{
    struct kern_options options = {.device = "cpu"};
    struct model_ref ref = {.name = path, .path = path};
    struct config c = config_of(32);
    struct bits bits;
    TRY(kern_open(&options, &o->kern, e));
    TRY(ckpt_open(&ref, &o->ckpt, e));
    TRY(tok_open(path, &o->tok, e));
    TRY(model_open(o->ckpt, o->kern, &o->model, e));
    return model_set_config(o->model, &c, &bits, e);
}

static void close_model(struct opened *o)
{
    model_close(o->model);
    tok_close(o->tok);
    ckpt_close(o->ckpt);
    kern_close(o->kern);
}

static void check_ids(struct story *s, const json_t *ref, const struct tok_ids *ids)
{
    const json_t *first = json_object_get(ref, "first_ids");
    bool is_equal = ids->n >= json_array_size(first);
    for (size_t i = 0; is_equal && i < json_array_size(first); i++)
        is_equal = json_integer_value(json_array_get(first, i)) == ids->v[i];
    check(s, is_equal && json_array_size(first) > 0, "first ids of the held-out text differ");
    check(s, (int64_t)ids->n == json_opt_int(ref, "heldout_tokens", -1), "held-out tokens: %zu",
          ids->n);
}

static void check_losses(struct story *s, const json_t *ref, struct model *m, const int32_t *ids)
{
    const json_t *nll = json_object_get(ref, "nll_first_window");
    int n = (int)json_array_size(nll);
    struct model_target *targets = xcalloc((size_t)n, sizeof(*targets));
    struct model_answer *answers = xcalloc((size_t)n, sizeof(*answers));
    struct model_seq seq = {ids, WINDOW - 1, -1};
    for (int i = 0; i < n; i++)
        targets[i] = (struct model_target){.pos = i, .token = ids[i + 1], .ref = -1};
    struct model_batch batch = {.seqs = &seq, .n_seqs = 1, .targets = targets, .n_targets = n};
    struct err e = {0};
    check(s, n > 0 && model_run(m, &batch, answers, &e) == ERR_OK, "first window: %s", e.text);
    for (int i = 0; i < n; i++) {
        double expected = json_number_value(json_array_get(nll, (size_t)i));
        double found = -(double)answers[i].logprob;
        check(s, fabs(found - expected) <= nll_tolerance, "loss of token %d: %.6f, expected %.5f",
              i + 1, found, expected);
    }
    xfree(answers);
    xfree(targets);
}

/* Row 31 of the first 32 tokens: its largest logits, and the mean size of all 32 rows. */
static void check_logits(struct story *s, const json_t *ref, struct model *m, const int32_t *ids)
{
    enum { ROWS = 32 };
    struct err e = {0};
    size_t vocab = (size_t)model_get_info(m)->vocab;
    float *logits = xcalloc(ROWS * vocab, sizeof(*logits));
    check(s, model_logits(m, ids, ROWS, logits, &e) == ERR_OK, "logits: %s", e.text);
    const json_t *top = json_object_get(ref, "logits_last_top");
    for (size_t i = 0; i < json_array_size(top); i++) {
        const json_t *pair = json_array_get(top, i);
        size_t id = (size_t)json_integer_value(json_array_get(pair, 0));
        double expected = json_number_value(json_array_get(pair, 1));
        double found = (double)logits[(ROWS - 1) * vocab + id];
        check(s, fabs(found - expected) <= 1e-4, "logit of token %zu: %.6f, expected %.5f", id,
              found, expected);
    }
    double sum = 0;
    for (size_t i = 0; i < ROWS * vocab; i++)
        sum += fabs((double)logits[i]);
    double mean = sum / (double)(ROWS * vocab), expected = json_opt_num(ref, "logits_absmean", NAN);
    check(s, is_near(mean, expected, 1e-5), "mean |logit|: %.9g, expected %.9g", mean, expected);
    xfree(logits);
}

static void check_first_window(struct story *s, const json_t *ref)
{
    struct opened o = {0};
    struct err e = {0};
    struct buf text = {0};
    struct tok_ids ids = {0};
    char *rel = xasprintf("models/%s", s->model);
    const char *path = support_shared(rel), *data = support_shared("data/heldout_420k.txt");
    bool is_open = path != NULL && data != NULL && open_model(path, &o, &e) == ERR_OK &&
                   io_read_file(data, (size_t)1 << 20, &text, &e) == ERR_OK &&
                   tok_encode(o.tok, (struct str){text.data, text.len}, &ids, &e) == ERR_OK;
    check(s, is_open, "opening: %s", e.text);
    if (is_open) {
        check_ids(s, ref, &ids);
        check_losses(s, ref, o.model, ids.v);
        check_logits(s, ref, o.model, ids.v);
    }
    tok_ids_release(&ids);
    buf_release(&text);
    close_model(&o);
    xfree(rel);
}

/* ---- tasks ---- */

/* Listed log-likelihoods: a number per item, or an array of one per choice. */
static void check_listed(struct story *s, const char *task, const json_t *ll,
                         const struct job_result *r, int stride)
{
    for (size_t i = 0; i < json_array_size(ll); i++) {
        const json_t *row = json_array_get(ll, i);
        int n = json_is_array(row) ? (int)json_array_size(row) : 1;
        for (int c = 0; c < n; c++) {
            const json_t *v = json_is_array(row) ? json_array_get(row, (size_t)c) : row;
            double found = (double)r->samples[(int)i * stride + c], expected = json_number_value(v);
            check(s, fabs(found - expected) <= ll_tolerance,
                  "%s item %zu choice %d: %.5f, expected %.4f", task, i + 1, c, found, expected);
        }
    }
}

/* Accuracies may differ by one item whose choices are equal up to rounding. */
static void check_accuracies(struct story *s, const char *task, const json_t *ref,
                             const struct job_result *r)
{
    static const char *const names[] = {"acc", "acc_norm"};
    double n = json_opt_num(ref, "n", NAN);
    check(s, (double)r->n_items == n, "%s: %lld items", task, (long long)r->n_items);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        double expected = json_opt_num(ref, names[i], NAN), found = metric(r, names[i]);
        if (isfinite(expected))
            check(s, fabs(found - expected) * n <= 1 + 1e-9, "%s %s: %.6f, expected %.6f", task,
                  names[i], found, expected);
    }
    double ppl = json_opt_num(ref, "perplexity", NAN);
    if (isfinite(ppl))
        check(s, is_near(metric(r, "perplexity"), ppl, 1e-4), "%s perplexity: %.8g, expected %.8g",
              task, metric(r, "perplexity"), ppl);
}

struct task_file {
    enum task task;
    const char *key; /* in the reference */
    const char *real, *demo;
};
static const struct task_file task_files[] = {
    {TASK_lambada, "lambada_openai", "data/tasks/lambada_test.jsonl",
     "data/demo/tasks/lambada.jsonl"},
    {TASK_piqa, "piqa", "data/tasks/piqa_valid.jsonl", "data/demo/tasks/piqa.jsonl"},
    {TASK_winogrande, "winogrande", "data/tasks/winogrande_dev.jsonl",
     "data/demo/tasks/winogrande.jsonl"},
    {TASK_hellaswag, "hellaswag", "data/tasks/hellaswag_val.jsonl",
     "data/demo/tasks/hellaswag.jsonl"},
};

static void check_task(struct story *s, const struct task_file *t, const char *data,
                       const json_t *ref)
{
    struct arena a = {0};
    struct job_result r = {0};
    struct config c = config_of(32);
    const json_t *ll = json_object_get(ref, "ll");
    int64_t listed = (int64_t)json_array_size(ll);
    struct eval_spec ev = {.name = t->key,
                           .task = t->task,
                           .data = data,
                           .data_path = arena_strdup(&a, support_shared(data)),
                           .limit = s->is_full ? json_opt_int(ref, "n", 0) : listed};
    if (run_job(s, &c, &ev, &a, &r)) {
        check_listed(s, t->key, ll, &r, r.per_item);
        if (s->is_full)
            check_accuracies(s, t->key, ref, &r);
    }
    check(s, listed > 0, "%s: no listed items", t->key);
    arena_release(&a);
}

static void check_tasks(struct story *s, const json_t *ref, bool is_demo)
{
    const json_t *tasks = json_object_get(ref, "tasks");
    for (size_t i = 0; i < ARRAY_LEN(task_files); i++) {
        const struct task_file *t = &task_files[i];
        check_task(s, t, is_demo ? t->demo : t->real, json_object_get(tasks, t->key));
    }
}

/* ---- demo corpus ---- */

/* The reference cut each document at 512 tokens with the end-of-text token in front: what rolling windows of 512 give
 * for documents that short, and all but a few are. */
static void check_documents(struct story *s, const json_t *ref)
{
    struct arena a = {0};
    struct job_result r = {0};
    struct config c = config_of(32);
    struct eval_spec ev = {.name = "documents",
                           .task = TASK_perplexity,
                           .data = "corpus.jsonl",
                           .data_path = arena_strdup(&a, support_shared("data/demo/corpus.jsonl")),
                           .window = WINDOW - 1,
                           .method = METHOD_ROLLING};
    if (run_job(s, &c, &ev, &a, &r)) {
        double ppl = json_opt_num(ref, "ppl_docs", NAN),
               bits = json_opt_num(ref, "bits_per_byte", NAN);
        check(s, is_near(metric(&r, "perplexity"), ppl, ppl_tolerance),
              "ppl_docs: %.8g, expected %.8g", metric(&r, "perplexity"), ppl);
        check(s, is_near(metric(&r, "bits_per_byte"), bits, ppl_tolerance),
              "bits_per_byte: %.8g, expected %.8g", metric(&r, "bits_per_byte"), bits);
    }
    arena_release(&a);
}

/* ---- the whole ---- */

/* "int-k4-B64", "int-k8-Btensor". */
static bool read_quant_key(const char *key, struct config *c)
{
    char dtype[16], block[16];
    int k = 0;
    if (sscanf(key, "%15[a-z]-k%d-B%15s", dtype, &k, block) != 3 || dtype_of(str_of(dtype)) < 0)
        return false;
    *c = config_default();
    c->k = k;
    c->dtype = (enum dtype)dtype_of(str_of(dtype));
    c->block = 0;
    bool is_ok = strcmp(block, "tensor") == 0 || parse_i64(str_of(block), &c->block);
    config_normalize(c);
    return is_ok;
}

static void check_quantized(struct story *s, json_t *ref, bool is_first_only)
{
    const char *key = NULL;
    json_t *value = NULL;
    json_object_foreach(json_object_get(ref, "quant_ppl_fp32compute"), key, value)
    {
        struct config c;
        check(s, read_quant_key(key, &c), "cannot read '%s'", key);
        check_perplexity(s, &c, key, json_number_value(value), quant_ppl_tolerance);
        if (is_first_only)
            break;
    }
}

static bool is_small(const char *model)
{
    return strstr(model, "-s0") != NULL || strstr(model, "-s1") != NULL;
}

/* Quantized in the quick run: a transposed (Conv1D) fp16 checkpoint and a bf16 one. */
static bool is_quick_quantized(const char *model)
{
    return strcmp(model, "gpt2-s2") == 0 || strcmp(model, "bloom-s2") == 0;
}

static void check_model(struct story *s, json_t *ref)
{
    struct config stored = config_of(32);
    if (s->is_full || is_small(s->model)) {
        check_first_window(s, ref);
        check_perplexity(s, &stored, "as stored", json_opt_num(ref, "ppl_fp32", NAN),
                         ppl_tolerance);
        check_tasks(s, ref, false);
    }
    if (s->is_full || strstr(s->model, "-s0") != NULL) {
        struct config faster = config_of(16);
        faster.compute = COMPUTE_BF16;
        check_perplexity(s, &faster, "in bf16", json_opt_num(ref, "ppl_fp32", NAN),
                         bf16_ppl_tolerance);
    }
    if (s->is_full || is_quick_quantized(s->model))
        check_quantized(s, ref, !s->is_full);
}

static void check_demo(struct story *s, json_t *ref)
{
    if (s->is_full || is_small(s->model))
        check_tasks(s, ref, true);
    if (s->is_full || strstr(s->model, "-s0") != NULL)
        check_documents(s, ref);
}

static void check_reference(struct story *s, const char *file)
{
    struct err e = {0};
    json_t *ref = NULL;
    bool is_demo = strncmp(file, "demo_", 5) == 0;
    char *rel = xasprintf("reference/%s", file);
    int64_t start = clock_mono_ns();
    int before = s->n_checks, failed = s->n_failures;
    s->model = file;
    check(s, json_read(support_shared(rel), (size_t)1 << 20, &ref, &e) == ERR_OK, "%s", e.text);
    s->model = json_opt_str(ref, "model", file);
    (is_demo ? check_demo : check_model)(s, ref);
    printf("%-20s %5d checks, %d failed, %.1f s\n", file, s->n_checks - before,
           s->n_failures - failed, clock_seconds_since(start));
    fflush(stdout);
    json_decref(ref);
    xfree(rel);
}

static int is_model_reference(const struct dirent *f)
{
    return str_ends(str_of(f->d_name), ".json") && strcmp(f->d_name, "tokenizer_goldens.json") != 0;
}

/* With words on the command line only references whose names contain one of them are run. */
static bool is_chosen(const char *file, int argc, char **argv)
{
    bool is_hit = argc < 2;
    for (int i = 1; i < argc; i++)
        is_hit = is_hit || strstr(file, argv[i]) != NULL;
    return is_hit;
}

int main(int argc, char **argv)
{
    struct story s = {.is_full = getenv("ISOBIT_TEST_FULL") != NULL};
    struct runner_options options = {.device = "cpu"};
    struct dirent **files = NULL;
    struct err e = {0};
    const char *dir = support_shared("reference");
    if (dir == NULL || support_shared("models") == NULL)
        return 77;
    int n = scandir(dir, &files, is_model_reference, alphasort);
    CHECK(runner_new(&options, &s.runner, &e) == ERR_OK);
    for (int i = 0; i < n; i++) {
        if (is_chosen(files[i]->d_name, argc, argv))
            check_reference(&s, files[i]->d_name);
        free(files[i]);
    }
    free(files);
    runner_free(s.runner);
    printf("%d checks, %d failed (%s)\n", s.n_checks, s.n_failures, s.is_full ? "full" : "quick");
    return s.n_failures != 0 || s.n_checks == 0;
}
