/* Log-likelihoods of targets by one product that never writes its logits: Hopper's own product folds every tile of a row
 * into a pair of numbers, and a small kernel folds the pairs. Used by loss_cuda.cu; private to kernels/cuda. */
#ifndef ISOBIT_KERNELS_CUDA_GEMM_HEAD_CUH
#define ISOBIT_KERNELS_CUDA_GEMM_HEAD_CUH

#include "kernels/cuda/cuda_util.cuh"

struct head_answer {
    float logprob;
    int32_t is_top;
};

/* Lists and answers are on the device. Targets of row r are [first[r], first[r + 1]); row[i] and token[i] are those of
 * target i. */
struct cuda_head_args {
    const void *x, *head; /* [R, d], [V, d] */
    int64_t R, d, V, n;
    const int32_t *first, *row, *token;
    struct head_answer *answers; /* [n] */
    void *scratch;               /* cuda_head_bytes of it, 16-byte aligned */
};

/* True where the device and the operands allow cuda_head. */
bool cuda_head_can(const struct cuda_kern *c, const void *x, const void *head, int64_t d);
size_t cuda_head_bytes(int64_t R, int64_t V, int64_t n);
MUST_USE enum err_code cuda_head(struct cuda_kern *c, const struct cuda_head_args *a,
                                 struct err *e);

#endif
