/* Sides of a GPU's second-level cache, found in times as an H200 shows them. */
#include <criterion/criterion.h>
#include <string.h>

#include "base/rng.h"
#include "kernels/cuda/sides.h"

enum { SMS = 132 };

/* Times of a chip with these sides; `near` lines are at home on the first. */
static struct sides_times times_of(const bool *is_second, unsigned near_lines, struct rng *r)
{
    struct sides_times t;
    memset(&t, 0, sizeof t);
    for (int s = 0; s < SMS; s++)
        for (int line = 0; line < SIDES_LINES; line++) {
            const bool is_far = is_second[s] == (near_lines >> line & 1);
            t.took[s][line] = (is_far ? 444U : 273U) + (uint32_t)rng_below(r, 68);
        }
    return t;
}

static void chip_draw(bool *is_second, int n_second, struct rng *r)
{
    memset(is_second, 0, SMS * sizeof *is_second);
    for (int n = 0; n < n_second; n += 2) { /* in pairs */
        int pair;
        do
            pair = 2 * (int)rng_below(r, SMS / 2);
        while (is_second[pair]);
        is_second[pair] = is_second[pair + 1] = true;
    }
}

Test(sides, are_found_wherever_lines_are_at_home)
{
    struct rng r = {7};
    for (int i = 0; i < 500; i++) {
        bool is_second[SMS];
        const int n_second = 60 + 2 * (int)rng_below(&r, 7);
        chip_draw(is_second, n_second, &r);
        const struct sides_times t = times_of(is_second, (unsigned)rng_below(&r, 256), &r);
        struct sides s;
        sides_find(&s, &t);
        cr_assert_eq(s.n[0] + s.n[1], SMS);
        const bool are_swapped = (s.second[0] & 1) != is_second[0];
        cr_assert_eq(s.n[1], are_swapped ? SMS - n_second : n_second);
        for (int sm = 0; sm < SMS; sm++)
            cr_assert_eq(s.second[sm / 32] >> sm % 32 & 1, is_second[sm] != are_swapped);
    }
}

static void check_one_side(const struct sides_times *t, int n)
{
    struct sides s;
    sides_find(&s, t);
    cr_assert_eq(s.n[0], n);
    cr_assert_eq(s.n[1], 0);
    for (size_t i = 0; i < sizeof s.second / sizeof *s.second; i++)
        cr_assert_eq(s.second[i], 0);
}

Test(sides, are_one_where_times_do_not_divide)
{
    struct rng r = {8};
    bool is_second[SMS] = {false};
    const struct sides_times none = {0};
    check_one_side(&none, 0);
    struct sides_times t = times_of(is_second, 0xff, &r); /* all near */
    check_one_side(&t, SMS);
    chip_draw(is_second, 66, &r);
    t = times_of(is_second, 0x5a, &r);
    t.took[17][3] = t.took[17][3] > 400 ? 280 : 460; /* lines disagree on one */
    check_one_side(&t, SMS);
    chip_draw(is_second, 66, &r);
    is_second[5] = !is_second[5]; /* no pairs */
    t = times_of(is_second, 0x5a, &r);
    check_one_side(&t, SMS);
}
