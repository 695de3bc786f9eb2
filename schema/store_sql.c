/* Running SQL: cached statements, bound values, rows, and SQLite's errors as ours. The rest of the store stands on it. */
#include <math.h>
#include <sqlite3.h>

#include "base/clock.h"
#include "schema/store_impl.h"

bool store_in_transaction(const struct store *s)
{
    return s->db != NULL && sqlite3_get_autocommit(s->db) == 0;
}

int64_t store_now_ms(void)
{
    return clock_wall_ns() / CLOCK_NS_PER_MS;
}

/* ---- errors ---- */

static enum err_code code_of(int rc)
{
    switch (rc & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return ERR_BUSY;
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT:
    case SQLITE_CONSTRAINT: /* what was written does not fit the schema: trying again is no use */
        return ERR_FORMAT;
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_CANTOPEN:
        return ERR_DENIED;
    default:
        return ERR_IO;
    }
}

static const char *remedy_of(int rc)
{
    switch (rc & 0xff) {
    case SQLITE_FULL:
        return "; free some space and start again: nothing acknowledged is lost";
    case SQLITE_NOTADB:
        return "; --db needs a database made by isobit";
    case SQLITE_CORRUPT:
        return "; the file is damaged: go back to a copy made by `isobit backup`";
    case SQLITE_BUSY:
        return "; another program holds it: try again";
    default:
        return "";
    }
}

enum err_code store_error(struct store *s, int rc, const char *doing, struct err *e)
{
    if (s->is_writer && store_in_transaction(s))
        s->is_broken = true;
    return err_set(e, code_of(rc), "%s: %s: %s%s", s->path, doing,
                   s->db != NULL ? sqlite3_errmsg(s->db) : "no connection", remedy_of(rc));
}

/* ---- statements ---- */

static enum err_code prepare(struct store *s, const char *sql, unsigned flags, sqlite3_stmt **out,
                             struct err *e)
{
    int rc = sqlite3_prepare_v3(s->db, sql, -1, flags, out, NULL);
    return rc == SQLITE_OK ? ERR_OK : store_error(s, rc, "cannot prepare a query", e);
}

enum err_code store_stmt(struct store *s, const char *sql, sqlite3_stmt **out, struct err *e)
{
    for (int i = 0; i < s->n_stmts; i++) {
        if (s->stmts[i].sql == sql) {
            *out = s->stmts[i].stmt;
            return ERR_OK;
        }
    }
    CHECK(s->n_stmts < STORE_MAX_STMTS);
    sqlite3_stmt *stmt = NULL;
    TRY(prepare(s, sql, SQLITE_PREPARE_PERSISTENT, &stmt, e));
    s->stmts[s->n_stmts].sql = sql;
    s->stmts[s->n_stmts++].stmt = stmt;
    *out = stmt;
    return ERR_OK;
}

static int bind_one(sqlite3_stmt *stmt, int at, const struct store_arg *a)
{
    switch (a->type) {
    case STORE_ARG_INT:
        return sqlite3_bind_int64(stmt, at, a->i);
    case STORE_ARG_NUM:
        return isfinite(a->d) ? sqlite3_bind_double(stmt, at, a->d) : sqlite3_bind_null(stmt, at);
    case STORE_ARG_TEXT:
        return sqlite3_bind_text(stmt, at, a->p, -1, SQLITE_STATIC);
    case STORE_ARG_BLOB:
        return sqlite3_bind_blob64(stmt, at, a->p, a->n, SQLITE_STATIC);
    case STORE_ARG_NULL:
        return sqlite3_bind_null(stmt, at);
    }
    return SQLITE_MISUSE;
}

static enum err_code bind_all(struct store *s, sqlite3_stmt *stmt, const struct store_arg *args,
                              int n, struct err *e)
{
    CHECK(sqlite3_bind_parameter_count(stmt) == n);
    for (int i = 0; i < n; i++) {
        int rc = bind_one(stmt, i + 1, &args[i]);
        if (rc != SQLITE_OK)
            return store_error(s, rc, "cannot bind a value", e);
    }
    return ERR_OK;
}

enum err_code store_run(struct store *s, const char *sql, const struct store_arg *args, int n_args,
                        int64_t *changed, int64_t *returned, struct err *e)
{
    sqlite3_stmt *stmt = NULL;
    TRY(store_stmt(s, sql, &stmt, e));
    enum err_code rc = bind_all(s, stmt, args, n_args, e);
    int step = rc == ERR_OK ? sqlite3_step(stmt) : SQLITE_DONE;
    if (step == SQLITE_ROW && returned != NULL)
        *returned = sqlite3_column_int64(stmt, 0);
    while (step == SQLITE_ROW)
        step = sqlite3_step(stmt);
    if (step != SQLITE_DONE)
        rc = store_error(s, step, "cannot write", e);
    else if (rc == ERR_OK && changed != NULL)
        *changed = sqlite3_changes64(s->db);
    sqlite3_reset(stmt);
    return rc;
}

enum err_code store_exec(struct store *s, const char *sql, struct err *e)
{
    int rc = sqlite3_exec(s->db, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? ERR_OK : store_error(s, rc, "cannot write", e);
}

/* ---- reading ---- */

static enum err_code each_row(struct store *s, sqlite3_stmt *stmt, store_row_fn fn, void *arg,
                              struct err *e)
{
    struct store_row row = {stmt};
    int step = 0;
    while ((step = sqlite3_step(stmt)) == SQLITE_ROW)
        TRY(fn(arg, &row, e));
    return step == SQLITE_DONE ? ERR_OK : store_error(s, step, "cannot read", e);
}

enum err_code store_rows(struct store *s, const char *sql, const struct store_arg *args, int n_args,
                         store_row_fn fn, void *arg, struct err *e)
{
    sqlite3_stmt *stmt = NULL;
    TRY(store_stmt(s, sql, &stmt, e));
    enum err_code rc = bind_all(s, stmt, args, n_args, e);
    if (rc == ERR_OK)
        rc = each_row(s, stmt, fn, arg, e);
    sqlite3_reset(stmt);
    return rc;
}

enum err_code store_query(struct store *s, const char *sql, const char *const *params, int n_params,
                          store_row_fn fn, void *arg, struct err *e)
{
    sqlite3_stmt *stmt = NULL;
    TRY(prepare(s, sql, 0, &stmt, e));
    enum err_code rc = ERR_OK;
    for (int i = 0; i < n_params && rc == ERR_OK; i++) {
        int bound = sqlite3_bind_text(stmt, i + 1, params[i], -1, SQLITE_STATIC);
        if (bound != SQLITE_OK)
            rc = store_error(s, bound, "cannot bind a value", e);
    }
    if (rc == ERR_OK)
        rc = each_row(s, stmt, fn, arg, e);
    sqlite3_finalize(stmt);
    return rc;
}

struct first_int {
    int64_t *out;
    bool is_set;
};

static enum err_code take_first(void *arg, const struct store_row *row, struct err *e)
{
    (void)e;
    struct first_int *f = arg;
    if (!f->is_set)
        *f->out = store_col_int(row, 0);
    f->is_set = true;
    return ERR_OK;
}

enum err_code store_query_int(struct store *s, const char *sql, int64_t def, int64_t *out,
                              struct err *e)
{
    struct first_int f = {.out = out};
    *out = def;
    return store_query(s, sql, NULL, 0, take_first, &f, e);
}

int64_t store_col_int(const struct store_row *r, int col)
{
    return sqlite3_column_int64(r->stmt, col);
}

double store_col_num(const struct store_row *r, int col)
{
    return store_col_is_null(r, col) ? NAN : sqlite3_column_double(r->stmt, col);
}

const char *store_col_text(const struct store_row *r, int col)
{
    return (const char *)sqlite3_column_text(r->stmt, col);
}

const void *store_col_blob(const struct store_row *r, int col, size_t *n)
{
    const void *p = sqlite3_column_blob(r->stmt, col);
    *n = (size_t)sqlite3_column_bytes(r->stmt, col);
    return p;
}

bool store_col_is_null(const struct store_row *r, int col)
{
    return sqlite3_column_type(r->stmt, col) == SQLITE_NULL;
}

enum store_type store_col_type(const struct store_row *r, int col)
{
    switch (sqlite3_column_type(r->stmt, col)) {
    case SQLITE_INTEGER:
        return STORE_INT;
    case SQLITE_FLOAT:
        return STORE_NUM;
    case SQLITE_TEXT:
        return STORE_TEXT;
    case SQLITE_BLOB:
        return STORE_BLOB;
    default:
        return STORE_NULL;
    }
}

int store_n_cols(const struct store_row *r)
{
    return sqlite3_column_count(r->stmt);
}

const char *store_col_name(const struct store_row *r, int col)
{
    return sqlite3_column_name(r->stmt, col);
}
