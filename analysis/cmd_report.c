/* `isobit-analysis report`: one HTML file per sweep, with its pictures beside it. */
#include <stdio.h>
#include <string.h>

#include "analysis/cmd.h"
#include "analysis/gnuplot.h"
#include "analysis/html.h"
#include "analysis/source.h"
#include "base/io.h"

struct report_opts {
    struct source_opts source;
    const char *out;
};

static const struct cli_opt options[] = {
    SOURCE_OPTIONS(struct report_opts, "nll"),
    {.name = "out",
     .letter = 'o',
     .type = CLI_STRING,
     .arg = "DIR",
     .help = "folder for index.html and pictures",
     .def = "report",
     .offset = offsetof(struct report_opts, out)},
};

struct gathering {
    struct report_facts *facts;
    struct arena *arena;
};

static const char *text_of(struct arena *a, const struct store_row *r, int col)
{
    const char *t = store_col_text(r, col);
    return t != NULL ? arena_strdup(a, t) : NULL;
}

static enum err_code add_counts(void *arg, const struct store_row *r, struct err *e)
{
    (void)e;
    struct gathering *g = arg;
    g->facts->n_jobs = store_col_int(r, 0);
    g->facts->n_done = store_col_int(r, 1);
    g->facts->n_buried = store_col_int(r, 2);
    return ERR_OK;
}

static enum err_code add_times(void *arg, const struct store_row *r, struct err *e)
{
    (void)e;
    struct gathering *g = arg;
    g->facts->first_finished = text_of(g->arena, r, 0);
    g->facts->last_finished = text_of(g->arena, r, 1);
    return ERR_OK;
}

static enum err_code add_provenance(void *arg, const struct store_row *r, struct err *e)
{
    (void)e;
    struct gathering *g = arg;
    struct report_facts *f = g->facts;
    if (f->n_provenance < (int)ARRAY_LEN(f->provenance)) {
        f->provenance[f->n_provenance].name = text_of(g->arena, r, 0);
        f->provenance[f->n_provenance++].value = text_of(g->arena, r, 1);
    }
    return ERR_OK;
}

static enum err_code add_failure(void *arg, const struct store_row *r, struct err *e)
{
    (void)e;
    struct gathering *g = arg;
    struct report_facts *f = g->facts;
    if (f->n_failures < (int)ARRAY_LEN(f->failures)) {
        f->failures[f->n_failures].key = text_of(g->arena, r, 0);
        f->failures[f->n_failures++].error = text_of(g->arena, r, 1);
    }
    return ERR_OK;
}

static enum err_code gather_facts(struct store *s, const char *sweep, struct arena *a,
                                  struct report_facts *facts, struct err *e)
{
    static const struct {
        const char *sql;
        store_row_fn fn;
    } queries[] = {
        {"SELECT count(*), sum(state = 'done'), sum(state = 'buried') FROM jobs WHERE ?1 = '' OR "
         "sweep = ?1",
         add_counts},
        {"SELECT min(finished_at), max(finished_at) FROM results WHERE ?1 = '' OR sweep = ?1",
         add_times},
        {"SELECT DISTINCT 'device and program', device || ', ' || program FROM results "
         "WHERE ?1 = '' OR sweep = ?1",
         add_provenance},
        {"SELECT DISTINCT 'weights of ' || family || ' ' || size, 'SHA-256 ' || weights_sha256 "
         "FROM results "
         "WHERE ?1 = '' OR sweep = ?1 ORDER BY family, n_params",
         add_provenance},
        {"SELECT DISTINCT 'data of ' || evaluation, 'SHA-256 ' || data_sha256 FROM results "
         "WHERE ?1 = '' OR sweep = ?1",
         add_provenance},
        {"SELECT key, error FROM jobs WHERE state = 'buried' AND (?1 = '' OR sweep = ?1)",
         add_failure},
    };
    const char *params[] = {sweep != NULL ? sweep : ""};
    struct gathering g = {facts, a};
    for (size_t i = 0; i < ARRAY_LEN(queries); i++)
        TRY(store_query(s, queries[i].sql, params, 1, queries[i].fn, &g, e));
    return ERR_OK;
}

/* The picture's own XML header and DOCTYPE do not belong inside a page. */
static void add_inline_svg(struct buf *out, const struct buf *file)
{
    const char *start = file->data != NULL ? strstr(file->data, "<svg") : NULL;
    buf_adds(out, start != NULL ? start : "");
}

static enum err_code write_report(struct source *src, const void *arg, struct err *e)
{
    const struct report_opts *o = arg;
    const struct frame *f = &src->frame;
    struct arena *a = src->arena;
    struct report_facts facts = {
        .title = arena_printf(a, "Scaling report: %s",
                              o->source.sweep != NULL ? o->source.sweep : f->rows[0].sweep),
        .db_name = o->source.db};
    TRY(gather_facts(src->store, o->source.sweep, a, &facts, e));
    struct report r = {.facts = &facts, .frame = f, .bits = src->bits};
    struct figure *figures = figures_build(f, r.bits, a, &r.n_figures);
    struct buf *svgs = arena_array(a, (size_t)r.n_figures + 1, sizeof(*svgs));
    struct buf page = {0};
    enum err_code rc = io_make_dirs(o->out, e);
    for (int i = 0; rc == ERR_OK && i < r.n_figures; i++) {
        struct buf file = {0};
        rc = gnuplot_draw(&figures[i], o->out, e);
        if (rc == ERR_OK)
            rc = io_read_file(arena_printf(a, "%s/%s.svg", o->out, figures[i].name), 16 << 20,
                              &file, e);
        if (rc == ERR_OK)
            add_inline_svg(&svgs[i], &file);
        buf_release(&file);
    }
    if (rc == ERR_OK) {
        r.figures = figures;
        r.svgs = svgs;
        html_report(&page, &r, a);
        rc = io_write_file(arena_printf(a, "%s/index.html", o->out), page.data, page.len, e);
    }
    if (rc == ERR_OK)
        printf("%s/index.html\n", o->out);
    for (int i = 0; i < r.n_figures; i++)
        buf_release(&svgs[i]);
    buf_release(&page);
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
    .summary = "Write one self-contained HTML report with curves and tables.",
    .doc = "The page needs no network; the pictures lie beside it as SVG, PNG and PDF.\n\n"
           "  isobit-analysis report --db demo.db --out demo-report",
    .opts = options,
    .n_opts = ARRAY_LEN(options),
    .opt_size = sizeof(struct report_opts),
    .run = run,
};
