/* Blockwise quantize-dequantize (quantization spec, section 1): m = max |y| of the block, t = y / m correctly rounded,
 * j = number of midpoints strictly below t, x = F[j] * m (+ mean), rounded to fp16 unless told otherwise. Every
 * rounding is pinned, so that indices are those of the cpu backend under all options.
 *
 * The maxima of blocks of 32 to 4096 weights are found while the weights are in registers: 2 bytes read and one
 * element written a weight. Other block sizes find the
 * maxima beforehand; centering, kept columns and codes take a kernel that goes element by element. */
#include <string.h>

#include "kernels/cuda/quant_book.cuh"
#include "kernels/cuda/quant_source.cuh"

static constexpr int THREADS = 256;

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

/* ---- any option: element by element ---- */

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

/* As maxima_kernel, for weights as they are and blocks that start at multiples of eight. */
static __global__ void maxima_plain_kernel(unsigned *maxima, struct quant_source s,
                                           struct quant_faults *faults)
{
    const int lane = threadIdx.x % WARP;
    const int64_t n_segments = segments_of(s.n_blocks, s.block);
    for (int64_t i = grid_thread() / WARP; i < n_segments; i += grid_threads() / WARP) {
        const struct segment g = segment_at(i, s.n, s.block);
        unsigned most = 0;
#pragma unroll 4
        for (int64_t at = g.start + lane * 8; at < g.end; at += WARP * 8) {
            const unsigned max = weights_max(weights_load(s.w16, at, g.end));
            if (max >= F16_INFINITY)
                weights_fault(s.w16, at, g.end, faults);
            most = max > most ? max : most;
        }
        most = __reduce_max_sync(ALL_LANES, most);
        if (lane == 0)
            atomicMax(&maxima[g.block], most);
    }
}

static __global__ void maxima_kernel(unsigned *maxima, struct quant_source s,
                                     struct quant_faults *faults)
{
    const int lane = threadIdx.x % WARP;
    const int64_t n_segments = segments_of(s.n_blocks, s.block);
    for (int64_t i = grid_thread() / WARP; i < n_segments; i += grid_threads() / WARP) {
        const struct segment g = segment_at(i, s.n, s.block);
        unsigned most = 0;
        for (int64_t at = g.start + lane; at < g.end; at += WARP) {
            const unsigned mag = source_at(s, at) & F16_MAGNITUDE;
            if (mag >= F16_INFINITY)
                fault_note(&faults->source, at);
            most = mag > most ? mag : most;
        }
        most = __reduce_max_sync(ALL_LANES, most);
        if (lane == 0)
            atomicMax(&maxima[g.block], most);
    }
}

template <typename E>
static __global__ void write_kernel(struct quant_sink k, struct quant_source s,
                                    const unsigned *maxima, struct quant_faults *faults)
{
    __shared__ float mid[BOOK_MAX], value[BOOK_MAX];
    for (int i = threadIdx.x; i < BOOK_MAX; i += blockDim.x) {
        mid[i] = k.book->mid[i];
        value[i] = k.book->value[i];
    }
    __syncthreads();
    const int steps = k.book->steps;
    for (int64_t i = grid_thread(); i < s.n; i += grid_threads()) {
        const int64_t b = i / s.block;
        const float m = f16_value(maxima[b]);
        const bool is_kept = is_kept_at(s, i);
        const float y = f16_value(source_at(s, i));
        const int place = book_find_halving(mid, steps, m > 0.0F ? __fdiv_rn(y, m) : 0.0F);
        const float mean = s.means != NULL ? f16_value(mean_at(s, i)) : nothing_to_add(m);
        if (k.absmax != NULL && i == b * s.block)
            k.absmax[b] = (uint16_t)maxima[b];
        if (k.codes != NULL)
            k.codes[i] = is_kept ? 0 : k.book->code[place];
        if (k.out == NULL)
            continue;
        const float product = __fmul_rn(m > 0.0F ? value[place] : 0.0F, m);
        E x = round_value<E>(__fadd_rn(product, mean), k.is_fp32);
        x = is_kept ? from_f32<E>(f16_value(s.w16[i])) : x;
        ((E *)k.out)[i] = x;
        if (!isfinite(to_f32(x)))
            fault_note(&faults->out, i);
    }
}

/* ---- the usual options: whole blocks in registers ---- */

/* y / m correctly rounded, r = 1 / m correctly rounded: one Newton step on the quotient. Exact for all pairs of binary16
 * numbers, whose quotients and remainders stay within the normal range of binary32 (tests/kernels/test_cuda.c goes
 * through all pairs of significands). m = 0 comes with r = 0 and gives 0. */
static __device__ __forceinline__ float quotient(float y, float m, float r)
{
    const float q = __fmul_rn(y, r);
    return __fmaf_rn(__fmaf_rn(-q, m, y), r, q);
}

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

/* A block is `lanes` neighbouring lanes with eight weights each, or `chunks` times what a warp reads at once. With
 * `maxima` (any block that is a multiple of eight) they are known already. */
struct fast_args {
    struct quant_sink sink;
    const uint16_t *w16;
    int64_t n, block;
    int lanes, chunks;
    const unsigned *maxima;
    struct quant_faults *faults;
};

template <typename E, enum book_search S, bool IS_WHOLE>
static __device__ __forceinline__ void
weights_write(const struct fast_args &a, const struct shared_book<S> &b,
              const struct book_view &view, int64_t at, uint4 w, unsigned max)
{
    const __half2 *h = reinterpret_cast<const __half2 *>(&w);
    const float m = f16_value(max), r = m > 0.0F ? __frcp_rn(m) : 0.0F, add = nothing_to_add(m);
    pack<E, 8> x;
    if (max >= F16_INFINITY)
        return; /* the call fails; a quotient that is no number has no cell */
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const float y = i % 2 == 0 ? __low2float(h[i / 2]) : __high2float(h[i / 2]);
        /* The sum with a zero is exact: one rounding, that of the product. */
        const float product = __fmaf_rn(book_value<S>(b, view, quotient(y, m, r)), m, add);
        x.v[i] = round_value<E>(product, a.sink.is_fp32);
    }
    if (IS_WHOLE)
        pack_store<E, 8>((E *)a.sink.out + at, 0, x);
    else
        pack_write<E>((E *)a.sink.out, at, a.n, x);
}

static __device__ __forceinline__ unsigned checked_max(const struct fast_args &a, uint4 w,
                                                       int64_t at)
{
    const unsigned max = weights_max(w);
    if (max >= F16_INFINITY)
        weights_fault(a.w16, at, a.n, a.faults);
    return max;
}

static __device__ __forceinline__ unsigned lanes_max(unsigned max, int lanes)
{
    for (int o = lanes / 2; o > 0; o /= 2) {
        const unsigned other = __shfl_xor_sync(ALL_LANES, max, o);
        max = other > max ? other : max;
    }
    return max;
}

static __device__ __forceinline__ void max_store(const struct fast_args &a, int64_t at,
                                                 unsigned max)
{
    if (a.sink.absmax != NULL && at < a.n && at % a.block == 0)
        a.sink.absmax[at / a.block] = (uint16_t)max;
}

static constexpr int PACKS = 4;                      /* a lane */
static constexpr int64_t PACKS_STEP = WARP * 8;      /* weights that a warp reads at once */
static constexpr int64_t STEP = PACKS * THREADS * 8; /* weights that a block works on at a time */

template <bool IS_WHOLE>
static __device__ __forceinline__ uint4 pack_read(const struct fast_args &a, int64_t at)
{
    return IS_WHOLE ? *reinterpret_cast<const uint4 *>(a.w16 + at) : weights_load(a.w16, at, a.n);
}

/* Blocks of at most 256 weights, or known maxima: four packs a lane, each with its own block. IS_WHOLE: all of the
 * warp's weights lie within the tensor. */
template <typename E, enum book_search S, bool IS_WHOLE>
static __device__ __forceinline__ void short_blocks(const struct fast_args &a,
                                                    const struct shared_book<S> &b,
                                                    const struct book_view &view, int64_t start)
{
    uint4 w[PACKS];
#pragma unroll
    for (int i = 0; i < PACKS; i++)
        w[i] = pack_read<IS_WHOLE>(a, start + i * PACKS_STEP);
#pragma unroll
    for (int i = 0; i < PACKS; i++) {
        const int64_t at = start + i * PACKS_STEP;
        unsigned max = 0;
        if (a.maxima == NULL)
            max = lanes_max(checked_max(a, w[i], at), a.lanes);
        else if (at < a.n)
            max = a.maxima[at / a.block];
        max_store(a, at, max);
        weights_write<E, S, IS_WHOLE>(a, b, view, at, w[i], max);
    }
}

template <enum book_search S>
static __device__ __forceinline__ struct book_view book_copy(struct shared_book<S> *b,
                                                             const struct book *book)
{
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

/* Blocks of 512 to 4096 weights: eight warps take STEP weights, whose maxima by PACKS_STEP they share. `chunk` is
 * another one in the next step, so that one barrier a step is enough. */
template <typename E, enum book_search S, bool IS_WHOLE>
static __device__ __forceinline__ void
long_blocks(const struct fast_args &a, const uint4 *w, const struct shared_book<S> &b,
            const struct book_view &view, int64_t start, unsigned *chunk)
{
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
#pragma unroll
    for (int i = 0; i < PACKS; i++) {
        const unsigned mine = checked_max(a, w[i], start + i * THREADS * 8);
        const unsigned max = __reduce_max_sync(ALL_LANES, mine);
        if (lane == 0)
            chunk[i * (THREADS / WARP) + warp] = max;
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < PACKS; i++) {
        const int mine = i * (THREADS / WARP) + warp, first = mine / a.chunks * a.chunks;
        const unsigned part = lane < a.chunks ? chunk[first + lane] : 0;
        const unsigned max = __reduce_max_sync(ALL_LANES, part);
        max_store(a, start + i * THREADS * 8, max);
        weights_write<E, S, IS_WHOLE>(a, b, view, start + i * THREADS * 8, w[i], max);
    }
}

/* A lane's packs of the next step. */
static __device__ __forceinline__ void packs_read(const struct fast_args &a, int64_t at,
                                                  bool is_whole, uint4 w[PACKS])
{
#pragma unroll
    for (int i = 0; i < PACKS; i++)
        w[i] = is_whole ? pack_read<true>(a, at + i * THREADS * 8)
                        : pack_read<false>(a, at + i * THREADS * 8);
}

template <typename E, enum book_search S>
static __global__ void __launch_bounds__(THREADS) short_kernel(struct fast_args a)
{
    __shared__ struct shared_book<S> b;
    const struct book_view view = book_copy<S>(&b, a.sink.book);
    __syncthreads();
    const int64_t in_step =
        threadIdx.x / WARP * (PACKS * PACKS_STEP) + (int64_t)(threadIdx.x % WARP * 8);
    for (int64_t at = blockIdx.x * STEP; at < a.n; at += gridDim.x * STEP) {
        if (at + STEP <= a.n)
            short_blocks<E, S, true>(a, b, view, at + in_step);
        else
            short_blocks<E, S, false>(a, b, view, at + in_step);
    }
}

/* A barrier shares the maxima of a block; the next step's weights are on their way meanwhile. */
template <typename E, enum book_search S>
static __global__ void __launch_bounds__(THREADS, 4) long_kernel(struct fast_args a)
{
    __shared__ struct shared_book<S> b;
    __shared__ unsigned chunk[2][STEP / PACKS_STEP];
    const struct book_view view = book_copy<S>(&b, a.sink.book);
    __syncthreads();
    const int64_t in_step = (int64_t)threadIdx.x * 8, stride = gridDim.x * STEP;
    int64_t at = blockIdx.x * STEP;
    int phase = 0;
    uint4 w[PACKS], next[PACKS];
    packs_read(a, at + in_step, at + STEP <= a.n, next);
    for (; at < a.n; at += stride, phase ^= 1) {
#pragma unroll
        for (int i = 0; i < PACKS; i++)
            w[i] = next[i];
        if (at + stride < a.n)
            packs_read(a, at + stride + in_step, at + stride + STEP <= a.n, next);
        if (at + STEP <= a.n)
            long_blocks<E, S, true>(a, w, b, view, at + in_step, chunk[phase]);
        else
            long_blocks<E, S, false>(a, w, b, view, at + in_step, chunk[phase]);
    }
}

/* As many blocks as fit the GPU at once: each copies the book once and walks over the tensor. */
static enum err_code kernel_launch(struct cuda_kern *c, void (*kernel)(struct fast_args),
                                   const struct fast_args &a, const struct book *book,
                                   struct err *e)
{
    const size_t bytes =
        (size_t)values_of(book) * sizeof(float) + (size_t)book->n_cells * sizeof(struct book_cell);
    int resident = 0;
    CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
             "shared memory of a quantizer");
    CUDA_TRY(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, kernel, THREADS, bytes),
             "quantizing");
    const int64_t most = (int64_t)c->n_multiprocessors * (resident > 0 ? resident : 1);
    const int64_t blocks = ceil_div(a.n, STEP);
    kernel<<<(unsigned)(blocks < most ? blocks : most), THREADS, bytes, c->stream>>>(a);
    return cuda_launched("quantizing", e);
}

template <typename E, enum book_search S>
static enum err_code fast_launch_search(struct cuda_kern *c, const struct fast_args &a,
                                        const struct book *book, struct err *e)
{
    return kernel_launch(c, a.chunks > 1 ? long_kernel<E, S> : short_kernel<E, S>, a, book, e);
}

template <typename E>
static enum err_code fast_launch(struct cuda_kern *c, const struct fast_args &a,
                                 const struct book *book, struct err *e)
{
    switch (book->search) {
    case SEARCH_EVEN:
        return fast_launch_search<E, SEARCH_EVEN>(c, a, book, e);
    case SEARCH_BINADES:
        return fast_launch_search<E, SEARCH_BINADES>(c, a, book, e);
    case SEARCH_HALVING:
        break;
    }
    return fast_launch_search<E, SEARCH_HALVING>(c, a, book, e);
}

/* ---- launchers ---- */

static enum err_code maxima_launch(struct cuda_kern *c, const struct quant_setup *s, bool is_plain,
                                   struct err *e)
{
    const unsigned blocks = grid_for(segments_of(s->src.n_blocks, s->src.block) * WARP, THREADS);
    if (is_plain)
        maxima_plain_kernel<<<blocks, THREADS, 0, c->stream>>>(s->maxima, s->src, s->faults);
    else
        maxima_kernel<<<blocks, THREADS, 0, c->stream>>>(s->maxima, s->src, s->faults);
    return cuda_launched("maxima of blocks", e);
}

template <typename E>
static enum err_code run_any(struct cuda_kern *c, const struct quant_sink &k,
                             const struct quant_setup *s, struct err *e)
{
    TRY(maxima_launch(c, s, false, e));
    write_kernel<E>
        <<<grid_for(s->src.n, THREADS), THREADS, 0, c->stream>>>(k, s->src, s->maxima, s->faults);
    return cuda_launched("quantizing", e);
}

static bool is_power_of_two(int64_t x)
{
    return (x & (x - 1)) == 0;
}

template <typename E>
static enum err_code run_plain(struct cuda_kern *c, const struct quant_sink &k,
                               const struct quant_setup *s, const struct book *book, struct err *e)
{
    const int64_t block = s->src.block;
    struct fast_args a = {k, s->src.w16, s->src.n, block, WARP, 1, NULL, s->faults};
    if (block < 32 || block > 4096 || !is_power_of_two(block)) {
        TRY(maxima_launch(c, s, true, e));
        a.maxima = s->maxima;
    } else if (block <= PACKS_STEP) {
        a.lanes = (int)(block / 8);
    } else {
        a.chunks = (int)(block / PACKS_STEP);
    }
    return fast_launch<E>(c, a, book, e);
}

/* Packs of eight lie within one block and can be read and written in one piece. */
static bool is_plain(const struct quant_sink &k, const struct quant_source *s)
{
    const uintptr_t at = (uintptr_t)s->w16 | (uintptr_t)k.out;
    return s->means == NULL && s->is_kept == NULL && k.codes == NULL && k.out != NULL &&
           at % 16 == 0 && (s->block % 8 == 0 || s->n_blocks == 1);
}

static enum err_code check_book(const struct kern_quant_args *a, struct err *e)
{
    if (a->n_book < 1 || a->n_book > BOOK_MAX)
        return err_set(e, ERR_FORMAT, "a codebook of %d entries; 1 to %d are possible", a->n_book,
                       BOOK_MAX);
    for (int j = 0; j < a->n_book; j++) {
        if (!(fabsf(a->book[j]) <= 1) || (j > 0 && a->book[j] < a->book[j - 1]))
            return err_set(e, ERR_FORMAT,
                           "codebook entry %d (%g) is not within -1..1 and ascending", j,
                           (double)a->book[j]);
    }
    return ERR_OK;
}

/* Books on both sides: most tensors of a configuration share one, and configurations that take turns layer by layer come back
 * to theirs. */
enum { BOOKS = 32 };
struct kept_book {
    float v[BOOK_MAX]; /* what it was made from */
    int n;             /* 0: nothing yet */
    struct book host;
    struct cuda_buffer device;
};

struct cuda_book {
    struct kept_book kept[BOOKS];
    int next; /* whose place the next new one takes */
};

void cuda_book_close(struct cuda_kern *c)
{
    if (c->book == NULL)
        return;
    for (int i = 0; i < BOOKS; i++)
        cuda_buffer_release(&c->book->kept[i].device);
    xfree(c->book);
    c->book = NULL;
}

static enum err_code book_make(struct cuda_kern *c, const struct kern_quant_args *a,
                               struct kept_book *b, struct err *e)
{
    static const char what[] = "codebook to the GPU";
    void *device;
    b->n = 0;
    book_init(&b->host, a->book, a->n_book);
    TRY(cuda_buffer_get(c, &b->device, sizeof b->host, what, &device, e));
    CUDA_TRY(
        cudaMemcpyAsync(device, &b->host, book_bytes(&b->host), cudaMemcpyHostToDevice, c->stream),
        what);
    memcpy(b->v, a->book, (size_t)a->n_book * sizeof *a->book);
    b->n = a->n_book;
    return ERR_OK;
}

static enum err_code book_get(struct cuda_kern *c, const struct kern_quant_args *a,
                              const struct kept_book **out, struct err *e)
{
    const size_t bytes = (size_t)a->n_book * sizeof *a->book;
    if (c->book == NULL)
        c->book = (struct cuda_book *)xcalloc(1, sizeof *c->book);
    struct cuda_book *all = c->book;
    for (int i = 0; i < BOOKS; i++) {
        *out = &all->kept[i];
        if ((*out)->n == a->n_book && memcmp((*out)->v, a->book, bytes) == 0)
            return ERR_OK;
    }
    struct kept_book *b = &all->kept[all->next];
    all->next = (all->next + 1) % BOOKS;
    *out = b;
    return book_make(c, a, b, e);
}

enum err_code cuda_quantize(struct kern *k, const struct kern_quant_args *a, struct err *e)
{
    struct cuda_kern *c = cuda_of(k);
    struct quant_setup s;
    const struct kept_book *book;
    TRY(check_book(a, e));
    TRY(quant_setup_init(c, a, &s, e));
    TRY(book_get(c, a, &book, e));
    const struct quant_sink sink = {(const struct book *)book->device.p, a->out, a->codes,
                                    a->absmax, a->is_dequant_fp32};
    if (is_plain(sink, &s.src))
        CUDA_BY_TYPE(c, TRY(run_plain<E>(c, sink, &s, &book->host, e)));
    else
        CUDA_BY_TYPE(c, TRY(run_any<E>(c, sink, &s, e)));
    return quant_setup_check(c, &s, e);
}
