#include "coordinator/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/json.h"
#include "base/mem.h"

/* One database has one lock, whatever links lead to it. A database that does not exist yet is named by its folder.
 * Caller frees. */
static char *lock_path(const char *db_path)
{
    char real[PATH_MAX];
    if (realpath(db_path, real) != NULL)
        return xasprintf("%s.lock", real);
    char *dir = io_dirname(db_path);
    const char *slash = strrchr(db_path, '/');
    const char *name = slash != NULL ? slash + 1 : db_path;
    char *path = realpath(dir, real) != NULL ? xasprintf("%s/%s.lock", real, name)
                                             : xasprintf("%s.lock", db_path);
    xfree(dir);
    return path;
}

/* Whoever holds the lock may be writing this just now: what does not parse is nobody in particular. */
static void read_owner(int fd, struct lock_owner *owner)
{
    char text[1024];
    ssize_t n = pread(fd, text, sizeof(text), 0);
    json_t *doc = NULL;
    *owner = (struct lock_owner){0};
    if (n <= 0 ||
        json_parse((struct str){text, (size_t)n}, "lock file", &doc, &(struct err){0}) != ERR_OK)
        return;
    owner->pid = json_opt_int(doc, "pid", 0);
    snprintf(owner->host, sizeof(owner->host), "%s", json_opt_str(doc, "host", ""));
    snprintf(owner->control, sizeof(owner->control), "%s", json_opt_str(doc, "control", ""));
    json_decref(doc);
}

enum err_code lock_publish(struct lock *l, const char *control, struct err *e)
{
    char host[HOST_NAME_MAX + 1] = "";
    gethostname(host, sizeof(host) - 1);
    json_t *doc =
        json_pack("{s:I, s:s, s:s}", "pid", (json_int_t)getpid(), "host", host, "control", control);
    struct buf text = {0};
    json_append(&text, doc, false);
    json_decref(doc);
    bool is_written =
        ftruncate(l->fd, 0) == 0 && pwrite(l->fd, text.data, text.len, 0) == (ssize_t)text.len;
    int why = errno;
    buf_release(&text);
    return is_written ? ERR_OK : err_set_errno(e, why, "cannot write %s", l->path);
}

/* The file may have been removed between open and flock by the one who held it: then the lock is on nothing. */
static bool is_still_there(int fd, const char *path)
{
    struct stat mine, theirs;
    return fstat(fd, &mine) == 0 && stat(path, &theirs) == 0 && mine.st_ino == theirs.st_ino &&
           mine.st_dev == theirs.st_dev;
}

static enum err_code busy(const char *db_path, const struct lock_owner *owner, struct err *e)
{
    if (owner->pid == 0)
        return err_set(e, ERR_BUSY, "%s is in use by another command; try again", db_path);
    return err_set(e, ERR_BUSY, "%s is in use by process %lld on %s; end that one first", db_path,
                   (long long)owner->pid, owner->host);
}

enum err_code lock_take(const char *db_path, struct lock *out, struct lock_owner *owner,
                        struct err *e)
{
    struct lock l = {.fd = -1, .path = lock_path(db_path)};
    *out = (struct lock){.fd = -1};
    enum err_code rc = ERR_OK;
    while (rc == ERR_OK) {
        l.fd = open(l.path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (l.fd < 0) {
            rc = err_set_errno(e, errno, "cannot lock %s for writing (%s)", db_path, l.path);
        } else if (flock(l.fd, LOCK_EX | LOCK_NB) != 0) {
            int why = errno;
            read_owner(l.fd, owner);
            rc = why == EWOULDBLOCK ? busy(db_path, owner, e)
                                    : err_set_errno(e, why, "cannot lock %s", l.path);
        } else if (is_still_there(l.fd, l.path)) {
            break;
        }
        if (l.fd >= 0)
            close(l.fd);
        l.fd = -1;
    }
    if (rc == ERR_OK)
        rc = lock_publish(&l, "", e);
    if (rc != ERR_OK)
        lock_release(&l);
    else
        *out = l;
    return rc;
}

void lock_release(struct lock *l)
{
    if (l->fd >= 0) {
        unlink(l->path); /* while it is held: nobody else can have taken it */
        close(l->fd);
    }
    xfree(l->path);
    *l = (struct lock){.fd = -1};
}

bool lock_is_held(const char *db_path, struct lock_owner *owner)
{
    char *path = lock_path(db_path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    xfree(path);
    *owner = (struct lock_owner){0};
    if (fd < 0)
        return false;
    bool is_held = flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    if (is_held)
        read_owner(fd, owner);
    close(fd);
    return is_held;
}
