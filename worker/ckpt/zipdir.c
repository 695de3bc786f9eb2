/* A zip archive as torch.save writes it:
 *
 *      | local header, padding | bytes of entry 0 | … | central directory | end record(s) |
 *
 * The central directory tells names and sizes; the bytes of an entry begin behind its local header, whose length
 * varies because torch pads it to align the bytes. libzip reads all of this, 64-bit forms included, but does not
 * tell where an entry begins. So libzip reads through a source of ours over the mapped file: the place where it
 * fetches an entry's first byte is what we look for. */
#include "worker/ckpt/zipdir.h"

#include <stdlib.h>
#include <string.h>
#include <zip.h>

enum { ENTRIES_MAX = 50000 };

struct source {
    const struct io_map *file;
    uint64_t at;
    bool is_watching;
    uint64_t first_read; /* place of the first read since is_watching was set */
    zip_error_t error;
};

static zip_int64_t source_read(struct source *s, void *data, zip_uint64_t len)
{
    uint64_t left = s->file->size - s->at;
    uint64_t n = len < left ? len : left;
    if (s->is_watching) {
        s->first_read = s->at;
        s->is_watching = false;
    }
    if (n > 0)
        memcpy(data, s->file->data + s->at, n);
    s->at += n;
    return (zip_int64_t)n;
}

static zip_int64_t source_seek(struct source *s, void *data, zip_uint64_t len)
{
    zip_int64_t to = zip_source_seek_compute_offset(s->at, s->file->size, data, len, &s->error);
    if (to < 0)
        return -1;
    s->at = (uint64_t)to;
    return 0;
}

static zip_int64_t source_stat(const struct source *s, zip_stat_t *st)
{
    zip_stat_init(st);
    st->size = s->file->size;
    st->valid = ZIP_STAT_SIZE;
    return sizeof(*st);
}

/* libzip's commands are an enum that grows with its versions: what is not listed is refused. */
static zip_int64_t source_run(void *self, void *data, zip_uint64_t len, zip_source_cmd_t cmd)
{
    struct source *s = self;
    switch ((int)cmd) {
    case ZIP_SOURCE_OPEN:
        s->at = 0;
        return 0;
    case ZIP_SOURCE_READ:
        return source_read(s, data, len);
    case ZIP_SOURCE_SEEK:
        return source_seek(s, data, len);
    case ZIP_SOURCE_TELL:
        return (zip_int64_t)s->at;
    case ZIP_SOURCE_STAT:
        return source_stat(s, data);
    case ZIP_SOURCE_ERROR:
        return zip_error_to_data(&s->error, data, len);
    case ZIP_SOURCE_CLOSE:
    case ZIP_SOURCE_FREE:
        return 0;
    case ZIP_SOURCE_SUPPORTS:
        return zip_source_make_command_bitmap(
            ZIP_SOURCE_OPEN, ZIP_SOURCE_READ, ZIP_SOURCE_CLOSE, ZIP_SOURCE_STAT, ZIP_SOURCE_ERROR,
            ZIP_SOURCE_FREE, ZIP_SOURCE_SEEK, ZIP_SOURCE_TELL, ZIP_SOURCE_SUPPORTS, -1);
    default:
        zip_error_set(&s->error, ZIP_ER_OPNOTSUPP, 0);
        return -1;
    }
}

/* *zip is NULL on an error. The source lives as long as the archive. */
static enum err_code open_archive(struct source *s, const char *path, zip_t **zip, struct err *e)
{
    zip_error_t ze;
    zip_error_init(&ze);
    zip_source_t *src = zip_source_function_create(source_run, s, &ze);
    *zip = src != NULL ? zip_open_from_source(src, ZIP_RDONLY, &ze) : NULL;
    enum err_code rc = ERR_OK;
    if (*zip == NULL) {
        rc = err_set(e, ERR_FORMAT,
                     "%s: not a readable zip archive (%s); damaged or truncated: download it again",
                     path, zip_error_strerror(&ze));
        zip_source_free(src);
    }
    zip_error_fini(&ze);
    return rc;
}

/* Names of entries go into errors; torch writes plain ones. */
static bool is_printable(const char *s)
{
    for (; *s != '\0'; s++)
        if (*s < ' ' || *s > '~')
            return false;
    return true;
}

static enum err_code check_stat(const zip_stat_t *st, const char *path, size_t file_size,
                                struct err *e)
{
    const zip_uint64_t needed =
        ZIP_STAT_NAME | ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE | ZIP_STAT_COMP_METHOD;
    if ((st->valid & needed) != needed || strlen(st->name) > 255 || !is_printable(st->name))
        return err_set(e, ERR_FORMAT,
                       "%s: entry %llu of the zip directory has no plain name and sizes", path,
                       (unsigned long long)st->index);
    if (st->comp_method != ZIP_CM_STORE ||
        ((st->valid & ZIP_STAT_ENCRYPTION_METHOD) != 0 && st->encryption_method != ZIP_EM_NONE))
        return err_set(
            e, ERR_UNSUPPORTED,
            "%s: entry %s is compressed or encrypted, expected stored entries as torch.save writes "
            "them; save the checkpoint again or convert it to safetensors",
            path, st->name);
    if (st->size != st->comp_size || st->size > file_size)
        return err_set(
            e, ERR_FORMAT,
            "%s: entry %s declares %llu bytes in %llu, expected the same number, within the file's "
            "%zu; damaged: download it again",
            path, st->name, (unsigned long long)st->size, (unsigned long long)st->comp_size,
            file_size);
    return ERR_OK;
}

/* Lets libzip read the first byte of entry `i` and takes note where it was. */
static enum err_code locate(zip_t *zip, struct source *s, zip_uint64_t i, struct zip_entry *entry,
                            const char *path, struct err *e)
{
    unsigned char first = 0;
    if (entry->size == 0)
        return ERR_OK;
    zip_file_t *f = zip_fopen_index(zip, i, 0);
    s->is_watching = true;
    zip_int64_t got = f != NULL ? zip_fread(f, &first, 1) : -1;
    bool was_read = got == 1 && !s->is_watching;
    s->is_watching = false;
    if (f != NULL)
        zip_fclose(f);
    if (!was_read || entry->size > s->file->size - s->first_read ||
        s->file->data[s->first_read] != first)
        return err_set(e, ERR_FORMAT,
                       "%s: entry %s: its %llu bytes are not where the zip directory says; damaged "
                       "or truncated: "
                       "download it again",
                       path, entry->name, (unsigned long long)entry->size);
    entry->offset = s->first_read;
    return ERR_OK;
}

static int by_offset(const void *pa, const void *pb)
{
    const struct zip_entry *a = pa;
    const struct zip_entry *b = pb;
    return (a->offset > b->offset) - (a->offset < b->offset);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct zip_entry *)a)->name, ((const struct zip_entry *)b)->name);
}

/* Many names for the same bytes are how a small archive becomes a large one. */
static enum err_code refuse_overlap(struct zip_entry *entries, size_t n, const char *path,
                                    struct err *e)
{
    uint64_t end = 0;
    qsort(entries, n, sizeof(*entries), by_offset);
    for (size_t i = 0; i < n; i++) {
        if (entries[i].offset < end && entries[i].size > 0)
            return err_set(e, ERR_FORMAT, "%s: entry %s at offset %llu overlaps the one before it",
                           path, entries[i].name, (unsigned long long)entries[i].offset);
        end = entries[i].size > 0 ? entries[i].offset + entries[i].size : end;
    }
    return ERR_OK;
}

static enum err_code read_entries(zip_t *zip, struct source *s, const char *path, struct arena *a,
                                  struct zip_entry **out, size_t *n, struct err *e)
{
    zip_int64_t count = zip_get_num_entries(zip, 0);
    if (count < 1 || count > ENTRIES_MAX)
        return err_set(e, ERR_FORMAT, "%s: %lld zip entries, expected 1 to %d", path,
                       (long long)count, ENTRIES_MAX);
    struct zip_entry *entries = arena_array(a, (size_t)count, sizeof(*entries));
    for (zip_uint64_t i = 0; i < (zip_uint64_t)count; i++) {
        zip_stat_t st;
        zip_stat_init(&st);
        if (zip_stat_index(zip, i, 0, &st) != 0)
            return err_set(e, ERR_FORMAT, "%s: entry %llu of the zip directory is not readable",
                           path, (unsigned long long)i);
        TRY(check_stat(&st, path, s->file->size, e));
        entries[i] = (struct zip_entry){.name = arena_strdup(a, st.name), .size = st.size};
        TRY(locate(zip, s, i, &entries[i], path, e));
    }
    TRY(refuse_overlap(entries, (size_t)count, path, e));
    qsort(entries, (size_t)count, sizeof(*entries), by_name);
    for (size_t i = 1; i < (size_t)count; i++)
        if (strcmp(entries[i - 1].name, entries[i].name) == 0)
            return err_set(e, ERR_FORMAT, "%s: entry %s appears twice", path, entries[i].name);
    *out = entries;
    *n = (size_t)count;
    return ERR_OK;
}

enum err_code zipdir_read(const struct io_map *file, const char *path, struct arena *a,
                          struct zip_entry **out, size_t *n, struct err *e)
{
    struct source s = {.file = file};
    zip_t *zip = NULL;
    zip_error_init(&s.error);
    enum err_code rc = open_archive(&s, path, &zip, e);
    if (rc == ERR_OK)
        rc = read_entries(zip, &s, path, a, out, n, e);
    if (zip != NULL)
        zip_discard(zip);
    zip_error_fini(&s.error);
    return rc;
}

const struct zip_entry *zipdir_find(const struct zip_entry *entries, size_t n, const char *name)
{
    struct zip_entry key = {.name = name};
    return n == 0 ? NULL : bsearch(&key, entries, n, sizeof(*entries), by_name);
}
