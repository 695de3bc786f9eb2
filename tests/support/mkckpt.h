/* Builds small checkpoints byte by byte, valid ones and broken ones, for tests and fuzz corpora: safetensors, pickles,
 * zip archives with any header a test wants to lie in, directories. Header only. */
#ifndef ISOBIT_TESTS_SUPPORT_MKCKPT_H
#define ISOBIT_TESTS_SUPPORT_MKCKPT_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "base/str.h"
#include "tests/support/support.h"

static inline void mk_uint(struct buf *b, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++, v >>= 8)
        buf_addc(b, (char)(v & 0xff));
}

/* ---- safetensors: | header length | header | data |. ---- */

static inline struct buf mk_safetensors(const char *header, const void *data, size_t n)
{
    struct buf b = {0};
    mk_uint(&b, strlen(header), 8);
    buf_adds(&b, header);
    buf_add(&b, data, n);
    return b;
}

/* ---- pickle, protocol 2: what torch.save writes. ---- */

static inline void mk_text(struct buf *b, const char *z)
{
    buf_addc(b, 'X');
    mk_uint(b, strlen(z), 4);
    buf_adds(b, z);
}

static inline void mk_int(struct buf *b, int64_t v)
{
    if (v >= 0 && v < 256) {
        buf_addc(b, 'K');
        mk_uint(b, (uint64_t)v, 1);
    } else if (v >= INT32_MIN && v <= INT32_MAX) {
        buf_addc(b, 'J');
        mk_uint(b, (uint64_t)v, 4);
    } else {
        buf_add(b, "\x8a\x08", 2);
        mk_uint(b, (uint64_t)v, 8);
    }
}

static inline void mk_global(struct buf *b, const char *module, const char *name)
{
    buf_printf(b, "c%s\n%s\n", module, name);
}

static inline void mk_int_tuple(struct buf *b, const int64_t *v, int n)
{
    buf_addc(b, '(');
    for (int i = 0; i < n; i++)
        mk_int(b, v[i]);
    buf_addc(b, 't');
}

struct mk_tensor {
    const char *name;
    const char *storage_type; /* "HalfStorage" */
    const char *key;          /* "0" */
    int64_t storage_count, first;
    int n_dims;
    int64_t shape[5], stride[5];
};

/* Pushes the tensor. */
static inline void mk_pickle_tensor(struct buf *b, const struct mk_tensor *t)
{
    mk_global(b, "torch._utils", "_rebuild_tensor_v2");
    buf_adds(b, "((");
    mk_text(b, "storage");
    mk_global(b, "torch", t->storage_type);
    mk_text(b, t->key);
    mk_text(b, "cpu");
    mk_int(b, t->storage_count);
    buf_adds(b, "tQ");
    mk_int(b, t->first);
    mk_int_tuple(b, t->shape, t->n_dims);
    mk_int_tuple(b, t->stride, t->n_dims);
    buf_addc(b, '\x89');
    mk_global(b, "collections", "OrderedDict");
    buf_adds(b, ")RtR");
}

/* A plain dict, as save_pretrained writes it today. */
static inline struct buf mk_pickle(const struct mk_tensor *t, int n)
{
    struct buf b = {0};
    buf_add(&b, "\x80\x02}q\x00(", 6);
    for (int i = 0; i < n; i++) {
        mk_text(&b, t[i].name);
        mk_pickle_tensor(&b, &t[i]);
    }
    buf_adds(&b, "u.");
    return b;
}

/* An OrderedDict with `_metadata`, as published files have it. */
static inline struct buf mk_pickle_ordered(const struct mk_tensor *t, int n)
{
    struct buf b = {0};
    buf_add(&b, "\x80\x02", 2);
    mk_global(&b, "collections", "OrderedDict");
    buf_add(&b, "q\x00)Rq\x01(", 7);
    for (int i = 0; i < n; i++) {
        mk_text(&b, t[i].name);
        mk_pickle_tensor(&b, &t[i]);
    }
    buf_adds(&b, "u}");
    mk_text(&b, "_metadata");
    buf_add(&b, "h\x00)R(", 5);
    mk_text(&b, "");
    buf_addc(&b, '}');
    mk_text(&b, "version");
    mk_int(&b, 1);
    buf_adds(&b, "s");
    mk_text(&b, "lm_head");
    buf_addc(&b, '}');
    mk_text(&b, "version");
    mk_int(&b, 2);
    buf_adds(&b, "susb.");
    return b;
}

/* ---- zip: local headers and bytes, central directory, end record. ---- */

static inline uint32_t mk_crc32(const void *data, size_t n)
{
    const unsigned char *p = data;
    uint32_t c = 0xffffffffU;
    for (size_t i = 0; i < n; i++) {
        c ^= p[i];
        for (int k = 0; k < 8; k++)
            c = c >> 1 ^ (0xedb88320U & (0U - (c & 1U)));
    }
    return ~c;
}

struct mk_zip {
    struct buf body, central;
    int n;
};

/* What an entry says of itself when a test wants it to lie; all zero is the truth. */
struct mk_lie {
    int method;            /* 8: deflated */
    uint64_t size;         /* declared, in both places */
    uint64_t central_size; /* declared uncompressed size in the directory only */
    int64_t offset_shift;  /* of the local header in the directory */
};

static inline void mk_zip_add_lying(struct mk_zip *z, const char *name, const void *data, size_t n,
                                    const struct mk_lie *lie)
{
    uint64_t size = lie->size != 0 ? lie->size : n;
    uint64_t total = lie->central_size != 0 ? lie->central_size : size;
    uint32_t crc = mk_crc32(data, n);
    size_t at = z->body.len;
    size_t pad =
        (64 - (at + 30 + strlen(name) + 4) % 64) % 64; /* torch aligns the bytes of an entry */
    buf_adds(&z->body, "PK\003\004");
    mk_uint(&z->body, 20, 2), mk_uint(&z->body, 0, 2), mk_uint(&z->body, (uint64_t)lie->method, 2);
    mk_uint(&z->body, 0, 4), mk_uint(&z->body, crc, 4), mk_uint(&z->body, size, 4);
    mk_uint(&z->body, size, 4), mk_uint(&z->body, strlen(name), 2), mk_uint(&z->body, pad + 4, 2);
    buf_adds(&z->body, name);
    buf_adds(&z->body, "FB");
    mk_uint(&z->body, pad, 2);
    for (size_t i = 0; i < pad; i++)
        buf_addc(&z->body, 'Z');
    buf_add(&z->body, data, n);
    buf_adds(&z->central, "PK\001\002");
    mk_uint(&z->central, 20, 2), mk_uint(&z->central, 20, 2), mk_uint(&z->central, 0, 2);
    mk_uint(&z->central, (uint64_t)lie->method, 2), mk_uint(&z->central, 0, 4);
    mk_uint(&z->central, crc, 4), mk_uint(&z->central, size, 4), mk_uint(&z->central, total, 4);
    mk_uint(&z->central, strlen(name), 2), mk_uint(&z->central, 0, 12);
    mk_uint(&z->central, (uint64_t)((int64_t)at + lie->offset_shift), 4);
    buf_adds(&z->central, name);
    z->n++;
}

static inline void mk_zip_add(struct mk_zip *z, const char *name, const void *data, size_t n)
{
    mk_zip_add_lying(z, name, data, n, &(struct mk_lie){0});
}

/* `z` is empty again. */
static inline struct buf mk_zip_finish(struct mk_zip *z)
{
    struct buf b = z->body;
    size_t at = b.len;
    buf_add(&b, z->central.data, z->central.len);
    buf_adds(&b, "PK\005\006");
    mk_uint(&b, 0, 4), mk_uint(&b, (uint64_t)z->n, 2), mk_uint(&b, (uint64_t)z->n, 2);
    mk_uint(&b, z->central.len, 4), mk_uint(&b, at, 4), mk_uint(&b, 0, 2);
    buf_release(&z->central);
    *z = (struct mk_zip){0};
    return b;
}

/* TOP/data.pkl and TOP/data/0. `pickle` is released. */
static inline struct buf mk_torchbin(const char *top, struct buf pickle, const void *storage,
                                     size_t n)
{
    struct mk_zip z = {0};
    char name[128];
    snprintf(name, sizeof(name), "%s/data.pkl", top);
    mk_zip_add(&z, name, pickle.data, pickle.len);
    snprintf(name, sizeof(name), "%s/data/0", top);
    mk_zip_add(&z, name, storage, n);
    snprintf(name, sizeof(name), "%s/version", top);
    mk_zip_add(&z, name, "3\n", 2);
    buf_release(&pickle);
    return mk_zip_finish(&z);
}

/* ---- directories. ---- */

static inline void mk_file(const char *dir, const char *name, const void *data, size_t n)
{
    char *path = io_join(dir, name);
    support_write(path, data, n);
    xfree(path);
}

/* `content` is released. */
static inline void mk_put(const char *dir, const char *name, struct buf content)
{
    mk_file(dir, name, content.data, content.len);
    buf_release(&content);
}

#endif
