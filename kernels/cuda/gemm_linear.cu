/* Linear layers with bias and activation in the ending of Hopper's own product: an output is rounded once and written
 * once. Tiles leave through panels in shared memory, which the copier writes while the next products run. */
#include "kernels/cuda/gemm_act.cuh"
#include "kernels/cuda/gemm_kernel.cuh"
#include "kernels/cuda/gemm_linear.cuh"

static constexpr int LINEAR_COLS = 192, LINEAR_STAGES = 4, LINEAR_GROUP = 8;

struct linear_ending_args {
    CUtensorMap y;
    const void *bias; /* [N] or NULL */
};

/* Panels for 64 rows of a tile; its bias. */
using linear_layout =
    gemm_layout<LINEAR_COLS, LINEAR_STAGES, true, LINEAR_COLS / PANEL_WIDTH, LINEAR_COLS * 2>;

#if GEMM_HAS_HOPPER

static __device__ __forceinline__ float2 pair_unpack(uint32_t v, __half)
{
    return __half22float2(*reinterpret_cast<const __half2 *>(&v));
}

static __device__ __forceinline__ float2 pair_unpack(uint32_t v, __nv_bfloat16)
{
    return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162 *>(&v));
}

static __device__ __forceinline__ uint32_t pair_pack(float a, float b, __half)
{
    const __half2 v = __floats2half2_rn(a, b);
    return *reinterpret_cast<const uint32_t *>(&v);
}

static __device__ __forceinline__ uint32_t pair_pack(float a, float b, __nv_bfloat16)
{
    const __nv_bfloat162 v = __floats2bfloat162_rn(a, b);
    return *reinterpret_cast<const uint32_t *>(&v);
}

template <typename E, kern_act ACT> struct linear_ending {
    using args = struct linear_ending_args;
    const args &a;
    struct gemm_place at;
    int N, group;
    uint32_t panels, bias;

    __device__ __forceinline__ linear_ending(const args &ending, const struct gemm_grid &grid,
                                             const struct gemm_place &place,
                                             const gemm_shared<linear_layout> &s, int warpgroup)
        : a(ending), at(place), N(grid.N), group(warpgroup), panels(s.panels(warpgroup)),
          bias(s.other(warpgroup))
    {
        const int thread = threadIdx.x % GROUP_SIZE, col = at.col + 2 * thread;
        const bool has_bias = a.bias != NULL && col < N;
        if (thread < LINEAR_COLS / 2)
            word_store(bias + thread * 4, has_bias ? ((const uint32_t *)a.bias)[col / 2] : 0);
    }

    /* Two neighbouring groups of eight columns, of the tile's first on: four fragments as stmatrix wants them. */
    __device__ __forceinline__ void fragments(const float *d, int j, uint32_t m[4]) const
    {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const float2 b = pair_unpack(word_load(bias + (j + i) * 16 + threadIdx.x % 4 * 4), E());
            const float *v = d + (j + i) * 4;
            float x[4] = {v[0] + b.x, v[1] + b.y, v[2] + b.x, v[3] + b.y};
            activate<E, ACT>(x);
            m[2 * i] = pair_pack(x[0], x[1], E());
            m[2 * i + 1] = pair_pack(x[2], x[3], E());
        }
    }

    /* 64 rows into panels. Lanes name the rows of the four fragments: eight and eight of the warp's 16, then again for the
     * next chunk. */
    __device__ __forceinline__ void block_write(const float *d) const
    {
        const int lane = threadIdx.x % WARP, warp = threadIdx.x % GROUP_SIZE / WARP;
        const int row = warp * 16 + lane % 16, chunk = lane / 16;
        const uint32_t to = panels + row * PANEL_ROW_BYTES;
#pragma unroll
        for (int j = 0; j < LINEAR_COLS / 8; j += 2) {
            uint32_t m[4];
            fragments(d, j, m);
            matrices_store(to + j / 8 * PANEL_BYTES + ((j % 8 + chunk) ^ row % 8) * 16, m);
        }
    }

    __device__ __forceinline__ void block_store(int row) const
    {
        for (int p = 0; p < linear_layout::panels; p++)
            if (at.col + p * PANEL_WIDTH < N)
                box_store(&a.y, panels + p * PANEL_BYTES, at.col + p * PANEL_WIDTH, row);
    }

    template <int SUMS> __device__ __forceinline__ void finish(float (&d)[GEMM_BLOCKS][SUMS])
    {
        const bool is_first = threadIdx.x % GROUP_SIZE == 0;
#pragma unroll
        for (int b = 0; b < GEMM_BLOCKS; b++) {
            if (is_first)
                stores_wait_read();
            group_sync(1 + group);
            block_write(d[b]);
            copies_publish();
            group_sync(1 + group);
            if (is_first)
                block_store(at.row + b * BLOCK_ROWS);
        }
    }

    static __device__ __forceinline__ void drain(void)
    {
        if (threadIdx.x % GROUP_SIZE == 0)
            stores_wait();
    }
};

#else

template <typename E, kern_act ACT> struct linear_ending {
    using args = struct linear_ending_args;
};

#endif /* GEMM_HAS_HOPPER */

/* ---- host ---- */

static const char what_linear[] = "linear layer";

void cuda_gemm_find_encoder(struct cuda_kern *c)
{
    cudaDriverEntryPointQueryResult found;
    void *p = NULL;
    if (!c->has_wgmma)
        return;
#if CUDART_VERSION >= 12050
    const cudaError_t status = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &p, 12000,
                                                                cudaEnableDefault, &found);
#else
    const cudaError_t status =
        cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &p, cudaEnableDefault, &found);
#endif
    if (status == cudaSuccess && found == cudaDriverEntryPointSuccess)
        c->encode_map = p;
    else
        (void)cudaGetLastError(); /* an older driver: the library's products do */
}

/* With fewer than two tiles for every warpgroup the library, and a pass for the activation, are faster. A layer without
 * activation saves no pass: there must be work in a tile, and hardly any columns beyond the last. */
bool cuda_linear_fused_can(const struct cuda_kern *c, const struct kern_linear_args *a)
{
    const int64_t cols = ceil_div(a->N, LINEAR_COLS), beyond = cols * LINEAR_COLS - a->N;
    const bool has_pass = a->act == KERN_ACT_GELU_ERF || a->act == KERN_ACT_GELU_TANH;
    return gemm_can(c, a->x, a->w, a->K) && a->N % 8 == 0 && (uintptr_t)a->y % 16 == 0 &&
           (uintptr_t)a->bias % 4 == 0 && !a->is_residual &&
           ceil_div(a->T, GEMM_ROWS) * cols >= 4 * c->n_multiprocessors &&
           (has_pass || (a->K >= 1024 && beyond * 64 <= a->N));
}

template <typename E, kern_act ACT>
static enum err_code linear_start(struct cuda_kern *c, const struct kern_linear_args *a,
                                  struct err *e)
{
    gemm_params<struct linear_ending_args> p;
    const struct gemm_operands o = {a->x, a->w, a->T, a->N, a->K, LINEAR_GROUP};
    p.ending.bias = a->bias;
    TRY(panel_map(c, &p.ending.y, a->y, a->T, a->N, BLOCK_ROWS, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                  e));
    return gemm_launch<E, linear_layout, linear_ending<E, ACT>>(c, &p, &o, what_linear, e);
}

template <typename E>
static enum err_code linear_start_act(struct cuda_kern *c, const struct kern_linear_args *a,
                                      struct err *e)
{
    switch (a->act) {
    case KERN_ACT_NONE:
        return linear_start<E, KERN_ACT_NONE>(c, a, e);
    case KERN_ACT_RELU:
        return linear_start<E, KERN_ACT_RELU>(c, a, e);
    case KERN_ACT_GELU_ERF:
        return linear_start<E, KERN_ACT_GELU_ERF>(c, a, e);
    case KERN_ACT_GELU_TANH:
        return linear_start<E, KERN_ACT_GELU_TANH>(c, a, e);
    }
    return ERR_OK;
}

enum err_code cuda_linear_fused(struct cuda_kern *c, const struct kern_linear_args *a,
                                struct err *e)
{
    if (c->compute == KERN_BF16)
        return linear_start_act<__nv_bfloat16>(c, a, e);
    return linear_start_act<__half>(c, a, e);
}
