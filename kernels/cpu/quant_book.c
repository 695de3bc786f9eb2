#include "kernels/cpu/quant_book.h"

#include <math.h>

#include "base/check.h"

void book_init(struct book *b, const float *v, int n)
{
    CHECK(n >= 1 && n <= BOOK_MAX);
    b->n = n;
    memcpy(b->v, v, (size_t)n * sizeof(*v));
    int n_mid = n - 1;
    for (int a = 0; a < n_mid; a++)
        b->mid[a] = 0.5F * (v[a] + v[a + 1]);
    for (int a = n_mid; a < BOOK_MAX; a++)
        b->mid[a] = INFINITY;

    /* Cells in ascending order of their quotients. A negative cell holds (-end, -start], a positive one [start, end). */
    int below = 0;
    for (int c = BOOK_CELLS - 1; c >= 0; c--) {
        float end = f32_of_bits(BOOK_CELL_LOW + ((uint32_t)(c + 1) << BOOK_CELL_SHIFT));
        while (below < n_mid && b->mid[below] <= -end)
            below++;
        b->first[BOOK_CELLS + c] = (uint8_t)below;
    }
    for (int c = 0; c < BOOK_CELLS; c++) {
        float start = c == 0 ? 0.0F : f32_of_bits(BOOK_CELL_LOW + ((uint32_t)c << BOOK_CELL_SHIFT));
        while (below < n_mid && b->mid[below] < start)
            below++;
        b->first[c] = (uint8_t)below;
    }
    b->zero_code = book_find(b, 0.0F, book_cell(0.0F));
}
