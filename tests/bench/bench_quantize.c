/* Blockwise quantize-dequantize on the cpu, the cost of a configuration, against converting the same fp16 weights to
 * fp32 with nothing done to them. Prints a table, then one JSON line: 4-bit integers, blocks of 64.
 * Benchmark: quantize-cpu */
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

enum { ROWS = 4096, COLS = 4096, REPEATS = 7 };
static const int64_t n_weights = (int64_t)ROWS * COLS;

/* A weight is read as 2 bytes and written as 4. */
static const double bytes_per_weight = 6;
static const double limit_g = 1.0; /* G weights/s */

struct bench {
    struct kern *k;
    uint16_t *w16;
    float *out;
};

/* G weights/s over REPEATS runs after one that warms up. */
struct speed {
    double median, best;
};

static struct speed measure(struct bench *b, void (*run)(struct bench *, const void *),
                            const void *arg)
{
    double seconds[REPEATS];
    run(b, arg);
    for (int i = 0; i < REPEATS; i++) {
        int64_t start = clock_mono_ns();
        run(b, arg);
        seconds[i] = clock_seconds_since(start);
    }
    qsort(seconds, REPEATS, sizeof(seconds[0]), bench_compare_doubles);
    const double g = (double)n_weights * 1e-9;
    return (struct speed){.median = g / seconds[REPEATS / 2], .best = g / seconds[0]};
}

static void run_cast(struct bench *b, const void *arg)
{
    (void)arg;
    struct err e;
    bench_must(kern_cast_f16(b->k, b->out, b->w16, n_weights, &e), &e);
}

static void run_quantize(struct bench *b, const void *arg)
{
    struct err e;
    bench_must(kern_quantize(b->k, arg, &e), &e);
}

static void run_order_statistics(struct bench *b, const void *arg)
{
    static const int64_t middle = (int64_t)ROWS * COLS / 2;
    float value;
    struct err e;
    bench_must(kern_order_statistics(b->k, arg, &middle, 1, &value, &e), &e);
}

static void run_spread(struct bench *b, const void *arg)
{
    static unsigned __int128 keys[ROWS];
    (void)arg;
    struct err e;
    bench_must(kern_spread(b->k, b->w16, ROWS, COLS, true, keys, &e), &e);
}

static void print_row(const char *what, struct speed g)
{
    printf("%-36s %6.2f G weights/s %7.1f GB/s   best %6.2f\n", what, g.median,
           g.median * bytes_per_weight, g.best);
}

struct row {
    enum dtype dtype;
    int k;
    int64_t block;
    enum kern_center center;
    int32_t n_keep;
};

static double bench_row(struct bench *b, const struct row *row)
{
    static int32_t keep[COLS];
    for (int32_t i = 0; i < row->n_keep; i++)
        keep[i] = i * (COLS / row->n_keep);
    struct kern_quant_args args = {
        .w16 = b->w16,
        .rows = ROWS,
        .cols = COLS,
        .block = row->block,
        .center = row->center,
        .keep = keep,
        .n_keep = row->n_keep,
        .out = b->out,
    };
    struct config c = {.k = row->k,
                       .dtype = row->dtype,
                       .exponent_bits = row->dtype == DTYPE_float ? (row->k + 1) / 2 : 0};
    struct codebook book;
    struct err e;
    bench_must(codebook_of_weights(b->k, &c, &args, &book, &e), &e);
    args.book = book.v;
    args.n_book = book.n;
    struct speed g = measure(b, run_quantize, &args);
    char what[64];
    (void)snprintf(what, sizeof(what), "%s k=%d block %ld%s%s", dtype_label(row->dtype), row->k,
                   (long)row->block,
                   row->center == KERN_CENTER_NONE     ? ""
                   : row->center == KERN_CENTER_TENSOR ? " centered"
                                                       : " centered by block",
                   row->n_keep == 0 ? "" : " 2 % kept");
    print_row(what, g);
    return g.median;
}

static const struct row rows[] = {
    {DTYPE_int, 4, 64, KERN_CENTER_NONE, 0}, /* the one reported */
    {DTYPE_int, 4, 1024, KERN_CENTER_NONE, 0},       {DTYPE_int, 4, 0, KERN_CENTER_NONE, 0},
    {DTYPE_float, 3, 64, KERN_CENTER_NONE, 0},       {DTYPE_quantile, 4, 64, KERN_CENTER_NONE, 0},
    {DTYPE_int, 5, 64, KERN_CENTER_NONE, 0},         {DTYPE_int, 8, 64, KERN_CENTER_NONE, 0},
    {DTYPE_int, 8, 1024, KERN_CENTER_NONE, 0},       {DTYPE_int, 8, 0, KERN_CENTER_NONE, 0},
    {DTYPE_dynamic, 8, 64, KERN_CENTER_NONE, 0},     {DTYPE_quantile, 8, 64, KERN_CENTER_NONE, 0},
    {DTYPE_int, 4, 64, KERN_CENTER_TENSOR, 0},       {DTYPE_int, 4, 64, KERN_CENTER_BLOCK, 0},
    {DTYPE_int, 4, 64, KERN_CENTER_NONE, COLS / 50},
};

int main(void)
{
    struct bench b = {0};
    struct err e;
    struct kern_options o = {.device = "cpu"};
    bench_must(kern_open(&o, &b.k, &e), &e);
    void *p = NULL;
    bench_must(kern_alloc(b.k, (size_t)n_weights * sizeof(uint16_t), "weights", &p, &e), &e);
    b.w16 = p;
    bench_must(kern_alloc(b.k, (size_t)n_weights * sizeof(float), "output", &p, &e), &e);
    b.out = p;
    struct rng r = {1};
    for (int64_t i = 0; i < n_weights; i++)
        b.w16[i] = f32_to_f16(0.02F * (float)rng_normal(&r));

    struct speed cast = measure(&b, run_cast, NULL);
    print_row("fp16 to fp32", cast);
    struct kern_quant_args whole = {.w16 = b.w16, .rows = ROWS, .cols = COLS};
    print_row("order statistics", measure(&b, run_order_statistics, &whole));
    print_row("rank keys", measure(&b, run_spread, NULL));
    double value = 0;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        double g = bench_row(&b, &rows[i]);
        value = i == 0 ? g : value;
    }
    const char *commit = getenv("ISOBIT_BENCH_COMMIT");
    printf("{\"name\": \"quantize-cpu\", \"value\": %.3f, \"unit\": \"G weights/s\", "
           "\"against\": \"fp16 to fp32 conversion\", \"against_value\": %.3f, \"ratio\": %.3f, "
           "\"limit\": \"at least\", \"limit_value\": %.3f, \"of_limit\": %.3f, "
           "\"machine\": \"%s\", \"commit\": \"%s\"}\n",
           value, cast.median, value / cast.median, limit_g, value / limit_g,
           kern_get_info(b.k)->device, commit != NULL ? commit : "");
    kern_free(b.k, b.out);
    kern_free(b.k, b.w16);
    kern_close(b.k);
    return 0;
}
