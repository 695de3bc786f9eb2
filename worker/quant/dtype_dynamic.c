/* Dynamic exponent (quantization spec 2.3; paper App. A): sign, a run of zeros as exponent of 10, an indicator bit, and
 * the remaining bits a linear fraction of [0.1, 1], taken at the middle of its intervals; then 0 and +1. Only +1: the
 * most negative level is above -1, so a negative block maximum always shrinks. */
#include "worker/quant/dtype.h"

static enum err_code fill(const struct config *c, const struct order_statistics *s,
                          struct codebook *out, struct err *e)
{
    (void)s;
    (void)e;
    double level[QUANT_BOOK_MAX];
    int n = 0;
    double power = 1; /* 10^zeros */
    for (int zeros = 0; zeros <= c->k - 2; zeros++, power *= 10) {
        int n_fractions = 1 << (c->k - 2 - zeros);
        for (int j = 0; j < n_fractions; j++) {
            /* 10^-zeros * (0.1 + 0.9 * (j + 0.5) / n_fractions) with integers above and below the line */
            double v = (2 * n_fractions + 9 * (2 * j + 1)) / (20 * n_fractions * power);
            level[n++] = v;
            level[n++] = -v;
        }
    }
    level[n++] = 0;
    level[n++] = 1;
    codebook_from_levels(level, n, out);
    return ERR_OK;
}

const struct dtype_ops dtype_ops_dynamic = {.fill = fill};
