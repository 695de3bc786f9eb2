/* Codebooks that need no table: the int and the float type (quantization spec 2.1, 2.2), told by their values. Their values
 * are positions x on a grid, divided by the largest one:
 *
 *   steps    x = -m .. m
 *   floats   x = a float of few fraction bits in [-2, 2]; below some exponent all steps are of one size
 *
 * For a quotient t the neighbours on the grid, their values and the midpoint between them are computed as they stand in
 * the book, bit for bit, and compared with t, so that the choice is that of the spec for every t in [-1, 1]. What rounding
 * does to a position cannot matter: it moves t over a grid point at most, and both neighbours stay candidates there.
 * Values are halved, which is exact: the sum of two is then the midpoint.
 *
 * Private to the quantizers. */
#ifndef ISOBIT_KERNELS_CUDA_QUANT_GRID_CUH
#define ISOBIT_KERNELS_CUDA_QUANT_GRID_CUH

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "kernels/cuda/cuda_util.cuh"

enum grid_kind { GRID_NONE, GRID_STEPS, GRID_FLOATS };

struct book_grid {
    float top;       /* the largest position; t * top is that of t */
    float high, low; /* 0.5 / top in two parts */
    int32_t least;   /* floats: bits of the power of two below which steps stay the same */
    int32_t
        lift; /* floats: from the bits of a power of two to those of the number that rounds to its steps */
};

/* Half of the value at a position: one rounding, of a product that is exact to 48 bits. */
static __host__ __device__ __forceinline__ float grid_half_value(const struct book_grid &g,
                                                                 float position)
{
    const float rest = position * g.low;
    return fmaf(position, g.high, rest);
}

/* ---- finding ---- */

/* A sum with 1.5 * 2^23 steps, rounded down, is a multiple of the step. */
static __device__ __forceinline__ void grid_neighbours_steps(const struct book_grid &g, float t,
                                                             float *below, float *above)
{
    const float many = 12582912.0F;
    *below = __fsub_rn(__fmaf_rd(t, g.top, many), many);
    *above = __fadd_rn(*below, 1.0F);
}

static __device__ __forceinline__ void grid_neighbours_floats(const struct book_grid &g, float t,
                                                              float *below, float *above)
{
    const float x = __fmul_rn(t, g.top);
    const int32_t power = __float_as_int(x) & 0x7f800000;
    const float many = __int_as_float((power > g.least ? power : g.least) + g.lift);
    const float sum = __fadd_rd(x, many);
    *below = __fsub_rn(sum, many);
    *above = __fsub_rn(__int_as_float(__float_as_int(sum) + 1), many);
}

/* Half of the book's value for a quotient. */
template <enum grid_kind G>
static __device__ __forceinline__ float grid_half(const struct book_grid &g, float t)
{
    float below, above;
    if (G == GRID_STEPS)
        grid_neighbours_steps(g, t, &below, &above);
    else
        grid_neighbours_floats(g, t, &below, &above);
    const float low = grid_half_value(g, below), high = grid_half_value(g, above);
    return t > __fadd_rn(low, high) ? high : low;
}

/* ---- telling ---- */

static bool is_same_float(float a, float b)
{
    return memcmp(&a, &b, sizeof a) == 0;
}

/* The book of n values is the grid whose positions from 0 on are x[0..n/2]. */
static bool grid_fits(const struct book_grid &g, const float *x, const float *v, int n)
{
    const int zero = n / 2;
    for (int i = 0; i <= zero; i++) {
        const float half = grid_half_value(g, x[i]);
        const bool is_same = is_same_float(v[zero + i], 2 * half) && v[zero - i] == -2 * half;
        if (!is_same || (i > 0 && half < ldexpf(1, -100))) /* halves and sums stay exact */
            return false;
    }
    return true;
}

static struct book_grid grid_of(double top)
{
    struct book_grid g = {};
    g.top = (float)top;
    g.high = (float)(0.5 / top);
    g.low = (float)(0.5 / top - (double)g.high);
    return g;
}

static bool grid_try_steps(struct book_grid *g, const float *v, int n)
{
    float x[256];
    for (int i = 0; i <= n / 2; i++)
        x[i] = (float)i;
    *g = grid_of(n / 2);
    return grid_fits(*g, x, v, n);
}

/* Position i from 0 on has the exponent i >> bits and the fraction bits below; the last exponent is that of 1. */
static bool grid_try_floats(struct book_grid *g, const float *v, int n, int bits)
{
    float x[256];
    const int last = (n / 2) >> bits, size = 1 << bits;
    for (int i = 0; i <= n / 2; i++) {
        const int exponent = i >> bits, is_normal = exponent > 0;
        x[i] = ldexpf((float)(i % size + is_normal * size), exponent - is_normal + 1 - last - bits);
    }
    *g = grid_of((double)x[n / 2]);
    g->least = (128 - last) << 23;
    g->lift = ((23 - bits) << 23) + 0x400000;
    return grid_fits(*g, x, v, n);
}

/* Which grid the ascending v[n] lies on. */
static enum grid_kind grid_find(struct book_grid *g, const float *v, int n)
{
    if (n < 3 || (n & (n + 1)) != 0)
        return GRID_NONE;
    if (grid_try_steps(g, v, n))
        return GRID_STEPS;
    for (int bits = 0; (n / 2) >> bits >= 3; bits++)
        if (grid_try_floats(g, v, n, bits))
            return GRID_FLOATS;
    return GRID_NONE;
}

#endif
