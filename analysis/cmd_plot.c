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

static enum err_code plot(struct source *src, const void *arg, struct err *e)
{
    const struct plot_opts *o = arg;
    int n = 0;
    struct figure *figures = figures_build(&src->frame, src->bits, src->arena, &n);
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
