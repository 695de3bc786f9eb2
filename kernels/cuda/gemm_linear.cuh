/* Linear layers by Hopper's own product, with bias, activation and rotation in its ending. Used by linear_cuda.cu; private to
 * kernels/cuda. */
#ifndef ISOBIT_KERNELS_CUDA_GEMM_LINEAR_CUH
#define ISOBIT_KERNELS_CUDA_GEMM_LINEAR_CUH

#include "kernels/cuda/rotary_cuda.cuh"

/* Sets c->encode_map where device and driver have a copier. */
void cuda_gemm_find_encoder(struct cuda_kern *c);

/* True where cuda_linear_fused can do it and is faster; depends on device, type and shape. */
bool cuda_linear_fused_can(const struct cuda_kern *c, const struct kern_linear_args *a);
/* `rotation` is that of a->rotary; read with it alone. */
MUST_USE enum err_code cuda_linear_fused(struct cuda_kern *c, const struct kern_linear_args *a,
                                         const struct cuda_rotation *rotation, struct err *e);

#endif
