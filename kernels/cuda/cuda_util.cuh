/* State of the cuda backend, its memory and what every kernel file shares: element types, packs of eight,
 * sums over warps and blocks, error mapping. Every operation is queued on the kern's one stream; host arrays are
 * copied into a pinned ring before a call returns, so that the caller may reuse them. Sums run in an order that
 * depends on shapes only: equal calls give equal bits. Private to kernels/cuda. */
#ifndef ISOBIT_KERNELS_CUDA_UTIL_CUH
#define ISOBIT_KERNELS_CUDA_UTIL_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <stdint.h>
#include <string.h>

extern "C" {
#include "base/err.h"
#include "base/mem.h"
}
#include "kernels/backend.h"
#include "kernels/cuda/ring.h"
#include "kernels/cuda/sides.h"

static constexpr float LOG2_E = 1.4426950408889634F;

/* Shared memory as instructions name it. */
static __device__ __forceinline__ uint32_t shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* Device memory that grows to the largest request so far and stays, so that nothing is allocated between equal
 * batches. */
struct cuda_buffer {
    void *p;
    size_t bytes;
};

/* Host arguments on their way to the device: `host` is pinned, `device` its image. Both are filled half by half; a half
 * is filled again once the copies out of it are done. On the device the stream's order is enough. */
struct cuda_ring {
    char *host, *device;
    struct ring place;     /* in both */
    cudaEvent_t filled[2]; /* all copies out of the half were queued before it */
};

struct cuda_gemm_plans;
struct cuda_attention_plan;
struct cuda_rotary_plan;
struct cuda_book;
struct quant_checks;
struct quant_order;
struct cuda_answers;

struct cuda_kern {
    struct kern base; /* first */
    enum kern_compute compute;
    int n_multiprocessors;
    size_t shared_bytes; /* most that a block may ask for */
    bool has_wgmma;      /* compute capability 9.0, and the module holds its machine code */
    void *encode_map;    /* cuTensorMapEncodeTiled; NULL without has_wgmma */
    struct sides sides;  /* of the second-level cache; no multiprocessors without has_wgmma */
    int32_t *seats;      /* [2][2]: taken at each side, by products in turns */
    int seats_turn;      /* of the next product */
    cudaStream_t stream;
    cudaStream_t copies;        /* what kern_copy_ahead queues; NULL until then */
    cudaEvent_t worked, copied; /* copies wait for `worked`, work waits for `copied` */
    struct cuda_ring ring;
    struct cuda_buffer scratch; /* of the call that runs */
    struct cuda_buffer counts;  /* of weights by their bits */
    struct quant_order *order;  /* order statistics in pinned memory, or NULL */
    struct cuda_gemm_plans *gemms;
    struct cuda_attention_plan *attention;
    struct cuda_rotary_plan *rotary;
    struct cuda_book *book;
    struct quant_checks *checks; /* of quantizers */
    struct cuda_answers *answers;
};

static inline struct cuda_kern *cuda_of(struct kern *k)
{
    return (struct cuda_kern *)(void *)k;
}

/* ---- sequences of the last batch: what is made of them serves all its layers ---- */

struct cuda_seqs {
    struct kern_seq *v; /* a copy */
    int n;              /* 0: none */
};

static inline bool cuda_seqs_are(const struct cuda_seqs *s, const struct kern_seq *v, int n)
{
    return s->n > 0 && s->n == n && memcmp(s->v, v, (size_t)n * sizeof *v) == 0;
}

static inline void cuda_seqs_keep(struct cuda_seqs *s, const struct kern_seq *v, int n)
{
    s->v = (struct kern_seq *)xrealloc(s->v, (size_t)n * sizeof *v);
    memcpy(s->v, v, (size_t)n * sizeof *v);
    s->n = n;
}

/* ---- errors: every call names what was being done ---- */

/* Records a failed CUDA call; memory that is not there becomes ERR_NOMEM, everything else ERR_DEVICE. */
enum err_code cuda_fail(cudaError_t status, const char *what, struct err *e);

#define CUDA_TRY(call, what)                                                                       \
    do {                                                                                           \
        cudaError_t cuda_status = (call);                                                          \
        if (cuda_status != cudaSuccess)                                                            \
            return cuda_fail(cuda_status, (what), e);                                              \
    } while (0)

/* Result of the launch just made. */
static inline enum err_code cuda_launched(const char *what, struct err *e)
{
    CUDA_TRY(cudaGetLastError(), what);
    return ERR_OK;
}

/* ---- memory ---- */

/* At least `bytes` bytes, 256-byte aligned, content undefined. Errors: ERR_NOMEM names `what`. */
MUST_USE enum err_code cuda_buffer_get(struct cuda_kern *c, struct cuda_buffer *b, size_t bytes,
                                       const char *what, void **out, struct err *e);
void cuda_buffer_release(struct cuda_buffer *b);

/* *out = device copy of src[bytes], ready for kernels queued after this call and valid until the next
 * operation of the kern. `src` is borrowed. */
MUST_USE enum err_code cuda_push(struct cuda_kern *c, const void *src, size_t bytes, void **out,
                                 struct err *e);
/* b->p = device copy of src[bytes], behind the work queued so far, valid until the next change of *b. `src` is borrowed;
 * nothing waits, unlike with a copy out of pageable memory. */
MUST_USE enum err_code cuda_keep(struct cuda_kern *c, struct cuda_buffer *b, const void *src,
                                 size_t bytes, const char *what, struct err *e);
/* Copies to host memory and waits. */
MUST_USE enum err_code cuda_pull(struct cuda_kern *c, void *dst, const void *src, size_t bytes,
                                 const char *what, struct err *e);

/* ---- sides of the second-level cache (sides_cuda.cu) ---- */

/* Finds c->sides and makes c->seats, on c->stream. */
MUST_USE enum err_code cuda_sides_open(struct cuda_kern *c, struct err *e);
void cuda_sides_close(struct cuda_kern *c);

/* ---- answers (answers_cuda.cu) ---- */

/* Where an answer goes once it has reached the host: `give` spreads the n entries at `host` over the arrays in `to`. */
struct cuda_answer {
    void (*give)(const void *host, const struct cuda_answer *a);
    int64_t n;
    void *to[2];
};

/* Queues the copy of src[bytes] to the host; it is given when a mark behind it is waited for. `src` may be overwritten by
 * what is queued later. */
MUST_USE enum err_code cuda_answer_later(struct cuda_kern *c, const void *src, size_t bytes,
                                         const struct cuda_answer *to, struct err *e);
/* Waits for the stream and gives everything. */
MUST_USE enum err_code cuda_answers_sync(struct cuda_kern *c, struct err *e);
MUST_USE enum err_code cuda_answers_open(struct cuda_kern *c, struct err *e);
void cuda_answers_close(struct cuda_kern *c);
enum err_code cuda_mark(struct kern *k, int64_t *mark, struct err *e);
enum err_code cuda_wait(struct kern *k, int64_t mark, struct err *e);

/* ---- matrix products (linear_cuda.cu) ---- */

/* y[T, N] = act(x[T, K] * w[N, K]^T + bias[N]) (+ y when is_sum); rows of y are ldy apart. y is of the compute type, or
 * fp32 when is_fp32_out. Asynchronous. */
struct cuda_gemm_args {
    void *y;
    const void *x, *w, *bias;
    int64_t T, N, K, ldy;
    bool is_sum, is_relu, is_fp32_out;
};
MUST_USE enum err_code cuda_gemm(struct cuda_kern *c, const struct cuda_gemm_args *a,
                                 struct err *e);
MUST_USE enum err_code cuda_gemm_open(struct cuda_kern *c, struct err *e);
void cuda_gemm_close(struct cuda_kern *c);
/* Version of the library behind it, e.g. "13.0.2". */
void cuda_gemm_name(char *out, size_t size);

void cuda_attention_close(struct cuda_kern *c);
void cuda_rotary_close(struct cuda_kern *c);
void cuda_book_close(struct cuda_kern *c);
void cuda_quant_close(struct cuda_kern *c);

/* Parts of a head start at multiples of this: there, too, start tiles of logits (loss_cuda.cu) and runs of tiles that are
 * folded together (gemm_head.cu) in a whole head, so that sums are cut and added up in one way only. */
static constexpr int HEAD_STEP = 3840;

/* ---- operations of the table ---- */

enum err_code cuda_linear(struct kern *k, const struct kern_linear_args *a, struct err *e);
enum err_code cuda_attention(struct kern *k, const struct kern_attention_args *a, struct err *e);
enum err_code cuda_cast_f16(struct kern *k, void *dst, const uint16_t *src, int64_t n,
                            struct err *e);
enum err_code cuda_cast_f32(struct kern *k, void *dst, const float *src, int64_t n, struct err *e);
enum err_code cuda_embed(struct kern *k, const struct kern_embed_args *a, struct err *e);
enum err_code cuda_copy_rows(struct kern *k, const struct kern_rows_args *a, struct err *e);
enum err_code cuda_layernorm(struct kern *k, const struct kern_norm_args *a, struct err *e);
int64_t cuda_head_bytes(int64_t V, int64_t R, int64_t n);
enum err_code cuda_score(struct kern *k, const struct kern_score_args *a, struct err *e);
enum err_code cuda_kl(struct kern *k, const struct kern_kl_args *a, struct err *e);
enum err_code cuda_logits(struct kern *k, const struct kern_logits_args *a, struct err *e);
enum err_code cuda_quantize(struct kern *k, const struct kern_quant_args *a, struct err *e);
enum err_code cuda_quant_check(struct kern *k, int64_t *call, struct err *e);
enum err_code cuda_order_statistics(struct kern *k, const struct kern_quant_args *a,
                                    const int64_t *rank, int n, float *value, struct err *e);
enum err_code cuda_spread(struct kern *k, const uint16_t *w16, int64_t rows, int64_t cols,
                          bool by_rows, unsigned __int128 *keys, struct err *e);

/* ---- element types ---- */

/* Runs the statement with E = the element type of the kern's compute precision. */
#define CUDA_BY_TYPE(c, ...)                                                                       \
    do {                                                                                           \
        switch ((c)->compute) {                                                                    \
        case KERN_FP32: {                                                                          \
            using E = float;                                                                       \
            __VA_ARGS__;                                                                           \
        } break;                                                                                   \
        case KERN_FP16: {                                                                          \
            using E = __half;                                                                      \
            __VA_ARGS__;                                                                           \
        } break;                                                                                   \
        case KERN_BF16: {                                                                          \
            using E = __nv_bfloat16;                                                               \
            __VA_ARGS__;                                                                           \
        } break;                                                                                   \
        }                                                                                          \
    } while (0)

static __device__ __forceinline__ float to_f32(float x)
{
    return x;
}

static __device__ __forceinline__ float to_f32(__half x)
{
    return __half2float(x);
}

static __device__ __forceinline__ float to_f32(__nv_bfloat16 x)
{
    return __bfloat162float(x);
}

template <typename E> static __device__ __forceinline__ E from_f32(float x);

template <> __device__ __forceinline__ float from_f32<float>(float x)
{
    return x;
}

template <> __device__ __forceinline__ __half from_f32<__half>(float x)
{
    return __float2half_rn(x);
}

template <> __device__ __forceinline__ __nv_bfloat16 from_f32<__nv_bfloat16>(float x)
{
    return __float2bfloat16_rn(x);
}

/* N neighbours in one or two 16-byte accesses (N = 8) or one by one (N = 1, any alignment). */
template <typename E, int N> struct alignas(N == 1 ? sizeof(E) : 16) pack {
    E v[N];
};

template <typename E, int N>
static __device__ __forceinline__ pack<E, N> pack_load(const E *p, int64_t i)
{
    return *reinterpret_cast<const pack<E, N> *>(p + i * N);
}

template <typename E, int N>
static __device__ __forceinline__ void pack_store(E *p, int64_t i, const pack<E, N> &x)
{
    *reinterpret_cast<pack<E, N> *>(p + i * N) = x;
}

/* True when rows of d elements from here on can be read in packs of eight. */
template <typename E> static inline bool can_pack(const void *p, int64_t d)
{
    return d % 8 == 0 && (uintptr_t)p % 16 == 0;
}

/* ---- sums and maxima over the threads of a warp and of a block ---- */

static constexpr int WARP = 32;
static constexpr unsigned ALL_LANES = 0xffffffffU;

static __device__ __forceinline__ float warp_sum(float x)
{
    for (int o = WARP / 2; o > 0; o /= 2)
        x += __shfl_xor_sync(ALL_LANES, x, o);
    return x;
}

/* Over a whole block of at most 1024 threads; `shared` holds 33 floats. */
static __device__ __forceinline__ float block_sum(float x, float *shared)
{
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    x = warp_sum(x);
    if (lane == 0)
        shared[warp] = x;
    __syncthreads();
    if (warp == 0) {
        float all = warp_sum(lane < warps ? shared[lane] : 0.0F);
        if (lane == 0)
            shared[WARP] = all;
    }
    __syncthreads();
    float total = shared[WARP];
    __syncthreads();
    return total;
}

/* ---- exponentials ---- */

/* e^x for x < 88 to 2 units in the last place; e^-120 and less is 0. x log2 e goes in two parts, so that what is far from 0
 * keeps its digits. */
static __device__ __forceinline__ float exp_fast(float x)
{
    const float at = fmaxf(x, -120.0F), high = __fmul_rn(at, 1.44269502F);
    const float low = fmaf(at, 1.92596299e-8F, fmaf(at, 1.44269502F, -high));
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(high));
    return fmaf(y, low * 0.693147181F, y);
}

/* ---- launch sizes ---- */

static inline int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* Blocks for n pieces of work, one a thread, with a loop over what does not fit the grid. */
static inline unsigned grid_for(int64_t n, int threads)
{
    const int64_t most = 1 << 20;
    int64_t blocks = ceil_div(n, threads);
    return (unsigned)(blocks < most ? blocks : most);
}

static __device__ __forceinline__ int64_t grid_thread(void)
{
    return (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
}

static __device__ __forceinline__ int64_t grid_threads(void)
{
    return (int64_t)gridDim.x * blockDim.x;
}

#endif
