/* The engine against Hugging Face's numbers, and against itself: packing, shared prefixes, configurations. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/json.h"
#include "base/mem.h"
#include "kernels/cpu/f16.h"
#include "tests/support/mkckpt.h"
#include "tests/support/support.h"
#include "worker/model/model_impl.h"
#include "worker/model/model_magnitude.h"

static const char *const fixtures[] = {"gpt2",          "opt-prenorm",     "opt-postnorm-proj",
                                       "neox-parallel", "neox-sequential", "bloom-6heads",
                                       "bloom-8heads"};
static const char *const settings[] = {"gpt2-no-scale",         "gpt2-scale-by-layer",
                                       "gpt2-upcast",           "gpt2-untied-inner-relu",
                                       "gpt2-gelu-eps",         "opt-no-bias",
                                       "opt-no-affine",         "opt-no-final-norm",
                                       "opt-postnorm",          "opt-postnorm-proj-untied-gelu",
                                       "opt-prenorm-proj",      "neox-no-attention-bias",
                                       "neox-full-rotary-base", "neox-sequential-tied",
                                       "neox-gelu-new-eps",     "neox-state-dict",
                                       "neox-gelu-fast",        "bloom-residual-normed",
                                       "bloom-untied-eps",      "bloom-5-heads"};
static const char *const models[] = {"bloom-s0",  "bloom-s1",  "bloom-s2",  "gpt2-s0",  "gpt2-s1",
                                     "gpt2-s2",   "opt-s0",    "opt-s1p",   "opt-s2",   "opt-s3",
                                     "pythia-s0", "pythia-s1", "pythia-s2", "pythia-s3"};

struct loaded {
    struct ckpt *ckpt;
    struct kern *k;
    struct model *m;
};

static struct config config_k(int k)
{
    struct config c = config_default();
    c.k = k;
    config_normalize(&c);
    return c;
}

static enum err_code try_load_as(const char *dir, enum kern_compute compute, struct loaded *l,
                                 struct err *e)
{
    const struct kern_options o = {.device = "cpu", .compute = compute, .threads = 2};
    *l = (struct loaded){0};
    TRY(ckpt_open(&(struct model_ref){.name = dir, .path = dir}, &l->ckpt, e));
    TRY(kern_open(&o, &l->k, e));
    return model_open(l->ckpt, l->k, &l->m, e);
}

static enum err_code try_load(const char *dir, struct loaded *l, struct err *e)
{
    return try_load_as(dir, KERN_FP32, l, e);
}

static void unload(struct loaded *l)
{
    model_close(l->m);
    kern_close(l->k);
    ckpt_close(l->ckpt);
}

static void put_config(struct loaded *l, const struct config *c)
{
    struct err e = {0};
    struct bits bits;
    cr_assert_eq(model_set_config(l->m, c, &bits, &e), ERR_OK, "%s", e.text);
}

static struct loaded load_as(const char *dir, int k, enum kern_compute compute)
{
    struct loaded l;
    struct err e = {0};
    cr_assert_eq(try_load_as(dir, compute, &l, &e), ERR_OK, "%s", e.text);
    struct config c = config_k(k);
    put_config(&l, &c);
    return l;
}

static struct loaded load(const char *dir, int k)
{
    return load_as(dir, k, KERN_FP32);
}

static float *logits_of(struct loaded *l, const int32_t *tokens, int n)
{
    struct err e = {0};
    float *out = xcalloc((size_t)n * (size_t)model_get_info(l->m)->vocab, sizeof *out);
    cr_assert_eq(model_logits(l->m, tokens, n, out, &e), ERR_OK, "%s", e.text);
    return out;
}

static const char *fixture_dir(const char *name)
{
    char rel[200];
    snprintf(rel, sizeof rel, "fixtures/families/%s", name);
    return support_shared(rel);
}

/* ---- against Hugging Face ---- */

enum { BATCH = 2, LENGTH = 40 };

/* expected.safetensors: input_ids [2, 40] I32, logits_fp32 [2, 40, V] F32; the file is a header and plain arrays. */
static const void *expected_part(struct buf *file, const char *name)
{
    struct err e = {0};
    uint64_t n;
    json_t *header, *offsets;
    memcpy(&n, file->data, sizeof n);
    cr_assert_eq(json_parse((struct str){file->data + 8, n}, "header", &header, &e), ERR_OK);
    offsets = json_object_get(json_object_get(header, name), "data_offsets");
    int64_t at = json_integer_value(json_array_get(offsets, 0));
    json_decref(header);
    return file->data + 8 + n + at;
}

static double relative_error(const float *y, const float *ref, int64_t n)
{
    double diff = 0.0, size = 0.0;
    for (int64_t i = 0; i < n; i++) {
        diff += ((double)y[i] - (double)ref[i]) * ((double)y[i] - (double)ref[i]);
        size += (double)ref[i] * (double)ref[i];
    }
    return sqrt(diff / size);
}

static void check_logits(const char *dir, const char *name, enum kern_compute compute,
                         double tolerance)
{
    struct loaded l = load_as(dir, 32, compute);
    struct buf file = {0};
    struct err e = {0};
    char *path = xasprintf("%s/expected.safetensors", dir);
    cr_assert_eq(io_read_file(path, (size_t)1 << 26, &file, &e), ERR_OK, "%s", e.text);
    const int32_t *ids = expected_part(&file, "input_ids");
    const float *ref = expected_part(&file, "logits_fp32");
    const int64_t n = LENGTH * model_get_info(l.m)->vocab;
    for (int b = 0; b < BATCH; b++) {
        float *y = logits_of(&l, ids + b * LENGTH, LENGTH);
        double error = relative_error(y, ref + b * n, n);
        cr_log_info("%s: logits off by %.3g", name, error);
        cr_expect_lt(error, tolerance, "%s: %g", name, error);
        xfree(y);
    }
    xfree(path);
    buf_release(&file);
    unload(&l);
}

Test(model, logits_of_all_families_equal_those_of_transformers)
{
    for (size_t i = 0; i < ARRAY_LEN(fixtures); i++) {
        const char *dir = fixture_dir(fixtures[i]);
        if (dir != NULL)
            check_logits(dir, fixtures[i], KERN_FP32, 1e-6);
    }
}

Test(model, logits_in_bf16_are_as_near_as_bf16_allows)
{
    for (size_t i = 0; i < ARRAY_LEN(fixtures); i++) {
        const char *dir = fixture_dir(fixtures[i]);
        if (dir != NULL)
            check_logits(dir, fixtures[i], KERN_BF16, 3e-2);
    }
}

/* One tiny random model for each setting of config.json that changes the forward pass (tests/golden/make_families.py). */
Test(model, logits_under_every_setting_equal_those_of_transformers)
{
    for (size_t i = 0; i < ARRAY_LEN(settings); i++) {
        char rel[200];
        snprintf(rel, sizeof rel, "tests/golden/families/%s", settings[i]);
        check_logits(support_source(rel), settings[i], KERN_FP32, 1e-6);
    }
}

static int32_t *ids_of(const json_t *array, int *n)
{
    *n = (int)json_array_size(array);
    int32_t *ids = xcalloc((size_t)*n, sizeof *ids);
    for (int i = 0; i < *n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(array, (size_t)i));
    return ids;
}

/* The reference prints 5 decimals of a token's likelihood; the target of the spec is 2e-5. */
static void check_likelihoods(struct loaded *l, const char *name, const json_t *ref)
{
    int n;
    struct err e = {0};
    int32_t *ids = ids_of(json_object_get(ref, "first_ids"), &n);
    const json_t *nll = json_object_get(ref, "nll_first_window");
    struct model_target *targets = xcalloc((size_t)n, sizeof *targets);
    struct model_answer *answers = xcalloc((size_t)n, sizeof *answers);
    for (int i = 0; i + 1 < n; i++)
        targets[i] = (struct model_target){.pos = i, .token = ids[i + 1], .ref = -1};
    struct model_batch b = {.seqs = &(struct model_seq){.tokens = ids, .n = n, .parent = -1},
                            .n_seqs = 1,
                            .targets = targets,
                            .n_targets = n - 1};
    cr_assert_eq(model_run(l->m, &b, answers, &e), ERR_OK, "%s", e.text);
    for (int i = 0; i + 1 < n; i++) {
        double expected = json_number_value(json_array_get(nll, (size_t)i));
        cr_expect_float_eq(-(double)answers[i].logprob, expected, 2e-5,
                           "%s token %d: %g, expected %g", name, i, -(double)answers[i].logprob,
                           expected);
    }
    xfree(ids);
    xfree(targets);
    xfree(answers);
}

Test(model, likelihoods_of_the_reference_models_equal_those_of_transformers)
{
    for (size_t i = 0; i < ARRAY_LEN(models); i++) {
        char rel[100];
        struct err e = {0};
        json_t *ref;
        snprintf(rel, sizeof rel, "reference/%s.json", models[i]);
        const char *path = support_shared(rel);
        snprintf(rel, sizeof rel, "models/%s", models[i]);
        const char *dir = support_shared(rel);
        if (path == NULL || dir == NULL)
            return;
        cr_assert_eq(json_read(path, (size_t)1 << 26, &ref, &e), ERR_OK, "%s", e.text);
        struct loaded l = load(dir, 32);
        check_likelihoods(&l, models[i], ref);
        json_decref(ref);
        unload(&l);
    }
}

/* ---- batches ---- */

static const int32_t text[] = {5,  17, 200, 31, 8,  8,  99, 250, 3,  77, 120,
                               64, 11, 301, 44, 6,  19, 2,  150, 71, 33, 210,
                               9,  12, 88,  40, 41, 42, 43, 1,   0,  319};
enum { TEXT = ARRAY_LEN(text) };

static float likelihood(struct loaded *l, const int32_t *tokens, int n, int pos, int32_t token)
{
    struct err e = {0};
    struct model_target t = {.pos = pos, .token = token, .ref = -1};
    struct model_answer a;
    struct model_batch b = {.seqs = &(struct model_seq){.tokens = tokens, .n = n, .parent = -1},
                            .n_seqs = 1,
                            .targets = &t,
                            .n_targets = 1};
    cr_assert_eq(model_run(l->m, &b, &a, &e), ERR_OK, "%s", e.text);
    return a.logprob;
}

/* Two contexts, three continuations and a stranger in one batch: each answer is that of the sequence run alone. */
Test(model, shared_prefixes_and_packing_change_nothing)
{
    for (size_t i = 0; i < ARRAY_LEN(fixtures); i++) {
        const char *dir = fixture_dir(fixtures[i]);
        if (dir == NULL)
            return;
        struct loaded l = load(dir, 32);
        struct err e = {0};
        const struct model_seq seqs[] = {{text, 20, -1},     {text + 20, 5, 0}, {text + 4, 7, -1},
                                         {text + 20, 12, 0}, {text + 11, 1, 2}, {text, 32, -1}};
        /* Out of order, two at one position. */
        const struct model_target targets[] = {{5, 30, 7, -1}, {3, 11, 4, -1}, {0, 19, 33, -1},
                                               {1, 4, 9, -1},  {4, 0, 64, -1}, {3, 11, 300, -1},
                                               {2, 0, 8, -1},  {3, 0, 210, -1}};
        struct model_answer got[ARRAY_LEN(targets)];
        struct model_batch b = {.seqs = seqs,
                                .n_seqs = ARRAY_LEN(seqs),
                                .targets = targets,
                                .n_targets = ARRAY_LEN(targets)};
        cr_assert_eq(model_run(l.m, &b, got, &e), ERR_OK, "%s", e.text);
        for (size_t t = 0; t < ARRAY_LEN(targets); t++) {
            const struct model_seq *s = &seqs[targets[t].seq];
            int32_t whole[64];
            int before = s->parent >= 0 ? seqs[s->parent].n : 0;
            if (before > 0)
                memcpy(whole, seqs[s->parent].tokens, (size_t)before * sizeof *whole);
            memcpy(whole + before, s->tokens, (size_t)s->n * sizeof *whole);
            float alone =
                likelihood(&l, whole, before + s->n, before + targets[t].pos, targets[t].token);
            cr_expect_float_eq(got[t].logprob, alone, 5e-6, "%s target %zu: %g, alone %g",
                               fixtures[i], t, (double)got[t].logprob, (double)alone);
        }
        unload(&l);
    }
}

/* Two batches under way at once, and one that fails behind them: each answers as it does alone. */
Test(model, batches_under_way_do_not_meet)
{
    const char *dir = fixture_dir("gpt2");
    if (dir == NULL)
        return;
    struct loaded l = load(dir, 32);
    struct err e = {0};
    const struct model_seq seqs[2] = {{text, 20, -1}, {text + 7, 12, -1}};
    const struct model_target targets[2][2] = {{{0, 19, 33, -1}, {0, 3, 8, -1}},
                                               {{0, 11, 9, -1}, {0, 0, 64, -1}}};
    const int32_t alien = 4000;
    const struct model_seq bad_seq = {&alien, 1, -1};
    const struct model_batch bad = {
        .seqs = &bad_seq, .n_seqs = 1, .targets = targets[0], .n_targets = 1};
    struct model_answer got[2][2], never;
    for (int round = 0; round < 3; round++) {
        struct model_batch b[2];
        memset(got, 0, sizeof got);
        for (int i = 0; i < 2; i++) {
            b[i] = (struct model_batch){
                .seqs = &seqs[i], .n_seqs = 1, .targets = targets[i], .n_targets = 2};
            if (i == 1)
                cr_expect_eq(model_start(l.m, &bad, &never, &e), ERR_FORMAT);
            cr_assert_eq(model_start(l.m, &b[i], got[i], &e), ERR_OK, "%s", e.text);
        }
        for (int i = 0; i < 2; i++)
            cr_assert_eq(model_wait(l.m, &e), ERR_OK, "%s", e.text);
        for (int i = 0; i < 2; i++) {
            struct model_answer alone[2];
            cr_assert_eq(model_run(l.m, &b[i], alone, &e), ERR_OK, "%s", e.text);
            for (int t = 0; t < 2; t++)
                cr_expect_eq(got[i][t].logprob, alone[t].logprob);
        }
    }
    unload(&l);
}

Test(model, batches_that_cannot_be_run_are_errors)
{
    const char *dir = fixture_dir("gpt2");
    if (dir == NULL)
        return;
    struct loaded l = load(dir, 32);
    struct err e = {0};
    struct model_answer a;
    int32_t bad[65] = {0};
    struct model_target t = {.token = 320, .ref = -1};
    struct model_seq s = {bad, 65, -1};
    struct model_batch b = {.seqs = &s, .n_seqs = 1, .targets = &t, .n_targets = 1};
    cr_expect_eq(model_run(l.m, &b, &a, &e), ERR_FORMAT);
    cr_expect(strstr(e.text, "context is 64") != NULL, "%s", e.text);
    s.n = 3;
    cr_expect_eq(model_run(l.m, &b, &a, &e), ERR_FORMAT);
    cr_expect(strstr(e.text, "target token 320") != NULL, "%s", e.text);
    t.token = 0;
    bad[2] = -1;
    cr_expect_eq(model_run(l.m, &b, &a, &e), ERR_FORMAT);
    cr_expect(strstr(e.text, "token -1 at position 2") != NULL, "%s", e.text);
    bad[2] = 319;
    cr_expect_eq(model_run(l.m, &b, &a, &e), ERR_OK);
    unload(&l);
}

/* ---- configurations ---- */

Test(model, a_configuration_leaves_no_trace_in_the_next)
{
    const char *dir = fixture_dir("neox-parallel");
    if (dir == NULL)
        return;
    struct loaded l = load(dir, 16);
    struct config k4 = config_k(4), k16 = config_k(16), k32 = config_k(32);
    size_t bytes = TEXT * (size_t)model_get_info(l.m)->vocab * sizeof(float);
    float *first = logits_of(&l, text, TEXT);
    put_config(&l, &k4);
    float *coarse = logits_of(&l, text, TEXT);
    put_config(&l, &k32);
    float *stored = logits_of(&l, text, TEXT);
    put_config(&l, &k16);
    float *again = logits_of(&l, text, TEXT);
    put_config(&l, &k4);
    float *coarse_again = logits_of(&l, text, TEXT);
    cr_expect_arr_eq(first, again, bytes);
    cr_expect_arr_eq(coarse, coarse_again, bytes);
    double to_16 = relative_error(first, stored, TEXT * 320);
    double to_4 = relative_error(coarse, stored, TEXT * 320);
    cr_expect(to_16 > 1e-7 && to_16 < 1e-3, "%g", to_16);
    cr_expect(to_4 > 1e-2, "%g", to_4);
    float *all[] = {first, coarse, stored, again, coarse_again};
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        xfree(all[i]);
    unload(&l);
}

Test(model, bits_count_every_parameter_once)
{
    const char *dir = fixture_dir("gpt2");
    if (dir == NULL)
        return;
    struct loaded l = load(dir, 16);
    struct err e = {0};
    struct bits bits;
    struct config c = config_k(4);
    /* d 48, 2 layers, V 320, 64 positions: spec section 7's formulas. */
    const int64_t linear = 12 * 2 * 48 * 48, all = linear + 13 * 2 * 48 + 2 * 48 + (320 + 64) * 48;
    cr_expect_eq(model_get_info(l.m)->n_params, all);
    cr_expect_eq(model_get_info(l.m)->n_params_linear, linear);
    cr_assert_eq(model_set_config(l.m, &c, &bits, &e), ERR_OK, "%s", e.text);
    cr_expect_float_eq(bits.per_param, 4.25, 1e-12);
    cr_expect_eq(bits.total_full, (int64_t)(4.25 * (double)linear) + 16 * (all - linear));
    unload(&l);
}

Test(model, quantizing_a_tied_head_is_refused_and_an_untied_one_counts)
{
    const char *tied = fixture_dir("gpt2"), *untied = fixture_dir("neox-parallel");
    if (tied == NULL || untied == NULL)
        return;
    struct err e = {0};
    struct bits plain, more;
    struct config c = config_k(4), head = c;
    head.quant_head = true;
    struct loaded l = load(tied, 16);
    cr_expect_eq(model_set_config(l.m, &head, &more, &e), ERR_UNSUPPORTED);
    unload(&l);
    l = load(untied, 16);
    cr_assert_eq(model_set_config(l.m, &c, &plain, &e), ERR_OK, "%s", e.text);
    float *a = logits_of(&l, text, TEXT);
    cr_assert_eq(model_set_config(l.m, &head, &more, &e), ERR_OK, "%s", e.text);
    float *b = logits_of(&l, text, TEXT);
    cr_expect_lt(more.total_full, plain.total_full);
    cr_expect_gt(relative_error(a, b, TEXT * 320), 1e-3);
    xfree(a);
    xfree(b);
    unload(&l);
}

/* Which of `n` lines of length `len` (stride apart, elements step apart) have the largest standard deviation. */
static int64_t widest_line(const uint16_t *w, int64_t n, int64_t stride, int64_t len, int64_t step)
{
    double best = -1.0;
    int64_t at = 0;
    for (int64_t i = 0; i < n; i++) {
        double sum = 0.0, squares = 0.0;
        for (int64_t j = 0; j < len; j++) {
            double v = (double)f16_to_f32(w[i * stride + j * step]);
            sum += v;
            squares += v * v;
        }
        double spread = (double)len * squares - sum * sum;
        at = spread > best ? i : at;
        best = spread > best ? spread : best;
    }
    return at;
}

static bool is_column_kept(const struct model *m, enum role role, int layer, int64_t col)
{
    const struct weight_slot *s = weights_slot(&m->weights, role, layer);
    const float *w = weights_compute(&m->weights, role, layer);
    const uint16_t *w16 = weights_master(&m->weights, role, layer);
    for (int64_t r = 0; r < s->rows; r++)
        if (w[r * s->cols + col] != f16_to_f32(w16[r * s->cols + col]))
            return false;
    return true;
}

/* Quantization spec section 6, one column each: inputs that the widest unit of the previous layer writes stay exact. */
static void check_outliers(const char *fixture, bool is_by_head)
{
    const char *dir = fixture_dir(fixture);
    if (dir == NULL)
        return;
    struct loaded l = load(dir, 16);
    const struct wiring *w = &l.m->wiring;
    struct config c = config_k(3);
    c.outlier_pct = 1.5; /* rounds to one column of 48 or 64 */
    put_config(&l, &c);
    const int64_t d = w->d, hd = w->head_dim;
    const uint16_t *qkv = weights_master(&l.m->weights, ROLE_QKV_W, 1);
    int64_t unit = 0;
    if (is_by_head) {
        uint16_t *v = xcalloc((size_t)(d * d), sizeof *v);
        for (int64_t i = 0; i < d; i++)
            memcpy(v + i * d, qkv + (i / hd * 3 * hd + 2 * hd + i % hd) * d, (size_t)d * sizeof *v);
        unit = widest_line(v, d, d, d, 1);
        xfree(v);
    } else {
        unit = widest_line(qkv + 2 * d * d, d, d, d, 1);
    }
    cr_expect(is_column_kept(l.m, ROLE_OUT_W, 1, unit), "%s: attention output", fixture);
    cr_expect(!is_column_kept(l.m, ROLE_OUT_W, 1, (unit + 1) % d));
    unit = widest_line(weights_master(&l.m->weights, ROLE_OUT_W, 1), d, d, d, 1);
    cr_expect(is_column_kept(l.m, ROLE_FFN1_W, 1, unit), "%s: FFN-1", fixture);
    unit = widest_line(weights_master(&l.m->weights, ROLE_FFN1_W, 1), w->ffn, d, d, 1);
    cr_expect(is_column_kept(l.m, ROLE_FFN2_W, 1, unit), "%s: FFN-2", fixture);
    unit = widest_line(weights_master(&l.m->weights, ROLE_FFN2_W, 0), d, w->ffn, w->ffn, 1);
    cr_expect(is_column_kept(l.m, ROLE_QKV_W, 1, unit), "%s: QKV", fixture);
    unit = w->has_projection
               ? widest_line(weights_master(&l.m->weights, ROLE_PROJECT_IN, 0), d, w->d_embed,
                             w->d_embed, 1)
               : widest_line(weights_master(&l.m->weights, ROLE_EMBED, 0), d, 1, w->vocab, d);
    cr_expect(is_column_kept(l.m, ROLE_QKV_W, 0, unit), "%s: QKV of layer 0", fixture);
    c.outlier_rule = OUTLIER_RULE_PREVIOUS_RESID;
    put_config(&l, &c);
    unit = widest_line(weights_master(&l.m->weights, ROLE_FFN2_W, 0), d, w->ffn, w->ffn, 1);
    cr_expect(is_column_kept(l.m, ROLE_FFN1_W, 1, unit), "%s: FFN-1 by residual", fixture);
    unload(&l);
}

Test(model, outliers_follow_the_previous_layer_of_every_layout)
{
    check_outliers("gpt2", false);
    check_outliers("opt-prenorm", false);
    check_outliers("opt-postnorm-proj", false);
    check_outliers("neox-parallel", true);
    check_outliers("bloom-6heads", true);
}

/* ---- divergence from the 16-bit run ---- */

static double divergence(const float *p, const float *q, int64_t n)
{
    double sp = 0.0, sq = 0.0, kl = 0.0;
    for (int64_t i = 0; i < n; i++) {
        sp += exp((double)p[i]);
        sq += exp((double)q[i]);
    }
    for (int64_t i = 0; i < n; i++)
        kl += exp((double)p[i]) / sp * ((double)p[i] - log(sp) - (double)q[i] + log(sq));
    return kl;
}

Test(model, divergence_from_recorded_rows_is_that_of_the_logits)
{
    static const char *const some[] = {"gpt2", "opt-postnorm-proj", "neox-parallel"};
    for (size_t i = 0; i < ARRAY_LEN(some); i++) {
        const char *dir = fixture_dir(some[i]);
        if (dir == NULL)
            return;
        struct loaded l = load(dir, 16);
        struct err e = {0};
        struct config k3 = config_k(3);
        struct model_ref_rows *rows;
        cr_assert_eq(model_ref_new(l.m, 3, &rows, &e), ERR_OK);
        const struct model_seq s = {text, TEXT, -1};
        const struct model_target t[] = {{0, 30, 1, 2}, {0, 4, 1, 0}, {0, 9, 1, -1}, {0, 17, 1, 1}};
        static const int pos[] = {4, 17, 30};
        struct model_answer a[4];
        double kl[3];
        uint8_t same[3];
        struct model_batch b = {
            .seqs = &s, .n_seqs = 1, .targets = t, .n_targets = 4, .record = rows};
        cr_assert_eq(model_run(l.m, &b, a, &e), ERR_OK, "%s", e.text);
        float *p = logits_of(&l, text, TEXT);
        put_config(&l, &k3);
        float *q = logits_of(&l, text, TEXT);
        b.record = NULL;
        b.compare = rows;
        b.kl = kl;
        b.same_top = same;
        cr_assert_eq(model_run(l.m, &b, a, &e), ERR_OK, "%s", e.text);
        for (int j = 0; j < 3; j++) {
            double expected = divergence(p + pos[j] * 320, q + pos[j] * 320, 320);
            cr_expect(expected > 1e-6);
            cr_expect_float_eq(kl[j], expected, 1e-6 + 1e-5 * expected, "%s: %g, expected %g",
                               some[i], kl[j], expected);
        }
        model_ref_free(l.m, rows);
        xfree(p);
        xfree(q);
        unload(&l);
    }
}

/* ---- sizes of activations ---- */

static void run_watched(struct loaded *l, struct model_magnitudes *g)
{
    const struct model_seq s = {text, TEXT, -1};
    const struct model_target t = {0, TEXT - 1, 1, -1};
    struct model_answer answer;
    struct err e = {0};
    struct model_batch b = {
        .seqs = &s, .n_seqs = 1, .targets = &t, .n_targets = 1, .magnitudes = g};
    cr_assert_eq(model_run(l->m, &b, &answer, &e), ERR_OK, "%s", e.text);
}

/* What layer 0 of a parallel model feeds FFN-1, from the definition: the normalized embedding of token t. */
static void normed_embedding(const struct model *m, int32_t token, double *out)
{
    const float *x = weights_compute(&m->weights, ROLE_EMBED, 0);
    const float *w = weights_compute(&m->weights, ROLE_NORM2_W, 0);
    const float *b = weights_compute(&m->weights, ROLE_NORM2_B, 0);
    const int d = m->wiring.d;
    double mean = 0, var = 0;
    x += (int64_t)token * d;
    for (int i = 0; i < d; i++)
        mean += (double)x[i] / d;
    for (int i = 0; i < d; i++)
        var += ((double)x[i] - mean) * ((double)x[i] - mean) / d;
    for (int i = 0; i < d; i++)
        out[i] =
            ((double)x[i] - mean) / sqrt(var + (double)m->wiring.eps) * (double)w[i] + (double)b[i];
}

Test(model, magnitudes_are_those_of_the_definition_and_add_up)
{
    const char *dir = fixture_dir("neox-parallel");
    if (dir == NULL)
        return;
    struct loaded l = load(dir, 16);
    const struct wiring *w = &l.m->wiring;
    struct model_magnitudes *g = NULL;
    struct err e = {0};
    g = model_magnitudes_new(l.m);
    cr_assert_eq(model_magnitudes_spreads(l.m, g, &e), ERR_OK, "%s", e.text);
    run_watched(&l, g);
    double *in = xcalloc((size_t)w->d, sizeof *in), *sum = xcalloc((size_t)w->d, sizeof *sum);
    double *inner = xcalloc((size_t)w->ffn, sizeof *inner);
    const float *ffn = weights_compute(&l.m->weights, ROLE_FFN1_W, 0);
    const float *bias = weights_compute(&l.m->weights, ROLE_FFN1_B, 0);
    for (int t = 0; t < TEXT; t++) {
        normed_embedding(l.m, text[t], in);
        for (int i = 0; i < w->d; i++)
            sum[i] += fabs(in[i]);
        for (int j = 0; j < w->ffn; j++) {
            double y = (double)bias[j];
            for (int i = 0; i < w->d; i++)
                y += (double)ffn[j * w->d + i] * in[i];
            inner[j] += fabs(0.5 * y * (1 + erf(y / sqrt(2))));
        }
    }
    const double *found = model_magnitudes_sum(g, MODEL_PAIR_ATTN_FFN1, 0);
    for (int i = 0; i < w->d; i++)
        cr_expect_float_eq(found[i], sum[i], 1e-4, "%d: %g, expected %g", i, found[i], sum[i]);
    found = model_magnitudes_sum(g, MODEL_PAIR_FFN1_RELU, 0);
    for (int i = 0; i < w->ffn; i++)
        cr_expect_float_eq(found[i], inner[i], 1e-4, "%d: %g, expected %g", i, found[i], inner[i]);
    const double before = model_magnitudes_sum(g, MODEL_PAIR_KVQ_ATTN, 1)[3];
    run_watched(&l, g);
    cr_expect(before > 0);
    cr_expect_float_eq(model_magnitudes_sum(g, MODEL_PAIR_KVQ_ATTN, 1)[3], 2 * before, 1e-9);
    model_magnitudes_free(g);
    double *all[] = {in, sum, inner};
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        xfree(all[i]);
    unload(&l);
}

/* Spread of unit 5 of layer 1, from the master; the V row of head h, channel c where the layout puts it. */
Test(model, spreads_are_standard_deviations_of_the_units_own_weights)
{
    static const struct {
        const char *fixture;
        bool is_by_head;
    } all[] = {{"neox-parallel", true}, {"opt-prenorm", false}};
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        const char *dir = fixture_dir(all[i].fixture);
        if (dir == NULL)
            return;
        struct loaded l = load(dir, 16);
        struct model_magnitudes *g = NULL;
        struct err e = {0};
        g = model_magnitudes_new(l.m);
        cr_assert_eq(model_magnitudes_spreads(l.m, g, &e), ERR_OK, "%s", e.text);
        const struct wiring *w = &l.m->wiring;
        const int64_t unit = w->head_dim + 5; /* head 1, channel 5 */
        const int64_t row = all[i].is_by_head ? 5 * w->head_dim + 5 : 2 * w->d + unit;
        const uint16_t *v = weights_master(&l.m->weights, ROLE_QKV_W, 1) + row * w->d;
        double mean = 0, var = 0;
        for (int j = 0; j < w->d; j++)
            mean += (double)f16_to_f32(v[j]) / w->d;
        for (int j = 0; j < w->d; j++)
            var += ((double)f16_to_f32(v[j]) - mean) * ((double)f16_to_f32(v[j]) - mean) / w->d;
        double found = model_magnitudes_spread(g, MODEL_PAIR_KVQ_ATTN, 1)[unit];
        cr_expect_float_eq(found, sqrt(var), 1e-9, "%s: %g, expected %g", all[i].fixture, found,
                           sqrt(var));
        model_magnitudes_free(g);
        unload(&l);
    }
}

/* ---- checkpoints that do not fit their config ---- */

static void expect_refused(const char *fixture, const char *edit, enum err_code code,
                           const char *part)
{
    const char *dir = fixture_dir(fixture);
    if (dir == NULL)
        return;
    char *tmp = support_tmpdir(), *from = xasprintf("%s/config.json", dir);
    char *to = xasprintf("%s/config.json", tmp), *w = xasprintf("%s/model.safetensors", tmp);
    char *target = xasprintf("%s/model.safetensors", dir);
    struct err e = {0};
    json_t *config, *changes;
    struct buf out = {0};
    cr_assert_eq(json_read(from, 1 << 20, &config, &e), ERR_OK);
    cr_assert_eq(json_parse(str_of(edit), "edit", &changes, &e), ERR_OK, "%s", e.text);
    json_object_update(config, changes);
    json_append(&out, config, true);
    support_write(to, out.data, out.len);
    cr_assert_eq(symlink(target, w), 0);
    struct loaded l;
    enum err_code got = try_load(tmp, &l, &e);
    cr_expect_eq(got, code, "%s %s: %s", fixture, edit, e.text);
    cr_expect(strstr(e.text, part) != NULL, "%s %s: %s", fixture, edit, e.text);
    unload(&l);
    json_decref(config);
    json_decref(changes);
    buf_release(&out);
    support_tmpdir_remove(tmp);
    char *all[] = {from, to, w, target};
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        xfree(all[i]);
}

Test(model, settings_that_do_not_fit_are_refused_with_their_name)
{
    expect_refused("gpt2", "{\"model_type\": \"llama\"}", ERR_UNSUPPORTED, "llama");
    expect_refused("gpt2", "{\"n_embd\": 64}", ERR_FORMAT, "[320, 48]");
    expect_refused("gpt2", "{\"n_embd\": \"big\"}", ERR_FORMAT, "n_embd");
    expect_refused("gpt2", "{\"n_embd\": 0}", ERR_FORMAT, "n_embd");
    expect_refused("gpt2", "{\"n_head\": 5}", ERR_FORMAT, "5 heads");
    expect_refused("gpt2", "{\"n_layer\": 3}", ERR_FORMAT, "h.2.");
    expect_refused("gpt2", "{\"n_layer\": 1}", ERR_FORMAT, "h.1.");
    expect_refused("gpt2", "{\"n_layer\": 2000000000}", ERR_FORMAT, "layers");
    expect_refused("gpt2", "{\"n_inner\": 100}", ERR_FORMAT, "100");
    expect_refused("gpt2", "{\"vocab_size\": 321}", ERR_FORMAT, "wte.weight");
    expect_refused("gpt2", "{\"activation_function\": \"swish\"}", ERR_UNSUPPORTED, "swish");
    expect_refused("gpt2", "{\"add_cross_attention\": true}", ERR_UNSUPPORTED,
                   "add_cross_attention");
    expect_refused("gpt2", "{\"tie_word_embeddings\": false}", ERR_FORMAT, "lm_head.weight");
    expect_refused("opt-prenorm", "{\"enable_bias\": false}", ERR_FORMAT, "bias");
    expect_refused("opt-prenorm", "{\"layer_norm_elementwise_affine\": false}", ERR_FORMAT, "norm");
    expect_refused("opt-prenorm", "{\"do_layer_norm_before\": false}", ERR_FORMAT,
                   "final_layer_norm");
    expect_refused("opt-prenorm", "{\"max_position_embeddings\": 66}", ERR_FORMAT,
                   "embed_positions");
    expect_refused("bloom-8heads", "{\"pretraining_tp\": 2, \"slow_but_exact\": true}",
                   ERR_UNSUPPORTED, "slow_but_exact");
    expect_refused("neox-parallel", "{\"attention_bias\": false}", ERR_FORMAT, "bias");
    expect_refused("neox-parallel", "{\"rope_parameters\": {\"rope_type\": \"linear\"}}",
                   ERR_UNSUPPORTED, "linear");
    expect_refused("neox-parallel", "{\"rope_scaling\": {\"type\": \"dynamic\"}}", ERR_UNSUPPORTED,
                   "rope_scaling");
    expect_refused("neox-parallel", "{\"rope_parameters\": {\"partial_rotary_factor\": 0.2}}",
                   ERR_UNSUPPORTED, "rotary");
}

Test(model, every_allocation_that_fails_is_an_error_without_a_leak)
{
    const char *dir = fixture_dir("opt-postnorm-proj");
    if (dir == NULL)
        return;
    int failures = 0;
    for (long n = 1; n < 100; n++) {
        struct loaded l = {0};
        struct err e = {0};
        struct bits bits;
        struct config c = config_k(32);
        mem_fail_after(n);
        enum err_code code = try_load(dir, &l, &e);
        if (code == ERR_OK)
            code = model_set_config(l.m, &c, &bits, &e);
        mem_fail_after(0);
        if (code == ERR_OK) {
            unload(&l);
            break;
        }
        cr_expect_eq(code, ERR_NOMEM, "allocation %ld: %s", n, e.text);
        failures++;
        if (l.m != NULL) { /* the configuration failed: the model is still usable */
            cr_assert_eq(model_set_config(l.m, &c, &bits, &e), ERR_OK, "%s", e.text);
            xfree(logits_of(&l, text, TEXT));
        }
        unload(&l);
    }
    cr_expect(failures >= 8, "%d", failures);
}
