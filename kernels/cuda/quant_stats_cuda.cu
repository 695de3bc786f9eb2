/* Exact statistics of fp16 tensors on the GPU: the order statistics behind quantile codebooks and the rank keys behind outlier
 * columns (quantization spec, sections 2.4 and 6). Integers only, so that the order of adding does not matter. */
#include <inttypes.h>
#include <string.h>

#include "kernels/cuda/quant_source.cuh"
#include "kernels/quant_check.h"

static constexpr int THREADS = 256, BINS = 65536;

/* ---- histogram ---- */

/* Counters of 16 bits, two a word, 128 KiB a block: after ROUND weights none has overflown, and they are added to the
 * real ones. */
static constexpr int HIST_THREADS = 1024, ROUND = 65536 - HIST_THREADS;

static __global__ void __launch_bounds__(HIST_THREADS)
    histogram_kernel(unsigned long long *hist, struct quant_source s)
{
    extern __shared__ unsigned counters[]; /* [BINS / 2] */
    for (int i = threadIdx.x; i < BINS / 2; i += HIST_THREADS)
        counters[i] = 0;
    for (int64_t start = (int64_t)blockIdx.x * ROUND; start < s.n;
         start += (int64_t)gridDim.x * ROUND) {
        const int64_t end = start + ROUND < s.n ? start + ROUND : s.n;
        __syncthreads();
#pragma unroll 4
        for (int64_t i = start + threadIdx.x; i < end; i += HIST_THREADS) {
            const unsigned bits = source_at(s, i);
            atomicAdd(&counters[bits / 2], 1U << bits % 2 * 16);
        }
        __syncthreads();
        for (int i = threadIdx.x; i < BINS / 2; i += HIST_THREADS) {
            const unsigned both = counters[i];
            counters[i] = 0;
            if ((both & 0xffff) != 0)
                atomicAdd(&hist[2 * i], (unsigned long long)(both & 0xffff));
            if (both >> 16 != 0)
                atomicAdd(&hist[2 * i + 1], (unsigned long long)(both >> 16));
        }
    }
}

static enum err_code histogram_launch(struct cuda_kern *c, const struct quant_source *s,
                                      unsigned long long *hist, const char *what, struct err *e)
{
    const int bytes = BINS / 2 * (int)sizeof(unsigned);
    const int64_t rounds = ceil_div(s->n, ROUND);
    const int64_t blocks = rounds < c->n_multiprocessors ? rounds : c->n_multiprocessors;
    CUDA_TRY(cudaMemsetAsync(hist, 0, BINS * sizeof *hist, c->stream), what);
    CUDA_TRY(
        cudaFuncSetAttribute(histogram_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
        what);
    histogram_kernel<<<(unsigned)blocks, HIST_THREADS, bytes, c->stream>>>(hist, *s);
    return cuda_launched(what, e);
}

/* ---- order statistics ---- */

/* The finite numbers in ascending order, from the most negative one on, each with its bin. A team of threads has
 * neighbouring ones and reads them in steps of two a thread. */
static constexpr int FINITE = (int)F16_INFINITY, NUMBERS = 2 * FINITE;
static constexpr int ORDER_THREADS = 1024, TEAM = 4, TEAMS = ORDER_THREADS / TEAM;
static constexpr int TEAM_NUMBERS = NUMBERS / TEAMS, STEP = 2 * TEAM;
static_assert(TEAM_NUMBERS * TEAMS == NUMBERS && TEAM_NUMBERS % STEP == 0,
              "teams have whole steps");
static_assert(TEAMS >= KERN_RANKS, "a team finds one rank");
static_assert(ORDER_THREADS == 0x8000 - FINITE,
              "a thread looks at one bin of each sign that is not finite");

/* What the kernel writes, in pinned memory: nothing is left to copy once the stream is past it. */
struct quant_order {
    unsigned long long n_bad; /* weights that are not finite */
    float value[KERN_RANKS];
};

/* By value to the kernel. */
struct order_ranks {
    int64_t rank[KERN_RANKS];
    int n;
};

static __device__ __forceinline__ unsigned number_at(int i)
{
    return (unsigned)(i < FINITE ? 0x8000 + FINITE - 1 - i : i - FINITE);
}

/* How many weights are number i and number i + 1; i is even. */
struct bin_pair {
    unsigned long long first, second;
};

static __device__ __forceinline__ struct bin_pair bins_at(const unsigned long long *hist, int i)
{
    const unsigned bits = number_at(i); /* odd where bins descend */
    const ulonglong2 both = *(const ulonglong2 *)(hist + (bits & ~1U));
    return (bits & 1) != 0 ? bin_pair{both.y, both.x} : bin_pair{both.x, both.y};
}

/* Running sums of end[TEAMS], by all threads of the block. */
static __device__ void ends_sum(unsigned long long *end)
{
    const int i = threadIdx.x;
    for (int o = 1; o < TEAMS; o *= 2) {
        __syncthreads();
        const unsigned long long before = i >= o && i < TEAMS ? end[i - o] : 0;
        __syncthreads();
        if (i < TEAMS)
            end[i] += before;
    }
    __syncthreads();
}

/* Weights of the team's numbers, in all its threads. */
static __device__ unsigned long long team_count(const unsigned long long *hist, int team, int lane)
{
    unsigned long long n = 0;
#pragma unroll 8
    for (int i = 0; i < TEAM_NUMBERS; i += STEP) {
        const struct bin_pair p = bins_at(hist, team * TEAM_NUMBERS + i + 2 * lane);
        n += p.first + p.second;
    }
    for (int o = 1; o < TEAM; o *= 2)
        n += __shfl_xor_sync(ALL_LANES, n, o);
    return n;
}

/* The number of rank r; one thread of the team finds it and writes it to *out (NULL: to nowhere). end[TEAMS]: the ranks behind
 * the numbers of each team. */
static __device__ void rank_find(const unsigned long long *hist, const unsigned long long *end,
                                 unsigned long long r, int lane, float *out)
{
    int team = 0; /* whose numbers hold it */
    for (int step = TEAMS / 2; step > 0; step /= 2)
        team += end[team + step - 1] <= r ? step : 0;
    unsigned long long start = team > 0 ? end[team - 1] : 0; /* rank of the step's first */
#pragma unroll 4
    for (int i = 0; i < TEAM_NUMBERS; i += STEP) {
        const int at = team * TEAM_NUMBERS + i + 2 * lane;
        const struct bin_pair p = bins_at(hist, at);
        const unsigned long long both = p.first + p.second;
        unsigned long long sum = both; /* and those of the lanes before */
        for (int o = 1; o < TEAM; o *= 2) {
            const unsigned long long before = __shfl_up_sync(ALL_LANES, sum, o, TEAM);
            sum += lane >= o ? before : 0;
        }
        const unsigned long long first = start + sum - both;
        if (out != NULL && r >= first && r - first < both) {
            const unsigned bits = number_at(r - first < p.first ? at : at + 1);
            *out = (bits & F16_MAGNITUDE) != 0 ? f16_value(bits) : 0.0F;
        }
        start += __shfl_sync(ALL_LANES, sum, TEAM - 1, TEAM);
    }
}

/* One block. hist[BINS] counts n_kept weights as +0 that do not count. */
static __global__ void __launch_bounds__(ORDER_THREADS)
    order_kernel(struct quant_order *out, unsigned long long *hist, int64_t n_kept,
                 const __grid_constant__ struct order_ranks ranks)
{
    __shared__ unsigned long long end[TEAMS];
    __shared__ unsigned long long n_bad;
    const int i = threadIdx.x, team = i / TEAM, lane = i % TEAM;
    if (i == 0) {
        hist[0] -= (unsigned long long)n_kept;
        n_bad = 0;
    }
    __syncthreads();
    const unsigned long long bad = hist[FINITE + i] + hist[0x8000 + FINITE + i];
    if (bad != 0)
        atomicAdd(&n_bad, bad);
    const unsigned long long count = team_count(hist, team, lane);
    if (lane == 0)
        end[team] = count;
    ends_sum(end);
    if (i == 0)
        out->n_bad = n_bad;
    if (i / WARP * (WARP / TEAM) >= ranks.n) /* no team of this warp */
        return;
    const bool has_rank = team < ranks.n;
    rank_find(hist, end, has_rank ? (unsigned long long)ranks.rank[team] : 0, lane,
              has_rank ? &out->value[team] : NULL);
}

/* The scratch holds the means meanwhile, so that the counts have memory of their own. */
static enum err_code order_launch(struct cuda_kern *c, const struct quant_source *s, int64_t n_kept,
                                  const struct order_ranks *ranks, struct err *e)
{
    static const char what[] = "order statistics of weights";
    void *hist, *pinned = NULL;
    TRY(cuda_buffer_get(c, &c->counts, BINS * sizeof(unsigned long long), what, &hist, e));
    if (c->order == NULL) {
        CUDA_TRY(cudaHostAlloc(&pinned, sizeof *c->order, cudaHostAllocDefault), what);
        c->order = (struct quant_order *)pinned;
    }
    TRY(histogram_launch(c, s, (unsigned long long *)hist, what, e));
    order_kernel<<<1, ORDER_THREADS, 0, c->stream>>>(c->order, (unsigned long long *)hist, n_kept,
                                                     *ranks);
    return cuda_launched(what, e);
}

enum err_code cuda_order_statistics(struct kern *k, const struct kern_quant_args *a,
                                    const int64_t *rank, int n, float *value, struct err *e)
{
    struct cuda_kern *c = cuda_of(k);
    struct quant_setup s;
    struct order_ranks ranks = {};
    TRY(quant_setup_init(c, a, &s, e));
    enum err_code code = quant_check_ranks(a, rank, n, e); /* of a tensor whose shape is right */
    if (code == ERR_OK) {
        ranks.n = n;
        for (int i = 0; i < n; i++)
            ranks.rank[i] = rank[i];
        code = order_launch(c, &s.src, a->rows * a->n_keep, &ranks, e);
    }
    if (code != ERR_OK)
        return quant_setup_abandon(c, code);
    TRY(quant_setup_check(c, &s, e));
    if (c->order->n_bad > 0)
        return quant_refuse_some((int64_t)c->order->n_bad, a->center != KERN_CENTER_NONE, e);
    if (n > 0)
        memcpy(value, c->order->value, (size_t)n * sizeof *value);
    return ERR_OK;
}

/* ---- rank keys ---- */

/* Sums over a line of n weights in units of 2^-24. |x| < 2^40, so sum |x| < n * 2^40, sum x^2 < n * 2^80 and
 * n * sum x^2 < n^2 * 2^80: 128 bits hold all of it for n < 2^24, which SPREAD_MAX enforces. */
struct moments {
    unsigned __int128 squares;
    int64_t sum;
};
static constexpr int64_t SPREAD_MAX = 1 << 24;

/* Work is a line (row or column) a group of threads: rows take a block of 8 warps, columns 32 lanes side by side. */
static constexpr int LINES = WARP, PARTS = THREADS / WARP;

static __device__ __forceinline__ void moments_add(struct moments *m, unsigned w)
{
    const int64_t x = f16_units(w);
    const uint64_t mag = (uint64_t)(x < 0 ? -x : x);
    m->sum += x;
    m->squares += (unsigned __int128)mag * mag;
}

static __device__ __forceinline__ void moments_join(struct moments *m, const struct moments &other)
{
    m->sum += other.sum;
    m->squares += other.squares;
}

static __device__ unsigned __int128 moments_key(const struct moments &m, int64_t n)
{
    const unsigned __int128 mag = (unsigned __int128)(uint64_t)(m.sum < 0 ? -m.sum : m.sum);
    return (unsigned __int128)n * m.squares - mag * mag;
}

static __global__ void spread_rows_kernel(unsigned __int128 *keys, const uint16_t *w16,
                                          int64_t cols)
{
    __shared__ struct moments part[THREADS];
    const uint16_t *row = w16 + blockIdx.x * cols;
    struct moments m = {};
    for (int64_t i = threadIdx.x; i < cols; i += THREADS)
        moments_add(&m, row[i]);
    part[threadIdx.x] = m;
    for (int o = THREADS / 2; o > 0; o /= 2) {
        __syncthreads();
        if (threadIdx.x < o)
            moments_join(&part[threadIdx.x], part[threadIdx.x + o]);
    }
    if (threadIdx.x == 0)
        keys[blockIdx.x] = moments_key(part[0], cols);
}

static __global__ void spread_cols_kernel(unsigned __int128 *keys, const uint16_t *w16,
                                          int64_t rows, int64_t cols)
{
    __shared__ struct moments part[PARTS][LINES];
    const int line = threadIdx.x % LINES, p = threadIdx.x / LINES;
    const int64_t col = (int64_t)blockIdx.x * LINES + line;
    struct moments m = {};
    for (int64_t r = p; r < rows && col < cols; r += PARTS)
        moments_add(&m, w16[r * cols + col]);
    part[p][line] = m;
    __syncthreads();
    if (p != 0 || col >= cols)
        return;
    for (int i = 1; i < PARTS; i++)
        moments_join(&m, part[i][line]);
    keys[col] = moments_key(m, rows);
}

enum err_code cuda_spread(struct kern *k, const uint16_t *w16, int64_t rows, int64_t cols,
                          bool by_rows, unsigned __int128 *keys, struct err *e)
{
    struct cuda_kern *c = cuda_of(k);
    if (rows <= 0 || cols <= 0 || (by_rows ? cols : rows) >= SPREAD_MAX)
        return err_set(e, ERR_UNSUPPORTED,
                       "rank keys of a tensor of %" PRId64 " rows and %" PRId64
                       " columns; lines of 1 to %d weights are possible",
                       rows, cols, (int)SPREAD_MAX - 1);
    const size_t bytes = (size_t)(by_rows ? rows : cols) * sizeof *keys;
    void *device;
    TRY(cuda_buffer_get(c, &c->scratch, bytes, "rank keys", &device, e));
    if (by_rows)
        spread_rows_kernel<<<(unsigned)rows, THREADS, 0, c->stream>>>((unsigned __int128 *)device,
                                                                      w16, cols);
    else
        spread_cols_kernel<<<(unsigned)ceil_div(cols, LINES), THREADS, 0, c->stream>>>(
            (unsigned __int128 *)device, w16, rows, cols);
    TRY(cuda_launched("rank keys", e));
    return cuda_pull(c, keys, device, bytes, "rank keys from the GPU", e);
}
