/* Every operation of the cuda module against the cpu backend, over shapes and options. A plain program: it starts CUDA
 * once and skips (77) where there is no module or no GPU. Quantizers must agree in every bit; the rest within the
 * rounding of the compute type, as ||cuda - cpu|| / ||cpu|| over a whole result, with inputs that the type holds
 * exactly. Outputs are poisoned first, so that an element nobody wrote shows. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "kernels/cpu/f16.h"
#include "kernels/kernels.h"
#include "worker/quant/quant.h"

enum { SKIPPED = 77, POISON = 0xff };

struct lab {
    struct kern *cpu, *gpu;
    enum kern_compute compute; /* of gpu */
    double tolerance;          /* relative, one rounded operation on top of fp32 sums */
    struct rng rng;
    int n_checks, n_failures;
};

static const char *compute_name(enum kern_compute c)
{
    static const char *const all[] = {"fp32", "fp16", "bf16"};
    return all[c];
}

static void check(struct lab *l, bool is_ok, const char *fmt, ...) PRINTF_LIKE(3, 4);
static void check(struct lab *l, bool is_ok, const char *fmt, ...)
{
    l->n_checks++;
    if (is_ok)
        return;
    if (l->n_failures++ > 50)
        return;
    va_list ap;
    va_start(ap, fmt);
    printf("FAILED (%s): ", compute_name(l->compute));
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
}

static void must(enum err_code code, const struct err *e)
{
    if (code == ERR_OK)
        return;
    printf("FAILED: %s\n", e->text);
    exit(1);
}

/* ---- arrays that live on both sides ---- */

static float round_to(enum kern_compute c, float x)
{
    switch (c) {
    case KERN_FP32:
        break;
    case KERN_FP16:
        return f32_round_to_f16(x);
    case KERN_BF16: {
        uint32_t u = f32_bits(x);
        return f32_of_bits((u + 0x7fffU + ((u >> 16) & 1U)) & 0xffff0000U);
    }
    }
    return x;
}

static float element(const struct lab *l, const void *raw, int64_t i)
{
    switch (l->compute) {
    case KERN_FP32:
        break;
    case KERN_FP16:
        return f16_to_f32(((const uint16_t *)raw)[i]);
    case KERN_BF16:
        return f32_of_bits((uint32_t)((const uint16_t *)raw)[i] << 16);
    }
    return ((const float *)raw)[i];
}

struct both {
    float *host; /* what the cpu works on */
    void *device;
    int64_t n;
};

static void *device_alloc(struct lab *l, size_t bytes)
{
    struct err e;
    void *p;
    must(kern_alloc(l->gpu, bytes, "test", &p, &e), &e);
    return p;
}

static void to_device(struct lab *l, struct both *b)
{
    struct err e;
    size_t bytes = (size_t)b->n * sizeof(float);
    void *stage = device_alloc(l, bytes);
    must(kern_upload(l->gpu, stage, b->host, bytes, &e), &e);
    must(kern_cast_f32(l->gpu, b->device, stage, b->n, &e), &e);
    must(kern_sync(l->gpu, &e), &e);
    kern_free(l->gpu, stage);
}

static struct both both_random(struct lab *l, int64_t n, double mean, double deviation)
{
    struct both b = {.n = n};
    b.host = xcalloc((size_t)n, sizeof(float));
    b.device = device_alloc(l, (size_t)n * sizeof(float));
    for (int64_t i = 0; i < n; i++)
        b.host[i] = round_to(l->compute, (float)(mean + deviation * rng_normal(&l->rng)));
    to_device(l, &b);
    return b;
}

static struct both both_poisoned(struct lab *l, int64_t n)
{
    struct both b = {.n = n};
    struct err e;
    size_t bytes = (size_t)n * sizeof(float);
    b.host = xcalloc((size_t)n, sizeof(float));
    b.device = device_alloc(l, bytes);
    memset(b.host, POISON, bytes);
    must(kern_upload(l->gpu, b.device, b.host, bytes, &e), &e);
    return b;
}

static void both_free(struct lab *l, struct both *b)
{
    kern_free(l->gpu, b->device);
    xfree(b->host);
}

static void compare(struct lab *l, const struct both *b, double tolerance, const char *what)
{
    struct err e;
    size_t bytes = (size_t)b->n * (size_t)kern_get_info(l->gpu)->act_bytes;
    void *raw = xmalloc(bytes);
    must(kern_download(l->gpu, raw, b->device, bytes, &e), &e);
    double diff = 0, norm = 0;
    for (int64_t i = 0; i < b->n; i++) {
        double d = (double)element(l, raw, i) - b->host[i];
        diff += d * d;
        norm += (double)b->host[i] * b->host[i];
    }
    double relative = sqrt(diff / norm);
    check(l, relative <= tolerance, "%s: off by %.3g, allowed %.3g", what, relative, tolerance);
    xfree(raw);
}

static const char *label(const char *fmt, ...) PRINTF_LIKE(1, 2);
static const char *label(const char *fmt, ...)
{
    static char text[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return text;
}

/* Runs one operation on both sides; the second argument set differs in its pointers only. */
#define RUN_BOTH(l, op, on_cpu, on_gpu)                                                            \
    do {                                                                                           \
        struct err run_err;                                                                        \
        must(op((l)->cpu, &(on_cpu), &run_err), &run_err);                                         \
        must(op((l)->gpu, &(on_gpu), &run_err), &run_err);                                         \
    } while (0)

static int32_t *random_ints(struct lab *l, int64_t n, int64_t below)
{
    int32_t *out = xcalloc((size_t)n, sizeof(*out));
    for (int64_t i = 0; i < n; i++)
        out[i] = (int32_t)rng_below(&l->rng, (uint64_t)below);
    return out;
}

/* ---- rows ---- */

static void test_embed_and_rows(struct lab *l, int64_t T, int64_t d)
{
    enum { VOCAB = 37, POSITIONS = 19 };
    struct both table = both_random(l, VOCAB * d, 0, 1), pos = both_random(l, POSITIONS * d, 0, 1);
    struct both out = both_poisoned(l, T * d), copy = both_poisoned(l, T * d);
    int32_t *ids = random_ints(l, T, VOCAB), *at = random_ints(l, T, POSITIONS);
    struct kern_embed_args a = {.out = out.host,
                                .table = table.host,
                                .pos_table = pos.host,
                                .ids = ids,
                                .pos = at,
                                .T = T,
                                .d = d};
    struct kern_embed_args b = a;
    b.out = out.device;
    b.table = table.device;
    b.pos_table = pos.device;
    RUN_BOTH(l, kern_embed, a, b);
    compare(l, &out, l->tolerance, label("embed with positions T %ld d %ld", (long)T, (long)d));
    a.pos_table = b.pos_table = NULL;
    RUN_BOTH(l, kern_embed, a, b);
    compare(l, &out, 0, label("embed T %ld d %ld", (long)T, (long)d));
    for (int64_t i = 0; i < T; i++)
        at[i] = (int32_t)(T - 1 - i);
    struct kern_rows_args from = {
        .y = copy.host, .x = out.host, .y_rows = at, .x_rows = NULL, .n = T, .d = d};
    struct kern_rows_args to = from;
    to.y = copy.device;
    to.x = out.device;
    RUN_BOTH(l, kern_copy_rows, from, to);
    compare(l, &copy, 0, label("copy_rows T %ld d %ld", (long)T, (long)d));
    xfree(ids);
    xfree(at);
    both_free(l, &table);
    both_free(l, &pos);
    both_free(l, &out);
    both_free(l, &copy);
}

static void test_norm(struct lab *l, int64_t T, int64_t d, bool has_affine, bool has_rows)
{
    struct both x = both_random(l, T * d, 3, 2), w = both_random(l, d, 1, 0.3),
                b = both_random(l, d, 0, 0.5);
    int64_t n = has_rows ? (T + 1) / 2 : T;
    struct both y = both_poisoned(l, n * d);
    int32_t *rows = random_ints(l, n, T);
    struct kern_norm_args on_cpu = {.y = y.host,
                                    .x = x.host,
                                    .w = has_affine ? w.host : NULL,
                                    .b = has_affine ? b.host : NULL,
                                    .eps = 1e-5F,
                                    .T = T,
                                    .d = d,
                                    .rows = has_rows ? rows : NULL,
                                    .n_rows = n};
    struct kern_norm_args on_gpu = on_cpu;
    on_gpu.y = y.device;
    on_gpu.x = x.device;
    on_gpu.w = has_affine ? w.device : NULL;
    on_gpu.b = has_affine ? b.device : NULL;
    RUN_BOTH(l, kern_layernorm, on_cpu, on_gpu);
    compare(
        l, &y, l->tolerance,
        label("layernorm T %ld d %ld affine %d rows %d", (long)T, (long)d, has_affine, has_rows));
    xfree(rows);
    both_free(l, &x);
    both_free(l, &w);
    both_free(l, &b);
    both_free(l, &y);
}

static void test_linear(struct lab *l, int64_t T, int64_t N, int64_t K, enum kern_act act,
                        bool has_bias, bool is_residual)
{
    struct both x = both_random(l, T * K, 0, 1), w = both_random(l, N * K, 0, 1 / sqrt((double)K)),
                bias = both_random(l, N, 0, 1), y = both_random(l, T * N, 0, 1);
    struct kern_linear_args on_cpu = {.y = y.host,
                                      .x = x.host,
                                      .w = w.host,
                                      .bias = has_bias ? bias.host : NULL,
                                      .T = T,
                                      .N = N,
                                      .K = K,
                                      .act = act,
                                      .is_residual = is_residual};
    struct kern_linear_args on_gpu = on_cpu;
    on_gpu.y = y.device;
    on_gpu.x = x.device;
    on_gpu.w = w.device;
    on_gpu.bias = has_bias ? bias.device : NULL;
    RUN_BOTH(l, kern_linear, on_cpu, on_gpu);
    compare(l, &y, 2 * l->tolerance, /* rounded before and behind the activation */
            label("linear T %ld N %ld K %ld act %d bias %d residual %d", (long)T, (long)N, (long)K,
                  act, has_bias, is_residual));
    both_free(l, &x);
    both_free(l, &w);
    both_free(l, &bias);
    both_free(l, &y);
}

static void test_rows_and_products(struct lab *l)
{
    static const int64_t shapes[][2] = {{1, 8},    {5, 48},     {17, 33},
                                        {64, 768}, {300, 1024}, {3, 5120}};
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
        test_embed_and_rows(l, shapes[i][0], shapes[i][1]);
        for (int option = 0; option < 4; option++)
            test_norm(l, shapes[i][0], shapes[i][1], option % 2 != 0, option / 2 != 0);
    }
    static const int64_t products[][3] = {{1, 16, 8},     {7, 48, 16},      {33, 144, 48},
                                          {128, 96, 384}, {257, 768, 1024}, {1000, 2048, 512}};
    static const enum kern_act acts[] = {KERN_ACT_NONE, KERN_ACT_RELU, KERN_ACT_GELU_ERF,
                                         KERN_ACT_GELU_TANH};
    for (size_t i = 0; i < ARRAY_LEN(products); i++) {
        const int64_t *p = products[i];
        for (int bias = 0; bias < 2; bias++) {
            for (size_t act = 0; act < ARRAY_LEN(acts); act++)
                test_linear(l, p[0], p[1], p[2], acts[act], bias != 0, false);
            test_linear(l, p[0], p[1], p[2], KERN_ACT_NONE, bias != 0, true);
        }
    }
}

/* ---- attention ---- */

struct attention_case {
    int heads, head_dim, rotary_dims;
    bool is_by_head, has_alibi;
    const struct kern_seq *seqs;
    int n_seqs;
};

static void test_attention(struct lab *l, const struct attention_case *t)
{
    const int64_t d = (int64_t)t->heads * t->head_dim, row = 3 * d;
    int64_t T = 0;
    float slopes[64];
    for (int i = 0; i < t->n_seqs; i++)
        T = t->seqs[i].start + t->seqs[i].len > T ? t->seqs[i].start + t->seqs[i].len : T;
    for (int h = 0; h < t->heads; h++)
        slopes[h] = (float)exp2(-8.0 * (h + 1) / t->heads);
    struct both qkv = both_random(l, T * row, 0, 1), out = both_poisoned(l, T * d);
    struct kern_attention_args a = {
        .out = out.host,
        .qkv = qkv.host,
        .row = row,
        .k_at = t->is_by_head ? t->head_dim : d,
        .v_at = t->is_by_head ? 2 * t->head_dim : 2 * d,
        .head_stride = t->is_by_head ? 3 * t->head_dim : t->head_dim,
        .heads = t->heads,
        .head_dim = t->head_dim,
        .rotary_dims = t->rotary_dims,
        .rotary_base = 10000,
        .scale = 1 / sqrtf((float)t->head_dim),
        .alibi_slopes = t->has_alibi ? slopes : NULL,
        .seqs = t->seqs,
        .n_seqs = t->n_seqs,
        .T = T,
    };
    struct kern_attention_args b = a;
    b.out = out.device;
    b.qkv = qkv.device;
    RUN_BOTH(l, kern_attention, a, b);
    /* Rotated q and k and the weights of the values are rounded on the way. */
    compare(l, &out, 3 * l->tolerance,
            label("attention heads %d x %d rotary %d by head %d alibi %d seqs %d T %ld", t->heads,
                  t->head_dim, t->rotary_dims, t->is_by_head, t->has_alibi, t->n_seqs, (long)T));
    both_free(l, &qkv);
    both_free(l, &out);
}

static void test_attentions(struct lab *l)
{
    static const struct kern_seq one[] = {{0, 1, -1, 0}};
    static const struct kern_seq mixed[] = {{0, 37, -1, 0},   {37, 64, -1, 0}, {101, 5, 0, 37},
                                            {106, 70, 0, 37}, {176, 1, 1, 64}, {177, 130, -1, 0}};
    static const struct kern_seq longer[] = {{0, 300, -1, 0}, {300, 517, -1, 0}, {817, 33, 1, 517}};
    static const struct {
        const struct kern_seq *seqs;
        int n;
    } lists[] = {{one, 1}, {mixed, 6}, {longer, 3}};
    static const int dims[] = {8, 10, 16, 24, 64, 80, 96, 128, 256};
    for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
        for (size_t j = 0; j < ARRAY_LEN(dims); j++) {
            for (int option = 0; option < 4; option++) {
                struct attention_case t = {.heads = option < 2 ? 3 : 2,
                                           .head_dim = dims[j],
                                           .is_by_head = option % 2 != 0,
                                           .rotary_dims = option % 2 != 0 ? dims[j] / 4 * 2 : 0,
                                           .has_alibi = option == 2,
                                           .seqs = lists[i].seqs,
                                           .n_seqs = lists[i].n};
                test_attention(l, &t);
            }
        }
    }
}

/* A query's result depends on its own keys alone: alone or in a batch, the same bits. */
static void test_attention_is_the_same_in_any_batch(struct lab *l)
{
    enum { HEADS = 2, DIM = 64, WIDTH = HEADS * DIM, LEN = 200, OTHER = 700 };
    static const struct kern_seq batch[] = {{0, LEN, -1, 0}, {LEN, OTHER, -1, 0}};
    struct err e;
    struct both qkv = both_random(l, (LEN + OTHER) * 3 * WIDTH, 0, 1);
    size_t bytes = (size_t)LEN * WIDTH * (size_t)kern_get_info(l->gpu)->act_bytes;
    void *results[2];
    for (int n = 1; n <= 2; n++) {
        void *out = device_alloc(l, (size_t)(LEN + OTHER) * WIDTH * sizeof(float));
        struct kern_attention_args a = {.out = out,
                                        .qkv = qkv.device,
                                        .row = 3 * WIDTH,
                                        .k_at = WIDTH,
                                        .v_at = 2 * WIDTH,
                                        .head_stride = DIM,
                                        .heads = HEADS,
                                        .head_dim = DIM,
                                        .scale = 0.125F,
                                        .seqs = batch,
                                        .n_seqs = n,
                                        .T = n == 1 ? LEN : LEN + OTHER};
        must(kern_attention(l->gpu, &a, &e), &e);
        results[n - 1] = xmalloc(bytes);
        must(kern_download(l->gpu, results[n - 1], out, bytes, &e), &e);
        kern_free(l->gpu, out);
    }
    check(l, memcmp(results[0], results[1], bytes) == 0, "attention depends on the batch");
    xfree(results[0]);
    xfree(results[1]);
    both_free(l, &qkv);
}

/* ---- losses ---- */

static void test_loss(struct lab *l, int64_t R, int64_t d, int64_t V)
{
    struct both x = both_random(l, R * d, 0, 1), ref = both_random(l, R * d, 0, 1),
                head = both_random(l, V * d, 0, 3 / sqrt((double)d));
    int64_t n = R + R / 2;
    int32_t *row = xcalloc((size_t)n, sizeof(*row)), *token = random_ints(l, n, V);
    float *logprob[2], *logits[2];
    uint8_t *top[2];
    double *kl[2];
    struct err e;
    for (int64_t i = 0; i < n; i++)
        row[i] = (int32_t)(i * R / n);
    for (int side = 0; side < 2; side++) {
        struct kern *k = side == 0 ? l->cpu : l->gpu;
        logprob[side] = xcalloc((size_t)n, sizeof(float));
        logits[side] = xcalloc((size_t)(R * V), sizeof(float));
        top[side] = xcalloc((size_t)n, 1);
        kl[side] = xcalloc((size_t)R, sizeof(double));
        struct kern_score_args score = {.x = side == 0 ? x.host : x.device,
                                        .head = side == 0 ? head.host : head.device,
                                        .R = R,
                                        .d = d,
                                        .V = V,
                                        .row = row,
                                        .token = token,
                                        .n = n,
                                        .logprob = logprob[side],
                                        .is_top = top[side]};
        must(kern_score(k, &score, &e), &e);
        struct kern_logits_args all = {
            .x = score.x, .head = score.head, .R = R, .d = d, .V = V, .logits = logits[side]};
        must(kern_logits(k, &all, &e), &e);
        if (side == 0) /* every third target is the arg max */
            for (int64_t i = 0; i < n; i += 3)
                for (int64_t v = token[i] = 0; v < V; v++)
                    token[i] = logits[0][row[i] * V + v] > logits[0][row[i] * V + token[i]]
                                   ? (int32_t)v
                                   : token[i];
        if (side == 0)
            must(kern_score(k, &score, &e), &e);
        struct kern_kl_args kl_args = {.x = score.x,
                                       .ref = side == 0 ? ref.host : ref.device,
                                       .head = score.head,
                                       .R = R,
                                       .d = d,
                                       .V = V,
                                       .kl = kl[side],
                                       .same_top = top[side]};
        uint8_t *same = xcalloc((size_t)R, 1);
        kl_args.same_top = same;
        must(kern_kl(k, &kl_args, &e), &e);
        xfree(same);
    }
    double worst = 0, worst_kl = 0, worst_logit = 0;
    int64_t n_top = 0;
    for (int64_t i = 0; i < n; i++) {
        worst = fmax(worst, fabs((double)logprob[0][i] - logprob[1][i]));
        n_top += top[0][i] != top[1][i];
    }
    for (int64_t i = 0; i < R; i++)
        worst_kl = fmax(worst_kl, fabs(kl[0][i] - kl[1][i]) / (1 + fabs(kl[0][i])));
    for (int64_t i = 0; i < R * V; i++)
        worst_logit = fmax(worst_logit, fabs((double)logits[0][i] - logits[1][i]));
    check(l, worst <= 3e-5, "score R %ld d %ld V %ld: logprob off by %g", (long)R, (long)d, (long)V,
          worst);
    check(l, n_top == 0, "score R %ld V %ld: %ld answers about the top differ", (long)R, (long)V,
          (long)n_top);
    check(l, worst_kl <= 3e-5, "kl R %ld d %ld V %ld: off by %g", (long)R, (long)d, (long)V,
          worst_kl);
    check(l, worst_logit <= 3e-5, "logits R %ld d %ld V %ld: off by %g", (long)R, (long)d, (long)V,
          worst_logit);
    for (int side = 0; side < 2; side++) {
        xfree(logprob[side]);
        xfree(logits[side]);
        xfree(top[side]);
        xfree(kl[side]);
    }
    xfree(row);
    xfree(token);
    both_free(l, &x);
    both_free(l, &ref);
    both_free(l, &head);
}

/* Two equal largest logits: the smaller id is the arg max. */
static void test_ties(struct lab *l)
{
    enum { D = 8, V = 20000, FIRST = 7000, SECOND = 19000 };
    struct both x = both_random(l, D, 1, 0), head = both_random(l, V * D, 0, 0.01);
    for (int i = 0; i < D; i++)
        head.host[FIRST * D + i] = head.host[SECOND * D + i] = 2;
    to_device(l, &head);
    static const int32_t row[] = {0, 0}, token[] = {FIRST, SECOND};
    float logprob[2];
    uint8_t is_top[2];
    struct err e;
    struct kern_score_args a = {.x = x.device,
                                .head = head.device,
                                .R = 1,
                                .d = D,
                                .V = V,
                                .row = row,
                                .token = token,
                                .n = 2,
                                .logprob = logprob,
                                .is_top = is_top};
    must(kern_score(l->gpu, &a, &e), &e);
    check(l, is_top[0] == 1 && is_top[1] == 0, "ties: %d %d", is_top[0], is_top[1]);
    check(l, fabs(logprob[0] + log(2.0)) < 0.01, "ties: %g", (double)logprob[0]);
    both_free(l, &x);
    both_free(l, &head);
}

static void test_losses(struct lab *l)
{
    static const int64_t shapes[][3] = {{1, 8, 16}, {5, 48, 512}, {130, 64, 9001}, {4200, 32, 700}};
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++)
        test_loss(l, shapes[i][0], shapes[i][1], shapes[i][2]);
    test_ties(l);
}

/* ---- quantizers ---- */

struct tensor {
    uint16_t *host;
    void *device;
    int64_t rows, cols;
};

static struct tensor tensor_new(struct lab *l, int64_t rows, int64_t cols)
{
    struct tensor t = {.rows = rows, .cols = cols};
    t.host = xcalloc((size_t)(rows * cols), sizeof(uint16_t));
    t.device = device_alloc(l, (size_t)(rows * cols) * sizeof(uint16_t));
    return t;
}

static void tensor_upload(struct lab *l, struct tensor *t)
{
    struct err e;
    must(
        kern_upload(l->gpu, t->device, t->host, (size_t)(t->rows * t->cols) * sizeof(uint16_t), &e),
        &e);
}

static void tensor_free(struct lab *l, struct tensor *t)
{
    kern_free(l->gpu, t->device);
    xfree(t->host);
}

/* Weights of many sizes, with runs of zeros and of halves of the maximum, where quotients meet midpoints. */
static void tensor_fill(struct lab *l, struct tensor *t)
{
    for (int64_t i = 0; i < t->rows * t->cols; i++) {
        double x = 0.02 * rng_normal(&l->rng);
        if (i / 97 % 5 == 1)
            x = ldexp(1, (int)rng_below(&l->rng, 12) - 20);
        if (i / 131 % 7 == 2)
            x = 0;
        if (i / 211 % 11 == 3)
            x *= 1000;
        t->host[i] = f32_to_f16((float)x);
        if (rng_below(&l->rng, 50) == 0)
            t->host[i] ^= 0x8000;
    }
    tensor_upload(l, t);
}

struct quant_result {
    float *out; /* cpu */
    void *device_out;
    uint8_t *codes, *codes_gpu;
    uint16_t *max, *max_gpu;
    int64_t n, n_blocks;
};

static int64_t count_differences(struct lab *l, const struct quant_result *r, int64_t *first)
{
    struct err e;
    int64_t n_bad = 0;
    size_t bytes = (size_t)r->n * (size_t)kern_get_info(l->gpu)->act_bytes;
    void *raw = xmalloc(bytes);
    must(kern_download(l->gpu, raw, r->device_out, bytes, &e), &e);
    *first = -1;
    for (int64_t i = 0; i < r->n; i++) {
        bool is_same = f32_bits(element(l, raw, i)) == f32_bits(round_to(l->compute, r->out[i])) &&
                       r->codes[i] == r->codes_gpu[i];
        n_bad += !is_same;
        *first = !is_same && *first < 0 ? i : *first;
    }
    for (int64_t b = 0; b < r->n_blocks; b++)
        n_bad += r->max[b] != r->max_gpu[b];
    xfree(raw);
    return n_bad;
}

static void check_quantized(struct lab *l, const struct tensor *t, struct quant_result *r,
                            const void *max, const char *what, const char *how)
{
    struct err e;
    int64_t first;
    must(kern_download(l->gpu, r->max_gpu, max, (size_t)r->n_blocks * sizeof(uint16_t), &e), &e);
    int64_t n_bad = count_differences(l, r, &first);
    check(l, n_bad == 0, "%s%s: %ld of %ld differ, first %ld: weight %04x code %d, cpu %d", what,
          how, (long)n_bad, (long)r->n, (long)first, first >= 0 ? t->host[first] : 0,
          first >= 0 ? r->codes_gpu[first] : 0, first >= 0 ? r->codes[first] : 0);
}

/* Centered weights near 65504 that fp32 holds and fp16 does not: right to refuse when computing in fp16. */
static bool is_beyond_fp16(const struct lab *l, const struct quant_result *r)
{
    bool is_beyond = false;
    for (int64_t i = 0; i < r->n && l->compute == KERN_FP16; i++)
        is_beyond = is_beyond || !isfinite(f32_round_to_f16(r->out[i]));
    return is_beyond;
}

/* `a` holds everything but weights and outputs. */
static void test_quantize(struct lab *l, const struct tensor *t, struct kern_quant_args a,
                          const char *what)
{
    struct err e_cpu = {0}, e_gpu = {0}, e;
    struct quant_result r = {.n = t->rows * t->cols};
    int64_t block = a.block <= 0 || a.block > r.n ? r.n : a.block;
    size_t n = (size_t)r.n, max_bytes;
    r.n_blocks = (r.n + block - 1) / block;
    max_bytes = (size_t)r.n_blocks * sizeof(uint16_t);
    r.out = xcalloc(n, sizeof(float));
    r.codes = xcalloc(n, 1);
    r.codes_gpu = xcalloc(n, 1);
    r.max = xcalloc((size_t)r.n_blocks, sizeof(uint16_t));
    r.max_gpu = xcalloc((size_t)r.n_blocks, sizeof(uint16_t));
    r.device_out = device_alloc(l, n * sizeof(float));
    void *codes = device_alloc(l, n), *max = device_alloc(l, max_bytes);
    a.rows = t->rows;
    a.cols = t->cols;
    a.w16 = t->host;
    a.out = r.out;
    a.codes = r.codes;
    a.absmax = r.max;
    enum err_code on_cpu = kern_quantize(l->cpu, &a, &e_cpu);
    a.w16 = t->device;
    a.out = r.device_out;
    a.codes = codes;
    a.absmax = max;
    enum err_code on_gpu = kern_quantize(l->gpu, &a, &e_gpu);
    if (on_cpu == ERR_OK && is_beyond_fp16(l, &r)) {
        check(l, on_gpu == ERR_NUMERIC, "%s: weights beyond fp16 were taken", what);
        goto out;
    }
    check(l, on_cpu == on_gpu && strcmp(e_cpu.text, e_gpu.text) == 0,
          "%s: cpu says '%s', cuda '%s'", what, e_cpu.text, e_gpu.text);
    if (on_cpu == ERR_OK && on_gpu == ERR_OK) {
        must(kern_download(l->gpu, r.codes_gpu, codes, n, &e), &e);
        check_quantized(l, t, &r, max, what, "");
        /* Without codes, other kernels run. */
        memset(r.max_gpu, POISON, max_bytes);
        must(kern_upload(l->gpu, max, r.max_gpu, max_bytes, &e), &e);
        void *poison = xmalloc(n * sizeof(float));
        memset(poison, POISON, n * sizeof(float));
        must(kern_upload(l->gpu, r.device_out, poison, n * sizeof(float), &e), &e);
        xfree(poison);
        a.codes = NULL;
        must(kern_quantize(l->gpu, &a, &e), &e);
        check_quantized(l, t, &r, max, what, ", without codes");
    } else if (on_gpu != ERR_OK) {
        a.codes = NULL;
        on_gpu = kern_quantize(l->gpu, &a, &e_gpu);
        check(l, on_cpu == on_gpu && strcmp(e_cpu.text, e_gpu.text) == 0,
              "%s, without codes: cpu says '%s', cuda '%s'", what, e_cpu.text, e_gpu.text);
    }
out:;
    void *device[] = {r.device_out, codes, max};
    void *host[] = {r.out, r.codes, r.codes_gpu, r.max, r.max_gpu};
    for (size_t i = 0; i < ARRAY_LEN(device); i++)
        kern_free(l->gpu, device[i]);
    for (size_t i = 0; i < ARRAY_LEN(host); i++)
        xfree(host[i]);
}

/* Codebook of type d for k bits; the cpu's histogram serves the quantile type. False when there is none. */
static bool book_of(struct lab *l, const struct tensor *t, enum dtype d, int k,
                    struct kern_quant_args *a, struct codebook *book)
{
    struct err e;
    struct config c = config_default();
    int64_t *hist = xcalloc(65536, sizeof(*hist));
    c.k = k;
    c.dtype = d;
    config_normalize(&c);
    struct kern_quant_args on_cpu = *a;
    on_cpu.w16 = t->host;
    on_cpu.rows = t->rows;
    on_cpu.cols = t->cols;
    enum err_code code = kern_histogram(l->cpu, &on_cpu, hist, &e);
    if (code == ERR_OK)
        code = codebook_fill(&c, hist, book, &e);
    xfree(hist);
    a->book = book->v;
    a->n_book = book->n;
    return code == ERR_OK;
}

static void test_histogram(struct lab *l, const struct tensor *t, struct kern_quant_args a,
                           const char *what)
{
    struct err e_cpu = {0}, e_gpu = {0};
    int64_t *hist[2] = {xcalloc(65536, sizeof(int64_t)), xcalloc(65536, sizeof(int64_t))};
    a.rows = t->rows;
    a.cols = t->cols;
    a.w16 = t->host;
    enum err_code on_cpu = kern_histogram(l->cpu, &a, hist[0], &e_cpu);
    a.w16 = t->device;
    enum err_code on_gpu = kern_histogram(l->gpu, &a, hist[1], &e_gpu);
    check(l, on_cpu == on_gpu && strcmp(e_cpu.text, e_gpu.text) == 0,
          "%s: histogram: cpu says '%s', cuda '%s'", what, e_cpu.text, e_gpu.text);
    check(l, on_cpu != ERR_OK || memcmp(hist[0], hist[1], 65536 * sizeof(int64_t)) == 0,
          "%s: histogram differs", what);
    xfree(hist[0]);
    xfree(hist[1]);
}

static void test_spread(struct lab *l, const struct tensor *t, const char *what)
{
    struct err e;
    for (int by_rows = 0; by_rows < 2; by_rows++) {
        int64_t n = by_rows ? t->rows : t->cols;
        size_t bytes = (size_t)n * sizeof(unsigned __int128);
        unsigned __int128 *keys[2] = {xmalloc(bytes), xmalloc(bytes)};
        must(kern_spread(l->cpu, t->host, t->rows, t->cols, by_rows != 0, keys[0], &e), &e);
        must(kern_spread(l->gpu, t->device, t->rows, t->cols, by_rows != 0, keys[1], &e), &e);
        check(l, memcmp(keys[0], keys[1], bytes) == 0, "%s: rank keys differ (by rows: %d)", what,
              by_rows);
        xfree(keys[0]);
        xfree(keys[1]);
    }
}

static const int64_t blocks[] = {0, 1, 7, 24, 32, 64, 100, 128, 256, 512, 1024, 2048, 4096, 10000};

static void test_blocks_and_options(struct lab *l, const struct tensor *t)
{
    int32_t keep[3];
    int32_t n_keep = 0;
    for (int64_t c = 0; c < t->cols && n_keep < 3; c += 1 + t->cols / 3)
        keep[n_keep++] = (int32_t)c;
    for (size_t b = 0; b < ARRAY_LEN(blocks); b++) {
        for (int option = 0; option < 12; option++) {
            struct codebook book;
            struct kern_quant_args a = {.block = blocks[b],
                                        .center = (enum kern_center)(option % 3),
                                        .keep = option / 3 % 2 != 0 ? keep : NULL,
                                        .n_keep = option / 3 % 2 != 0 ? n_keep : 0,
                                        .is_dequant_fp32 = option / 6 != 0};
            const char *what = label("%ld x %ld block %ld option %d", (long)t->rows, (long)t->cols,
                                     (long)blocks[b], option);
            if (book_of(l, t, DTYPE_quantile, 4, &a, &book))
                test_quantize(l, t, a, what);
            if (option < 6)
                test_histogram(l, t, a, what);
        }
    }
}

static void test_types(struct lab *l, const struct tensor *t)
{
    static const int64_t some[] = {0, 64, 100, 512, 4096};
    for (int d = 0; d < DTYPE_COUNT; d++) {
        for (int k = 2; k <= 8; k++) {
            for (size_t b = 0; b < ARRAY_LEN(some); b++) {
                struct codebook book;
                struct kern_quant_args a = {.block = some[b]};
                if (book_of(l, t, (enum dtype)d, k, &a, &book))
                    test_quantize(l, t, a,
                                  label("type %s k %d block %ld", dtype_label((enum dtype)d), k,
                                        (long)some[b]));
            }
        }
    }
    static const float odd[][5] = {{0}, {-1}, {-0.5F, -0.5F, 0, 0, 1}, {-1, -0.25F, 0.25F, 1, 1}};
    static const int n_odd[] = {1, 1, 5, 5};
    for (size_t i = 0; i < ARRAY_LEN(n_odd); i++) {
        struct kern_quant_args a = {.block = 64, .book = odd[i], .n_book = n_odd[i]};
        test_quantize(l, t, a, label("book %zu", i));
    }
}

/* All finite fp16 numbers, in one block that they share with 1 and in many. */
static void test_all_patterns(struct lab *l)
{
    struct tensor t = tensor_new(l, 62, 1024);
    for (int i = 0; i < 62 * 1024; i++)
        t.host[i] = (uint16_t)(i % 2 * 0x8000 + i / 2);
    tensor_upload(l, &t);
    test_types(l, &t);
    test_blocks_and_options(l, &t);
    tensor_free(l, &t);
}

/* Every pair of significands once: row m holds all y <= m against the maximum m, in blocks of a row. */
static void test_all_quotients(struct lab *l)
{
    enum { N = 1024 };
    struct tensor t = tensor_new(l, N, 2 * N);
    for (int m = 0; m < N; m++)
        for (int i = 0; i < 2 * N; i++) {
            int y = i < N ? 0x3800 + i : 0x3c00 + i - N;
            int max = 0x3c00 + m;
            t.host[m * 2 * N + i] = (uint16_t)(i == 0 ? max : i < N ? y : y <= max ? y : max);
        }
    tensor_upload(l, &t);
    for (int k = 4; k <= 8; k++) {
        struct codebook book;
        struct kern_quant_args a = {.block = 2 * N};
        for (int d = 0; d < DTYPE_COUNT; d++)
            if (book_of(l, &t, (enum dtype)d, k, &a, &book))
                test_quantize(l, &t, a, label("all quotients, type %d k %d", d, k));
    }
    tensor_free(l, &t);
}

/* What is refused, and in which words. */
static void test_refusals(struct lab *l)
{
    static const float book[] = {-1, 0, 1};
    static const int32_t beyond[] = {0, 40};
    struct tensor t = tensor_new(l, 8, 40);
    tensor_fill(l, &t);
    struct kern_quant_args a = {.block = 64, .book = book, .n_book = 3};
    t.host[77] = 0x7c00;
    t.host[301] = 0x7e01;
    tensor_upload(l, &t);
    for (int center = 0; center < 3; center++) {
        a.center = (enum kern_center)center;
        test_quantize(l, &t, a, "infinity");
        test_histogram(l, &t, a, "infinity");
    }
    a.center = KERN_CENTER_NONE;
    a.block = 0;
    test_quantize(l, &t, a, "infinity in one block");
    a.block = -3;
    test_quantize(l, &t, a, "negative block");
    a.block = 64;
    a.keep = beyond;
    a.n_keep = 2;
    test_quantize(l, &t, a, "column beyond the last");
    a.n_keep = 0;
    a.n_book = 0;
    test_quantize(l, &t, a, "empty book");
    for (int i = 0; i < 320; i++)
        t.host[i] = i % 2 == 0 ? 0x7bff : 0xfbff;
    t.host[3] = 0x7bff;
    tensor_upload(l, &t);
    a.n_book = 3;
    for (int center = 0; center < 3; center++) {
        a.center = (enum kern_center)center;
        test_quantize(l, &t, a, "largest weights");
    }
    tensor_free(l, &t);
}

static void test_quantizers(struct lab *l)
{
    static const int64_t shapes[][2] = {{1, 1}, {3, 5}, {7, 33}, {64, 64}, {129, 1000}, {40, 4097}};
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
        struct tensor t = tensor_new(l, shapes[i][0], shapes[i][1]);
        tensor_fill(l, &t);
        test_blocks_and_options(l, &t);
        test_spread(l, &t, label("%ld x %ld", (long)t.rows, (long)t.cols));
        if (i >= 3)
            test_types(l, &t);
        tensor_free(l, &t);
    }
    test_all_patterns(l);
    test_all_quotients(l);
    test_refusals(l);
}

/* The three operations with which the module divides, for every pair of binary16 significands. */
static void test_division(struct lab *l)
{
    int n_bad = 0;
    for (int a = 1024; a < 2048; a++) {
        for (int b = 1024; b < 2048; b++) {
            float y = (float)a * (a < b ? 1.0F : 0.5F), m = (float)b;
            volatile float r = 1.0F / m, q = y * r, t = y / m;
            n_bad += fmaf(fmaf(-q, m, y), r, q) != t;
        }
    }
    check(l, n_bad == 0, "%d quotients are not correctly rounded", n_bad);
}

/* ---- running ---- */

static void test_refused_devices(struct lab *l)
{
    static const char *const wrong[] = {"cuda", "cuda:", "cuda:x", "cuda:-1", "cuda:999"};
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        struct err e;
        struct kern *k;
        struct kern_options o = {.device = wrong[i]};
        check(l, kern_open(&o, &k, &e) != ERR_OK, "device %s was opened", wrong[i]);
    }
    struct err e;
    void *p;
    check(l, kern_alloc(l->gpu, (size_t)1 << 50, "a petabyte", &p, &e) == ERR_NOMEM,
          "a petabyte was allocated");
    check(l, strstr(e.text, "a petabyte") != NULL, "'%s' does not say what for", e.text);
}

static void run_all(struct lab *l)
{
    test_refused_devices(l);
    test_division(l);
    test_rows_and_products(l);
    test_attentions(l);
    test_attention_is_the_same_in_any_batch(l);
    test_losses(l);
    test_quantizers(l);
}

int main(void)
{
    static const double tolerance[] = {2e-6, 6e-4, 5e-3};
    int n_failures = 0;
    for (int compute = KERN_FP32; compute <= KERN_BF16; compute++) {
        struct lab l = {
            .compute = (enum kern_compute)compute, .tolerance = tolerance[compute], .rng = {11}};
        struct err e;
        struct kern_options gpu = {.device = "cuda:0", .compute = l.compute};
        struct kern_options cpu = {.device = "cpu"};
        enum err_code code = kern_open(&gpu, &l.gpu, &e);
        if (code == ERR_NOTFOUND) {
            printf("SKIPPED: %s\n", e.text);
            return SKIPPED;
        }
        must(code, &e);
        must(kern_open(&cpu, &l.cpu, &e), &e);
        if (compute == KERN_FP32)
            printf("%s\n", kern_get_info(l.gpu)->device);
        run_all(&l);
        printf("%s: %d checks, %d failed\n", compute_name(l.compute), l.n_checks, l.n_failures);
        n_failures += l.n_failures;
        kern_close(l.gpu);
        kern_close(l.cpu);
    }
    return n_failures > 0;
}
