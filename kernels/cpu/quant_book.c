#include "kernels/cpu/quant_book.h"

#include <math.h>
#include <string.h>

#include "base/check.h"
#include "kernels/cpu/f16.h"

/* Quotients smaller in magnitude than this are 0. */
static const float smallest = 0x1p-41F * (1 + 0x1p-7F);

static int cell_of(float mid)
{
    return (int)(((f32_bits(mid) & INT32_MAX) - BOOK_LOW) >> BOOK_SHIFT);
}

/* A cell without midpoints: no quotient is beyond the largest remaining bits. */
static void fill_plain(uint32_t *cell, int from, int to, int below)
{
    for (int c = from; c < to; c++)
        cell[c] = (uint32_t)BOOK_REST << BOOK_SHIFT | (uint32_t)below << 8 | (uint32_t)below;
}

/* The cells of one sign, by growing magnitude: midpoints at, at + step, … until `stop`. False when midpoints of
 * different values meet in one. */
static bool half_fill(const struct book *b, bool is_negative, int at, uint32_t *cell)
{
    const float *mid = b->mid;
    int step = is_negative ? -1 : 1;
    int stop = is_negative ? -1 : b->n - 1;
    uint32_t flip = is_negative ? BOOK_REST : 0;
    int next = 1;
    while (at != stop) {
        int c = cell_of(mid[at]);
        uint32_t rest = (f32_bits(mid[at]) ^ flip) & BOOK_REST;
        int end = at;
        while (end != stop && mid[end] == mid[at])
            end += step;
        if (end != stop && cell_of(mid[end]) == c)
            return false;
        /* Midpoints below what is smaller in magnitude than mid[at], and larger. */
        int nearer = is_negative ? at + 1 : at;
        int farther = is_negative ? end + 1 : end;
        int below = is_negative ? farther : nearer;
        int beyond = is_negative ? nearer : farther;
        fill_plain(cell, next, c, nearer);
        cell[c] = rest << BOOK_SHIFT | (uint32_t)beyond << 8 | (uint32_t)below;
        next = c + 1;
        at = end;
    }
    fill_plain(cell, next, BOOK_CELLS, is_negative ? 0 : b->n - 1);
    return true;
}

static bool cells_fill(struct book *b)
{
    int negative = 0, below_zero = 0,
        positive = 0; /* where midpoints of some magnitude end and begin */
    while (b->mid[negative] <= -smallest)
        negative++;
    while (b->mid[below_zero] < 0)
        below_zero++;
    while (b->mid[positive] < smallest)
        positive++;
    fill_plain(b->cell, 0, 1, below_zero);
    fill_plain(b->cell + BOOK_CELLS, 0, 1, below_zero);
    return half_fill(b, false, positive, b->cell) &&
           half_fill(b, true, negative - 1, b->cell + BOOK_CELLS);
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
