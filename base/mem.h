/* Memory. Small allocations (x*) abort when the system has none: the store makes that safe. Large ones
 * (weights, activations) use big_alloc and can fail with ERR_NOMEM, which is a normal job outcome.
 * Arenas own everything allocated from them and release it at once. Sizes that come from a file go
 * through size_mul/size_add. Thread: functions are safe from any thread, an arena belongs to one. */
#ifndef ISOBIT_BASE_MEM_H
#define ISOBIT_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

void *xmalloc(size_t n); /* never NULL; n == 0 gives a valid pointer; caller frees with xfree */
void *xcalloc(size_t n, size_t size); /* zeroed */
void *xrealloc(void *old, size_t n);
char *xstrdup(const char *s);
char *xstrndup(const char *s, size_t n);
char *xasprintf(const char *fmt, ...) PRINTF_LIKE(1, 2);
void xfree(void *p); /* NULL is fine */

/* *out = a * b or a + b; false on overflow (then *out is untouched). */
MUST_USE bool size_mul(size_t a, size_t b, size_t *out);
MUST_USE bool size_add(size_t a, size_t b, size_t *out);

/* 64-byte aligned, zeroed (untouched pages cost nothing). `what` names the thing in the error.
 * Caller frees with big_free, giving the same size. Errors: ERR_NOMEM. */
MUST_USE enum err_code big_alloc(size_t n, const char *what, void **out, struct err *e);
void big_free(void *p, size_t n);

/* Test hook: the n-th big_alloc from now on fails (1 = the next); 0 switches it off. */
void mem_fail_after(long n);

struct arena_chunk;
struct arena {
    struct arena_chunk *head; /* all zero is a valid empty arena */
    size_t total;             /* bytes handed out */
};
void *arena_alloc(struct arena *a, size_t n); /* zeroed, 16-byte aligned, owned by `a` */
void *arena_array(struct arena *a, size_t n, size_t size);
char *arena_strdup(struct arena *a, const char *s);
char *arena_strndup(struct arena *a, const char *s, size_t n);
char *arena_printf(struct arena *a, const char *fmt, ...) PRINTF_LIKE(2, 3);
void arena_release(struct arena *a); /* frees everything; the arena is empty and usable again */

#endif
