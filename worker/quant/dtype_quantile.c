/* Quantiles of the tensor itself (quantization spec 2.4; paper eq. 6 in the form of its library): the medians of
 * n = 2^k - 1 bins of equal probability and 0, divided by the largest magnitude. Order statistics of all N weights, not of a
 * sample. Equal values keep their slots: the set is a multiset of 2^k. */
#include <math.h>
#include <stdlib.h>

#include "worker/quant/dtype.h"

static int count_of(int k)
{
    return (1 << k) - 1;
}

/* Rank of Q((2j + 1) / (2n)) among `count` values, by 64-bit integers: a floating point position picks the wrong neighbour
 * on exact ties. */
static int64_t rank_of(int j, int n, int64_t count)
{
    return ((2 * (int64_t)j + 1) * (count - 1) + n) / (2 * (int64_t)n);
}

static void ranks(int k, int64_t count, struct order_statistics *s)
{
    s->n = count_of(k);
    for (int j = 0; j < s->n; j++)
        s->rank[j] = rank_of(j, s->n, count);
}

static int compare_floats(const void *a, const void *b)
{
    float x = *(const float *)a;
    float y = *(const float *)b;
    return (x > y) - (x < y);
}

static enum err_code fill(const struct config *c, const struct order_statistics *s,
                          struct codebook *out, struct err *e)
{
    (void)e;
    int n = count_of(c->k);
    CHECK(s->n == n || s->n == 0);
    for (int i = 0; i < s->n; i++)
        out->v[i] = s->value[i];
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

const struct dtype_ops dtype_ops_quantile = {.ranks = ranks, .fill = fill};
