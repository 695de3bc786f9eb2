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

/* What a data-dependent type (quantile) wants to know of the weights: value[i] is the one of rank rank[i], 0 being the
 * smallest; ranks ascend. */
struct order_statistics {
    int64_t rank[QUANT_BOOK_MAX];
    float value[QUANT_BOOK_MAX];
    int n; /* 0 when there are no weights */
};

/* One per row of dtype.def. `ranks` sets rank[] and n for k bits and `count` weights; NULL: the type is not data dependent.
 * `fill` makes the codebook for k bits; `s` is NULL without `ranks`. */
struct dtype_ops {
    void (*ranks)(int k, int64_t count, struct order_statistics *s);
    enum err_code (*fill)(const struct config *c, const struct order_statistics *s,
                          struct codebook *out, struct err *e);
};
/* False also for a type that does not exist. */
bool dtype_is_data_dependent(enum dtype d);

/* Codebook in three steps for a type that is data dependent: s->rank[] and s->n of `count` weights; the caller finds
 * s->value[]; the codebook from them. Other types need the last alone, with s NULL. Errors: ERR_FORMAT for impossible
 * options. */
MUST_USE enum err_code codebook_ranks(const struct config *c, int64_t count,
                                      struct order_statistics *s, struct err *e);
MUST_USE enum err_code codebook_fill(const struct config *c, const struct order_statistics *s,
                                     struct codebook *out, struct err *e);

/* All of them, for any type: the codebook of what kern_quantize would put into blocks (`args` as for kern_order_statistics).
 * Errors: also those of kern_order_statistics. */
MUST_USE enum err_code codebook_of_weights(struct kern *k, const struct config *c,
                                           const struct kern_quant_args *args, struct codebook *out,
                                           struct err *e);

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

/* Per-tensor facts that serve every configuration of a checkpoint (codebooks of its weights, orders of columns); opaque, one
 * per model. */
struct quant_cache;
struct quant_cache *quant_cache_new(int n_tensors);
void quant_cache_free(struct quant_cache *q);

/* Quantizes tensors[n] under c (k <= 8) into their `out`; n_keep[i] is set for bit accounting. Zeroed or NULL cache
 * entries are filled as needed; entry i belongs to tensor i. Errors name the tensor. */
MUST_USE enum err_code quant_apply(struct kern *k, const struct config *c,
                                   const struct quant_tensor *tensors, int n,
                                   struct quant_cache *cache, int64_t *n_keep, struct err *e);

#endif
