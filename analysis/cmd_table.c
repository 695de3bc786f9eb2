/* `isobit-analysis table`: one metric, models by rows, bit widths by columns. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "analysis/cmd.h"
#include "analysis/pivot.h"
#include "analysis/source.h"
#include "base/json.h"

struct table_opts {
    struct source_opts source;
    const char *format;
};

static const struct cli_opt options[] = {
    SOURCE_OPTIONS(struct table_opts, "perplexity"),
    {.name = "format",
     .type = CLI_CHOICE,
     .arg = "FORMAT",
     .help = "text, csv or json",
     .def = "text",
     .choices = "text|csv|json",
     .offset = offsetof(struct table_opts, format)},
};

static void print_value(double v, const char *format, int width)
{
    char text[40];
    if (isnan(v))
        snprintf(text, sizeof(text), "-");
    else
        snprintf(text, sizeof(text), format,
                 v); // NOLINT(clang-diagnostic-format-nonliteral): from METRIC_LIST
    printf("%*s", width, text);
}

static void print_text(const struct pivot *p, const char *format, struct arena *a)
{
    int width = 0;
    for (int i = 0; i < p->n_rows; i++) {
        const int n = (int)strlen(setting_label(&p->rows[i].setting, a));
        width = n > width ? n : width;
    }
    printf("%-12s %-6s %9s  %-*s", "family", "size", "params", width, "setting");
    for (int c = 0; c < p->n_k; c++) {
        char k[16];
        snprintf(k, sizeof(k), "k=%d", p->k[c]);
        printf("%10s", k);
    }
    putchar('\n');
    for (int i = 0; i < p->n_rows; i++) {
        const struct pivot_row *r = &p->rows[i];
        char params[32];
        printf("%-12s %-6s %9s  %-*s", r->family, r->size, fmt_si(r->n_params, params), width,
               setting_label(&r->setting, a));
        for (int c = 0; c < p->n_k; c++)
            print_value(r->value[c], format, 10);
        putchar('\n');
    }
}

static void print_csv(const struct pivot *p, struct arena *a)
{
    printf("sweep,family,size,n_params,compute,setting");
    for (int c = 0; c < p->n_k; c++)
        printf(",k%d", p->k[c]);
    putchar('\n');
    for (int i = 0; i < p->n_rows; i++) {
        const struct pivot_row *r = &p->rows[i];
        printf("%s,%s,%s,%.0f,%s,\"%s\"", r->sweep, r->family, r->size, r->n_params,
               r->setting.compute, setting_label(&r->setting, a));
        for (int c = 0; c < p->n_k; c++)
            if (isnan(r->value[c]))
                putchar(',');
            else
                printf(",%.9g", r->value[c]);
        putchar('\n');
    }
}

static void print_json(const struct pivot *p, const char *metric, struct arena *a)
{
    json_t *rows = json_array();
    for (int i = 0; i < p->n_rows; i++) {
        const struct pivot_row *r = &p->rows[i];
        json_t *values = json_object();
        for (int c = 0; c < p->n_k; c++)
            json_object_set_new(values, arena_printf(a, "%d", p->k[c]),
                                json_number_or_null(r->value[c]));
        json_array_append_new(rows, json_pack("{s:s,s:s,s:s,s:f,s:s,s:s,s:o}", "sweep", r->sweep,
                                              "family", r->family, "size", r->size, "n_params",
                                              r->n_params, "compute", r->setting.compute, "setting",
                                              setting_label(&r->setting, a), "by_k", values));
    }
    json_t *doc = json_pack("{s:s,s:o}", "metric", metric, "rows", rows);
    cli_print_json(doc, true);
    json_decref(doc);
}

static enum err_code print_table(struct source *src, const void *arg, struct err *e)
{
    (void)e;
    const struct table_opts *o = arg;
    struct pivot p = pivot_build(&src->frame, src->metric, src->arena);
    if (strcmp(o->format, "csv") == 0)
        print_csv(&p, src->arena);
    else if (strcmp(o->format, "json") == 0)
        print_json(&p, o->source.metric, src->arena);
    else
        print_text(&p, metric_info_of(src->metric)->format, src->arena);
    return ERR_OK;
}

static int run(const void *opts, int n_args, char **args)
{
    (void)n_args;
    (void)args;
    const struct table_opts *o = opts;
    struct err e;
    return source_run(&o->source, print_table, o, &e) == ERR_OK ? 0 : cli_fail(&e);
}

const struct cli_cmd cmd_table = {
    .name = "table",
    .args = "",
    .summary = "Print one metric: models and settings by rows, bit widths by columns.",
    .doc = "The 16-bit value of a model stands in every one of its rows. '-' is a cell that was "
           "not measured.\n\n"
           "  isobit-analysis table --db demo.db --metric perplexity --format csv > perplexity.csv",
    .opts = options,
    .n_opts = ARRAY_LEN(options),
    .opt_size = sizeof(struct table_opts),
    .run = run,
};
