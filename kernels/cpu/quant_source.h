/* What goes into the blocks of a tensor (quantization spec, sections 4 and 6): its fp16 weights, less the mean when
 * centering, with the columns that stay 16 bit as +0. Shared by quantizing and by order statistics. */
#ifndef ISOBIT_KERNELS_CPU_QUANT_SOURCE_H
#define ISOBIT_KERNELS_CPU_QUANT_SOURCE_H

#include "kernels/cpu/quant_vec.h"
#include "kernels/kernels.h"

/* Elements worked on at a time: with its scratch, a part stays in the first-level cache. */
enum { QUANT_PART = 4096 };

struct quant_source {
    const struct quant_vec *vec;
    const uint16_t *w16;
    int64_t n, cols, block; /* block <= n; the whole tensor is one block of n */
    int64_t n_blocks;
    int threads;
    enum kern_center center;
    uint16_t *live;       /* [cols], 0xffff, or 0 for a kept column; NULL when none is kept */
    uint16_t tensor_mean; /* fp16 bits, with KERN_CENTER_TENSOR */
};

/* Checks rows, cols, block, center and keep of `a` and finds the tensor's mean with k's threads. Caller releases
 * with quant_source_release, also after an error. Errors: ERR_FORMAT; ERR_NUMERIC for a weight that is not finite. */
MUST_USE enum err_code quant_source_init(struct quant_source *s, const struct kern *k,
                                         const struct kern_quant_args *a, struct err *e);
void quant_source_release(struct quant_source *s);

/* The fp16 mean to subtract from block elements [start, start + n); 0 without centering. */
uint16_t quant_source_mean(const struct quant_source *s, int64_t start, int64_t n);

/* y[n] = what goes into the block at flat index `start`, fp16 bits. Not finite where the weight or the difference
 * is not. */
void quant_source_read(const struct quant_source *s, int64_t start, int n, uint16_t mean,
                       uint16_t *y);

/* True when quant_source_read would copy the weights as they are. */
static inline bool quant_source_is_plain(const struct quant_source *s)
{
    return s->center == KERN_CENTER_NONE && s->live == NULL;
}

/* Index of the first of y[n] that is not finite; n when all are. */
int quant_find_not_finite(const uint16_t *y, int n);

/* The error for flat index `i`, where quant_source_read gave something not finite. */
enum err_code quant_source_refuse(const struct quant_source *s, int64_t i, struct err *e);

#endif
