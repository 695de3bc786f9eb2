#include "analysis/claims.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/bootstrap.h"
#include "analysis/claims_impl.h"

/* ---- passes ---- */

/* One claim of one world while its numbers are collected. */
struct run {
    const struct claim_def *def;
    struct statement *statements;
    int n;
    double *first; /* of the measured numbers */
    int n_draws;
    double *draws; /* statistic i of resample r at [i * n_draws + r] */
    bool *used;
};

/* All claims of one world; a thread of its own may collect them. */
struct runs {
    const struct claims_input *in;
    struct world world;
    struct run *v; /* one a claim; those that this world is not for have no statements */
    struct arena arena, scratch;
    const double *zero_shot, *nll; /* the measured numbers */
    double *quality;               /* per row, for world_set */
};

static bool is_about(enum claim_axes axes, enum metric_id m, enum bits_id b)
{
    switch (axes) {
    case AXES_BOTH:
    case AXES_NLL:
        return true;
    case AXES_ACCURACY:
        return m == METRIC_ZERO_SHOT;
    case AXES_NLL_ONLY:
        return m == METRIC_NLL;
    case AXES_SINGLE:
        return m == METRIC_ZERO_SHOT && b == BITS_FULL;
    }
    BUG("axes of a claim");
}

static void run_pass(struct runs *all, struct run *run, struct claim_ctx *like)
{
    struct claim_ctx c = *like;
    c.statements = run->statements;
    c.used = c.is_first ? run->used : NULL;
    run->def->compute(&c);
    CHECK(c.is_first || c.n == run->n);
    run->n = c.n;
    arena_release(&all->scratch);
}

/* Nothing to draw where no statistic has a value. */
static int draws_of(const struct run *run, int n_resamples)
{
    enum { FEW = 200 };
    for (int i = 0; i < run->n; i++)
        if (!isnan(run->first[i]) && !run->statements[i].is_exact)
            return run->def->is_slow && n_resamples > FEW ? FEW : n_resamples;
    return 0;
}

static void first_pass(struct runs *all)
{
    double values[CLAIM_MAX_STATEMENTS];
    struct statement statements[CLAIM_MAX_STATEMENTS];
    world_set(&all->world, all->world.metric == METRIC_NLL ? all->nll : all->zero_shot,
              all->quality);
    for (int i = 0; i < claim_n_defs; i++) {
        struct run *run = &all->v[i];
        run->def = &claim_defs[i];
        if (run->def->compute == NULL ||
            !is_about(run->def->axes, all->world.metric, all->world.bits))
            continue;
        struct claim_ctx c = {.world = &all->world,
                              .in = all->in,
                              .zero_shot = all->zero_shot,
                              .nll = all->nll,
                              .scratch = &all->scratch,
                              .is_first = true,
                              .values = values,
                              .arena = &all->arena};
        run->statements = statements;
        run->used = arena_array(&all->arena, (size_t)all->in->frame->n + 1, sizeof(bool));
        run_pass(all, run, &c);
        size_t n = (size_t)run->n + 1;
        run->statements = arena_array(&all->arena, n, sizeof(*run->statements));
        run->first = arena_array(&all->arena, n, sizeof(*run->first));
        memcpy(run->statements, statements, (size_t)run->n * sizeof(*statements));
        memcpy(run->first, values, (size_t)run->n * sizeof(*values));
        run->n_draws = draws_of(run, all->in->n_resamples);
        run->draws = arena_array(&all->arena, n * (size_t)run->n_draws + 1, sizeof(*run->draws));
    }
}

static void draw(struct runs *all, int r)
{
    const struct claims_input *in = all->in;
    double values[CLAIM_MAX_STATEMENTS];
    size_t at = (size_t)r * (size_t)in->frame->n;
    const double *zero_shot = in->zero_shot != NULL ? in->zero_shot + at : all->zero_shot;
    const double *nll = in->nll != NULL ? in->nll + at : all->nll;
    world_set(&all->world, all->world.metric == METRIC_NLL ? nll : zero_shot, all->quality);
    for (int i = 0; i < claim_n_defs; i++) {
        struct run *run = &all->v[i];
        if (run->statements == NULL || r >= run->n_draws)
            continue;
        struct claim_ctx c = {.world = &all->world,
                              .in = in,
                              .zero_shot = zero_shot,
                              .nll = nll,
                              .scratch = &all->scratch,
                              .values = values,
                              .arena = &all->arena};
        run_pass(all, run, &c);
        for (int s = 0; s < run->n; s++)
            run->draws[(size_t)s * (size_t)run->n_draws + (size_t)r] = values[s];
    }
}

/* ---- results ---- */

/* The middle 95 % of the draws, and the same moved by the bootstrap's own bias (mean of the draws minus the measured number): shares
 * of wins and correlations lose by more noise, so that their draws lie on one side of them. The interval spans both, which for
 * gaps are the same. What did not come out in every resample has no interval. */
static struct interval interval_of_draws(const struct run *run, int i, double *spread)
{
    struct interval range = {NAN, NAN};
    const struct statement *s = &run->statements[i];
    double *draws = run->draws + (size_t)i * (size_t)run->n_draws;
    double bias = 0;
    *spread = NAN;
    for (int r = 0; r < run->n_draws; r++)
        bias += (draws[r] - run->first[i]) / run->n_draws;
    if (run->n_draws < 2 || isnan(bias))
        return range;
    *spread = spread_of(draws, run->n_draws);
    range = interval_of(draws, run->n_draws);
    range.low = fmin(range.low, range.low - bias);
    range.high = fmax(range.high, range.high - bias);
    if (s->least < s->most) {
        range.low = fmax(range.low, s->least);
        range.high = fmin(range.high, s->most);
    }
    return range;
}

/* Are there items behind every number that the claim stands on? */
static bool has_items(const struct runs *all, const struct run *run)
{
    const struct claims_input *in = all->in;
    bool is_nll = all->world.metric == METRIC_NLL || run->def->axes == AXES_SINGLE;
    bool is_accuracy = all->world.metric == METRIC_ZERO_SHOT;
    for (int i = 0; i < in->frame->n; i++) {
        if (!run->used[i])
            continue;
        if ((is_nll && in->has_nll_items != NULL && !in->has_nll_items[i]) ||
            (is_accuracy && in->has_zero_shot_items != NULL && !in->has_zero_shot_items[i]))
            return false;
    }
    return true;
}

static struct claim_part make_part(const struct run *run, int i, bool has_interval, struct arena *a)
{
    const struct statement *s = &run->statements[i];
    struct claim_part p = {.label = arena_strdup(a, s->label),
                           .value = run->first[i],
                           .low = NAN,
                           .high = NAN,
                           .needs = bound_text(s->bound, a)};
    double spread = NAN;
    if (s->is_exact) {
        p.low = s->low;
        p.high = s->high;
    } else if (!isnan(p.value) && has_interval) {
        struct interval range = interval_of_draws(run, i, &spread);
        p.low = range.low;
        p.high = range.high;
    }
    if (isnan(p.value))
        p.verdict = VERDICT_NOT_COVERED;
    else if (s->bound.kind == BOUND_TOLD)
        p.verdict = VERDICT_CONFIRMED;
    else if (run->n_draws == 0 && isnan(p.low)) /* nobody asked for intervals */
        p.verdict = verdict_of_point(s->bound, p.value);
    else
        p.verdict = verdict_of_part(s->bound, &p, spread);
    return p;
}

static const int *list_used(const struct runs *all, const struct run *run, struct arena *a, int *n)
{
    int *rows = arena_array(a, (size_t)all->in->frame->n + 1, sizeof(*rows));
    *n = 0;
    for (int i = 0; i < all->in->frame->n; i++)
        if (run->used[i])
            rows[(*n)++] = i;
    return rows;
}

static struct claim_variant make_variant(const struct runs *all, const struct run *run,
                                         struct arena *a)
{
    struct claim_variant v = {
        .metric = all->world.metric, .bits = all->world.bits, .n_parts = run->n};
    struct claim_part *parts = arena_array(a, (size_t)run->n + 1, sizeof(*parts));
    bool has_interval = has_items(all, run);
    for (int i = 0; i < run->n; i++)
        parts[i] = make_part(run, i, has_interval, a);
    v.parts = parts;
    v.verdict = verdict_of_parts(run->statements, parts, run->n);
    v.decisive = decisive_part(run->statements, parts, run->n, v.verdict);
    if (!has_interval && run->n_draws > 0)
        v.reason = "no per-item values behind some of its rows, so no interval";
    if (v.verdict == VERDICT_NOT_COVERED)
        v.reason = run->def->lacks;
    else
        v.rows = list_used(all, run, a, &v.n_rows);
    return v;
}

/* The metric the paper tells a claim for comes first; then the count of bits. */
static bool is_leading(const struct claim_def *def, const struct claim_variant *v)
{
    bool wants_nll = def->axes == AXES_NLL || def->axes == AXES_NLL_ONLY;
    return (v->metric == METRIC_NLL) == wants_nll;
}

/* Both counts of bits have a say: where they differ nothing is settled. */
static void settle(struct claim *claim, const struct claim_def *def, struct arena *a)
{
    const struct claim_variant *first = claim_shown(claim);
    claim->verdict = first != NULL ? first->verdict : VERDICT_NOT_COVERED;
    if (first == NULL) {
        claim->note = def->lacks;
        return;
    }
    for (int i = 0; i < claim->n_variants; i++) {
        const struct claim_variant *v = &claim->variants[i];
        if (v->metric != first->metric || v->verdict == VERDICT_NOT_COVERED ||
            v->verdict == first->verdict)
            continue;
        claim->note = arena_printf(a, "%s with full bits, %s with nominal bits",
                                   verdict_label(first->verdict), verdict_label(v->verdict));
        claim->verdict = VERDICT_INCONCLUSIVE;
    }
    if (claim->note == NULL)
        claim->note = first->reason;
    if (claim->note == NULL && !is_leading(def, first))
        claim->note = arena_printf(a, "judged by %s only", metric_info_of(first->metric)->title);
}

const struct claim_variant *claim_shown(const struct claim *c)
{
    for (int i = 0; i < c->n_variants; i++)
        if (c->variants[i].verdict != VERDICT_NOT_COVERED)
            return &c->variants[i];
    return NULL;
}

const struct claim_part *claim_shown_part(const struct claim *c)
{
    const struct claim_variant *v = claim_shown(c);
    return v != NULL && v->decisive >= 0 ? &v->parts[v->decisive] : NULL;
}

/* ---- all of it ---- */

enum { N_WORLDS = 4 };
static const struct {
    enum metric_id metric;
    enum bits_id bits;
} world_axes[N_WORLDS] = {
    {METRIC_ZERO_SHOT, BITS_FULL},
    {METRIC_ZERO_SHOT, BITS_NOMINAL},
    {METRIC_NLL, BITS_FULL},
    {METRIC_NLL, BITS_NOMINAL},
};

static double *column_of(const struct frame *f, enum metric_id m, struct arena *a)
{
    double *v = arena_array(a, (size_t)f->n + 1, sizeof(*v));
    for (int i = 0; i < f->n; i++)
        v[i] = f->rows[i].metric[m];
    return v;
}

static void run_world(const struct claims_input *in, const char *compute, int axes,
                      struct runs *out)
{
    struct arena *a = &out->arena;
    out->in = in;
    out->world = world_build(in->frame, compute, world_axes[axes].metric, world_axes[axes].bits, a);
    out->zero_shot = column_of(in->frame, METRIC_ZERO_SHOT, a);
    out->nll = column_of(in->frame, METRIC_NLL, a);
    out->quality = arena_array(a, (size_t)in->frame->n + 1, sizeof(double));
    out->v = arena_array(a, (size_t)claim_n_defs, sizeof(*out->v));
    first_pass(out);
    for (int r = 0; r < in->n_resamples; r++)
        draw(out, r);
    arena_release(&out->scratch);
}

/* Worlds share what they read only. */
struct crew {
    const struct claims_input *in;
    const char *compute;
    struct runs worlds[N_WORLDS];
    atomic_int next;
};

static void *run_worlds(void *arg)
{
    struct crew *crew = arg;
    for (int w = atomic_fetch_add(&crew->next, 1); w < N_WORLDS;
         w = atomic_fetch_add(&crew->next, 1))
        run_world(crew->in, crew->compute, w, &crew->worlds[w]);
    return NULL;
}

/* A thread that cannot be had leaves its share to the others. */
static void run_crew(struct crew *crew)
{
    pthread_t threads[N_WORLDS];
    int n = 0;
    while (n < crew->in->n_threads - 1 && n < N_WORLDS - 1 &&
           pthread_create(&threads[n], NULL, run_worlds, crew) == 0)
        n++;
    run_worlds(crew);
    for (int i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
}

static const char *remark_of(const struct claims_input *in, const char *compute, struct arena *a)
{
    struct buf b = {0};
    if (in->n_resamples > 0)
        buf_printf(&b, "95 %% intervals from %d resamples of the items. ", in->n_resamples);
    else
        buf_adds(&b, "No intervals: verdicts compare the statistics alone. ");
    int n_capped = 0, n_other = 0;
    for (int i = 0; i < in->frame->n; i++) {
        n_capped += in->frame->rows[i].is_capped;
        n_other += compute != NULL && strcmp(in->frame->rows[i].compute, compute) != 0;
    }
    if (n_capped > 0)
        buf_printf(&b, "%d perplexities above %g or not finite count as %g. ", n_capped,
                   in->frame->cap, in->frame->cap);
    if (n_other > 0)
        buf_printf(&b, "%d rows of another precision than %s are left out. ", n_other, compute);
    const char *text = arena_strdup(a, b.data != NULL ? b.data : "");
    buf_release(&b);
    return text;
}

static struct claim make_claim(const struct crew *crew, int i, struct arena *a)
{
    const struct claim_def *def = &claim_defs[i];
    struct claim_variant *variants = arena_array(a, N_WORLDS, sizeof(*variants));
    struct claim claim = {.id = def->id,
                          .sentence = def->sentence,
                          .test = def->test,
                          .unit = def->unit,
                          .variants = variants};
    for (int leading = 1; leading >= 0; leading--)
        for (int w = 0; w < N_WORLDS; w++) {
            const struct run *run = &crew->worlds[w].v[i];
            if (run->statements == NULL)
                continue;
            struct claim_variant v = make_variant(&crew->worlds[w], run, a);
            if (is_leading(def, &v) == (leading == 1))
                variants[claim.n_variants++] = v;
        }
    settle(&claim, def, a);
    return claim;
}

struct claims claims_run(const struct claims_input *in, struct arena *a)
{
    const char *compute = world_compute(in->frame);
    struct claim *claims = arena_array(a, (size_t)claim_n_defs, sizeof(*claims));
    struct claims out = {.v = claims, .n = claim_n_defs, .compute = compute};
    struct crew crew = {.in = in, .compute = compute != NULL ? compute : ""};
    run_crew(&crew);
    for (int i = 0; i < claim_n_defs; i++) {
        claims[i] = make_claim(&crew, i, a);
        out.n_of[claims[i].verdict]++;
    }
    for (int w = 0; w < N_WORLDS; w++)
        arena_release(&crew.worlds[w].arena);
    out.remark = remark_of(in, compute, a);
    return out;
}
