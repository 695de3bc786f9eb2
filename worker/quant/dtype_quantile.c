/* Quantiles of the tensor itself (quantization spec 2.4; paper eq. 6 in the form of its library): the medians of
 * n = 2^k - 1 bins of equal probability and 0, divided by the largest magnitude. Order statistics of all N weights,
 * exact because fp16 has only 65,536 values. Equal values keep their slots: the set is a multiset of 2^k. */
#include <math.h>
#include <stdlib.h>

#include "worker/quant/dtype.h"

enum { BINS = 65536, SIGN = 0x8000, INFINITE = 0x7c00 };

/* The i-th bin of finite fp16 values in ascending order: negative ones from the largest magnitude down. */
static int bin_in_order(int i)
{
    return i < INFINITE ? SIGN + (INFINITE - 1 - i) : i - INFINITE;
}

static float bin_value(int bin)
{
    int exponent = (bin >> 10) & 31;
    int fraction = bin & 0x3ff;
    double mag = exponent > 0 ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
    return (float)((bin & SIGN) != 0 && mag != 0 ? -mag : mag);
}

/* Rank of Q((2j + 1) / (2n)) among `count` values, by 64-bit integers: a floating point position picks the wrong neighbour
 * on exact ties. */
static int64_t rank_of(int j, int n, int64_t count)
{
    return ((2 * (int64_t)j + 1) * (count - 1) + n) / (2 * (int64_t)n);
}

static void order_statistics(const int64_t *hist, int64_t count, int n, float *q)
{
    int64_t below_or_in = 0, next = rank_of(0, n, count);
    int j = 0;
    for (int i = 0; i < 2 * INFINITE && j < n; i++) {
        int bin = bin_in_order(i);
        below_or_in += hist[bin];
        while (j < n && next < below_or_in) {
            q[j++] = bin_value(bin);
            next = rank_of(j, n, count);
        }
    }
    CHECK(j == n);
}

static int compare_floats(const void *a, const void *b)
{
    float x = *(const float *)a;
    float y = *(const float *)b;
    return (x > y) - (x < y);
}

static enum err_code fill(const struct config *c, const int64_t *hist, struct codebook *out,
                          struct err *e)
{
    (void)e;
    int64_t count = 0;
    for (int i = 0; i < 2 * INFINITE; i++)
        count += hist[bin_in_order(i)];
    int n = (1 << c->k) - 1;
    if (count > 0)
        order_statistics(hist, count, n, out->v);
    out->v[n] = 0;
    out->n = n + 1;
    qsort(out->v, (size_t)out->n, sizeof(out->v[0]), compare_floats);
    float max = fmaxf(-out->v[0], out->v[n]);
    if (max == 0)
        out->n = 1; /* v[0] is 0 */
    for (int i = 0; i < out->n && max > 0; i++)
        out->v[i] /= max;
    return ERR_OK;
}

const struct dtype_ops dtype_ops_quantile = {.is_data_dependent = true, .fill = fill};
