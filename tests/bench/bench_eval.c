/* Perplexity of pythia-s3 on 65,536 held-out tokens (windows of 512) through the whole engine, against oneDNN alone doing the
 * same matrix products: linear layers, head, attention at causal FLOPs. Both run batch by batch in turns and each batch
 * counts with its fastest of REPEATS runs, so that other load hits both alike. BENCH_THREADS sets the threads;
 * BENCH_COMPUTE=bf16 measures the faster mode, still against the products in fp32.
 * Benchmark: eval-cpu */
#include <dnnl.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/mem.h"
#include "tests/bench/bench.h"
#include "tests/support/support.h"
#include "worker/model/model.h"
#include "worker/tok/tok.h"

enum { WINDOW = 512, TOKENS = 65536, REPEATS = 3 };

struct bench {
    struct ckpt *ckpt;
    struct kern *k;
    struct model *m;
    const struct model_info *info;
    struct tok_ids ids;
    int threads;
    bool is_bf16;
    /* The batch that runs: n windows from `first`. */
    int n, first;
    struct model_seq *seqs;
    struct model_target *targets;
    struct model_answer *answers;
    double nll;
    /* Operands of the plain products. */
    float *x, *w, *y;
};

static void *floats(size_t n)
{
    struct err e = {0};
    void *p;
    bench_must(big_alloc(n * sizeof(float), "operands", &p, &e), &e);
    for (size_t i = 0; i < n; i++)
        ((float *)p)[i] = 0.01F;
    return p;
}

static void set_up(struct bench *b)
{
    struct err e = {0};
    struct tok *t;
    struct buf text = {0};
    struct bits bits;
    struct config c = config_default();
    const char *dir = support_shared("models/pythia-s3");
    const char *data = support_shared("data/heldout_420k.txt");
    if (dir == NULL || data == NULL)
        exit(77);
    const char *threads = getenv("BENCH_THREADS");
    const char *compute = getenv("BENCH_COMPUTE");
    b->is_bf16 = compute != NULL && strcmp(compute, "bf16") == 0;
    struct kern_options o = {.device = "cpu",
                             .compute = b->is_bf16 ? KERN_BF16 : KERN_FP32,
                             .threads = threads != NULL ? (int)strtol(threads, NULL, 10) : 0};
    bench_must(tok_open(dir, &t, &e), &e);
    bench_must(io_read_file(data, (size_t)1 << 30, &text, &e), &e);
    bench_must(tok_encode(t, (struct str){text.data, text.len}, &b->ids, &e), &e);
    buf_release(&text);
    tok_close(t);
    bench_must(ckpt_open(&(struct model_ref){.name = "pythia-s3", .path = dir}, &b->ckpt, &e), &e);
    bench_must(kern_open(&o, &b->k, &e), &e);
    bench_must(model_open(b->ckpt, b->k, &b->m, &e), &e);
    bench_must(model_set_config(b->m, &c, &bits, &e), &e);
    b->info = model_get_info(b->m);
    b->threads = kern_get_info(b->k)->threads;
    int64_t per_batch = model_max_tokens(b->m) / WINDOW;
    b->seqs = xcalloc((size_t)per_batch, sizeof *b->seqs);
    b->targets = xcalloc((size_t)per_batch * WINDOW, sizeof *b->targets);
    b->answers = xcalloc((size_t)per_batch * WINDOW, sizeof *b->answers);
    size_t T = (size_t)model_max_tokens(b->m), d = (size_t)b->info->d, ffn = (size_t)b->info->ffn;
    b->x = floats(T * (ffn + 3 * d));
    b->w = floats((size_t)b->info->vocab * d + ffn * d);
    b->y = floats(T * (size_t)b->info->vocab);
    omp_set_num_threads(b->threads);
}

static void run_engine(struct bench *b)
{
    struct err e = {0};
    int64_t n_targets = 0;
    for (int i = 0; i < b->n; i++) {
        const int32_t *ids = b->ids.v + (size_t)(b->first + i) * WINDOW;
        b->seqs[i] = (struct model_seq){.tokens = ids, .n = WINDOW, .parent = -1};
        for (int t = 0; t + 1 < WINDOW; t++)
            b->targets[n_targets++] =
                (struct model_target){.seq = i, .pos = t, .token = ids[t + 1], .ref = -1};
    }
    struct model_batch batch = {
        .seqs = b->seqs, .n_seqs = b->n, .targets = b->targets, .n_targets = n_targets};
    bench_must(model_run(b->m, &batch, b->answers, &e), &e);
    b->nll = 0.0;
    for (int64_t i = 0; i < n_targets; i++)
        b->nll -= (double)b->answers[i].logprob;
}

static void product(const struct bench *b, int64_t m, int64_t n, int64_t k)
{
    dnnl_sgemm('N', 'T', m, n, k, 1.0F, b->x, k, b->w, k, 0.0F, b->y, n);
}

/* A causal product has half the FLOPs of a square one: keys are WINDOW / 2 for every query. */
static void attention_products(const struct bench *b)
{
    const int64_t d = b->info->d, hd = b->info->head_dim, keys = WINDOW / 2;
    const int heads = b->info->n_heads;
#pragma omp parallel for schedule(dynamic) num_threads(b->threads)
    for (int i = 0; i < b->n * heads; i++) {
        const float *q = b->x + (size_t)(i / heads) * WINDOW * 3 * (size_t)d + (i % heads) * 3 * hd;
        float *scores = b->y + (size_t)i * WINDOW * WINDOW / 2;
        float *out = b->w + (size_t)(i % heads) * WINDOW * (size_t)hd;
        dnnl_sgemm('N', 'T', WINDOW, keys, hd, 1.0F, q, 3 * d, q + hd, 3 * d, 0.0F, scores, keys);
        dnnl_sgemm('N', 'N', WINDOW, hd, keys, 1.0F, scores, keys, q + 2 * hd, 3 * d, 0.0F, out,
                   hd);
    }
}

static void run_products(struct bench *b)
{
    const int64_t T = (int64_t)b->n * WINDOW, d = b->info->d, ffn = b->info->ffn;
    for (int l = 0; l < b->info->n_layers; l++) {
        product(b, T, 3 * d, d);
        attention_products(b);
        product(b, T, d, d);
        product(b, T, ffn, d);
        product(b, T, d, ffn);
    }
    product(b, (int64_t)b->n * (WINDOW - 1), b->info->vocab, d);
}

static double gflops(const struct bench *b)
{
    double d = b->info->d, linear = (double)b->info->n_params_linear;
    double attention = 2.0 * b->info->n_layers * WINDOW / 2 * d;
    double head = d * (double)b->info->vocab * (WINDOW - 1) / WINDOW;
    return 2e-9 * (linear + attention + head); /* a token */
}

static double seconds_of(struct bench *b, void (*run)(struct bench *))
{
    int64_t start = clock_mono_ns();
    run(b);
    return clock_seconds_since(start);
}

int main(void)
{
    struct bench b = {0};
    set_up(&b);
    const int per_batch = (int)(model_max_tokens(b.m) / WINDOW);
    double engine = 0.0, products = 0.0, nll = 0.0;
    for (b.first = 0; b.first < TOKENS / WINDOW; b.first += per_batch) {
        int left = TOKENS / WINDOW - b.first;
        b.n = left < per_batch ? left : per_batch;
        double best[2] = {INFINITY, INFINITY};
        for (int r = 0; r < REPEATS; r++) {
            best[0] = fmin(best[0], seconds_of(&b, run_engine));
            best[1] = fmin(best[1], seconds_of(&b, run_products));
        }
        engine += best[0];
        products += best[1];
        nll += b.nll;
    }
    const double limit_ratio = b.is_bf16 ? 1.0 : 0.85;
    const double value = TOKENS / engine, against = TOKENS / products, ratio = value / against;
    const char *commit = getenv("ISOBIT_BENCH_COMMIT");
    printf("batches of %d windows; perplexity %.6f\n", per_batch,
           exp(nll / (TOKENS / WINDOW * (WINDOW - 1))));
    printf("engine        %8.0f tokens/s  %6.1f GFLOP/s\n", value, value * gflops(&b));
    printf("products only %8.0f tokens/s  %6.1f GFLOP/s\n", against, against * gflops(&b));
    printf("{\"name\": \"eval-cpu\", \"value\": %.1f, \"unit\": \"tokens/s\", \"against\": "
           "\"oneDNN, the same products in fp32\", \"against_value\": %.1f, \"ratio\": %.4f, "
           "\"limit\": \"ratio\", "
           "\"limit_value\": %.2f, \"of_limit\": %.4f, \"machine\": \"%s\", \"commit\": \"%s\"}\n",
           value, against, ratio, limit_ratio, ratio / limit_ratio, kern_get_info(b.k)->device,
           commit != NULL ? commit : "unknown");
    model_close(b.m);
    kern_close(b.k);
    ckpt_close(b.ckpt);
    tok_ids_release(&b.ids);
    return 0;
}
