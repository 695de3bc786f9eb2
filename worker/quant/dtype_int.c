/* Signed integers (quantization spec 2.1; paper App. A): 2^k - 1 evenly spaced levels i/m, symmetric, with one bit
 * pattern unused. The rational form, not a float linspace, whose centre value is not quite 0. */
#include "worker/quant/dtype.h"

static enum err_code fill(const struct config *c, const struct order_statistics *s,
                          struct codebook *out, struct err *e)
{
    (void)s;
    (void)e;
    int m = (1 << (c->k - 1)) - 1;
    double level[QUANT_BOOK_MAX];
    for (int i = -m; i <= m; i++)
        level[i + m] = i;
    codebook_from_levels(level, 2 * m + 1, out);
    return ERR_OK;
}

const struct dtype_ops dtype_ops_int = {.fill = fill};
