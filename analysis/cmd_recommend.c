/* `isobit-analysis recommend`: which configuration for a budget of bits. */
#include <math.h>
#include <stdio.h>

#include "analysis/cmd.h"
#include "analysis/recommend.h"
#include "analysis/source.h"
#include "analysis/tell.h"

struct recommend_opts {
    struct source_opts source;
    struct bootstrap_opts bootstrap;
    double budget;
    int64_t memory, choices;
    bool is_json;
};

static const struct cli_opt options[] = {
    SOURCE_OPTIONS_NAMED(struct recommend_opts, "nll", "count"),
    BOOTSTRAP_OPTIONS(struct recommend_opts),
    {.name = "bits",
     .type = CLI_NUMBER,
     .arg = "BITS",
     .help = "total bits of the model, as 4e9",
     .min = 0,
     .max = 1e300,
     .offset = offsetof(struct recommend_opts, budget)},
    {.name = "memory",
     .type = CLI_BYTES,
     .arg = "SIZE",
     .help = "the same as bytes for the weights, as 6GiB",
     .min = 0,
     .max = 1e18,
     .offset = offsetof(struct recommend_opts, memory)},
    {.name = "choices",
     .type = CLI_INT,
     .arg = "N",
     .help = "how many to name",
     .def = "3",
     .min = 1,
     .max = RECOMMEND_MAX,
     .offset = offsetof(struct recommend_opts, choices)},
    CLI_OPT_JSON(offsetof(struct recommend_opts, is_json)),
};

struct answer {
    const struct source *src;
    const struct recommend_opts *opts;
    const struct bootstrap *bootstrap;
    double log2_bits;
    const struct advice *advice;
    int n;
    struct notes notes;
};

/* ---- text ---- */

static void print_step(const struct step *s, const char *name, const struct choice *c,
                       enum metric_id m, struct arena *a)
{
    char bits[32];
    if (s->k == 0)
        return;
    printf("         one bit %s: %s %s", name, tell_value(s->change, m, true, a),
           tell_interval(s->range, m, true, a));
    if (c->size != NULL)
        printf(", %sbit%s", fmt_si(s->bits, bits), s->is_within ? "" : ", beyond the budget");
    putchar('\n');
}

static void print_choice(const struct answer *w, int i, const struct choice *c, struct arena *a)
{
    enum metric_id m = w->src->metric;
    char bits[32];
    char params[32];
    printf("    %d. ", i + 1);
    if (c->size != NULL)
        printf("%s, %s: %sbit, ", c->size, choice_label(c, a), fmt_si(c->bits, bits));
    else
        printf("%s, about %s parameters: ", choice_label(c, a), fmt_si(c->n_params, params));
    printf("%s %s", tell_value(c->value, m, false, a), tell_interval(c->range, m, false, a));
    if (!isnan(c->probability))
        printf(", best in %.0f %% of resamples", 100 * c->probability);
    if (c->is_tied)
        printf(", no clear difference to 1.");
    putchar('\n');
    print_step(&c->less, "less", c, m, a);
    print_step(&c->more, "more", c, m, a);
}

static void print_choices(const struct answer *w, const char *what, const struct choice *v, int n,
                          int n_compared, struct arena *a)
{
    if (n == 0) {
        printf("  %s: none\n", what);
        return;
    }
    printf("  %s (%d compared):\n", what, n_compared);
    for (int i = 0; i < n && i < w->opts->choices; i++)
        print_choice(w, i, &v[i], a);
}

static void print_text(const struct answer *w)
{
    struct arena a = {0};
    const struct metric_info *info = metric_info_of(w->src->metric);
    char bits[32];
    char bytes[32];
    printf("%s (%s is better) for %sbit, %s of weights", info->title,
           info->is_larger_better ? "larger" : "smaller", fmt_si(exp2(w->log2_bits), bits),
           fmt_bytes(exp2(w->log2_bits) / 8, bytes));
    if (w->bootstrap->n_resamples > 0)
        printf("; [95 %% intervals] from %d resamples", w->bootstrap->n_resamples);
    printf("\n\n");
    for (int i = 0; i < w->n; i++) {
        const struct advice *v = &w->advice[i];
        printf("%s (sweep %s, %s)\n", v->family, v->sweep, v->compute);
        print_choices(w, "at exactly this many bits, along the curves", v->curves, v->n_curves,
                      v->n_curves_compared, &a);
        print_choices(w, "measured checkpoints that fit", v->models, v->n_models,
                      v->n_models_compared, &a);
        putchar('\n');
    }
    for (int i = 0; i < w->notes.n; i++)
        printf("%s\n", w->notes.v[i]);
    arena_release(&a);
}

/* ---- JSON ---- */

static json_t *step_json(const struct step *s)
{
    if (s->k == 0)
        return json_null();
    return json_pack("{s:i,s:f,s:o,s:o,s:b}", "k", s->k, "bits", s->bits, "change",
                     json_number_or_null(s->change), "interval", tell_interval_json(s->range),
                     "fits", s->is_within);
}

static json_t *choice_json(const struct choice *c, struct arena *a)
{
    json_t *doc =
        json_pack("{s:i,s:s,s:s?,s:f,s:f,s:o,s:o,s:o}", "k", c->k, "configuration",
                  choice_label(c, a), "size", c->size, "n_params", c->n_params, "bits", c->bits,
                  "value", json_number_or_null(c->value), "interval", tell_interval_json(c->range),
                  "probability", json_number_or_null(c->probability));
    json_object_set_new(doc, "tied", json_boolean(c->is_tied));
    json_object_set_new(doc, "behind_first", tell_interval_json(c->behind));
    json_object_set_new(doc, "one_bit_less", step_json(&c->less));
    json_object_set_new(doc, "one_bit_more", step_json(&c->more));
    return doc;
}

static json_t *choices_json(const struct choice *v, int n, int64_t n_asked, struct arena *a)
{
    json_t *list = json_array();
    for (int i = 0; i < n && i < n_asked; i++)
        json_array_append_new(list, choice_json(&v[i], a));
    return list;
}

static void print_json(const struct answer *w)
{
    struct arena a = {0};
    json_t *families = json_array();
    for (int i = 0; i < w->n; i++) {
        const struct advice *v = &w->advice[i];
        json_array_append_new(
            families,
            json_pack("{s:s,s:s,s:s,s:i,s:o,s:i,s:o}", "sweep", v->sweep, "family", v->family,
                      "compute", v->compute, "curves_compared", v->n_curves_compared, "curves",
                      choices_json(v->curves, v->n_curves, w->opts->choices, &a), "models_compared",
                      v->n_models_compared, "models",
                      choices_json(v->models, v->n_models, w->opts->choices, &a)));
    }
    json_t *doc =
        json_pack("{s:f,s:s,s:s,s:i,s:I,s:o,s:o}", "bits", nearbyint(exp2(w->log2_bits)), "metric",
                  w->opts->source.metric, "count", w->opts->source.bits, "resamples",
                  w->bootstrap->n_resamples, "seed", (json_int_t)w->opts->bootstrap.seed, "notes",
                  tell_notes_json(&w->notes), "families", families);
    cli_print_json(doc, true);
    json_decref(doc);
    arena_release(&a);
}

/* ---- the command ---- */

/* A budget that nothing fits is an answer too, but one to be told apart from a typing error. */
static enum err_code check_budget(const struct answer *w, struct err *e)
{
    for (int i = 0; i < w->n; i++)
        if (w->advice[i].n_curves + w->advice[i].n_models > 0)
            return ERR_OK;
    double smallest = INFINITY;
    for (int i = 0; i < w->src->frame.n; i++)
        smallest = fmin(smallest, w->src->frame.rows[i].total_bits[w->src->bits]);
    char asked[32];
    char least[32];
    return err_set(e, ERR_NOTFOUND,
                   "nothing in %s fits %sbit: the smallest configuration has %sbit",
                   w->src->opts->db, fmt_si(exp2(w->log2_bits), asked), fmt_si(smallest, least));
}

static enum err_code answer(struct source *src, const void *arg, struct err *e)
{
    const struct recommend_opts *o = arg;
    struct items items;
    struct bootstrap b;
    TRY(bootstrap_load(src->store, &src->frame, &o->bootstrap, src->arena, &items, &b, e));
    struct answer w = {.src = src,
                       .opts = o,
                       .bootstrap = &b,
                       .log2_bits = log2(o->budget > 0 ? o->budget : 8.0 * (double)o->memory)};
    int n_groups = 0;
    int n_dropped = 0;
    const struct group *groups =
        groups_build(&src->frame, src->metric, src->bits, src->arena, &n_groups, &n_dropped);
    w.advice = recommend(&b, src->metric, groups, n_groups, w.log2_bits, src->arena, &w.n);
    w.notes =
        tell_notes(&src->frame, src->metric, groups, n_groups, n_dropped, &items, &b, src->arena);
    enum err_code rc = check_budget(&w, e);
    if (rc == ERR_OK)
        (o->is_json ? print_json : print_text)(&w);
    bootstrap_release(&b);
    return rc;
}

static int run(const void *opts, int n_args, char **args)
{
    (void)n_args;
    (void)args;
    const struct recommend_opts *o = opts;
    struct err e;
    if ((o->budget > 0) == (o->memory > 0)) {
        err_set(&e, ERR_USAGE,
                "give the budget as --bits 4e9 or as --memory 6GiB; see 'isobit-analysis recommend "
                "--help'");
        return cli_fail(&e);
    }
    return source_run(&o->source, answer, o, &e) == ERR_OK ? 0 : cli_fail(&e);
}

const struct cli_cmd cmd_recommend = {
    .name = "recommend",
    .args = "",
    .summary = "Name the best configurations for a budget of bits.",
    .doc = "Two answers per family: at exactly this many bits along the scaling curves, where bit "
           "widths are compared\n"
           "at equal bits between the measured sizes; and the measured checkpoints that fit. Each "
           "with its interval, how\n"
           "often it is best over the resamples, and what one bit per weight more or less would "
           "change.\n\n"
           "  isobit-analysis recommend --db demo.db --bits 2e7\n"
           "  isobit-analysis recommend --db demo.db --memory 6GiB --family opt --metric zero-shot",
    .opts = options,
    .n_opts = ARRAY_LEN(options),
    .opt_size = sizeof(struct recommend_opts),
    .run = run,
};
