/* Conversions of fp16 against its definition. */
#include <criterion/criterion.h>

#include "tests/support/quant_reference.h"

Test(f16, fp16_conversions_are_exact_for_every_pattern)
{
    for (int h = 0; h < PATTERNS; h++) {
        float f = f16_to_f32((uint16_t)h);
        if ((h & 0x7fff) > FINITE) {
            cr_assert(isnan(f), "%04x", h);
            cr_assert(isnan(f16_to_f32(f32_to_f16(f))));
            continue;
        }
        double expected =
            (h & 0x7fff) == FINITE ? (h == FINITE ? INFINITY : -INFINITY) : value_of(h);
        cr_assert(f == expected && !signbit(f) == !signbit(expected), "%04x: %a", h, f);
        cr_assert_eq(f32_to_f16(f), h);
        if (isinf(f))
            continue;
        cr_assert_eq(f16_units((uint16_t)h), (int64_t)(expected * 0x1p24));
    }
}

static void check_rounding(float x)
{
    uint16_t expected = nearest_f16(x);
    cr_assert_eq(f32_to_f16(x), expected, "%a: %04x, expected %04x", x, f32_to_f16(x), expected);
    float f = f32_round_to_f16(x);
    cr_assert_eq(f32_bits(f), f32_bits(f16_to_f32(expected)), "%a: %a", x, f);
}

Test(f16, rounding_to_fp16_is_to_nearest_even_at_and_around_every_tie)
{
    for (int h = 0; h < FINITE; h++) {
        double next = h + 1 == FINITE ? 65536.0 : value_of(h + 1);
        float tie = (float)((value_of(h) + next) / 2);
        float around[] = {tie, nextafterf(tie, 0), nextafterf(tie, INFINITY)};
        for (size_t i = 0; i < ARRAY_LEN(around); i++) {
            check_rounding(around[i]);
            check_rounding(-around[i]);
        }
    }
    struct rng r = {7};
    for (int i = 0; i < 200000; i++) {
        float x = f32_of_bits((uint32_t)rng_u64(&r));
        if (isfinite(x))
            check_rounding(x);
    }
    cr_assert(isinf(f32_round_to_f16(1e30F)));
}
