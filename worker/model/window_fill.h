/* Reading of tensors, or of parts of them, for a window: at the size that its masters have, whole ones by several threads.
 * Private to worker/model. Thread: any; the checkpoint is only read. */
#ifndef ISOBIT_WORKER_MODEL_WINDOW_FILL_H
#define ISOBIT_WORKER_MODEL_WINDOW_FILL_H

#include "kernels/kernels.h"
#include "worker/ckpt/ckpt.h"

struct window_fill {
    const struct ckpt *ckpt; /* kept */
    int stage_bytes;         /* of an element: 2, fp16; 4, fp32 as stored */
    int n_threads;           /* for a whole tensor */
};

/* As many threads as help a device; 1 where the cores compute. */
int window_fill_threads(const struct kern *k);
/* Reads t into dst. Errors: those of ckpt_read_f16 and ckpt_read_f32. */
MUST_USE enum err_code window_fill_part(const struct window_fill *f, const struct ckpt_tensor *t,
                                        bool is_transposed, void *dst, struct err *e);
/* The same by n_threads threads. */
MUST_USE enum err_code window_fill_tensor(const struct window_fill *f, const struct ckpt_tensor *t,
                                          bool is_transposed, char *dst, struct err *e);

#endif
