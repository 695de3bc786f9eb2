/* The state dict inside pytorch_model.bin: tensor names, shapes and the storages they view, out of data.pkl.
 * A pickle is a program; this reader knows the few instructions that torch.save writes for a state dict, calls
 * nothing, and refuses every global that is not on its list:
 *   collections.OrderedDict, torch._utils._rebuild_tensor_v2, torch._utils._rebuild_parameter and
 *   torch.{Half,BFloat16,Float,Double,Byte,Char,Bool,Short,Int,Long}Storage. Pure. */
#ifndef ISOBIT_WORKER_CKPT_PICKLE_H
#define ISOBIT_WORKER_CKPT_PICKLE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "worker/ckpt/ckpt.h"
#include "worker/ckpt/tensor_check.h"

struct pickle_tensor {
    struct ckpt_tensor t; /* name, type, shape, stride, count; no place yet */
    const struct tensor_type *type;
    const char *storage;   /* key: the entry data/<key> of the archive */
    int64_t storage_count; /* elements that the pickle says the storage has */
    int64_t first;         /* element of the storage where the tensor begins */
};

/* *out: in the order of the pickle, owned by `a`. `what` names the source in errors. Errors: ERR_FORMAT,
 * ERR_UNSUPPORTED for a global off the list or a checkpoint that is no plain state dict. */
MUST_USE enum err_code pickle_read(struct str bytes, const char *what, struct arena *a,
                                   struct pickle_tensor **out, size_t *n, struct err *e);

#endif
