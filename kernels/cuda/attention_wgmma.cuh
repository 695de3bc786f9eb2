/* Attention on Hopper's asynchronous matrix instructions (wgmma, compute capability 9.0), for heads of 64 and 128
 * dimensions: as attention_mma.cuh, whose arithmetic between the two products it shares, but keys and values go from shared
 * memory straight into the products. A warpgroup (4 warps) takes 64 queries; tiles are 64 keys. The products of a tile's
 * values run while the next tile's scores become weights.
 *
 * Shared memory holds panels of 64 columns: a row is 128 bytes, its 16-byte chunks are swizzled (chunk ^ row % 8), eight rows
 * make the 1024-byte atom that descriptors count in. Every panel starts at a multiple of 1024 bytes. Values are the product's
 * right side with their columns along the row, which 16-bit types may be. Included by attention_cuda.cu alone. */
#ifndef ISOBIT_KERNELS_CUDA_ATTENTION_WGMMA_CUH
#define ISOBIT_KERNELS_CUDA_ATTENTION_WGMMA_CUH

#include "kernels/cuda/attention_mma.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HAS_WGMMA 1
#else
#define HAS_WGMMA 0
#endif

static constexpr int GROUP_ROWS = 64, GROUP_THREADS = 4 * WARP;
static constexpr int PANEL_COLS = 64, ATOM_BYTES = 1024;
static constexpr int PANEL_ELEMENTS = MMA_KEYS * PANEL_COLS; /* of keys or values */

static constexpr int STAGES = 3; /* one arrives, one is scored, one has its values added */

template <int HD> struct wgmma_layout {
    static constexpr int panels = HD / PANEL_COLS;
    static constexpr int tile = panels * PANEL_ELEMENTS;
    /* Larger heads leave no registers for them. */
    static constexpr bool has_query_registers = HD <= 64;
    /* Warpgroups of a block for long sequences: as many as its registers allow. */
    static constexpr int groups_long = HD <= 64 ? 2 : 3;
    /* Blocks that should share a multiprocessor. */
    static constexpr int blocks(int groups)
    {
        return HD <= 64 ? 4 / groups : groups == 1 ? 2 : 1;
    }
    static constexpr __host__ __device__ int query_elements(int groups)
    {
        return has_query_registers ? 0 : groups * GROUP_ROWS * HD;
    }
    /* Queries, stages of keys and values, and room to align. */
    static constexpr __host__ size_t bytes(int groups)
    {
        return (size_t)(query_elements(groups) + STAGES * 2 * tile) * 2 + ATOM_BYTES;
    }
};

/* Element offset of 16-byte chunk `chunk` of a row within a panel. */
static __device__ __forceinline__ int swizzled(int row, int chunk)
{
    return row * PANEL_COLS + (chunk ^ row % 8) * 8;
}

/* ---- instructions ---- */

/* What a product reads, at p and then so many elements on: atoms of 8 rows follow each other at 1024 bytes; 128-byte
 * swizzle. Shared addresses have 18 bits, of which 14 count here. */
static __device__ __forceinline__ uint32_t descriptor_base(const void *p)
{
    return shared_address(p) >> 4 | (ATOM_BYTES >> 4) << 16;
}

static __device__ __forceinline__ uint64_t descriptor(uint32_t base, int elements)
{
    return (uint64_t)(1U << 30 | ATOM_BYTES >> 4) << 32 | (base + (unsigned)elements / 8);
}

#if HAS_WGMMA
#define WGMMA_OUT(d)                                                                               \
    "+f"(d[0][0]), "+f"(d[0][1]), "+f"(d[0][2]), "+f"(d[0][3]), "+f"(d[1][0]), "+f"(d[1][1]),      \
        "+f"(d[1][2]), "+f"(d[1][3]), "+f"(d[2][0]), "+f"(d[2][1]), "+f"(d[2][2]), "+f"(d[2][3]),  \
        "+f"(d[3][0]), "+f"(d[3][1]), "+f"(d[3][2]), "+f"(d[3][3]), "+f"(d[4][0]), "+f"(d[4][1]),  \
        "+f"(d[4][2]), "+f"(d[4][3]), "+f"(d[5][0]), "+f"(d[5][1]), "+f"(d[5][2]), "+f"(d[5][3]),  \
        "+f"(d[6][0]), "+f"(d[6][1]), "+f"(d[6][2]), "+f"(d[6][3]), "+f"(d[7][0]), "+f"(d[7][1]),  \
        "+f"(d[7][2]), "+f"(d[7][3])
#define WGMMA_LIST                                                                                 \
    "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,"  \
    "%25,%26,%27,%28,%29,%30,%31}"
/* d[64, 64] (+)= a[64, 16] b[16, 64]; a in shared memory, both with k along the row. */
#define WGMMA_SHARED(type, d, a, b, is_sum)                                                        \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"                                      \
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type " " WGMMA_LIST        \
                 ", %32, %33, p, 1, 1, 0, 0;\n}\n"                                                 \
                 : WGMMA_OUT(d)                                                                    \
                 : "l"(a), "l"(b), "r"(is_sum))
/* The same with a in registers; `trans` 1: b has n along the row. */
#define WGMMA_REGISTERS(type, trans, d, a, b, is_sum)                                              \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"                                      \
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type " " WGMMA_LIST        \
                 ", {%32,%33,%34,%35}, %36, p, 1, 1, " trans ";\n}\n"                              \
                 : WGMMA_OUT(d)                                                                    \
                 : "r"((a)[0]), "r"((a)[1]), "r"((a)[2]), "r"((a)[3]), "l"(b), "r"(is_sum))

template <typename E> struct wgmma;

template <> struct wgmma<__half> {
    static __device__ __forceinline__ void shared(float d[8][4], uint64_t a, uint64_t b, int is_sum)
    {
        WGMMA_SHARED("f16", d, a, b, is_sum);
    }
    static __device__ __forceinline__ void keys(float d[8][4], const uint32_t *a, uint64_t b,
                                                int is_sum)
    {
        WGMMA_REGISTERS("f16", "0", d, a, b, is_sum);
    }
    static __device__ __forceinline__ void values(float d[8][4], const uint32_t *a, uint64_t b)
    {
        WGMMA_REGISTERS("f16", "1", d, a, b, 1);
    }
};

template <> struct wgmma<__nv_bfloat16> {
    static __device__ __forceinline__ void shared(float d[8][4], uint64_t a, uint64_t b, int is_sum)
    {
        WGMMA_SHARED("bf16", d, a, b, is_sum);
    }
    static __device__ __forceinline__ void keys(float d[8][4], const uint32_t *a, uint64_t b,
                                                int is_sum)
    {
        WGMMA_REGISTERS("bf16", "0", d, a, b, is_sum);
    }
    static __device__ __forceinline__ void values(float d[8][4], const uint32_t *a, uint64_t b)
    {
        WGMMA_REGISTERS("bf16", "1", d, a, b, 1);
    }
};

/* Registers written before are seen by the products that follow. */
static __device__ __forceinline__ void wgmma_begin(void)
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

static __device__ __forceinline__ void wgmma_commit(void)
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/* Waits until at most N of what was committed is under way. */
template <int N> static __device__ __forceinline__ void wgmma_wait(void)
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

/* Shared memory that this thread wrote is seen by products, once a barrier has passed. */
static __device__ __forceinline__ void wgmma_publish(void)
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* ---- tiles ---- */

/* Rows [0, n) at `src`, which are a.row apart, into panels of ROWS rows, zeros behind n. */
template <typename E, int HD, int ROWS, int THREADS_N>
static __device__ __forceinline__ void panels_load(const E *src, int64_t row, int n, E *to)
{
    constexpr int chunks = HD / 8, rows_a_turn = THREADS_N / chunks;
    const int at = threadIdx.x % chunks, first = threadIdx.x / chunks;
    const E *from = src + first * row + at * 8;
    E *panel = to + at / 8 * ROWS * PANEL_COLS;
#pragma unroll
    for (int r = first; r < ROWS; r += rows_a_turn, from += rows_a_turn * row)
        copy_async(panel + swizzled(r, at % 8), r < n ? from : src, r < n);
}

/* The same for keys [j0, j0 + 64) that are partly a parent's. */
template <typename E, int HD, int THREADS_N>
static __device__ __forceinline__ void panels_load_mixed(const struct attention_args &a,
                                                         const struct attention_piece &w,
                                                         const E *src, int j0, int n, E *to)
{
    constexpr int chunks = HD / 8;
    for (int i = threadIdx.x; i < MMA_KEYS * chunks; i += THREADS_N) {
        const int r = i / chunks, at = i % chunks;
        const E *from = src + (r < n ? attention_key_row(w, j0 + r) * a.row + at * 8 : 0);
        copy_async(to + at / 8 * PANEL_ELEMENTS + swizzled(r, at % 8), from, r < n);
    }
}

/* Keys [j0, j0 + 64) and their values. */
template <typename E, int HD, int THREADS_N>
static __device__ __forceinline__ void stage_load(const struct attention_args &a,
                                                  const struct attention_piece &w, int head, int j0,
                                                  int n_keys, E *stage)
{
    const E *src = (const E *)a.qkv + head * a.head_stride;
    const bool is_mixed = j0 < w.n_before && j0 + MMA_KEYS > w.n_before;
    if (is_mixed) {
        panels_load_mixed<E, HD, THREADS_N>(a, w, src + a.k_at, j0, n_keys - j0, stage);
        panels_load_mixed<E, HD, THREADS_N>(a, w, src + a.v_at, j0, n_keys - j0,
                                            stage + wgmma_layout<HD>::tile);
        return;
    }
    const E *first = src + attention_key_row(w, j0) * a.row;
    panels_load<E, HD, MMA_KEYS, THREADS_N>(first + a.k_at, a.row, n_keys - j0, stage);
    panels_load<E, HD, MMA_KEYS, THREADS_N>(first + a.v_at, a.row, n_keys - j0,
                                            stage + wgmma_layout<HD>::tile);
}

/* The warp's 16 queries as the left side of a product: a lane's rows are lane / 4 and 8 below, its columns 2 (lane % 4)
 * and 8 further right. */
template <typename E, int HD>
static __device__ __forceinline__ void queries_read(const struct attention_args &a,
                                                    const struct attention_piece &w, int head,
                                                    uint32_t q[HD / 16][4])
{
    const int lane = threadIdx.x % WARP, first = threadIdx.x / WARP * MMA_ROWS + lane / 4;
    const E *src = (const E *)a.qkv + a.q_at + head * a.head_stride + lane % 4 * 2;
#pragma unroll
    for (int d = 0; d < HD / 16; d++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int row = first + i % 2 * 8;
            const E *at = src + (w.row + row) * a.row + d * 16 + i / 2 * 8;
            q[d][i] = row < w.n_rows ? *reinterpret_cast<const uint32_t *>(at) : 0;
        }
}

/* Starts s = q keys^T. */
template <typename E, int HD>
static __device__ __forceinline__ void scores_start(float s[N_TILES][4], const uint32_t (*q)[4],
                                                    const E *queries, int query_rows, const E *keys)
{
    const uint32_t left = descriptor_base(queries), right = descriptor_base(keys);
    wgmma_begin();
#pragma unroll
    for (int d = 0; d < HD / 16; d++) {
        const int at = d % 4 * 16; /* within the panel */
        const uint64_t k = descriptor(right, d / 4 * PANEL_ELEMENTS + at);
        if constexpr (wgmma_layout<HD>::has_query_registers)
            wgmma<E>::keys(s, q[d], k, d > 0);
        else
            wgmma<E>::shared(s, descriptor(left, d / 4 * query_rows * PANEL_COLS + at), k, d > 0);
    }
    wgmma_commit();
}

/* Starts out += p values; a panel of values is 64 of the head's dimensions. */
template <typename E, int HD>
static __device__ __forceinline__ void
values_start(struct mma_state<HD> *m, const uint32_t p[MMA_KEYS / 16][4], const E *values)
{
    const uint32_t right = descriptor_base(values);
    wgmma_begin();
#pragma unroll
    for (int i = 0; i < MMA_KEYS / 16; i++)
#pragma unroll
        for (int panel = 0; panel < HD / PANEL_COLS; panel++)
            wgmma<E>::values(&m->out[panel * 8], p[i],
                             descriptor(right, panel * PANEL_ELEMENTS + i * 16 * PANEL_COLS));
    wgmma_commit();
}

template <typename E>
static __device__ __forceinline__ void weights_pack(uint32_t p[MMA_KEYS / 16][4],
                                                    const float s[N_TILES][4])
{
#pragma unroll
    for (int i = 0; i < MMA_KEYS / 16; i++) {
        p[i][0] = pack_two<E>(s[2 * i][0], s[2 * i][1]);
        p[i][1] = pack_two<E>(s[2 * i][2], s[2 * i][3]);
        p[i][2] = pack_two<E>(s[2 * i + 1][0], s[2 * i + 1][1]);
        p[i][3] = pack_two<E>(s[2 * i + 1][2], s[2 * i + 1][3]);
    }
}

/* What a warpgroup's loop needs. */
template <typename E> struct group_view {
    const E *queries; /* of the group, when they are in shared memory */
    E *stages;        /* keys, values; keys, values; … */
    float slope, scale;
    int n_tiles; /* up to the last that one of its queries sees; 0 without queries */
    int query;   /* key that the warp's first query is */
};

template <typename E, int HD>
static __device__ __forceinline__ E *stage_at(const struct group_view<E> &v, int tile)
{
    return v.stages + tile % STAGES * 2 * wgmma_layout<HD>::tile;
}

/* Scores of a tile into weights, as the left side of a product. */
template <typename E, int HD>
static __device__ __forceinline__ void tile_weigh(const struct group_view<E> &v, int tile,
                                                  struct mma_state<HD> *m, float s[N_TILES][4],
                                                  float factor[2])
{
    scores_finish(s, v.slope, tile * MMA_KEYS, v.query);
    softmax_weights<HD>(m, s, v.scale, factor);
}

/* Adds the values of `tile`, whose weights are in p, while the next tile is scored and weighed; then p is the next one's. */
template <typename E, int HD, int GROUPS>
static __device__ __forceinline__ void
tile_step(const struct group_view<E> &v, int tile, struct mma_state<HD> *m,
          uint32_t p[MMA_KEYS / 16][4], const uint32_t (*q)[4])
{
    float s[N_TILES][4], factor[2];
    scores_start<E, HD>(s, q, v.queries, GROUPS * GROUP_ROWS, stage_at<E, HD>(v, tile + 1));
    values_start<E, HD>(m, p, stage_at<E, HD>(v, tile) + wgmma_layout<HD>::tile);
    wgmma_wait<1>(); /* the scores */
    tile_weigh<E, HD>(v, tile + 1, m, s, factor);
    wgmma_wait<0>();
    /* Maxima seldom rise behind the first tiles. */
    if (!__all_sync(ALL_LANES, factor[0] == 1.0F && factor[1] == 1.0F))
        output_scale<HD>(m, factor);
    weights_pack<E>(p, s);
}

template <typename E, int HD>
static __device__ __forceinline__ void tile_last(const struct group_view<E> &v, int tile,
                                                 struct mma_state<HD> *m,
                                                 const uint32_t p[MMA_KEYS / 16][4])
{
    values_start<E, HD>(m, p, stage_at<E, HD>(v, tile) + wgmma_layout<HD>::tile);
    wgmma_wait<0>();
}

template <typename E, int HD, int GROUPS>
static __device__ __forceinline__ void
tile_first(const struct group_view<E> &v, struct mma_state<HD> *m, uint32_t p[MMA_KEYS / 16][4],
           const uint32_t (*q)[4])
{
    float s[N_TILES][4], factor[2];
    scores_start<E, HD>(s, q, v.queries, GROUPS * GROUP_ROWS, stage_at<E, HD>(v, 0));
    wgmma_wait<0>();
    tile_weigh<E, HD>(v, 0, m, s, factor);
    weights_pack<E>(p, s);
}
#endif

/* ---- kernel ---- */

/* Turn j needs the values of tile j and the keys of tile j + 1; tile j + 2 is fetched meanwhile, into the place of
 * tile j - 1, which nobody reads any more. */
template <typename E, int HD, int GROUPS>
static __global__ void __launch_bounds__(GROUPS *GROUP_THREADS, wgmma_layout<HD>::blocks(GROUPS))
    wgmma_kernel(struct attention_args a)
{
#if HAS_WGMMA
    using layout = wgmma_layout<HD>;
    constexpr int threads = GROUPS * GROUP_THREADS;
    extern __shared__ unsigned char wgmma_shared[];
    const unsigned misaligned = shared_address(wgmma_shared) % ATOM_BYTES;
    E *queries = reinterpret_cast<E *>(wgmma_shared + (ATOM_BYTES - misaligned) % ATOM_BYTES);
    const int head = blockIdx.x % a.heads, warp = threadIdx.x / WARP;
    const int group = __shfl_sync(ALL_LANES, warp / 4, 0); /* the same in all lanes */
    const struct attention_piece w = a.pieces[blockIdx.x / a.heads];
    const int n_keys = w.query + w.n_rows, n_tiles = ceil_div_int(n_keys, MMA_KEYS);
    struct group_view<E> v = {
        queries + group *GROUP_ROWS *PANEL_COLS, queries + layout::query_elements(GROUPS),
            a.slopes != NULL ? a.slopes[head] / a.scale : 0.0F, a.scale *LOG2_E,
            0, w.query + warp *MMA_ROWS
    };
    if (group * GROUP_ROWS < w.n_rows)
        v.n_tiles = min(n_tiles, ceil_div_int(w.query + (group + 1) * GROUP_ROWS, MMA_KEYS));
    uint32_t q[layout::has_query_registers ? HD / 16 : 1][4];
    if constexpr (layout::has_query_registers)
        queries_read<E, HD>(a, w, head, q);
    else
        panels_load<E, HD, GROUPS * GROUP_ROWS, threads>((const E *)a.qkv + a.q_at +
                                                             head * a.head_stride + w.row * a.row,
                                                         a.row, w.n_rows, queries);
    stage_load<E, HD, threads>(a, w, head, 0, n_keys, stage_at<E, HD>(v, 0));
    copies_commit();
    if (n_tiles > 1)
        stage_load<E, HD, threads>(a, w, head, MMA_KEYS, n_keys, stage_at<E, HD>(v, 1));
    copies_commit();

    struct mma_state<HD> m = {
    };
    m.max[0] = m.max[1] = -INFINITY;
    uint32_t p[MMA_KEYS / 16][4];
    copies_wait<1>();
    wgmma_publish();
    __syncthreads();
    if (v.n_tiles > 0)
        tile_first<E, HD, GROUPS>(v, &m, p, q);
    for (int tile = 0; tile < n_tiles; tile++) {
        copies_wait<0>();
        wgmma_publish();
        __syncthreads();
        if (tile + 2 < n_tiles)
            stage_load<E, HD, threads>(a, w, head, (tile + 2) * MMA_KEYS, n_keys,
                                       stage_at<E, HD>(v, tile + 2));
        copies_commit();
        if (tile + 1 < v.n_tiles)
            tile_step<E, HD, GROUPS>(v, tile, &m, p, q);
        else if (tile + 1 == v.n_tiles)
            tile_last<E, HD>(v, tile, &m, p);
    }
    output_store<E, HD>(a, w, head, m);
#else
    (void)a;
    __trap(); /* attention_wgmma_can lets no other device come here */
#endif
}

/* ---- launchers ---- */

static bool attention_wgmma_can(const struct cuda_kern *c, const struct attention_args &a)
{
    return c->has_wgmma && c->compute != KERN_FP32 && attention_mma_can(c, a) &&
           (a.head_dim == 64 || a.head_dim == 128);
}

template <typename E, int HD, int GROUPS>
static enum err_code wgmma_launch(struct cuda_kern *c, const struct attention_args &a,
                                  struct err *e)
{
    const size_t bytes = wgmma_layout<HD>::bytes(GROUPS);
    CUDA_TRY(cudaFuncSetAttribute(wgmma_kernel<E, HD, GROUPS>,
                                  cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
             "shared memory of attention");
    wgmma_kernel<E, HD, GROUPS>
        <<<(unsigned)((int64_t)a.n_pieces * a.heads), GROUPS * GROUP_THREADS, bytes, c->stream>>>(
            a);
    return cuda_launched("attention", e);
}

/* Queries of a piece of a long sequence. */
static int attention_wgmma_rows(int head_dim)
{
    return GROUP_ROWS *
           (head_dim == 64 ? wgmma_layout<64>::groups_long : wgmma_layout<128>::groups_long);
}

template <typename E, int HD>
static enum err_code wgmma_launch_dims(struct cuda_kern *c, const struct attention_args &a,
                                       struct err *e)
{
    if (a.piece_rows > GROUP_ROWS)
        return wgmma_launch<E, HD, wgmma_layout<HD>::groups_long>(c, a, e);
    return wgmma_launch<E, HD, 1>(c, a, e);
}

template <typename E>
static enum err_code attention_wgmma(struct cuda_kern *c, const struct attention_args &a,
                                     struct err *e)
{
    return a.head_dim == 64 ? wgmma_launch_dims<E, 64>(c, a, e)
                            : wgmma_launch_dims<E, 128>(c, a, e);
}

#endif
