/* Checks of what is to be quantized, and the words for what cannot be: one place for all backends, so that they refuse the
 * same things in the same words. Header only, since modules link no backend. Private to kernels/. */
#ifndef ISOBIT_KERNELS_QUANT_CHECK_H
#define ISOBIT_KERNELS_QUANT_CHECK_H

#include <inttypes.h>

#include "base/mem.h"
#include "kernels/kernels.h"

/* Number of weights and the block size in force (block 0 and larger than the tensor: all of it). */
MUST_USE static inline enum err_code quant_check_shape(const struct kern_quant_args *a, int64_t *n,
                                                       int64_t *block, struct err *e)
{
    size_t count = 0;
    if (a->rows <= 0 || a->cols <= 0 || !size_mul((size_t)a->rows, (size_t)a->cols, &count) ||
        count > INT64_MAX / 2)
        return err_set(e, ERR_FORMAT,
                       "a tensor of %" PRId64 " rows and %" PRId64 " columns cannot be quantized",
                       a->rows, a->cols);
    if (a->block < 0)
        return err_set(e, ERR_FORMAT,
                       "block size %" PRId64 " is negative; 0 means the whole tensor", a->block);
    *n = (int64_t)count;
    *block = a->block == 0 || a->block > *n ? *n : a->block;
    return ERR_OK;
}

/* The kept columns ascend within the tensor. */
MUST_USE static inline enum err_code quant_check_keep(const struct kern_quant_args *a,
                                                      struct err *e)
{
    int32_t before = -1;
    for (int32_t i = 0; i < a->n_keep; i++) {
        if (a->keep[i] <= before || a->keep[i] >= a->cols)
            return err_set(
                e, ERR_FORMAT,
                "kept column %d (number %d of %d) is not in ascending order within 0..%" PRId64,
                a->keep[i], i + 1, a->n_keep, a->cols - 1);
        before = a->keep[i];
    }
    return ERR_OK;
}

/* Ranks ascend, some of them equal, within the weights that are not kept. */
MUST_USE static inline enum err_code quant_check_ranks(const struct kern_quant_args *a,
                                                       const int64_t *rank, int n, struct err *e)
{
    const int64_t count = a->rows * (a->cols - a->n_keep);
    int64_t before = 0;
    if (n < 0 || n > KERN_RANKS)
        return err_set(e, ERR_FORMAT, "%d order statistics; 0 to %d are possible", n, KERN_RANKS);
    for (int i = 0; i < n; i++) {
        if (rank[i] < before || rank[i] >= count)
            return err_set(e, ERR_FORMAT,
                           "rank %" PRId64
                           " (number %d of %d) is not in ascending order within 0..%" PRId64,
                           rank[i], i + 1, n, count - 1);
        before = rank[i];
    }
    return ERR_OK;
}

/* Of all weights n_bad > 0 are not finite. */
static inline enum err_code quant_refuse_some(int64_t n_bad, bool is_centered, struct err *e)
{
    return err_set(e, ERR_NUMERIC,
                   "%" PRId64
                   " of its weights are not finite fp16 numbers%s and cannot be quantized",
                   n_bad, is_centered ? " after centering" : "");
}

/* The weight at flat index i: not finite itself, or (value: what it is) beyond fp16 once it is centered. */
static inline enum err_code quant_refuse(int64_t i, bool is_finite, double value, struct err *e)
{
    if (!is_finite)
        return err_set(e, ERR_NUMERIC,
                       "weight at flat index %" PRId64
                       " is not a finite fp16 number and cannot be quantized",
                       i);
    return err_set(e, ERR_NUMERIC,
                   "weight at flat index %" PRId64
                   " (%g) leaves the range of fp16 when it is centered; "
                   "quantize this tensor without centering",
                   i, value);
}

#endif
