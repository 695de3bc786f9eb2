#include "schema/store.h"

#include <errno.h>
#include <sqlite3.h>
#include <unistd.h>

#include "base/io.h"
#include "schema/store_impl.h"

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
    s->is_made = !io_exists(s->path); /* nobody else makes it: the caller has the lock */
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
        store_discard(s);
        return rc;
    }
    *out = s;
    return ERR_OK;
}

void store_close(struct store *s)
{
    if (s == NULL)
        return;
    store_log_release(s);
    for (int i = 0; i < s->n_stmts; i++)
        sqlite3_finalize(s->stmts[i].stmt);
    for (size_t i = 0; i < ARRAY_LEN(s->provenances); i++)
        buf_release(&s->provenances[i].key);
    CHECK(sqlite3_close(s->db) == SQLITE_OK);
    xfree(s->path);
    xfree(s);
}

void store_discard(struct store *s)
{
    static const char *const ends[] = {"", "-journal", "-wal", "-shm"};
    /* As SQLite names it, behind links: those were there before. */
    const char *name = s != NULL && s->db != NULL ? sqlite3_db_filename(s->db, "main") : NULL;
    char *made = name != NULL && s->is_made ? xstrdup(name) : NULL;
    store_close(s);
    for (size_t i = 0; made != NULL && i < ARRAY_LEN(ends); i++) {
        char *file = xasprintf("%s%s", made, ends[i]);
        unlink(file);
        xfree(file);
    }
    xfree(made);
}

/* ---- transactions ---- */

enum err_code store_begin(struct store *s, struct err *e)
{
    CHECK(!store_in_transaction(s));
    s->n_begun++;
    s->is_broken = false;
    s->counters.n_work = s->counters.n_moves = 0;
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
        rc = store_flush_counters(s, e);
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
    s->counters.n_work = s->counters.n_moves = 0;
    s->last_bits = (struct store_last_bits){0};
    for (size_t i = 0; i < ARRAY_LEN(s->provenances); i++)
        buf_reset(&s->provenances[i].key);
}

enum err_code store_snapshot(struct store *s, struct err *e)
{
    /* SQLite takes the snapshot at the first read of a transaction, not at BEGIN. */
    TRY(store_exec(s, "BEGIN", e));
    return store_exec(s, "SELECT count(*) FROM sqlite_schema", e);
}
