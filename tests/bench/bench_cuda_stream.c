/* Layer by layer against resident on one GPU, with random checkpoints of real shapes (random_ckpt.h). One JSON line each.
 *   bench_cuda_stream make SHAPE DIR
 *   bench_cuda_stream resident DIR            a batch of up to 8 windows of 2,048 tokens, all scored
 *   bench_cuda_stream stream DIR BYTES N B    N configurations of B such batches within a memory budget
 *   bench_cuda_stream same DIR BYTES          answers of both ways, one batch, 16 bit and 4 bit */
#include <math.h>

#include "tests/bench/random_ckpt.h"
#include "worker/model/model_stream.h"

enum { MAX_WINDOWS = 8, WINDOW = 2048, REPEATS = 5 };

struct bench {
    struct ckpt *ckpt;
    struct kern *k;
    struct model *m;
    int32_t *tokens;
    int n_windows, n_targets; /* as many windows as the model's batches hold, at most 8 */
    struct model_seq seqs[MAX_WINDOWS];
    struct model_target *targets;
    struct model_answer *answers;
    double nll;
};

static void open_bench(struct bench *b, const char *dir, int64_t memory)
{
    struct err e;
    struct rng r = {5};
    const struct kern_options gpu = {.device = "cuda:0", .compute = KERN_FP16};
    bench_must(ckpt_open(&(struct model_ref){.name = dir, .path = dir}, &b->ckpt, &e), &e);
    bench_must(kern_open(&gpu, &b->k, &e), &e);
    bench_must(model_open_within(b->ckpt, b->k, memory, &b->m, &e), &e);
    const int64_t most = model_max_tokens(b->m) / WINDOW;
    b->n_windows = most < MAX_WINDOWS ? (int)most : MAX_WINDOWS;
    b->n_targets = b->n_windows * (WINDOW - 1);
    b->tokens = xcalloc((size_t)b->n_windows * WINDOW, sizeof *b->tokens);
    b->targets = xcalloc((size_t)b->n_targets, sizeof *b->targets);
    b->answers = xcalloc((size_t)b->n_targets, sizeof *b->answers);
    for (int i = 0; i < b->n_windows * WINDOW; i++)
        b->tokens[i] = (int32_t)rng_below(&r, (uint64_t)model_get_info(b->m)->vocab);
    for (int i = 0, n = 0; i < b->n_windows; i++) {
        b->seqs[i] = (struct model_seq){b->tokens + (ptrdiff_t)i * WINDOW, WINDOW, -1};
        for (int t = 0; t + 1 < WINDOW; t++)
            b->targets[n++] = (struct model_target){i, t, b->tokens[i * WINDOW + t + 1], -1};
    }
}

static void close_bench(struct bench *b)
{
    xfree(b->tokens);
    xfree(b->targets);
    xfree(b->answers);
    model_close(b->m);
    kern_close(b->k);
    ckpt_close(b->ckpt);
    *b = (struct bench){0};
}

static struct model_batch batch_of(const struct bench *b)
{
    return (struct model_batch){
        .seqs = b->seqs, .n_seqs = b->n_windows, .targets = b->targets, .n_targets = b->n_targets};
}

/* Of one batch: products, head at every token, attention at causal positions. */
static double flops_of(const struct bench *b)
{
    const struct model_info *info = model_get_info(b->m);
    const double d = info->d, T = (double)b->n_windows * WINDOW;
    const double layer = 2 * (4 * d * d + 2 * d * info->ffn) + 4 * d * (WINDOW / 2.0);
    return T * (info->n_layers * layer + 2 * d * (double)info->vocab);
}

static double nll_of(const struct bench *b)
{
    double sum = 0;
    for (int i = 0; i < b->n_targets; i++)
        sum -= (double)b->answers[i].logprob / b->n_targets;
    return sum;
}

static struct config config_of(int k)
{
    struct config c = config_default();
    c.k = k;
    c.dtype = DTYPE_float;
    c.compute = COMPUTE_FP16;
    config_normalize(&c);
    return c;
}

static void run_resident(const char *dir)
{
    struct bench b = {0};
    struct err e;
    struct bits bits;
    double seconds[REPEATS];
    const struct config c = config_of(4);
    open_bench(&b, dir, 0);
    bench_must(model_set_config(b.m, &c, &bits, &e), &e);
    const struct model_batch batch = batch_of(&b);
    for (int i = -2; i < REPEATS; i++) {
        int64_t start = clock_mono_ns();
        bench_must(model_run(b.m, &batch, b.answers, &e), &e);
        if (i >= 0)
            seconds[i] = clock_seconds_since(start);
    }
    qsort(seconds, REPEATS, sizeof *seconds, bench_compare_doubles);
    printf(
        "{\"way\": \"resident\", \"params\": %lld, \"tflops\": %.1f, \"tokens_per_second\": %.0f, "
        "\"nll\": %.5f}\n",
        (long long)model_get_info(b.m)->n_params, flops_of(&b) / seconds[REPEATS / 2] * 1e-12,
        b.n_windows * WINDOW / seconds[REPEATS / 2], nll_of(&b));
    close_bench(&b);
}

/* ---- passes ---- */

static void build(void *arg, int64_t unit, struct model_batch *out, struct model_answer **answers)
{
    struct bench *b = arg;
    (void)unit;
    *out = batch_of(b);
    *answers = b->answers;
}

static enum err_code take(void *arg, int64_t unit, struct err *e)
{
    struct bench *b = arg;
    (void)unit;
    (void)e;
    b->nll = nll_of(b);
    return ERR_OK;
}

/* Configurations of 3 to 8 bits in turn; batches differ in their number only, so that rows are picked for each. */
static double run_pass(struct bench *b, const struct config *configs, int n_configs, int n_batches,
                       int64_t *bytes)
{
    struct err e;
    const int64_t n = (int64_t)n_configs * n_batches;
    struct stream_unit *units = xcalloc((size_t)n, sizeof *units);
    for (int64_t i = 0; i < n; i++)
        units[i] = (struct stream_unit){.config = (int)(i / n_batches),
                                        .batch = i % n_batches,
                                        .n_tokens = (int64_t)b->n_windows * WINDOW};
    const struct stream_pass pass = {.configs = configs,
                                     .n_configs = n_configs,
                                     .units = units,
                                     .n_units = n,
                                     .build = build,
                                     .take = take,
                                     .arg = b};
    const int64_t start = clock_mono_ns();
    bench_must(model_stream_run(b->m, &pass, bytes, &e), &e);
    xfree(units);
    return clock_seconds_since(start);
}

static void run_stream(const char *dir, int64_t memory, int n_configs, int n_batches)
{
    struct bench b = {0};
    struct model_plan p;
    struct config configs[64];
    int64_t bytes = 0;
    open_bench(&b, dir, memory);
    CHECK(n_configs <= 64);
    for (int i = 0; i < n_configs; i++)
        configs[i] = config_of(3 + i % 6);
    model_get_plan(b.m, &p);
    if (!model_is_streamed(b.m)) {
        printf("the checkpoint fits\n");
        exit(1);
    }
    const double seconds = run_pass(&b, configs, n_configs, n_batches, &bytes);
    const double flops = flops_of(&b) * n_configs * n_batches;
    printf(
        "{\"way\": \"stream\", \"params\": %lld, \"tflops\": %.1f, \"seconds\": %.2f, \"units\": "
        "%d, \"bytes\": %lld, \"bytes_per_second\": %.3g, \"masters\": %d, \"window\": %.3g, "
        "\"budget\": %.3g, \"nll\": %.5f}\n",
        (long long)model_get_info(b.m)->n_params, flops / seconds * 1e-12, seconds,
        n_configs * n_batches, (long long)bytes, (double)bytes / seconds, p.plan.n_masters,
        (double)p.plan.block_bytes, (double)p.plan.budget, b.nll);
    close_bench(&b);
}

/* ---- both ways ---- */

static void run_same(const char *dir, int64_t memory)
{
    static const int bits_of[] = {16, 4};
    struct err e;
    float *whole[2] = {0};
    double nll[2][2];
    struct bench b = {0};
    open_bench(&b, dir, 0);
    for (int i = 0; i < 2; i++) {
        struct bits bits;
        const struct config c = config_of(bits_of[i]);
        const struct model_batch batch = batch_of(&b);
        bench_must(model_set_config(b.m, &c, &bits, &e), &e);
        bench_must(model_run(b.m, &batch, b.answers, &e), &e);
        nll[0][i] = nll_of(&b);
        whole[i] = xcalloc((size_t)b.n_targets, sizeof **whole);
        for (int t = 0; t < b.n_targets; t++)
            whole[i][t] = b.answers[t].logprob;
    }
    close_bench(&b);
    open_bench(&b, dir, memory);
    for (int i = 0; i < 2; i++) {
        int64_t bytes = 0, n_equal = 0;
        double worst = 0;
        const struct config c = config_of(bits_of[i]);
        if (model_is_streamed(b.m)) {
            run_pass(&b, &c, 1, 2, &bytes);
        } else { /* its master stays on the host */
            struct bits bits;
            const struct model_batch batch = batch_of(&b);
            const int64_t start = clock_mono_ns();
            bench_must(model_set_config(b.m, &c, &bits, &e), &e);
            printf("{\"way\": \"configuration\", \"seconds\": %.3f}\n", clock_seconds_since(start));
            bench_must(model_run(b.m, &batch, b.answers, &e), &e);
        }
        nll[1][i] = nll_of(&b);
        for (int t = 0; t < b.n_targets; t++) {
            const double off = fabs((double)(whole[i][t] - b.answers[t].logprob));
            worst = off > worst ? off : worst;
            n_equal += off == 0;
        }
        printf("{\"way\": \"same\", \"k\": %d, \"nll_resident\": %.6f, \"nll_stream\": %.6f, "
               "\"equal\": %lld, \"of\": %d, \"worst\": %.3g}\n",
               bits_of[i], nll[0][i], nll[1][i], (long long)n_equal, b.n_targets, worst);
    }
    close_bench(&b);
    xfree(whole[0]);
    xfree(whole[1]);
}

int main(int argc, char **argv)
{
    const char *what = argc > 2 ? argv[1] : "";
    if (strcmp(what, "make") == 0 && argc == 4) {
        for (size_t i = 0; i < ARRAY_LEN(random_shapes); i++)
            if (strcmp(random_shapes[i].name, argv[2]) == 0)
                printf("%lld\n", (long long)random_make(argv[3], &random_shapes[i]));
    } else if (strcmp(what, "resident") == 0) {
        run_resident(argv[2]);
    } else if (strcmp(what, "stream") == 0 && argc == 6) {
        run_stream(argv[2], atoll(argv[3]), atoi(argv[4]), atoi(argv[5]));
    } else if (strcmp(what, "same") == 0 && argc == 4) {
        run_same(argv[2], atoll(argv[3]));
    } else {
        (void)fprintf(stderr, "usage: bench_cuda_stream make|resident|stream|same ...\n");
        return 2;
    }
    return 0;
}
