/* Attention on Hopper (compute capability 9.0), for heads of 64, 80, 96, 128 and 256 dimensions: the arithmetic between the two
 * products is that of attention_mma.cuh, but one warp of a block, the producer, has the tensor memory copier fetch queries, keys
 * and values, and warpgroups (4 warps, 64 queries each) put them from shared memory straight into asynchronous products (wgmma).
 * Blocks stay and take one piece of work after another, the heaviest first, so that the producer fetches the next piece
 * while the last is finished. Where a piece ran or beside what never shows in its result.
 *
 * Long sequences: three warpgroups share each tile of keys; the products of a tile's values run beside the softmax of the
 * next, and the warpgroups take turns in starting products, so that one's softmax runs beside another's products. Short
 * sequences: one warpgroup, three blocks a multiprocessor. Both cut keys into the same tiles and give the same bits. Heads of
 * 256 have two warpgroups a block for both.
 *
 * Shared memory holds panels of 64 columns: a row is 128 bytes, its 16-byte chunks are swizzled (chunk ^ row % 8), eight rows
 * make the 1024-byte atom that descriptors count in. Every panel starts at a multiple of 1024 bytes; the last of a head of 80
 * or 96 also holds columns of its neighbour, which no product reads. Values are the product's right side with their columns
 * along the row, which 16-bit types may be. Included by attention_cuda.cu alone. */
#ifndef ISOBIT_KERNELS_CUDA_ATTENTION_WGMMA_CUH
#define ISOBIT_KERNELS_CUDA_ATTENTION_WGMMA_CUH

#include "kernels/cuda/attention_mma.cuh"
#include "kernels/cuda/attention_products.cuh"
#include "kernels/cuda/launch_cuda.cuh"

static constexpr int GROUP_ROWS = BLOCK_ROWS;              /* queries of a warpgroup */
static constexpr int BOX_ROWS = 64;                        /* of a usual fetch */
static constexpr size_t TOGETHER_BYTES = (size_t)32 << 20; /* most of the second-level cache */
static constexpr int REGISTERS = 65536;                    /* of a multiprocessor */
static constexpr int PRODUCER_REGISTERS = 32;              /* of a thread, where they move */

/* Sizes for heads of HD dimensions and GROUPS warpgroups a block; sizes in bytes unless they say otherwise. */
template <int HD_, int GROUPS_> struct wgmma_shape {
    static constexpr int HD = HD_, GROUPS = GROUPS_;
    static constexpr int KEYS = HD == 64 ? 128 : 64; /* of a tile; the same for all GROUPS */
    static constexpr bool is_shared = GROUPS > 1;    /* tiles, by several warpgroups */
    static constexpr int STAGES = GROUPS;            /* measured; at 256 no more fit */
    static constexpr int blocks = is_shared ? 1 : 3; /* of a multiprocessor */
    /* Registers move between warpgroups, so the producer's is a whole one where they do. */
    static constexpr int threads = GROUPS * GROUP_SIZE + (is_shared ? GROUP_SIZE : WARP);
    static constexpr int registers = GROUPS == 2 ? 232 : 160; /* of the other threads then */
    static_assert(!is_shared || GROUPS * registers + PRODUCER_REGISTERS <=
                                    (GROUPS + 1) * (REGISTERS / threads / 8 * 8),
                  "warpgroups would wait for registers that the block does not have");
    static constexpr int panels = (HD + PANEL_WIDTH - 1) / PANEL_WIDTH;
    static constexpr int panel = KEYS * PANEL_ROW_BYTES, tile = panels * panel;
    static constexpr int query_panel = GROUP_ROWS * PANEL_ROW_BYTES, queries = panels * query_panel;
    static constexpr int n_barriers = 4 * STAGES + 2;
};

/* What a block's warpgroups learn of the piece whose queries arrive. */
struct wgmma_work {
    int32_t row, n_rows, query, n_keys; /* as in struct attention_piece */
    int32_t n_tiles;                    /* up to the last that one of its queries sees */
    int32_t head, is_last;              /* is_last: no piece follows */
};

/* Places in shared memory: queries of each group, STAGES tiles of keys, of values, barriers, work, room to align. */
template <class S> struct wgmma_ring {
    uint32_t queries, barriers;
    struct wgmma_work *work;

    static constexpr size_t bytes = (size_t)S::GROUPS * S::queries + 2 * S::STAGES * S::tile +
                                    S::n_barriers * 8 + sizeof(struct wgmma_work) + ATOM_BYTES;
    __device__ __forceinline__ uint32_t keys(int stage) const
    {
        return queries + S::GROUPS * S::queries + stage * S::tile;
    }
    __device__ __forceinline__ uint32_t values(int stage) const
    {
        return keys(S::STAGES + stage);
    }
    /* Full: the copier has filled it. Empty: all warps of all groups are through with it. */
    __device__ __forceinline__ uint32_t full_keys(int stage) const
    {
        return barriers + stage * 8;
    }
    __device__ __forceinline__ uint32_t full_values(int stage) const
    {
        return full_keys(S::STAGES + stage);
    }
    __device__ __forceinline__ uint32_t empty_keys(int stage) const
    {
        return full_keys(2 * S::STAGES + stage);
    }
    __device__ __forceinline__ uint32_t empty_values(int stage) const
    {
        return full_keys(3 * S::STAGES + stage);
    }
    __device__ __forceinline__ uint32_t full_queries(void) const
    {
        return full_keys(4 * S::STAGES);
    }
    __device__ __forceinline__ uint32_t empty_queries(void) const
    {
        return full_keys(4 * S::STAGES + 1);
    }
};

/* A stage of the ring and how often, modulo 2, it was used before. */
struct wgmma_place {
    int stage, phase;
};

template <class S> static __device__ __forceinline__ void place_next(struct wgmma_place *p)
{
    if (++p->stage == S::STAGES) {
        p->stage = 0;
        p->phase ^= 1;
    }
}

/* The buffer of queries, keys and values for the copier, 64 columns at a time. */
struct wgmma_maps {
    CUtensorMap box, atom, row; /* 64 rows, 8, 1 */
};

#if GEMM_HAS_HOPPER
/* Barriers of all threads of some warps: 1 .. GROUPS, the turn of group 0 .. GROUPS - 1; behind them, each group's own. */
static __device__ __forceinline__ void warps_wait(int barrier, int n_threads)
{
    asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(n_threads) : "memory");
}

static __device__ __forceinline__ void warps_arrive(int barrier, int n_threads)
{
    asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(n_threads) : "memory");
}

/* ---- producer ---- */

/* Piece and head of turn `at`. The heads whose keys and values fit the second-level cache go together, the heaviest pieces of
 * all of them first. */
static __device__ __forceinline__ struct attention_piece
turn_find(const struct attention_args &a, int heads_together, int at, int *head)
{
    const int per_part = a.n_pieces * heads_together, part = at / per_part, rest = at % per_part;
    const int heads = min(heads_together, a.heads - part * heads_together);
    *head = part * heads_together + rest % heads;
    return a.pieces[rest / heads];
}

/* The tile of keys or values, as `col` says, from key j0 on. */
template <class S>
static __device__ __forceinline__ void tile_fetch(const struct wgmma_maps &maps,
                                                  const struct attention_piece &w, int col, int j0,
                                                  uint32_t to, uint32_t barrier)
{
    const int lane = threadIdx.x % WARP;
    const int own = w.n_before - j0; /* row of the tile where the sequence's own keys start */
    if (lane == 0)
        barrier_expect(barrier, S::tile);
    if (own <= 0 || own >= S::KEYS) {
        const int row = (int)attention_key_row(w, j0);
        if (lane == 0)
#pragma unroll
            for (int p = 0; p < S::panels; p++)
#pragma unroll
                for (int r = 0; r < S::KEYS; r += BOX_ROWS)
                    box_load(to + p * S::panel + r * PANEL_ROW_BYTES, &maps.box,
                             col + p * PANEL_WIDTH, row + r, barrier);
        return;
    }
    /* Partly the parent's. An atom that both have part in comes row by row. */
    __syncwarp();
    const int parents = w.before_row + j0, owns = w.own_row - own;
    for (int i = lane; i < S::KEYS / ATOM_ROWS * S::panels; i += WARP) {
        const int p = i % S::panels, r = i / S::panels * ATOM_ROWS, x = col + p * PANEL_WIDTH;
        const uint32_t panel = to + p * S::panel;
        if (r + ATOM_ROWS <= own || r >= own)
            box_load(panel + r * PANEL_ROW_BYTES, &maps.atom, x, (r < own ? parents : owns) + r,
                     barrier);
        else
            for (int j = r; j < r + ATOM_ROWS; j++)
                box_load(panel + j * PANEL_ROW_BYTES, &maps.row, x, (j < own ? parents : owns) + j,
                         barrier);
    }
}

/* Announces the piece and fetches its queries. One thread. */
template <class S>
static __device__ __forceinline__ void
work_hand_out(const struct wgmma_ring<S> &ring, const struct wgmma_maps &maps,
              const struct attention_piece &w, int q_col, const struct wgmma_work &work)
{
    const int groups = min(S::GROUPS, ceil_div_int(w.n_rows, GROUP_ROWS));
    *ring.work = work;
    barrier_expect(ring.full_queries(), groups * S::queries);
    for (int g = 0; g < groups; g++)
#pragma unroll
        for (int p = 0; p < S::panels; p++)
            box_load(ring.queries + g * S::queries + p * S::query_panel, &maps.box,
                     q_col + p * PANEL_WIDTH, w.row + g * GROUP_ROWS, ring.full_queries());
}

/* Number of the block's next turn, as its first lane learns it: blocks start with the turn of their own number, then take
 * what is left. The last to take leaves the counter as it was. */
static __device__ __forceinline__ int turn_take(const struct attention_args &a, int n_turns)
{
    if (threadIdx.x % WARP != 0)
        return 0;
    const int taken = atomicAdd(a.n_taken, 1);
    if (taken == n_turns - 1)
        *a.n_taken = 0;
    return (int)gridDim.x + taken;
}

/* A phase that no barrier has had yet counts as completed: at first everything is empty. */
template <class S>
static __device__ __forceinline__ void produce(const struct attention_args &a, int heads_together,
                                               const struct wgmma_maps &maps,
                                               const struct wgmma_ring<S> &ring)
{
    const int n_turns = a.n_pieces * a.heads;
    struct wgmma_place at = {0, 1};
    int query_phase = 1;
    for (int turn = (int)blockIdx.x; turn < n_turns; query_phase ^= 1) {
        const int next = turn_take(a, n_turns);
        struct wgmma_work work;
        work.is_last = next >= n_turns;
        const struct attention_piece w = turn_find(a, heads_together, turn, &work.head);
        work.row = w.row;
        work.n_rows = w.n_rows;
        work.query = w.query;
        work.n_keys = w.n_keys;
        work.n_tiles = ceil_div_int(w.query + w.n_rows, S::KEYS);
        const int col = work.head * (int)a.head_stride;
        for (int t = 0; t < work.n_tiles; t++) {
            barrier_wait(ring.empty_keys(at.stage), at.phase);
            tile_fetch<S>(maps, w, col + (int)a.k_at, t * S::KEYS, ring.keys(at.stage),
                          ring.full_keys(at.stage));
            if (t == 0) {
                barrier_wait(ring.empty_queries(), query_phase);
                if (threadIdx.x % WARP == 0)
                    work_hand_out<S>(ring, maps, w, col + (int)a.q_at, work);
            }
            barrier_wait(ring.empty_values(at.stage), at.phase);
            tile_fetch<S>(maps, w, col + (int)a.v_at, t * S::KEYS, ring.values(at.stage),
                          ring.full_values(at.stage));
            __syncwarp();
            place_next<S>(&at);
        }
        turn = __shfl_sync(ALL_LANES, next, 0);
    }
}

/* ---- warpgroups ---- */

/* What a warpgroup knows of its piece. */
template <class S> struct group_view {
    struct wgmma_ring<S> ring;
    int group;
    int n_tiles,
        n_keys; /* up to the last tile that one of its queries sees; 0 without queries. Of the sequence */
    int query; /* key that the warp's first query is */
    float slope, scale;
};

/* The calling warp is through with what the barrier guards. */
static __device__ __forceinline__ void release(uint32_t barrier)
{
    if (threadIdx.x % WARP == 0)
        barrier_arrive(barrier);
}

/* Groups start their products in turns, all of them as often. */
template <class S> static __device__ __forceinline__ void products_take_turn(int group)
{
    if (S::is_shared)
        warps_wait(1 + group, 2 * GROUP_SIZE);
}

template <class S> static __device__ __forceinline__ void products_pass_turn(int group)
{
    if (S::is_shared)
        warps_arrive(1 + (group + 1) % S::GROUPS, 2 * GROUP_SIZE);
}

/* Starts s = q keys^T. */
template <typename E, class S>
static __device__ __forceinline__ void scores_start(float (&s)[S::KEYS / 8][4], uint32_t queries,
                                                    uint32_t keys)
{
    const uint32_t left = descriptor_base(queries, ATOM_BYTES),
                   right = descriptor_base(keys, ATOM_BYTES);
    products_begin();
#pragma unroll
    for (int d = 0; d < S::HD / 16; d++) {
        const int within = d % 4 * 32; /* the panel */
        wgmma<E>::scores(s, descriptor(left, d / 4 * S::query_panel + within),
                         descriptor(right, d / 4 * S::panel + within), d > 0);
    }
    products_commit();
}

/* Starts out += p values. */
template <typename E, class S>
static __device__ __forceinline__ void
values_start(float (&out)[S::HD / 8][4], const uint32_t (&p)[S::KEYS / 16][4], uint32_t values)
{
    const uint32_t right = descriptor_base(values, S::panel);
    products_begin();
#pragma unroll
    for (int i = 0; i < S::KEYS / 16; i++)
        wgmma<E>::values(out, p[i], descriptor(right, i * 16 * PANEL_ROW_BYTES));
    products_commit();
}

/* Rows of the group's last tile of values behind the sequence's end are another's, or nobody's: their weights are 0, but they
 * may not be finite. */
template <class S>
static __device__ __forceinline__ void values_end(const struct group_view<S> &v, uint32_t values)
{
    const int n = v.n_keys - (v.n_tiles - 1) * S::KEYS, thread = threadIdx.x % GROUP_SIZE;
    if (n >= S::KEYS)
        return;
    for (int r = n + thread / 8; r < S::KEYS; r += GROUP_SIZE / 8)
#pragma unroll
        for (int p = 0; p < S::panels; p++)
            asm volatile("st.shared.v4.b32 [%0], {%1, %1, %1, %1};" ::"r"(
                             values + p * S::panel + r * PANEL_ROW_BYTES + thread % 8 * 16),
                         "r"(0)
                         : "memory");
    copies_publish();
    warps_wait(1 + S::GROUPS + v.group, GROUP_SIZE);
}

template <typename E, int N>
static __device__ __forceinline__ void weights_pack(uint32_t (&p)[N / 2][4], const float (&s)[N][4])
{
#pragma unroll
    for (int i = 0; i < N / 2; i++) {
        p[i][0] = pack_two<E>(s[2 * i][0], s[2 * i][1]);
        p[i][1] = pack_two<E>(s[2 * i][2], s[2 * i][3]);
        p[i][2] = pack_two<E>(s[2 * i + 1][0], s[2 * i + 1][1]);
        p[i][3] = pack_two<E>(s[2 * i + 1][2], s[2 * i + 1][3]);
    }
}

/* Waits for the scores of tile t, where at most PENDING later products may be under way, and makes them weights. */
template <class S, int PENDING>
static __device__ __forceinline__ void tile_weigh(const struct group_view<S> &v, int t, int stage,
                                                  struct mma_state<S::HD> *m,
                                                  float (&s)[S::KEYS / 8][4], float factor[2])
{
    products_wait<PENDING>();
    outputs_settle(s);
    release(v.ring.empty_keys(stage));
    if (t + 1 == v.n_tiles)
        release(v.ring.empty_queries());
    scores_finish(s, v.slope, t * S::KEYS, v.query);
    softmax_weights(m, s, v.scale, factor);
}

/* Scores and weighs tile t, at `at`. */
template <typename E, class S>
static __device__ __forceinline__ void
tile_score(const struct group_view<S> &v, int t, const struct wgmma_place &at,
           struct mma_state<S::HD> *m, float (&s)[S::KEYS / 8][4], float factor[2])
{
    barrier_wait(v.ring.full_keys(at.stage), at.phase);
    products_take_turn<S>(v.group);
    scores_start<E, S>(s, v.ring.queries + v.group * S::queries, v.ring.keys(at.stage));
    products_pass_turn<S>(v.group);
    tile_weigh<S, 0>(v, t, at.stage, m, s, factor);
}

/* Adds the values of tile t - 1, at `before`, whose weights are in p, while tile t is scored and weighed; then p is t's. */
template <typename E, class S>
static __device__ __forceinline__ void
tile_step(const struct group_view<S> &v, int t, const struct wgmma_place &before,
          const struct wgmma_place &at, struct mma_state<S::HD> *m, uint32_t (&p)[S::KEYS / 16][4])
{
    float s[S::KEYS / 8][4], factor[2];
    barrier_wait(v.ring.full_keys(at.stage), at.phase);
    products_take_turn<S>(v.group);
    scores_start<E, S>(s, v.ring.queries + v.group * S::queries, v.ring.keys(at.stage));
    barrier_wait(v.ring.full_values(before.stage), before.phase);
    values_start<E, S>(m->out, p, v.ring.values(before.stage));
    products_pass_turn<S>(v.group);
    tile_weigh<S, 1>(v, t, at.stage, m, s, factor);
    /* Sums are never negative. They are asked for so that the wait below stays below: the assembler would move it up before the
     * exponentials. Warps must not part in front of it. */
    if (m->sum[0] < 0.0F || m->sum[1] < 0.0F)
        __trap();
    products_wait<0>();
    outputs_settle(m->out);
    release(v.ring.empty_values(before.stage));
    /* Maxima seldom rise behind the first tiles. */
    if (!__all_sync(ALL_LANES, factor[0] == 1.0F && factor[1] == 1.0F))
        output_scale<S::HD>(m, factor);
    weights_pack<E>(p, s);
}

/* Adds the values of the tile at `at`, the group's last if is_last. */
template <typename E, class S>
static __device__ __forceinline__ void
tile_add(const struct group_view<S> &v, const struct wgmma_place &at, bool is_last,
         struct mma_state<S::HD> *m, const uint32_t (&p)[S::KEYS / 16][4])
{
    barrier_wait(v.ring.full_values(at.stage), at.phase);
    if (is_last)
        values_end<S>(v, v.ring.values(at.stage));
    values_start<E, S>(m->out, p, v.ring.values(at.stage));
    products_wait<0>();
    outputs_settle(m->out);
    release(v.ring.empty_values(at.stage));
}

/* All tiles of a piece that the group sees, from `at` on. */
template <typename E, class S>
static __device__ __forceinline__ void tiles_add(const struct group_view<S> &v,
                                                 struct wgmma_place *at, struct mma_state<S::HD> *m)
{
    uint32_t p[S::KEYS / 16][4];
    if constexpr (S::is_shared) {
        float s[S::KEYS / 8][4], factor[2];
        tile_score<E, S>(v, 0, *at, m, s, factor);
        weights_pack<E>(p, s);
        for (int t = 1; t < v.n_tiles; t++) {
            const struct wgmma_place before = *at;
            place_next<S>(at);
            tile_step<E, S>(v, t, before, *at, m, p);
        }
        tile_add<E, S>(v, *at, true, m, p);
        place_next<S>(at);
    } else {
        for (int t = 0; t < v.n_tiles; t++, place_next<S>(at)) {
            float s[S::KEYS / 8][4], factor[2];
            tile_score<E, S>(v, t, *at, m, s, factor);
            output_scale<S::HD>(m, factor);
            weights_pack<E>(p, s);
            tile_add<E, S>(v, *at, t + 1 == v.n_tiles, m, p);
        }
    }
}

/* Lets the tiles from t on pass that other groups of the block see. */
template <class S>
static __device__ __forceinline__ void tiles_pass(const struct group_view<S> &v, int t, int n_tiles,
                                                  struct wgmma_place *at)
{
    for (; t < n_tiles; t++, place_next<S>(at)) {
        barrier_wait(v.ring.full_keys(at->stage), at->phase);
        release(v.ring.empty_keys(at->stage));
        products_take_turn<S>(v.group);
        products_pass_turn<S>(v.group);
        barrier_wait(v.ring.full_values(at->stage), at->phase);
        release(v.ring.empty_values(at->stage));
    }
}

/* By the lane that will release it, for all: so whoever reads it is whoever arrives. */
static __device__ __forceinline__ struct wgmma_work work_read(const struct wgmma_work *from)
{
    struct wgmma_work w = {};
    if (threadIdx.x % WARP == 0)
        w = *from;
    return {of_warp(w.row),     of_warp(w.n_rows), of_warp(w.query),  of_warp(w.n_keys),
            of_warp(w.n_tiles), of_warp(w.head),   of_warp(w.is_last)};
}

template <typename E, class S>
static __device__ __forceinline__ void consume(const struct attention_args &a,
                                               const struct wgmma_ring<S> &ring)
{
    const int warp = threadIdx.x / WARP;
    struct group_view<S> v = {
        ring
    };
    v.group = of_warp(warp / 4);
    v.scale = a.scale * LOG2_E;
    if (v.group == S::GROUPS - 1)
        products_pass_turn<S>(v.group);
    struct wgmma_place at = {0, 0};
    int is_last = 0;
    /* The vote tells the compiler that lanes do not part: else it makes products wait for each other. */
    for (int query_phase = 0; !__any_sync(ALL_LANES, is_last); query_phase ^= 1) {
        barrier_wait(ring.full_queries(), query_phase);
        const struct wgmma_work w = work_read(ring.work);
        is_last = w.is_last;
        v.n_tiles = 0;
        if (v.group * GROUP_ROWS < w.n_rows)
            v.n_tiles = min(w.n_tiles, ceil_div_int(w.query + (v.group + 1) * GROUP_ROWS, S::KEYS));
        v.n_keys = w.n_keys;
        v.query = w.query + warp * MMA_ROWS;
        v.slope = a.slopes != NULL ? a.slopes[w.head] / a.scale : 0.0F;
        struct mma_state<S::HD> m = {
        };
        m.max[0] = m.max[1] = -INFINITY;
        if (v.n_tiles > 0)
            tiles_add<E, S>(v, &at, &m);
        else
            release(ring.empty_queries());
        tiles_pass<S>(v, v.n_tiles, w.n_tiles, &at);
        output_store<E, S::HD>(a, w.row, w.n_rows, w.head, m);
    }
}
#endif

/* ---- kernel ---- */

template <typename E, class S>
static __global__ void __launch_bounds__(S::threads, S::blocks)
    wgmma_kernel(struct attention_args a, int heads_together,
                 const __grid_constant__ struct wgmma_maps maps)
{
#if GEMM_HAS_HOPPER
    extern __shared__ unsigned char wgmma_shared[];
    const uint32_t start = shared_address(wgmma_shared);
    struct wgmma_ring<S> ring;
    ring.queries = (start + ATOM_BYTES - 1) / ATOM_BYTES * ATOM_BYTES;
    ring.barriers = ring.values(S::STAGES);
    ring.work = reinterpret_cast<struct wgmma_work *>(wgmma_shared + (ring.barriers - start) +
                                                      S::n_barriers * 8);
    if (threadIdx.x == 0) {
        for (int i = 0; i < 2 * S::STAGES; i++) {
            barrier_init(ring.full_keys(i), 1);
            barrier_init(ring.empty_keys(i), S::GROUPS * 4);
        }
        barrier_init(ring.full_queries(), 1);
        barrier_init(ring.empty_queries(), S::GROUPS * 4);
        barriers_publish();
        copies_publish();
    }
    __syncthreads();
    launch_wait();
    launch_next();
    if (threadIdx.x < S::GROUPS * GROUP_SIZE) {
        if (S::is_shared)
            asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(S::registers));
        consume<E, S>(a, ring);
    } else {
        if (S::is_shared)
            asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(PRODUCER_REGISTERS));
        if (threadIdx.x < S::GROUPS * GROUP_SIZE + WARP)
            produce<S>(a, heads_together, maps, ring);
    }
#else
    (void)a;
    (void)heads_together;
    (void)maps;
    __trap(); /* attention_wgmma_can lets no other device come here */
#endif
}

/* ---- launchers ---- */

/* Warpgroups of a block. Heads of 256 have more output than registers of three, and of three blocks a multiprocessor. */
static constexpr int groups_choose(int head_dim, bool is_long)
{
    return head_dim > 128 ? 2 : is_long ? 3 : 1;
}

/* Dimensions of the heads that there is a kernel for. */
#define WGMMA_HEADS(X) X(64) X(80) X(96) X(128) X(256)

static bool attention_wgmma_can(const struct cuda_kern *c, const struct attention_args &a)
{
#define IS_HEAD(hd) || a.head_dim == (hd)
    const bool is_size = false WGMMA_HEADS(IS_HEAD);
#undef IS_HEAD
    return c->encode_map != NULL && c->compute != KERN_FP32 && attention_mma_can(c, a) && is_size;
}

/* Queries of a piece, by the longest sequence. */
static int attention_wgmma_rows(int head_dim, int longest)
{
    return groups_choose(head_dim, longest > 2 * GROUP_ROWS) * GROUP_ROWS;
}

template <typename E, class S>
static enum err_code wgmma_launch(struct cuda_kern *c, const struct attention_args &a,
                                  struct err *e)
{
    constexpr size_t bytes = wgmma_ring<S>::bytes;
    struct wgmma_maps maps;
    /* A miss of the second-level cache brings the head's own row and nothing of its neighbours'. */
    constexpr CUtensorMapL2promotion line =
        S::HD % 128 == 0 ? CU_TENSOR_MAP_L2_PROMOTION_L2_256B : CU_TENSOR_MAP_L2_PROMOTION_L2_128B;
    TRY(panel_map(c, &maps.box, a.qkv, a.T, a.row, BOX_ROWS, line, e));
    TRY(panel_map(c, &maps.atom, a.qkv, a.T, a.row, ATOM_ROWS, line, e));
    TRY(panel_map(c, &maps.row, a.qkv, a.T, a.row, 1, line, e));
    const int64_t fit = (int64_t)(TOGETHER_BYTES / ((size_t)a.T * a.head_dim * 4));
    const int heads_together = fit >= a.heads ? a.heads : fit > 1 ? (int)fit : 1;
    const int64_t n_turns = (int64_t)a.n_pieces * a.heads;
    const int64_t most = (int64_t)c->n_multiprocessors * S::blocks;
    return launch_overlapped(c, wgmma_kernel<E, S>,
                             {n_turns < most ? n_turns : most, S::threads, bytes, 0}, "attention",
                             e, a, heads_together, maps);
}

template <typename E, int HD>
static enum err_code wgmma_launch_rows(struct cuda_kern *c, const struct attention_args &a,
                                       struct err *e)
{
    if (a.piece_rows > GROUP_ROWS)
        return wgmma_launch<E, wgmma_shape<HD, groups_choose(HD, true)>>(c, a, e);
    return wgmma_launch<E, wgmma_shape<HD, groups_choose(HD, false)>>(c, a, e);
}

template <typename E>
static enum err_code attention_wgmma(struct cuda_kern *c, const struct attention_args &a,
                                     struct err *e)
{
    switch (a.head_dim) {
#define HEAD_CASE(hd)                                                                              \
    case hd:                                                                                       \
        return wgmma_launch_rows<E, hd>(c, a, e);
        WGMMA_HEADS(HEAD_CASE)
#undef HEAD_CASE
    }
    return err_set(e, ERR_UNSUPPORTED, "attention heads of %d dimensions", a.head_dim);
}

#endif
