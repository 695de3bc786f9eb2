/* The order of a product's tiles: every tile is taken once, whatever the sides; shares are even; a side keeps to its columns. */
#include <criterion/criterion.h>
#include <string.h>

#include "base/mem.h"
#include "kernels/cuda/gemm_order.h"

static struct gemm_order order_of(int rows, int cols, int group, int first, int second)
{
    struct gemm_order o = {
        .rows = rows, .cols = cols, .group = group, .n_clusters = {first, second}};
    gemm_order_make(&o);
    return o;
}

static void check(int rows, int cols, int group, int first, int second)
{
    const struct gemm_order o = order_of(rows, cols, group, first, second);
    unsigned char *taken = xcalloc((size_t)rows * (size_t)cols, 1);
    for (int side = 0; side < 2; side++) {
        for (int i = 0; i < o.n[side]; i++) {
            const struct gemm_order_place p = gemm_order_at(&o, side, i);
            cr_assert(p.row >= 0 && p.row < rows && p.col >= 0 && p.col < cols,
                      "%d x %d, groups of %d, %d + %d clusters: side %d, tile %d at %d, %d", rows,
                      cols, group, first, second, side, i, p.row, p.col);
            cr_assert_eq(taken[p.row * cols + p.col]++, 0, "%d x %d, groups of %d: %d, %d twice",
                         rows, cols, group, p.row, p.col);
        }
        const int clusters = o.n_clusters[side];
        if (clusters == 0)
            cr_assert_eq(o.n[side], 0, "nobody is there");
        else /* at most one round more than an even share */
            cr_assert_leq((o.n[side] + clusters - 1) / clusters,
                          rows * cols / (first + second) + 1);
    }
    cr_assert_eq(o.n[0] + o.n[1], rows * cols);
    xfree(taken);
}

Test(gemm_order, every_tile_is_taken_once_and_shares_are_even)
{
    static const int shapes[][2] = {{1, 1},   {1, 7},   {5, 1},   {3, 66},    {64, 86},
                                    {64, 64}, {64, 22}, {64, 23}, {128, 131}, {7, 45}};
    static const int sides[][2] = {{66, 0}, {33, 33}, {34, 32}, {31, 35}, {65, 1}, {1, 1}, {2, 64}};
    static const int groups[] = {1, 2, 3, 11, 22, 44, 200};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (size_t g = 0; g < sizeof groups / sizeof *groups; g++)
            for (size_t n = 0; n < sizeof sides / sizeof *sides; n++)
                check(shapes[s][0], shapes[s][1], groups[g], sides[n][0], sides[n][1]);
}

/* One row after the other over the columns of a side's part of a group, then the next group: the figure in gemm_order.h. */
Test(gemm_order, sides_go_down_the_same_rows_each_in_columns_of_its_own)
{
    const struct gemm_order o = order_of(4, 10, 6, 3, 3);
    cr_assert_eq(o.left, 3);
    cr_assert_eq(o.left_last, 2);
    for (int side = 0; side < 2; side++) {
        for (int i = 0; i < 12; i++) {
            const struct gemm_order_place p = gemm_order_at(&o, side, i);
            cr_assert_eq(p.row, i / 3);
            cr_assert_eq(p.col, 3 * side + i % 3);
        }
        const struct gemm_order_place p = gemm_order_at(&o, side, 12 + 3);
        cr_assert_eq(p.row, 1);
        cr_assert_eq(p.col, 6 + 2 * side + 1);
    }
}

/* With 3 clusters against 1, a group of two columns cannot be divided as they are: the first side helps the second out. */
Test(gemm_order, a_side_with_too_many_columns_leaves_its_last_tiles)
{
    const struct gemm_order o = order_of(8, 2, 2, 3, 1);
    cr_assert_eq(o.left, 2);
    cr_assert_eq(o.n_own[0], 12);
    cr_assert_eq(o.n_own[1], 0);
    cr_assert_eq(o.n[1], 4);
    const struct gemm_order_place p = gemm_order_at(&o, 1, 0);
    cr_assert_eq(p.row, 6);
    cr_assert_eq(p.col, 0);
}

/* K = 4,096 and 2,048 in tiles of 192 columns, of which 18 MiB stay: 12 and 24 columns. */
Test(gemm_order, a_group_is_what_stays_in_the_cache)
{
    cr_assert_eq(gemm_order_group(86, 66, 2, 12), 22, "33 clusters in three rows of 11");
    cr_assert_eq(gemm_order_group(86, 66, 1, 12), 11, "66 in six");
    cr_assert_eq(gemm_order_group(43, 66, 2, 24), 43, "both sides keep all");
    cr_assert_eq(gemm_order_group(22, 66, 1, 46), 22, "one side keeps all");
    cr_assert_eq(gemm_order_group(300, 66, 2, 100), 66, "one row of clusters");
    cr_assert_eq(gemm_order_group(5, 66, 2, 0), 2, "not even one stays");
    cr_assert_eq(gemm_order_group(5, 1, 1, 0), 1);
}
