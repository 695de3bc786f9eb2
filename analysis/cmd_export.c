/* `isobit-analysis export`: results for other programs. */
#include <stdio.h>
#include <string.h>

#include "analysis/cmd.h"
#include "analysis/export.h"
#include "analysis/source.h"

struct export_opts {
    const char *db, *sweep, *family, *format, *out;
    bool has_samples;
};

static const struct cli_opt options[] = {
    SOURCE_OPT_DB(offsetof(struct export_opts, db)),
    SOURCE_OPT_SWEEP(offsetof(struct export_opts, sweep)),
    SOURCE_OPT_FAMILY(offsetof(struct export_opts, family)),
    {.name = "format",
     .type = CLI_CHOICE,
     .arg = "FORMAT",
     .help = "csv, jsonl or lm-eval",
     .def = "csv",
     .choices = "csv|jsonl|lm-eval",
     .offset = offsetof(struct export_opts, format)},
    {.name = "samples",
     .type = CLI_FLAG,
     .help = "also what single items say",
     .offset = offsetof(struct export_opts, has_samples)},
    {.name = "out",
     .letter = 'o',
     .type = CLI_STRING,
     .arg = "DIR",
     .help = "folder for lm-eval's files; csv and jsonl go to standard output",
     .def = "lm-eval",
     .offset = offsetof(struct export_opts, out)},
};

static enum err_code export_as(const struct export_opts *o, const struct export_what *w,
                               struct err *e)
{
    TRY(source_check_done(w->store, o->db, e));
    if (strcmp(o->format, "csv") == 0)
        return export_csv(w, stdout, e);
    if (strcmp(o->format, "jsonl") == 0)
        return export_jsonl(w, stdout, e);
    int n_files = 0;
    TRY(export_lm_eval(w, o->out, &n_files, e));
    printf("%s: %d configurations\n", o->out, n_files);
    return ERR_OK;
}

static int run(const void *opts, int n_args, char **args)
{
    (void)n_args;
    (void)args;
    const struct export_opts *o = opts;
    struct err e;
    struct export_what w = {
        .db = o->db, .sweep = o->sweep, .family = o->family, .has_samples = o->has_samples};
    if (o->db == NULL) {
        (void)err_set(&e, ERR_USAGE, "--db F.db is required; see the command with --help");
        return cli_fail(&e);
    }
    enum err_code rc = store_open(o->db, STORE_READ, &w.store, &e);
    if (rc == ERR_OK)
        rc = store_snapshot(w.store, &e);
    if (rc == ERR_OK)
        rc = export_as(o, &w, &e);
    store_close(w.store);
    return rc == ERR_OK ? 0 : cli_fail(&e);
}

const struct cli_cmd cmd_export = {
    .name = "export",
    .args = "",
    .summary = "Write results as CSV, JSON lines or lm-evaluation-harness files.",
    .doc = "  csv: the view `results`, one line a number; with --samples one line an item\n"
           "  jsonl: one object a job with all its metrics; with --samples its items too\n"
           "  lm-eval: DIR/MODEL/CONFIGURATION/results.json, with --samples samples_TASK.jsonl\n\n"
           "  isobit-analysis export --db demo.db > results.csv\n"
           "  isobit-analysis export --db demo.db --format lm-eval --out lm-eval",
    .opts = options,
    .n_opts = ARRAY_LEN(options),
    .opt_size = sizeof(struct export_opts),
    .run = run,
};
