/* Worlds with known laws, and the verdict that each claim must reach in them. The numbers come without a database: the truth
 * itself, with resamples that scatter around it as little as a large sweep's would. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "analysis/claims.h"
#include "base/rng.h"
#include "tests/support/planted.h"
#include "tests/support/support.h"
#include "tests/support/sweep_fixture.h"

enum { RESAMPLES = 20 };

struct plant {
    const char *name;
    void (*change)(struct planted *p);
    const char
        *verdicts; /* "C2+ C4-": + confirmed, - contradicted, ? inconclusive, 0 not covered */
};

/* ---- worlds ---- */

static void nothing(struct planted *p)
{
    (void)p;
}
static void three_is_enough(struct planted *p)
{
    p->law.loss[3] = 1.3;
    memset(p->law.collapse, 0, sizeof(p->law.collapse));
}
static void four_is_bad(struct planted *p)
{
    p->law.loss[4] = 8;
    p->law.loss[5] = 5;
}
static void five_is_worse(struct planted *p)
{
    p->law.has_tie = false;
    p->law.loss[5] = 3;
}
static void tilted(struct planted *p)
{
    p->law.tilt[8] = 3;
    p->law.tilt[7] = 2;
    p->law.tilt[6] = 1;
}
static void power_law(struct planted *p)
{
    p->law.has_power_law = true;
}
static void no_collapse(struct planted *p)
{
    memset(p->law.collapse, 0, sizeof(p->law.collapse));
    p->law.outlier_gain[3] = -1;
}
static void gpt2_collapses(struct planted *p)
{
    p->law.collapse[PLANTED_GPT2][0] = 10;
}
static void loose_correlation(struct planted *p)
{
    planted_correlate(p, -0.6);
}
static void blocks_do_nothing(struct planted *p)
{
    for (int f = 0; f < PLANTED_FAMILIES; f++)
        p->law.block_loss[f] = 0.1;
}
static void bloom_gains_most(struct planted *p)
{
    p->law.block_loss[PLANTED_BLOOM] = 4;
}
static void eight_bit_matters(struct planted *p)
{
    p->law.weight[8] = 1.5;
}
static void int_is_best(struct planted *p)
{
    p->law.type_loss[DTYPE_int] = -1;
}
static void three_exponent_bits_at_five(struct planted *p)
{
    p->law.best_exponent[5] = 3;
}
static void one_exponent_bit(struct planted *p)
{
    for (int k = 3; k <= PLANTED_MAX_K; k++)
        p->law.best_exponent[k] = 1;
}
static void outliers_beat_four(struct planted *p)
{
    p->law.outlier_gain[3] = 5;
}
static void outliers_help_at_four(struct planted *p)
{
    p->law.outlier_gain[4] = 2;
}
static void centering_helps(struct planted *p)
{
    p->law.center_loss = -1;
}
static void bloomz_differs(struct planted *p)
{
    p->law.bloomz_loss = 3;
}
static void large_bloom_ties(struct planted *p)
{
    p->max_params = 1e12;
    p->law.type_loss[DTYPE_float] = 0;
    p->law.collapse[PLANTED_BLOOM][0] =
        -(p->law.loss[3] - p->law.loss[4] - p->law.slope * log2(4.25 / 3.25));
}
static void large_bloom_is_normal(struct planted *p)
{
    p->max_params = 1e12;
}
static void two_sizes(struct planted *p)
{
    p->max_sizes = 2;
}
static bool is_wide(const char *family, const char *size, const struct config *c, enum task t)
{
    (void)family;
    (void)size;
    (void)t;
    return c->k != 4;
}
static void one_width(struct planted *p)
{
    p->is_left_out = is_wide;
}
static void widths_only(struct planted *p)
{
    p->grids = PLANTED_WIDTHS;
}
static void gpt2_only(struct planted *p)
{
    p->families = 1U << PLANTED_GPT2;
}

/* ---- the table ---- */

static const struct plant plants[] = {
    {"the paper's world", nothing,
     "C1+ C2+ C3+ C4+ C50 C6+ C7+ C8+ C9+ C10+ C11+ C12+ C13+ C14+ C15+ C16+ C17+ C18+ C19+ C20+ "
     "C21+ C22+ C23+ C24+ C25+ C26+ C27+ C28+ C29+ C300 C310 C32+ C33+ C34+ C350 E10 E90"},
    {"3 bit loses little", three_is_enough, "C2- C4- C9- C15- C24- C10+ C13+"},
    {"4 bit loses much", four_is_bad, "C2- C3- C28-"},
    {"5 bit falls behind on Pythia", five_is_worse, "C6- C2+"},
    {"wider curves are steeper", tilted, "C7-"},
    {"cross entropy is a power law", power_law, "C8-"},
    {"no collapse, outliers hurt", no_collapse, "C9- C23-"},
    {"GPT-2 collapses", gpt2_collapses, "C10-"},
    {"families differ in accuracy", loose_correlation, "C11- C2+ C4+"},
    {"blocks do nothing", blocks_do_nothing, "C12- C14- C16-"},
    {"BLOOM gains most from blocks", bloom_gains_most, "C14-"},
    {"types and blocks matter at 8 bit", eight_bit_matters, "C17-"},
    {"int is the best type", int_is_best, "C18- C19-"},
    {"three exponent bits are best at 5 bit", three_exponent_bits_at_five, "C20- C21-"},
    {"one exponent bit is best", one_exponent_bit, "C21- C22-"},
    {"outliers lift 3 bit over 4", outliers_beat_four, "C24- C23+"},
    {"outliers help at 4 bit", outliers_help_at_four, "C25- C24+"},
    {"centering helps", centering_helps, "C26-"},
    {"BLOOMZ reacts on its own", bloomz_differs, "C27-"},
    {"the largest BLOOM ties", large_bloom_ties, "C5+"},
    {"the largest BLOOM is like the others", large_bloom_is_normal, "C5-"},
    {"two sizes only", two_sizes,
     "C20 C30 C40 C60 C70 C80 C90 C120 C140 C150 C160 C170 C180 C200 C240 C250 C260"},
    {"one bit width only", one_width,
     "C20 C30 C40 C60 C70 C80 C90 C100 C120 C140 C150 C170 C190 C200 C210 C230 C240 C270 C280"},
    {"widths only", widths_only,
     "C2+ C3+ C4+ C120 C140 C160 C170 C180 C190 C200 C210 C220 C230 C240 C250 C260 C27+ C28+"},
    {"GPT-2 only", gpt2_only, "C2+ C4+ C60 C90 C10+ C120 C140 C180 C210 C230 C270"},
};

/* ---- judging ---- */

/* Resamples of one metric: the truth and noise of this standard deviation. */
static double *scatter(const struct frame *f, enum metric_id m, double noise, uint64_t seed,
                       struct arena *a)
{
    struct rng rng = {.state = seed};
    double *v = arena_array(a, (size_t)f->n * RESAMPLES + 1, sizeof(*v));
    for (int r = 0; r < RESAMPLES; r++)
        for (int i = 0; i < f->n; i++)
            v[(size_t)r * (size_t)f->n + (size_t)i] =
                f->rows[i].metric[m] + noise * rng_normal(&rng);
    return v;
}

static const struct claims_ranks ranks[] = {{"opt", "1.3b", 0.97, 0.8, 0.992},
                                            {"opt", "2.7b", 0.95, 0.7, 0.995}};
static const struct claims_weight_std weight_std[] = {
    {"opt", "350m", 3.5e8, -0.05, 0.12, 0.55}, {"opt", "1.3b", 1.3e9, -0.08, 0.2, 0.66},
    {"opt", "2.7b", 2.7e9, -0.07, 0.23, 0.69}, {"opt", "6.7b", 6.7e9, 0, 0.29, 0.73},
    {"opt", "13b", 1.3e10, 0.08, 0.21, 0.72},  {"opt", "30b", 3e10, 0.06, 0.28, 0.74},
    {"opt", "66b", 6.6e10, 0.05, 0.41, 0.78}};
static const struct claims_facts good_facts = {.n_done = 35030,
                                               .ranks = ranks,
                                               .n_ranks = 2,
                                               .weight_std = weight_std,
                                               .n_weight_std = ARRAY_LEN(weight_std)};

static struct claims judge(const struct planted *p, const struct claims_facts *facts,
                           bool has_resamples, struct arena *a)
{
    struct frame *f = arena_alloc(a, sizeof(*f));
    *f = planted_frame(p, a);
    struct claims_input in = {.frame = f, .facts = facts};
    if (has_resamples) {
        in.zero_shot = scatter(f, METRIC_ZERO_SHOT, 1e-4, 1, a);
        in.nll = scatter(f, METRIC_NLL, 1e-6, 2, a);
        in.n_resamples = RESAMPLES;
    }
    return claims_run(&in, a);
}

static const struct claim *find(const struct claims *c, const char *id)
{
    for (int i = 0; i < c->n; i++)
        if (strcmp(c->v[i].id, id) == 0)
            return &c->v[i];
    cr_assert_fail("no claim %s", id);
    return NULL;
}

static enum verdict verdict_of_mark(char mark)
{
    switch (mark) {
    case '+':
        return VERDICT_CONFIRMED;
    case '-':
        return VERDICT_CONTRADICTED;
    case '?':
        return VERDICT_INCONCLUSIVE;
    default:
        return VERDICT_NOT_COVERED;
    }
}

static void expect_verdicts(const struct plant *plant, const struct claims *c)
{
    struct str rest = str_of(plant->verdicts), word;
    while (str_next_field(&rest, ' ', &word)) {
        char id[8];
        snprintf(id, sizeof(id), "%.*s", (int)word.n - 1, word.p);
        const struct claim *claim = find(c, id);
        enum verdict want = verdict_of_mark(word.p[word.n - 1]);
        const struct claim_part *p = claim_shown_part(claim);
        cr_expect_eq(claim->verdict, want, "%s: %s is %s, planted %s (%s %g [%g, %g] %s; %s)",
                     plant->name, id, verdict_label(claim->verdict), verdict_label(want),
                     p != NULL ? p->label : "-", p != NULL ? p->value : 0, p != NULL ? p->low : 0,
                     p != NULL ? p->high : 0, p != NULL ? p->needs : "",
                     claim->note != NULL ? claim->note : "");
    }
}

Test(claims, every_planted_verdict_is_reached)
{
    for (size_t i = 0; i < ARRAY_LEN(plants); i++) {
        struct arena a = {0};
        struct planted p = planted_paper();
        planted_correlate(&p, -0.94);
        plants[i].change(&p);
        struct claims c = judge(&p, &good_facts, true, &a);
        expect_verdicts(&plants[i], &c);
        arena_release(&a);
    }
}

/* ---- what the database knows beside the curves ---- */

static void add_weight_std(struct store *s, const struct sweep *sw, int model, int64_t worker,
                           const double values[3])
{
    struct err e = {0};
    struct arena a = {0};
    const struct metric metrics[] = {{"spearman_ffn1_relu", values[0], NAN, 100},
                                     {"spearman_kvq_attn", values[1], NAN, 100},
                                     {"spearman_attn_ffn1", values[2], NAN, 100}};
    struct job_result r = fixture_result(&a, TASK_perplexity, 1);
    r.metrics = metrics;
    r.n_metrics = ARRAY_LEN(metrics);
    int64_t job = (int64_t)(model + 1) * sw->n_evals; /* the last evaluation of the model */
    struct store_lease lease = {
        .first = job, .n = 1, .worker_id = worker, .set_id = 1, .attempt = 1};
    struct store_fence fence = {job, 1, worker};
    struct store_run_facts facts = {model + 1, 1, 1, "host", 1};
    struct store_samples samples = {0};
    bool is_ours = false;
    bool ok = store_pin_weights(s, model + 1, r.weights_sha256, 100000000 * (model + 1), 1, &e) ==
                  ERR_OK &&
              store_lease(s, &lease, &e) == ERR_OK &&
              store_done(s, &fence, &facts, &r, &samples, &is_ours, &e) == ERR_OK;
    cr_assert(ok && is_ours, "%s", e.text);
    arena_release(&a);
}

Test(claims, weights_are_judged_by_the_evaluation_weight_std)
{
    static const double good[3][3] = {{0.05, 0.2, 0.55}, {-0.1, 0.3, 0.6}, {0.02, 0.4, 0.7}};
    struct arena a = {0};
    struct err e = {0};
    char *dir = support_tmpdir();
    struct sweep sw = fixture_sweep(&a, "weights", 3, 1, TASK_COUNT);
    for (int m = 0; m < sw.n_models; m++)
        sw.models[m].ref.family = "opt";
    struct store *s = NULL;
    struct store_plan_counts counts;
    struct store_worker worker = {.uuid = "w",
                                  .host = "h",
                                  .device = "cpu",
                                  .program = "isobit 0.1.0",
                                  .computes = "fp32",
                                  .numerics = 1,
                                  .memory_bytes = 1,
                                  .pid = 1};
    int64_t worker_id = 0;
    bool ok = store_open(arena_printf(&a, "%s/w.db", dir), STORE_CREATE, &s, &e) == ERR_OK &&
              store_plan(s, &sw, 0, &counts, &e) == ERR_OK && store_begin(s, &e) == ERR_OK &&
              store_worker_hello(s, &worker, &worker_id, &e) == ERR_OK;
    cr_assert(ok, "%s", e.text);
    for (int m = 0; m < sw.n_models; m++)
        add_weight_std(s, &sw, m, worker_id, good[m]);
    cr_assert_eq(store_commit(s, &e), ERR_OK, "%s", e.text);
    struct frame none = {0};
    struct items no_items = {0};
    struct claims_facts facts;
    cr_assert_eq(claims_facts_load(s, &none, &no_items, &a, &facts, &e), ERR_OK, "%s", e.text);
    cr_expect_eq(facts.n_done, 3);
    cr_assert_eq(facts.n_weight_std, 3);
    cr_expect_float_eq(facts.weight_std[1].control, -0.1, 1e-12);
    cr_expect_float_eq(facts.weight_std[2].ffn, 0.7, 1e-12);
    struct claims_input in = {.frame = &none, .facts = &facts};
    struct claims c = claims_run(&in, &a);
    cr_expect_eq(find(&c, "C32")->verdict, VERDICT_CONFIRMED);
    struct claims_weight_std *worse = (struct claims_weight_std *)facts.weight_std;
    worse[2].ffn = 0.3; /* neither large nor growing */
    c = claims_run(&in, &a);
    cr_expect_eq(find(&c, "C32")->verdict, VERDICT_CONTRADICTED);
    store_close(s);
    arena_release(&a);
    support_tmpdir_remove(dir);
}

Test(claims, an_empty_frame_covers_nothing_but_arithmetic)
{
    struct arena a = {0};
    struct frame none = {0};
    struct claims_input in = {.frame = &none};
    struct claims c = claims_run(&in, &a);
    cr_expect_eq(c.n_of[VERDICT_CONFIRMED], 2, "C13 and C29");
    cr_expect_eq(c.n_of[VERDICT_NOT_COVERED], c.n - 2);
    arena_release(&a);
}
