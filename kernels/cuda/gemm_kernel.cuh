/* A product y[T, N] = x[T, K] w[N, K]^T that hands its sums, still in registers and fp32, to an ending of one's choice: an
 * activation, or statistics of the row. Nobody waits for it: the ending of one tile runs beside the products of the next,
 * and costs its instructions (docs/CUDA.md). For Hopper and 16-bit types; K in steps of 64, behind which the copier fills with zeros.
 *
 *      producer        one thread: boxes of x and w into a ring of stages
 *      warpgroup 0     tile 0: products | ending          tile 2: products | ...
 *      warpgroup 1                 (waits its turn) tile 1: products | ending
 *
 * A tile is 128 rows and `cols` columns, one warpgroup's: two sums of 64 rows. Blocks form clusters of two, which work on
 * neighbouring tiles and bring each other the half of what both read. Every cluster walks over its share of the tiles in an
 * order that keeps rows of w in its side of the second-level cache (gemm_order.h). A sum runs over k in ascending order wherever its
 * tile lies: equal rows of w give equal bits. */
#ifndef ISOBIT_KERNELS_CUDA_GEMM_KERNEL_CUH
#define ISOBIT_KERNELS_CUDA_GEMM_KERNEL_CUH

#include "kernels/cuda/gemm_hopper.cuh"
#include "kernels/cuda/gemm_order.h"
#include "kernels/cuda/launch_cuda.cuh"

static constexpr int GEMM_K = PANEL_WIDTH; /* of a stage */
static constexpr int GEMM_BLOCKS = 2, GEMM_ROWS = GEMM_BLOCKS * BLOCK_ROWS;
static constexpr int GEMM_CLUSTER = 2;
static constexpr int GEMM_THREADS = 3 * GROUP_SIZE;

/* Columns of a tile, stages of the ring, whether the blocks of a cluster share rows of w (their tiles lie below each
 * other) or of x (side by side), whether copies tell the second-level cache that x passes and w stays for the next rows, and
 * what an ending has for a warpgroup in shared memory: panels, and other bytes. */
template <int COLS, int STAGES, bool IS_TALL, bool IS_HINTED, int PANELS, int BYTES>
struct gemm_layout {
    static constexpr int cols = COLS, stages = STAGES, panels = PANELS, other_bytes = BYTES;
    static constexpr bool is_tall = IS_TALL, is_hinted = IS_HINTED;
    static constexpr int sums = COLS / 2; /* registers for 64 rows */
    static constexpr int x_bytes = GEMM_ROWS * PANEL_ROW_BYTES, w_bytes = COLS * PANEL_ROW_BYTES;
    static constexpr int stage_bytes = x_bytes + w_bytes;
    /* Rows of the box that a block brings. */
    static constexpr int x_box = GEMM_ROWS / (IS_TALL ? 1 : GEMM_CLUSTER);
    static constexpr int w_box = COLS / (IS_TALL ? GEMM_CLUSTER : 1);
    static constexpr int rows_of_cluster = GEMM_ROWS * (IS_TALL ? GEMM_CLUSTER : 1);
    static constexpr int cols_of_cluster = COLS * (IS_TALL ? 1 : GEMM_CLUSTER);
    static constexpr int panels_at = STAGES * stage_bytes;
    static constexpr int other_at = panels_at + 2 * PANELS * PANEL_BYTES;
    static constexpr int barriers_at = other_at + 2 * BYTES;
    /* Barriers: of every stage full and empty, and the turns. Behind them the seat; room to align. */
    static constexpr int seat_at = barriers_at + (2 * STAGES + 2) * 8;
    static constexpr int bytes = seat_at + 8 + 1024;
    static_assert(bytes <= 227 << 10, "more shared memory than there is");
    static_assert(BYTES % 16 == 0, "barriers are aligned");
};

/* Which tiles there are, and who takes them. */
struct gemm_grid {
    int T, N, k_steps;
    struct gemm_order order;
    uint32_t second[SIDES_MOST / 32]; /* as in struct sides, where there are seats */
    int32_t *seats;                   /* [2]: taken at each side; NULL with one side */
    int32_t *next_seats;              /* of the next product with two sides */
};

/* Of a cluster: its side, and its number among the clusters there. */
struct gemm_seat {
    int side, number;
};

/* Of the matrix: the first row and column of a tile. */
struct gemm_place {
    int row, col;
};

/* What a kernel is given; an ending's own part in E. */
template <typename A> struct gemm_params {
    CUtensorMap x, w;
    struct gemm_grid grid;
    A ending;
};

#if GEMM_HAS_HOPPER

template <class L>
static __device__ __forceinline__ struct gemm_place gemm_place_of(const struct gemm_grid &g,
                                                                  int side, int i)
{
    const int rank = cluster_rank();
    const struct gemm_order_place of_cluster = gemm_order_at(&g.order, side, i);
    struct gemm_place p = {of_cluster.row * L::rows_of_cluster,
                           of_cluster.col * L::cols_of_cluster};
    p.row += L::is_tall ? rank * GEMM_ROWS : 0;
    p.col += L::is_tall ? 0 : rank * L::cols;
    return p;
}

/* Addresses in shared memory. */
template <class L> struct gemm_shared {
    uint32_t start;
    __device__ uint32_t stage(int i) const
    {
        return start + i * L::stage_bytes;
    }
    __device__ uint32_t panels(int group) const
    {
        return start + L::panels_at + group * L::panels * PANEL_BYTES;
    }
    __device__ uint32_t other(int group) const
    {
        return start + L::other_at + group * L::other_bytes;
    }
    __device__ uint32_t full(int i) const
    {
        return start + L::barriers_at + i * 8;
    }
    __device__ uint32_t empty(int i) const
    {
        return full(L::stages + i);
    }
    __device__ uint32_t turn(int group) const
    {
        return full(2 * L::stages + group);
    }
    __device__ uint32_t seat(void) const
    {
        return start + L::seat_at;
    }
};

/* Takes the next seat on the side where the cluster is, or on the other when all there are taken. Whoever sits first frees the
 * seats of the next product, which comes when all have taken theirs. One thread of the first block. */
static __device__ __forceinline__ void gemm_seat_take(const struct gemm_grid &g, uint32_t at)
{
    uint32_t number;
    asm("mov.u32 %0, %%smid;" : "=r"(number));
    struct gemm_seat seat = {(int)(g.second[number / 32 % (SIDES_MOST / 32)] >> number % 32 & 1),
                             0};
    seat.number = atomicAdd(g.seats + seat.side, 1);
    if (seat.number >= g.order.n_clusters[seat.side]) {
        seat.side ^= 1;
        seat.number = atomicAdd(g.seats + seat.side, 1);
    }
    if (seat.side == 0 && seat.number == 0) {
        g.next_seats[0] = g.next_seats[1] = 0;
        __threadfence();
    }
    word_store(at, (uint32_t)seat.side);
    word_store(at + 4, (uint32_t)seat.number);
}

/* The seat that the first block took; where nobody takes any, clusters sit as they are numbered. */
static __device__ __forceinline__ struct gemm_seat gemm_seat_of(const struct gemm_grid &g,
                                                                uint32_t at)
{
    if (g.seats == NULL)
        return {0, (int)blockIdx.x / GEMM_CLUSTER};
    return {of_warp((int)word_load_at(at, 0)), of_warp((int)word_load_at(at + 4, 0))};
}

/* A position in the ring, and the parity that its barriers have there. */
template <class L> struct gemm_ring {
    int stage;
    unsigned parity;
    __device__ void step(void)
    {
        if (++stage == L::stages) {
            stage = 0;
            parity ^= 1U;
        }
    }
};

/* One thread brings all stages of all tiles of the block; the half that the other block reads too goes to both. */
template <class L, typename A>
static __device__ __forceinline__ void gemm_produce(const gemm_params<A> &p,
                                                    const gemm_shared<L> &s, struct gemm_seat seat)
{
    const int rank = cluster_rank();
    const uint16_t both = (1 << GEMM_CLUSTER) - 1;
    const uint64_t of_x = L::is_hinted ? cache_pass() : cache_normal(),
                   of_w = L::is_hinted ? cache_keep() : cache_normal();
    gemm_ring<L> ring = {0, 1};
    for (int i = seat.number; i < p.grid.order.n[seat.side];
         i += p.grid.order.n_clusters[seat.side]) {
        const struct gemm_place at = gemm_place_of<L>(p.grid, seat.side, i);
        for (int k = 0; k < p.grid.k_steps; k++, ring.step()) {
            const uint32_t x = s.stage(ring.stage), w = x + L::x_bytes, full = s.full(ring.stage);
            barrier_wait(s.empty(ring.stage), ring.parity);
            barrier_expect(full, L::stage_bytes);
            if (L::is_tall) {
                box_load_hinted(x, &p.x, k * GEMM_K, at.row, full, of_x);
                box_load_shared(w + rank * L::w_box * PANEL_ROW_BYTES, &p.w, k * GEMM_K,
                                at.col + rank * L::w_box, full, both, of_w);
            } else {
                box_load_shared(x + rank * L::x_box * PANEL_ROW_BYTES, &p.x, k * GEMM_K,
                                at.row + rank * L::x_box, full, both, of_x);
                box_load_hinted(w, &p.w, k * GEMM_K, at.col, full, of_w);
            }
        }
    }
}

/* Sums of one tile from `ring` on. A stage goes back to both blocks when the products of the next have begun. */
template <typename E, class L>
static __device__ __forceinline__ void gemm_sum(float (&d)[GEMM_BLOCKS][L::sums], int k_steps,
                                                const gemm_shared<L> &s, gemm_ring<L> ring,
                                                uint32_t next_turn)
{
    const unsigned thread = threadIdx.x % GROUP_SIZE;
    int before = ring.stage;
    for (int k = 0; k < k_steps; k++, ring.step()) {
        const uint64_t x = panel_descriptor(s.stage(ring.stage)), w = x + (L::x_bytes >> 4);
        barrier_wait(s.full(ring.stage), ring.parity);
        products_begin();
#pragma unroll
        for (int at = 0; at < PANEL_ROW_BYTES; at += 32)
#pragma unroll
            for (int b = 0; b < GEMM_BLOCKS; b++)
                product<E, L::cols>::add(d[b], x + ((b * PANEL_BYTES + at) >> 4), w + (at >> 4),
                                         k > 0 || at > 0);
        products_commit();
        products_wait<1>();
        if (k > 0 && thread < GEMM_CLUSTER)
            barrier_arrive_at(s.empty(before), thread);
        before = ring.stage;
    }
    if (thread == 0)
        barrier_arrive(next_turn);
    products_wait<0>();
    if (thread < GEMM_CLUSTER)
        barrier_arrive_at(s.empty(before), thread);
}

/* Every other tile that the cluster takes, with an ending each. The turn keeps a warpgroup from waiting for stages while they belong
 * to the other's tile, whose parities it could not tell from its own. */
template <typename E, class L, class Ending>
static __device__ __forceinline__ void gemm_consume(const gemm_params<typename Ending::args> &p,
                                                    const gemm_shared<L> &s, struct gemm_seat seat,
                                                    int group)
{
    const int k_steps = p.grid.k_steps, n_clusters = p.grid.order.n_clusters[seat.side];
    float d[GEMM_BLOCKS][L::sums];
    int step = group * k_steps;
    unsigned turn = group == 0;
    for (int i = seat.number + group * n_clusters; i < p.grid.order.n[seat.side];
         i += 2 * n_clusters, step += 2 * k_steps, turn ^= 1U) {
        Ending ending(p.ending, p.grid, gemm_place_of<L>(p.grid, seat.side, i), s, group);
        barrier_wait(s.turn(group), turn);
        gemm_sum<E, L>(d, k_steps, s, {step % L::stages, (unsigned)(step / L::stages) % 2U},
                       s.turn(1 - group));
        ending.finish(d);
    }
    Ending::drain();
}

template <class L>
static __device__ __forceinline__ void gemm_barriers_init(const gemm_shared<L> &s)
{
    for (int i = 0; i < L::stages; i++) {
        barrier_init(s.full(i), 1);
        barrier_init(s.empty(i), GEMM_CLUSTER);
    }
    barrier_init(s.turn(0), 1);
    barrier_init(s.turn(1), 1);
    barriers_publish();
}

#endif /* GEMM_HAS_HOPPER */

/* An ending is a class with `args`, made before the products of its tile (what it must read can come meanwhile) and
 * finished with their sums; drain waits for what it left under way. */
template <typename E, class L, class Ending>
static __global__ void __launch_bounds__(GEMM_THREADS, 1)
    gemm_kernel(const __grid_constant__ gemm_params<typename Ending::args> p)
{
#if GEMM_HAS_HOPPER
    extern __shared__ uint8_t shared[];
    const gemm_shared<L> s = {(shared_address(shared) + 1023U) & ~1023U};
    const int group = of_warp((int)threadIdx.x / GROUP_SIZE);
    if (threadIdx.x == 0) {
        gemm_barriers_init<L>(s);
        if (p.grid.seats != NULL && cluster_rank() == 0)
            gemm_seat_take(p.grid, s.seat());
    }
    cluster_sync();
    launch_wait();
    launch_next();
    const struct gemm_seat seat = gemm_seat_of(p.grid, s.seat());
    if (group == 0) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;"); /* the sums need them */
        if (threadIdx.x == 0)
            gemm_produce<L>(p, s, seat);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
        gemm_consume<E, L, Ending>(p, s, seat, group - 1);
    }
    cluster_sync(); /* the other block may still write here */
#else
    (void)p;
    __trap(); /* gemm_can lets no other device come here */
#endif
}

/* ---- host ---- */

/* Rows of a matrix are multiples of 16 bytes long, so that the copier can reach them. */
static inline bool gemm_can(const struct cuda_kern *c, const void *x, const void *w, int64_t K)
{
    return c->encode_map != NULL && c->compute != KERN_FP32 && K % 8 == 0 &&
           (uintptr_t)x % 16 == 0 && (uintptr_t)w % 16 == 0;
}

/* What is multiplied; bytes of w that stay in a side of the second-level cache. */
struct gemm_operands {
    const void *x, *w;
    int64_t T, N, K, stay;
};

/* Both sides have columns of their own where all multiprocessors work and one side cannot keep w. */
template <class L>
static void gemm_grid_make(const struct cuda_kern *c, const struct gemm_operands *o,
                           struct gemm_grid *g)
{
    struct gemm_order *r = &g->order;
    const int all = c->n_multiprocessors / GEMM_CLUSTER;
    const int64_t fit = o->stay / (L::cols_of_cluster * 2 * o->K);
    g->T = (int)o->T;
    g->N = (int)o->N;
    g->k_steps = (int)ceil_div(o->K, GEMM_K);
    r->rows = (int)ceil_div(o->T, L::rows_of_cluster);
    r->cols = (int)ceil_div(o->N, L::cols_of_cluster);
    const bool has_two = c->sides.n[1] > 0 && r->rows * r->cols >= all && r->cols > fit;
    r->n_clusters[1] = has_two ? c->sides.n[1] / GEMM_CLUSTER : 0;
    r->n_clusters[0] = min(all, r->rows * r->cols) - r->n_clusters[1];
    r->group = gemm_order_group(r->cols, all, has_two ? 2 : 1, fit);
    gemm_order_make(r);
    g->seats = g->next_seats = NULL;
    if (has_two) {
        memcpy(g->second, c->sides.second, sizeof g->second);
        g->seats = c->seats + 2 * c->seats_turn;
        g->next_seats = c->seats + 2 * (1 - c->seats_turn);
    }
}

/* Starts the product; p->ending is filled. */
template <typename E, class L, class Ending>
static enum err_code gemm_launch(struct cuda_kern *c, gemm_params<typename Ending::args> *p,
                                 const struct gemm_operands *o, const char *what, struct err *e)
{
    const auto kernel = gemm_kernel<E, L, Ending>;
    TRY(panel_map(c, &p->x, o->x, o->T, o->K, L::x_box, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, e));
    TRY(panel_map(c, &p->w, o->w, o->N, o->K, L::w_box, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, e));
    gemm_grid_make<L>(c, o, &p->grid);
    const int64_t n_clusters = p->grid.order.n_clusters[0] + p->grid.order.n_clusters[1];
    TRY(launch_overlapped(
        c, kernel, {n_clusters * GEMM_CLUSTER, GEMM_THREADS, L::bytes, GEMM_CLUSTER}, what, e, *p));
    if (p->grid.seats != NULL)
        c->seats_turn = 1 - c->seats_turn;
    return ERR_OK;
}

#endif
