/* SHA-256 of a checkpoint's files, by threads of their own, so that whoever opened it can read tensors meanwhile. */
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "worker/ckpt/ckpt_private.h"

enum { HASHERS = 4 };

struct ckpt_hashing {
    struct ckpt *c;
    char (*hex)[SHA256_HEX]; /* [n_files] */
    atomic_int next;         /* file */
    atomic_bool is_stopped;
    pthread_t threads[HASHERS];
    int n_threads;
};

/* Of the mapped bytes, not of the path: the identity must belong to what is read. */
static void hash_map(struct ckpt_hashing *h, const struct io_map *m, char hex[SHA256_HEX])
{
    enum { STEP = 8 << 20 };
    struct sha256 *sum = sha256_new();
    for (size_t at = 0; at < m->size && !atomic_load(&h->is_stopped); at += STEP) {
        size_t n = m->size - at < STEP ? m->size - at : STEP;
        sha256_add(sum, m->data + at, n);
        io_map_forget(m, at, n);
    }
    sha256_finish(sum, hex);
}

static void *hash_files(void *arg)
{
    struct ckpt_hashing *h = arg;
    for (int i; (i = atomic_fetch_add(&h->next, 1)) < h->c->n_files;)
        hash_map(h, &h->c->files[i].map, h->hex[i]);
    return NULL;
}

void ckpt_identity_start(struct ckpt *c)
{
    if (c->identity[0] != '\0' || c->hashing != NULL)
        return;
    struct ckpt_hashing *h = c->hashing = xcalloc(1, sizeof(*h));
    h->c = c;
    h->hex = xcalloc((size_t)c->n_files, sizeof(*h->hex));
    while (h->n_threads < HASHERS && h->n_threads < c->n_files &&
           pthread_create(&h->threads[h->n_threads], NULL, hash_files, h) == 0)
        h->n_threads++;
}

static void join(struct ckpt_hashing *h)
{
    for (int i = 0; i < h->n_threads; i++)
        CHECK(pthread_join(h->threads[i], NULL) == 0);
}

static void release(struct ckpt *c)
{
    xfree(c->hashing->hex);
    xfree(c->hashing);
    c->hashing = NULL;
}

void ckpt_identity_stop(struct ckpt *c)
{
    if (c->hashing == NULL)
        return;
    atomic_store(&c->hashing->is_stopped, true);
    join(c->hashing);
    release(c);
}

/* Of the file when there is one; else of the list of shards, which are sorted by name. */
static void combine(struct ckpt *c, char (*hex)[SHA256_HEX])
{
    struct buf lines = {0};
    if (c->n_files == 1) {
        memcpy(c->identity, hex[0], SHA256_HEX);
        return;
    }
    for (int i = 0; i < c->n_files; i++)
        buf_printf(&lines, "%s  %s\n", hex[i], c->files[i].name);
    sha256_bytes(lines.data, lines.len, c->identity);
    buf_release(&lines);
}

void ckpt_identity(struct ckpt *c, char hex[SHA256_HEX])
{
    if (c->identity[0] == '\0') {
        ckpt_identity_start(c);
        hash_files(c->hashing); /* helps, or does it alone where there are no threads */
        join(c->hashing);
        combine(c, c->hashing->hex);
        release(c);
    }
    memcpy(hex, c->identity, SHA256_HEX);
}
