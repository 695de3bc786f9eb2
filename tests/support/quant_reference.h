/* fp16 numbers and what goes into the blocks of a tensor, by definition (quantization spec, sections 1, 4 and 6): doubles,
 * one operation at a time. Header only. */
#ifndef ISOBIT_TESTS_SUPPORT_QUANT_REFERENCE_H
#define ISOBIT_TESTS_SUPPORT_QUANT_REFERENCE_H

#include <math.h>

#include "base/rng.h"
#include "kernels/cpu/f16.h"
#include "kernels/kernels.h"

enum { PATTERNS = 65536, FINITE = 0x7c00 };

static inline double value_of(int bits)
{
    int exponent = (bits >> 10) & 31;
    int fraction = bits & 0x3ff;
    double mag = exponent > 0 ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
    return (bits & 0x8000) != 0 ? -mag : mag;
}

/* Nearest fp16 to x by looking for it; ties to the even pattern. */
static inline uint16_t nearest_f16(double x)
{
    double mag = fabs(x);
    int lo = 0;
    int hi = FINITE; /* stands for 65536: what would come after the largest */
    while (hi - lo > 1) {
        int middle = (lo + hi) / 2;
        if (value_of(middle) <= mag)
            lo = middle;
        else
            hi = middle;
    }
    double below = mag - value_of(lo);
    double above = (hi == FINITE ? 65536.0 : value_of(hi)) - mag;
    int bits = below < above || (below == above && lo % 2 == 0) ? lo : hi;
    return (uint16_t)(bits | (signbit(x) ? 0x8000 : 0));
}

static inline bool is_kept(const struct kern_quant_args *a, int64_t i)
{
    for (int32_t j = 0; j < a->n_keep; j++) {
        if (a->keep[j] == i % a->cols)
            return true;
    }
    return false;
}

/* fp16 of the exact mean: 24 binary digits behind the point make every fp16 number an integer. */
static inline uint16_t reference_mean(const struct kern_quant_args *a, int64_t start, int64_t end)
{
    __int128 sum = 0;
    int64_t n = 0;
    for (int64_t i = start; i < end; i++) {
        if (is_kept(a, i))
            continue;
        sum += (__int128)(value_of(a->w16[i]) * 0x1p24);
        n++;
    }
    if (n == 0)
        return 0;
    /* Quotient to 20 more digits with a sticky one: a double holds all that can decide the rounding. */
    __int128 scaled = sum * ((__int128)1 << 20);
    __int128 quotient = scaled / n;
    double q = (double)(int64_t)(quotient >> 20) + (double)(int64_t)(quotient & 0xfffff) * 0x1p-20;
    if (scaled % n != 0 && fabs(q) < 0x1p30)
        q += sum < 0 ? -0x1p-22 : 0x1p-22;
    return nearest_f16(q * 0x1p-24);
}

static inline int by_value(const void *a, const void *b)
{
    float x = *(const float *)a;
    float y = *(const float *)b;
    return (x > y) - (x < y);
}

static inline void random_weights(struct rng *r, uint16_t *w, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        double scale = ldexp(1, -(int)rng_below(r, 12));
        w[i] = nearest_f16(scale * (rng_normal(r) + 0.3));
    }
    for (int64_t i = n / 3; i < n / 3 + 200 && i < n; i++)
        w[i] = (uint16_t)(rng_below(r, 2) << 15); /* zero blocks, of either sign */
}

#endif
