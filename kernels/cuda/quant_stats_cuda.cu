/* Exact statistics of fp16 tensors on the GPU: the histogram behind quantile codebooks and the rank keys behind outlier
 * columns (quantization spec, sections 2.4 and 6). Integers only, so that the order of adding does not matter. */
#include <inttypes.h>
#include <string.h>

#include "kernels/cuda/quant_source.cuh"

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

/* The scratch holds the means meanwhile, so that the counts have memory of their own. */
static enum err_code histogram_count(struct cuda_kern *c, const struct quant_source *s,
                                     int64_t *hist, struct err *e)
{
    static const char what[] = "histogram of weights";
    const size_t bytes = BINS * sizeof(unsigned long long);
    void *device;
    TRY(cuda_buffer_get(c, &c->counts, bytes, what, &device, e));
    TRY(histogram_launch(c, s, (unsigned long long *)device, what, e));
    return cuda_pull(c, hist, device, bytes, what, e);
}

enum err_code cuda_histogram(struct kern *k, const struct kern_quant_args *a, int64_t *hist,
                             struct err *e)
{
    struct cuda_kern *c = cuda_of(k);
    struct quant_setup s;
    TRY(quant_setup_init(c, a, &s, e));
    if (s.src.means != NULL)
        TRY(quant_setup_check(c, &s, e));
    TRY(histogram_count(c, &s.src, hist, e));
    hist[0] -= a->rows * a->n_keep; /* kept columns were read as +0 */
    int64_t n_bad = 0;
    for (int i = 0; i < BINS; i++)
        n_bad += (i & F16_MAGNITUDE) >= F16_INFINITY ? hist[i] : 0;
    if (n_bad > 0)
        return err_set(e, ERR_NUMERIC,
                       "%" PRId64
                       " of its weights are not finite fp16 numbers%s and cannot be quantized",
                       n_bad, a->center != KERN_CENTER_NONE ? " after centering" : "");
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
