/* The cuda module on shapes of published models: tokens a second of a forward pass over 8 sequences of 2,048 tokens with
 * log-likelihoods of all of them, where the time goes, and bytes a second of the quantizers. Weights are random; four
 * layers of them stand for all. Prints a table, then one JSON line: pythia-70m's shape. With the argument `quantize` the
 * quantizers alone, beside a device copy; with the name of a shape that one alone.
 * Benchmark: cuda */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "kernels/cpu/f16.h"
#include "kernels/kernels.h"
#include "tests/bench/bench.h"
#include "worker/quant/quant.h"

enum { SEQS = 8, LEN = 2048, T = SEQS * LEN, LAYERS_KEPT = 4, REPEATS = 7 };

struct shape {
    const char *name;
    int layers, d, heads, vocab;
    double goal; /* tokens a second of transformers' sdpa on an H200 */
};

static const struct shape shapes[] = {
    {"pythia-70m", 6, 512, 8, 50304, 1.23e6},
    {"pythia-410m", 24, 1024, 16, 50304, 377e3},
    {"pythia-1.4b", 24, 2048, 16, 50304, 160e3},
    {"pythia-6.9b", 32, 4096, 32, 50432, 37.7e3},
};

enum part { PART_PRODUCTS, PART_ATTENTION, PART_NORMS, PART_SCORE, PARTS };

struct layer {
    void *qkv, *out, *ffn1, *ffn2, *norm, *bias;
};

struct bench {
    struct kern *k;
    const struct shape *shape;
    struct layer layers[LAYERS_KEPT];
    void *embed, *head, *x, *h, *wide, *mixed;
    void *chunk; /* random fp16 */
    int32_t *ids, *rows, *tokens;
    float *logprob;
    uint8_t *is_top;
    bool is_timed;
    double seconds[PARTS];
};

static void *alloc(struct bench *b, int64_t n)
{
    struct err e;
    void *p;
    bench_must(kern_alloc(b->k, (size_t)n * 2, "benchmark", &p, &e), &e);
    return p;
}

enum { CHUNK = 1 << 22 };

static void *random_weights(struct bench *b, int64_t n)
{
    struct err e;
    char *p = alloc(b, n);
    for (int64_t i = 0; i < n; i += CHUNK)
        bench_must(kern_cast_f16(b->k, p + i * 2, b->chunk, n - i < CHUNK ? n - i : CHUNK, &e), &e);
    return p;
}

static void make_chunk(struct bench *b)
{
    struct err e;
    struct rng r = {5};
    uint16_t *host = xmalloc(CHUNK * sizeof(*host));
    for (int i = 0; i < CHUNK; i++)
        host[i] = f32_to_f16((float)(0.02 * rng_normal(&r)));
    b->chunk = alloc(b, CHUNK);
    bench_must(kern_upload(b->k, b->chunk, host, CHUNK * sizeof(*host), &e), &e);
    bench_must(kern_sync(b->k, &e), &e);
    xfree(host);
}

static void bench_init(struct bench *b)
{
    const int64_t d = b->shape->d;
    make_chunk(b);
    for (int i = 0; i < LAYERS_KEPT; i++)
        b->layers[i] = (struct layer){.qkv = random_weights(b, 3 * d * d),
                                      .out = random_weights(b, d * d),
                                      .ffn1 = random_weights(b, 4 * d * d),
                                      .ffn2 = random_weights(b, 4 * d * d),
                                      .norm = random_weights(b, d),
                                      .bias = random_weights(b, 4 * d)};
    b->embed = random_weights(b, b->shape->vocab * d);
    b->head = random_weights(b, b->shape->vocab * d);
    b->x = alloc(b, T * d);
    b->h = alloc(b, T * d);
    b->mixed = alloc(b, T * d);
    b->wide = alloc(b, T * 4 * d);
    b->ids = xcalloc(T, sizeof(*b->ids));
    b->rows = xcalloc(T, sizeof(*b->rows));
    b->tokens = xcalloc(T, sizeof(*b->tokens));
    b->logprob = xcalloc(T, sizeof(*b->logprob));
    b->is_top = xcalloc(T, 1);
    for (int i = 0; i < T; i++) {
        b->ids[i] = b->tokens[i] = (int32_t)((int64_t)i * 7919 % b->shape->vocab);
        b->rows[i] = i;
    }
}

static void bench_release(struct bench *b)
{
    void *buffers[] = {b->embed, b->head, b->x, b->h, b->mixed, b->wide, b->chunk};
    for (size_t i = 0; i < ARRAY_LEN(buffers); i++)
        kern_free(b->k, buffers[i]);
    for (int i = 0; i < LAYERS_KEPT; i++) {
        void *weights[] = {b->layers[i].qkv,  b->layers[i].out,  b->layers[i].ffn1,
                           b->layers[i].ffn2, b->layers[i].norm, b->layers[i].bias};
        for (size_t j = 0; j < ARRAY_LEN(weights); j++)
            kern_free(b->k, weights[j]);
    }
    void *lists[] = {b->ids, b->rows, b->tokens, b->logprob, b->is_top};
    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        xfree(lists[i]);
}

/* Attributes the time since *start to a part when the pass is taken apart. */
static void done(struct bench *b, enum part part, int64_t *start)
{
    struct err e;
    if (!b->is_timed)
        return;
    bench_must(kern_sync(b->k, &e), &e);
    b->seconds[part] += clock_seconds_since(*start);
    *start = clock_mono_ns();
}

/* Of all T rows; y is x[T, d] of the bench where it is added to. */
static void linear(struct bench *b, const struct kern_linear_args *like, int64_t N, int64_t K)
{
    struct err e;
    struct kern_linear_args a = *like;
    a.T = T;
    a.N = N;
    a.K = K;
    a.is_residual = a.y == b->x;
    bench_must(kern_linear(b->k, &a, &e), &e);
}

static void sequences_fill(struct kern_seq seqs[SEQS])
{
    for (int i = 0; i < SEQS; i++)
        seqs[i] = (struct kern_seq){.start = i * LEN, .len = LEN, .parent = -1};
}

static void project_qkv(struct bench *b, const struct layer *l)
{
    struct kern_seq seqs[SEQS];
    const int64_t d = b->shape->d, hd = d / b->shape->heads;
    sequences_fill(seqs);
    const struct kern_rotary rotary = {.dims = (int)hd / 4,
                                       .base = 10000,
                                       .heads = b->shape->heads,
                                       .k_at = hd,
                                       .head_stride = 3 * hd,
                                       .seqs = seqs,
                                       .n_seqs = SEQS};
    const struct kern_linear_args a = {
        .y = b->wide, .x = b->h, .w = l->qkv, .bias = l->bias, .rotary = &rotary};
    linear(b, &a, 3 * d, d);
}

static void project_rest(struct bench *b, const struct layer *l)
{
    const int64_t d = b->shape->d;
    const struct kern_linear_args out = {.y = b->x, .x = b->mixed, .w = l->out, .bias = l->bias};
    const struct kern_linear_args ffn1 = {
        .y = b->wide, .x = b->h, .w = l->ffn1, .bias = l->bias, .act = KERN_ACT_GELU_ERF};
    const struct kern_linear_args ffn2 = {.y = b->x, .x = b->wide, .w = l->ffn2, .bias = l->bias};
    linear(b, &out, d, d);
    linear(b, &ffn1, 4 * d, d);
    linear(b, &ffn2, d, 4 * d);
}

static void norm(struct bench *b, const struct layer *l)
{
    struct err e;
    struct kern_norm_args a = {
        .x = b->x, .out = {b->h, l->norm, l->bias}, .eps = 1e-5F, .T = T, .d = b->shape->d};
    bench_must(kern_layernorm(b->k, &a, &e), &e);
}

static void attention(struct bench *b)
{
    struct err e;
    struct kern_seq seqs[SEQS];
    const int hd = b->shape->d / b->shape->heads;
    sequences_fill(seqs);
    struct kern_attention_args a = {.out = b->mixed,
                                    .qkv = b->wide,
                                    .row = (int64_t)3 * b->shape->d,
                                    .k_at = hd,
                                    .v_at = (int64_t)2 * hd,
                                    .head_stride = (int64_t)3 * hd,
                                    .heads = b->shape->heads,
                                    .head_dim = hd,
                                    .scale = 0.1F,
                                    .seqs = seqs,
                                    .n_seqs = SEQS,
                                    .T = T};
    bench_must(kern_attention(b->k, &a, &e), &e);
}

static void run_layer(struct bench *b, const struct layer *l)
{
    int64_t start = clock_mono_ns();
    norm(b, l);
    done(b, PART_NORMS, &start);
    project_qkv(b, l);
    done(b, PART_PRODUCTS, &start);
    attention(b);
    done(b, PART_ATTENTION, &start);
    norm(b, l);
    done(b, PART_NORMS, &start);
    project_rest(b, l);
    done(b, PART_PRODUCTS, &start);
}

static void run_pass(struct bench *b)
{
    struct err e;
    const int64_t d = b->shape->d;
    struct kern_embed_args embed = {.out = b->x, .table = b->embed, .ids = b->ids, .T = T, .d = d};
    bench_must(kern_embed(b->k, &embed, &e), &e);
    for (int i = 0; i < b->shape->layers; i++)
        run_layer(b, &b->layers[i % LAYERS_KEPT]);
    int64_t start = clock_mono_ns();
    norm(b, &b->layers[0]);
    struct kern_score_args score = {.x = b->h,
                                    .head = b->head,
                                    .R = T,
                                    .d = d,
                                    .V = b->shape->vocab,
                                    .row = b->rows,
                                    .token = b->tokens,
                                    .n = T,
                                    .logprob = b->logprob,
                                    .is_top = b->is_top};
    bench_must(kern_score(b->k, &score, &e), &e);
    bench_must(kern_sync(b->k, &e), &e);
    done(b, PART_SCORE, &start);
}

static double median(double *seconds)
{
    qsort(seconds, REPEATS, sizeof(*seconds), bench_compare_doubles);
    return seconds[REPEATS / 2];
}

static double run_shape(struct kern *k, const struct shape *shape)
{
    struct bench b = {.k = k, .shape = shape};
    double seconds[REPEATS];
    bench_init(&b);
    run_pass(&b);
    for (int i = 0; i < REPEATS; i++) {
        int64_t start = clock_mono_ns();
        run_pass(&b);
        seconds[i] = clock_seconds_since(start);
    }
    b.is_timed = true;
    run_pass(&b);
    double rate = T / median(seconds);
    printf(
        "%-12s %8.0f tokens/s (transformers %.0f), %.1f ms; apart: products %.1f, attention %.1f, "
        "norms %.1f, score %.1f ms\n",
        shape->name, rate, shape->goal, T / rate * 1e3, b.seconds[PART_PRODUCTS] * 1e3,
        b.seconds[PART_ATTENTION] * 1e3, b.seconds[PART_NORMS] * 1e3, b.seconds[PART_SCORE] * 1e3);
    bench_release(&b);
    return rate;
}

/* ---- quantizers ---- */

enum { ROWS = 32768, COLS = 16384 };

/* Of the weights of `a`. */
static void fill_book(struct bench *b, const struct kern_quant_args *a, enum dtype d, int k,
                      struct codebook *book)
{
    struct err e;
    struct config c = config_default();
    c.k = k;
    c.dtype = d;
    config_normalize(&c);
    bench_must(codebook_of_weights(b->k, &c, a, book, &e), &e);
}

static void run_quantizer(struct bench *b, const struct kern_quant_args *a, const char *name)
{
    double seconds[REPEATS];
    struct err e;
    for (int i = -1; i < REPEATS; i++) {
        int64_t start = clock_mono_ns();
        bench_must(kern_quantize(b->k, a, &e), &e);
        bench_must(kern_sync(b->k, &e), &e);
        if (i >= 0)
            seconds[i] = clock_seconds_since(start);
    }
    printf("%-9s block %5ld: %.2f TB/s\n", name, (long)a->block,
           4e-12 * ROWS * COLS / median(seconds));
}

/* The floor: each weight read and written once. */
static void run_copy(struct bench *b, void *from, void *to)
{
    double seconds[REPEATS];
    struct err e;
    struct kern_rows_args a = {.y = to, .x = from, .n = ROWS, .d = COLS};
    for (int i = -1; i < REPEATS; i++) {
        int64_t start = clock_mono_ns();
        bench_must(kern_copy_rows(b->k, &a, &e), &e);
        bench_must(kern_sync(b->k, &e), &e);
        if (i >= 0)
            seconds[i] = clock_seconds_since(start);
    }
    printf("copy: %.2f TB/s\n", 4e-12 * ROWS * COLS / median(seconds));
}

/* From weights on the GPU to the 256 entries of a quantile codebook, 50 million weights. */
static void run_codebook(struct bench *b, const struct kern_quant_args *like)
{
    double seconds[REPEATS];
    struct codebook book;
    struct kern_quant_args a = *like;
    a.rows = 50000000 / COLS;
    for (int i = -1; i < REPEATS; i++) {
        int64_t start = clock_mono_ns();
        fill_book(b, &a, DTYPE_quantile, 8, &book);
        if (i >= 0)
            seconds[i] = clock_seconds_since(start);
    }
    printf("quantile codebook of 50 M weights: %.2f ms\n", median(seconds) * 1e3);
}

/* What a tensor costs beyond its weights: calls on a small one, each with its check; making a quantile codebook of it; and
 * both, with a book that is new to the kern. */
static void run_overhead(struct bench *b, const struct kern_quant_args *like)
{
    enum { CALLS = 200, SMALL = 16 };
    struct err e;
    struct codebook book;
    struct kern_quant_args a = *like;
    a.rows = SMALL;
    bench_must(kern_quantize(b->k, &a, &e), &e);
    int64_t start = clock_mono_ns();
    for (int i = 0; i < CALLS; i++)
        bench_must(kern_quantize(b->k, &a, &e), &e);
    const double call = clock_seconds_since(start) / CALLS;
    start = clock_mono_ns();
    for (int i = 0; i < CALLS; i++)
        fill_book(b, &a, DTYPE_quantile, 4, &book);
    const double make = clock_seconds_since(start) / CALLS;
    a.book = book.v;
    a.n_book = book.n;
    start = clock_mono_ns();
    for (int i = 0; i < CALLS; i++) {
        book.v[1] = nextafterf(book.v[1], 0);
        bench_must(kern_quantize(b->k, &a, &e), &e);
    }
    printf("a call with %d weights: %.1f us, %.1f with a new book; a quantile codebook: %.1f us\n",
           SMALL * COLS, call * 1e6, clock_seconds_since(start) / CALLS * 1e6, make * 1e6);
}

static void run_quantizers(struct kern *k)
{
    static const enum dtype types[] = {DTYPE_int, DTYPE_float, DTYPE_dynamic, DTYPE_nf,
                                       DTYPE_quantile};
    static const int64_t blocks[] = {64, 256, 1024, 4096};
    struct bench b = {.k = k};
    struct codebook book;
    make_chunk(&b);
    void *w16 = random_weights(&b, (int64_t)ROWS * COLS), *out = alloc(&b, (int64_t)ROWS * COLS);
    struct kern_quant_args a = {.w16 = w16, .rows = ROWS, .cols = COLS, .book = book.v, .out = out};
    run_copy(&b, w16, out);
    run_codebook(&b, &a);
    fill_book(&b, &a, DTYPE_int, 4, &book);
    a.n_book = book.n;
    a.block = 64;
    run_overhead(&b, &a);
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        for (int bits = 3; bits <= 8; bits++) {
            char name[32];
            fill_book(&b, &a, types[i], bits, &book);
            a.n_book = book.n;
            snprintf(name, sizeof name, "%s %d", dtype_label(types[i]), bits);
            for (size_t j = 0; j < ARRAY_LEN(blocks); j++) {
                a.block = blocks[j];
                run_quantizer(&b, &a, name);
            }
        }
    }
    a.block = 0;
    run_quantizer(&b, &a, "quantile 8");
    a.block = 64;
    a.center = KERN_CENTER_BLOCK;
    run_quantizer(&b, &a, "centered");
    a.center = KERN_CENTER_NONE;
    const int64_t start = clock_mono_ns(), middle = (int64_t)ROWS * COLS / 2;
    struct err e;
    float value;
    bench_must(kern_order_statistics(k, &a, &middle, 1, &value, &e), &e);
    printf("order statistics: %.2f TB/s\n", 2e-12 * ROWS * COLS / clock_seconds_since(start));
    kern_free(k, w16);
    kern_free(k, out);
    kern_free(k, b.chunk);
}

int main(int argc, char **argv)
{
    struct err e;
    struct kern *k;
    const char *only = argc > 1 ? argv[1] : NULL;
    const bool is_quantize_only = only != NULL && strcmp(only, "quantize") == 0;
    struct kern_options o = {.device = "cuda:0", .compute = KERN_FP16};
    bench_must(kern_open(&o, &k, &e), &e);
    printf("%s\n", kern_get_info(k)->device);
    if (only == NULL || is_quantize_only)
        run_quantizers(k);
    double first = 0;
    for (size_t i = 0; i < ARRAY_LEN(shapes) && !is_quantize_only; i++) {
        if (only != NULL && strcmp(only, shapes[i].name) != 0)
            continue;
        double rate = run_shape(k, &shapes[i]);
        first = i == 0 ? rate : first;
    }
    if (!is_quantize_only)
        printf("{\"benchmark\": \"cuda\", \"tokens_per_second\": %.0f, \"limit\": %.0f}\n", first,
               shapes[0].goal);
    kern_close(k);
    return 0;
}
