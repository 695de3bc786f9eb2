#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

static enum err_code open_regular(const char *path, int *fd, size_t *size, struct err *e)
{
    int f = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe would wait for a writer */
    if (f < 0)
        return err_set_errno(e, errno, "cannot open %s", path);
    struct stat st;
    if (fstat(f, &st) != 0) {
        int saved = errno;
        close(f);
        return err_set_errno(e, saved, "cannot stat %s", path);
    }
    if (!S_ISREG(st.st_mode)) {
        close(f);
        return err_set(e, ERR_FORMAT, "%s is not a regular file", path);
    }
    *fd = f;
    *size = (size_t)st.st_size;
    return ERR_OK;
}

enum err_code io_read_file(const char *path, size_t max, struct buf *out, struct err *e)
{
    int fd = -1;
    size_t size = 0;
    TRY(open_regular(path, &fd, &size, e));
    enum err_code rc = ERR_OK;
    out->max = max;
    for (;;) {
        char chunk[65536];
        ssize_t n = read(fd, chunk, sizeof(chunk));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            rc = err_set_errno(e, errno, "cannot read %s", path);
        else if (n > 0 && !buf_try_add(out, chunk, (size_t)n))
            rc = err_set(e, ERR_FORMAT, "%s is larger than the %zu bytes allowed here", path, max);
        if (n <= 0 || rc != ERR_OK)
            break;
    }
    close(fd);
    if (rc == ERR_OK)
        buf_add(out, "", 0);
    else
        buf_release(out);
    return rc;
}

void io_last_line(const char *path, char *out, size_t n)
{
    char tail[4096];
    size_t size = 0;
    int fd = -1;
    struct err e;
    out[0] = '\0';
    if (open_regular(path, &fd, &size, &e) != ERR_OK)
        return;
    off_t at = size > sizeof(tail) ? (off_t)(size - sizeof(tail)) : 0;
    ssize_t got = pread(fd, tail, sizeof(tail), at);
    close(fd);
    struct str rest = str_trim((struct str){tail, got > 0 ? (size_t)got : 0}), line = {0};
    while (str_next_line(&rest, &line))
        continue;
    if (line.p != NULL)
        snprintf(out, n, "%.*s", (int)(line.n < n ? line.n : n - 1), line.p);
}

enum err_code io_map_open(const char *path, struct io_map *m, struct err *e)
{
    int fd = -1;
    size_t size = 0;
    TRY(open_regular(path, &fd, &size, e));
    enum err_code rc = ERR_OK;
    *m = (struct io_map){.size = size};
    if (size > 0) {
        void *p = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED)
            rc = err_set_errno(e, errno, "cannot map %s (%zu bytes)", path, size);
        else
            m->data = p;
    }
    close(fd);
    return rc;
}

void io_map_close(struct io_map *m)
{
    if (m->data != NULL)
        CHECK(munmap((void *)(uintptr_t)m->data, m->size) == 0);
    *m = (struct io_map){0};
}

void io_map_forget(const struct io_map *m, size_t at, size_t n)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t first = (at + page - 1) / page * page;
    size_t last = (at + n) / page * page;
    if (m->data != NULL && last > first && last <= m->size)
        (void)madvise((void *)(uintptr_t)(m->data + first), last - first,
                      MADV_DONTNEED); /* a hint */
}

static enum err_code write_all(int fd, const char *data, size_t n, const char *path, struct err *e)
{
    while (n > 0) {
        ssize_t w = write(fd, data, n);
        if (w < 0 && errno == EINTR)
            continue;
        if (w < 0)
            return err_set_errno(e, errno, "cannot write %s", path);
        data += w;
        n -= (size_t)w;
    }
    if (fsync(fd) != 0)
        return err_set_errno(e, errno, "cannot write %s to disk", path);
    return ERR_OK;
}

enum err_code io_write_file(const char *path, const void *data, size_t n, struct err *e)
{
    char *tmp = xasprintf("%s.tmp%ld", path, (long)getpid());
    enum err_code rc = ERR_OK;
    int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) {
        rc = err_set_errno(e, errno, "cannot create %s", path);
        xfree(tmp);
        return rc;
    }
    rc = write_all(fd, data, n, path, e);
    if (close(fd) != 0 && rc == ERR_OK)
        rc = err_set_errno(e, errno, "cannot close %s", path);
    if (rc == ERR_OK && rename(tmp, path) != 0)
        rc = err_set_errno(e, errno, "cannot replace %s", path);
    if (rc != ERR_OK)
        unlink(tmp);
    xfree(tmp);
    return rc;
}

enum err_code io_make_dirs(const char *path, struct err *e)
{
    char *p = xstrdup(path);
    enum err_code rc = ERR_OK;
    for (char *at = p + 1; rc == ERR_OK; at++) {
        char c = *at;
        if (c != '/' && c != '\0')
            continue;
        *at = '\0';
        if (mkdir(p, 0777) != 0 && errno != EEXIST)
            rc = err_set_errno(e, errno, "cannot create directory %s", p);
        *at = c;
        if (c == '\0')
            break;
    }
    if (rc == ERR_OK && !io_is_dir(path))
        rc = err_set(e, ERR_IO, "%s exists and is not a directory", path);
    xfree(p);
    return rc;
}

bool io_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

bool io_is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

int64_t io_file_size(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (int64_t)st.st_size : -1;
}

char *io_dirname(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (slash == NULL)
        return xstrdup(".");
    return slash == path ? xstrdup("/") : xstrndup(path, (size_t)(slash - path));
}

char *io_join(const char *base, const char *path)
{
    return path[0] == '/' ? xstrdup(path) : xasprintf("%s/%s", base, path);
}

char *io_absolute(const char *path)
{
    if (path[0] == '/')
        return xstrdup(path);
    char cwd[4096];
    CHECK(getcwd(cwd, sizeof(cwd)) != NULL);
    return xasprintf("%s/%s", cwd, path);
}

char *io_program_dir(void)
{
    char exe[4096];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
    CHECK(n > 0);
    exe[n] = '\0';
    return io_dirname(exe);
}
