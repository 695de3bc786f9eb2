/* A ring of two halves as the cuda module uses it: nothing is overwritten before the copy out of it is known to be done. */
#include <criterion/criterion.h>
#include <stdint.h>

#include "base/mem.h"
#include "base/rng.h"
#include "kernels/cuda/ring.h"

enum { HALF = 4096, LINE = 64 };

/* Copies are numbered. An event holds the number of the last copy before it; waiting for it makes those done. */
struct story {
    struct ring ring;
    int64_t last_of[2 * HALF / LINE]; /* copy out of each line */
    int64_t filled[2];
    int64_t n_copies, n_done;
};

static void push(struct story *s, size_t bytes)
{
    if (ring_is_full(&s->ring, bytes)) {
        s->filled[s->ring.side] = s->n_copies;
        ring_turn(&s->ring);
        const int64_t done = s->filled[s->ring.side];
        s->n_done = done > s->n_done ? done : s->n_done;
    }
    const size_t at = ring_take(&s->ring, bytes);
    s->n_copies++;
    cr_assert_leq(at / HALF, 1);
    cr_assert_eq(at / HALF, (at + bytes - 1) / HALF, "within a half");
    for (size_t line = at / LINE; line < (at + bytes) / LINE; line++) {
        cr_assert_leq(s->last_of[line], s->n_done, "overwritten while copy %ld may be under way",
                      (long)s->last_of[line]);
        s->last_of[line] = s->n_copies;
    }
}

/* Sizes that end exactly where a half ends are among them. */
Test(ring, no_half_is_filled_again_before_its_copies_are_done)
{
    static const size_t sizes[][2] = {{64, 64},     {4096, 4096}, {2048, 2048}, {4032, 64},
                                      {2048, 1024}, {64, 4096},   {1344, 1408}, {4032, 4032}};
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        struct story s = {.ring = {.half = HALF}};
        for (int n = 0; n < 1000; n++)
            push(&s, sizes[i][n % 2]);
    }
    struct rng r = {4};
    struct story s = {.ring = {.half = HALF}};
    for (int n = 0; n < 100000; n++)
        push(&s, LINE * (1 + rng_below(&r, HALF / LINE)));
}

Test(ring, a_half_holds_as_much_as_it_has)
{
    const struct ring none = {0}, some = {.half = HALF};
    cr_expect_not(ring_holds(&none, 1));
    cr_expect(ring_holds(&some, HALF));
    cr_expect_not(ring_holds(&some, HALF + 1));
}
