/* isobit backup: a consistent copy of a database, also while a sweep runs. Read by a connection of its own: in WAL mode a
 * reader sees one consistent state and never stops the writer, so the coordinator is not asked. */
#include <stddef.h>
#include <stdio.h>

#include "base/cli.h"
#include "coordinator/cmd.h"
#include "schema/store_work.h"

struct backup_options {
    const char *db;
};

static const struct cli_opt options[] = {
    CMD_OPT_DB(offsetof(struct backup_options, db)),
};

static enum err_code backup(const char *db, const char *out, int64_t *bytes, struct err *e)
{
    struct store *s = NULL;
    if (db == NULL)
        return err_set(e, ERR_USAGE, "backup: --db F.db is missing");
    TRY(store_open(db, STORE_READ, &s, e));
    enum err_code rc = store_backup(s, out, bytes, e);
    store_close(s);
    return rc;
}

static int run(const void *opts, int n_args, char **args)
{
    (void)n_args;
    const struct backup_options *o = opts;
    struct err e;
    int64_t bytes = 0;
    char size[32];
    if (backup(o->db, args[0], &bytes, &e) != ERR_OK)
        return cli_fail(&e);
    printf("copied %s to %s (%s)\n", o->db, args[0], fmt_bytes((double)bytes, size));
    return 0;
}

const struct cli_cmd cmd_backup = {
    .name = "backup",
    .args = "OUT.db",
    .summary = "copy a database consistently, also while a sweep runs",
    .doc = "OUT.db is replaced as a whole once the copy is complete and on disk. It is one plain\n"
           "file, which can also be read from a folder that cannot be written.\n"
           "\n"
           "  isobit backup --db demo.db demo-copy.db",
    .opts = options,
    .n_opts = ARRAY_LEN(options),
    .opt_size = sizeof(struct backup_options),
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
