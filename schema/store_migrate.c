#include "schema/store_migrate.h"

#include <stdio.h>

#include "schema/store_impl.h"

/* Views of this version on have the columns of the newest: a reader takes them as they are. */
enum { OLDEST_READABLE = 1 };

static int newest_version(void)
{
    int newest = 0;
    for (const struct store_migration *m = store_migrations; m->version != 0; m++)
        newest = m->version;
    return newest;
}

static enum err_code apply(struct store *s, const struct store_migration *m, struct err *e)
{
    char mark[64];
    snprintf(mark, sizeof(mark), "PRAGMA user_version=%d", m->version);
    enum err_code rc = store_exec(s, "BEGIN IMMEDIATE", e);
    if (rc == ERR_OK)
        rc = store_exec(s, m->sql, e);
    if (rc == ERR_OK)
        rc = store_exec(s, mark, e);
    if (rc == ERR_OK)
        rc = store_exec(s, "COMMIT", e);
    if (rc != ERR_OK) {
        store_rollback(s);
        err_wrap(e, "%s: bringing the database to version %d (%s)", s->path, m->version, m->name);
    }
    return rc;
}

static enum err_code initialize(struct store *s, struct err *e)
{
    char mark[64];
    snprintf(mark, sizeof(mark), "PRAGMA application_id=%d", (int)STORE_APPLICATION_ID);
    return store_exec(s, mark, e);
}

enum err_code store_migrate(struct store *s, bool may_create, struct err *e)
{
    int64_t id = 0, version = 0, n_tables = 0;
    TRY(store_query_int(s, "PRAGMA application_id", 0, &id, e));
    TRY(store_query_int(s, "PRAGMA user_version", 0, &version, e));
    TRY(store_query_int(s, "SELECT count(*) FROM sqlite_schema", 0, &n_tables, e));
    if (id == 0 && version == 0 && n_tables == 0 && may_create)
        TRY(initialize(s, e));
    else if (id != STORE_APPLICATION_ID)
        return err_set(e, ERR_FORMAT,
                       "%s is %s, not an isobit database; give --db another file, or let `isobit "
                       "plan` make a new one",
                       s->path,
                       n_tables == 0 ? "an empty file" : "another program's SQLite database");
    if (version > newest_version())
        return err_set(e, ERR_VERSION,
                       "%s has schema version %lld, this isobit knows versions up to %d; use the "
                       "newer isobit that "
                       "wrote it",
                       s->path, (long long)version, newest_version());
    if (version < OLDEST_READABLE && !s->is_writer)
        return err_set(
            e, ERR_VERSION,
            "%s has schema version %lld, this isobit reads versions %d to %d; bring it up to date "
            "with any "
            "command that writes, such as `isobit plan`, or read it with the isobit that made it",
            s->path, (long long)version, OLDEST_READABLE, newest_version());
    for (const struct store_migration *m = store_migrations; s->is_writer && m->version != 0; m++)
        if (m->version > version)
            TRY(apply(s, m, e));
    return ERR_OK;
}
