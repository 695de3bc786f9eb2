/* What torch.save has written since version 1.6: a zip archive of stored entries under one top folder, whose name
 * varies (the file's name without its ending, "archive", …):
 *
 *      TOP/data.pkl      the state dict as a pickle: names, shapes, strides, storage keys (pickle.h)
 *      TOP/byteorder     "little" or "big"; absent in older files, which are little
 *      TOP/data/KEY      the elements of storage KEY; several tensors may view one storage
 *      TOP/version …     not needed
 */
#include "worker/ckpt/torchbin.h"

#include <string.h>

#include "worker/ckpt/pickle.h"
#include "worker/ckpt/tensor_check.h"
#include "worker/ckpt/zipdir.h"

enum { PICKLE_MAX = 16 << 20 };

struct archive {
    const struct io_map *file;
    const char *path;
    struct zip_entry *entries;
    size_t n_entries;
    struct str top; /* "pytorch_model" */
};

/* Before 1.6 a file was a bare pickle followed by raw storages, before 0.1.11 a tar archive. */
static enum err_code check_container(const struct io_map *file, const char *path, struct err *e)
{
    static const char zip_magic[] = "PK\003\004";
    if (file->size > 4 && memcmp(file->data, zip_magic, 4) == 0)
        return ERR_OK;
    bool is_pickle = file->size > 1 && file->data[0] == 0x80 && file->data[1] <= 5;
    bool is_tar = file->size > 262 && memcmp(file->data + 257, "ustar", 5) == 0;
    if (is_pickle || is_tar)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: written by torch before version 1.6, without a zip archive, which is "
                       "not read; use the "
                       "safetensors version of this checkpoint",
                       path);
    return err_set(
        e, ERR_FORMAT,
        "%s: offset 0: expected the zip archive that torch.save writes; %zu bytes, damaged or "
        "incomplete: download it again",
        path, file->size);
}

/* The folder of the only TOP/data.pkl. */
static enum err_code find_top(struct archive *z, struct err *e)
{
    for (size_t i = 0; i < z->n_entries; i++) {
        struct str name = str_of(z->entries[i].name);
        const char *slash = name.n > 0 ? memchr(name.p, '/', name.n) : NULL;
        if (slash == NULL || strcmp(slash, "/data.pkl") != 0)
            continue;
        if (z->top.p != NULL)
            return err_set(e, ERR_FORMAT, "%s: entries %.*s/data.pkl and %s, expected one", z->path,
                           (int)z->top.n, z->top.p, name.p);
        z->top = (struct str){name.p, (size_t)(slash - name.p)};
    }
    if (z->top.p == NULL)
        return err_set(e, ERR_FORMAT, "%s: no entry <folder>/data.pkl; not written by torch.save",
                       z->path);
    return ERR_OK;
}

/* NULL: absent. */
static const struct zip_entry *find_entry(const struct archive *z, const char *folder,
                                          const char *name)
{
    char *full = xasprintf("%.*s/%s%s", (int)z->top.n, z->top.p, folder, name);
    const struct zip_entry *entry = zipdir_find(z->entries, z->n_entries, full);
    xfree(full);
    return entry;
}

static struct str bytes_of(const struct archive *z, const struct zip_entry *entry)
{
    return (struct str){(const char *)z->file->data + entry->offset, (size_t)entry->size};
}

static enum err_code check_byteorder(const struct archive *z, struct err *e)
{
    const struct zip_entry *entry = find_entry(z, "", "byteorder");
    if (entry == NULL || str_eqz(bytes_of(z, entry), "little"))
        return ERR_OK;
    return err_set(e, ERR_UNSUPPORTED,
                   "%s: entry %s at offset %llu is not \"little\"; only little-endian checkpoints "
                   "are read: save it "
                   "again on such a machine",
                   z->path, entry->name, (unsigned long long)entry->offset);
}

static enum err_code read_pickle(const struct archive *z, struct arena *a,
                                 struct pickle_tensor **out, size_t *n, struct err *e)
{
    const struct zip_entry *entry = find_entry(z, "", "data.pkl");
    CHECK(entry != NULL);
    if (entry->size == 0 || entry->size > PICKLE_MAX)
        return err_set(e, ERR_FORMAT, "%s: entry %s has %llu bytes, expected 1 to %d", z->path,
                       entry->name, (unsigned long long)entry->size, PICKLE_MAX);
    char *what = xasprintf("%s: %s", z->path, entry->name);
    enum err_code rc = pickle_read(bytes_of(z, entry), what, a, out, n, e);
    xfree(what);
    return rc;
}

/* Everything the pickle says about a tensor's place is checked against the bytes that are there. A view larger
 * than its storage (an expanded tensor) is refused too: it could claim any size. */
static enum err_code place_tensor(const struct archive *z, const struct pickle_tensor *pt,
                                  struct ckpt_tensor *out, struct err *e)
{
    const struct zip_entry *entry = find_entry(z, "data/", pt->storage);
    if (entry == NULL)
        return err_set(e, ERR_FORMAT,
                       "its storage, entry %.*s/data/%s, is missing; download the file again",
                       (int)z->top.n, z->top.p, pt->storage);
    size_t bytes = 0;
    if (!size_mul((size_t)pt->storage_count, (size_t)pt->type->bytes, &bytes) ||
        bytes != entry->size)
        return err_set(e, ERR_FORMAT,
                       "entry %s at offset %llu has %llu bytes, expected %lld elements of %s; "
                       "damaged: download the "
                       "file again",
                       entry->name, (unsigned long long)entry->offset,
                       (unsigned long long)entry->size, (long long)pt->storage_count,
                       pt->type->name);
    int64_t end = 0;
    TRY(tensor_extent(&pt->t, pt->first, &end, e));
    if (end > pt->storage_count || pt->t.count > pt->storage_count)
        return err_set(
            e, ERR_FORMAT,
            "it reaches to element %lld with %lld elements, but its storage, entry %s, has %lld",
            (long long)end, (long long)pt->t.count, entry->name, (long long)pt->storage_count);
    *out = pt->t;
    out->offset = entry->offset + (uint64_t)pt->first * (uint64_t)pt->type->bytes;
    out->data = z->file->data + out->offset;
    return ERR_OK;
}

static enum err_code read_archive(struct archive *z, struct arena *a, struct arena *scratch,
                                  struct ckpt_tensor **out, int *n, struct err *e)
{
    struct pickle_tensor *pt = NULL;
    size_t count = 0;
    TRY(zipdir_read(z->file, z->path, scratch, &z->entries, &z->n_entries, e));
    TRY(find_top(z, e));
    TRY(check_byteorder(z, e));
    TRY(read_pickle(z, a, &pt, &count, e));
    struct ckpt_tensor *t = arena_array(a, count, sizeof(*t));
    for (size_t i = 0; i < count; i++)
        if (place_tensor(z, &pt[i], &t[i], e) != ERR_OK)
            return err_wrap(e, "%s: tensor \"%s\"", z->path, pt[i].t.name);
    *out = t;
    *n = (int)count;
    return ERR_OK;
}

enum err_code torchbin_read(const struct io_map *file, const char *path, struct arena *a,
                            struct ckpt_tensor **out, int *n, struct err *e)
{
    struct archive z = {.file = file, .path = path};
    struct arena scratch = {0};
    TRY(check_container(file, path, e));
    enum err_code rc = read_archive(&z, a, &scratch, out, n, e);
    arena_release(&scratch);
    return rc;
}
