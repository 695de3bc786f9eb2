/* `isobit-analysis claims`: every claim of the paper, tested on a sweep. */
#include <math.h>
#include <stdio.h>

#include "analysis/bootstrap.h"
#include "analysis/claims.h"
#include "analysis/cmd.h"
#include "analysis/source.h"

struct claims_opts {
    struct source_opts source;
    struct bootstrap_opts bootstrap;
    bool has_parts, is_json;
};

static const struct cli_opt options[] = {
    SOURCE_OPT_DB(offsetof(struct claims_opts, source.db)),
    SOURCE_OPT_SWEEP(offsetof(struct claims_opts, source.sweep)),
    {.name = "compute",
     .type = CLI_STRING,
     .arg = "PRECISION",
     .help = "fp32, fp16 or bf16; default: the one with the most results",
     .offset = offsetof(struct claims_opts, source.compute)},
    BOOTSTRAP_OPTIONS(struct claims_opts),
    {.name = "parts",
     .type = CLI_FLAG,
     .help = "every statistic of every claim, by metric and count of bits",
     .offset = offsetof(struct claims_opts, has_parts)},
    CLI_OPT_JSON(offsetof(struct claims_opts, is_json)),
};

struct answer {
    const struct claims_opts *opts;
    bool is_contradicted;
};

/* "0.971 [0.93, 0.99]"; an interval that is one number says nothing more. */
static void print_statistic(const struct claim_part *p, struct buf *b)
{
    buf_printf(b, "%.3g", p->value);
    if (!isnan(p->low) && p->low != p->high)
        buf_printf(b, " [%.3g, %.3g]", p->low, p->high);
    if (p->needs[0] != '\0')
        buf_printf(b, " %s", p->needs);
}

static void print_parts(const struct claim *c)
{
    for (int i = 0; i < c->n_variants; i++) {
        const struct claim_variant *v = &c->variants[i];
        printf("     %s, %s bits: %s, %d rows\n", metric_info_of(v->metric)->option,
               v->bits == BITS_FULL ? "full" : "nominal", verdict_label(v->verdict), v->n_rows);
        for (int p = 0; p < v->n_parts; p++) {
            struct buf b = {0};
            if (isnan(v->parts[p].value))
                continue;
            print_statistic(&v->parts[p], &b);
            printf("       %-44s %-34s %s\n", v->parts[p].label, b.data,
                   v->parts[p].needs[0] != '\0' ? verdict_label(v->parts[p].verdict) : "");
            buf_release(&b);
        }
    }
}

static void print_claim(const struct claim *c, bool has_parts)
{
    const struct claim_part *p = claim_shown_part(c);
    const struct claim_variant *shown = claim_shown(c);
    struct buf b = {0};
    if (p != NULL)
        print_statistic(p, &b);
    printf("%-4s %-13s %-34s %5d  %s\n", c->id, verdict_label(c->verdict),
           b.data != NULL ? b.data : "-", shown != NULL ? shown->n_rows : 0, c->sentence);
    if (p != NULL && p->label[0] != '\0')
        printf("%19s%s%s%s\n", "", p->label, c->unit[0] != '\0' ? ", " : "", c->unit);
    if (c->note != NULL)
        printf("%19s%s\n", "", c->note);
    if (has_parts)
        print_parts(c);
    buf_release(&b);
}

static void print_claims(const struct claims *c, bool has_parts)
{
    printf("%-4s %-13s %-34s %5s  %s\n", "", "verdict", "statistic [95 % interval] threshold",
           "rows", "claim");
    for (int i = 0; i < c->n; i++)
        print_claim(&c->v[i], has_parts);
    putchar('\n');
    for (int v = 0; v < VERDICT_COUNT; v++)
        printf("%s%d %s", v > 0 ? ", " : "", c->n_of[v], verdict_label((enum verdict)v));
    printf(". %s\n", c->remark);
}

static enum err_code answer(struct source *src, const void *arg, struct err *e)
{
    struct answer *out = *(struct answer *const *)arg;
    const struct claims_opts *o = out->opts;
    struct items items = {0};
    struct bootstrap b = {0};
    struct claims c;
    if (o->bootstrap.n_resamples > 0) {
        TRY(items_read(src->store, &src->frame, src->arena, &items, e));
        TRY(bootstrap_run(&src->frame, &items, &o->bootstrap, src->arena, &b, e));
    }
    enum err_code rc = claims_test(src, &items, &b, o->bootstrap.n_threads, &c, e);
    bootstrap_release(&b);
    TRY(rc);
    if (o->is_json) {
        json_t *doc = claims_json(&c, &src->frame);
        cli_print_json(doc, true);
        json_decref(doc);
    } else {
        print_claims(&c, o->has_parts);
    }
    out->is_contradicted = c.n_of[VERDICT_CONTRADICTED] > 0;
    return ERR_OK;
}

static int run(const void *opts, int n_args, char **args)
{
    (void)n_args;
    (void)args;
    const struct claims_opts *o = opts;
    struct answer out = {.opts = o};
    const struct answer *arg = &out;
    struct source_opts source = o->source;
    /* Claims look at two metrics and two counts of bits themselves; the cap is the paper's. */
    source.metric = "nll";
    source.bits = "full";
    source.cap = 100;
    struct err e;
    if (source_run(&source, answer, &arg, &e) != ERR_OK)
        return cli_fail(&e);
    return out.is_contradicted ? 1 : 0;
}

const struct cli_cmd cmd_claims = {
    .name = "claims",
    .args = "",
    .summary = "Test every claim of the paper on a sweep.",
    .doc =
        "One row per claim: confirmed or contradicted when the 95 % interval of its statistic lies "
        "on one side\n"
        "of the threshold, inconclusive when it does not, not covered when the sweep lacks the "
        "data. Ends with 1\n"
        "when something is contradicted.\n\n"
        "  isobit-analysis claims --db demo.db --parts",
    .opts = options,
    .n_opts = ARRAY_LEN(options),
    .opt_size = sizeof(struct claims_opts),
    .run = run,
};
