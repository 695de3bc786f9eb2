/* The answer that the page opens with: per family, which bit width wins along the main curves, and which configuration is recommended
 * at a few budgets. */
#include <math.h>
#include <string.h>

#include "analysis/html.h"
#include "analysis/html_json.h"
#include "analysis/recommend.h"

enum { BUDGETS = 6, STRIP = 48, MAX_CURVES = 33, DIGITS = 6 };

/* One metric of the answer. Cross entropy is computed with and shown as perplexity. */
struct answering {
    const struct report *report;
    enum metric_id metric;
    struct group *groups;
    int n_groups;
};

static double shown(const struct answering *w, double value)
{
    return w->metric == METRIC_NLL ? exp(value) : value;
}

static const struct metric_info *info_of(const struct answering *w)
{
    return metric_info_of(w->metric);
}

/* ---- along the main curves ---- */

/* Shares of resamples in which each curve of the main group is best, at STRIP budgets. */
struct strip {
    const struct group *group;
    bool is_drawn; /* from resamples; else the shares are 0 and 1 */
    double bits[STRIP];
    double p[MAX_CURVES][STRIP];
};

/* A share of agreeing resamples says nothing where the values cannot vary. */
static bool is_drawn(const struct bootstrap *b, enum metric_id m, const struct group *g)
{
    if (b->n_resamples == 0 || b->is_drawn[m] == NULL)
        return false;
    for (int c = 0; c < g->n_curves; c++)
        for (int i = 0; i < g->curves[c].n; i++)
            for (int r = 0; r < g->curves[c].points[i].n_rows; r++)
                if (!b->is_drawn[m][g->curves[c].points[i].rows[r]])
                    return false;
    return true;
}

static void fill_strip(const struct answering *w, const double *log2_bits, struct strip *s)
{
    const struct bootstrap *b = w->report->bootstrap;
    double p[MAX_CURVES] = {0};
    s->is_drawn = is_drawn(b, w->metric, s->group);
    for (int i = 0; i < STRIP; i++) {
        s->bits[i] = exp2(log2_bits[i]);
        struct best best = best_at(s->group, log2_bits[i], info_of(w)->is_larger_better);
        if (s->is_drawn)
            bootstrap_best(b, w->metric, s->group, log2_bits[i], p);
        for (int c = 0; c < s->group->n_curves && c < MAX_CURVES; c++)
            s->p[c][i] = s->is_drawn ? p[c] : s->group->curves[c].k == best.k;
    }
}

static void add_strip(struct buf *out, const struct strip *s)
{
    hj_name(out, "strip");
    hj_open(out, '{');
    hj_put_bool(out, "drawn", s->is_drawn);
    hj_put_numbers(out, "bits", s->bits, STRIP, DIGITS);
    hj_name(out, "k");
    hj_open(out, '[');
    for (int c = 0; c < s->group->n_curves && c < MAX_CURVES; c++)
        hj_int(out, s->group->curves[c].k);
    hj_close(out, ']');
    hj_name(out, "p");
    hj_open(out, '[');
    for (int c = 0; c < s->group->n_curves && c < MAX_CURVES; c++) {
        hj_open(out, '[');
        for (int i = 0; i < STRIP; i++)
            hj_number(out, s->p[c][i], 3);
        hj_close(out, ']');
    }
    hj_close(out, ']');
    hj_close(out, '}');
}

static int winner_at(const struct strip *s, int i)
{
    int best = 0;
    for (int c = 1; c < s->group->n_curves && c < MAX_CURVES; c++)
        if (s->p[c][i] > s->p[best][i])
            best = c;
    return best;
}

/* "Along the curves of float, block 64, 4 bit wins at 71 % of the budgets from 2 Mbit to 30 Mbit, 3 bit at 29 %. …" */
static const char *lead_of(const struct strip *s, struct arena *a)
{
    int n_won[MAX_CURVES] = {0};
    int n_sure = 0;
    for (int i = 0; i < STRIP; i++) {
        int c = winner_at(s, i);
        n_won[c]++;
        n_sure += s->p[c][i] >= 0.95;
    }
    char from[32];
    char to[32];
    const char *text = arena_printf(
        a, "Along the curves of %s, from %sbit to %sbit: ", setting_label(&s->group->setting, a),
        fmt_si(s->bits[0], from), fmt_si(s->bits[STRIP - 1], to));
    const char *comma = "";
    for (int rank = 0; rank < 3; rank++) {
        int c = 0;
        for (int i = 1; i < s->group->n_curves && i < MAX_CURVES; i++)
            c = n_won[i] > n_won[c] ? i : c;
        if (n_won[c] == 0)
            break;
        text = arena_printf(
            a, rank == 0 ? "%s%s%d bit wins at %.0f %% of the budgets" : "%s%s%d bit at %.0f %%",
            text, comma, s->group->curves[c].k, 100.0 * n_won[c] / STRIP);
        comma = ", ";
        n_won[c] = 0;
    }
    return s->is_drawn
               ? arena_printf(a, "%s. At %.0f %% of them at least 95 %% of the resamples agree.",
                              text, 100.0 * n_sure / STRIP)
               : arena_printf(a, "%s. There are no error bars.", text);
}

/* ---- at a budget ---- */

/* An interval without extent comes from values that were not drawn: it is none. */
static struct interval real_interval(struct interval v)
{
    return v.low < v.high ? v : (struct interval){NAN, NAN};
}

static void add_range(struct buf *out, const struct answering *w, double value, struct interval v)
{
    v = real_interval(v);
    hj_put_number(out, "value", shown(w, value), DIGITS);
    hj_put_number(out, "low", shown(w, v.low), DIGITS);
    hj_put_number(out, "high", shown(w, v.high), DIGITS);
}

/* Changes are differences of what is shown: of perplexities, not of cross entropies. */
static void add_step(struct buf *out, const struct answering *w, const char *name,
                     const struct choice *c, const struct step *step)
{
    hj_name(out, name);
    if (step->k == 0) {
        hj_text(out, NULL);
        return;
    }
    double base = shown(w, c->value);
    struct interval range = real_interval(step->range);
    hj_open(out, '{');
    hj_put_int(out, "k", step->k);
    hj_put_bool(out, "fits", step->is_within);
    hj_put_number(out, "change", shown(w, c->value + step->change) - base, 3);
    hj_put_number(out, "low", shown(w, c->value + range.low) - base, 3);
    hj_put_number(out, "high", shown(w, c->value + range.high) - base, 3);
    hj_close(out, '}');
}

static void add_choice(struct buf *out, const struct answering *w, const char *name,
                       const struct choice *c)
{
    hj_name(out, name);
    if (c == NULL) {
        hj_text(out, NULL);
        return;
    }
    hj_open(out, '{');
    hj_put_int(out, "k", c->k);
    hj_put_text(out, "label", choice_label(c, w->report->source->arena));
    hj_put_text(out, "size", c->size);
    hj_put_number(out, "bits", c->bits, DIGITS);
    hj_put_number(out, "p", c->probability, 3);
    add_range(out, w, c->value, c->range);
    add_step(out, w, "less", c, &c->less);
    add_step(out, w, "more", c, &c->more);
    hj_close(out, '}');
}

static void add_budgets(struct buf *out, const struct answering *w, const struct group *first,
                        int n_groups, const double *log2_bits)
{
    const struct report *r = w->report;
    hj_name(out, "budgets");
    hj_open(out, '[');
    for (int i = 0; log2_bits != NULL && i < BUDGETS; i++) {
        int n = 0;
        const struct advice *advice =
            recommend(r->bootstrap, w->metric, first, n_groups, log2_bits[i], r->source->arena, &n);
        if (n == 0 || advice->n_curves == 0)
            continue;
        hj_open(out, '{');
        hj_put_number(out, "bits", exp2(log2_bits[i]), DIGITS);
        add_choice(out, w, "choice", &advice->curves[0]);
        add_choice(out, w, "model", advice->n_models > 0 ? &advice->models[0] : NULL);
        hj_close(out, '}');
    }
    hj_close(out, ']');
}

static bool is_same_place(const struct group *x, const struct group *y)
{
    return strcmp(x->sweep, y->sweep) == 0 && strcmp(x->family, y->family) == 0 &&
           strcmp(x->setting.compute, y->setting.compute) == 0;
}

/* The groups [first, first + n) are of one sweep, family and precision. */
static void add_family(struct buf *out, const struct answering *w, const struct group *first, int n)
{
    struct arena *a = w->report->source->arena;
    double log2_bits[STRIP];
    double some_bits[BUDGETS];
    const struct group *main = main_group(first, n, first->family);
    hj_open(out, '{');
    hj_put_text(
        out, "title",
        arena_printf(a, "%s (sweep %s, %s)", first->family, first->sweep, first->setting.compute));
    if (main != NULL && budgets_of(main, STRIP, log2_bits) &&
        budgets_of(main, BUDGETS, some_bits)) {
        struct strip *s = arena_alloc(a, sizeof(*s));
        s->group = main;
        fill_strip(w, log2_bits, s);
        hj_put_text(out, "lead", lead_of(s, a));
        add_strip(out, s);
        add_budgets(out, w, first, n, some_bits);
    } else {
        hj_put_text(
            out, "reason",
            "No budget is covered by the curves of two bit widths yet: results at more model sizes "
            "are needed.");
        add_budgets(out, w, first, 0, NULL);
    }
    hj_close(out, '}');
}

static void add_metric(struct buf *out, const struct answering *w)
{
    bool is_nll = w->metric == METRIC_NLL;
    hj_open(out, '{');
    hj_put_text(out, "metric", is_nll ? "perplexity" : "zero-shot");
    hj_put_text(out, "note",
                arena_printf(w->report->source->arena,
                             "%s Values between model sizes are interpolated along the curves, "
                             "never extrapolated: a curve ends with its largest model, and beyond "
                             "that the checkpoint column knows better. Ranges are 95 %% intervals.",
                             is_nll ? "Lower is better."
                                    : "Mean accuracy of LAMBADA, WinoGrande, HellaSwag and PIQA; "
                                      "higher is better."));
    hj_name(out, "families");
    hj_open(out, '[');
    for (int i = 0; i < w->n_groups;) {
        int n = 1;
        while (i + n < w->n_groups && is_same_place(&w->groups[i], &w->groups[i + n]))
            n++;
        add_family(out, w, &w->groups[i], n);
        i += n;
    }
    hj_close(out, ']');
    hj_close(out, '}');
}

void html_add_answers(struct buf *out, const struct report *r)
{
    static const enum metric_id metrics[] = {METRIC_NLL, METRIC_ZERO_SHOT};
    hj_name(out, "answers");
    hj_open(out, '[');
    for (size_t i = 0; i < ARRAY_LEN(metrics); i++) {
        int n_dropped = 0;
        struct answering w = {.report = r, .metric = metrics[i]};
        w.groups = groups_build(&r->source->frame, metrics[i], r->source->bits, r->source->arena,
                                &w.n_groups, &n_dropped);
        bool is_measured = false;
        for (int g = 0; g < w.n_groups; g++)
            for (int c = 0; c < w.groups[g].n_curves; c++)
                is_measured = is_measured || w.groups[g].curves[c].n > 0;
        if (is_measured)
            add_metric(out, &w);
    }
    hj_close(out, ']');
}
