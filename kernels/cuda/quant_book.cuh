/* A codebook on the GPU: the index of a quotient t is the number of midpoints 0.5f * (F[a] + F[a+1]) strictly below it
 * (quantization spec, section 1). Equal midpoints have one place here: the entries between them are never
 * chosen. Two searches, both exact:
 *
 *   grid   cell rint(t * S) for a power of two S. No two midpoints share a cell, so an entry says how many places lie
 *          below the cell and which midpoint, if any, lies inside. rint is monotone: a midpoint in a lower cell is
 *          below every t of this one. Works for evenly spread books.
 *   halving for the others.
 *
 * Private to quant_cuda.cu. */
#ifndef ISOBIT_KERNELS_CUDA_QUANT_BOOK_CUH
#define ISOBIT_KERNELS_CUDA_QUANT_BOOK_CUH

#include <math.h>

#include "kernels/cuda/cuda_util.cuh"

static constexpr int BOOK_MAX = 256;
static constexpr int GRID_SMALLEST = 8, GRID_LARGEST = 1024; /* S; cells are 2 S + 1 */
static constexpr int CELLS_MAX = 2 * GRID_LARGEST + 1;

struct book_cell {
    float mid; /* infinity when none lies inside */
    int32_t below;
};

/* As uploaded; kernels copy what they need to shared memory. */
struct book {
    float value[BOOK_MAX]; /* of a place */
    float mid[BOOK_MAX];   /* ascending, then infinity */
    uint8_t code[BOOK_MAX];
    int32_t n_places;
    int32_t steps; /* of halving: the first power of two >= n_places, halved */
    int32_t scale; /* S, or 0: no grid */
    int32_t n_cells;
    struct book_cell cell[CELLS_MAX];
};

/* ---- host ---- */

static int book_cell_of(float mid, int scale)
{
    return (int)rint((double)mid * scale);
}

/* False when two midpoints share a cell. */
static bool book_grid_fill(struct book *b, int scale)
{
    int place = 0;
    const int n_mids = b->n_places - 1;
    for (int cell = -scale; cell <= scale; cell++) {
        struct book_cell *out = &b->cell[cell + scale];
        *out = {INFINITY, place};
        if (place < n_mids && book_cell_of(b->mid[place], scale) == cell)
            out->mid = b->mid[place++];
        if (place < n_mids && book_cell_of(b->mid[place], scale) == cell)
            return false;
    }
    b->scale = scale;
    b->n_cells = 2 * scale + 1;
    return true;
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
    for (int scale = GRID_SMALLEST; scale <= GRID_LARGEST; scale *= 2)
        if (book_grid_fill(b, scale))
            return;
}

/* ---- device ---- */

static __device__ __forceinline__ int book_find_halving(const float *mid, int steps, float t)
{
    int place = 0;
    for (int step = steps; step > 0; step /= 2)
        place += mid[place + step - 1] < t ? step : 0;
    return place;
}

/* Adding 1.5 * 2^23 rounds t * S to an integer, ties to even as rint, and leaves it in the low bits. */
static __device__ __forceinline__ int book_find_grid(const struct book_cell *cells, float scale,
                                                     int offset, float t)
{
    const int i = __float_as_int(__fmaf_rn(t, scale, 12582912.0F)) + offset;
    const struct book_cell c = cells[i];
    return c.below + (t > c.mid ? 1 : 0);
}

#endif
