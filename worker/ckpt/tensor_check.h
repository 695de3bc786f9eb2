/* What both checkpoint formats must check before a tensor may be believed: its name, element type, shape and
 * the place of its elements. Callers put file and tensor in front of the errors with err_wrap. Pure. */
#ifndef ISOBIT_WORKER_CKPT_TENSOR_CHECK_H
#define ISOBIT_WORKER_CKPT_TENSOR_CHECK_H

#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "worker/ckpt/ckpt.h"

enum { TENSOR_NAME_MAX = 255 };

struct tensor_type {
    const char *name; /* safetensors' spelling */
    int bytes;
    enum ckpt_dtype dtype;
};
const struct tensor_type *tensor_type_find(const char *name); /* NULL: unknown */

/* Printable ASCII, 1 to TENSOR_NAME_MAX characters: names go into one-line errors and into JSON. */
MUST_USE enum err_code tensor_check_name(struct str name, struct err *e);

/* Fills n_dims, shape, count and row-major strides. Errors: ERR_FORMAT for a negative or overflowing shape,
 * ERR_UNSUPPORTED for more than CKPT_MAX_DIMS dimensions. */
MUST_USE enum err_code tensor_set_shape(struct ckpt_tensor *t, const int64_t *shape, size_t n_dims,
                                        struct err *e);

/* *out = elements that a storage must hold to contain t->shape at t->stride from element `first` on. Errors:
 * ERR_FORMAT for a negative stride or start, or an overflow. */
MUST_USE enum err_code tensor_extent(const struct ckpt_tensor *t, int64_t first, int64_t *out,
                                     struct err *e);

bool tensor_is_row_major(const struct ckpt_tensor *t);

#endif
