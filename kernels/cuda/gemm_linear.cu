/* Linear layers with bias and activation, or rotary embedding, in the ending of Hopper's own product: an output is rounded once
 * and written once. Tiles leave through panels in shared memory, which the copier writes while the next products run; every
 * warp has its own, for its 16 of a block's 64 rows, and waits for no other. */
#include "kernels/cuda/gemm_act.cuh"
#include "kernels/cuda/gemm_kernel.cuh"
#include "kernels/cuda/gemm_linear.cuh"

static constexpr int LINEAR_COLS = 192, LINEAR_STAGES = 4;
static constexpr int64_t STAY_BYTES = (int64_t)18 << 20; /* as in gemm_operands */
static constexpr int PANELS = LINEAR_COLS / PANEL_WIDTH;
static constexpr int WARP_ROWS = BLOCK_ROWS / (GROUP_SIZE / WARP);

struct linear_ending_args {
    CUtensorMap y;
    const void *bias; /* [N] or NULL */
    struct cuda_rotation rotation;
};

/* Panels for 64 rows of a tile; its bias. */
using linear_layout = gemm_layout<LINEAR_COLS, LINEAR_STAGES, true, true, PANELS, LINEAR_COLS * 2>;

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

/* ROTATED: eights of columns in half of a head's rotated ones, whose pairs then are the same thread's; or 0. */
template <typename E, kern_act ACT, int ROTATED> struct linear_ending {
    using args = struct linear_ending_args;
    static constexpr int half = 8 * ROTATED, eights = ROTATED > 0 ? ROTATED : 1;
    static constexpr int warp_panel = WARP_ROWS * PANEL_ROW_BYTES; /* bytes */
    const args &a;
    struct gemm_place at;
    int T, N, group, warp;
    uint32_t panels, bias;       /* the warp's, the group's */
    int angles[2 * GEMM_BLOCKS]; /* where those of the lane's rows and columns begin */

    __device__ __forceinline__ linear_ending(const args &ending, const struct gemm_grid &grid,
                                             const struct gemm_place &place,
                                             const gemm_shared<linear_layout> &s, int warpgroup)
        : a(ending), at(place), T(grid.T), N(grid.N), group(warpgroup),
          warp(of_warp(threadIdx.x % GROUP_SIZE / WARP)),
          panels(s.panels(warpgroup) + warp * PANELS * warp_panel), bias(s.other(warpgroup))
    {
        const int thread = threadIdx.x % GROUP_SIZE, col = at.col + 2 * thread;
        const bool has_bias = a.bias != NULL && col < N;
        if (thread < LINEAR_COLS / 2)
            word_store(bias + thread * 4, has_bias ? ((const uint32_t *)a.bias)[col / 2] : 0);
        if (ROTATED > 0)
            angles_find();
    }

    __device__ __forceinline__ int row_of_warp(int block) const
    {
        return at.row + block * BLOCK_ROWS + warp * WARP_ROWS;
    }

    /* Where the angles stand; they come to the first-level cache while the products run. */
    __device__ __forceinline__ void angles_find(void)
    {
        const int lane = threadIdx.x % WARP;
#pragma unroll
        for (int i = 0; i < 2 * GEMM_BLOCKS; i++) {
            const int row = row_of_warp(i / 2) + lane / 4 + i % 2 * 8;
            angles[i] = a.rotation.positions[min(row, T - 1)] * half + lane % 4 * 2;
#pragma unroll
            for (int j = 0; j < ROTATED; j++)
                cache_fetch(a.rotation.angles + angles[i] + 8 * j);
        }
    }

    /* True where a head's q or k begins. */
    __device__ __forceinline__ bool is_head(int col, int64_t first) const
    {
        const int from = col - (int)first, stride = (int)a.rotation.head_stride;
        return from >= 0 && from < stride * a.rotation.heads && from % stride == 0;
    }

    __device__ __forceinline__ void bias_add(float *d) const
    {
#pragma unroll
        for (int j = 0; j < LINEAR_COLS / 8; j++) {
            const float2 b = pair_unpack(word_load(bias + j * 16 + threadIdx.x % 4 * 4), E());
            d[4 * j] += b.x;
            d[4 * j + 1] += b.y;
            d[4 * j + 2] += b.x;
            d[4 * j + 3] += b.y;
        }
    }

    /* Eight columns from `lo` on with those half a head's rotated ones further. */
    static __device__ __forceinline__ void eights_rotate(float *lo, const float4 (&turns)[2])
    {
        float *hi = lo + 4 * ROTATED;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float4 &t = turns[i / 2];
            const float2 turn = i % 2 == 0 ? make_float2(t.x, t.y) : make_float2(t.z, t.w);
            const float2 out = rotate_pair(lo[i], hi[i], turn);
            lo[i] = out.x;
            hi[i] = out.y;
        }
    }

    __device__ __forceinline__ void block_rotate(float *d, int block) const
    {
        float4 turns[eights][2];
#pragma unroll
        for (int i = 0; i < 2 * ROTATED; i++)
            turns[i / 2][i % 2] = *reinterpret_cast<const float4 *>(
                a.rotation.angles + angles[2 * block + i % 2] + i / 2 * 8);
#pragma unroll
        for (int p = 0; p < PANELS; p++) {
            const int col = at.col + p * PANEL_WIDTH;
            if (!is_head(col, a.rotation.q_at) && !is_head(col, a.rotation.k_at))
                continue;
#pragma unroll
            for (int i = 0; i < ROTATED; i++)
                eights_rotate(d + p * PANEL_WIDTH / 2 + 4 * i, turns[i]);
        }
    }

    /* Two neighbouring groups of eight columns: four fragments as stmatrix wants them. */
    static __device__ __forceinline__ void fragments(const float *d, uint32_t m[4])
    {
        float x[8];
#pragma unroll
        for (int i = 0; i < 8; i++)
            x[i] = d[i];
        activate<E, ACT, true>(x);
#pragma unroll
        for (int i = 0; i < 4; i++)
            m[i] = pair_pack(x[2 * i], x[2 * i + 1], E());
    }

    /* The warp's 16 rows into its panels. Lanes name the rows of the four fragments: eight and eight, then again for the next
     * chunk. */
    __device__ __forceinline__ void rows_write(const float *d) const
    {
        const int row = threadIdx.x % WARP_ROWS, chunk = threadIdx.x % WARP / WARP_ROWS;
        const uint32_t to = panels + row * PANEL_ROW_BYTES;
#pragma unroll
        for (int j = 0; j < LINEAR_COLS / 8; j += 2) {
            uint32_t m[4];
            fragments(d + 4 * j, m);
            matrices_store(to + j / 8 * warp_panel + ((j % 8 + chunk) ^ row % 8) * 16, m);
        }
    }

    __device__ __forceinline__ void rows_store(int row) const
    {
        for (int p = 0; p < PANELS; p++)
            if (at.col + p * PANEL_WIDTH < N)
                box_store(&a.y, panels + p * warp_panel, at.col + p * PANEL_WIDTH, row,
                          cache_pass());
    }

    template <int SUMS> __device__ __forceinline__ void finish(float (&d)[GEMM_BLOCKS][SUMS])
    {
        const bool is_first = threadIdx.x % WARP == 0;
        group_sync(1 + group); /* the bias is there */
#pragma unroll
        for (int b = 0; b < GEMM_BLOCKS; b++) {
            bias_add(d[b]);
            if (ROTATED > 0)
                block_rotate(d[b], b);
            if (is_first)
                stores_wait_read();
            __syncwarp(); /* panels are free */
            rows_write(d[b]);
            copies_publish();
            __syncwarp();
            if (is_first)
                rows_store(row_of_warp(b));
        }
        group_sync(1 + group); /* the bias may be another tile's */
    }

    static __device__ __forceinline__ void drain(void)
    {
        if (threadIdx.x % WARP == 0)
            stores_wait();
    }
};

#else

template <typename E, kern_act ACT, int ROTATED> struct linear_ending {
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

/* Eights of columns in half of the rotated ones when a tile's ending can rotate: heads begin where panels do, and what is
 * rotated of one lies within a panel. Else 0. */
static int rotated_eights(const struct kern_rotary *r)
{
    const int64_t starts = r->q_at | r->k_at | r->head_stride;
    const int eights = r->dims / 16;
    const bool is_known = eights == 1 || eights == 2 || eights == 4;
    return r->dims % 16 == 0 && is_known && starts % PANEL_WIDTH == 0 ? eights : 0;
}

/* With fewer than two tiles for every warpgroup the library, and a pass behind it, are faster. A layer without such a pass
 * saves none: there must be work in a tile, and hardly any columns beyond the last. */
bool cuda_linear_fused_can(const struct cuda_kern *c, const struct kern_linear_args *a)
{
    const int64_t cols = ceil_div(a->N, LINEAR_COLS), beyond = cols * LINEAR_COLS - a->N;
    const bool has_pass = a->act == KERN_ACT_GELU_ERF || a->act == KERN_ACT_GELU_TANH ||
                          (a->rotary != NULL && rotated_eights(a->rotary) > 0);
    return gemm_can(c, a->x, a->w, a->K) && a->N % 8 == 0 && (uintptr_t)a->y % 16 == 0 &&
           (uintptr_t)a->bias % 4 == 0 && !a->is_residual &&
           (a->rotary == NULL || rotated_eights(a->rotary) > 0) &&
           ceil_div(a->T, GEMM_ROWS) * cols >= 4 * c->n_multiprocessors &&
           (has_pass || (a->K >= 1024 && beyond * 64 <= a->N));
}

/* Launches with one ending. */
struct linear_start {
    struct cuda_kern *c;
    const struct kern_linear_args *a;
    const struct cuda_rotation *rotation;
    struct err *e;

    template <typename E, kern_act ACT, int ROTATED> enum err_code with(void) const
    {
        gemm_params<struct linear_ending_args> p;
        const struct gemm_operands o = {a->x, a->w, a->T, a->N, a->K, STAY_BYTES};
        p.ending.bias = a->bias;
        if (ROTATED > 0)
            p.ending.rotation = *rotation;
        TRY(panel_map(c, &p.ending.y, a->y, a->T, a->N, WARP_ROWS,
                      CU_TENSOR_MAP_L2_PROMOTION_L2_256B, e));
        return gemm_launch<E, linear_layout, linear_ending<E, ACT, ROTATED>>(c, &p, &o, what_linear,
                                                                             e);
    }

    template <typename E> enum err_code with_rotation(void) const
    {
        switch (rotated_eights(a->rotary)) {
        case 1:
            return with<E, KERN_ACT_NONE, 1>();
        case 2:
            return with<E, KERN_ACT_NONE, 2>();
        default:
            return with<E, KERN_ACT_NONE, 4>();
        }
    }

    template <typename E> enum err_code with_act(void) const
    {
        switch (a->act) {
        case KERN_ACT_NONE:
            return with<E, KERN_ACT_NONE, 0>();
        case KERN_ACT_RELU:
            return with<E, KERN_ACT_RELU, 0>();
        case KERN_ACT_GELU_ERF:
            return with<E, KERN_ACT_GELU_ERF, 0>();
        case KERN_ACT_GELU_TANH:
            return with<E, KERN_ACT_GELU_TANH, 0>();
        }
        return ERR_OK;
    }

    template <typename E> enum err_code with_ending(void) const
    {
        return a->rotary != NULL ? with_rotation<E>() : with_act<E>();
    }
};

enum err_code cuda_linear_fused(struct cuda_kern *c, const struct kern_linear_args *a,
                                const struct cuda_rotation *rotation, struct err *e)
{
    const struct linear_start start = {c, a, rotation, e};
    if (c->compute == KERN_BF16)
        return start.with_ending<__nv_bfloat16>();
    return start.with_ending<__half>();
}
