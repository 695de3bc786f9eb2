#include "base/mem.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static _Noreturn void out_of_memory(size_t n)
{
    fprintf(stderr, "isobit: out of memory (%zu bytes)\n", n);
    abort();
}

void *xmalloc(size_t n)
{
    void *p = malloc(n != 0 ? n : 1);
    if (p == NULL)
        out_of_memory(n);
    return p;
}

void *xcalloc(size_t n, size_t size)
{
    void *p = calloc(n != 0 ? n : 1, size != 0 ? size : 1);
    if (p == NULL)
        out_of_memory(n);
    return p;
}

void *xrealloc(void *old, size_t n)
{
    void *p = realloc(old, n != 0 ? n : 1);
    if (p == NULL)
        out_of_memory(n);
    return p;
}

char *xstrndup(const char *s, size_t n)
{
    char *p = xmalloc(n + 1);
    memcpy(p, s, n);
    p[n] = '\0';
    return p;
}

char *xstrdup(const char *s)
{
    return xstrndup(s, strlen(s));
}

static size_t formatted_len(const char *fmt, va_list ap)
{
    va_list copy;
    va_copy(copy, ap);
    int n = vsnprintf(NULL, 0, fmt, copy);
    va_end(copy);
    CHECK(n >= 0);
    return (size_t)n;
}

char *xasprintf(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    size_t n = formatted_len(fmt, ap);
    char *p = xmalloc(n + 1);
    CHECK(vsnprintf(p, n + 1, fmt, ap) == (int)n);
    va_end(ap);
    return p;
}

void xfree(void *p)
{
    free(p);
}

bool size_mul(size_t a, size_t b, size_t *out)
{
    size_t r = 0;
    if (__builtin_mul_overflow(a, b, &r))
        return false;
    *out = r;
    return true;
}

bool size_add(size_t a, size_t b, size_t *out)
{
    size_t r = 0;
    if (__builtin_add_overflow(a, b, &r))
        return false;
    *out = r;
    return true;
}

static atomic_long fail_countdown;

void mem_fail_after(long n)
{
    atomic_store(&fail_countdown, n);
}

/* mmap rather than malloc: zero pages, alignment, and the memory goes back to the system when freed,
 * so that a worker's resident size follows the checkpoint it holds. */
enum err_code big_alloc(size_t n, const char *what, void **out, struct err *e)
{
    bool is_told_to_fail =
        atomic_load(&fail_countdown) > 0 && atomic_fetch_sub(&fail_countdown, 1) == 1;
    void *p = MAP_FAILED;
    if (!is_told_to_fail)
        p = mmap(NULL, n != 0 ? n : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return err_set(e, ERR_NOMEM, "%s needs %zu bytes and the system has no more", what, n);
    if (n >= (size_t)4 << 20)
        (void)madvise(p, n, MADV_HUGEPAGE); /* a hint: kernels without huge pages refuse it */
    *out = p;
    return ERR_OK;
}

void big_free(void *p, size_t n)
{
    if (p != NULL)
        CHECK(munmap(p, n != 0 ? n : 1) == 0);
}

struct arena_chunk {
    struct arena_chunk *next;
    size_t used, size;
    _Alignas(16) unsigned char data[];
};

enum { ARENA_CHUNK_BYTES = 64 * 1024 };

void *arena_alloc(struct arena *a, size_t n)
{
    size_t need = (n + 15) & ~(size_t)15;
    CHECK(need >= n);
    if (a->head == NULL || a->head->size - a->head->used < need) {
        size_t size = need > ARENA_CHUNK_BYTES ? need : ARENA_CHUNK_BYTES;
        struct arena_chunk *c = xmalloc(sizeof(*c) + size);
        *c = (struct arena_chunk){.next = a->head, .size = size};
        a->head = c;
    }
    void *p = a->head->data + a->head->used;
    a->head->used += need;
    a->total += need;
    memset(p, 0, need);
    return p;
}

void *arena_array(struct arena *a, size_t n, size_t size)
{
    size_t bytes = 0;
    CHECK(size_mul(n, size, &bytes));
    return arena_alloc(a, bytes);
}

char *arena_strndup(struct arena *a, const char *s, size_t n)
{
    char *p = arena_alloc(a, n + 1);
    memcpy(p, s, n);
    return p;
}

char *arena_strdup(struct arena *a, const char *s)
{
    return arena_strndup(a, s, strlen(s));
}

char *arena_printf(struct arena *a, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    size_t n = formatted_len(fmt, ap);
    char *p = arena_alloc(a, n + 1);
    CHECK(vsnprintf(p, n + 1, fmt, ap) == (int)n);
    va_end(ap);
    return p;
}

void arena_release(struct arena *a)
{
    while (a->head != NULL) {
        struct arena_chunk *c = a->head;
        a->head = c->next;
        xfree(c);
    }
    a->total = 0;
}
