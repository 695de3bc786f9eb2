/* The only place of the analysis that sees zstd: stored samples back to floats. */
#ifndef ISOBIT_ANALYSIS_ZSTD_BLOB_H
#define ISOBIT_ANALYSIS_ZSTD_BLOB_H

#include <stdbool.h>
#include <stddef.h>

/* Unpacks little-endian floats, at most `capacity` of them; *n is their number. False for damaged data, half a float or more
 * than the capacity. */
bool zstd_blob_unpack(const void *blob, size_t bytes, float *out, size_t capacity, size_t *n);

#endif
