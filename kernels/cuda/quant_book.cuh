/* A codebook on the GPU: the index of a quotient t is the number of midpoints 0.5f * (F[a] + F[a+1]) strictly below it
 * (quantization spec, section 1). Equal midpoints have one place here: the entries between them are never
 * chosen. Quotients fall into cells whose order is that of the quotients, so that a midpoint of a lower cell is below
 * every t of a higher one. Where no two midpoints share a cell, an entry says how many places lie below the cell and
 * which midpoint, if any, lies inside: one look-up and one comparison. All searches are exact:
 *
 *   steps, floats   no table (quant_grid.cuh)
 *   even     cell rint(t * S), S a power of two: for evenly spread books
 *   binades  cells that share sign, exponent and leading fraction bits; all below the exponent of half the smallest
 *            midpoint are one: for books that are dense around 0
 *   halving  for the others
 *
 * Private to quant_cuda.cu. */
#ifndef ISOBIT_KERNELS_CUDA_QUANT_BOOK_CUH
#define ISOBIT_KERNELS_CUDA_QUANT_BOOK_CUH

#include <math.h>
#include <stddef.h>

#include "kernels/cuda/quant_grid.cuh"

static constexpr int BOOK_MAX = 256;
static constexpr int EVEN_SMALLEST = 8, EVEN_LARGEST = 1024; /* S; cells are 2 S + 1 */
static constexpr int FRACTION_BITS_MAX = 9;
static constexpr int CELLS_MAX = 4096;

enum book_search { SEARCH_STEPS, SEARCH_FLOATS, SEARCH_EVEN, SEARCH_BINADES, SEARCH_HALVING };

struct book_cell {
    float mid; /* infinity when none lies inside */
    int32_t below;
};

/* How a quotient finds its cell. */
struct book_key {
    float scale;       /* even: S */
    int32_t low;       /* binades: bits of the smallest magnitude that is told from 0 */
    int32_t shift;     /* binades: fraction bits that do not count */
    int32_t zero_cell; /* the cell of +0 */
};

/* As uploaded, without the cells that are not used; kernels copy what they need to shared memory. */
struct book {
    float value[BOOK_MAX]; /* of a place */
    float mid[BOOK_MAX];   /* ascending, then infinity */
    uint8_t code[BOOK_MAX];
    int32_t n_places;
    int32_t steps; /* of halving: the first power of two >= n_places, halved */
    enum book_search search;
    struct book_key key;
    struct book_grid grid; /* steps, floats */
    int32_t n_cells;
    struct book_cell cell[CELLS_MAX];
};

/* ---- finding: cells of the same quotient are the same on both sides ---- */

/* Adding 1.5 * 2^23 rounds t * S to an integer, ties to even, and leaves it in the low bits. */
static __host__ __device__ __forceinline__ int book_cell_even(const struct book_key &k, float t)
{
    union {
        float f;
        int32_t i;
    } u;
    u.f = fmaf(t, k.scale, 12582912.0F);
    return u.i - 0x4b400000 + k.zero_cell;
}

static __host__ __device__ __forceinline__ int book_cell_binade(const struct book_key &k, float t)
{
    union {
        float f;
        int32_t i;
    } u;
    u.f = t;
    const int32_t magnitude = u.i & 0x7fffffff;
    const int32_t step = ((magnitude > k.low ? magnitude : k.low) - k.low) >> k.shift;
    return k.zero_cell + (step ^ (u.i >> 31)); /* negative: -1 - step */
}

static __device__ __forceinline__ int book_find_halving(const float *mid, int steps, float t)
{
    int place = 0;
    for (int step = steps; step > 0; step /= 2)
        place += mid[place + step - 1] < t ? step : 0;
    return place;
}

/* ---- making ---- */

/* Fills the cells for b->search and b->key; false when two midpoints share one. */
static bool book_cells_fill(struct book *b)
{
    const int n_mids = b->n_places - 1;
    int cell = 0;
    for (int i = 0; i <= n_mids; i++) {
        const float mid = b->mid[i]; /* the last is infinity: cells behind all midpoints */
        int at = b->n_cells;
        if (i < n_mids)
            at = b->search == SEARCH_EVEN ? book_cell_even(b->key, mid)
                                          : book_cell_binade(b->key, mid);
        if (at < cell)
            return false;
        for (; cell < at; cell++)
            b->cell[cell] = {INFINITY, i};
        if (i < n_mids)
            b->cell[cell++] = {mid, i};
    }
    return true;
}

static bool book_try_even(struct book *b, int scale)
{
    b->search = SEARCH_EVEN;
    b->key = {(float)scale, 0, 0, scale};
    b->n_cells = 2 * scale + 1;
    return book_cells_fill(b);
}

static bool book_try_binades(struct book *b, int fraction_bits)
{
    float smallest = 1.0F;
    for (int i = 0; i < b->n_places - 1; i++)
        if (b->mid[i] != 0.0F && fabsf(b->mid[i]) < smallest)
            smallest = fabsf(b->mid[i]);
    const int shift = 23 - fraction_bits;
    const int32_t low = (126 + ilogbf(smallest)) << 23, one = 127 << 23;
    const int half = ((one - low) >> shift) + 1;
    if (low <= 0 || 2 * half > CELLS_MAX)
        return false;
    b->search = SEARCH_BINADES;
    b->key = {0.0F, low, shift, half};
    b->n_cells = 2 * half;
    return book_cells_fill(b);
}

static void book_choose_search(struct book *b, enum grid_kind grid)
{
    b->search = grid == GRID_STEPS ? SEARCH_STEPS : SEARCH_FLOATS;
    if (grid != GRID_NONE)
        return;
    for (int scale = EVEN_SMALLEST; scale <= EVEN_LARGEST; scale *= 2)
        if (book_try_even(b, scale))
            return;
    for (int bits = 1; bits <= FRACTION_BITS_MAX; bits++)
        if (book_try_binades(b, bits))
            return;
    b->search = SEARCH_HALVING;
    b->n_cells = 0;
}

/* Bytes up to the last cell that is used. */
static size_t book_bytes(const struct book *b)
{
    return offsetof(struct book, cell) + (size_t)b->n_cells * sizeof(struct book_cell);
}

/* v[n] ascending in [-1, 1], 1 <= n <= 256. */
static void book_init(struct book *b, const float *v, int n)
{
    *b = {};
    int places = 0;
    for (int j = 0; j < n; j++) {
        const float mid = j + 1 < n ? 0.5F * (v[j] + v[j + 1]) : INFINITY;
        /* Entry j is chosen for quotients above the midpoint before it and up to its own. */
        if (places > 0 && mid == b->mid[places - 1])
            continue;
        b->value[places] = v[j];
        b->code[places] = (uint8_t)j;
        b->mid[places++] = mid;
    }
    b->n_places = places;
    for (int j = places; j < BOOK_MAX; j++)
        b->mid[j] = INFINITY;
    b->steps = 1;
    while (b->steps < places)
        b->steps *= 2;
    b->steps /= 2;
    book_choose_search(b, grid_find(&b->grid, v, n));
}

#endif
