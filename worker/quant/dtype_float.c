/* Floats with E exponent and k-1-E mantissa bits, no infinities, no NaN (quantization spec 2.2; paper App. A). The
 * bias cancels when dividing by the largest value, except for how far the subnormals sit below the smallest normal:
 * that is the shift s, 0 for an ordinary minifloat. */
#include <math.h>

#include "worker/quant/dtype.h"

static enum err_code check(const struct config *c, struct err *e)
{
    if (c->exponent_bits < 1 || c->exponent_bits > c->k - 1)
        return err_set(e, ERR_FORMAT,
                       "exponent_bits=%d is not possible with dtype float at k=%d; use 1 to %d",
                       c->exponent_bits, c->k, c->k - 1);
    if (c->subnormal_shift != 0 && c->subnormal_shift != 2 && c->subnormal_shift != 4)
        return err_set(e, ERR_FORMAT, "subnormal_shift=%d is not defined; use 0, 2 or 4",
                       c->subnormal_shift);
    return ERR_OK;
}

static enum err_code fill(const struct config *c, const struct order_statistics *s,
                          struct codebook *out, struct err *e)
{
    (void)s;
    TRY(check(c, e));
    int n_exponents = 1 << c->exponent_bits;
    int n_fractions = 1 << (c->k - 1 - c->exponent_bits);
    double level[QUANT_BOOK_MAX];
    int n = 0;
    level[n++] = 0; /* both zeros are one value */
    for (int exponent = 0; exponent < n_exponents; exponent++) {
        for (int f = 0; f < n_fractions; f++) {
            double fraction = (double)f / n_fractions;
            double v = exponent > 0 ? ldexp(1 + fraction, exponent - 1)
                                    : ldexp(fraction, -c->subnormal_shift);
            if (v == 0)
                continue;
            level[n++] = v;
            level[n++] = -v;
        }
    }
    codebook_from_levels(level, n, out);
    return ERR_OK;
}

const struct dtype_ops dtype_ops_float = {.fill = fill};
