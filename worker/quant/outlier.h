/* Which input columns stay at 16 bit (quantization spec, section 6; paper eq. 2): those fed by the units of the
 * previous layer whose weights spread most. */
#ifndef ISOBIT_WORKER_QUANT_OUTLIER_H
#define ISOBIT_WORKER_QUANT_OUTLIER_H

#include "worker/quant/quant.h"

/* Input columns of one tensor by falling rank key of their source line, ties to the smaller column: one order serves
 * every share. Remembers its source, because another outlier rule ranks by another tensor. All zero is empty. */
struct outlier_order {
    const uint16_t *rank_w16;
    bool rank_by_rows;
    int64_t n;
    int32_t *column; /* [n] */
};
void outlier_order_release(struct outlier_order *o);

/* keep[n_keep], ascending: the first n_keep of t's order, which is computed when `o` is not already t's.
 * Errors: ERR_FORMAT when a column is ranked by a line that does not exist. */
MUST_USE enum err_code outlier_choose(struct kern *k, const struct quant_tensor *t,
                                      struct outlier_order *o, int64_t n_keep, int32_t *keep,
                                      struct err *e);

#endif
