/* `isobit-analysis fit`: the curves themselves, how far apart they are at equal bits, the base curve with an offset per bit width,
 * the power law for comparison, and the best bit width at each budget. */
#include <math.h>
#include <stdio.h>

#include "analysis/bootstrap.h"
#include "analysis/cmd.h"
#include "analysis/source.h"
#include "analysis/tell.h"

struct fit_opts {
    struct source_opts source;
    struct bootstrap_opts bootstrap;
    int64_t budgets, from_k;
    bool is_json;
};

static const struct cli_opt options[] = {
    SOURCE_OPTIONS(struct fit_opts, "nll"),
    BOOTSTRAP_OPTIONS(struct fit_opts),
    {.name = "budgets",
     .type = CLI_INT,
     .arg = "N",
     .help = "bit budgets to compare at",
     .def = "8",
     .min = 1,
     .max = 1000,
     .offset = offsetof(struct fit_opts, budgets)},
    {.name = "from-k",
     .type = CLI_INT,
     .arg = "K",
     .help = "smallest width of the base curve and the power law",
     .def = "4",
     .min = 1,
     .max = 16,
     .offset = offsetof(struct fit_opts, from_k)},
    CLI_OPT_JSON(offsetof(struct fit_opts, is_json)),
};

/* Everything a group is told with. */
struct fitted {
    const struct group *group;
    enum metric_id metric;
    double *gap;
    struct interval *gap_range;
    struct offset_fit offsets;
    struct interval *offset_range;
    struct law_fit law;
    int n_budgets;
    struct best *best;
    struct interval *best_range;
    double *probability;
};

static void fit_budgets(struct fitted *t, const struct bootstrap *b, int n, struct arena *a)
{
    const struct group *g = t->group;
    double *budgets = arena_array(a, (size_t)n, sizeof(*budgets));
    double *p = arena_array(a, (size_t)g->n_curves + 1, sizeof(*p));
    t->best = arena_array(a, (size_t)n, sizeof(*t->best));
    t->best_range = arena_array(a, (size_t)n, sizeof(*t->best_range));
    t->probability = arena_array(a, (size_t)n, sizeof(*t->probability));
    t->n_budgets = budgets_of(g, n, budgets) ? n : 0;
    for (int i = 0; i < t->n_budgets; i++) {
        struct best best = best_at(g, budgets[i], metric_info_of(t->metric)->is_larger_better);
        bootstrap_best(b, t->metric, g, budgets[i], p);
        t->best[i] = best;
        for (int c = 0; c < g->n_curves; c++)
            if (g->curves[c].k == best.k) {
                struct linear at = linear_value(&g->curves[c], budgets[i], a);
                t->best_range[i] = bootstrap_interval(b, t->metric, &at);
                t->probability[i] = p[c];
            }
    }
}

static struct fitted fit_group(const struct group *g, const struct bootstrap *b,
                               const struct fit_opts *o, enum metric_id m, struct arena *a)
{
    size_t n = (size_t)g->n_curves + 1;
    struct fitted t = {.group = g,
                       .metric = m,
                       .gap = arena_array(a, n, sizeof(*t.gap)),
                       .gap_range = arena_array(a, n, sizeof(*t.gap_range)),
                       .offsets = offset_fit(g, (int)o->from_k, a),
                       .offset_range = arena_array(a, n, sizeof(*t.offset_range)),
                       .law = law_fit(g, (int)o->from_k, a)};
    const struct curve *base = group_curve(g, 16);
    for (int i = 0; i < g->n_curves; i++) {
        bool is_other = base != NULL && base != &g->curves[i];
        struct linear gap = {0};
        if (is_other)
            gap = linear_gap(&g->curves[i], base, a);
        t.gap[i] = is_other ? curve_gap(&g->curves[i], base) : NAN;
        t.gap_range[i] = bootstrap_interval(b, m, &gap);
    }
    for (int i = 0; i < t.offsets.n_curves; i++)
        t.offset_range[i] = bootstrap_interval(b, m, &t.offsets.as_linear[i]);
    fit_budgets(&t, b, (int)o->budgets, a);
    return t;
}

/* ---- text ---- */

static void print_curves(const struct fitted *t, struct arena *a)
{
    const struct group *g = t->group;
    bool is_larger_better = metric_info_of(t->metric)->is_larger_better;
    printf("  %-4s %-6s %-26s %s\n", "k", "sizes", "bits", "mean gap to 16 bit at equal bits");
    for (int i = 0; i < g->n_curves; i++) {
        const struct curve *c = &g->curves[i];
        char from[32];
        char to[32];
        printf("  %-4d %-6d %10sbit … %8sbit ", c->k, c->n,
               fmt_si(exp2(c->points[0].log2_bits), from),
               fmt_si(exp2(c->points[c->n - 1].log2_bits), to));
        if (isnan(t->gap[i]))
            printf("%s\n", c->k == 16 ? "(baseline)" : "no common budget");
        else
            printf("%s %s (%s)\n", tell_value(t->gap[i], t->metric, true, a),
                   tell_interval(t->gap_range[i], t->metric, true, a),
                   (t->gap[i] > 0) == is_larger_better ? "better" : "worse");
    }
}

static void print_laws(const struct fitted *t, int from_k, struct arena *a)
{
    const struct offset_fit *o = &t->offsets;
    const struct law_fit *law = &t->law;
    if (o->n_curves > 0) {
        printf("  base curve plus an offset a width, k >= %d: residual %s, slopes within %.1f %%\n",
               from_k, tell_value(o->residual, t->metric, false, a), 100 * o->slope_spread);
        for (int i = 0; i < o->n_curves - 1; i++)
            printf("    k=%-3d %s %s\n", o->k[i], tell_value(o->offset[i], t->metric, true, a),
                   tell_interval(t->offset_range[i], t->metric, true, a));
    }
    if (!law->is_fitted)
        return;
    printf("  power law %.4g N^%.4f k^%.4f: residual %s", exp(law->c), law->a, law->b,
           tell_value(law->residual, t->metric, false, a));
    if (law->n_held_out > 0)
        printf("; sizes left out: it errs by %s, base curve plus offset by %s (%d points)",
               tell_value(law->law_error, t->metric, false, a),
               tell_value(law->curve_error, t->metric, false, a), law->n_held_out);
    putchar('\n');
}

static void print_best(const struct fitted *t, struct arena *a)
{
    printf("  best bit width by budget:\n");
    for (int i = 0; i < t->n_budgets; i++) {
        const struct best *best = &t->best[i];
        char bits[32];
        printf("    %8sbit  k=%-3d %s %s", fmt_si(exp2(best->log2_bits), bits), best->k,
               tell_value(best->value, t->metric, false, a),
               tell_interval(t->best_range[i], t->metric, false, a));
        if (!isnan(t->probability[i]))
            printf("  best in %.0f %% of resamples", 100 * t->probability[i]);
        printf("  (of %d curves)\n", best->n_covering);
    }
}

static void print_group(const struct fitted *t, int from_k, struct arena *a)
{
    const struct group *g = t->group;
    printf("%s: %s, %s\n", g->family, setting_label(&g->setting, a), g->setting.compute);
    print_curves(t, a);
    print_laws(t, from_k, a);
    if (t->n_budgets > 0)
        print_best(t, a);
    else
        printf("  no budget that two curves cover: more sizes are needed\n");
    putchar('\n');
}

/* ---- JSON ---- */

static json_t *curve_json(const struct fitted *t, int i)
{
    const struct curve *c = &t->group->curves[i];
    json_t *points = json_array();
    for (int p = 0; p < c->n; p++)
        json_array_append_new(points,
                              json_pack("{s:s,s:f,s:f,s:f}", "size", c->points[p].size, "bits",
                                        exp2(c->points[p].log2_bits), "n_params",
                                        c->points[p].n_params, "value", c->points[p].value));
    return json_pack("{s:i,s:o,s:o,s:o}", "k", c->k, "points", points, "gap_to_16bit",
                     json_number_or_null(t->gap[i]), "gap_interval",
                     tell_interval_json(t->gap_range[i]));
}

static json_t *offsets_json(const struct fitted *t)
{
    const struct offset_fit *o = &t->offsets;
    if (o->n_curves == 0)
        return json_null();
    json_t *list = json_array();
    for (int i = 0; i < o->n_curves; i++)
        json_array_append_new(list,
                              json_pack("{s:i,s:f,s:o,s:o}", "k", o->k[i], "offset", o->offset[i],
                                        "interval", tell_interval_json(t->offset_range[i]),
                                        "slope_off", json_number_or_null(o->slope_off[i])));
    json_t *base = json_array();
    for (int i = 0; i < o->n_budgets; i++)
        json_array_append_new(base, json_pack("[f,f]", exp2(o->log2_bits[i]), o->base[i]));
    return json_pack("{s:o,s:f,s:o,s:o,s:o}", "offsets", list, "residual", o->residual, "slope",
                     json_number_or_null(o->slope), "slope_spread",
                     json_number_or_null(o->slope_spread), "base", base);
}

static json_t *law_json(const struct law_fit *law)
{
    if (!law->is_fitted)
        return json_null();
    return json_pack("{s:f,s:f,s:f,s:f,s:i,s:o,s:o}", "c", law->c, "a", law->a, "b", law->b,
                     "residual", law->residual, "held_out", law->n_held_out, "law_error",
                     json_number_or_null(law->law_error), "curve_error",
                     json_number_or_null(law->curve_error));
}

static json_t *group_json(const struct fitted *t, struct arena *a)
{
    const struct group *g = t->group;
    json_t *curves = json_array();
    for (int i = 0; i < g->n_curves; i++)
        json_array_append_new(curves, curve_json(t, i));
    json_t *bests = json_array();
    for (int i = 0; i < t->n_budgets; i++) {
        const struct best *b = &t->best[i];
        json_array_append_new(
            bests, json_pack("{s:f,s:i,s:o,s:i,s:o,s:o}", "bits", exp2(b->log2_bits), "k", b->k,
                             "value", json_number_or_null(b->value), "curves", b->n_covering,
                             "interval", tell_interval_json(t->best_range[i]), "probability",
                             json_number_or_null(t->probability[i])));
    }
    json_t *doc = json_pack("{s:s,s:s,s:s,s:s,s:s,s:s,s:f,s:s,s:i,s:s}", "sweep", g->sweep,
                            "family", g->family, "compute", g->setting.compute, "dtype",
                            g->setting.dtype, "block", block_label(g->setting.block, a), "center",
                            g->setting.center, "outlier_pct", g->setting.outlier_pct,
                            "outlier_rule", g->setting.outlier_rule, "subnormal_shift",
                            g->setting.subnormal_shift, "setting", setting_label(&g->setting, a));
    json_object_set_new(doc, "curves", curves);
    json_object_set_new(doc, "base_curve", offsets_json(t));
    json_object_set_new(doc, "power_law", law_json(&t->law));
    json_object_set_new(doc, "best", bests);
    return doc;
}

/* ---- the command ---- */

struct answer {
    const struct source *src;
    const struct fit_opts *opts;
    const struct bootstrap *bootstrap;
    const struct group *groups;
    int n, n_dropped;
    struct notes notes;
};

static void print_json(const struct answer *w)
{
    json_t *list = json_array();
    for (int i = 0; i < w->n; i++) {
        struct arena a = {0};
        struct fitted t = fit_group(&w->groups[i], w->bootstrap, w->opts, w->src->metric, &a);
        json_array_append_new(list, group_json(&t, &a));
        arena_release(&a);
    }
    json_t *doc = json_pack("{s:s,s:s,s:i,s:i,s:I,s:o,s:o}", "metric", w->opts->source.metric,
                            "bits", w->opts->source.bits, "dropped", w->n_dropped, "resamples",
                            w->bootstrap->n_resamples, "seed", (json_int_t)w->opts->bootstrap.seed,
                            "notes", tell_notes_json(&w->notes), "groups", list);
    cli_print_json(doc, true);
    json_decref(doc);
}

static void print_text(const struct answer *w)
{
    const struct metric_info *info = metric_info_of(w->src->metric);
    printf("%s (%s is better) over log2 of %s; linear interpolation, never extrapolated",
           info->title, info->is_larger_better ? "larger" : "smaller", bits_title(w->src->bits));
    if (w->bootstrap->n_resamples > 0)
        printf("; [95 %% intervals] from %d resamples", w->bootstrap->n_resamples);
    printf("\n\n");
    for (int i = 0; i < w->n; i++) {
        struct arena a = {0};
        struct fitted t = fit_group(&w->groups[i], w->bootstrap, w->opts, w->src->metric, &a);
        print_group(&t, (int)w->opts->from_k, &a);
        arena_release(&a);
    }
    for (int i = 0; i < w->notes.n; i++)
        printf("%s\n", w->notes.v[i]);
}

static enum err_code fit(struct source *src, const void *arg, struct err *e)
{
    const struct fit_opts *o = arg;
    struct items items;
    struct bootstrap b;
    TRY(bootstrap_load(src->store, &src->frame, &o->bootstrap, src->arena, &items, &b, e));
    struct answer w = {.src = src, .opts = o, .bootstrap = &b};
    w.groups = groups_build(&src->frame, src->metric, src->bits, src->arena, &w.n, &w.n_dropped);
    w.notes =
        tell_notes(&src->frame, src->metric, w.groups, w.n, w.n_dropped, &items, &b, src->arena);
    (o->is_json ? print_json : print_text)(&w);
    bootstrap_release(&b);
    return ERR_OK;
}

static int run(const void *opts, int n_args, char **args)
{
    (void)n_args;
    (void)args;
    const struct fit_opts *o = opts;
    struct err e;
    return source_run(&o->source, fit, o, &e) == ERR_OK ? 0 : cli_fail(&e);
}

const struct cli_cmd cmd_fit = {
    .name = "fit",
    .args = "",
    .summary = "Fit scaling curves and name the best bit width per budget.",
    .doc = "One curve per bit width k: the metric, interpolated linearly over log2(total bits) "
           "between model\n"
           "sizes of a family. At each budget the curves that cover it are compared. Intervals "
           "come from resampling the\n"
           "items of every evaluation, the same draw for all configurations: they tell what other "
           "items would have\n"
           "changed, not what other checkpoints would have.\n\n"
           "  isobit-analysis fit --db demo.db --metric zero-shot --family pythia\n"
           "  isobit-analysis fit --db demo.db --resamples 0        (at once, without intervals)",
    .opts = options,
    .n_opts = ARRAY_LEN(options),
    .opt_size = sizeof(struct fit_opts),
    .run = run,
};
