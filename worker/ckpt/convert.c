/* Written for the vectorizer: every loop runs over a block of LANES elements with a constant bound, without
 * branches, calls or early exits, so that plain SSE2 code reaches the speed of a disk. Portable integer
 * arithmetic instead of F16C instructions keeps one code path for every machine and compiler. */
#include "worker/ckpt/convert.h"

#include <string.h>

enum { LANES = 64 };

int convert_bytes(enum ckpt_dtype from)
{
    switch (from) {
    case CKPT_F32:
        return 4;
    case CKPT_F16:
    case CKPT_BF16:
        return 2;
    case CKPT_OTHER:
        return 0;
    }
    return 0;
}

static inline uint32_t bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof(u));
    return u;
}

static inline float float_of(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof(f));
    return f;
}

/* All ones when a < limit. Both are below 2^31, and SSE2 compares signed numbers only. */
static inline uint32_t mask_below(uint32_t a, uint32_t limit)
{
    return -(uint32_t)((int32_t)a < (int32_t)limit);
}

/* A branch would stop the vectorizer. */
static inline uint32_t choose(uint32_t mask, uint32_t if_set, uint32_t otherwise)
{
    return (if_set & mask) | (otherwise & ~mask);
}

/* fp32 bits: s eeeeeeee mmmmmmmmmmmmmmmmmmmmmmm (bias 127); fp16: s eeeee mmmmmmmmmm (bias 15).
 * Three results are computed, one is chosen by masks:
 *   normal     subtract 112 from the exponent and add just below half of the last kept bit (0xfff), plus 1 when
 *              that bit is odd: the carry rounds to nearest even, also into the next exponent and infinity;
 *   subnormal  |w| < 2^-14: adding 0.5 makes the FPU round to multiples of 2^-24, fp16's smallest step, with
 *              ties to even; the low bits of the sum are the result;
 *   special    from 65520 on, the first value that rounds to infinity: infinity, or NaN for NaN. */
static inline uint32_t f16_of_f32_bits(uint32_t u)
{
    uint32_t a = u & 0x7fffffffU;
    uint32_t normal = (a - (112U << 23) + 0xfffU + (a >> 13 & 1U)) >> 13;
    uint32_t small = bits_of(float_of(a) + 0.5F) - 0x3f000000U;
    uint32_t special = choose(mask_below(a, 0x7f800001U), 0x7c00U, 0x7e00U);
    uint32_t h = choose(mask_below(a, 0x38800000U), small, normal); /* 2^-14 */
    return choose(mask_below(a, 0x477ff000U), h, special) | (u >> 16 & 0x8000U);
}

/* Shifted into place, an fp16 exponent is 112 too small: multiplying by 2^112 is exact, for subnormals too. The
 * exponent 31 of infinity and NaN is put back by hand. */
static inline uint32_t f32_bits_of_f16(uint32_t h)
{
    uint32_t a = (h & 0x7fffU) << 13;
    uint32_t u = bits_of(float_of(a) * 0x1p112F);
    return choose(mask_below(a, 0x7c00U << 13), u, a | 0x7f800000U) | (h & 0x8000U) << 16;
}

static void block_from_f32(const void *src, uint16_t *dst, struct convert_counts *counts)
{
    uint32_t in[LANES];
    uint32_t bad = 0;
    uint32_t flushed = 0;
    memcpy(in, src, sizeof(in));
    for (int i = 0; i < LANES; i++) {
        uint32_t h = f16_of_f32_bits(in[i]);
        uint32_t a = h & 0x7fffU;
        bad += a >= 0x7c00U;
        flushed += (a == 0) & ((in[i] & 0x7fffffffU) != 0);
        dst[i] = (uint16_t)h;
    }
    counts->bad += bad;
    counts->flushed += flushed;
}

static void block_f16_from_f16(const void *src, uint16_t *dst, struct convert_counts *counts)
{
    uint16_t in[LANES];
    uint32_t bad = 0;
    memcpy(in, src, sizeof(in));
    for (int i = 0; i < LANES; i++)
        bad += (in[i] & 0x7fffU) >= 0x7c00U;
    memcpy(dst, in, sizeof(in));
    counts->bad += bad;
}

static void widen_bf16(const void *src, uint32_t wide[LANES])
{
    uint16_t in[LANES];
    memcpy(in, src, sizeof(in));
    for (int i = 0; i < LANES; i++)
        wide[i] = (uint32_t)in[i] << 16;
}

static void block_f16_from_bf16(const void *src, uint16_t *dst, struct convert_counts *counts)
{
    uint32_t wide[LANES];
    widen_bf16(src, wide);
    block_from_f32(wide, dst, counts);
}

static void block_f32_from_f32(const void *src, float *dst, struct convert_counts *counts)
{
    uint32_t in[LANES];
    uint32_t bad = 0;
    memcpy(in, src, sizeof(in));
    for (int i = 0; i < LANES; i++)
        bad += (in[i] & 0x7fffffffU) >= 0x7f800000U;
    memcpy(dst, in, sizeof(in));
    counts->bad += bad;
}

static void block_f32_from_bf16(const void *src, float *dst, struct convert_counts *counts)
{
    uint32_t wide[LANES];
    widen_bf16(src, wide);
    block_f32_from_f32(wide, dst, counts);
}

static void block_f32_from_f16(const void *src, float *dst, struct convert_counts *counts)
{
    uint16_t in[LANES];
    uint32_t wide[LANES];
    memcpy(in, src, sizeof(in));
    for (int i = 0; i < LANES; i++)
        wide[i] = f32_bits_of_f16(in[i]);
    block_f32_from_f32(wide, dst, counts);
}

void convert_to_f16(enum ckpt_dtype from, const unsigned char *src, size_t n, uint16_t *dst,
                    struct convert_counts *counts)
{
    static void (*const blocks[])(const void *, uint16_t *, struct convert_counts *) = {
        [CKPT_F32] = block_from_f32,
        [CKPT_F16] = block_f16_from_f16,
        [CKPT_BF16] = block_f16_from_bf16,
    };
    CHECK(from < CKPT_OTHER);
    size_t width = (size_t)convert_bytes(from);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        blocks[from](src + i * width, dst + i, counts);
    if (i < n) { /* the rest as a block padded with zeros, which count as nothing */
        unsigned char in[LANES * sizeof(float)] = {0};
        uint16_t out[LANES];
        memcpy(in, src + i * width, (n - i) * width);
        blocks[from](in, out, counts);
        memcpy(dst + i, out, (n - i) * sizeof(*dst));
    }
}

void convert_to_f32(enum ckpt_dtype from, const unsigned char *src, size_t n, float *dst,
                    struct convert_counts *counts)
{
    static void (*const blocks[])(const void *, float *, struct convert_counts *) = {
        [CKPT_F32] = block_f32_from_f32,
        [CKPT_F16] = block_f32_from_f16,
        [CKPT_BF16] = block_f32_from_bf16,
    };
    CHECK(from < CKPT_OTHER);
    size_t width = (size_t)convert_bytes(from);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        blocks[from](src + i * width, dst + i, counts);
    if (i < n) {
        unsigned char in[LANES * sizeof(float)] = {0};
        float out[LANES];
        memcpy(in, src + i * width, (n - i) * width);
        blocks[from](in, out, counts);
        memcpy(dst + i, out, (n - i) * sizeof(*dst));
    }
}
