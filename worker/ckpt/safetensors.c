/* A .safetensors file, all of it:
 *
 *      0         8                     8 + n                                    end
 *      | n: u64  | header: n bytes     | data                                   |
 *
 *   n       little endian, at most 16 MiB (the format allows 100 MB, of which a parser would make gigabytes; 500
 *           tensors take 50 kB)
 *   header  one JSON object, first byte '{', padded at the end with spaces:
 *             { "__metadata__": {string: string, …},                              optional
 *               "NAME": { "dtype": "F16", "shape": [64, 192], "data_offsets": [b, e] }, … }
 *   data    tensor NAME is bytes [b, e) of data, row-major, little endian
 *
 * A file is valid when, with the tensors sorted by b,
 *   (1) the first b is 0, every b is the e before it, the last e is the length of data: no hole, no overlap,
 *       no byte that belongs to nothing;
 *   (2) e - b is the product of the shape times the size of an element;
 *   (3) no name appears twice (base/json refuses duplicate keys). */
#include "worker/ckpt/safetensors.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "worker/ckpt/tensor_check.h"

enum { LENGTH_BYTES = 8, HEADER_MAX = 16 << 20 };

static uint64_t read_u64(const unsigned char *p)
{
    uint64_t v = 0;
    for (int i = 7; i >= 0; i--)
        v = v << 8 | p[i];
    return v;
}

static enum err_code find_header(const struct io_map *file, const char *path, struct str *header,
                                 struct err *e)
{
    if (file->size < LENGTH_BYTES)
        return err_set(
            e, ERR_FORMAT,
            "%s: %zu bytes, expected at least the 8 of the header's length; download it again",
            path, file->size);
    uint64_t n = read_u64(file->data);
    if (n > HEADER_MAX)
        return err_set(
            e, ERR_FORMAT,
            "%s: offset 0: header length %llu, expected at most %d; not a safetensors file, "
            "or damaged: download it again",
            path, (unsigned long long)n, HEADER_MAX);
    if (n > file->size - LENGTH_BYTES)
        return err_set(e, ERR_FORMAT,
                       "%s: offset 0: header length %llu, but only %zu bytes follow; truncated: "
                       "download it again",
                       path, (unsigned long long)n, file->size - LENGTH_BYTES);
    *header = (struct str){(const char *)file->data + LENGTH_BYTES, (size_t)n};
    if (n == 0 || header->p[0] != '{')
        return err_set(e, ERR_FORMAT, "%s: offset 8: expected the '{' of the JSON header", path);
    return ERR_OK;
}

/* Reads array `key` of non-negative integers into v[max]; *n is its full length, also beyond max. */
static enum err_code read_ints(const json_t *entry, const char *key, int64_t *v, size_t max,
                               size_t *n, struct err *e)
{
    json_t *list = NULL;
    TRY(json_need_arr(entry, key, "header", &list, e));
    *n = json_array_size(list);
    for (size_t i = 0; i < *n && i < max; i++) {
        const json_t *x = json_array_get(list, i);
        if (!json_is_integer(x) || json_integer_value(x) < 0)
            return err_set(e, ERR_FORMAT, "\"%s\"[%zu] must be an integer of 0 or more", key, i);
        v[i] = json_integer_value(x);
    }
    return ERR_OK;
}

/* `begin` becomes the tensor's offset within data. */
static enum err_code read_entry(const json_t *entry, int64_t data_bytes, struct ckpt_tensor *t,
                                struct err *e)
{
    const char *dtype = NULL;
    int64_t shape[CKPT_MAX_DIMS] = {0};
    int64_t span[2] = {0};
    size_t n_dims = 0;
    size_t n_span = 0;
    if (!json_is_object(entry))
        return err_set(e, ERR_FORMAT, "expected an object with dtype, shape and data_offsets");
    TRY(json_need_str(entry, "dtype", "header", &dtype, e));
    const struct tensor_type *type = tensor_type_find(dtype);
    if (type == NULL)
        return err_set(e, ERR_FORMAT,
                       "unknown dtype \"%.32s\", expected F16, BF16, F32 or an integer type",
                       dtype);
    TRY(read_ints(entry, "shape", shape, CKPT_MAX_DIMS, &n_dims, e));
    TRY(tensor_set_shape(t, shape, n_dims, e));
    TRY(read_ints(entry, "data_offsets", span, 2, &n_span, e));
    if (n_span != 2 || span[1] < span[0] || span[1] > data_bytes)
        return err_set(
            e, ERR_FORMAT,
            "data_offsets [%lld, %lld], expected [begin, end] with begin <= end <= %lld, the "
            "bytes of data in the file; damaged or truncated: download it again",
            (long long)span[0], (long long)span[1], (long long)data_bytes);
    size_t bytes = 0;
    if (!size_mul((size_t)t->count, (size_t)type->bytes, &bytes) ||
        bytes != (size_t)(span[1] - span[0]))
        return err_set(
            e, ERR_FORMAT,
            "data_offsets [%lld, %lld] hold %lld bytes, but %lld elements of %s need %d each",
            (long long)span[0], (long long)span[1], (long long)(span[1] - span[0]),
            (long long)t->count, type->name, type->bytes);
    t->dtype = type->dtype;
    t->stored_as = type->name;
    t->offset = (uint64_t)span[0];
    return ERR_OK;
}

static uint64_t end_of(const struct ckpt_tensor *t)
{
    return t->offset + (uint64_t)t->count * (uint64_t)tensor_type_find(t->stored_as)->bytes;
}

/* Empty tensors come before the tensor that begins at the same byte. */
static int by_place(const void *pa, const void *pb)
{
    const struct ckpt_tensor *a = pa;
    const struct ckpt_tensor *b = pb;
    if (a->offset != b->offset)
        return a->offset < b->offset ? -1 : 1;
    return (a->count > b->count) - (a->count < b->count);
}

/* Rule (1). */
static enum err_code check_coverage(const struct ckpt_tensor *t, int n, uint64_t data_bytes,
                                    const char *path, struct err *e)
{
    uint64_t at = 0;
    for (int i = 0; i < n; i++) {
        if (t[i].offset != at)
            return err_set(
                e, ERR_FORMAT,
                "%s: tensor \"%s\" begins at data offset %llu, expected %llu: %s; damaged: "
                "download it again",
                path, t[i].name, (unsigned long long)t[i].offset, (unsigned long long)at,
                t[i].offset < at ? "it overlaps the tensor before it"
                                 : "the bytes between belong to no tensor");
        at = end_of(&t[i]);
    }
    if (at != data_bytes)
        return err_set(
            e, ERR_FORMAT,
            "%s: the tensors end at data offset %llu, but the file has %llu bytes of data; "
            "damaged: download it again",
            path, (unsigned long long)at, (unsigned long long)data_bytes);
    return ERR_OK;
}

static enum err_code read_entries(json_t *doc, const char *path, size_t data_bytes, struct arena *a,
                                  struct ckpt_tensor **out, int *n, struct err *e)
{
    size_t n_keys = json_object_size(doc);
    if (n_keys > INT_MAX)
        return err_set(e, ERR_FORMAT, "%s: %zu tensors are too many", path, n_keys);
    struct ckpt_tensor *t = arena_array(a, n_keys, sizeof(*t));
    int used = 0;
    const char *name;
    json_t *entry;
    json_object_foreach(doc, name, entry)
    {
        if (strcmp(name, "__metadata__") == 0)
            continue;
        if (tensor_check_name(str_of(name), e) != ERR_OK)
            return err_wrap(e, "%s", path);
        if (read_entry(entry, (int64_t)data_bytes, &t[used], e) != ERR_OK)
            return err_wrap(e, "%s: tensor \"%s\"", path, name);
        t[used++].name = arena_strdup(a, name);
    }
    *out = t;
    *n = used;
    return ERR_OK;
}

enum err_code safetensors_read(const struct io_map *file, const char *path, struct arena *a,
                               struct ckpt_tensor **out, int *n, struct err *e)
{
    struct str header = {0};
    json_t *doc = NULL;
    struct ckpt_tensor *t = NULL;
    int count = 0;
    TRY(find_header(file, path, &header, e));
    TRY(json_parse(header, path, &doc, e));
    size_t data_at = LENGTH_BYTES + header.n;
    enum err_code rc = read_entries(doc, path, file->size - data_at, a, &t, &count, e);
    json_decref(doc);
    if (rc != ERR_OK)
        return rc;
    qsort(t, (size_t)count, sizeof(*t), by_place);
    TRY(check_coverage(t, count, file->size - data_at, path, e));
    for (int i = 0; i < count; i++) {
        t[i].offset += data_at;
        t[i].data = file->data + t[i].offset;
    }
    *out = t;
    *n = count;
    return ERR_OK;
}
