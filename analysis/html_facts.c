/* Facts about the sweep itself, straight from the views: each table of the page is one query. */
#include <string.h>

#include "analysis/html.h"
#include "analysis/html_json.h"

static enum err_code add_row(void *arg, const struct store_row *row, struct err *e)
{
    (void)e;
    struct buf *out = arg;
    hj_open(out, '[');
    for (int i = 0; i < store_n_cols(row); i++) {
        enum store_type type = store_col_type(row, i);
        if (type == STORE_INT)
            hj_int(out, store_col_int(row, i));
        else if (type == STORE_NUM)
            hj_number(out, store_col_num(row, i), 6);
        else
            hj_text(out, store_col_text(row, i));
    }
    hj_close(out, ']');
    return ERR_OK;
}

/* The first row as members of the names that its columns have. */
static enum err_code add_members(void *arg, const struct store_row *row, struct err *e)
{
    (void)e;
    struct buf *out = arg;
    for (int i = 0; i < store_n_cols(row); i++)
        if (store_col_type(row, i) == STORE_INT)
            hj_put_int(out, store_col_name(row, i), store_col_int(row, i));
        else
            hj_put_text(out, store_col_name(row, i), store_col_text(row, i));
    return ERR_OK;
}

static enum err_code add_object(void *arg, const struct store_row *row, struct err *e)
{
    struct buf *out = arg;
    hj_open(out, '{');
    TRY(add_members(out, row, e));
    hj_close(out, '}');
    return ERR_OK;
}

/* "name": [rows]; ?1 is the sweep, or empty for all. */
static enum err_code add_list(struct buf *out, const struct report *r, const char *name,
                              const char *sql, store_row_fn fn, struct err *e)
{
    const char *sweep = r->source->opts->sweep;
    const char *params[] = {sweep != NULL ? sweep : ""};
    hj_name(out, name);
    hj_open(out, '[');
    TRY(store_query(r->source->store, sql, params, strstr(sql, "?1") != NULL, fn, out, e));
    hj_close(out, ']');
    return ERR_OK;
}

static enum err_code add_state(struct buf *out, const struct report *r, struct err *e)
{
    static const char sql[] =
        "SELECT count(*) AS total, ifnull(sum(state = 'done'), 0) AS done,"
        " ifnull(sum(state = 'buried'), 0) AS buried, ifnull(sum(state = 'pending'), 0) AS pending,"
        " ifnull(sum(state = 'leased'), 0) AS leased FROM jobs WHERE ?1 = '' OR sweep = ?1";
    static const char times[] =
        "SELECT strftime('%Y-%m-%d %H:%M', min(finished_ms) / 1000, 'unixepoch') AS first,"
        " strftime('%Y-%m-%d %H:%M', max(finished_ms) / 1000, 'unixepoch') AS last FROM run";
    const char *sweep = r->source->opts->sweep;
    const char *params[] = {sweep != NULL ? sweep : ""};
    const char *path = r->source->opts->db;
    const char *slash = strrchr(path, '/');
    hj_name(out, "state");
    hj_open(out, '{');
    hj_put_text(out, "database", slash != NULL ? slash + 1 : path);
    TRY(store_query(r->source->store, sql, params, 1, add_members, out, e));
    TRY(store_query(r->source->store, times, NULL, 0, add_members, out, e));
    hj_close(out, '}');
    return ERR_OK;
}

/* ---- coverage: one table of done and planned jobs ---- */

struct coverage {
    struct buf *out;
    int n_names; /* columns in front of done and total pairs */
};

static enum err_code add_coverage_row(void *arg, const struct store_row *row, struct err *e)
{
    (void)e;
    const struct coverage *c = arg;
    static const char *const lists[] = {"done", "total"};
    hj_open(c->out, '{');
    hj_name(c->out, "names");
    hj_open(c->out, '[');
    for (int i = 0; i < c->n_names; i++)
        hj_text(c->out, store_col_text(row, i));
    hj_close(c->out, ']');
    for (int half = 0; half < 2; half++) {
        hj_name(c->out, lists[half]);
        hj_open(c->out, '[');
        for (int i = c->n_names + half; i < store_n_cols(row); i += 2)
            hj_int(c->out, store_col_int(row, i));
        hj_close(c->out, ']');
    }
    hj_close(c->out, '}');
    return ERR_OK;
}

/* A pair of columns for each bit width of `of`. */
#define PER_WIDTH                                                                                  \
    "sum(done * (k = 2)), sum(n * (k = 2)), sum(done * (k = 3)), sum(n * (k = 3)),"                \
    " sum(done * (k = 4)), sum(n * (k = 4)), sum(done * (k = 5)), sum(n * (k = 5)),"               \
    " sum(done * (k = 6)), sum(n * (k = 6)), sum(done * (k = 7)), sum(n * (k = 7)),"               \
    " sum(done * (k = 8)), sum(n * (k = 8)), sum(done * (k >= 16)), sum(n * (k >= 16))"
#define CELLS(columns)                                                                             \
    "FROM (SELECT " columns                                                                        \
    ", k, max(n_params) AS n_params, count(*) AS n, sum(state = 'done') AS done FROM jobs "        \
    "WHERE ?1 = '' OR sweep = ?1 GROUP BY " columns ", k)"

static const char *const widths[] = {"2 bit", "3 bit", "4 bit", "5 bit",
                                     "6 bit", "7 bit", "8 bit", "16 bit"};

static enum err_code add_coverage(struct buf *out, const struct report *r, struct err *e)
{
    static const struct {
        const char *title, *names[2], *sql;
        int n_names;
    } tables[] = {
        {"Models",
         {"family", "size"},
         "SELECT family, size, " PER_WIDTH
         " " CELLS("family, size") " GROUP BY family, size ORDER BY family, max(n_params), size",
         2},
        {"Data types and blocks",
         {"type", "block"},
         "SELECT type, CASE block WHEN 0 THEN 'tensor' WHEN -1 THEN '' ELSE block END, " PER_WIDTH
         " FROM (SELECT CASE WHEN k >= 16 THEN 'not quantized' ELSE dtype END AS type,"
         " CASE WHEN k >= 16 THEN -1 ELSE block END AS block, k, count(*) AS n,"
         " sum(state = 'done') AS done FROM jobs WHERE ?1 = '' OR sweep = ?1 GROUP BY 1, 2, 3)"
         " GROUP BY type, block ORDER BY type, block = 0, block",
         2},
        {"Evaluations",
         {"evaluation", "task"},
         "SELECT evaluation, task, " PER_WIDTH
         " " CELLS("evaluation, task") " GROUP BY evaluation, task ORDER BY evaluation",
         2},
    };
    const char *sweep = r->source->opts->sweep;
    const char *params[] = {sweep != NULL ? sweep : ""};
    hj_name(out, "coverage");
    hj_open(out, '[');
    for (size_t i = 0; i < ARRAY_LEN(tables); i++) {
        struct coverage c = {out, tables[i].n_names};
        hj_open(out, '{');
        hj_put_text(out, "title", tables[i].title);
        hj_name(out, "heads");
        hj_open(out, '[');
        for (int n = 0; n < tables[i].n_names; n++)
            hj_text(out, tables[i].names[n]);
        for (size_t k = 0; k < ARRAY_LEN(widths); k++)
            hj_text(out, widths[k]);
        hj_close(out, ']');
        hj_name(out, "rows");
        hj_open(out, '[');
        TRY(store_query(r->source->store, tables[i].sql, params, 1, add_coverage_row, &c, e));
        hj_close(out, ']');
        hj_close(out, '}');
    }
    hj_close(out, ']');
    return ERR_OK;
}

/* ---- failures, provenance ---- */

/* Long lists end at their LIMIT; the page says how many more there are. */
static enum err_code add_failures(struct buf *out, const struct report *r, struct err *e)
{
    static const char kinds[] =
        "SELECT count(*) AS n, outcome, code, text, max(ended_at) AS last FROM failures "
        "WHERE ?1 = '' OR sweep = ?1 GROUP BY outcome, code, text ORDER BY 1 DESC LIMIT 100";
    static const char counts[] =
        "SELECT (SELECT count(*) FROM (SELECT 1 FROM failures WHERE ?1 = '' OR sweep = ?1"
        " GROUP BY outcome, code, text)) AS nKinds,"
        " (SELECT count(*) FROM jobs WHERE state = 'buried' AND (?1 = '' OR sweep = ?1)) AS nJobs";
    static const char buried[] = "SELECT key, error FROM jobs WHERE state = 'buried' AND "
                                 "(?1 = '' OR sweep = ?1) ORDER BY job LIMIT 2000";
    const char *sweep = r->source->opts->sweep;
    const char *params[] = {sweep != NULL ? sweep : ""};
    hj_name(out, "failures");
    hj_open(out, '{');
    TRY(store_query(r->source->store, counts, params, 1, add_members, out, e));
    TRY(add_list(out, r, "kinds", kinds, add_object, e));
    TRY(add_list(out, r, "jobs", buried, add_row, e));
    hj_close(out, '}');
    return ERR_OK;
}

static enum err_code add_provenance(struct buf *out, const struct report *r, struct err *e)
{
    static const struct {
        const char *title, *heads[5], *sql;
        int n_heads;
    } tables[] = {
        {"Devices and programs",
         {"device", "host", "program", "jobs", "hours"},
         "SELECT p.device, p.host, p.program, count(*), sum(r.seconds) / 3600 FROM run r JOIN "
         "provenance p ON p.id = r.provenance_id GROUP BY 1, 2, 3 ORDER BY 4 DESC",
         5},
        {"Weights",
         {"model", "SHA-256 of the weights", "parameters"},
         "SELECT family || ' ' || size || ' (' || name || ')', weights_sha256, n_params FROM model "
         "WHERE weights_sha256 IS NOT NULL ORDER BY family, n_params",
         3},
        {"Data",
         {"evaluation", "data", "SHA-256 of the data"},
         "SELECT name, data, data_sha256 FROM eval WHERE data_sha256 IS NOT NULL ORDER BY name",
         3},
    };
    hj_name(out, "provenance");
    hj_open(out, '[');
    for (size_t i = 0; i < ARRAY_LEN(tables); i++) {
        hj_open(out, '{');
        hj_put_text(out, "title", tables[i].title);
        hj_name(out, "heads");
        hj_open(out, '[');
        for (int h = 0; h < tables[i].n_heads; h++)
            hj_text(out, tables[i].heads[h]);
        hj_close(out, ']');
        TRY(add_list(out, r, "rows", tables[i].sql, add_row, e));
        hj_close(out, '}');
    }
    hj_close(out, ']');
    return add_list(out, r, "specs",
                    "SELECT w.name AS sweep, s.path AS path, s.sha256 AS sha256, s.text AS text,"
                    " strftime('%Y-%m-%d %H:%M', s.planned_ms / 1000, 'unixepoch') AS planned "
                    "FROM spec s JOIN sweep w ON w.id = s.sweep_id WHERE ?1 = '' OR w.name = ?1 "
                    "ORDER BY s.planned_ms",
                    add_object, e);
}

enum err_code html_add_facts(struct buf *out, const struct report *r, struct err *e)
{
    TRY(add_state(out, r, e));
    TRY(add_coverage(out, r, e));
    TRY(add_failures(out, r, e));
    return add_provenance(out, r, e);
}
