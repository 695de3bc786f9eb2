/* Every operation of the cuda module but the quantizers against the cpu backend, over shapes and options: within the
 * rounding of the compute type, as ||cuda - cpu|| / ||cpu|| over a whole result, with inputs that the type holds
 * exactly. A plain program; skips (77) where there is no module or no GPU. */
#include <math.h>
#include <string.h>

#include "tests/support/cuda_lab.h"
#include "tests/support/head_parts.h"

/* ---- rows ---- */

static void test_embed_and_rows(struct lab *l, int64_t T, int64_t d)
{
    enum { VOCAB = 37, POSITIONS = 19 };
    struct both table = both_random(l, VOCAB * d, 0, 1), pos = both_random(l, POSITIONS * d, 0, 1);
    struct both out = both_poisoned(l, T * d), copy = both_poisoned(l, T * d);
    int32_t *ids = lab_random_ints(l, T, VOCAB), *at = lab_random_ints(l, T, POSITIONS);
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
    lab_compare(l, &out, l->tolerance,
                lab_label("embed with positions T %ld d %ld", (long)T, (long)d));
    a.pos_table = b.pos_table = NULL;
    RUN_BOTH(l, kern_embed, a, b);
    lab_compare(l, &out, 0, lab_label("embed T %ld d %ld", (long)T, (long)d));
    for (int64_t i = 0; i < T; i++)
        at[i] = (int32_t)(T - 1 - i);
    struct kern_rows_args from = {
        .y = copy.host, .x = out.host, .y_rows = at, .x_rows = NULL, .n = T, .d = d};
    struct kern_rows_args to = from;
    to.y = copy.device;
    to.x = out.device;
    RUN_BOTH(l, kern_copy_rows, from, to);
    lab_compare(l, &copy, 0, lab_label("copy_rows T %ld d %ld", (long)T, (long)d));
    xfree(ids);
    xfree(at);
    both_free(l, &table);
    both_free(l, &pos);
    both_free(l, &out);
    both_free(l, &copy);
}

/* With weights, and with others for a second output; or with none. */
static void test_norm(struct lab *l, int64_t T, int64_t d, bool has_affine, bool has_rows)
{
    struct both x = both_random(l, T * d, 3, 2), w = both_random(l, 2 * d, 1, 0.3),
                b = both_random(l, d, 0, 0.5);
    int64_t n = has_rows ? (T + 1) / 2 : T;
    const size_t item = (size_t)kern_get_info(l->gpu)->act_bytes;
    struct both y = both_poisoned(l, n * d), also = both_poisoned(l, n * d);
    int32_t *rows = lab_random_ints(l, n, T);
    struct kern_norm_args on_cpu = {
        .x = x.host,
        .out = {y.host, has_affine ? w.host : NULL, has_affine ? b.host : NULL},
        .also = {has_affine ? also.host : NULL, w.host + d, NULL},
        .eps = 1e-5F,
        .T = T,
        .d = d,
        .rows = has_rows ? rows : NULL,
        .n_rows = n};
    struct kern_norm_args on_gpu = on_cpu;
    on_gpu.x = x.device;
    on_gpu.out = (struct kern_norm_out){y.device, has_affine ? w.device : NULL,
                                        has_affine ? b.device : NULL};
    on_gpu.also = (struct kern_norm_out){has_affine ? also.device : NULL,
                                         (char *)w.device + (size_t)d * item, NULL};
    RUN_BOTH(l, kern_layernorm, on_cpu, on_gpu);
    lab_compare(l, &y, l->tolerance,
                lab_label("layernorm T %ld d %ld affine %d rows %d", (long)T, (long)d, has_affine,
                          has_rows));
    if (has_affine)
        lab_compare(l, &also, l->tolerance,
                    lab_label("second layernorm T %ld d %ld rows %d", (long)T, (long)d, has_rows));
    xfree(rows);
    both_free(l, &x);
    both_free(l, &w);
    both_free(l, &b);
    both_free(l, &y);
    both_free(l, &also);
}

/* What kern_linear does besides the product. */
struct linear_case {
    enum kern_act act;
    bool has_bias, is_residual;
    const struct kern_rotary *rotary;
};

static void test_linear(struct lab *l, int64_t T, int64_t N, int64_t K, const struct linear_case *t)
{
    struct both x = both_random(l, T * K, 0, 1), w = both_random(l, N * K, 0, 1 / sqrt((double)K)),
                bias = both_random(l, N, 0, 1),
                y = t->is_residual ? both_random(l, T * N, 0, 1) : both_poisoned(l, T * N);
    struct kern_linear_args on_cpu = {.y = y.host,
                                      .x = x.host,
                                      .w = w.host,
                                      .bias = t->has_bias ? bias.host : NULL,
                                      .T = T,
                                      .N = N,
                                      .K = K,
                                      .act = t->act,
                                      .is_residual = t->is_residual,
                                      .rotary = t->rotary};
    struct kern_linear_args on_gpu = on_cpu;
    on_gpu.y = y.device;
    on_gpu.x = x.device;
    on_gpu.w = w.device;
    on_gpu.bias = t->has_bias ? bias.device : NULL;
    RUN_BOTH(l, kern_linear, on_cpu, on_gpu);
    lab_compare(l, &y, 2 * l->tolerance, /* rounded before and behind activation or rotation */
                lab_label("linear T %ld N %ld K %ld act %d bias %d residual %d rotary %d heads %d",
                          (long)T, (long)N, (long)K, t->act, t->has_bias, t->is_residual,
                          t->rotary != NULL ? t->rotary->dims : 0,
                          t->rotary != NULL ? t->rotary->heads : 0));
    both_free(l, &x);
    both_free(l, &w);
    both_free(l, &bias);
    both_free(l, &y);
}

/* What 16 bits cannot hold becomes an infinity, on which GELU leaves no NaN where it is positive, whether it sees the sum (many
 * rows) or the rounded number. bf16 holds it; then the value is the sum. */
static void test_overflow(struct lab *l, int64_t T)
{
    enum { N = 200, K = 72 };
    const enum kern_act acts[] = {KERN_ACT_GELU_ERF, KERN_ACT_GELU_TANH};
    const float large = 40, sum = large * large * K; /* 115,200 */
    const size_t item = (size_t)kern_get_info(l->gpu)->act_bytes, bytes = (size_t)(T * N) * item;
    struct both x = both_random(l, T * K, large, 0), w = both_random(l, N * K, large, 0);
    void *y = lab_device_alloc(l, bytes), *host = xmalloc(bytes);
    struct err e;
    for (size_t i = 0; i < ARRAY_LEN(acts); i++) {
        const struct kern_linear_args a = {
            .y = y, .x = x.device, .w = w.device, .T = T, .N = N, .K = K, .act = acts[i]};
        lab_must(kern_linear(l->gpu, &a, &e), &e);
        lab_must(kern_download(l->gpu, host, y, bytes, &e), &e);
        const float expected = lab_round_to(l->compute, sum);
        int64_t n_wrong = 0;
        for (int64_t j = 0; j < T * N; j++)
            n_wrong += !(lab_element(l, host, j) == expected);
        lab_check(l, n_wrong == 0, "activation %d of %g with T %ld: %ld of %ld are not %g", acts[i],
                  (double)sum, (long)T, (long)n_wrong, (long)(T * N), (double)expected);
    }
    xfree(host);
    kern_free(l->gpu, y);
    both_free(l, &x);
    both_free(l, &w);
}

/* Heads, elements of one, those that are rotated. Tiles of our own product rotate in their ending where a head has 64, 128 or
 * 256 elements, 16, 32 or 64 of them rotated; otherwise a pass does. */
static const int rotated_in_tiles[][3] = {{7, 64, 16}, {2, 256, 64}, {8, 64, 64}, {4, 128, 32}},
                 rotated_by_pass[][3] = {{3, 8, 2}, {2, 80, 20}, {2, 96, 96}, {7, 64, 24}};
enum { ROTATED = ARRAY_LEN(rotated_in_tiles) };

/* Heads side by side, and all q in front of all k; few rows, for which there is always a pass, or many. */
static void test_rotary(struct lab *l, const int shapes[ROTATED][3], bool is_few)
{
    static const struct kern_seq few[] = {{0, 37, -1, 0}, {37, 64, -1, 0}, {101, 5, 0, 37}};
    static const struct kern_seq many[] = {
        {0, 2048, -1, 0}, {2048, 70, 0, 2048}, {2118, 9000, -1, 0}};
    for (int i = 0; i < (l->is_short && !is_few ? 2 : ROTATED); i++) {
        for (int is_by_head = 0; is_by_head < 2; is_by_head++) {
            const int dim = shapes[i][1], heads = shapes[i][0];
            const struct kern_rotary r = {.dims = shapes[i][2],
                                          .base = 10000,
                                          .heads = heads,
                                          .k_at = is_by_head ? dim : heads * dim,
                                          .head_stride = is_by_head ? 3 * dim : dim,
                                          .seqs = is_few ? few : many,
                                          .n_seqs = 3};
            test_linear(l, is_few ? 110 : 11130, (int64_t)3 * heads * dim, 72,
                        &(struct linear_case){.has_bias = is_few || !is_by_head, .rotary = &r});
        }
    }
}

static void test_rows(struct lab *l)
{
    static const int64_t shapes[][2] = {{1, 8},    {5, 48},     {17, 33},
                                        {64, 768}, {300, 1024}, {3, 5120}};
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
        test_embed_and_rows(l, shapes[i][0], shapes[i][1]);
        for (int option = 0; option < 4; option++)
            test_norm(l, shapes[i][0], shapes[i][1], option % 2 != 0, option / 2 != 0);
    }
}

/* Activations in the order in which tests take them: those that the library's epilogue can do, then those that have a pass
 * of their own behind it. */
static const enum kern_act acts[] = {KERN_ACT_NONE, KERN_ACT_RELU, KERN_ACT_GELU_ERF,
                                     KERN_ACT_GELU_TANH};
enum { ACTS_EPILOGUE = 2 };

static void test_acts(struct lab *l, const int64_t shape[3], size_t from, size_t to)
{
    for (size_t act = from; act < to; act++)
        for (int bias = 0; bias < 2; bias++)
            test_linear(l, shape[0], shape[1], shape[2],
                        &(struct linear_case){.act = acts[act], .has_bias = bias != 0});
}

static void test_residual(struct lab *l, const int64_t shape[3])
{
    for (int bias = 0; bias < 2; bias++)
        test_linear(l, shape[0], shape[1], shape[2],
                    &(struct linear_case){.has_bias = bias != 0, .is_residual = true});
}

/* The library's products: with few tiles, or without a pass to save, or with a residual. */
static void test_products(struct lab *l)
{
    static const int64_t few_tiles[][3] = {{1, 16, 8},       {7, 48, 16},      {33, 144, 48},
                                           {128, 96, 384},   {257, 768, 1024}, {1000, 2048, 512},
                                           {4224, 1528, 72}, {3000, 2304, 200}},
                         many_tiles[] = {33700, 200, 72};
    for (size_t i = 0; i < ARRAY_LEN(few_tiles); i++) {
        test_acts(l, few_tiles[i], 0, ARRAY_LEN(acts));
        test_residual(l, few_tiles[i]);
    }
    test_acts(l, many_tiles, 0, ACTS_EPILOGUE);
    test_residual(l, many_tiles);
    test_overflow(l, 5);
    test_rotary(l, rotated_in_tiles, true);
    test_rotary(l, rotated_by_pass, true);
    test_rotary(l, rotated_by_pass, false);
}

/* Products of our own, where a GPU has them: at least 528 tiles of 128 x 192, and work in a tile or sums over 1,024. Ragged
 * ends; 16,200 columns are several groups of tiles. */
static void test_tiles(struct lab *l)
{
    static const int64_t ragged[][3] = {{8400, 1528, 72}, {6100, 2200, 200}, {33700, 200, 72}},
                         large[] = {4200, 3072, 1032};
    for (size_t i = 0; i < ARRAY_LEN(ragged); i++)
        test_acts(l, ragged[i], ACTS_EPILOGUE, ARRAY_LEN(acts));
    test_acts(l, large, 0, ACTS_EPILOGUE);
    test_linear(l, 1030, 16200, 2304, &(struct linear_case){.act = KERN_ACT_GELU_ERF});
    test_overflow(l, 33700);
    test_rotary(l, rotated_in_tiles, false);
}

/* ---- attention ---- */

struct attention_case {
    int heads, head_dim;
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
    /* The weights of the values are rounded on the way. */
    lab_compare(l, &out, 3 * l->tolerance,
                lab_label("attention heads %d x %d by head %d alibi %d seqs %d T %ld", t->heads,
                          t->head_dim, t->is_by_head, t->has_alibi, t->n_seqs, (long)T));
    both_free(l, &qkv);
    both_free(l, &out);
}

static void test_sequences(struct lab *l)
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
                                           .has_alibi = option == 2,
                                           .seqs = lists[i].seqs,
                                           .n_seqs = lists[i].n};
                test_attention(l, &t);
            }
        }
    }
}

/* So many sequences that a multiprocessor works on several pieces behind each other; short ones, then all lengths. */
static void test_attention_of_many(struct lab *l)
{
    enum { N = 96 };
    static const int dims[] = {64, 80, 96, 128, 256};
    struct kern_seq seqs[N];
    for (int longest = 60; longest <= 420; longest += 360) {
        int32_t at = 0;
        for (int i = 0; i < N; i++) {
            seqs[i] = (struct kern_seq){at, 1 + (i * 37) % longest, -1, 0};
            if (i % 3 != 0) {
                seqs[i].parent = i - i % 3;
                seqs[i].pos0 = seqs[seqs[i].parent].len;
            }
            at += seqs[i].len;
        }
        for (size_t i = 0; i < ARRAY_LEN(dims); i++) {
            struct attention_case t = {.heads = 5, .head_dim = dims[i], .seqs = seqs, .n_seqs = N};
            test_attention(l, &t);
        }
    }
}

/* A query's result depends on its own keys alone: a sequence and its child have the same bits without another, longer
 * sequence in the batch, with it, and when nothing of it is a number. */
static void test_attention_in_company(struct lab *l, int dim, int len)
{
    enum { HEADS = 2, CHILD = 50, OTHER = 700 };
    const int64_t width = (int64_t)HEADS * dim, ours = len + CHILD, T = ours + OTHER;
    const size_t item = (size_t)kern_get_info(l->gpu)->act_bytes;
    const size_t bytes = (size_t)(ours * width) * item, poison = (size_t)(3 * width * OTHER) * item;
    const struct kern_seq batch[] = {
        {0, len, -1, 0}, {len, CHILD, 0, len}, {len + CHILD, OTHER, -1, 0}};
    struct err e;
    struct both qkv = both_random(l, T * 3 * width, 0, 1);
    char *no_numbers = xmalloc(poison);
    memset(no_numbers, POISON, poison);
    void *results[3];
    for (int i = 0; i < 3; i++) {
        void *out = lab_device_alloc(l, (size_t)(T * width) * item);
        struct kern_attention_args a = {.out = out,
                                        .qkv = qkv.device,
                                        .row = 3 * width,
                                        .k_at = width,
                                        .v_at = 2 * width,
                                        .head_stride = dim,
                                        .heads = HEADS,
                                        .head_dim = dim,
                                        .scale = 0.125F,
                                        .seqs = batch,
                                        .n_seqs = i == 0 ? 2 : 3,
                                        .T = i == 0 ? ours : T};
        if (i == 2)
            lab_must(kern_upload(l->gpu, (char *)qkv.device + (size_t)(ours * 3 * width) * item,
                                 no_numbers, poison, &e),
                     &e);
        lab_must(kern_attention(l->gpu, &a, &e), &e);
        results[i] = xmalloc(bytes);
        lab_must(kern_download(l->gpu, results[i], out, bytes, &e), &e);
        kern_free(l->gpu, out);
        lab_check(l, memcmp(results[0], results[i], bytes) == 0,
                  "attention depends on the batch: heads of %d, length %d, run %d", dim, len, i);
    }
    for (int i = 0; i < 3; i++)
        xfree(results[i]);
    xfree(no_numbers);
    both_free(l, &qkv);
}

static void test_all_in_company(struct lab *l)
{
    static const int dims[] = {64, 80, 128, 256}, lens[] = {1, 100, 200, 453};
    for (size_t i = 0; i < ARRAY_LEN(dims); i++)
        for (size_t j = 0; j < ARRAY_LEN(lens); j++)
            test_attention_in_company(l, dims[i], lens[j]);
}

static void test_attentions(struct lab *l)
{
    test_sequences(l);
    test_attention_of_many(l);
    test_all_in_company(l);
}

/* ---- losses ---- */

static void test_loss(struct lab *l, int64_t R, int64_t d, int64_t V)
{
    struct both x = both_random(l, R * d, 0, 1), ref = both_random(l, R * d, 0, 1),
                head = both_random(l, V * d, 0, 3 / sqrt((double)d));
    int64_t n = R + R / 2;
    int32_t *row = xcalloc((size_t)n, sizeof(*row)), *token = lab_random_ints(l, n, V);
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
        lab_must(kern_score(k, &score, &e), &e);
        struct kern_logits_args all = {
            .x = score.x, .head = score.head, .R = R, .d = d, .V = V, .logits = logits[side]};
        lab_must(kern_logits(k, &all, &e), &e);
        if (side == 0) /* every third target is the arg max */
            for (int64_t i = 0; i < n; i += 3)
                for (int64_t v = token[i] = 0; v < V; v++)
                    token[i] = logits[0][row[i] * V + v] > logits[0][row[i] * V + token[i]]
                                   ? (int32_t)v
                                   : token[i];
        if (side == 0)
            lab_must(kern_score(k, &score, &e), &e);
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
        lab_must(kern_kl(k, &kl_args, &e), &e);
        lab_must(kern_sync(k, &e), &e);
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
    lab_check(l, worst <= 3e-5, "score R %ld d %ld V %ld: logprob off by %g", (long)R, (long)d,
              (long)V, worst);
    lab_check(l, n_top == 0, "score R %ld V %ld: %ld answers about the top differ", (long)R,
              (long)V, (long)n_top);
    lab_check(l, worst_kl <= 3e-5, "kl R %ld d %ld V %ld: off by %g", (long)R, (long)d, (long)V,
              worst_kl);
    lab_check(l, worst_logit <= 3e-5, "logits R %ld d %ld V %ld: off by %g", (long)R, (long)d,
              (long)V, worst_logit);
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
static void test_ties(struct lab *l, int first, int second)
{
    enum { D = 8, V = 20000 };
    struct both x = both_random(l, D, 1, 0), head = both_random(l, V * D, 0, 0.01);
    for (int i = 0; i < D; i++)
        head.host[first * D + i] = head.host[second * D + i] = 2;
    lab_to_device(l, &head);
    static const int32_t row[] = {0, 0, 0};
    const int32_t token[] = {second, first, second};
    float logprob[3];
    uint8_t is_top[3];
    struct err e;
    struct kern_score_args a = {.x = x.device,
                                .head = head.device,
                                .R = 1,
                                .d = D,
                                .V = V,
                                .row = row,
                                .token = token,
                                .n = 3,
                                .logprob = logprob,
                                .is_top = is_top};
    int64_t mark;
    lab_must(kern_score(l->gpu, &a, &e), &e);
    lab_must(kern_mark(l->gpu, &mark, &e), &e);
    lab_must(kern_wait(l->gpu, mark, &e), &e);
    lab_check(l, is_top[0] == 0 && is_top[1] == 1 && is_top[2] == 0, "ties of %d and %d: %d %d %d",
              first, second, is_top[0], is_top[1], is_top[2]);
    lab_check(l, fabs(logprob[1] + log(2.0)) < 0.01, "ties: %g", (double)logprob[1]);
    both_free(l, &x);
    both_free(l, &head);
}

/* More rows than one product takes: equal rows have equal answers, to the bit. */
static void test_score_of_many_rows(struct lab *l)
{
    enum { D = 8, V = 250880, R = 4700, PERIOD = 92 };
    struct both x = both_random(l, R * D, 0, 1), head = both_random(l, V * D, 0, 1);
    int32_t *row = xcalloc(R, sizeof(*row)), *token = xcalloc(R, sizeof(*token));
    float *logprob = xcalloc(R, sizeof(*logprob));
    uint8_t *is_top = xcalloc(R, 1);
    struct err e;
    for (int i = 0; i < R; i++) {
        row[i] = i;
        token[i] = (int32_t)((int64_t)(i % PERIOD) * V / PERIOD);
        memcpy(x.host + i * D, x.host + i % PERIOD * D, D * sizeof(*x.host));
    }
    lab_to_device(l, &x);
    struct kern_score_args a = {.x = x.device,
                                .head = head.device,
                                .R = R,
                                .d = D,
                                .V = V,
                                .row = row,
                                .token = token,
                                .n = R,
                                .logprob = logprob,
                                .is_top = is_top};
    lab_must(kern_score(l->gpu, &a, &e), &e);
    lab_must(kern_sync(l->gpu, &e), &e);
    int n_different = 0;
    for (int i = 0; i < R; i++)
        n_different += memcmp(&logprob[i], &logprob[i % PERIOD], sizeof(*logprob)) != 0 ||
                       is_top[i] != is_top[i % PERIOD];
    lab_check(l, n_different == 0, "%d of %d equal rows score differently", n_different, R);
    xfree(row);
    xfree(token);
    xfree(logprob);
    xfree(is_top);
    both_free(l, &x);
    both_free(l, &head);
}

static struct both both_of(struct lab *l, const float *values, int64_t n)
{
    struct both b = both_random(l, n, 0, 0);
    memcpy(b.host, values, (size_t)n * sizeof(*values));
    lab_to_device(l, &b);
    return b;
}

static void compare_parts(struct lab *l, const struct head_operands *o,
                          const struct head_device *at, int64_t part,
                          const struct head_answers *whole)
{
    struct head_answers parts;
    struct err e;
    lab_must(head_answers_get(l->gpu, o, at, part, &parts, &e), &e);
    const int64_t n = head_answers_differ(o, whole, &parts);
    lab_check(l, n == 0, "head of %ld rows in parts of %ld, R %ld d %ld: %ld answers differ",
              (long)o->V, (long)part, (long)o->R, (long)o->d, (long)n);
    head_answers_release(&parts);
}

/* A head in parts of so many steps each, and in one part: the answers of the whole, to the bit. */
static void test_head_in_parts(struct lab *l, int64_t R, int64_t d, int64_t V, int64_t steps)
{
    const int64_t step = kern_get_info(l->gpu)->head_step;
    struct head_operands o = head_operands_new(R, d, V, step, rng_u64(&l->rng));
    struct both x = both_of(l, o.x, R * d), ref = both_of(l, o.ref, R * d),
                head = both_of(l, o.head, V * d);
    const struct head_device at = {x.device, ref.device, head.device};
    struct head_answers whole;
    struct err e;
    lab_must(head_answers_get(l->gpu, &o, &at, 0, &whole, &e), &e);
    lab_check(l, head_answers_wrong(&o, &whole) == 0, "the top of a whole head of %ld rows",
              (long)V);
    compare_parts(l, &o, &at, steps * step, &whole);
    compare_parts(l, &o, &at, V, &whole);
    head_answers_release(&whole);
    head_operands_free(&o);
    both_free(l, &x);
    both_free(l, &ref);
    both_free(l, &head);
}

/* Steps are of 3,840 rows, tiles of 192: last parts that are uneven, smaller than a tile, whole; rows beyond one product's;
 * more runs of tiles than a fold takes at a time. */
static void test_heads_in_parts(struct lab *l)
{
    static const int64_t cases[][4] = {
        {130, 72, 9001, 1},  {130, 72, 9001, 2},   {5, 64, 7685, 1},    {257, 32, 11520, 1},
        {300, 72, 50304, 1}, {300, 72, 50304, 5},  {77, 128, 50257, 3}, {1, 8, 16, 1},
        {40, 16, 250880, 1}, {4700, 8, 250880, 20}};
    for (size_t i = 0; i < (l->is_short ? 5 : ARRAY_LEN(cases)); i++)
        test_head_in_parts(l, cases[i][0], cases[i][1], cases[i][2], cases[i][3]);
}

/* Of log-likelihoods alone. */
static void test_scores(struct lab *l)
{
    test_ties(l, 7000, 19000);
    test_ties(l, 7000, 7001);
    test_ties(l, 7000, 7100); /* one tile */
    test_score_of_many_rows(l);
}

static void test_losses(struct lab *l)
{
    static const int64_t shapes[][3] = {{1, 8, 16},      {5, 48, 512},    {130, 64, 9001},
                                        {4200, 32, 700}, {257, 72, 5003}, {200, 512, 50304}};
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++)
        test_loss(l, shapes[i][0], shapes[i][1], shapes[i][2]);
    test_heads_in_parts(l);
}

/* ---- running ---- */

static void test_refused_devices(struct lab *l)
{
    static const char *const wrong[] = {"cuda", "cuda:", "cuda:x", "cuda:-1", "cuda:999"};
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        struct err e;
        struct kern *k;
        struct kern_options o = {.device = wrong[i]};
        lab_check(l, kern_open(&o, &k, &e) != ERR_OK, "device %s was opened", wrong[i]);
    }
    struct err e;
    void *p;
    lab_check(l, kern_alloc(l->gpu, (size_t)1 << 50, "a petabyte", &p, &e) == ERR_NOMEM,
              "a petabyte was allocated");
    lab_check(l, strstr(e.text, "a petabyte") != NULL, "'%s' does not say what for", e.text);
}

int main(int argc, char **argv)
{
    (void)argc;
    static const struct lab_part parts[] = {
        {"devices", test_refused_devices}, {"rows", test_rows},
        {"products", test_products},       {"tiles", test_tiles},
        {"attention", test_attentions},    {"scores", test_scores},
        {"losses", test_losses},           {NULL, NULL}};
    return lab_main(parts, argv);
}
