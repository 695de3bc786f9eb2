/* isobit jobs: the jobs of a database, one a line. */
#include <stddef.h>
#include <stdio.h>

#include "base/cli.h"
#include "coordinator/cmd.h"
#include "coordinator/rows.h"

struct jobs_options {
    const char *db, *state;
    int64_t limit;
    bool is_json;
};

static const struct cli_opt options[] = {
    CMD_OPT_DB(offsetof(struct jobs_options, db)),
    {.name = "state",
     .type = CLI_CHOICE,
     .arg = "S",
     .help = "only jobs in this state",
     .choices = "pending|leased|done|buried|held|cancelled",
     .offset = offsetof(struct jobs_options, state)},
    {.name = "limit",
     .type = CLI_INT,
     .arg = "N",
     .help = "at most N jobs; 0: all",
     .def = "0",
     .min = 0,
     .max = 1e9,
     .offset = offsetof(struct jobs_options, limit)},
    {.name = "json",
     .type = CLI_FLAG,
     .help = "print a JSON array, one object a line",
     .offset = offsetof(struct jobs_options, is_json)},
};

struct printing {
    bool is_json;
    int64_t n;
};

static void print_json(const struct store_row *row, bool is_first)
{
    struct buf line = {0};
    json_t *o = rows_object(row);
    json_append(&line, o, false);
    printf("%s%s", is_first ? "" : ",\n", line.data);
    json_decref(o);
    buf_release(&line);
}

/* Columns: key, state, attempts, worker, seconds, error, then the rest of the view. */
static void print_text(const struct store_row *row)
{
    printf("%-9s %2lld  %s", store_col_text(row, 2), (long long)store_col_int(row, 3),
           store_col_text(row, 0));
    const char *error = store_col_text(row, 20);
    printf("%s%s\n", error != NULL ? "  # " : "", error != NULL ? error : "");
}

static enum err_code print_row(void *arg, const struct store_row *row, struct err *e)
{
    (void)e;
    struct printing *p = arg;
    if (p->is_json)
        print_json(row, p->n == 0);
    else
        print_text(row);
    p->n++;
    return ERR_OK;
}

static enum err_code print_jobs(const struct jobs_options *o, const char *pattern, struct err *e)
{
    struct store *s = NULL;
    struct printing p = {.is_json = o->is_json};
    TRY(store_open(o->db, STORE_READ, &s, e));
    /* LIMIT -1 is none. Each condition stands alone, so that a state is looked up in its index. */
    char *sql = xasprintf("SELECT * FROM jobs WHERE %s AND %s ORDER BY job LIMIT %lld",
                          o->state != NULL ? "state = ?1" : "?1 IS NULL",
                          pattern != NULL ? "key_glob(?2, key)" : "?2 IS NULL",
                          o->limit > 0 ? (long long)o->limit : -1LL);
    const char *params[] = {o->state, pattern};
    if (p.is_json)
        printf("[");
    enum err_code rc = store_query(s, sql, params, 2, print_row, &p, e);
    if (p.is_json)
        printf("]\n");
    xfree(sql);
    store_close(s);
    return rc;
}

static int run(const void *opts, int n_args, char **args)
{
    const struct jobs_options *o = opts;
    struct err e;
    if (o->db == NULL) {
        err_set(&e, ERR_USAGE, "jobs: --db F.db is missing");
        return cli_fail(&e);
    }
    return print_jobs(o, n_args > 0 ? args[0] : NULL, &e) == ERR_OK ? 0 : cli_fail(&e);
}

const struct cli_cmd cmd_jobs = {
    .name = "jobs",
    .args = "[KEY-PATTERN]",
    .summary = "list jobs",
    .doc = "One line a job: state, attempts, key, and the last error of a job that is not done.\n"
           "KEY-PATTERN matches whole keys: `*` is any text, `?` one character.\n"
           "\n"
           "  isobit jobs --db demo.db --state buried\n"
           "  isobit jobs --db demo.db '*|model=*pythia-s0|*' --json\n"
           "\n"
           "--json prints the columns of the view `jobs` (docs/SCHEMA.md).",
    .opts = options,
    .n_opts = ARRAY_LEN(options),
    .opt_size = sizeof(struct jobs_options),
    .max_args = 1,
    .run = run,
};
