#include "coordinator/files.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "schema/wire.h"

void files_release(struct files *f)
{
    for (int i = 0; i < f->n; i++)
        xfree(f->v[i].path);
    xfree(f->v);
    *f = (struct files){0};
}

static struct file_entry *entry_of(struct files *f, const char *path)
{
    for (int i = 0; i < f->n; i++)
        if (strcmp(f->v[i].path, path) == 0)
            return &f->v[i];
    f->v = xrealloc(f->v, (size_t)(f->n + 1) * sizeof(*f->v));
    f->v[f->n] = (struct file_entry){.path = xstrdup(path), .bytes = -1};
    return &f->v[f->n++];
}

/* The file as it is now; NULL when it cannot be offered. */
static const struct file_entry *look_at(struct files *f, const char *path)
{
    struct stat st;
    struct err e;
    if (stat(path, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size > WIRE_MAX_FILE)
        return NULL;
    struct file_entry *entry = entry_of(f, path);
    int64_t changed_ns = (int64_t)st.st_mtim.tv_sec * CLOCK_NS_PER_S + st.st_mtim.tv_nsec;
    if (entry->bytes == st.st_size && entry->changed_ns == changed_ns)
        return entry;
    entry->bytes = -1;
    if (sha256_file(path, entry->sha256, &e) != ERR_OK) {
        log_event(LOG_WARN, "files", "unreadable", "text=\"%s\"", e.text);
        return NULL;
    }
    entry->bytes = st.st_size;
    entry->changed_ns = changed_ns;
    return entry;
}

static void append_offer(json_t *offer, const struct file_entry *entry)
{
    const char *slash = strrchr(entry->path, '/');
    json_t *o = json_pack("{s:s, s:s, s:I}", "name", slash != NULL ? slash + 1 : entry->path,
                          "sha256", entry->sha256, "bytes", (json_int_t)entry->bytes);
    if (o != NULL) /* a name that is no UTF-8 cannot be told */
        json_array_append_new(offer, o);
}

json_t *files_offer(struct files *f, const struct eval_spec *v)
{
    const struct file_entry *entry = look_at(f, v->data_path);
    if (entry == NULL)
        return NULL;
    json_t *offer = json_array();
    append_offer(offer, entry);
    char *labels = eval_labels_path(v->data_path);
    entry = look_at(f, labels);
    if (entry != NULL)
        append_offer(offer, entry);
    xfree(labels);
    return offer;
}

static enum err_code read_part(const struct file_entry *entry, int64_t offset,
                               struct files_part *out, struct err *e)
{
    if (offset < 0 || offset > entry->bytes)
        return err_set(e, ERR_FORMAT, "FETCH: offset %lld of a file of %lld bytes",
                       (long long)offset, (long long)entry->bytes);
    int fd = open(entry->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_set_errno(e, errno, "cannot read %s", entry->path);
    void *data = xmalloc(FILES_CHUNK);
    ssize_t n = pread(fd, data, FILES_CHUNK, offset);
    int why = errno;
    close(fd);
    if (n < 0) {
        xfree(data);
        return err_set_errno(e, why, "cannot read %s", entry->path);
    }
    *out = (struct files_part){.data = data, .n = (size_t)n, .total = entry->bytes};
    return ERR_OK;
}

enum err_code files_read(struct files *f, const char *sha256, int64_t offset,
                         struct files_part *out, struct err *e)
{
    for (int i = 0; i < f->n; i++)
        if (f->v[i].bytes >= 0 && strcmp(f->v[i].sha256, sha256) == 0)
            return read_part(&f->v[i], offset, out, e);
    return err_set(e, ERR_NOTFOUND, "no data file with SHA-256 %.64s was offered", sha256);
}
