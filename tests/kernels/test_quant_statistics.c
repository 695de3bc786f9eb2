/* kern_order_statistics and kern_spread on the cpu, against sorting and against exact sums. */
#include <stdlib.h>
#include <string.h>

#include "tests/support/kern_fixture.h"
#include "tests/support/quant_reference.h"

/* What goes into the blocks, ascending. Returns how many. */
static int64_t reference_sorted(const struct kern_quant_args *a, float *y)
{
    const int64_t n = a->rows * a->cols;
    int64_t n_live = 0;
    uint16_t mean = reference_mean(a, 0, n);
    for (int64_t i = 0; i < n; i++) {
        int64_t start = i / a->block * a->block;
        if (a->center == KERN_CENTER_BLOCK && i == start)
            mean = reference_mean(a, start, start + a->block < n ? start + a->block : n);
        double x = value_of(a->w16[i]);
        x = a->center == KERN_CENTER_NONE ? x : value_of(nearest_f16(x - value_of(mean)));
        if (!is_kept(a, i))
            y[n_live++] = (float)(x == 0 ? 0 : x);
    }
    qsort(y, (size_t)n_live, sizeof(*y), by_value);
    return n_live;
}

/* Every rank there is, and +0 for both zeros. */
static void check_statistics(struct kern *k, const struct kern_quant_args *a, const float *sorted,
                             int64_t n)
{
    int64_t rank[KERN_RANKS];
    float value[KERN_RANKS];
    struct err e;
    for (int64_t first = 0; first < n; first += KERN_RANKS) {
        int len = n - first < KERN_RANKS ? (int)(n - first) : KERN_RANKS;
        for (int i = 0; i < len; i++)
            rank[i] = first + i;
        cr_assert_eq(kern_order_statistics(k, a, rank, len, value, &e), ERR_OK, "%s", e.text);
        for (int i = 0; i < len; i++)
            cr_assert_eq(f32_bits(value[i]), f32_bits(sorted[first + i]),
                         "center %d, %d kept: rank %ld of %ld is %a, expected %a", (int)a->center,
                         a->n_keep, (long)rank[i], (long)n, value[i], sorted[first + i]);
    }
}

Test(quant_statistics, order_statistics_are_those_of_what_goes_into_blocks)
{
    enum { ROWS = 33, COLS = 130, N = ROWS * COLS, BLOCK = 64 };
    struct rng r = {5};
    struct kern *k = fixture_kern(2);
    uint16_t w[N];
    float sorted[N];
    random_weights(&r, w, N); /* with zeros of either sign */
    w[0] = 0x7bff;
    w[N - 1] = 0xfbff;
    static const int32_t keep[] = {3, 64, 129};
    for (int center = KERN_CENTER_NONE; center <= KERN_CENTER_BLOCK; center++) {
        for (int32_t n_keep = 0; n_keep <= 3; n_keep += 3) {
            struct kern_quant_args a = {.w16 = w,
                                        .rows = ROWS,
                                        .cols = COLS,
                                        .block = BLOCK,
                                        .center = (enum kern_center)center,
                                        .keep = keep,
                                        .n_keep = n_keep};
            int64_t n = reference_sorted(&a, sorted);
            cr_assert_eq(n, ROWS * (COLS - n_keep));
            check_statistics(k, &a, sorted, n);
        }
    }
    kern_close(k);
}

Test(quant_statistics, order_statistics_of_tiny_and_of_equal_weights)
{
    struct kern *k = fixture_kern(2);
    struct err e;
    static const int32_t keep[] = {0};
    static const int64_t same[] = {0, 0, 0, 0, 0};
    float value[5];
    uint16_t w[25];
    for (int i = 0; i < 25; i++)
        w[i] = 0xc000;
    w[24] = 0x8000;
    struct kern_quant_args a = {.w16 = w, .rows = 1, .cols = 1, .block = 64};
    cr_assert_eq(kern_order_statistics(k, &a, same, 5, value, &e), ERR_OK, "%s", e.text);
    for (int i = 0; i < 5; i++)
        cr_expect_eq(value[i], -2);
    a.rows = a.cols = 5;
    static const int64_t ends[] = {0, 0, 1, 23, 24};
    cr_assert_eq(kern_order_statistics(k, &a, ends, 5, value, &e), ERR_OK, "%s", e.text);
    cr_expect(value[0] == -2 && value[2] == -2 && value[3] == -2);
    cr_expect(value[4] == 0 && !signbit(value[4]));
    /* Nothing is left when every column is kept, and a mean of nothing is 0. */
    a.rows = 25;
    a.cols = 1;
    a.keep = keep;
    a.n_keep = 1;
    for (int center = 0; center <= KERN_CENTER_BLOCK; center++) {
        a.center = (enum kern_center)center;
        cr_expect_eq(kern_order_statistics(k, &a, NULL, 0, NULL, &e), ERR_OK);
        cr_expect_eq(kern_order_statistics(k, &a, same, 1, value, &e), ERR_FORMAT);
        cr_expect(strstr(e.text, "rank 0 (number 1 of 1)") != NULL, "%s", e.text);
    }
    kern_close(k);
}

Test(quant_statistics, ranks_that_do_not_ascend_within_the_weights_are_refused)
{
    static const struct {
        int64_t rank[3];
        int n;
        const char *part;
    } rows[] = {
        {{-1, 0, 0}, 1, "rank -1 (number 1 of 1)"},
        {{0, 12, 0}, 2, "rank 12 (number 2 of 2) is not in ascending order within 0..11"},
        {{3, 5, 4}, 3, "rank 4 (number 3 of 3)"},
        {{0}, -1, "-1 order statistics"},
        {{0}, KERN_RANKS + 1, "257 order statistics; 0 to 256"},
    };
    struct kern *k = fixture_kern(1);
    uint16_t w[16] = {0};
    static const int32_t keep[] = {1};
    const struct kern_quant_args a = {
        .w16 = w, .rows = 4, .cols = 4, .block = 64, .keep = keep, .n_keep = 1};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        float value[3];
        struct err e = {0};
        cr_expect_eq(kern_order_statistics(k, &a, rows[i].rank, rows[i].n, value, &e), ERR_FORMAT);
        cr_expect(strstr(e.text, rows[i].part) != NULL, "row %zu: '%s'", i, e.text);
    }
    kern_close(k);
}

Test(quant_statistics, spread_is_exact)
{
    enum { ROWS = 7, COLS = 150 };
    struct rng r = {9};
    struct kern *k = fixture_kern(2);
    uint16_t w[ROWS * COLS];
    random_weights(&r, w, ROWS * COLS);
    w[0] = 0x7bff; /* the largest beside the smallest */
    w[1] = 0x0001;
    unsigned __int128 keys[COLS];
    for (int by_rows = 0; by_rows <= 1; by_rows++) {
        struct err e;
        cr_assert_eq(kern_spread(k, w, ROWS, COLS, by_rows, keys, &e), ERR_OK);
        int n_lines = by_rows ? ROWS : COLS;
        int n = by_rows ? COLS : ROWS;
        for (int line = 0; line < n_lines; line++) {
            /* n * sum x^2 - (sum x)^2 is the sum over pairs of (x_i - x_j)^2 */
            unsigned __int128 pairs = 0;
            for (int i = 0; i < n; i++) {
                for (int j = 0; j < i; j++) {
                    int at_i = by_rows ? line * COLS + i : i * COLS + line;
                    int at_j = by_rows ? line * COLS + j : j * COLS + line;
                    __int128 d = (__int128)((value_of(w[at_i]) - value_of(w[at_j])) * 0x1p24);
                    pairs += (unsigned __int128)(d * d);
                }
            }
            cr_assert(keys[line] == pairs, "by_rows %d, line %d", by_rows, line);
        }
    }
    kern_close(k);
}
