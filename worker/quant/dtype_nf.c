/* NormalFloat (quantization spec 2.5; Dettmers et al., QLoRA, 2023): quantiles of the normal distribution, one more
 * positive than negative, and 0. k=4 is the published table; other widths follow its formula. */
#include <math.h>

#include "worker/quant/dtype.h"

static const float nf4[16] = {
    -1.0F,
    -0.6961928009986877F,
    -0.5250730514526367F,
    -0.39491748809814453F,
    -0.28444138169288635F,
    -0.18477343022823334F,
    -0.09105003625154495F,
    0.0F,
    0.07958029955625534F,
    0.16093020141124725F,
    0.24611230194568634F,
    0.33791524171829224F,
    0.44070982933044434F,
    0.5626170039176941F,
    0.7229568362236023F,
    1.0F,
};

/* x with Phi(x) = p, 0.5 <= p < 1. Newton from 0: Phi is concave above it, so every step stays below the root. */
static double normal_quantile(double p)
{
    enum { MAX_STEPS = 100 };
    const double root_2pi = 2.5066282746310005;
    double x = 0;
    for (int i = 0; i < MAX_STEPS; i++) {
        double step = (p - 0.5 * erfc(-x * M_SQRT1_2)) * root_2pi * exp(0.5 * x * x);
        x += step;
        if (fabs(step) <= 1e-15 * x)
            break;
    }
    return x;
}

/* out[i] = sign * Phi^-1 of the i-th of n + 1 even points from `off` to 1/2; the last point, whose value is 0, is left
 * out. Returns n. */
static int tail(double off, int n, double sign, double *out)
{
    for (int i = 0; i < n; i++)
        out[i] = sign * normal_quantile(off + (0.5 - off) * i / n);
    return n;
}

static enum err_code fill(const struct config *c, const struct order_statistics *s,
                          struct codebook *out, struct err *e)
{
    (void)s;
    (void)e;
    if (c->k == 4) {
        out->n = (int)ARRAY_LEN(nf4);
        for (int i = 0; i < out->n; i++)
            out->v[i] = nf4[i];
        return ERR_OK;
    }
    int codes = 1 << c->k;
    double off = 0.5 * ((1 - 0.5 / (codes - 1)) + (1 - 0.5 / codes));
    double level[QUANT_BOOK_MAX];
    int n = tail(off, codes / 2, 1, level);
    n += tail(off, codes / 2 - 1, -1, level + n);
    level[n++] = 0;
    codebook_from_levels(level, n, out);
    return ERR_OK;
}

const struct dtype_ops dtype_ops_nf = {.fill = fill};
