/* Nearest entry of a codebook, exactly as section 1 of the quantization spec pins it: the index of x is the number
 * of midpoints 0.5f * (F[a] + F[a+1]) strictly below the binary32 quotient x / m. Two ways to the same number:
 *
 *   small books (<= 16 entries)  division is monotone, so for a given m each midpoint has a largest binary16 x whose
 *                                quotient does not pass it. These thresholds are made once per block; elements are
 *                                compared with them as 16-bit integers and never divided.
 *   larger books                 the leading bits of the quotient choose a cell that knows how many midpoints lie
 *                                below all of it; the few that lie inside are compared one by one.
 *
 * Pure; read-only once initialised, so threads share it. */
#ifndef ISOBIT_KERNELS_CPU_QUANT_BOOK_H
#define ISOBIT_KERNELS_CPU_QUANT_BOOK_H

#include <stdint.h>

#include "kernels/cpu/f16.h"

enum {
    BOOK_MAX = 256,
    BOOK_SMALL = 16,
    /* Cells: 64 per power of two from 2^-24 to 1 for either sign, and one below. The densest book, 8-bit integers,
     * has its midpoints 1/127 apart in the top one. */
    BOOK_CELL_SHIFT = 23 - 6,
    BOOK_CELL_LOW = 0x33800000, /* bits of 2^-24 */
    BOOK_CELL_ONE = 0x3f800000, /* bits of 1 */
    BOOK_CELLS = ((BOOK_CELL_ONE - BOOK_CELL_LOW) >> BOOK_CELL_SHIFT) + 1,
};

struct book {
    int n;
    float v[BOOK_MAX];
    float mid[BOOK_MAX]; /* n - 1 midpoints, then +infinity */
    uint8_t
        first[2 *
              BOOK_CELLS]; /* midpoints below every quotient of the cell; negative ones second */
    uint8_t zero_code;     /* index of quotient 0 */
};

/* v[n] ascending in [-1, 1], 1 <= n <= 256; copied. */
void book_init(struct book *b, const float *v, int n);

/* codes[n] of x[n], finite binary16 bits with |x| <= m, m > 0, for books of at most BOOK_SMALL entries. */
static inline void book_encode_small(const struct book *b, float m, const uint16_t *x, int n,
                                     uint8_t *codes)
{
    /* c is the binary16 nearest to mid * m, so it or the value before it is the largest whose quotient does not pass
     * mid; the division that the definition asks for says which. */
    int16_t threshold[BOOK_SMALL - 1];
#pragma omp simd
    for (int a = 0; a < BOOK_SMALL - 1; a++) {
        float c = b->mid[a] * m;
        int16_t order = f16_order(f32_to_f16(c));
        int16_t is_past = f32_round_to_f16(c) / m > b->mid[a];
        threshold[a] = (int16_t)(order - is_past);
    }
    for (int a = b->n - 1; a < BOOK_SMALL - 1; a++)
        threshold[a] = INT16_MAX;
#pragma omp simd
    for (int i = 0; i < n; i++) {
        int16_t order = f16_order(x[i]);
        int16_t code = 0;
        for (int a = 0; a < BOOK_SMALL - 1; a++)
            code = (int16_t)(code + (order > threshold[a]));
        codes[i] = (uint8_t)code;
    }
}

/* The cell of quotient t in [-1, 1]. */
static inline uint16_t book_cell(float t)
{
    uint32_t u = f32_bits(t);
    int32_t above_low = (int32_t)(u & 0x7fffffffU) - BOOK_CELL_LOW;
    int32_t cell = (above_low > 0 ? above_low : 0) >> BOOK_CELL_SHIFT;
    return (uint16_t)(cell + ((u >> 31) != 0 ? BOOK_CELLS : 0));
}

/* The code of quotient t. In a cell with at most one midpoint the loop never runs. */
static inline uint8_t book_find(const struct book *b, float t, uint16_t cell)
{
    unsigned c = b->first[cell];
    c += b->mid[c] < t;
    while (b->mid[c] < t)
        c++;
    return (uint8_t)c;
}

#endif
