#include "tests/support/support.h"

#include <dirent.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"

static const char *in_ring(const char *root, const char *rel)
{
    static char ring[8][1024];
    static int next;
    char *s = ring[next++ % 8];
    snprintf(s, sizeof(ring[0]), "%s/%s", root, rel);
    return s;
}

const char *support_shared(const char *rel)
{
    const char *root = getenv("ISOBIT_SHARED");
    const char *path = in_ring(root != NULL ? root : TEST_SHARED_DIR, rel);
    if (io_exists(path))
        return path;
    fprintf(stderr, "SKIPPED: %s is absent (set ISOBIT_SHARED)\n", path);
    return NULL;
}

const char *support_source(const char *rel)
{
    return in_ring(TEST_SOURCE_DIR, rel);
}

char *support_tmpdir(void)
{
    char *dir = xstrdup("/tmp/isobit-test-XXXXXX");
    CHECK(mkdtemp(dir) != NULL);
    return dir;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

void support_tmpdir_remove(char *dir)
{
    CHECK(strncmp(dir, "/tmp/isobit-test-", 17) == 0);
    nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    xfree(dir);
}

void support_write(const char *path, const void *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    CHECK(f != NULL && fwrite(data, 1, n, f) == n && fclose(f) == 0);
}

static void slurp(const char *path, struct buf *out)
{
    struct err e;
    CHECK(io_read_file(path, (size_t)64 << 20, out, &e) == ERR_OK);
}

struct support_run support_shell(const char *command)
{
    char *dir = support_tmpdir();
    char *line = xasprintf("exec >%s/out 2>%s/err </dev/null; PATH=%s:$PATH; %s", dir, dir,
                           TEST_BIN_DIR, command);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        execl("/bin/bash", "bash", "-c", line, (char *)NULL);
        _exit(127);
    }
    int st = 0;
    CHECK(waitpid(pid, &st, 0) == pid);
    struct support_run r = {.status = WIFEXITED(st) ? WEXITSTATUS(st) : 128 + WTERMSIG(st)};
    slurp(in_ring(dir, "out"), &r.out);
    slurp(in_ring(dir, "err"), &r.err);
    xfree(line);
    support_tmpdir_remove(dir);
    return r;
}

void support_run_release(struct support_run *r)
{
    buf_release(&r->out);
    buf_release(&r->err);
}
