/* Nearest entry of a codebook, exactly as section 1 of the quantization spec pins it: the index of a quotient t is the
 * number of midpoints 0.5f * (F[a] + F[a+1]) strictly below it. Read-only once initialised, so threads share it. */
#ifndef ISOBIT_KERNELS_CPU_QUANT_BOOK_H
#define ISOBIT_KERNELS_CPU_QUANT_BOOK_H

#include <stdbool.h>
#include <stdint.h>

enum {
    BOOK_MAX = 256,
    BOOK_SMALL = 16, /* up to here vector code searches the midpoints themselves */
};

/* Larger books have a table of cells for vector code. A cell is the quotients that share sign, exponent and the leading
 * 7 fraction bits: the bits of |t| less BOOK_LOW, shifted right; negative quotients have a second half. Its entry is
 *
 *   bits 0..7     how many midpoints lie below every quotient of the cell
 *   bits 8..15    that number with the midpoints inside the cell counted too (at most one value, maybe several times)
 *   bits 16..31   the remaining 16 fraction bits of the one inside: quotients with larger ones lie beyond it
 *
 * For negative quotients and midpoints the remaining bits are complemented: the smaller number is the one of larger
 * magnitude. Quotients of fp16 numbers are 0 or at least 2^-24 / 65504 > 2^-40 in magnitude, so that cell 0, which
 * begins at 2^-41, is met by 0 alone. */
enum {
    BOOK_LOW = (127 - 41) << 23, /* bits of 2^-41 */
    BOOK_SHIFT = 23 - 7,
    BOOK_REST = (1 << BOOK_SHIFT) - 1,
    BOOK_CELLS = (41 << (23 - BOOK_SHIFT)) + 1, /* up to and with 1 */
};

struct book {
    int n;
    float v[BOOK_MAX];
    float mid[BOOK_MAX]; /* n - 1 midpoints, then +infinity */
    bool has_cells;
    uint32_t cell[2 * BOOK_CELLS];
};

/* v[n] ascending in [-1, 1], 1 <= n <= 256; copied. */
void book_init(struct book *b, const float *v, int n);

/* The code of quotient t, by halving. */
static inline uint8_t book_find(const struct book *b, float t)
{
    int code = 0;
    for (int step = b->n > BOOK_SMALL ? BOOK_MAX / 2 : BOOK_SMALL / 2; step > 0; step /= 2)
        code += b->mid[code + step - 1] < t ? step : 0;
    return (uint8_t)code;
}

#endif
