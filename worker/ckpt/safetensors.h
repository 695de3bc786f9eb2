/* Reads the tensor directory of one .safetensors file, believing nothing in it. Knows no other file: shards
 * are ckpt.c's business. Pure: works on bytes in memory. */
#ifndef ISOBIT_WORKER_CKPT_SAFETENSORS_H
#define ISOBIT_WORKER_CKPT_SAFETENSORS_H

#include "base/err.h"
#include "base/io.h"
#include "base/mem.h"
#include "worker/ckpt/ckpt.h"

/* *out: the tensors, owned by `a`, in the order of their data; `data` points into `file`, `offset` counts from
 * the start of the file, `file` is left 0. `path` is for errors. Errors: ERR_FORMAT, ERR_UNSUPPORTED. */
MUST_USE enum err_code safetensors_read(const struct io_map *file, const char *path,
                                        struct arena *a, struct ckpt_tensor **out, int *n,
                                        struct err *e);

#endif
