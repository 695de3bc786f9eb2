#include "kernels/cpu/quant_book.h"

#include <math.h>
#include <string.h>

#include "base/check.h"
#include "kernels/cpu/f16.h"

/* The smallest magnitude of a cell. */
static float cell_start(int c)
{
    return f32_of_bits(BOOK_LOW + ((uint32_t)c << BOOK_SHIFT));
}

/* Midpoints [below, end) lie inside; without any, no quotient is beyond the largest remaining bits. */
static uint32_t cell_entry(const struct book *b, int below, int end, uint32_t flip)
{
    uint32_t rest = below < end ? (f32_bits(b->mid[below]) ^ flip) & BOOK_REST : BOOK_REST;
    return rest << BOOK_SHIFT | (uint32_t)end << 8 | (uint32_t)below;
}

/* Cells in ascending order of their quotients: (-start(c + 1), -start(c)], then 0, then [start(c), start(c + 1)). False
 * when midpoints of different values meet in one. */
static bool cells_fill(struct book *b)
{
    const float *mid = b->mid; /* ends with infinity */
    int at = 0;
    for (int c = BOOK_CELLS - 1; c > 0; c--) {
        int below = at;
        while (mid[at] <= -cell_start(c))
            at++;
        if (at > below && mid[at - 1] != mid[below])
            return false;
        b->cell[BOOK_CELLS + c] = cell_entry(b, below, at, BOOK_REST);
    }
    while (mid[at] < 0)
        at++;
    b->cell[0] = b->cell[BOOK_CELLS] = cell_entry(b, at, at, 0);
    while (mid[at] < cell_start(1))
        at++;
    for (int c = 1; c < BOOK_CELLS; c++) {
        int below = at;
        while (mid[at] < cell_start(c + 1))
            at++;
        if (at > below && mid[at - 1] != mid[below])
            return false;
        b->cell[c] = cell_entry(b, below, at, 0);
    }
    return true;
}

void book_init(struct book *b, const float *v, int n)
{
    CHECK(n >= 1 && n <= BOOK_MAX);
    b->n = n;
    memset(b->v, 0, sizeof(b->v));
    memcpy(b->v, v, (size_t)n * sizeof(*v));
    for (int a = 0; a < n - 1; a++)
        b->mid[a] = 0.5F * (v[a] + v[a + 1]);
    for (int a = n - 1; a < BOOK_MAX; a++)
        b->mid[a] = INFINITY;
    b->has_cells = n > BOOK_SMALL && cells_fill(b);
}
