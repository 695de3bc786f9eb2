#include "schema/store.h"

#include <errno.h>
#include <math.h>
#include <sqlite3.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "schema/store_impl.h"

/* ---- errors ---- */

static enum err_code code_of(int rc)
{
    switch (rc & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return ERR_BUSY;
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT:
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

/* ---- opening ---- */

static enum err_code connect_to(struct store *s, const char *name, int flags, struct err *e)
{
    int rc = sqlite3_open_v2(
        name, &s->db, flags | SQLITE_OPEN_URI | SQLITE_OPEN_EXRESCODE | SQLITE_OPEN_NOMUTEX, NULL);
    if (rc != SQLITE_OK) {
        enum err_code code = store_error(s, rc, "cannot open the database", e);
        sqlite3_close(s->db);
        s->db = NULL;
        return code;
    }
    sqlite3_busy_timeout(s->db, 5000);
    return ERR_OK;
}

/* The path as a file: URI, with what URIs give a meaning escaped. Caller frees. */
static char *uri_of(const char *path, const char *query)
{
    struct buf b = {0};
    buf_adds(&b, "file:");
    for (const char *p = path; *p != '\0'; p++) {
        if (*p == '%' || *p == '?' || *p == '#')
            buf_printf(&b, "%%%02X", (unsigned char)*p);
        else
            buf_addc(&b, *p);
    }
    buf_adds(&b, query);
    return buf_detach(&b);
}

/* Size of the write-ahead log, -1 when there is none. */
static int64_t log_bytes(const struct store *s)
{
    char *wal = xasprintf("%s-wal", s->path);
    int64_t n = io_file_size(wal);
    xfree(wal);
    return n;
}

/* A reader of a WAL database maps F.db-shm. Where that cannot be made (read-only folder, network file system), a database
 * without a write-ahead log is complete in its one file and can be read as immutable. */
static enum err_code open_immutable(struct store *s, const char *why, struct err *e)
{
    if (log_bytes(s) > 0)
        return err_set(e, ERR_DENIED,
                       "%s is %s and has changes in its write-ahead log (%s-wal) that cannot be "
                       "read there; copy it with "
                       "`isobit backup` on the machine that writes it and read the copy",
                       s->path, why, s->path);
    sqlite3_close(s->db);
    s->db = NULL;
    char *uri = uri_of(s->path, "?immutable=1");
    enum err_code rc = connect_to(s, uri, SQLITE_OPEN_READONLY, e);
    xfree(uri);
    return rc;
}

static enum err_code no_database(const struct store *s, struct err *e)
{
    return err_set(e, ERR_NOTFOUND, "%s does not exist; `isobit plan SPEC.yaml --db %s` makes it",
                   s->path, s->path);
}

static enum err_code open_reader(struct store *s, struct err *e)
{
    if (!io_exists(s->path))
        return no_database(s, e);
    if (access(s->path, R_OK) != 0)
        return err_set_errno(e, errno, "cannot read %s", s->path);
    if (store_fs_network_of(s->path) != NULL)
        return open_immutable(s, "on a network file system", e);
    /* Reading makes a log and its index, which a connection that must not write cannot remove again. Where nobody has the
     * database open (no log) and the file may be written, the reader may, and PRAGMA query_only keeps it a reader. */
    bool may_tidy = log_bytes(s) < 0 && access(s->path, W_OK) == 0;
    char *uri = uri_of(s->path, may_tidy ? "?mode=rw" : "?mode=ro");
    enum err_code rc =
        connect_to(s, uri, may_tidy ? SQLITE_OPEN_READWRITE : SQLITE_OPEN_READONLY, e);
    xfree(uri);
    TRY(rc);
    int step = sqlite3_exec(s->db, "SELECT count(*) FROM sqlite_schema", NULL, NULL, NULL);
    if ((step & 0xff) == SQLITE_CANTOPEN || (step & 0xff) == SQLITE_READONLY)
        return open_immutable(s, "in a folder that cannot be written", e);
    return step == SQLITE_OK ? ERR_OK : store_error(s, step, "cannot read the database", e);
}

static enum err_code open_writer(struct store *s, bool may_create, struct err *e)
{
    if (!may_create && !io_exists(s->path))
        return no_database(s, e);
    const char *network = store_fs_network_of(s->path);
    if (network != NULL)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s is on a network file system (%s), where SQLite's locks and shared "
                       "memory do not hold; put the "
                       "database on a local disk of the machine that runs the coordinator (--db "
                       "/var/tmp/F.db)",
                       s->path, network);
    char *uri = uri_of(s->path, "");
    enum err_code rc =
        connect_to(s, uri, SQLITE_OPEN_READWRITE | (may_create ? SQLITE_OPEN_CREATE : 0), e);
    xfree(uri);
    TRY(rc);
    if (sqlite3_db_readonly(s->db, "main") == 1)
        return err_set(e, ERR_DENIED, "%s cannot be written: check its permissions", s->path);
    return ERR_OK;
}

/* FULL: an acknowledged result survives a power cut, not only a kill (orchestration.md, section 3). */
static const char writer_settings[] =
    "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=OFF;"
    "PRAGMA cache_size=-32768; PRAGMA wal_autocheckpoint=4000;"
    "PRAGMA journal_size_limit=67108864; PRAGMA temp_store=MEMORY";

enum err_code store_open(const char *path, enum store_mode mode, struct store **out, struct err *e)
{
    /* Counting allocations takes a mutex each; only the first call of a process can switch it off. */
    (void)sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
    struct store *s = xcalloc(1, sizeof(*s));
    s->path = xstrdup(path);
    s->is_writer = mode != STORE_READ;
    enum err_code rc = s->is_writer ? open_writer(s, mode == STORE_CREATE, e) : open_reader(s, e);
    if (rc == ERR_OK)
        rc = store_migrate(s, mode == STORE_CREATE, e);
    if (rc == ERR_OK)
        rc = store_exec(
            s, s->is_writer ? writer_settings : "PRAGMA query_only=1; PRAGMA cache_size=-65536", e);
    if (rc == ERR_OK)
        rc = store_key_functions(s, e);
    if (rc != ERR_OK) {
        store_close(s);
        return rc;
    }
    *out = s;
    return ERR_OK;
}

void store_close(struct store *s)
{
    if (s == NULL)
        return;
    for (int i = 0; i < s->n_stmts; i++)
        sqlite3_finalize(s->stmts[i].stmt);
    CHECK(sqlite3_close(s->db) == SQLITE_OK);
    xfree(s->path);
    xfree(s);
}

/* ---- transactions ---- */

bool store_in_transaction(const struct store *s)
{
    return s->db != NULL && sqlite3_get_autocommit(s->db) == 0;
}

int64_t store_now_ms(void)
{
    return clock_wall_ns() / CLOCK_NS_PER_MS;
}

enum err_code store_begin(struct store *s, struct err *e)
{
    CHECK(!store_in_transaction(s));
    s->n_begun++;
    s->is_broken = false;
    s->deltas.n = 0;
    return store_run(s, "BEGIN IMMEDIATE", NULL, 0, NULL, NULL, e);
}

enum err_code store_commit(struct store *s, struct err *e)
{
    enum err_code rc = ERR_OK;
    if (s->is_broken || !store_in_transaction(s))
        rc =
            err_set(e, ERR_IO,
                    "%s: a write failed earlier in this transaction, none of it was kept", s->path);
    if (rc == ERR_OK)
        rc = store_flush_deltas(s, e);
    if (rc == ERR_OK)
        rc = store_run(s, "COMMIT", NULL, 0, NULL, NULL, e);
    if (rc != ERR_OK)
        store_rollback(s);
    return rc;
}

int64_t store_transactions(const struct store *s)
{
    return s->n_begun;
}

void store_rollback(struct store *s)
{
    /* Some errors (disk full) have already rolled back; then there is nothing to undo. */
    if (store_in_transaction(s))
        ERR_IGNORE(store_exec(s, "ROLLBACK", &(struct err){0}));
    s->is_broken = false;
    s->deltas.n = 0;
    s->last_bits = (struct store_last_bits){0};
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

enum err_code store_snapshot(struct store *s, struct err *e)
{
    /* SQLite takes the snapshot at the first read of a transaction, not at BEGIN. */
    TRY(store_exec(s, "BEGIN", e));
    return store_exec(s, "SELECT count(*) FROM sqlite_schema", e);
}

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
