/* A model that runs layer by layer gives the answers of the same model on the device, bit for bit: all architecture variants,
 * cut between and within layers, with one master and two; and with its head in parts. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/json.h"
#include "base/mem.h"
#include "tests/support/mkckpt.h"
#include "tests/support/support.h"
#include "worker/model/model_open.h"
#include "worker/model/model_stream.h"

static const char *const variants[] = {"bloom-5-heads",
                                       "bloom-residual-normed",
                                       "bloom-untied-eps",
                                       "gpt2-gelu-eps",
                                       "gpt2-no-scale",
                                       "gpt2-scale-by-layer",
                                       "gpt2-untied-inner-relu",
                                       "gpt2-upcast",
                                       "neox-full-rotary-base",
                                       "neox-gelu-fast",
                                       "neox-gelu-new-eps",
                                       "neox-no-attention-bias",
                                       "neox-sequential-tied",
                                       "neox-state-dict",
                                       "opt-no-affine",
                                       "opt-no-bias",
                                       "opt-no-final-norm",
                                       "opt-postnorm",
                                       "opt-postnorm-proj-untied-gelu",
                                       "opt-prenorm-proj"};

enum { N_SEQS = 4, LENGTH = 19, CONFIGS = 5, BATCHES = 2 };
enum { TARGETS_FEW = 12, TARGETS_MOST = 8200 };

/* Two batches: a shared front with two continuations and a sequence of its own; other tokens in the second. */
struct fixture {
    int32_t tokens[BATCHES][N_SEQS][LENGTH];
    struct model_seq seqs[BATCHES][N_SEQS];
    struct model_target targets[TARGETS_MOST];
    int64_t n_targets;
    struct model_answer answers[CONFIGS][BATCHES][TARGETS_MOST];
    struct model_ref_rows *ref;
    double kl[CONFIGS][BATCHES][TARGETS_MOST];
    uint8_t same_top[CONFIGS][BATCHES][TARGETS_MOST];
    struct bits bits[CONFIGS];
    struct stream_unit units[CONFIGS * BATCHES];
    int built;
};

/* Where the vocabulary is worth it, more targets than a batch has tokens: many ask at one position. */
static void fill(struct fixture *f, const struct model *m)
{
    const int64_t vocab = model_get_info(m)->vocab;
    f->n_targets = vocab < 1000 ? TARGETS_FEW : model_max_tokens(m) + 5;
    cr_assert_leq(f->n_targets, TARGETS_MOST);
    for (int b = 0; b < BATCHES; b++)
        for (int s = 0; s < N_SEQS; s++) {
            for (int t = 0; t < LENGTH; t++)
                f->tokens[b][s][t] = (int32_t)((b * 101 + s * 37 + t * t * 5 + 3) % vocab);
            f->seqs[b][s] =
                (struct model_seq){f->tokens[b][s], LENGTH - s, s == 1 || s == 2 ? 0 : -1};
        }
    for (int i = 0; i < f->n_targets; i++)
        f->targets[i] =
            (struct model_target){i % N_SEQS, (i * 5) % (LENGTH - 3), (int32_t)(i * 29 % vocab), i};
}

static void make_configs(struct config out[CONFIGS])
{
    struct config c = config_default();
    for (int i = 0; i < CONFIGS; i++) {
        c.k = i == 0 ? 16 : 4;
        c.dtype = i == 1 ? DTYPE_float : DTYPE_int;
        c.center = i == 2 ? CENTER_TENSOR : CENTER_NONE;
        c.outlier_pct = i >= 3 ? 6 : 0;
        c.outlier_rule = i == 4 ? OUTLIER_RULE_PREVIOUS_RESID : OUTLIER_RULE_PREVIOUS;
        out[i] = c;
        config_normalize(&out[i]);
    }
}

static struct model_batch batch_of(struct fixture *f, int config, int b)
{
    return (struct model_batch){.seqs = f->seqs[b],
                                .n_seqs = N_SEQS,
                                .targets = f->targets,
                                .n_targets = f->n_targets,
                                .record = config == 0 && b == 0 ? f->ref : NULL,
                                .compare = config > 0 && b == 0 ? f->ref : NULL,
                                .kl = f->kl[config][b],
                                .same_top = f->same_top[config][b]};
}

static void build(void *arg, int64_t unit, struct model_batch *out, struct model_answer **answers)
{
    struct fixture *f = arg;
    const int config = (int)unit / BATCHES, b = (int)unit % BATCHES;
    *out = batch_of(f, config, b);
    *answers = f->answers[config][b];
    f->built = (int)unit;
}

static enum err_code take(void *arg, int64_t unit, struct err *e)
{
    const struct fixture *f = arg;
    (void)e;
    cr_expect_eq(f->built, unit);
    return ERR_OK;
}

struct opened {
    struct ckpt *ckpt;
    struct kern *k;
    struct model *m;
};

static enum err_code open_model(const char *dir, int64_t memory, struct opened *o, struct err *e)
{
    *o = (struct opened){0};
    TRY(ckpt_open(&(struct model_ref){.name = dir, .path = dir}, &o->ckpt, e));
    TRY(kern_open(&(struct kern_options){.device = "cpu", .threads = 1}, &o->k, e));
    return model_open_within(o->ckpt, o->k, memory, &o->m, e);
}

static void close_model(struct opened *o)
{
    model_close(o->m);
    kern_close(o->k);
    ckpt_close(o->ckpt);
}

static void run_resident(const char *dir, struct fixture *f)
{
    struct opened o;
    struct err e = {0};
    struct config configs[CONFIGS];
    make_configs(configs);
    cr_assert_eq(open_model(dir, 0, &o, &e), ERR_OK, "%s", e.text);
    cr_assert(!model_is_streamed(o.m));
    fill(f, o.m);
    cr_assert_eq(model_ref_new(o.m, f->n_targets, &f->ref, &e), ERR_OK);
    for (int c = 0; c < CONFIGS; c++) {
        cr_assert_eq(model_set_config(o.m, &configs[c], &f->bits[c], &e), ERR_OK, "%s", e.text);
        for (int b = 0; b < BATCHES; b++) {
            const struct model_batch batch = batch_of(f, c, b);
            cr_assert_eq(model_run(o.m, &batch, f->answers[c][b], &e), ERR_OK, "%s", e.text);
        }
    }
    model_ref_free(o.m, f->ref);
    close_model(&o);
}

/* One pass of all units in a model that was opened within `memory`. */
static enum err_code run_streamed(const char *dir, int64_t memory, struct fixture *f,
                                  struct plan *plan, struct err *e)
{
    struct opened o;
    struct config configs[CONFIGS];
    struct model_plan p;
    int64_t bytes = 0;
    make_configs(configs);
    enum err_code rc = open_model(dir, memory, &o, e);
    if (rc == ERR_OK) {
        cr_assert(model_is_streamed(o.m));
        model_get_plan(o.m, &p);
        *plan = p.plan;
        fill(f, o.m);
        rc = model_ref_new(o.m, f->n_targets, &f->ref, e);
    }
    for (int i = 0; i < CONFIGS * BATCHES; i++)
        f->units[i] = (struct stream_unit){
            .config = i / BATCHES, .batch = i % BATCHES, .n_tokens = (int64_t)N_SEQS * LENGTH};
    const struct stream_pass pass = {.configs = configs,
                                     .n_configs = CONFIGS,
                                     .units = f->units,
                                     .n_units = CONFIGS * BATCHES,
                                     .build = build,
                                     .take = take,
                                     .arg = f};
    for (int c = 0; c < CONFIGS && rc == ERR_OK; c++)
        rc = model_stream_check(o.m, &configs[c], &f->bits[c], e);
    const int64_t announced = rc == ERR_OK ? model_stream_bytes(o.m, 1, true) : 0;
    if (rc == ERR_OK)
        rc = model_stream_run(o.m, &pass, &bytes, e);
    if (rc == ERR_OK)
        cr_expect_eq(bytes, announced);
    if (o.m != NULL)
        model_ref_free(o.m, f->ref);
    f->ref = NULL;
    close_model(&o);
    return rc;
}

static void expect_equal(const struct fixture *x, const struct fixture *y, const char *what)
{
    for (int c = 0; c < CONFIGS; c++) {
        cr_expect(memcmp(&x->bits[c], &y->bits[c], sizeof x->bits[c]) == 0, "%s: bits", what);
        for (int b = 0; b < BATCHES; b++)
            for (int t = 0; t < y->n_targets; t++) {
                cr_expect_eq(x->answers[c][b][t].logprob, y->answers[c][b][t].logprob,
                             "%s, configuration %d, batch %d, target %d: %.9g, resident %.9g", what,
                             c, b, t, (double)x->answers[c][b][t].logprob,
                             (double)y->answers[c][b][t].logprob);
                cr_expect_eq(x->answers[c][b][t].is_top, y->answers[c][b][t].is_top);
                cr_expect_eq(x->kl[c][b][t], y->kl[c][b][t], "%s: divergence", what);
                cr_expect_eq(x->same_top[c][b][t], y->same_top[c][b][t]);
            }
    }
}

/* Streams within ever smaller budgets, from just below the whole down to what is refused. */
static int run_all_budgets(const char *dir, int *seen)
{
    struct fixture *whole = xcalloc(1, sizeof *whole), *streamed = xcalloc(1, sizeof *streamed);
    int n = 0;
    run_resident(dir, whole);
    struct opened o;
    struct err e = {0};
    struct plan plan;
    cr_assert_eq(open_model(dir, 0, &o, &e), ERR_OK);
    struct model_plan p;
    model_get_plan(o.m, &p);
    close_model(&o);
    for (double share = 0.95; share > 0.01; share *= 0.35) {
        const int64_t memory = (int64_t)(share * (double)p.plan.resident_bytes);
        memset(streamed, 0, sizeof *streamed);
        enum err_code rc = run_streamed(dir, memory, streamed, &plan, &e);
        if (rc != ERR_OK) {
            cr_expect_eq(rc, ERR_NOMEM, "%s", e.text);
            cr_expect(strstr(e.text, "at least") != NULL && strstr(e.text, "--memory") != NULL,
                      "%s", e.text);
            break;
        }
        seen[plan.n_masters - 1 + 2 * plan.is_cut_within]++;
        seen[4] += plan.head_rows == p.shape.head_rows;
        expect_equal(streamed, whole, dir);
        n++;
    }
    xfree(whole);
    xfree(streamed);
    return n;
}

Test(model_stream, every_variant_gives_the_answers_of_the_resident_model)
{
    int seen[5] = {0};
    for (size_t i = 0; i < ARRAY_LEN(variants); i++) {
        char rel[200];
        snprintf(rel, sizeof rel, "tests/golden/families/%s", variants[i]);
        cr_expect_gt(run_all_budgets(support_source(rel), seen), 1, "%s", variants[i]);
    }
    for (int i = 1; i < 5; i++)
        cr_expect_gt(seen[i], 0, "way %d of running was never taken", i);
}

/* Its files have a head of their own, whatever config.json says of it. */
Test(model_stream, a_head_that_is_not_the_embedding_streams_as_one)
{
    static const char family[] = "tests/golden/families/gpt2-untied-inner-relu";
    char *dir = support_tmpdir(), *from = io_join(support_source(family), "model.safetensors");
    char *config = io_join(support_source(family), "config.json");
    char *weights = io_join(dir, "model.safetensors");
    struct buf text = {0};
    json_t *c = NULL;
    struct err e = {0};
    int seen[5] = {0};
    cr_assert_eq(json_read(config, 1 << 20, &c, &e), ERR_OK, "%s", e.text);
    json_object_set_new(c, "tie_word_embeddings", json_true());
    json_append(&text, c, false);
    mk_put(dir, "config.json", text);
    cr_assert_eq(symlink(from, weights), 0);
    cr_expect_gt(run_all_budgets(dir, seen), 1);
    json_decref(c);
    char *all[] = {from, config, weights};
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        xfree(all[i]);
    support_tmpdir_remove(dir);
}

/* A vocabulary large enough for a head in parts. */
Test(model_stream, a_head_in_parts_gives_the_answers_of_the_whole)
{
    int seen[5] = {0};
    const char *dir = support_shared("models/pythia-s0");
    if (dir == NULL)
        cr_skip_test("needs a reference model");
    const int n = run_all_budgets(dir, seen);
    cr_expect_lt(seen[4], n, "the head was whole in all of %d budgets", n);
}

/* ---- the master on the host ---- */

/* A device that has memory of its own, as the plan sees it: nothing else depends on that. */
static void open_hosted(const char *dir, struct opened *o)
{
    struct err e = {0};
    struct model_plan p;
    struct plan plan;
    *o = (struct opened){0};
    cr_assert_eq(ckpt_open(&(struct model_ref){.name = dir, .path = dir}, &o->ckpt, &e), ERR_OK);
    cr_assert_eq(kern_open(&(struct kern_options){.device = "cpu", .threads = 1}, &o->k, &e),
                 ERR_OK);
    cr_assert_eq(model_plan_only(o->ckpt, o->k, 0, &p, &e), ERR_OK, "%s", e.text);
    p.device.host_bytes = p.device.memory_bytes;
    p.shape.total *= 10; /* as many layers' worth: two on their way must be few beside the rest */
    p.device.budget = 10 * p.plan.resident_bytes - 1;
    cr_assert_eq(plan_make(&p.shape, &p.device, 2, dir, &plan, &e), ERR_OK, "%s", e.text);
    cr_assert_eq(plan.mode, PLAN_HOST_MASTER, "%s", dir);
    cr_assert_eq(model_open_planned(o->ckpt, o->k, &plan, &plan, &o->m, &e), ERR_OK, "%s", e.text);
}

static void run_in_force(struct opened *o, const struct config *c, struct fixture *f, int config)
{
    struct err e = {0};
    cr_assert_eq(model_set_config(o->m, c, &f->bits[config], &e), ERR_OK, "%s", e.text);
    for (int b = 0; b < BATCHES; b++) {
        const struct model_batch batch = batch_of(f, config, b);
        cr_assert_eq(model_run(o->m, &batch, f->answers[config][b], &e), ERR_OK, "%s", e.text);
    }
}

static void check_hosted(const char *dir)
{
    struct fixture *whole = xcalloc(1, sizeof *whole), *hosted = xcalloc(1, sizeof *hosted);
    struct config configs[CONFIGS], stored = config_default();
    struct opened o;
    struct bits bits;
    struct err e = {0};
    make_configs(configs);
    run_resident(dir, whole);
    open_hosted(dir, &o);
    cr_assert(!model_is_streamed(o.m));
    fill(hosted, o.m);
    cr_assert_eq(model_ref_new(o.m, hosted->n_targets, &hosted->ref, &e), ERR_OK);
    for (int c = 0; c < CONFIGS; c++) {
        run_in_force(&o, &configs[c], hosted, c);
        stored.k = 32; /* what it leaves behind is put right by the next configuration */
        if (c == 1)
            cr_assert_eq(model_set_config(o.m, &stored, &bits, &e), ERR_OK, "%s", e.text);
    }
    expect_equal(hosted, whole, dir);
    model_ref_free(o.m, hosted->ref);
    close_model(&o);
    xfree(whole);
    xfree(hosted);
}

Test(model_stream, a_master_on_the_host_gives_the_answers_of_the_resident_model)
{
    for (size_t i = 0; i < ARRAY_LEN(variants); i++) {
        char rel[200];
        snprintf(rel, sizeof rel, "tests/golden/families/%s", variants[i]);
        check_hosted(support_source(rel));
    }
}

Test(model_stream, every_allocation_that_fails_is_an_error_without_a_leak)
{
    const char *dir = support_source("tests/golden/families/opt-postnorm-proj-untied-gelu");
    struct fixture *f = xcalloc(1, sizeof *f);
    struct plan plan;
    struct err e = {0};
    int failures = 0;
    struct opened o;
    cr_assert_eq(open_model(dir, 0, &o, &e), ERR_OK);
    struct model_plan p;
    model_get_plan(o.m, &p);
    close_model(&o);
    for (long n = 1; n < 200; n++) {
        memset(f, 0, sizeof *f);
        mem_fail_after(n);
        enum err_code rc = run_streamed(dir, p.plan.resident_bytes / 2, f, &plan, &e);
        mem_fail_after(0);
        if (rc == ERR_OK)
            break;
        cr_expect_eq(rc, ERR_NOMEM, "allocation %ld: %s", n, e.text);
        failures++;
    }
    cr_expect(failures >= 6, "%d", failures);
    xfree(f);
}
