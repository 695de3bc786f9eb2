/* `isobit-analysis report`: one self-contained HTML file. */
#include <stdio.h>

#include "analysis/bands.h"
#include "analysis/cmd.h"
#include "analysis/html.h"
#include "base/io.h"

struct report_opts {
    struct source_opts source;
    struct bootstrap_opts bootstrap;
    const char *out;
};

static const struct cli_opt options[] = {
    SOURCE_OPTIONS(struct report_opts, "nll"),
    BOOTSTRAP_OPTIONS(struct report_opts),
    {.name = "out",
     .letter = 'o',
     .type = CLI_STRING,
     .arg = "DIR",
     .help = "folder for index.html",
     .def = "report",
     .offset = offsetof(struct report_opts, out)},
};

/* What a reader must know before the numbers. */
static int find_remarks(const struct source *src, const struct items *items,
                        const struct bootstrap *b, const char *remarks[4])
{
    const struct frame *f = &src->frame;
    int n = 0;
    if (f->n_capped > 0)
        remarks[n++] = arena_printf(
            src->arena,
            "%d configurations have a perplexity above %g or none that is a finite number; they "
            "count as %g, as in the paper.",
            f->n_capped, f->cap, f->cap);
    if (b->n_resamples == 0)
        remarks[n++] = "No resamples were drawn: there are no error bars.";
    else if (b->n_not_drawn > 0)
        remarks[n++] = arena_printf(
            src->arena,
            "%d configurations have no per-item results: they have no error bars of their own.",
            b->n_not_drawn);
    if (items->n_unreadable > 0)
        remarks[n++] = arena_printf(src->arena, "The samples of %d jobs are left out: %s.",
                                    items->n_unreadable, items->unreadable);
    return n;
}

static enum err_code make_page(struct source *src, const struct items *items,
                               const struct bootstrap *b, struct buf *page, struct err *e)
{
    const char *remarks[4];
    struct claims claims;
    struct figure_intervals plain = bands_plain(b, src->arena);
    struct figure_intervals paired = bands_paired(b, &src->frame, src->arena);
    struct report r = {.source = src, .bootstrap = b, .intervals = &plain, .remarks = remarks};
    const char *sweep = src->opts->sweep != NULL ? src->opts->sweep : src->frame.rows[0].sweep;
    TRY(claims_test(src, items, b, 0, &claims, e));
    r.title = arena_printf(src->arena, "Scaling report: %s", sweep);
    r.claims = &claims;
    r.n_remarks = find_remarks(src, items, b, remarks);
    r.figures = figures_build(&src->frame, src->bits, &paired, src->arena, &r.n_figures);
    return html_report(page, &r, e);
}

static enum err_code write_report(struct source *src, const void *arg, struct err *e)
{
    const struct report_opts *o = arg;
    struct items items;
    struct bootstrap drawn = {0};
    struct buf page = {0};
    enum err_code rc = bands_bootstrap(src, &o->bootstrap, &items, &drawn, e);
    if (rc == ERR_OK)
        rc = make_page(src, &items, &drawn, &page, e);
    if (rc == ERR_OK)
        rc = io_make_dirs(o->out, e);
    if (rc == ERR_OK)
        rc = io_write_file(arena_printf(src->arena, "%s/index.html", o->out), page.data, page.len,
                           e);
    if (rc == ERR_OK)
        printf("%s/index.html\n", o->out);
    buf_release(&page);
    bootstrap_release(&drawn);
    return rc;
}

static int run(const void *opts, int n_args, char **args)
{
    (void)n_args;
    (void)args;
    const struct report_opts *o = opts;
    struct err e;
    return source_run(&o->source, write_report, o, &e) == ERR_OK ? 0 : cli_fail(&e);
}

const struct cli_cmd cmd_report = {
    .name = "report",
    .args = "",
    .summary = "Write one self-contained HTML report: the answer, curves, tables, claims.",
    .doc = "The page needs no network and no other file. It opens with the recommended "
           "configuration per family and\nbudget and how sure that is; then curves, every "
           "result, the paper's claims, coverage, failures and\nprovenance.\n\n"
           "  isobit-analysis report --db demo.db --out demo-report",
    .opts = options,
    .n_opts = ARRAY_LEN(options),
    .opt_size = sizeof(struct report_opts),
    .run = run,
};
