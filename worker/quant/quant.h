/* Blockwise quantization of a checkpoint's tensors over any codebook (quantization spec, sections 1-6): makes
 * codebooks, chooses outlier columns, drives kern_quantize. Works on the fp16 master that the model keeps on the
 * device. Knows no families: what to quantize and whose rows rank whose columns comes in. */
#ifndef ISOBIT_WORKER_QUANT_QUANT_H
#define ISOBIT_WORKER_QUANT_QUANT_H

#include <stdint.h>

#include "base/err.h"
#include "kernels/kernels.h"
#include "schema/job.h"

enum { QUANT_BOOK_MAX = 256 };

struct codebook {
    float v[QUANT_BOOK_MAX]; /* ascending; duplicates only for quantile */
    int n;
};

/* One per row of dtype.def. `fill` makes the codebook for k bits; for data-dependent types (quantile) hist[65536]
 * counts the tensor's fp16 bit patterns and must be given, otherwise it is NULL. */
struct dtype_ops {
    bool is_data_dependent;
    enum err_code (*fill)(const struct config *c, const int64_t *hist, struct codebook *out,
                          struct err *e);
};
const struct dtype_ops *dtype_ops_of(enum dtype d);

/* Codebook of a type that is not data dependent, or with `hist`. Errors: ERR_FORMAT for impossible options. */
MUST_USE enum err_code codebook_fill(const struct config *c, const int64_t *hist,
                                     struct codebook *out, struct err *e);

/* A tensor to quantize and where its outlier ranks come from. */
struct quant_tensor {
    const char *name;
    const uint16_t *w16; /* device, fp16 master, [rows, cols] = [out, in] */
    int64_t rows, cols;
    void *out; /* device, compute type */
    /* Outlier source: input dimension j of this tensor is ranked by line rank_at[j] of `rank_w16` (rows when
     * rank_by_rows, else columns). rank_w16 NULL: this tensor is never treated. The maps are host arrays of
     * `cols` entries: they spell out head layouts. With `rank_keys` the keys of those lines (kern_spread) are at hand and
     * the source itself is not: rank_w16 then only names it. */
    const uint16_t *rank_w16;
    const unsigned __int128 *rank_keys; /* host */
    int64_t rank_rows, rank_cols;
    bool rank_by_rows;
    const int32_t *rank_at;
};

/* Per-tensor facts that serve every configuration of a checkpoint (histograms); opaque, one per model. */
struct quant_cache;
struct quant_cache *quant_cache_new(int n_tensors);
void quant_cache_free(struct quant_cache *q);

/* Quantizes tensors[n] under c (k <= 8) into their `out`; n_keep[i] is set for bit accounting. Zeroed or NULL cache
 * entries are filled as needed; entry i belongs to tensor i. Errors name the tensor. */
MUST_USE enum err_code quant_apply(struct kern *k, const struct config *c,
                                   const struct quant_tensor *tensors, int n,
                                   struct quant_cache *cache, int64_t *n_keep, struct err *e);

#endif
