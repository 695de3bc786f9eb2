/* The printable alphabet of byte-level BPE: vocabularies write every byte as one code point (evaluation spec,
 * section 10, step 4). Bytes 33-126, 161-172 and 174-255 stand for themselves; the other 68, in increasing
 * order, are U+0100 to U+0143. Pure. */
#ifndef ISOBIT_WORKER_TOK_TOK_BYTEMAP_H
#define ISOBIT_WORKER_TOK_TOK_BYTEMAP_H

#include <stdint.h>

#include "base/str.h"

enum { BYTEMAP_MAX_UTF8 = 2 }; /* bytes of the longest mapped code point */

int32_t bytemap_code_point(unsigned char byte);
int bytemap_byte(int32_t code_point); /* -1: stands for no byte */

/* Writes the mapped form as UTF-8 into out[BYTEMAP_MAX_UTF8 * in.n]; returns its length. */
size_t bytemap_encode(struct str in, char *out);
/* The inverse, into out[in.n]; false when `in` holds anything outside the alphabet. */
MUST_USE bool bytemap_decode(struct str in, char *out, size_t *n_out);

#endif
