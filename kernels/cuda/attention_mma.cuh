/* Attention on the tensor cores (mma.m16n8k16, present from sm_80 on) for 16-bit element types: a block takes the
 * queries of one piece and head, a warp 16 of them, and all warps share tiles of 64 keys and values that are copied
 * to shared memory while the tile before is worked on. Products are summed in fp32; the softmax runs in fp32 with
 * base 2. Rows in shared memory are padded by 16 bytes: an odd number of 16-byte steps, so that the eight rows of a
 * matrix fragment lie in different banks. Included by attention_cuda.cu alone. */
#ifndef ISOBIT_KERNELS_CUDA_ATTENTION_MMA_CUH
#define ISOBIT_KERNELS_CUDA_ATTENTION_MMA_CUH

#include "kernels/cuda/cuda_util.cuh"

static constexpr int HEAD_DIM_MAX = 256;

/* Up to attention_args.piece_rows queries of one sequence. Rows count in T, keys within the sequence. */
struct attention_piece {
    int32_t row, n_rows;          /* the queries */
    int32_t query;                /* key that the first query is */
    int32_t before_row, n_before; /* the parent's keys come first */
    int32_t own_row;
    int32_t n_keys; /* of the sequence: the parent's and all its own */
};

/* As struct kern_attention_args, with the lists on the device. */
struct attention_args {
    void *out;
    const void *qkv;
    int64_t T, row, q_at, k_at, v_at, head_stride;
    int heads, head_dim;
    float scale;
    const float *slopes; /* [heads], or NULL */
    const struct attention_piece *pieces;
    int n_pieces, piece_rows;
    int32_t *n_taken; /* pieces of work that blocks took beyond their first; 0 between launches */
};

static __device__ __forceinline__ int64_t attention_key_row(const struct attention_piece &w, int j)
{
    return j < w.n_before ? w.before_row + j : w.own_row + (j - w.n_before);
}

static __host__ __device__ __forceinline__ int ceil_div_int(int a, int b)
{
    return (a + b - 1) / b;
}

static constexpr int MMA_KEYS = 64; /* of a tile */
static constexpr int MMA_ROWS = 16; /* queries of a warp */
static constexpr int MMA_PAD = 8;   /* elements */
static constexpr int N_TILES = MMA_KEYS / 8;

/* ---- instructions ---- */

/* 16 bytes from global to shared memory, zeros instead when there is nothing to copy. */
static __device__ __forceinline__ void copy_async(void *dst, const void *src, bool is_there)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(dst)),
                 "l"(src), "r"(is_there ? 16 : 0));
}

static __device__ __forceinline__ void copies_commit(void)
{
    asm volatile("cp.async.commit_group;");
}

/* Waits until at most N groups are under way. */
template <int N> static __device__ __forceinline__ void copies_wait(void)
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N));
}

/* Four 8x8 matrices, whose rows start where lanes 0-7, 8-15, 16-23 and 24-31 point. */
static __device__ __forceinline__ void load_matrices(uint32_t r[4], const void *p)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(p)));
}

static __device__ __forceinline__ void load_matrices_transposed(uint32_t r[4], const void *p)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(p)));
}

/* d[16, 8] += a[16, 16] b[16, 8]. */
template <typename E>
static __device__ __forceinline__ void multiply(float d[4], const uint32_t a[4], uint32_t b0,
                                                uint32_t b1);

template <>
__device__ __forceinline__ void multiply<__half>(float d[4], const uint32_t a[4], uint32_t b0,
                                                 uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

template <>
__device__ __forceinline__ void multiply<__nv_bfloat16>(float d[4], const uint32_t a[4],
                                                        uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

template <typename E> static __device__ __forceinline__ uint32_t pack_two(float lo, float hi);

template <> __device__ __forceinline__ uint32_t pack_two<__half>(float lo, float hi)
{
    __half2 x = __floats2half2_rn(lo, hi);
    return *reinterpret_cast<uint32_t *>(&x);
}

template <> __device__ __forceinline__ uint32_t pack_two<__nv_bfloat16>(float lo, float hi)
{
    __nv_bfloat162 x = __floats2bfloat162_rn(lo, hi);
    return *reinterpret_cast<uint32_t *>(&x);
}

/* ---- tiles in shared memory ---- */

template <int HD> struct mma_layout {
    static constexpr int stride = HD + MMA_PAD;
    static constexpr int tile = MMA_KEYS * stride;
    static constexpr bool has_query_registers =
        HD <= 128; /* larger ones are read again for each tile */
    /* Blocks that should share a multiprocessor: 16 warps where 128 registers a thread suffice, else 8. */
    static constexpr int blocks(int warps)
    {
        return (HD <= 80 ? 16 : 8) / warps;
    }
    /* Queries, then two stages of keys and values. */
    static constexpr size_t bytes(int warps)
    {
        return (size_t)(warps * MMA_ROWS * stride + 4 * tile) * 2;
    }
};

/* Queries of the piece; rows and dimensions that do not exist become zero. */
template <typename E, int HD, int WARPS>
static __device__ void queries_load(const struct attention_args &a, const struct attention_piece &w,
                                    int head, E *queries)
{
    constexpr int chunks = HD / 8;
    const E *src = (const E *)a.qkv + a.q_at + head * a.head_stride;
    for (int i = threadIdx.x; i < WARPS * MMA_ROWS * chunks; i += WARPS * WARP) {
        const int r = i / chunks, at = i % chunks * 8;
        const bool is_there = r < w.n_rows && at < a.head_dim;
        copy_async(queries + r * mma_layout<HD>::stride + at,
                   src + (is_there ? (w.row + r) * a.row + at : 0), is_there);
    }
}

/* Keys [j0, j0 + 64) and their values. */
template <typename E, int HD, int WARPS>
static __device__ void keys_load(const struct attention_args &a, const struct attention_piece &w,
                                 int head, int j0, int n_keys, E *keys, E *values)
{
    constexpr int chunks = HD / 8;
    const E *src = (const E *)a.qkv + head * a.head_stride;
    for (int i = threadIdx.x; i < MMA_KEYS * chunks; i += WARPS * WARP) {
        const int j = i / chunks, at = i % chunks * 8, to = j * mma_layout<HD>::stride + at;
        const bool is_there = j0 + j < n_keys && at < a.head_dim;
        const E *row = src + (is_there ? attention_key_row(w, j0 + j) * a.row + at : 0);
        copy_async(keys + to, row + a.k_at, is_there);
        copy_async(values + to, row + a.v_at, is_there);
    }
}

/* ---- one warp's part of a tile ---- */

/* What a warp knows of its 16 queries. A lane's part of a [16, 8] tile: columns 2 (lane % 4) + {0, 1} of rows
 * lane / 4 (elements 0, 1) and lane / 4 + 8 (elements 2, 3). */
template <int HD> struct mma_state {
    float out[HD / 8][4];
    float max[2], sum[2]; /* of its two rows; sum over this lane's columns */
};

template <typename E, int HD>
static __device__ __forceinline__ void scores_compute(float s[N_TILES][4], const E *queries,
                                                      const uint32_t (*q)[4], const E *keys)
{
    constexpr int stride = mma_layout<HD>::stride;
    const int lane = threadIdx.x % WARP;
    const E *q_at = queries + lane % 16 * stride + lane / 16 * 8;
    const E *k_at = keys + (lane / 16 * 8 + lane % 8) * stride + lane / 8 % 2 * 8;
#pragma unroll
    for (int i = 0; i < N_TILES; i++)
        s[i][0] = s[i][1] = s[i][2] = s[i][3] = 0.0F;
#pragma unroll
    for (int d = 0; d < HD / 16; d++) {
        uint32_t a[4];
        if (mma_layout<HD>::has_query_registers)
            for (int i = 0; i < 4; i++)
                a[i] = q[d][i];
        else
            load_matrices(a, q_at + d * 16);
#pragma unroll
        for (int i = 0; i < N_TILES; i += 2) {
            uint32_t b[4];
            load_matrices(b, k_at + i * 8 * stride + d * 16);
            multiply<E>(s[i], a, b[0], b[1]);
            multiply<E>(s[i + 1], a, b[2], b[3]);
        }
    }
}

/* Scores of N tiles of 8 keys from key j0 on without their scale, with ALiBi (`slope` is over the scale) and the causal
 * mask. `query` is the key that the warp's first query is. */
template <int N>
static __device__ __forceinline__ void scores_finish(float (&s)[N][4], float slope, int j0,
                                                     int query)
{
    const int lane = threadIdx.x % WARP, col = j0 + lane % 4 * 2, row = query + lane / 4;
    if (slope != 0.0F) {
        const float first = (float)col;
#pragma unroll
        for (int i = 0; i < N; i++)
#pragma unroll
            for (int x = 0; x < 4; x++)
                s[i][x] = fmaf(slope, first + (float)(i * 8 + x % 2), s[i][x]);
    }
    if (j0 + N * 8 - 1 <= query)
        return;
#pragma unroll
    for (int i = 0; i < N; i++)
#pragma unroll
        for (int x = 0; x < 4; x++)
            if (col + i * 8 + x % 2 > row + x / 2 * 8)
                s[i][x] = -INFINITY;
}

/* 2^x to 2 units in the last place; below 2^-126 it is 0. */
static __device__ __forceinline__ float power_of_two(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* Turns scores into 2^(scale (score - maximum of the row)) and brings the sums to the new maximum; factor is what the
 * output so far is worth under it. Even and odd columns go in chains of their own. */
template <int HD, int N>
static __device__ __forceinline__ void softmax_weights(struct mma_state<HD> *m, float (&s)[N][4],
                                                       float scale, float factor[2])
{
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float top = fmaxf(m->max[r], s[0][2 * r]), odd_top = s[0][2 * r + 1];
#pragma unroll
        for (int i = 1; i < N; i++) {
            top = fmaxf(top, s[i][2 * r]);
            odd_top = fmaxf(odd_top, s[i][2 * r + 1]);
        }
        top = fmaxf(top, odd_top);
        top = fmaxf(top, __shfl_xor_sync(ALL_LANES, top, 1));
        top = fmaxf(top, __shfl_xor_sync(ALL_LANES, top, 2));
        const float shift = -top * scale;
        factor[r] = power_of_two((m->max[r] - top) * scale);
        m->max[r] = top;
        float sum = m->sum[r] * factor[r], odd_sum = 0.0F;
#pragma unroll
        for (int i = 0; i < N; i++) {
            s[i][2 * r] = power_of_two(fmaf(s[i][2 * r], scale, shift));
            s[i][2 * r + 1] = power_of_two(fmaf(s[i][2 * r + 1], scale, shift));
            sum += s[i][2 * r];
            odd_sum += s[i][2 * r + 1];
        }
        m->sum[r] = sum + odd_sum;
    }
}

template <int HD>
static __device__ __forceinline__ void output_scale(struct mma_state<HD> *m, const float factor[2])
{
#pragma unroll
    for (int d = 0; d < HD / 8; d++)
#pragma unroll
        for (int x = 0; x < 4; x++)
            m->out[d][x] *= factor[x / 2];
}

template <typename E, int HD>
static __device__ __forceinline__ void values_add(struct mma_state<HD> *m,
                                                  const float s[N_TILES][4], const E *values)
{
    constexpr int stride = mma_layout<HD>::stride;
    const int lane = threadIdx.x % WARP;
    const E *v_at = values + lane % 16 * stride + lane / 16 * 8;
#pragma unroll
    for (int i = 0; i < N_TILES; i += 2) {
        const uint32_t p[4] = {pack_two<E>(s[i][0], s[i][1]), pack_two<E>(s[i][2], s[i][3]),
                               pack_two<E>(s[i + 1][0], s[i + 1][1]),
                               pack_two<E>(s[i + 1][2], s[i + 1][3])};
#pragma unroll
        for (int d = 0; d < HD / 8; d += 2) {
            uint32_t b[4];
            load_matrices_transposed(b, v_at + i * 8 * stride + d * 8);
            multiply<E>(m->out[d], p, b[0], b[1]);
            multiply<E>(m->out[d + 1], p, b[2], b[3]);
        }
    }
}

template <typename E, int HD>
static __device__ __forceinline__ void output_store(const struct attention_args &a, int first_row,
                                                    int n_rows, int head,
                                                    const struct mma_state<HD> &m)
{
    const int lane = threadIdx.x % WARP, first = threadIdx.x / WARP * MMA_ROWS + lane / 4;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float sum = m.sum[r];
        sum += __shfl_xor_sync(ALL_LANES, sum, 1);
        sum += __shfl_xor_sync(ALL_LANES, sum, 2);
        const float scale = 1.0F / sum;
        const int row = first + r * 8;
        if (row >= n_rows)
            continue;
        E *out =
            (E *)a.out + ((int64_t)(first_row + row) * a.heads + head) * a.head_dim + lane % 4 * 2;
#pragma unroll
        for (int d = 0; d < HD / 8; d++)
            if (d * 8 < a.head_dim)
                *reinterpret_cast<uint32_t *>(out + d * 8) =
                    pack_two<E>(m.out[d][2 * r] * scale, m.out[d][2 * r + 1] * scale);
    }
}

/* ---- kernel ---- */

template <typename E, int HD, int WARPS>
static __global__ void __launch_bounds__(WARPS *WARP, mma_layout<HD>::blocks(WARPS))
    mma_kernel(struct attention_args a)
{
    using layout = mma_layout<HD>;
    extern __shared__ __align__(16) unsigned char mma_shared[];
    E *queries = reinterpret_cast<E *>(mma_shared);
    E *tiles = queries + WARPS * MMA_ROWS * layout::stride; /* keys, values; keys, values */
    const int head = blockIdx.x % a.heads, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const struct attention_piece w = a.pieces[blockIdx.x / a.heads];
    const int n_keys = w.query + w.n_rows, query = w.query + warp * MMA_ROWS;
    const float slope = a.slopes != NULL ? a.slopes[head] / a.scale : 0.0F;
    E *warp_queries = queries + warp * MMA_ROWS * layout::stride;
    queries_load<E, HD, WARPS>(a, w, head, queries);
    keys_load<E, HD, WARPS>(a, w, head, 0, n_keys, tiles, tiles + layout::tile);
    copies_commit();

    struct mma_state<HD> m = {
    };
    m.max[0] = m.max[1] = -INFINITY;
    uint32_t q[layout::has_query_registers ? HD / 16 : 1][4];
    int stage = 0;
    for (int j0 = 0; j0 < n_keys; j0 += MMA_KEYS, stage ^= 1) {
        E *keys = tiles + stage * 2 * layout::tile;
        E *next = tiles + (stage ^ 1) * 2 * layout::tile;
        if (j0 + MMA_KEYS < n_keys)
            keys_load<E, HD, WARPS>(a, w, head, j0 + MMA_KEYS, n_keys, next, next + layout::tile);
        copies_commit();
        copies_wait<1>();
        __syncthreads();
        if (layout::has_query_registers && j0 == 0)
#pragma unroll
            for (int d = 0; d < HD / 16; d++)
                load_matrices(q[layout::has_query_registers ? d : 0],
                              warp_queries + lane % 16 * layout::stride + lane / 16 * 8 + d * 16);
        /* Else the warp has no queries, or all keys come after them. */
        if (warp * MMA_ROWS < w.n_rows && j0 < query + MMA_ROWS) {
            float s[N_TILES][4];
            scores_compute<E, HD>(s, warp_queries, q, keys);
            scores_finish(s, slope, j0, query);
            float factor[2];
            softmax_weights(&m, s, a.scale * LOG2_E, factor);
            output_scale<HD>(&m, factor);
            values_add<E, HD>(&m, s, keys + layout::tile);
        }
        __syncthreads(); /* before the tile is overwritten */
    }
    output_store<E, HD>(a, w.row, w.n_rows, head, m);
}

/* ---- launchers ---- */

/* Rows must start at multiples of 16 bytes, and heads beyond 128 dimensions need more shared memory than sm_80 has. */
static bool attention_mma_can(const struct cuda_kern *c, const struct attention_args &a)
{
    const int64_t offsets = a.row | a.q_at | a.k_at | a.v_at | a.head_stride | a.head_dim;
    const bool is_large = a.head_dim > 128;
    if (is_large && mma_layout<HEAD_DIM_MAX>::bytes(8) > c->shared_bytes)
        return false;
    return offsets % 8 == 0 && (uintptr_t)a.qkv % 16 == 0 && (uintptr_t)a.out % 16 == 0;
}

template <typename E, int HD, int WARPS>
static enum err_code mma_launch_warps(struct cuda_kern *c, const struct attention_args &a,
                                      struct err *e)
{
    const size_t bytes = mma_layout<HD>::bytes(WARPS);
    CUDA_TRY(cudaFuncSetAttribute(mma_kernel<E, HD, WARPS>,
                                  cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
             "shared memory of attention");
    mma_kernel<E, HD, WARPS>
        <<<(unsigned)((int64_t)a.n_pieces * a.heads), WARPS * WARP, bytes, c->stream>>>(a);
    return cuda_launched("attention", e);
}

template <typename E, int HD>
static enum err_code mma_launch(struct cuda_kern *c, const struct attention_args &a, struct err *e)
{
    if (a.piece_rows > 4 * MMA_ROWS)
        return mma_launch_warps<E, HD, 8>(c, a, e);
    return mma_launch_warps<E, HD, 4>(c, a, e);
}

template <typename E>
static enum err_code attention_mma(struct cuda_kern *c, const struct attention_args &a,
                                   struct err *e)
{
    if (a.head_dim <= 16)
        return mma_launch<E, 16>(c, a, e);
    if (a.head_dim <= 32)
        return mma_launch<E, 32>(c, a, e);
    if (a.head_dim <= 64)
        return mma_launch<E, 64>(c, a, e);
    if (a.head_dim <= 80)
        return mma_launch<E, 80>(c, a, e);
    if (a.head_dim <= 96)
        return mma_launch<E, 96>(c, a, e);
    if (a.head_dim <= 128)
        return mma_launch<E, 128>(c, a, e);
    return mma_launch<E, 256>(c, a, e);
}

#endif
