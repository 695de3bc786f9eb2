/* Per-item log-likelihoods as they travel and are stored: zstd over little-endian float32, named "zstd-f32/<per_item>".
 * Pure. */
#ifndef ISOBIT_WORKER_ZSTD_SAMPLES_H
#define ISOBIT_WORKER_ZSTD_SAMPLES_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* *out is owned by the caller (xfree). `codec` gets the name. Errors: ERR_FORMAT for sizes that overflow, ERR_IO. */
MUST_USE enum err_code zstd_samples_pack(const float *v, int64_t n_items, int per_item, void **out,
                                         size_t *n, char codec[32], struct err *e);

#endif
