/* bfloat16: the upper half of a binary32, rounded to nearest even. In plain integer operations that a compiler can
 * vectorize. Infinities stay, a NaN stays a NaN. Pure. */
#ifndef ISOBIT_KERNELS_CPU_BF16_H
#define ISOBIT_KERNELS_CPU_BF16_H

#include "kernels/cpu/f16.h"

/* The nearest bfloat16 as the binary32 that it is. */
static inline uint32_t bf16_round_bits(float f)
{
    uint32_t u = f32_bits(f);
    uint32_t nearest = (u + 0x7fffU + ((u >> 16) & 1U)) & 0xffff0000U;
    return (u & 0x7fffffffU) > 0x7f800000U ? 0x7fc00000U : nearest;
}

static inline uint16_t f32_to_bf16(float f)
{
    return (uint16_t)(bf16_round_bits(f) >> 16);
}

static inline float f32_round_to_bf16(float f)
{
    return f32_of_bits(bf16_round_bits(f));
}

#endif
