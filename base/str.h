/* String views (pointer and length, not terminated), a growing byte buffer with a hard maximum, and
 * strict number parsing (the whole text must be the number). Pure. */
#ifndef ISOBIT_BASE_STR_H
#define ISOBIT_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct str {
    const char *p;
    size_t n;
};

#define STR(literal) ((struct str){(literal), sizeof(literal) - 1})
struct str str_of(const char *z); /* NULL gives the empty view */
bool str_eq(struct str a, struct str b);
bool str_eqz(struct str a, const char *z);
bool str_starts(struct str s, const char *prefix);
bool str_ends(struct str s, const char *suffix);
struct str str_trim(struct str s); /* ASCII white space at both ends */
/* Cuts the first line off *rest (without its \n or \r\n); false when *rest is empty. */
bool str_next_line(struct str *rest, struct str *line);
/* Cuts up to the next `sep` off *rest; false when *rest->p is NULL. "a||b" gives "a", "", "b". */
bool str_next_field(struct str *rest, char sep, struct str *field);
/* Shell-like pattern over the whole text: `*`, `?`, everything else literal (keys contain [ and ]). */
bool str_glob(const char *pattern, const char *text);

/* A growing buffer. All zero is empty with a maximum of 64 MiB; `data` is always terminated by a NUL
 * that does not count. Growing beyond `max` aborts unless buf_try_* is used. */
struct buf {
    char *data;
    size_t len, cap;
    size_t max; /* 0 means 64 MiB */
};
void buf_add(struct buf *b, const void *data, size_t n);
void buf_adds(struct buf *b, const char *z);
void buf_addc(struct buf *b, char c);
void buf_printf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
MUST_USE bool buf_try_add(struct buf *b, const void *data, size_t n); /* false: would pass `max` */
void buf_reset(struct buf *b);                                        /* len = 0, memory stays */
void buf_release(struct buf *b); /* frees; the struct is all zero again */
char *buf_detach(struct buf *b); /* hands the terminated bytes over; caller frees with xfree */

/* The whole text must be the number; leading or trailing characters, overflow, NaN and infinity are
 * refused with false and leave *out untouched. */
MUST_USE bool parse_i64(struct str s, int64_t *out);
MUST_USE bool parse_f64(struct str s, double *out);
/* "64", "512K", "6GiB", "1.5G": powers of 1024; "6GB": powers of 1000. */
MUST_USE bool parse_bytes(struct str s, int64_t *out);

/* "1.53 GB", "812 kB": for people, 1000-based. Writes into out[32] and returns it. */
char *fmt_bytes(double n, char out[32]);
/* "2h 05m", "3m 20s", "4.1 s". */
char *fmt_duration(double seconds, char out[32]);
/* "1.2e+16" as "12.0 P": SI prefix with three digits. */
char *fmt_si(double n, char out[32]);

#endif
