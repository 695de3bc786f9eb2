/* The order in which clusters of blocks take the tiles of a product. The second-level cache has two sides, and what both read stands
 * on both: so each side has columns of w of its own, which stay in it, while both go down the same rows of x.
 *
 *              group 0              group 1 (narrower)
 *      | first   | second  |   | first | second |
 *  row | 0  1  2 | 0  1  2 |   | ...   | ...    |      tiles are numbered within a side: along the columns of its part of a
 *      | 3  4  5 | 3  4  5 |   |       |        |      group, row by row, then on in the next group
 *
 * Cluster j of the n on a side takes its tiles j, j + n, ... A side whose columns are more than its share of the work leaves its last
 * tiles to the other. Pure. Private to kernels/cuda. */
#ifndef ISOBIT_KERNELS_CUDA_GEMM_ORDER_H
#define ISOBIT_KERNELS_CUDA_GEMM_ORDER_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __CUDACC__
#define GEMM_ORDER_BOTH __host__ __device__
#else
#define GEMM_ORDER_BOTH
#endif

/* Unit: what a cluster takes at once, rows_of_cluster x cols_of_cluster. */
struct gemm_order {
    int rows, cols;
    int group; /* columns of a group */
    int left,
        left_last;     /* of those, the first side's; of the last group's where that is narrower */
    int n_clusters[2]; /* of each side; the second may have none */
    int n_own[2];      /* tiles of a side's own columns that it takes */
    int n[2];          /* tiles that it takes */
};

/* Columns of a group: all where n_sides, each of which keeps `fit`, keep them; else as many as they keep, in whole rows of a side's
 * clusters. At least one. */
static inline int gemm_order_group(int cols, int n_clusters, int n_sides, int64_t fit)
{
    const int64_t of_side = n_clusters / n_sides, most = fit > 1 ? fit : 1;
    if (cols <= n_sides * most)
        return cols;
    const int64_t rows = (of_side + most - 1) / most;
    return n_sides * (int)(of_side / rows);
}

/* Columns of `width` that are the first side's: as its clusters are of all. */
static inline int gemm_order_split(const struct gemm_order *o, int width)
{
    const int clusters = o->n_clusters[0] + o->n_clusters[1];
    return (width * o->n_clusters[0] + clusters / 2) / clusters;
}

/* o->rows, cols, group and n_clusters are given; fills in the rest. */
static inline void gemm_order_make(struct gemm_order *o)
{
    const int whole = o->cols / o->group, clusters = o->n_clusters[0] + o->n_clusters[1];
    const int total = o->rows * o->cols;
    o->left = gemm_order_split(o, o->group);
    o->left_last = gemm_order_split(o, o->cols % o->group);
    const int first = o->rows * (whole * o->left + o->left_last), second = total - first;
    const int share = (int)((int64_t)total * o->n_clusters[0] / clusters);
    o->n_own[0] = first < share ? first : share;
    o->n_own[1] = second < total - share ? second : total - share;
    o->n[0] = o->n_own[0] + second - o->n_own[1];
    o->n[1] = o->n_own[1] + first - o->n_own[0];
}

struct gemm_order_place {
    int row, col;
};

/* Tile i, below n[side], of those that a side takes. */
GEMM_ORDER_BOTH static inline struct gemm_order_place gemm_order_at(const struct gemm_order *o,
                                                                    int side, int i)
{
    if (i >= o->n_own[side]) { /* the other's last */
        i += o->n_own[1 - side] - o->n_own[side];
        side = 1 - side;
    }
    const int of_group = o->rows * (side == 0 ? o->left : o->group - o->left);
    const int group = i / of_group, within = i - group * of_group, from = group * o->group;
    const bool is_last = o->cols - from < o->group;
    const int left = is_last ? o->left_last : o->left;
    const int width = side == 0 ? left : (is_last ? o->cols - from : o->group) - left;
    const int row = within / width;
    const struct gemm_order_place place = {row,
                                           from + (side == 0 ? 0 : left) + within - row * width};
    return place;
}

#endif
