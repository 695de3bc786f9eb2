/* Reads the tensor directory of one pytorch_model.bin (torch.save's zip form) without running anything in it.
 * Knows no other file. Pure: works on bytes in memory. */
#ifndef ISOBIT_WORKER_CKPT_TORCHBIN_H
#define ISOBIT_WORKER_CKPT_TORCHBIN_H

#include "base/err.h"
#include "base/io.h"
#include "base/mem.h"
#include "worker/ckpt/ckpt.h"

/* As safetensors_read. Errors also: ERR_UNSUPPORTED for what torch wrote before version 1.6 and for globals that
 * are not on the list of pickle.h. */
MUST_USE enum err_code torchbin_read(const struct io_map *file, const char *path, struct arena *a,
                                     struct ckpt_tensor **out, int *n, struct err *e);

#endif
