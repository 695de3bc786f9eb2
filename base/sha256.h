/* SHA-256 (FIPS 180-4, by libcrypto): the identity of weights, data, tokenizers and specs. */
#ifndef ISOBIT_BASE_SHA256_H
#define ISOBIT_BASE_SHA256_H

#include <stddef.h>

#include "base/err.h"

enum { SHA256_HEX = 65 }; /* 64 lower-case digits and the NUL */

struct sha256; /* opaque */
struct sha256 *sha256_new(void);
void sha256_add(struct sha256 *h, const void *data, size_t n);
void sha256_finish(struct sha256 *h, char hex[SHA256_HEX]); /* also frees h */

void sha256_bytes(const void *data, size_t n, char hex[SHA256_HEX]);
/* Streams a file. Errors: as io_map_open. */
MUST_USE enum err_code sha256_file(const char *path, char hex[SHA256_HEX], struct err *e);

#endif
