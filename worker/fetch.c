#include "worker/fetch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sha256.h"

static const int64_t again_ns = 5 * CLOCK_NS_PER_S; /* a part that does not come */
enum { MAX_TRIES = 3, MAX_FILES_OF_ONE = 4 };

struct wanted {
    char *path, *part; /* where it goes, and where it is put together */
    char sha256[SHA256_HEX];
    int64_t bytes, got, asked_ns;
    int n_tries; /* that ended with something else than the file */
    bool is_here, is_hopeless;
};

struct fetch {
    char *dir;
    struct wanted *v;
    int n;
};

struct fetch *fetch_new(const char *dir)
{
    struct fetch *f = xcalloc(1, sizeof(*f));
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (dir != NULL)
        f->dir = xstrdup(dir);
    else if (cache != NULL && cache[0] == '/')
        f->dir = xasprintf("%s/isobit/data", cache);
    else
        f->dir = xasprintf("%s/.cache/isobit/data", home != NULL ? home : "");
    return f;
}

void fetch_free(struct fetch *f)
{
    if (f == NULL)
        return;
    for (int i = 0; i < f->n; i++) {
        if (!f->v[i].is_here)
            unlink(f->v[i].part);
        xfree(f->v[i].path);
        xfree(f->v[i].part);
    }
    xfree(f->v);
    xfree(f->dir);
    xfree(f);
}

/* ---- what an evaluation needs ---- */

static struct wanted *wanted_of(struct fetch *f, const char *path)
{
    for (int i = 0; i < f->n; i++)
        if (strcmp(f->v[i].path, path) == 0)
            return &f->v[i];
    f->v = xrealloc(f->v, (size_t)(f->n + 1) * sizeof(*f->v));
    f->v[f->n] = (struct wanted){.path = xstrdup(path),
                                 .part = xasprintf("%s.part%ld", path, (long)getpid())};
    return &f->v[f->n++];
}

static bool is_plain_name(const char *name)
{
    return name[0] != '\0' && name[0] != '.' && strchr(name, '/') == NULL;
}

/* One member of `files`; false when it cannot be what the coordinator meant. */
static bool read_file_offer(const json_t *offer, const char **name, const char **sha256,
                            int64_t *bytes)
{
    *name = json_opt_str(offer, "name", "");
    *sha256 = json_opt_str(offer, "sha256", "");
    *bytes = json_opt_int(offer, "bytes", -1);
    return is_plain_name(*name) && strlen(*sha256) == 64 &&
           strspn(*sha256, "0123456789abcdef") == 64 && *bytes >= 0 && *bytes <= WIRE_MAX_FILE;
}

/* The folder of a set of files; NULL when the offer is not well-formed. Caller frees. */
static char *folder_of(const struct fetch *f, const json_t *files)
{
    struct sha256 *h = sha256_new();
    char hex[SHA256_HEX];
    size_t i = 0, n = json_array_size(files);
    json_t *offer = NULL;
    bool is_fine = n > 0 && n <= MAX_FILES_OF_ONE;
    json_array_foreach(files, i, offer)
    {
        const char *name = NULL, *sha256 = NULL;
        int64_t bytes = 0;
        is_fine = is_fine && read_file_offer(offer, &name, &sha256, &bytes);
        if (is_fine)
            sha256_add(h, sha256, 64);
    }
    sha256_finish(h, hex);
    return is_fine ? xasprintf("%s/%.32s", f->dir, hex) : NULL;
}

/* A file in the cache has been compared with its hash when it got its name. */
static struct wanted *want(struct fetch *f, const char *folder, const json_t *offer)
{
    const char *name = NULL, *sha256 = NULL;
    int64_t bytes = 0;
    CHECK(read_file_offer(offer, &name, &sha256, &bytes));
    char *path = xasprintf("%s/%s", folder, name);
    struct wanted *w = wanted_of(f, path);
    memcpy(w->sha256, sha256, SHA256_HEX);
    w->bytes = bytes;
    w->is_here = io_file_size(path) == bytes;
    xfree(path);
    return w;
}

enum fetch_state fetch_prepare(struct fetch *f, json_t *eval)
{
    const json_t *files = json_object_get(eval, "files");
    char *folder = NULL;
    if (json_array_size(files) == 0 || io_exists(json_opt_str(eval, "data_path", "")) ||
        (folder = folder_of(f, files)) == NULL)
        return FETCH_READY;
    bool is_here = true, is_hopeless = false;
    size_t i = 0;
    json_t *offer = NULL;
    json_array_foreach(files, i, offer)
    {
        const struct wanted *w = want(f, folder, offer);
        is_here &= w->is_here;
        is_hopeless |= w->is_hopeless;
    }
    if (is_here) {
        char *path = xasprintf("%s/%s", folder, json_opt_str(json_array_get(files, 0), "name", ""));
        json_object_set_new(eval, "data_path", json_string(path));
        xfree(path);
    }
    xfree(folder);
    return is_here || is_hopeless ? FETCH_READY : FETCH_WAITING;
}

/* ---- asking and taking ---- */

static struct wanted *next_wanted(struct fetch *f)
{
    for (int i = 0; i < f->n; i++)
        if (!f->v[i].is_here && !f->v[i].is_hopeless)
            return &f->v[i];
    return NULL;
}

json_t *fetch_request(struct fetch *f, int64_t now_ns, int64_t *next_ns)
{
    struct wanted *w = next_wanted(f);
    *next_ns = INT64_MAX;
    if (w == NULL)
        return NULL;
    *next_ns = w->asked_ns + again_ns - now_ns;
    if (w->asked_ns != 0 && *next_ns > 0)
        return NULL;
    w->asked_ns = now_ns;
    *next_ns = again_ns;
    return json_pack("{s:s, s:I}", "sha256", w->sha256, "offset", (json_int_t)w->got);
}

static void start_over(struct wanted *w, const char *why)
{
    log_event(LOG_WARN, "fetch", "failed", "file=%s text=\"%s\"", w->path, why);
    unlink(w->part);
    w->got = 0;
    w->is_hopeless = ++w->n_tries >= MAX_TRIES;
}

static enum err_code append_part(struct wanted *w, const struct wire_frame *blob, struct err *e)
{
    char *folder = io_dirname(w->path);
    enum err_code rc = io_make_dirs(folder, e);
    xfree(folder);
    TRY(rc);
    int fd = open(w->part, O_WRONLY | O_CREAT | O_CLOEXEC | (w->got == 0 ? O_TRUNC : 0), 0666);
    if (fd < 0)
        return err_set_errno(e, errno, "cannot write %s", w->part);
    ssize_t n = pwrite(fd, blob->data, blob->size, w->got);
    int why = errno;
    close(fd);
    if (n != (ssize_t)blob->size)
        return err_set_errno(e, n < 0 ? why : ENOSPC, "cannot write %s", w->part);
    w->got += n;
    return ERR_OK;
}

/* Later runs trust the name and the size: what has the name must be on the disk. */
static enum err_code flush(const char *path, struct err *e)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    const int rc = fd >= 0 ? fsync(fd) : -1, saved = errno;
    if (fd >= 0)
        close(fd);
    return rc == 0 ? ERR_OK : err_set_errno(e, saved, "cannot write %s", path);
}

static enum err_code finish(struct wanted *w, struct err *e)
{
    char hex[SHA256_HEX];
    TRY(sha256_file(w->part, hex, e));
    if (strcmp(hex, w->sha256) != 0)
        return err_set(e, ERR_FORMAT, "what came has SHA-256 %s, not %s", hex, w->sha256);
    TRY(flush(w->part, e));
    if (rename(w->part, w->path) != 0)
        return err_set_errno(e, errno, "cannot rename %s", w->part);
    w->is_here = true;
    log_event(LOG_INFO, "fetch", "here", "file=%s bytes=%lld", w->path, (long long)w->bytes);
    return ERR_OK;
}

void fetch_take(struct fetch *f, const struct wire_msg *m)
{
    struct wanted *w = next_wanted(f);
    struct err e;
    if (w == NULL || strcmp(json_opt_str(m->body, "sha256", ""), w->sha256) != 0 ||
        json_opt_int(m->body, "offset", -1) != w->got)
        return;      /* an answer to a question asked twice */
    w->asked_ns = 0; /* the next part at once */
    if (json_opt_str(m->body, "code", NULL) != NULL) {
        start_over(w, json_opt_str(m->body, "text", "refused"));
        return;
    }
    bool is_fitting = m->n_blobs == 1 && (int64_t)m->blobs[0].size <= w->bytes - w->got &&
                      (m->blobs[0].size > 0 || w->bytes == 0) &&
                      json_opt_int(m->body, "total", -1) == w->bytes;
    enum err_code rc =
        is_fitting ? append_part(w, &m->blobs[0], &e)
                   : err_set(&e, ERR_FORMAT, "a part that does not fit a file of %lld bytes",
                             (long long)w->bytes);
    if (rc == ERR_OK && w->got == w->bytes)
        rc = finish(w, &e);
    if (rc != ERR_OK)
        start_over(w, e.text);
}
