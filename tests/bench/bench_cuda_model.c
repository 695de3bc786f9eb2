/* The engine on one GPU with a checkpoint of real shapes, for comparison with tests/bench/gpu_usual.py, which makes the
 * checkpoint and runs the same token ids through transformers. Prints one JSON line.
 *   bench_cuda_model perplexity DIR IDS   IDS: int32 [8, 2048]; log-likelihoods of all but the first token of a window
 *   bench_cuda_model short DIR IDS        items of 72 shared tokens and four endings of 24
 *   bench_cuda_model config DIR SHARED    configurations with perplexity and four real task files, by the runner */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/mem.h"
#include "base/rng.h"
#include "kernels/cpu/f16.h"
#include "kernels/kernels.h"
#include "tests/bench/bench.h"
#include "worker/eval/eval.h"
#include "worker/model/model.h"
#include "worker/runner.h"

enum { WINDOWS = 8, WINDOW = 2048, REPEATS = 9, GROUPS = 3, PASSES_MIN = 6 };
/* A group of passes at least: shorter ones end before the GPU's power settles. */
static const double group_seconds = 0.3;
enum { ITEMS = 1024, SHARED = 72, CHOICES = 4, ENDING = 24, PER_ITEM = SHARED + CHOICES * ENDING };

struct loaded {
    struct ckpt *ckpt;
    struct kern *k;
    struct model *m;
    struct buf ids;
};

static void load(struct loaded *l, const char *dir, const char *ids)
{
    struct err e;
    struct bits bits;
    struct config c = config_default();
    const struct kern_options gpu = {.device = "cuda:0", .compute = KERN_FP16};
    c.compute = COMPUTE_FP16;
    config_normalize(&c);
    bench_must(ckpt_open(&(struct model_ref){.name = dir, .path = dir}, &l->ckpt, &e), &e);
    bench_must(kern_open(&gpu, &l->k, &e), &e);
    bench_must(model_open(l->ckpt, l->k, &l->m, &e), &e);
    bench_must(model_set_config(l->m, &c, &bits, &e), &e);
    bench_must(io_read_file(ids, (size_t)1 << 30, &l->ids, &e), &e);
}

static void unload(struct loaded *l)
{
    buf_release(&l->ids);
    model_close(l->m);
    kern_close(l->k);
    ckpt_close(l->ckpt);
}

/* ---- limits: what a pass would take if nothing but its largest parts were there ---- */

struct limits {
    struct loaded *l;
    void *x, *y, *w; /* activations, activations, weights */
    int64_t T;
};

/* The parts, numbered as they follow each other in a layer; the head comes once. */
enum part { PART_QKV, PART_ATTENTION, PART_OUT, PART_FFN1, PART_FFN2, PART_COPIES, PART_HEAD };
enum { PARTS = PART_HEAD + 1 };

static void run_linear(const struct limits *b, int64_t N, int64_t K)
{
    struct err e;
    const struct kern_linear_args a = {.y = b->y, .x = b->x, .w = b->w, .T = b->T, .N = N, .K = K};
    bench_must(kern_linear(b->l->k, &a, &e), &e);
}

static void run_attention(const struct limits *b, const struct model_info *info)
{
    struct err e;
    struct kern_seq seqs[WINDOWS];
    for (int i = 0; i < WINDOWS; i++)
        seqs[i] = (struct kern_seq){.start = i * WINDOW, .len = WINDOW, .parent = -1};
    struct kern_attention_args a = {.out = b->y,
                                    .qkv = b->x,
                                    .row = (int64_t)3 * info->d,
                                    .k_at = info->head_dim,
                                    .v_at = (int64_t)2 * info->head_dim,
                                    .head_stride = (int64_t)3 * info->head_dim,
                                    .heads = info->n_heads,
                                    .head_dim = info->head_dim,
                                    .scale = 0.1F,
                                    .seqs = seqs,
                                    .n_seqs = WINDOWS,
                                    .T = b->T};
    bench_must(kern_attention(b->l->k, &a, &e), &e);
}

/* The least traffic of a parallel layer's norms, 6 bytes an element: x once, and two outputs. */
static void run_copies(const struct limits *b, const struct model_info *info)
{
    struct err e;
    struct kern_rows_args a = {.y = b->y, .x = b->x, .n = b->T + b->T / 2, .d = info->d};
    bench_must(kern_copy_rows(b->l->k, &a, &e), &e);
}

static void run_part(const struct limits *b, enum part part)
{
    const struct model_info *info = model_get_info(b->l->m);
    switch (part) {
    case PART_QKV:
        run_linear(b, 3 * info->d, info->d);
        break;
    case PART_ATTENTION:
        run_attention(b, info);
        break;
    case PART_OUT:
        run_linear(b, info->d, info->d);
        break;
    case PART_FFN1:
        run_linear(b, info->ffn, info->d);
        break;
    case PART_FFN2:
        run_linear(b, info->d, info->ffn);
        break;
    case PART_COPIES:
        run_copies(b, info);
        break;
    case PART_HEAD:
        run_linear(b, info->vocab, info->d);
        break;
    }
}

/* Seconds of a part that runs alone, in short bursts, at clocks that a whole pass does not keep. */
static double time_part(const struct limits *b, enum part part)
{
    struct err e;
    enum { RUNS = 20 };
    run_part(b, part);
    bench_must(kern_sync(b->l->k, &e), &e);
    int64_t start = clock_mono_ns();
    for (int i = 0; i < RUNS; i++)
        run_part(b, part);
    bench_must(kern_sync(b->l->k, &e), &e);
    return clock_seconds_since(start) / RUNS;
}

/* Seconds of all parts of a pass in their order, as many passes as were timed, so that the GPU has the power and the clocks that
 * it has in a pass. */
static double time_in_turn(const struct limits *b, int passes)
{
    struct err e;
    const int n_layers = model_get_info(b->l->m)->n_layers;
    double seconds[GROUPS];
    for (int g = 0; g < GROUPS; g++) {
        int64_t start = clock_mono_ns();
        for (int p = 0; p < passes; p++) {
            for (int layer = 0; layer < n_layers; layer++)
                for (int part = 0; part < PART_HEAD; part++)
                    run_part(b, (enum part)part);
            run_part(b, PART_HEAD);
        }
        bench_must(kern_sync(b->l->k, &e), &e);
        seconds[g] = clock_seconds_since(start) / passes;
    }
    qsort(seconds, GROUPS, sizeof(*seconds), bench_compare_doubles);
    return seconds[GROUPS / 2];
}

/* Operands as real ones are: normal numbers. Zeros and narrow ranges run faster, since the GPU's power is the limit. */
static void fill_noise(struct kern *k, void *p, int64_t n, double deviation)
{
    enum { CHUNK = 1 << 22 };
    struct err e;
    struct rng r = {7};
    uint16_t *noise = xmalloc(CHUNK * sizeof(*noise));
    for (int i = 0; i < CHUNK; i++)
        noise[i] = f32_to_f16((float)(deviation * rng_normal(&r)));
    for (int64_t at = 0; at < n; at += CHUNK) {
        const int64_t some = n - at < CHUNK ? n - at : CHUNK;
        bench_must(kern_upload(k, (char *)p + at * 2, noise, (size_t)some * 2, &e), &e);
    }
    bench_must(kern_sync(k, &e), &e);
    xfree(noise);
}

/* What a pass would take: with all parts in turn, and by the sum of what each takes alone. */
struct limit {
    double in_turn, alone, part[PARTS]; /* seconds; a part's in one layer */
};

static struct limit limit_measure(struct loaded *l, int passes)
{
    struct err e;
    const struct model_info *info = model_get_info(l->m);
    const int64_t d = info->d, T = (int64_t)WINDOWS * WINDOW,
                  wide = info->ffn > 3 * d ? info->ffn : 3 * d;
    struct limits b = {.l = l, .T = T};
    struct limit out = {0};
    int64_t w_elements = info->vocab * d > wide * d ? info->vocab * d : wide * d;
    bench_must(kern_alloc(l->k, (size_t)(T * wide) * 2, "benchmark", &b.x, &e), &e);
    bench_must(kern_alloc(l->k, (size_t)(T * info->vocab) * 2, "benchmark", &b.y, &e), &e);
    bench_must(kern_alloc(l->k, (size_t)w_elements * 2, "benchmark", &b.w, &e), &e);
    fill_noise(l->k, b.x, T * wide, 1.0);
    fill_noise(l->k, b.w, w_elements, 0.02);
    for (int part = 0; part < PARTS; part++) {
        out.part[part] = time_part(&b, (enum part)part);
        out.alone += out.part[part] * (part == PART_HEAD ? 1 : info->n_layers);
    }
    out.in_turn = time_in_turn(&b, passes);
    kern_free(l->k, b.x);
    kern_free(l->k, b.y);
    kern_free(l->k, b.w);
    return out;
}

static void limit_print(const struct limit *limit, double took)
{
    static const char *const names[PARTS] = {"qkv",  "attention", "out", "ffn1",
                                             "ffn2", "copies",    "head"};
    printf("\"of_limit\": %.3f, \"of_limit_alone\": %.3f, \"limit_ms\": %.3f, \"alone_us\": {",
           limit->in_turn / took, limit->alone / took, limit->in_turn * 1e3);
    for (int i = 0; i < PARTS; i++)
        printf("%s\"%s\": %.1f", i > 0 ? ", " : "", names[i], limit->part[i] * 1e6);
    printf("}");
}

/* ---- perplexity ---- */

/* Passes behind each other, as an evaluation makes them: the next is queued while one runs. */
static void pass_many(struct loaded *l, const struct model_batch *batch,
                      struct model_answer *answers, int n)
{
    struct err e;
    for (int i = 0; i < n; i++) {
        bench_must(model_start(l->m, batch, answers, &e), &e);
        if (i > 0)
            bench_must(model_wait(l->m, &e), &e);
    }
    bench_must(model_wait(l->m, &e), &e);
}

static int run_perplexity(const char *dir, const char *ids)
{
    struct loaded l = {0};
    load(&l, dir, ids);
    const int32_t *tokens = (const int32_t *)(const void *)l.ids.data;
    struct model_seq seqs[WINDOWS];
    enum { TARGETS = WINDOWS * (WINDOW - 1) };
    struct model_target *targets = xcalloc(TARGETS, sizeof(*targets));
    struct model_answer *answers = xcalloc(TARGETS, sizeof(*answers));
    for (int i = 0, n = 0; i < WINDOWS; i++) {
        seqs[i] = (struct model_seq){tokens + i * WINDOW, WINDOW, -1};
        for (int t = 0; t + 1 < WINDOW; t++)
            targets[n++] = (struct model_target){i, t, tokens[i * WINDOW + t + 1], -1};
    }
    const struct model_batch batch = {
        .seqs = seqs, .n_seqs = WINDOWS, .targets = targets, .n_targets = TARGETS};
    double seconds[GROUPS], nll = 0;
    pass_many(&l, &batch, answers, 2);
    int64_t start = clock_mono_ns();
    pass_many(&l, &batch, answers, 2);
    const int enough = (int)(2 * group_seconds / clock_seconds_since(start)) + 1,
              passes = enough > PASSES_MIN ? enough : PASSES_MIN;
    for (int i = 0; i < GROUPS; i++) {
        start = clock_mono_ns();
        pass_many(&l, &batch, answers, passes);
        seconds[i] = clock_seconds_since(start) / passes;
    }
    for (int i = 0; i < TARGETS; i++)
        nll -= (double)answers[i].logprob / TARGETS;
    qsort(seconds, GROUPS, sizeof(*seconds), bench_compare_doubles);
    const struct limit limit = limit_measure(&l, passes);
    const double took = seconds[GROUPS / 2];
    printf("{\"side\": \"isobit\", \"what\": \"perplexity\", \"tokens_per_second\": %.0f, \"nll\": "
           "%.5f, \"ms\": %.3f, ",
           WINDOWS * WINDOW / took, nll, took * 1e3);
    limit_print(&limit, took);
    printf("}\n");
    xfree(targets);
    xfree(answers);
    unload(&l);
    return 0;
}

/* ---- short items ---- */

static int run_short(const char *dir, const char *ids)
{
    struct loaded l = {0};
    struct err e;
    load(&l, dir, ids);
    const int32_t *tokens = (const int32_t *)(const void *)l.ids.data;
    const int64_t n_ids = (int64_t)(l.ids.len / 4);
    const int per_batch = (int)(model_max_tokens(l.m) / PER_ITEM);
    struct model_seq *seqs = xcalloc((size_t)per_batch * (CHOICES + 1), sizeof(*seqs));
    struct model_target *targets = xcalloc((size_t)per_batch * CHOICES * ENDING, sizeof(*targets));
    struct model_answer *answers = xcalloc((size_t)per_batch * CHOICES * ENDING, sizeof(*answers));
    double seconds[REPEATS], sum = 0;
    for (int r = -1; r < REPEATS; r++) {
        int64_t start = clock_mono_ns();
        sum = 0;
        for (int first = 0; first < ITEMS; first += per_batch) {
            const int n = ITEMS - first < per_batch ? ITEMS - first : per_batch;
            int n_seqs = 0, n_targets = 0;
            for (int i = 0; i < n; i++) {
                const int32_t *item = tokens + (int64_t)(first + i) * PER_ITEM % (n_ids - PER_ITEM);
                const int parent = n_seqs;
                seqs[n_seqs++] = (struct model_seq){item, SHARED, -1};
                for (int c = 0; c < CHOICES; c++) {
                    const int32_t *ending = item + SHARED + c * ENDING;
                    targets[n_targets++] = (struct model_target){parent, SHARED - 1, ending[0], -1};
                    for (int t = 0; t + 1 < ENDING; t++)
                        targets[n_targets++] = (struct model_target){n_seqs, t, ending[t + 1], -1};
                    seqs[n_seqs++] = (struct model_seq){ending, ENDING - 1, parent};
                }
            }
            const struct model_batch batch = {
                .seqs = seqs, .n_seqs = n_seqs, .targets = targets, .n_targets = n_targets};
            bench_must(model_run(l.m, &batch, answers, &e), &e);
            for (int i = 0; i < n_targets; i++)
                sum -= (double)answers[i].logprob;
        }
        if (r >= 0)
            seconds[r] = clock_seconds_since(start);
    }
    qsort(seconds, REPEATS, sizeof(*seconds), bench_compare_doubles);
    printf(
        "{\"side\": \"isobit\", \"what\": \"short\", \"items_per_second\": %.0f, \"nll\": %.5f}\n",
        ITEMS / seconds[REPEATS / 2], sum / (ITEMS * CHOICES * ENDING));
    xfree(seqs);
    xfree(targets);
    xfree(answers);
    unload(&l);
    return 0;
}

/* ---- whole configurations ---- */

static double run_job(struct runner *r, const char *dir, const char *shared, enum task task,
                      const char *data, int k, enum dtype dtype)
{
    struct arena a = {0};
    struct err e;
    struct job_result out = {0};
    struct config c = config_default();
    c.k = k;
    c.dtype = dtype;
    c.compute = COMPUTE_FP16;
    config_normalize(&c);
    const struct job job = {.config = c,
                            .model = {.family = "f", .size = "s", .name = dir, .path = dir},
                            .eval = {.name = data,
                                     .task = task,
                                     .data = data,
                                     .data_path = arena_printf(&a, "%s/%s", shared, data),
                                     .window = task == TASK_perplexity ? WINDOW : 0,
                                     .max_tokens = task == TASK_perplexity ? 65536 : 0,
                                     .method = METHOD_STRIDED}};
    int64_t start = clock_mono_ns();
    bench_must(runner_run(r, &job, &out, &a, &e), &e);
    double took = clock_seconds_since(start);
    arena_release(&a);
    return took;
}

static int run_config(const char *dir, const char *shared)
{
    static const struct {
        enum task task;
        const char *data;
    } evals[] = {{TASK_perplexity, "data/heldout_420k.txt"},
                 {TASK_lambada, "data/tasks/lambada_test.jsonl"},
                 {TASK_winogrande, "data/tasks/winogrande_dev.jsonl"},
                 {TASK_piqa, "data/tasks/piqa_valid.jsonl"},
                 {TASK_hellaswag, "data/tasks/hellaswag_val.jsonl"}};
    static const struct {
        int k;
        enum dtype dtype;
    } configs[] = {{4, DTYPE_int}, {4, DTYPE_float}, {4, DTYPE_quantile}, {3, DTYPE_dynamic}};
    struct runner *r = NULL;
    struct err e;
    double first = 0, others = 0;
    bench_must(runner_new(&(struct runner_options){.device = "cuda:0"}, &r, &e), &e);
    printf("{\"side\": \"isobit\", \"what\": \"config\", \"parts\": [");
    for (size_t i = 0; i < ARRAY_LEN(configs); i++) {
        double total = 0;
        printf("%s[", i > 0 ? ", " : "");
        for (size_t j = 0; j < ARRAY_LEN(evals); j++) {
            double took = run_job(r, dir, shared, evals[j].task, evals[j].data, configs[i].k,
                                  configs[i].dtype);
            printf("%s%.3f", j > 0 ? ", " : "", took);
            total += took;
        }
        printf("]");
        if (i == 0)
            first = total;
        else
            others += total / (double)(ARRAY_LEN(configs) - 1);
    }
    printf("], \"first_seconds\": %.3f, \"seconds\": %.3f, \"loads\": %lld}\n", first, others,
           (long long)runner_get_stats(r)->checkpoint_loads);
    runner_free(r);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "perplexity") == 0)
        return run_perplexity(argv[2], argv[3]);
    if (argc == 4 && strcmp(argv[1], "short") == 0)
        return run_short(argv[2], argv[3]);
    if (argc == 4 && strcmp(argv[1], "config") == 0)
        return run_config(argv[2], argv[3]);
    (void)fprintf(stderr, "usage: bench_cuda_model perplexity|short DIR IDS | config DIR SHARED\n");
    return 2;
}
