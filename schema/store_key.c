/* SQL functions over keys and program versions, for commands' queries; the views do without them, so that any SQLite
 * program can read the database. */
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

#include "schema/store_impl.h"

static void key_glob(sqlite3_context *ctx, int n_args, sqlite3_value **args)
{
    (void)n_args;
    const char *pattern = (const char *)sqlite3_value_text(args[0]);
    const char *key = (const char *)sqlite3_value_text(args[1]);
    sqlite3_result_int(ctx, pattern != NULL && key != NULL && str_glob(pattern, key));
}

/* "isobit 0.12.3" -> 12003: the first three numbers of the text, three digits each. Missing ones are 0. */
static void version_number(sqlite3_context *ctx, int n_args, sqlite3_value **args)
{
    (void)n_args;
    const char *at = (const char *)sqlite3_value_text(args[0]);
    int64_t parts[3] = {0};
    at = at != NULL ? at + strcspn(at, "0123456789") : "";
    for (int i = 0; i < 3 && *at >= '0' && *at <= '9'; i++) {
        char *end = NULL;
        long v = strtol(at, &end, 10);
        parts[i] = v < 999 ? v : 999;
        at = *end == '.' ? end + 1 : end;
    }
    sqlite3_result_int64(ctx, (parts[0] * 1000 + parts[1]) * 1000 + parts[2]);
}

enum err_code store_key_functions(struct store *s, struct err *e)
{
    int flags = SQLITE_UTF8 | SQLITE_DETERMINISTIC;
    int rc = sqlite3_create_function(s->db, "key_glob", 2, flags, NULL, key_glob, NULL, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_create_function(s->db, "version_number", 1, flags, NULL, version_number, NULL,
                                     NULL);
    return rc == SQLITE_OK ? ERR_OK : store_error(s, rc, "cannot add SQL functions", e);
}
