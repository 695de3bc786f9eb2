/* What goes into the blocks of a tensor on the GPU (quantization spec, sections 4 and 6): its fp16 weights, less the
 * mean when centering, with the columns that stay 16 bit as +0. Shared by quantizing and by order statistics. Means are
 * exact: sums are integers in units of 2^-24, so that any order of adding gives the same. Private. */
#ifndef ISOBIT_KERNELS_CUDA_QUANT_SOURCE_CUH
#define ISOBIT_KERNELS_CUDA_QUANT_SOURCE_CUH

#include "kernels/cuda/cuda_util.cuh"

static constexpr unsigned F16_MAGNITUDE = 0x7fff, F16_INFINITY = 0x7c00;

/* By value to kernels. */
struct quant_source {
    const uint16_t *w16;
    int64_t n, cols;
    int64_t block, n_blocks; /* block <= n */
    const uint8_t *is_kept;  /* [cols], or NULL */
    const uint16_t *means;   /* fp16 bits, one a mean_block; NULL without centering */
    int64_t mean_block;      /* block, or n for the mean of the tensor */
};

/* Where the first weight was seen that cannot be quantized; flat indices, INT64_MAX when there is none. */
struct quant_faults {
    int64_t weight; /* not finite where a mean is taken */
    int64_t source; /* not finite within a block */
    int64_t out;    /* left the range of fp16 */
};

/* A call's source, where kernels note its faults and scratch that is left. */
struct quant_setup {
    struct quant_source src;
    struct quant_faults *faults;
    unsigned *maxima; /* [n_blocks] not zeroed: magnitude bits */
};

/* Checks rows, cols, block, center and keep of `a`, uploads the kept columns and finds the means. Everything lives in
 * the kern's scratch. Errors: ERR_FORMAT, ERR_NOMEM. */
MUST_USE enum err_code quant_setup_init(struct cuda_kern *c, const struct kern_quant_args *a,
                                        struct quant_setup *s, struct err *e);

/* Waits, and turns faults into the error that the cpu backend reports for them. */
MUST_USE enum err_code quant_setup_check(struct cuda_kern *c, const struct quant_setup *s,
                                         struct err *e);

/* For a call that failed behind its setup, with this code: waits, so that the next one may have the room for its faults. */
MUST_USE enum err_code quant_setup_abandon(struct cuda_kern *c, enum err_code code);

/* Leaves that to cuda_quant_check. */
void quant_setup_check_later(struct cuda_kern *c, const struct quant_setup *s);

static __device__ __forceinline__ float f16_value(unsigned bits)
{
    return __half2float(__ushort_as_half((unsigned short)bits));
}

static __device__ __forceinline__ uint16_t f16_round(float x)
{
    return __half_as_ushort(__float2half_rn(x));
}

/* The value in units of 2^-24: an integer below 2^40 in magnitude. Finite values only. */
static __device__ __forceinline__ int64_t f16_units(unsigned bits)
{
    int exponent = (bits >> 10) & 31, is_normal = exponent != 0;
    int64_t mag = (int64_t)((bits & 0x3ff) + (is_normal << 10)) << (exponent - is_normal);
    return (bits & 0x8000) != 0 ? -mag : mag;
}

static __device__ __forceinline__ bool is_kept_at(const struct quant_source &s, int64_t i)
{
    if (s.is_kept == NULL)
        return false;
    /* 64-bit division is slow; few tensors need it. */
    int64_t col = s.n <= UINT32_MAX ? (uint32_t)i % (uint32_t)s.cols : i % s.cols;
    return s.is_kept[col] != 0;
}

static __device__ __forceinline__ unsigned mean_at(const struct quant_source &s, int64_t i)
{
    return s.means[s.mean_block == s.n ? 0 : i / s.mean_block];
}

/* fp16 bits of what goes into its block at flat index i. */
static __device__ __forceinline__ unsigned source_at(const struct quant_source &s, int64_t i)
{
    if (is_kept_at(s, i))
        return 0;
    if (s.means == NULL)
        return s.w16[i];
    return f16_round(__fsub_rn(f16_value(s.w16[i]), f16_value(mean_at(s, i))));
}

static __device__ __forceinline__ void fault_note(int64_t *fault, int64_t i)
{
    atomicMin((long long *)fault, (long long)i);
}

/* Pieces of blocks that one warp works on: up to SEGMENT elements from the start of a block on. */
static constexpr int64_t SEGMENT = 4096;

struct segment {
    int64_t block, start, end;
};

static __host__ __device__ __forceinline__ int64_t segments_of(int64_t n_blocks, int64_t block)
{
    return n_blocks * ((block + SEGMENT - 1) / SEGMENT);
}

static __device__ __forceinline__ struct segment segment_at(int64_t i, int64_t n, int64_t block)
{
    const int64_t per_block = (block + SEGMENT - 1) / SEGMENT;
    struct segment g;
    g.block = i / per_block;
    g.start = g.block * block + i % per_block * SEGMENT;
    const int64_t block_end = g.block * block + block;
    g.end = g.start + SEGMENT;
    g.end = g.end < block_end ? g.end : block_end;
    g.end = g.end < n ? g.end : n;
    return g;
}

#endif
