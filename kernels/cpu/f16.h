/* IEEE binary16 <-> binary32, round to nearest even, in plain integer and float operations that a compiler can
 * vectorize on any machine (no F16C needed, no subnormal binary32 operands, no branches). Exact for every input,
 * infinities included; a NaN stays a NaN. Pure. */
#ifndef ISOBIT_KERNELS_CPU_F16_H
#define ISOBIT_KERNELS_CPU_F16_H

#include <stdint.h>
#include <string.h>

enum {
    F16_MAGNITUDE = 0x7fff,
    F16_INFINITY = 0x7c00, /* magnitudes from here on are not finite */
};

static inline uint32_t f32_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static inline float f32_of_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline float f16_to_f32(uint16_t h)
{
    uint32_t mag = (uint32_t)(h & F16_MAGNITUDE) << 13;
    uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    /* Exponent bias 15 -> 127. An exponent of 0 is read as 2^-14 * (1 + f) less the 2^-14 it does not have. */
    uint32_t normal = mag + (112U << 23);
    uint32_t special = mag + (224U << 23);
    uint32_t subnormal = f32_bits(f32_of_bits(mag + (113U << 23)) - 0x1p-14F);
    uint32_t u = mag < (1U << 23) ? subnormal : normal;
    u = mag >= ((uint32_t)F16_INFINITY << 13) ? special : u;
    return f32_of_bits(u | sign);
}

/* Magnitude bits of the nearest binary16 to the non-negative finite float with bits `a`, not yet limited. Below
 * 2^-14 the quantum is 2^-24, which is that of floats in [0.5, 1): adding 0.5 rounds as wanted. */
static inline uint32_t f16_round_magnitude(uint32_t a)
{
    uint32_t rebiased = a - (112U << 23);
    uint32_t normal = (rebiased + 0xfffU + ((rebiased >> 13) & 1U)) >> 13;
    uint32_t subnormal = f32_bits(f32_of_bits(a) + 0.5F) - 0x3f000000U;
    return a < 0x38800000U ? subnormal : normal;
}

static inline uint16_t f32_to_f16(float f)
{
    uint32_t u = f32_bits(f);
    uint32_t a = u & 0x7fffffffU;
    uint32_t h = f16_round_magnitude(a);
    h = a >= 0x477ff000U ? (uint32_t)F16_INFINITY : h; /* 65520 and above */
    h = a > 0x7f800000U ? 0x7e00U : h;
    return (uint16_t)(h | ((u >> 16) & 0x8000U));
}

/* f16_to_f32(f32_to_f16(f)) without the detour, for finite f. */
static inline float f32_round_to_f16(float f)
{
    uint32_t u = f32_bits(f);
    uint32_t a = u & 0x7fffffffU;
    uint32_t normal = (a + 0xfffU + ((a >> 13) & 1U)) & ~0x1fffU;
    uint32_t subnormal = f32_bits((f32_of_bits(a) + 0.5F) - 0.5F);
    uint32_t r = a < 0x38800000U ? subnormal : normal;
    r = a >= 0x477ff000U ? 0x7f800000U : r;
    return f32_of_bits(r | (u & 0x80000000U));
}

/* The value in units of 2^-24: an integer, at most 65504 * 2^24 < 2^40 in magnitude. Finite values only. */
static inline int64_t f16_units(uint16_t h)
{
    int64_t exponent = (h >> 10) & 31;
    int64_t is_normal = exponent != 0;
    int64_t mag = ((h & 0x3ff) + (is_normal << 10)) << (exponent - is_normal);
    return (h & 0x8000) != 0 ? -mag : mag;
}

#endif
