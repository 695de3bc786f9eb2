/* Rotary embeddings on the GPU: where a batch's rows stand and the angles of positions, and the turn of a pair. Used by
 * linear_cuda.cu and gemm_linear.cu; private to kernels/cuda. */
#ifndef ISOBIT_KERNELS_CUDA_ROTARY_CUDA_CUH
#define ISOBIT_KERNELS_CUDA_ROTARY_CUDA_CUH

#include "kernels/cuda/cuda_util.cuh"

/* On the device, offsets in elements. Row t's pair i turns by angles[positions[t] * half + i]: its cosine and sine. */
struct cuda_rotation {
    const float2 *angles;
    const int32_t *positions;
    int64_t q_at, k_at, head_stride;
    int heads, half;
};

/* *out for T rows; kept for the next call with the same sequences, as all layers of a batch have them. */
MUST_USE enum err_code cuda_rotation_get(struct cuda_kern *c, const struct kern_rotary *r,
                                         int64_t T, struct cuda_rotation *out, struct err *e);
/* Rotates y[T, N] in a pass of its own. */
MUST_USE enum err_code cuda_rotate(struct cuda_kern *c, const struct cuda_rotation &r, void *y,
                                   int64_t T, int64_t N, struct err *e);

/* The elements i and i + half of a head; rounded alike wherever it is done. */
static __device__ __forceinline__ float2 rotate_pair(float lo, float hi, float2 angle)
{
    return make_float2(fmaf(lo, angle.x, -__fmul_rn(hi, angle.y)),
                       fmaf(hi, angle.x, __fmul_rn(lo, angle.y)));
}

#endif
