#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <unistd.h>

#include "base/io.h"
#include "schema/store_impl.h"
#include "schema/store_work.h"

/* All pages in one step: one read transaction, hence one consistent state, and WAL readers do not stop the writer. */
static enum err_code copy_pages(struct store *s, const char *tmp, struct err *e)
{
    sqlite3 *copy = NULL;
    int rc = sqlite3_open_v2(tmp, &copy, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL);
    sqlite3_backup *b = rc == SQLITE_OK ? sqlite3_backup_init(copy, "main", s->db, "main") : NULL;
    if (b != NULL) {
        rc = sqlite3_backup_step(b, -1);
        int finished = sqlite3_backup_finish(b);
        if (rc == SQLITE_DONE)
            rc = finished;
    } else if (rc == SQLITE_OK) {
        rc = sqlite3_errcode(copy);
    }
    /* One plain file, so that a copy can be read from a folder that cannot be written. */
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(copy, "PRAGMA journal_mode=DELETE", NULL, NULL, NULL);
    enum err_code code = ERR_OK;
    if (rc != SQLITE_OK)
        code = err_set(e, rc == SQLITE_BUSY ? ERR_BUSY : ERR_IO, "cannot copy %s to %s: %s",
                       s->path, tmp, copy != NULL ? sqlite3_errmsg(copy) : sqlite3_errstr(rc));
    sqlite3_close(copy);
    return code;
}

static enum err_code sync_file(const char *path, struct err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool is_synced = fd >= 0 && fsync(fd) == 0;
    int why = errno;
    if (fd >= 0)
        close(fd);
    return is_synced ? ERR_OK : err_set_errno(e, why, "cannot write %s", path);
}

enum err_code store_backup(struct store *s, const char *out_path, int64_t *bytes, struct err *e)
{
    char *tmp = xasprintf("%s.tmp%ld", out_path, (long)getpid());
    char *journal = xasprintf("%s-journal", tmp);
    unlink(tmp);
    enum err_code rc = copy_pages(s, tmp, e);
    if (rc == ERR_OK)
        rc = sync_file(tmp, e);
    if (rc == ERR_OK && rename(tmp, out_path) != 0)
        rc = err_set_errno(e, errno, "cannot replace %s", out_path);
    if (rc == ERR_OK)
        *bytes = io_file_size(out_path);
    else
        unlink(tmp);
    unlink(journal);
    xfree(journal);
    xfree(tmp);
    return rc;
}
