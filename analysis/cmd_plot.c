/* `isobit-analysis plot`: the sweep's pictures as SVG, PNG and PDF with their data and scripts. */
#include <stdio.h>

#include "analysis/bands.h"
#include "analysis/cmd.h"
#include "analysis/gnuplot.h"
#include "analysis/source.h"

struct plot_opts {
    struct source_opts source;
    struct bootstrap_opts bootstrap;
    const char *out;
};

static const struct cli_opt options[] = {
    SOURCE_OPTIONS(struct plot_opts, "nll"),
    BOOTSTRAP_OPTIONS(struct plot_opts),
    {.name = "out",
     .letter = 'o',
     .type = CLI_STRING,
     .arg = "DIR",
     .help = "folder for the pictures",
     .def = "plots",
     .offset = offsetof(struct plot_opts, out)},
};

static enum err_code plot(struct source *src, const void *arg, struct err *e)
{
    const struct plot_opts *o = arg;
    struct bootstrap drawn = {0};
    struct items items;
    TRY(bands_bootstrap(src, &o->bootstrap, &items, &drawn, e));
    struct figure_intervals bands = bands_paired(&drawn, &src->frame, src->arena);
    bootstrap_release(&drawn);
    int n = 0;
    struct figure *figures = figures_build(&src->frame, src->bits, &bands, src->arena, &n);
    if (n == 0)
        return err_set(e, ERR_NOTFOUND, "%s has no family with quantized results to draw yet",
                       o->source.db);
    for (int i = 0; i < n; i++) {
        TRY(gnuplot_draw(&figures[i], o->out, e));
        printf("%s/%s.svg\n", o->out, figures[i].name);
    }
    return ERR_OK;
}

static int run(const void *opts, int n_args, char **args)
{
    (void)n_args;
    (void)args;
    const struct plot_opts *o = opts;
    struct err e;
    return source_run(&o->source, plot, o, &e) == ERR_OK ? 0 : cli_fail(&e);
}

const struct cli_cmd cmd_plot = {
    .name = "plot",
    .args = "",
    .summary = "Draw the paper's figures for a sweep (SVG, PNG, PDF).",
    .doc = "Scaling curves, every bit width, block sizes, data types, outliers, exponent bits, and "
           "perplexity\nagainst accuracy, as far as the sweep has data for them. Bands are 95 % "
           "intervals of the paired\nbootstrap. NAME.dat and NAME.gp are kept beside each picture: "
           "edit the script and run gnuplot\nagain to change it by hand.\n\n"
           "  isobit-analysis plot --db demo.db --out plots",
    .opts = options,
    .n_opts = ARRAY_LEN(options),
    .opt_size = sizeof(struct plot_opts),
    .run = run,
};
