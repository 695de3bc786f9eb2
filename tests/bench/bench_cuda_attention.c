/* Attention on a GPU for the heads that published models have: causal TFLOP/s of windows of 2,048 tokens and of short sequences,
 * q, k and v of all heads beside each other as in GPT-NeoX, against a product of this run. Prints a table, then one JSON line:
 * the slowest of the long ones.
 * Benchmark: gpu-attention */
#include <math.h>

#include "base/rng.h"
#include "kernels/cpu/f16.h"
#include "kernels/kernels.h"
#include "tests/bench/bench.h"

enum { T = 16384, WIDTH = 2560, REPEATS = 7 };
enum { CALLS = 40 }; /* behind each other, timed together */

struct bench {
    struct kern *k;
    void *qkv, *out; /* [T, 3 WIDTH], [T, WIDTH] */
    struct kern_seq seqs[T / 64];
};

static void *normal_numbers(struct kern *k, int64_t n)
{
    enum { CHUNK = 1 << 22 };
    struct err e;
    struct rng r = {7};
    void *p;
    uint16_t *host = xmalloc(CHUNK * sizeof *host);
    for (int i = 0; i < CHUNK; i++)
        host[i] = f32_to_f16((float)rng_normal(&r));
    bench_must(kern_alloc(k, (size_t)n * 2, "benchmark", &p, &e), &e);
    for (int64_t i = 0; i < n; i += CHUNK)
        bench_must(kern_upload(k, (char *)p + i * 2, host,
                               (size_t)(n - i < CHUNK ? n - i : CHUNK) * 2, &e),
                   &e);
    bench_must(kern_sync(k, &e), &e);
    xfree(host);
    return p;
}

static void call_attention(struct bench *b, const void *args)
{
    struct err e;
    bench_must(kern_attention(b->k, args, &e), &e);
}

static void call_product(struct bench *b, const void *args)
{
    struct err e;
    bench_must(kern_linear(b->k, args, &e), &e);
}

/* Median seconds of one call. */
static double time_calls(struct bench *b, void (*call)(struct bench *b, const void *args),
                         const void *args)
{
    double seconds[REPEATS];
    struct err e;
    for (int i = -1; i < REPEATS; i++) {
        const int64_t start = clock_mono_ns();
        for (int j = 0; j < CALLS; j++)
            call(b, args);
        bench_must(kern_sync(b->k, &e), &e);
        if (i >= 0)
            seconds[i] = clock_seconds_since(start) / CALLS;
    }
    qsort(seconds, REPEATS, sizeof *seconds, bench_compare_doubles);
    return seconds[REPEATS / 2];
}

/* TFLOP/s of a product of the width of these models, with their rows. */
static double product_rate(struct bench *b)
{
    const struct kern_linear_args a = {
        .y = b->out, .x = b->qkv, .w = b->qkv, .T = T, .N = WIDTH, .K = WIDTH};
    return 2e-12 * T * WIDTH * WIDTH / time_calls(b, call_product, &a);
}

/* TFLOP/s of sequences of `len` tokens. */
static double attention_rate(struct bench *b, int head_dim, int len)
{
    const int heads = WIDTH / head_dim, n = T / len;
    for (int i = 0; i < n; i++)
        b->seqs[i] = (struct kern_seq){.start = i * len, .len = len, .parent = -1};
    const struct kern_attention_args a = {.out = b->out,
                                          .qkv = b->qkv,
                                          .row = (int64_t)3 * heads * head_dim,
                                          .k_at = head_dim,
                                          .v_at = (int64_t)2 * head_dim,
                                          .head_stride = (int64_t)3 * head_dim,
                                          .heads = heads,
                                          .head_dim = head_dim,
                                          .scale = 1 / sqrtf((float)head_dim),
                                          .seqs = b->seqs,
                                          .n_seqs = n,
                                          .T = T};
    const double flop = 4.0 * T * heads * head_dim * (len + 1) / 2;
    const double seconds = time_calls(b, call_attention, &a);
    printf("%2d heads of %3d, %3d x %4d: %7.1f us, %5.1f TFLOP/s\n", heads, head_dim, n, len,
           seconds * 1e6, flop / seconds * 1e-12);
    return flop / seconds * 1e-12;
}

int main(void)
{
    static const int dims[] = {64, 80, 96, 128, 256};
    struct err e;
    struct bench b = {0};
    double least = INFINITY;
    bench_must(
        kern_open(&(struct kern_options){.device = "cuda:0", .compute = KERN_FP16}, &b.k, &e), &e);
    printf("%s\n", kern_get_info(b.k)->device);
    b.qkv = normal_numbers(b.k, (int64_t)T * 3 * WIDTH);
    b.out = normal_numbers(b.k, (int64_t)T * WIDTH);
    for (size_t i = 0; i < ARRAY_LEN(dims); i++) {
        least = fmin(least, attention_rate(&b, dims[i], 2048));
        attention_rate(&b, dims[i], 256);
        attention_rate(&b, dims[i], 96);
    }
    const double product = product_rate(&b);
    bench_print(&(struct bench_line){.name = "gpu-attention",
                                     .value = least,
                                     .unit = "TFLOP/s",
                                     .against = "a product",
                                     .against_value = product,
                                     .limit = "at least",
                                     .limit_value = product / 2});
    kern_free(b.k, b.qkv);
    kern_free(b.k, b.out);
    kern_close(b.k);
    return 0;
}
