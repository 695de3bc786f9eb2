/* The head's product with an ending that keeps, of every row and tile, the largest logit and the sum of the others
 * relative to it, and of every target its logit:
 *
 *   c = max log2 e (rounded),  s = sum of 2^(logit log2 e - c)      of a tile
 *   log sum e^logit = (C + log2 (sum of s 2^(c - C))) / log2 e      of a row, C the largest c
 *
 * A target is the arg max if it has the row's maximum and no smaller id has: none in its tile, which the ending looks up,
 * and none in an earlier tile, as the first tile with the maximum is the target's.
 *
 * A row's tiles are folded run by run, and the runs one behind the other. A run starts at every multiple of HEAD_STEP, where
 * parts of a head start too: between two parts a row is its state, and the sums are those of the whole head. */
#include "kernels/cuda/gemm_act.cuh"
#include "kernels/cuda/gemm_head.cuh"
#include "kernels/cuda/gemm_kernel.cuh"

static constexpr int HEAD_COLS = 192, HEAD_STAGES = 5, THREADS = 256;
static constexpr int64_t HEAD_STAY_BYTES = (int64_t)16 << 20; /* as in gemm_operands */

/* One row, one tile. */
struct head_partial {
    float max, sum;
};

struct head_ending_args {
    struct head_partial *partials; /* [tiles][rows] */
    int rows;
    int from;                     /* entry of the vocabulary in the product's first column */
    const int32_t *first, *token; /* of the product's rows, as in cuda_head_args */
    struct head_target *targets;
};

/* A tile's row of floats for every warp, where targets are looked up. */
using head_layout =
    gemm_layout<HEAD_COLS, HEAD_STAGES, false, false, 0, GROUP_SIZE / WARP * HEAD_COLS * 4>;

#if GEMM_HAS_HOPPER

/* Of the warp's row that the lane stands for, lanes 0 to 15: what is left of its targets, and the next one's token or -1. */
struct head_queue {
    int next, end, token;
};

static __device__ __forceinline__ void head_queue_step(struct head_queue *q, const int32_t *tokens)
{
    q->next++;
    q->token = q->next < q->end ? tokens[q->next] : -1;
}

/* Values of the lane's row in the upper (H = 0) or lower half of the warp's 16. */
template <int H, int N>
static __device__ __forceinline__ void head_row_write(float *to, const float (&d)[N])
{
#pragma unroll
    for (int j = 0; j < N / 4; j++)
        *reinterpret_cast<float2 *>(to + j * 8) =
            make_float2(d[4 * j + 2 * H], d[4 * j + 2 * H + 1]);
}

/* Logit of a target in column `place` of the warp's row `row`. All lanes. */
template <int N>
static __device__ __forceinline__ void head_find(const float (&d)[N], int row, int place,
                                                 float *room, struct head_target *out)
{
    const int lane = threadIdx.x % WARP;
    bool is_found = false;
    __syncwarp();
    if (lane / 4 == row % 8) {
        if (row < 8)
            head_row_write<0>(room + lane % 4 * 2, d);
        else
            head_row_write<1>(room + lane % 4 * 2, d);
    }
    __syncwarp();
    const float logit = room[place];
    for (int col = lane; col < place; col += WARP)
        is_found = is_found || room[col] == logit;
    is_found = __any_sync(ALL_LANES, is_found);
    if (lane == 0) {
        out->logit = logit;
        out->is_first = !is_found;
    }
}

/* Maximum and sum of one of the lane's rows, over the four lanes that share it. */
template <int H, int N>
static __device__ __forceinline__ struct head_partial head_fold(const float (&d)[N])
{
    float most[4] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY}, sum[4] = {};
#pragma unroll
    for (int j = 0; j < N / 4; j++)
#pragma unroll
        for (int i = 0; i < 2; i++)
            most[j % 2 * 2 + i] = fmaxf(most[j % 2 * 2 + i], d[4 * j + 2 * H + i]);
    float max = fmaxf(fmaxf(most[0], most[1]), fmaxf(most[2], most[3]));
    max = fmaxf(max, __shfl_xor_sync(ALL_LANES, max, 1));
    max = fmaxf(max, __shfl_xor_sync(ALL_LANES, max, 2));
    const float c = __fmul_rn(max, LOG2_E);
#pragma unroll
    for (int j = 0; j < N / 4; j++)
#pragma unroll
        for (int i = 0; i < 2; i++)
            sum[j % 2 * 2 + i] += exp2_fast(fmaf(d[4 * j + 2 * H + i], LOG2_E, -c));
    float all = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    all += __shfl_xor_sync(ALL_LANES, all, 1);
    all += __shfl_xor_sync(ALL_LANES, all, 2);
    return {max, all};
}

struct head_ending {
    using args = struct head_ending_args;
    const args &a;
    int T, N, row, col; /* the warp's first row, the tile's first column */
    float *room;
    struct head_queue queues[GEMM_BLOCKS];

    __device__ __forceinline__ head_ending(const args &ending, const struct gemm_grid &grid,
                                           const struct gemm_place &at,
                                           const gemm_shared<head_layout> &s, int group)
        : a(ending), T(grid.T), N(grid.N), col(at.col)
    {
        const int lane = threadIdx.x % WARP, warp = threadIdx.x % GROUP_SIZE / WARP;
        row = at.row + warp * (BLOCK_ROWS / 4);
        room = (float *)__cvta_shared_to_generic(s.other(group)) + warp * HEAD_COLS;
#pragma unroll
        for (int b = 0; b < GEMM_BLOCKS; b++) {
            const int mine = row + b * BLOCK_ROWS + lane;
            queues[b] = {-1, 0, -1};
            if (lane < BLOCK_ROWS / 4 && mine < T) {
                queues[b] = {a.first[mine] - 1, a.first[mine + 1], -1};
                head_queue_step(&queues[b], a.token);
            }
        }
    }

    __device__ __forceinline__ void partial_store(const struct head_partial &p, int at)
    {
        if (threadIdx.x % 4 == 0 && at < T)
            a.partials[(int64_t)(col / HEAD_COLS) * a.rows + at] = p;
    }

    template <int N_SUMS>
    __device__ __forceinline__ void targets_find(const float (&d)[N_SUMS], struct head_queue q)
    {
        while (__any_sync(ALL_LANES, q.token >= 0)) {
            const int place = q.token - a.from - col;
            unsigned hits =
                __ballot_sync(ALL_LANES, q.token >= 0 && place >= 0 && place < HEAD_COLS);
            for (; hits != 0; hits &= hits - 1) {
                const int r = __ffs((int)hits) - 1;
                const int target = __shfl_sync(ALL_LANES, q.next, r);
                head_find(d, r, __shfl_sync(ALL_LANES, place, r), room, a.targets + target);
            }
            head_queue_step(&q, a.token);
        }
    }

    template <int N_SUMS> __device__ __forceinline__ void finish(float (&d)[GEMM_BLOCKS][N_SUMS])
    {
        const int lane = threadIdx.x % WARP;
        if (col >= N)
            return;
#pragma unroll
        for (int b = 0; b < GEMM_BLOCKS; b++) {
            const int at = row + b * BLOCK_ROWS + lane / 4;
            if (col + HEAD_COLS > N) /* there is nothing behind the vocabulary */
#pragma unroll
                for (int i = 0; i < N_SUMS; i++)
                    d[b][i] = col + i / 4 * 8 + lane % 4 * 2 + i % 2 < N ? d[b][i] : -INFINITY;
            partial_store(head_fold<0>(d[b]), at);
            partial_store(head_fold<1>(d[b]), at + 8);
            targets_find(d[b], queues[b]);
        }
    }

    static __device__ __forceinline__ void drain(void)
    {
    }
};

#else

struct head_ending {
    using args = struct head_ending_args;
};

#endif /* GEMM_HAS_HOPPER */

/* ---- folding the partials of a row ---- */

/* What a sum relative to maximum `from` is worth relative to `to`. */
static __device__ __forceinline__ double head_factor(float from, float to)
{
    return from == to ? 1.0 : (double)exp2_fast(__fmul_rn(from, LOG2_E) - __fmul_rn(to, LOG2_E));
}

static __device__ __forceinline__ void head_state_add(struct head_state *s, float max, double sum,
                                                      int tile)
{
    if (max > s->max) {
        s->sum = s->sum * head_factor(s->max, max) + sum;
        s->max = max;
        s->tile = tile;
    } else {
        s->sum += sum * head_factor(max, s->max);
    }
}

/* A block takes 32 rows, its warps a run of their tiles each, time after time. */
static constexpr int FOLD_ROWS = WARP, FOLD_WARPS = 16, FOLD_RUN = HEAD_STEP / HEAD_COLS;
static_assert(HEAD_STEP % head_layout::cols_of_cluster == 0, "a part starts with whole clusters");

/* Tiles of a product: `first` of the vocabulary's and those behind it; their partials, [n][ld]. */
struct head_tiles {
    const struct head_partial *partials;
    int ld, first, n;
};

/* The run of one row from the product's tile `begin` on. */
static __device__ __forceinline__ struct head_state head_fold_run(const struct head_tiles &t,
                                                                  int row, int begin)
{
    struct head_state s = {-INFINITY, 0, 0.0};
    const int end = min(begin + FOLD_RUN, t.n);
#pragma unroll 4
    for (int i = begin; i < end; i++) {
        const struct head_partial p = t.partials[(int64_t)i * t.ld + row];
        head_state_add(&s, p.max, p.sum, t.first + i);
    }
    return s;
}

static __global__ void __launch_bounds__(FOLD_ROWS *FOLD_WARPS)
    head_fold_kernel(struct head_state *states, struct head_tiles t, int n_rows)
{
    __shared__ struct head_state runs[FOLD_WARPS][FOLD_ROWS];
    const int x = threadIdx.x % FOLD_ROWS, y = threadIdx.x / FOLD_ROWS;
    const int row = blockIdx.x * FOLD_ROWS + x;
    struct head_state s = {-INFINITY, 0, 0.0};
    if (y == 0 && row < n_rows && t.first > 0)
        s = states[row];
    for (int begin = 0; begin < t.n; begin += FOLD_WARPS * FOLD_RUN) {
        const int mine = begin + y * FOLD_RUN, n = (t.n - begin + FOLD_RUN - 1) / FOLD_RUN;
        if (row < n_rows && y < n)
            runs[y][x] = head_fold_run(t, row, mine);
        __syncthreads();
        for (int i = 0; y == 0 && row < n_rows && i < min(n, FOLD_WARPS); i++)
            head_state_add(&s, runs[i][x].max, runs[i][x].sum, runs[i][x].tile);
        __syncthreads();
    }
    if (y == 0 && row < n_rows)
        states[row] = s;
}

static __global__ void head_answer_kernel(struct head_answer *out, const struct head_state *states,
                                          const struct head_target *targets, const int32_t *row,
                                          const int32_t *token, int64_t n)
{
    const int64_t i = grid_thread();
    if (i >= n)
        return;
    const struct head_state s = states[row[i]];
    const struct head_target t = targets[i];
    const double log_sum = ((double)__fmul_rn(s.max, LOG2_E) + log2(s.sum)) / (double)LOG2_E;
    out[i].logprob = (float)((double)t.logit - log_sum);
    out[i].is_top = t.is_first && t.logit == s.max && s.tile == token[i] / HEAD_COLS;
}

/* ---- host ---- */

static const char what_head[] = "log-likelihoods";
static constexpr int64_t PARTIALS_MOST =
    6 << 20; /* 48 MiB: they stay in the cache until they are folded */

/* Rows of one product: few enough for the partials, whole clusters of tiles. */
static int64_t rows_at_once(int64_t R, int64_t N)
{
    const int64_t step = 2 * GEMM_ROWS, most = PARTIALS_MOST / ceil_div(N, HEAD_COLS) / step * step;
    return min(R, max(most, step));
}

bool cuda_head_can(const struct cuda_kern *c, const void *x, const void *head, int64_t d)
{
    return gemm_can(c, x, head, d);
}

size_t cuda_head_scratch(int64_t R, int64_t N)
{
    return (size_t)(ceil_div(N, HEAD_COLS) * rows_at_once(R, N)) * sizeof(struct head_partial);
}

static enum err_code product_start(struct cuda_kern *c, const struct gemm_operands *o,
                                   const struct head_ending_args *a, struct err *e)
{
    gemm_params<struct head_ending_args> p;
    p.ending = *a;
    if (c->compute == KERN_BF16)
        return gemm_launch<__nv_bfloat16, head_layout, head_ending>(c, &p, o, what_head, e);
    return gemm_launch<__half, head_layout, head_ending>(c, &p, o, what_head, e);
}

/* All entries for `n` rows from `row` on. */
static enum err_code rows_fold(struct cuda_kern *c, const struct cuda_head_args *a, int64_t row,
                               int64_t n, struct err *e)
{
    struct head_partial *partials = (struct head_partial *)a->scratch;
    const char *x = (const char *)a->x + row * a->d * c->base.info.act_bytes;
    const struct gemm_operands o = {x, a->head, n, a->N, a->d, HEAD_STAY_BYTES};
    const struct head_ending_args ending = {partials,       (int)n,   (int)a->from,
                                            a->first + row, a->token, a->targets};
    const struct head_tiles tiles = {partials, (int)n, (int)(a->from / HEAD_COLS),
                                     (int)ceil_div(a->N, HEAD_COLS)};
    TRY(product_start(c, &o, &ending, e));
    head_fold_kernel<<<(unsigned)ceil_div(n, FOLD_ROWS), FOLD_ROWS * FOLD_WARPS, 0, c->stream>>>(
        a->states + row, tiles, (int)n);
    return cuda_launched(what_head, e);
}

enum err_code cuda_head(struct cuda_kern *c, const struct cuda_head_args *a, struct err *e)
{
    const int64_t at_once = rows_at_once(a->R, a->N);
    CHECK(a->from % HEAD_STEP == 0);
    for (int64_t row = 0; row < a->R; row += at_once)
        TRY(rows_fold(c, a, row, min(at_once, a->R - row), e));
    if (a->answers == NULL)
        return ERR_OK;
    head_answer_kernel<<<grid_for(a->n, THREADS), THREADS, 0, c->stream>>>(
        a->answers, a->states, a->targets, a->row, a->token, a->n);
    return cuda_launched(what_head, e);
}
