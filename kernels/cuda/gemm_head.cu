/* The head's product with an ending that keeps, of every row and tile, the largest logit and the sum of the others
 * relative to it, and of every target its logit:
 *
 *   c = max log2 e (rounded),  s = sum of 2^(logit log2 e - c)      of a tile
 *   log sum e^logit = (C + log2 (sum of s 2^(c - C))) / log2 e      of a row, C the largest c
 *
 * A target is the arg max if it has the row's maximum and no smaller id has: none in its tile, which the ending looks up,
 * and none in an earlier tile, as the first tile with the maximum is the target's. */
#include "kernels/cuda/gemm_act.cuh"
#include "kernels/cuda/gemm_head.cuh"
#include "kernels/cuda/gemm_kernel.cuh"

static constexpr int HEAD_COLS = 192, HEAD_STAGES = 5, HEAD_GROUP = 16, THREADS = 256;
static constexpr float LOG2_E = 1.44269504F;

/* One row, one tile. */
struct head_partial {
    float max, sum;
};

struct head_target {
    float logit;
    int32_t is_first; /* no smaller id of its tile has the same */
};

struct head_ending_args {
    struct head_partial *partials; /* [tiles][rows] */
    int rows;
    const int32_t *first, *token; /* of the product's rows, as in cuda_head_args */
    struct head_target *targets;
};

/* A tile's row of floats for every warp, where targets are looked up. */
using head_layout =
    gemm_layout<HEAD_COLS, HEAD_STAGES, false, 0, GROUP_SIZE / WARP * HEAD_COLS * 4>;

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
            const int place = q.token - col;
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

struct head_row {
    double log_sum;
    float max;
    int32_t tile; /* the first with this maximum */
};

/* So far, over tiles in ascending order. */
struct head_state {
    float max;
    int32_t tile;
    double sum;
};

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

/* A block takes 32 rows, a warp a range of their tiles. */
static constexpr int FOLD_ROWS = WARP, FOLD_RANGES = 16;

static __global__ void __launch_bounds__(FOLD_ROWS *FOLD_RANGES)
    head_fold_kernel(struct head_row *out, const struct head_partial *partials, int ld, int n_tiles,
                     int n_rows)
{
    __shared__ struct head_state states[FOLD_RANGES][FOLD_ROWS];
    const int x = threadIdx.x % FOLD_ROWS, y = threadIdx.x / FOLD_ROWS;
    const int row = blockIdx.x * FOLD_ROWS + x, length = (n_tiles + FOLD_RANGES - 1) / FOLD_RANGES;
    struct head_state s = {-INFINITY, 0, 0.0};
    if (row < n_rows) {
        const int end = min((y + 1) * length, n_tiles);
#pragma unroll 4
        for (int i = y * length; i < end; i++) {
            const struct head_partial p = partials[(int64_t)i * ld + row];
            head_state_add(&s, p.max, p.sum, i);
        }
    }
    states[y][x] = s;
    __syncthreads();
    if (y > 0 || row >= n_rows)
        return;
    for (int i = 1; i < FOLD_RANGES; i++)
        if (i * length < n_tiles)
            head_state_add(&s, states[i][x].max, states[i][x].sum, states[i][x].tile);
    out[row].log_sum = ((double)__fmul_rn(s.max, LOG2_E) + log2(s.sum)) / (double)LOG2_E;
    out[row].max = s.max;
    out[row].tile = s.tile;
}

static __global__ void head_answer_kernel(struct head_answer *out, const struct head_row *rows,
                                          const struct head_target *targets, const int32_t *row,
                                          const int32_t *token, int64_t n)
{
    const int64_t i = grid_thread();
    if (i >= n)
        return;
    const struct head_row r = rows[row[i]];
    const struct head_target t = targets[i];
    out[i].logprob = (float)((double)t.logit - r.log_sum);
    out[i].is_top = t.is_first && t.logit == r.max && r.tile == token[i] / HEAD_COLS;
}

/* ---- host ---- */

static const char what_head[] = "log-likelihoods";
static constexpr int64_t PARTIALS_MOST =
    6 << 20; /* 48 MiB: they stay in the cache until they are folded */

/* Rows of one product: few enough for the partials, whole clusters of tiles. */
static int64_t rows_at_once(int64_t R, int64_t V)
{
    const int64_t step = 2 * GEMM_ROWS, most = PARTIALS_MOST / ceil_div(V, HEAD_COLS) / step * step;
    return min(R, max(most, step));
}

bool cuda_head_can(const struct cuda_kern *c, const void *x, const void *head, int64_t d)
{
    return gemm_can(c, x, head, d);
}

size_t cuda_head_bytes(int64_t R, int64_t V, int64_t n)
{
    return (size_t)(ceil_div(V, HEAD_COLS) * rows_at_once(R, V)) * sizeof(struct head_partial) +
           (size_t)R * sizeof(struct head_row) + (size_t)n * sizeof(struct head_target);
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

enum err_code cuda_head(struct cuda_kern *c, const struct cuda_head_args *a, struct err *e)
{
    const int64_t at_once = rows_at_once(a->R, a->V), n_tiles = ceil_div(a->V, HEAD_COLS);
    struct head_row *rows = (struct head_row *)a->scratch;
    struct head_target *targets = (struct head_target *)(rows + a->R);
    struct head_ending_args ending = {(struct head_partial *)(targets + a->n), (int)at_once, NULL,
                                      a->token, targets};
    for (int64_t row = 0; row < a->R; row += at_once) {
        const int64_t n = min(at_once, a->R - row);
        const char *x = (const char *)a->x + row * a->d * c->base.info.act_bytes;
        const struct gemm_operands o = {x, a->head, n, a->V, a->d, HEAD_GROUP};
        ending.first = a->first + row;
        TRY(product_start(c, &o, &ending, e));
        head_fold_kernel<<<(unsigned)ceil_div(n, FOLD_ROWS), FOLD_ROWS * FOLD_RANGES, 0,
                           c->stream>>>(rows + row, ending.partials, (int)at_once, (int)n_tiles,
                                        (int)n);
        TRY(cuda_launched(what_head, e));
    }
    head_answer_kernel<<<grid_for(a->n, THREADS), THREADS, 0, c->stream>>>(
        a->answers, rows, targets, a->row, a->token, a->n);
    return cuda_launched(what_head, e);
}
