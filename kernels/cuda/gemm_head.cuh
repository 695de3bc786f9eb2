/* Log-likelihoods of targets by one product that never writes its logits: Hopper's own product folds every tile of a row
 * into a pair of numbers, and a small kernel folds the pairs. A head may come in parts. Used by loss_cuda.cu; private to
 * kernels/cuda. */
#ifndef ISOBIT_KERNELS_CUDA_GEMM_HEAD_CUH
#define ISOBIT_KERNELS_CUDA_GEMM_HEAD_CUH

#include "kernels/cuda/cuda_util.cuh"

struct head_answer {
    float logprob;
    int32_t is_top;
};

/* A row so far, over tiles in ascending order: largest logit, the first tile that has it, and the sum relative to it. */
struct head_state {
    float max;
    int32_t tile;
    double sum;
};

/* A target whose tile has been there. */
struct head_target {
    float logit;
    int32_t is_first; /* no smaller id of its tile has the same */
};

/* Entries [from, from + N) of the vocabulary. Lists, states and answers are on the device. Targets of row r are
 * [first[r], first[r + 1]); row[i] and token[i] are those of target i. */
struct cuda_head_args {
    const void *x, *head; /* [R, d], [N, d] */
    int64_t R, d, from, N, n;
    const int32_t *first, *row, *token;
    struct head_state *states;   /* [R] of the entries in front; not read where from is 0 */
    struct head_target *targets; /* [n] */
    struct head_answer *answers; /* [n]; NULL: more entries follow */
    void *scratch;               /* cuda_head_scratch of it, 16-byte aligned */
};

/* True where the device and the operands allow cuda_head. */
bool cuda_head_can(const struct cuda_kern *c, const void *x, const void *head, int64_t d);
size_t cuda_head_scratch(int64_t R, int64_t N);
MUST_USE enum err_code cuda_head(struct cuda_kern *c, const struct cuda_head_args *a,
                                 struct err *e);

#endif
