/* `isobit-analysis plot`: the sweep's pictures as SVG, PNG and PDF with their data and scripts. */
#include <stdio.h>

#include "analysis/cmd.h"
#include "analysis/gnuplot.h"
#include "analysis/source.h"

struct plot_opts {
    struct source_opts source;
    const char *out;
};

static const struct cli_opt options[] = {
    SOURCE_OPTIONS(struct plot_opts, "nll"),
    {.name = "out",
     .letter = 'o',
     .type = CLI_STRING,
     .arg = "DIR",
     .help = "folder for the pictures",
     .def = "plots",
     .offset = offsetof(struct plot_opts, out)},
};

static int run(const void *opts, int n_args, char **args)
{
    (void)n_args;
    (void)args;
    const struct plot_opts *o = opts;
    struct arena a = {0};
    struct store *s = NULL;
    struct frame f = {0};
    struct err e;
    enum err_code rc = source_load(&o->source, &a, &s, &f, &e);
    int n = 0;
    struct figure *figures = NULL;
    if (rc == ERR_OK) {
        figures = figures_build(&f, bits_of_option(o->source.bits), &a, &n);
        if (n == 0)
            rc = err_set(&e, ERR_NOTFOUND, "%s has no family with quantized results to draw yet",
                         o->source.db);
    }
    for (int i = 0; rc == ERR_OK && i < n; i++) {
        rc = gnuplot_draw(&figures[i], o->out, &e);
        if (rc == ERR_OK)
            printf("%s/%s.svg\n", o->out, figures[i].name);
    }
    store_close(s);
    arena_release(&a);
    return rc == ERR_OK ? 0 : cli_fail(&e);
}

const struct cli_cmd cmd_plot = {
    .name = "plot",
    .args = "",
    .summary = "Draw scaling curves, block sizes and data types (SVG, PNG, PDF).",
    .doc = "Writes NAME.svg, NAME.png and NAME.pdf and keeps NAME.dat and NAME.gp beside them: "
           "edit the script and\n"
           "run gnuplot again to change a picture by hand.\n\n"
           "  isobit-analysis plot --db demo.db --out plots",
    .opts = options,
    .n_opts = ARRAY_LEN(options),
    .opt_size = sizeof(struct plot_opts),
    .run = run,
};
