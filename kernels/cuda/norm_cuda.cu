/* Layer normalization: y = (x - mean) / sqrt(var + eps) * w + b over rows of d. One block a row; the row is read three
 * times, from the first-level cache after the first. Mean and population variance in fp32, the variance from
 * differences to the mean. */
#include "kernels/cuda/cuda_util.cuh"

static constexpr int THREADS_MAX = 256;

/* Pointers and sizes of one call; `rows` on the device. */
struct norm {
    void *y;
    const void *x, *w, *b;
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
    const E *w = (const E *)a.w, *b = (const E *)a.b;
    E *y = (E *)a.y + blockIdx.x * a.d;
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

static int threads_for(int64_t packs)
{
    int64_t threads = ceil_div(packs, WARP) * WARP;
    return (int)(threads < THREADS_MAX ? threads : THREADS_MAX);
}

template <typename E> static void norm_launch(struct cuda_kern *c, const struct norm &a, int64_t n)
{
    if (can_pack<E>(a.y, a.d) && can_pack<E>(a.x, a.d) && can_pack<E>(a.w, a.d) &&
        can_pack<E>(a.b, a.d))
        norm_kernel<E, 8><<<(unsigned)n, threads_for(a.d / 8), 0, c->stream>>>(a);
    else
        norm_kernel<E, 1><<<(unsigned)n, threads_for(a.d), 0, c->stream>>>(a);
}

enum err_code cuda_layernorm(struct kern *k, const struct kern_norm_args *a, struct err *e)
{
    CHECK(a->rows == NULL || a->y != a->x);
    struct cuda_kern *c = cuda_of(k);
    const int64_t n = a->rows != NULL ? a->n_rows : a->T;
    void *rows = NULL;
    if (n == 0)
        return ERR_OK;
    if (a->rows != NULL)
        TRY(cuda_push(c, a->rows, (size_t)n * sizeof *a->rows, &rows, e));
    struct norm args = {a->y, a->x, a->w, a->b, (const int32_t *)rows, a->eps, a->d};
    CUDA_BY_TYPE(c, norm_launch<E>(c, args, n));
    return cuda_launched("layer norm", e);
}
