#include "schema/bits.h"

#include <math.h>

#include "base/check.h"

/* Nobody charges for these (paper section 2.3 does not), so they are reported beside the sums. */
enum { BITS_16 = 16 };

int64_t bits_n_keep(double outlier_pct, int64_t in)
{
    /* Percentages are decimal: what misses a half by the rounding of doubles is meant to meet it. */
    static const double rounding = 1e-9;
    double n = floor(outlier_pct * (double)in / 100 + 0.5 + rounding);
    if (!(n > 0))
        return 0;
    return n < (double)in ? (int64_t)n : in;
}

/* Bits per parameter with one absmax constant every `block` parameters and `share` of them at 16 bit. */
static double nominal_per_param(const struct config *c, double block, double share)
{
    if (c->k >= BITS_16)
        return c->k;
    double constants = BITS_16 / block;
    if (c->center == CENTER_BLOCK)
        constants += BITS_16 / block;
    return c->k + constants + share * (BITS_16 - c->k);
}

double bits_nominal_per_param(const struct config *c, int64_t n)
{
    double block = c->block != 0 ? (double)c->block : (double)n;
    return nominal_per_param(c, block, c->outlier_pct / 100);
}

/* Exact bits of one quantized tensor. */
static int64_t tensor_bits(const struct config *c, const struct bits_tensor *t)
{
    int64_t n = t->out * t->in;
    if (c->k >= BITS_16)
        return n * c->k;
    int64_t n_blocks = c->block != 0 ? (n + c->block - 1) / c->block : 1;
    int64_t n_means = 0;
    switch (c->center) {
    case CENTER_NONE:
    case CENTER_COUNT:
        break;
    case CENTER_TENSOR:
        n_means = 1;
        break;
    case CENTER_BLOCK:
        n_means = n_blocks;
        break;
    }
    int64_t n_out = t->n_keep * t->out;
    return (n - n_out) * c->k + BITS_16 * (n_blocks + n_means) + BITS_16 * n_out;
}

static int64_t tensor_uncharged(const struct config *c, const struct bits_tensor *t)
{
    if (c->k >= BITS_16)
        return 0;
    int64_t table = c->dtype == DTYPE_quantile ? BITS_16 * ((int64_t)1 << c->k) : 0;
    return table + BITS_16 * t->n_keep;
}

struct bits bits_of(const struct config *c, const struct bits_tensor *t, int n_tensors,
                    int64_t n_total)
{
    struct bits b = {0};
    int64_t n_linear = 0;
    int64_t n_kept = 0;
    for (int i = 0; i < n_tensors; i++) {
        DCHECK(t[i].n_keep >= 0 && t[i].n_keep <= t[i].in);
        n_linear += t[i].out * t[i].in;
        n_kept += t[i].out * t[i].n_keep;
        b.total_linear += tensor_bits(c, &t[i]);
        b.uncharged += tensor_uncharged(c, &t[i]);
    }
    int64_t other = c->k > BITS_16 ? c->k : BITS_16;
    b.total_full = b.total_linear + other * (n_total - n_linear);
    double linear = n_linear > 0 ? (double)n_linear : 1;
    b.per_param = n_linear > 0 ? (double)b.total_linear / linear : (double)other;
    /* One constant per tensor is, over all of them, one per mean tensor size. */
    double block = c->block != 0 ? (double)c->block : linear / (n_tensors > 0 ? n_tensors : 1);
    b.total_nominal = nominal_per_param(c, block, (double)n_kept / linear) * (double)n_total;
    return b;
}
