/* `isobit-analysis fit`: the curves themselves, offsets to 16 bit, and the best bit width at each budget. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "analysis/cmd.h"
#include "analysis/fit.h"
#include "analysis/source.h"
#include "base/json.h"

struct fit_opts {
    struct source_opts source;
    int64_t budgets;
    bool is_json;
};

static const struct cli_opt options[] = {
    SOURCE_OPTIONS(struct fit_opts, "nll"),
    {.name = "budgets",
     .type = CLI_INT,
     .arg = "N",
     .help = "bit budgets to compare at",
     .def = "8",
     .min = 1,
     .max = 1000,
     .offset = offsetof(struct fit_opts, budgets)},
    {.name = "json",
     .type = CLI_FLAG,
     .help = "one JSON object",
     .offset = offsetof(struct fit_opts, is_json)},
};

static void print_curves(const struct group *g, const struct metric_info *info)
{
    const struct curve *base = group_curve(g, 16);
    printf("  %-5s %-6s %-26s %s\n", "k", "sizes", "bits", "mean gap to 16 bit at equal bits");
    for (int i = 0; i < g->n_curves; i++) {
        const struct curve *c = &g->curves[i];
        if (c->n == 0)
            continue;
        char from[32];
        char to[32];
        double gap = base != NULL && c->k != 16 ? curve_gap(c, base) : NAN;
        printf("  %-5d %-6d %10sbit … %8sbit ", c->k, c->n,
               fmt_si(exp2(c->points[0].log2_bits), from),
               fmt_si(exp2(c->points[c->n - 1].log2_bits), to));
        if (isnan(gap))
            printf("%s\n", c->k == 16 ? "(baseline)" : "no common budget");
        else
            printf("%+.4f (%s)\n", gap, (gap > 0) == info->is_larger_better ? "better" : "worse");
    }
}

static void print_best(const struct group *g, const struct metric_info *info, const double *budgets,
                       int n)
{
    printf("  best bit width by budget:\n");
    for (int i = 0; i < n; i++) {
        struct best best = best_at(g, budgets[i], info->is_larger_better);
        char bits[32];
        printf("    %8sbit  k=%-3d ", fmt_si(exp2(best.log2_bits), bits), best.k);
        printf(info->format,
               best.value); // NOLINT(clang-diagnostic-format-nonliteral): from METRIC_LIST
        printf("  (of %d curves)\n", best.n_covering);
    }
}

static void print_group(const struct group *g, const struct fit_opts *o, struct arena *a)
{
    const struct metric_info *info = metric_info_of(metric_of_option(o->source.metric));
    printf("%s: %s, %s\n", g->family, setting_label(&g->setting, a), g->setting.compute);
    print_curves(g, info);
    double *budgets = arena_array(a, (size_t)o->budgets, sizeof(double));
    if (budgets_of(g, (int)o->budgets, budgets))
        print_best(g, info, budgets, (int)o->budgets);
    else
        printf("  no budget that two curves cover: more sizes are needed\n");
    putchar('\n');
}

static json_t *curve_json(const struct curve *c)
{
    json_t *points = json_array();
    for (int i = 0; i < c->n; i++)
        json_array_append_new(points,
                              json_pack("{s:s,s:f,s:f,s:f}", "size", c->points[i].size, "bits",
                                        exp2(c->points[i].log2_bits), "n_params",
                                        c->points[i].n_params, "value", c->points[i].value));
    return json_pack("{s:i,s:o}", "k", c->k, "points", points);
}

static json_t *group_json(const struct group *g, const struct fit_opts *o, struct arena *a)
{
    const struct metric_info *info = metric_info_of(metric_of_option(o->source.metric));
    const struct curve *base = group_curve(g, 16);
    json_t *curves = json_array();
    for (int i = 0; i < g->n_curves; i++) {
        json_t *c = curve_json(&g->curves[i]);
        json_object_set_new(c, "gap_to_16bit",
                            base != NULL ? json_number_or_null(curve_gap(&g->curves[i], base))
                                         : json_null());
        json_array_append_new(curves, c);
    }
    json_t *bests = json_array();
    double *budgets = arena_array(a, (size_t)o->budgets, sizeof(double));
    bool has_budgets = budgets_of(g, (int)o->budgets, budgets);
    for (int i = 0; has_budgets && i < (int)o->budgets; i++) {
        struct best b = best_at(g, budgets[i], info->is_larger_better);
        json_array_append_new(bests, json_pack("{s:f,s:i,s:o,s:i}", "bits", exp2(b.log2_bits), "k",
                                               b.k, "value", json_number_or_null(b.value), "curves",
                                               b.n_covering));
    }
    return json_pack("{s:s,s:s,s:s,s:s,s:s,s:s,s:f,s:s,s:i,s:o,s:o}", "sweep", g->sweep, "family",
                     g->family, "compute", g->setting.compute, "dtype", g->setting.dtype, "block",
                     block_label(g->setting.block, a), "center", g->setting.center, "outlier_pct",
                     g->setting.outlier_pct, "outlier_rule", g->setting.outlier_rule,
                     "subnormal_shift", g->setting.subnormal_shift, "curves", curves, "best",
                     bests);
}

static void print_json(const struct group *groups, int n, int n_dropped, const struct fit_opts *o,
                       struct arena *a)
{
    json_t *list = json_array();
    for (int i = 0; i < n; i++)
        json_array_append_new(list, group_json(&groups[i], o, a));
    json_t *doc = json_pack("{s:s,s:s,s:i,s:o}", "metric", o->source.metric, "bits", o->source.bits,
                            "dropped", n_dropped, "groups", list);
    cli_print_json(doc, true);
    json_decref(doc);
}

static enum err_code fit(struct source *src, const void *arg, struct err *e)
{
    (void)e;
    const struct fit_opts *o = arg;
    const struct metric_info *info = metric_info_of(src->metric);
    int n = 0;
    int n_dropped = 0;
    struct group *groups =
        groups_build(&src->frame, src->metric, src->bits, src->arena, &n, &n_dropped);
    if (o->is_json) {
        print_json(groups, n, n_dropped, o, src->arena);
        return ERR_OK;
    }
    printf("%s (%s is better) over log2 of %s; linear interpolation, never extrapolated\n\n",
           info->title, info->is_larger_better ? "larger" : "smaller", bits_title(src->bits));
    for (int i = 0; i < n; i++)
        print_group(&groups[i], o, src->arena);
    if (n_dropped > 0)
        printf("%d cells without a finite value are left out.\n", n_dropped);
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
           "sizes of a family. At each budget the curves that cover it are compared.\n\n"
           "  isobit-analysis fit --db demo.db --metric zero-shot --family pythia",
    .opts = options,
    .n_opts = ARRAY_LEN(options),
    .opt_size = sizeof(struct fit_opts),
    .run = run,
};
