/* Layer normalization: y = (x - mean) / sqrt(var + eps) * w + b over rows of d. Mean and population variance in fp32, the
 * variance from differences to the mean. Rows of up to 8,192 that can be read in packs stay in registers: one warp takes
 * 1,024 elements, and those of up to as many share a block. Others take a block a row, which is read three times, from the
 * first-level cache after the first. */
#include "kernels/cuda/launch_cuda.cuh"

static constexpr int THREADS_MAX = 256;
static const char what[] = "layer norm";

/* Pointers and sizes of one call; `rows` on the device. */
struct norm {
    const void *x;
    struct kern_norm_out out, also;
    const int32_t *rows;
    float eps;
    int64_t d;
};

template <typename E, int N>
static __device__ float row_total(const E *x, int64_t packs, float mean)
{
    float sum = 0.0F;
    for (int64_t i = threadIdx.x; i < packs; i += blockDim.x) {
        pack<E, N> p = pack_load<E, N>(x, i);
#pragma unroll
        for (int j = 0; j < N; j++)
            sum += to_f32(p.v[j]) - mean;
    }
    return sum;
}

template <typename E, int N>
static __device__ float row_squares(const E *x, int64_t packs, float mean)
{
    float sum = 0.0F;
    for (int64_t i = threadIdx.x; i < packs; i += blockDim.x) {
        pack<E, N> p = pack_load<E, N>(x, i);
#pragma unroll
        for (int j = 0; j < N; j++) {
            float diff = to_f32(p.v[j]) - mean;
            sum += diff * diff;
        }
    }
    return sum;
}

template <typename E, int N> static __global__ void norm_kernel(struct norm a)
{
    __shared__ float shared[WARP + 1];
    const int64_t packs = a.d / N;
    const int64_t from = a.rows != NULL ? a.rows[blockIdx.x] : blockIdx.x;
    const E *x = (const E *)a.x + from * a.d;
    const E *w = (const E *)a.out.w, *b = (const E *)a.out.b;
    E *y = (E *)a.out.y + blockIdx.x * a.d;
    const float mean = block_sum(row_total<E, N>(x, packs, 0.0F), shared) / (float)a.d;
    const float var = block_sum(row_squares<E, N>(x, packs, mean), shared) / (float)a.d;
    const float scale = 1.0F / sqrtf(var + a.eps);
    for (int64_t i = threadIdx.x; i < packs; i += blockDim.x) {
        pack<E, N> p = pack_load<E, N>(x, i), pw, pb;
        if (w != NULL)
            pw = pack_load<E, N>(w, i);
        if (b != NULL)
            pb = pack_load<E, N>(b, i);
#pragma unroll
        for (int j = 0; j < N; j++) {
            float unit = (to_f32(p.v[j]) - mean) * scale;
            float scaled = w != NULL ? unit * to_f32(pw.v[j]) : unit;
            p.v[j] = from_f32<E>(b != NULL ? scaled + to_f32(pb.v[j]) : scaled);
        }
        pack_store<E, N>(y, i, p);
    }
}

/* ---- rows in registers ---- */

static constexpr int PACKS = 4; /* of eight a lane */
static constexpr int WARP_ELEMENTS = PACKS * 8 * WARP, WARPS_MAX = 8;

/* Sum over the WARPS warps of a row; with one warp others of the block may be elsewhere. */
template <int WARPS> static __device__ __forceinline__ float row_sum(float x, float *shared)
{
    x = warp_sum(x);
    if (WARPS == 1)
        return x;
    if (threadIdx.x % WARP == 0)
        shared[threadIdx.x / WARP] = x;
    __syncthreads();
    float total = 0.0F;
#pragma unroll
    for (int i = 0; i < WARPS; i++)
        total += shared[i];
    __syncthreads();
    return total;
}

/* What a thread holds of a row, less the mean. */
template <typename E, int WARPS>
static __device__ __forceinline__ void row_write(const struct kern_norm_out &out, int64_t row,
                                                 int packs, const float (&v)[PACKS][8], float scale)
{
    constexpr int threads = WARPS * WARP;
    const int me = threadIdx.x % threads;
    E *y = (E *)out.y + row * packs * 8;
#pragma unroll
    for (int i = 0; i < PACKS; i++) {
        const int at = me + i * threads;
        if (at >= packs)
            continue;
        pack<E, 8> p, pw, pb;
        if (out.w != NULL)
            pw = pack_load<E, 8>((const E *)out.w, at);
        if (out.b != NULL)
            pb = pack_load<E, 8>((const E *)out.b, at);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            const float unit = v[i][j] * scale;
            const float scaled = out.w != NULL ? unit * to_f32(pw.v[j]) : unit;
            p.v[j] = from_f32<E>(out.b != NULL ? scaled + to_f32(pb.v[j]) : scaled);
        }
        pack_store<E, 8>(y, at, p);
    }
}

/* Rows of up to WARPS * WARP_ELEMENTS. */
template <typename E, int WARPS>
static __global__ void __launch_bounds__(WARPS == 1 ? THREADS_MAX : WARPS * WARP)
    norm_registers_kernel(struct norm a, int64_t n)
{
    __shared__ float shared[WARPS];
    constexpr int threads = WARPS * WARP;
    const int64_t rows_a_block = blockDim.x / threads;
    const int64_t row = blockIdx.x * rows_a_block + threadIdx.x / threads;
    const int me = threadIdx.x % threads, packs = (int)(a.d / 8);
    launch_wait();
    launch_next();
    if (row >= n)
        return;
    const E *x = (const E *)a.x + (a.rows != NULL ? a.rows[row] : row) * a.d;
    float v[PACKS][8], sum = 0.0F, squares = 0.0F;
#pragma unroll
    for (int i = 0; i < PACKS; i++) {
        const bool is_there = me + i * threads < packs;
        pack<E, 8> p = {};
        if (is_there)
            p = pack_load<E, 8>(x, me + i * threads);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            v[i][j] = to_f32(p.v[j]);
            sum += v[i][j]; /* zeros where nothing is */
        }
    }
    const float mean = row_sum<WARPS>(sum, shared) / (float)a.d;
#pragma unroll
    for (int i = 0; i < PACKS; i++)
#pragma unroll
        for (int j = 0; j < 8; j++) {
            v[i][j] -= mean;
            squares += me + i * threads < packs ? v[i][j] * v[i][j] : 0.0F;
        }
    const float var = row_sum<WARPS>(squares, shared) / (float)a.d;
    const float scale = 1.0F / sqrtf(var + a.eps);
    row_write<E, WARPS>(a.out, row, packs, v, scale);
    if (a.also.y != NULL)
        row_write<E, WARPS>(a.also, row, packs, v, scale);
}

template <typename E>
static enum err_code norm_registers_launch(struct cuda_kern *c, const struct norm &a, int64_t n,
                                           struct err *e)
{
    if (a.d <= WARP_ELEMENTS)
        return launch_overlapped(c, norm_registers_kernel<E, 1>,
                                 {ceil_div(n, THREADS_MAX / WARP), THREADS_MAX, 0, 0}, what, e, a,
                                 n);
    if (a.d <= 2 * WARP_ELEMENTS)
        return launch_overlapped(c, norm_registers_kernel<E, 2>, {n, 2 * WARP, 0, 0}, what, e, a,
                                 n);
    if (a.d <= 4 * WARP_ELEMENTS)
        return launch_overlapped(c, norm_registers_kernel<E, 4>, {n, 4 * WARP, 0, 0}, what, e, a,
                                 n);
    return launch_overlapped(c, norm_registers_kernel<E, WARPS_MAX>, {n, WARPS_MAX * WARP, 0, 0},
                             what, e, a, n);
}

/* ---- launchers ---- */

static int threads_for(int64_t packs)
{
    int64_t threads = ceil_div(packs, WARP) * WARP;
    return (int)(threads < THREADS_MAX ? threads : THREADS_MAX);
}

template <typename E> static bool can_pack_out(const struct kern_norm_out &out, int64_t d)
{
    return can_pack<E>(out.y, d) && can_pack<E>(out.w, d) && can_pack<E>(out.b, d);
}

template <typename E>
static enum err_code norm_launch(struct cuda_kern *c, const struct norm &a, int64_t n,
                                 struct err *e)
{
    const bool is_packed =
        can_pack<E>(a.x, a.d) && can_pack_out<E>(a.out, a.d) && can_pack_out<E>(a.also, a.d);
    if (is_packed && a.d <= WARPS_MAX * WARP_ELEMENTS)
        return norm_registers_launch<E>(c, a, n, e);
    if (a.also.y != NULL) {
        struct norm one = a;
        one.also = {};
        TRY(norm_launch<E>(c, one, n, e));
        one.out = a.also;
        return norm_launch<E>(c, one, n, e);
    }
    if (is_packed)
        norm_kernel<E, 8><<<(unsigned)n, threads_for(a.d / 8), 0, c->stream>>>(a);
    else
        norm_kernel<E, 1><<<(unsigned)n, threads_for(a.d), 0, c->stream>>>(a);
    return cuda_launched(what, e);
}

enum err_code cuda_layernorm(struct kern *k, const struct kern_norm_args *a, struct err *e)
{
    CHECK(a->out.y != a->x || (a->rows == NULL && a->also.y == NULL));
    struct cuda_kern *c = cuda_of(k);
    const int64_t n = a->rows != NULL ? a->n_rows : a->T;
    void *rows = NULL;
    if (n == 0)
        return ERR_OK;
    if (a->rows != NULL)
        TRY(cuda_push(c, a->rows, (size_t)n * sizeof *a->rows, &rows, e));
    struct norm args = {a->x, a->out, a->also, (const int32_t *)rows, a->eps, a->d};
    CUDA_BY_TYPE(c, return norm_launch<E>(c, args, n, e));
    return ERR_OK;
}
