/* kern_embed, kern_copy_rows and the casts on the cpu. */
#include "tests/support/kern_fixture.h"

Test(embed, adds_token_and_position_rows)
{
    enum { V = 7, P = 5, D = 11, T = 4 };
    static const int32_t ids[T] = {6, 0, 6, 3}, pos[T] = {2, 3, 4, 0};
    struct kern *k = fixture_kern(2);
    struct err e = {0};
    struct rng r = {1};
    float *table = fixture_normal(&r, V * D, 1.0), *positions = fixture_normal(&r, P * D, 1.0);
    float *out = fixture_zeros(T * D);
    struct kern_embed_args a = {
        .out = out, .table = table, .pos_table = positions, .ids = ids, .pos = pos, .T = T, .d = D};
    cr_assert_eq(kern_embed(k, &a, &e), ERR_OK);
    for (int t = 0; t < T; t++)
        for (int c = 0; c < D; c++)
            cr_expect_eq(out[t * D + c], table[ids[t] * D + c] + positions[pos[t] * D + c]);
    a.pos_table = NULL;
    cr_assert_eq(kern_embed(k, &a, &e), ERR_OK);
    for (int t = 0; t < T; t++)
        cr_expect_arr_eq(out + t * D, table + ids[t] * D, D * sizeof(float));
    xfree(table);
    xfree(positions);
    xfree(out);
    kern_close(k);
}

Test(embed, copies_rows_from_and_to_lists)
{
    enum { D = 3, N = 4 };
    static const int32_t from[N] = {5, 5, 0, 2}, to[N] = {1, 3, 0, 2};
    struct kern *k = fixture_kern(2);
    struct err e = {0};
    struct rng r = {2};
    float *x = fixture_normal(&r, 6 * D, 1.0), *y = fixture_zeros(N * D);
    struct kern_rows_args a = {.y = y, .x = x, .x_rows = from, .y_rows = to, .n = N, .d = D};
    cr_assert_eq(kern_copy_rows(k, &a, &e), ERR_OK);
    for (int i = 0; i < N; i++)
        cr_expect_arr_eq(y + to[i] * D, x + from[i] * D, D * sizeof(float));
    a.x_rows = a.y_rows = NULL;
    cr_assert_eq(kern_copy_rows(k, &a, &e), ERR_OK);
    cr_expect_arr_eq(y, x, N * D * sizeof(float));
    xfree(x);
    xfree(y);
    kern_close(k);
}

Test(embed, casts_every_fp16_number)
{
    enum { N = 0x7c00 };
    struct kern *k = fixture_kern(2);
    struct err e = {0};
    uint16_t *half = xcalloc(N, sizeof *half);
    float *out = fixture_zeros(N), *again = fixture_zeros(N);
    for (int i = 0; i < N; i++)
        half[i] = (uint16_t)i;
    cr_assert_eq(kern_cast_f16(k, out, half, N, &e), ERR_OK);
    for (int i = 0; i < N; i++) {
        int exponent = i >> 10, fraction = i & 0x3ff;
        double value = exponent == 0 ? ldexp(fraction, -24) : ldexp(1024 + fraction, exponent - 25);
        cr_assert_eq((double)out[i], value, "%04x", i);
    }
    cr_assert_eq(kern_cast_f32(k, again, out, N, &e), ERR_OK);
    cr_expect_arr_eq(again, out, N * sizeof(float));
    xfree(half);
    xfree(out);
    xfree(again);
    kern_close(k);
}
