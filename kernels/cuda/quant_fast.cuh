/* Quantize-dequantize with the usual options: a warp holds whole blocks in registers, finds their maxima there and writes,
 * 2 bytes read and one element written a weight. The index comes from a table in shared memory, or for the int and float
 * types from arithmetic alone. Private to quant_cuda.cu. */
#ifndef ISOBIT_KERNELS_CUDA_QUANT_FAST_CUH
#define ISOBIT_KERNELS_CUDA_QUANT_FAST_CUH

#include "kernels/cuda/quant_book.cuh"
#include "kernels/cuda/quant_source.cuh"

/* Outputs of a call and its book, by value to kernels. */
struct quant_sink {
    const struct book *book; /* device */
    void *out;               /* each of the three may be NULL */
    uint8_t *codes;
    uint16_t *absmax;
    bool is_fp32; /* products are not rounded to fp16 */
};

/* ---- one weight ---- */

/* To fp16 where that is asked, then to the element type. */
template <typename E> static __device__ __forceinline__ E round_value(float x, bool is_fp32)
{
    return from_f32<E>(is_fp32 ? x : __half2float(__float2half_rn(x)));
}

template <> __device__ __forceinline__ __half round_value<__half>(float x, bool is_fp32)
{
    (void)is_fp32; /* the element type rounds anyway */
    return __float2half_rn(x);
}

/* What is added behind the product: -0 changes nothing, and +0 makes the +0 that a block of zeros gives. */
static __device__ __forceinline__ float nothing_to_add(float m)
{
    return m > 0.0F ? -0.0F : 0.0F;
}

/* ---- eight weights ---- */

/* Eight weights of one lane; what lies behind `end` is +0. */
static __device__ __forceinline__ uint4 weights_load(const uint16_t *w16, int64_t at, int64_t end)
{
    if (at + 8 <= end)
        return *reinterpret_cast<const uint4 *>(w16 + at);
    union {
        uint4 all;
        uint16_t one[8];
    } w = {};
    for (int i = 0; i < 8; i++)
        w.one[i] = at + i < end ? w16[at + i] : 0;
    return w.all;
}

/* Magnitude bits of the largest of eight; at least F16_INFINITY when one of them is not finite. */
static __device__ __forceinline__ unsigned weights_max(uint4 w)
{
    const __half2 *h = reinterpret_cast<const __half2 *>(&w);
    __half2 most = __hmax2_nan(__hmax2_nan(__habs2(h[0]), __habs2(h[1])),
                               __hmax2_nan(__habs2(h[2]), __habs2(h[3])));
    return __half_as_ushort(__hmax_nan(__low2half(most), __high2half(most))) & F16_MAGNITUDE;
}

static __device__ void weights_fault(const uint16_t *w16, int64_t at, int64_t n,
                                     struct quant_faults *faults)
{
    for (int i = 0; i < 8 && at + i < n; i++)
        if ((w16[at + i] & F16_MAGNITUDE) >= F16_INFINITY)
            fault_note(&faults->source, at + i);
}

/* Whole packs; fewer than eight weights are left only at the end of a tensor. */
template <typename E>
static __device__ __forceinline__ void pack_write(E *out, int64_t at, int64_t n,
                                                  const pack<E, 8> &x)
{
    if (at + 8 <= n) {
        pack_store<E, 8>(out + at, 0, x);
        return;
    }
    for (int i = 0; i < 8; i++)
        if (at + i < n)
            out[at + i] = x.v[i];
}

/* 1 / m correctly rounded, for a binary16 m: what __frcp_rn computes where nothing is subnormal. 0 for 0. */
static __device__ __forceinline__ float reciprocal(float m)
{
    float r;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(m));
    return m > 0.0F ? __fmaf_rn(r, __fmaf_rn(-m, r, 1.0F), r) : 0.0F;
}

/* y / m correctly rounded, r = 1 / m correctly rounded: one Newton step on the quotient. Exact for all pairs of binary16
 * numbers, whose quotients and remainders stay within the normal range of binary32 (tests/kernels/test_cuda.c goes
 * through all pairs of significands). m = 0 comes with r = 0 and gives 0. */
static __device__ __forceinline__ float quotient(float y, float m, float r)
{
    const float q = __fmul_rn(y, r);
    return __fmaf_rn(__fmaf_rn(-q, m, y), r, q);
}

/* ---- shapes ---- */

/* A block is `lanes` neighbouring lanes with eight weights each, or `chunks` times what a warp reads at once, and 2^`log2`
 * weights. Or (any block that is a multiple of eight) its maximum is in `maxima` already. */
struct fast_args {
    struct quant_sink sink;
    struct book_grid grid;
    const uint16_t *w16;
    int64_t n, block;
    int lanes, chunks, log2;
    const unsigned *maxima;
    struct quant_faults *faults;
};

/* Packs a lane: few are enough for blocks of 1024 and spread small tensors; many hold blocks of 4096 and keep more loads
 * under way; one where its maximum is known. */
static constexpr int PACKS_FEW = 4, PACKS_MANY = 16, PACKS_KNOWN = 1;
static constexpr int64_t PACKS_STEP = WARP * 8; /* weights that a warp reads at once */

static __host__ __device__ constexpr bool is_grid(enum book_search s)
{
    return s == SEARCH_STEPS || s == SEARCH_FLOATS;
}

/* Threads of a block: many share a table. */
static __host__ __device__ constexpr int fast_threads(enum book_search s)
{
    return is_grid(s) ? 128 : 256;
}

/* Weights that a block works on at a time. */
static __host__ __device__ constexpr int64_t fast_step(enum book_search s, int packs)
{
    return (int64_t)packs * fast_threads(s) * 8;
}

/* ---- tables ---- */

/* The book in shared memory: cells, or midpoints when it has none. Behind it the values of places: a large book has a copy
 * for every lane, which lies in the lane's own bank, since 32 random places meet in a bank three or four at a time. */
template <enum book_search S> struct shared_book {
    float mid[S == SEARCH_HALVING ? BOOK_MAX : 1];
    int steps;
};

/* Values, then cells. Named here, so that the compiler sees shared memory where it is read. */
extern __shared__ float shared_values[];

static constexpr int BOOK_SMALL = 32; /* places that all lie in different banks */

static __host__ __device__ __forceinline__ int value_stride(const struct book *b)
{
    return b->n_places <= BOOK_SMALL ? 1 : WARP;
}

static __host__ __device__ __forceinline__ int values_of(const struct book *b)
{
    return b->n_places <= BOOK_SMALL ? BOOK_SMALL : (b->n_places + 1) / 2 * 2 * WARP;
}

/* What a thread needs to look a quotient up. */
struct book_view {
    struct book_key key;
    const struct book_cell *cells;
    const float *values; /* of its lane */
    int stride;
};

template <enum book_search S>
static __device__ __forceinline__ float book_value(const struct shared_book<S> &b,
                                                   const struct book_view &v, float t)
{
    if (S == SEARCH_HALVING)
        return v.values[book_find_halving(b.mid, b.steps, t) * v.stride];
    const int at = S == SEARCH_EVEN ? book_cell_even(v.key, t) : book_cell_binade(v.key, t);
    const struct book_cell c = v.cells[at];
    return v.values[(c.below + (t > c.mid ? 1 : 0)) * v.stride];
}

template <enum book_search S>
static __device__ __forceinline__ struct book_view book_copy(struct shared_book<S> *b,
                                                             const struct book *book)
{
    if (is_grid(S))
        return {};
    constexpr int THREADS = fast_threads(S);
    const int stride = value_stride(book), copies = stride, n_values = book->n_places * copies;
    struct book_cell *cells = reinterpret_cast<struct book_cell *>(shared_values + values_of(book));
    for (int i = threadIdx.x; i < n_values; i += THREADS)
        shared_values[i] = book->value[i / copies];
    for (int i = threadIdx.x; S == SEARCH_HALVING && i < BOOK_MAX; i += THREADS)
        b->mid[S == SEARCH_HALVING ? i : 0] = book->mid[i];
    for (int i = threadIdx.x; i < book->n_cells; i += THREADS)
        cells[i] = book->cell[i];
    if (threadIdx.x == 0)
        b->steps = book->steps;
    const int lane = stride > 1 ? (int)threadIdx.x % WARP : 0;
    const struct book_view view = {book->key, cells, shared_values + lane, stride};
    return view;
}

/* ---- blocks ---- */

template <enum book_search S>
static __device__ __forceinline__ float
dequantized(const struct fast_args &a, const struct shared_book<S> &b, const struct book_view &view,
            float t, float m, float add)
{
    /* The sum with a zero is exact: one rounding, that of the product. */
    if (S == SEARCH_STEPS)
        return __fmaf_rn(grid_half<GRID_STEPS>(a.grid, t), m + m, add);
    if (S == SEARCH_FLOATS)
        return __fmaf_rn(grid_half<GRID_FLOATS>(a.grid, t), m + m, add);
    return __fmaf_rn(book_value<S>(b, view, t), m, add);
}

template <typename E, enum book_search S, bool IS_WHOLE>
static __device__ __forceinline__ void
weights_write(const struct fast_args &a, const struct shared_book<S> &b,
              const struct book_view &view, int64_t at, uint4 w, unsigned max)
{
    const __half2 *h = reinterpret_cast<const __half2 *>(&w);
    const float m = f16_value(max), r = reciprocal(m), add = nothing_to_add(m);
    pack<E, 8> x;
    if (max >= F16_INFINITY)
        return; /* the call fails; a quotient that is no number has no cell */
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const float y = i % 2 == 0 ? __low2float(h[i / 2]) : __high2float(h[i / 2]);
        x.v[i] =
            round_value<E>(dequantized<S>(a, b, view, quotient(y, m, r), m, add), a.sink.is_fp32);
    }
    if (IS_WHOLE)
        pack_store<E, 8>((E *)a.sink.out + at, 0, x);
    else
        pack_write<E>((E *)a.sink.out, at, a.n, x);
}

static __device__ __forceinline__ void max_store(const struct fast_args &a, int64_t at,
                                                 unsigned max)
{
    if (a.sink.absmax != NULL && at < a.n && (at & (a.block - 1)) == 0)
        a.sink.absmax[at >> a.log2] = (uint16_t)max;
}

static __device__ __forceinline__ unsigned larger(unsigned a, unsigned b)
{
    return a > b ? a : b;
}

/* From the maxima of a lane's packs to those of their blocks. */
template <int P>
static __device__ __forceinline__ void maxima_join(const struct fast_args &a, unsigned max[P])
{
#pragma unroll
    for (int step = 1; step < P; step *= 2)
        if (step < a.chunks)
#pragma unroll
            for (int i = 0; i < P; i++)
                if ((i & step) == 0)
                    max[i] = max[i + step] = larger(max[i], max[i + step]);
    if (a.lanes == WARP) {
#pragma unroll
        for (int i = 0; i < P; i++)
            max[i] = __reduce_max_sync(ALL_LANES, max[i]);
        return;
    }
    for (int o = a.lanes / 2; o > 0; o /= 2)
#pragma unroll
        for (int i = 0; i < P; i++)
            max[i] = larger(max[i], __shfl_xor_sync(ALL_LANES, max[i], o));
}

static __device__ __forceinline__ unsigned known_max(const struct fast_args &a, int64_t at)
{
    if (at >= a.n)
        return 0;
    return a.maxima[a.block >= a.n ? 0 : at / a.block];
}

/* Notes what cannot be quantized; rare, so that it reads again. */
template <int P> static __device__ void packs_fault(const struct fast_args &a, int64_t start)
{
#pragma unroll 1
    for (int i = 0; i < P; i++)
        weights_fault(a.w16, start + i * PACKS_STEP, a.n, a.faults);
}

/* P packs a lane, from `start` on. IS_WHOLE: all of the warp's weights lie within the tensor. */
template <typename E, enum book_search S, int P, bool IS_WHOLE>
static __device__ __forceinline__ void packs_work(const struct fast_args &a,
                                                  const struct shared_book<S> &b,
                                                  const struct book_view &view, int64_t start)
{
    uint4 w[P];
    unsigned max[P];
    bool is_bad = false;
#pragma unroll
    for (int i = 0; i < P; i++) {
        const int64_t at = start + i * PACKS_STEP;
        w[i] =
            IS_WHOLE ? *reinterpret_cast<const uint4 *>(a.w16 + at) : weights_load(a.w16, at, a.n);
    }
#pragma unroll
    for (int i = 0; i < P; i++)
        max[i] = P == PACKS_KNOWN ? known_max(a, start) : weights_max(w[i]);
    if (P != PACKS_KNOWN)
        maxima_join<P>(a, max);
#pragma unroll
    for (int i = 0; i < P; i++) {
        const int64_t at = start + i * PACKS_STEP;
        if (P != PACKS_KNOWN)
            max_store(a, at, max[i]);
        is_bad = is_bad || max[i] >= F16_INFINITY;
        weights_write<E, S, IS_WHOLE>(a, b, view, at, w[i], max[i]);
    }
    if (is_bad)
        packs_fault<P>(a, start);
}

/* Blocks walk over the tensor; with a table, so that it is copied once. */
template <typename E, enum book_search S, int P>
static __global__ void __launch_bounds__(fast_threads(S),
                                         (P == PACKS_MANY ? 512 : 1024) / fast_threads(S))
    fast_kernel(struct fast_args a)
{
    __shared__ struct shared_book<S> b;
    const struct book_view view = book_copy<S>(&b, a.sink.book);
    constexpr int64_t STEP = fast_step(S, P);
    const int64_t in_step =
        threadIdx.x / WARP * (P * PACKS_STEP) + (int64_t)(threadIdx.x % WARP * 8);
    if (!is_grid(S))
        __syncthreads();
    for (int64_t at = blockIdx.x * STEP; at < a.n; at += gridDim.x * STEP) {
        if (at + STEP <= a.n)
            packs_work<E, S, P, true>(a, b, view, at + in_step);
        else
            packs_work<E, S, P, false>(a, b, view, at + in_step);
    }
}

/* With a table as many blocks as fit the GPU at once, else one a step. */
template <typename E, enum book_search S, int P>
static enum err_code fast_launch_packs(struct cuda_kern *c, const struct fast_args &a,
                                       const struct book *book, struct err *e)
{
    const int threads = fast_threads(S);
    void (*const kernel)(struct fast_args) = fast_kernel<E, S, P>;
    int64_t blocks = ceil_div(a.n, fast_step(S, P));
    size_t bytes = 0;
    if (!is_grid(S)) {
        int resident = 0;
        bytes = (size_t)values_of(book) * sizeof(float) +
                (size_t)book->n_cells * sizeof(struct book_cell);
        CUDA_TRY(
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
            "shared memory of a quantizer");
        CUDA_TRY(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, kernel, threads, bytes),
                 "quantizing");
        const int64_t most = (int64_t)c->n_multiprocessors * (resident > 0 ? resident : 1);
        blocks = blocks < most ? blocks : most;
    }
    kernel<<<(unsigned)blocks, threads, bytes, c->stream>>>(a);
    return cuda_launched("quantizing", e);
}

template <typename E, enum book_search S>
static enum err_code fast_launch_search(struct cuda_kern *c, const struct fast_args &a,
                                        const struct book *book, struct err *e)
{
    if (a.maxima != NULL)
        return fast_launch_packs<E, S, PACKS_KNOWN>(c, a, book, e);
    /* Two rounds of all multiprocessors, four blocks each. */
    const int64_t large = 8 * c->n_multiprocessors * fast_step(S, PACKS_MANY);
    return a.chunks > PACKS_FEW || a.n >= large ? fast_launch_packs<E, S, PACKS_MANY>(c, a, book, e)
                                                : fast_launch_packs<E, S, PACKS_FEW>(c, a, book, e);
}

template <typename E>
static enum err_code fast_launch(struct cuda_kern *c, const struct fast_args &a,
                                 const struct book *book, struct err *e)
{
    switch (book->search) {
    case SEARCH_STEPS:
        return fast_launch_search<E, SEARCH_STEPS>(c, a, book, e);
    case SEARCH_FLOATS:
        return fast_launch_search<E, SEARCH_FLOATS>(c, a, book, e);
    case SEARCH_EVEN:
        return fast_launch_search<E, SEARCH_EVEN>(c, a, book, e);
    case SEARCH_BINADES:
        return fast_launch_search<E, SEARCH_BINADES>(c, a, book, e);
    case SEARCH_HALVING:
        break;
    }
    return fast_launch_search<E, SEARCH_HALVING>(c, a, book, e);
}

#endif
