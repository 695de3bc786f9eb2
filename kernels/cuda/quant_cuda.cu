/* Blockwise quantize-dequantize (quantization spec, section 1): m = max |y| of the block, t = y / m correctly rounded,
 * j = number of midpoints strictly below t, x = F[j] * m (+ mean), rounded to fp16 unless told otherwise. Every
 * rounding is pinned, so that indices are those of the cpu backend under all options.
 *
 * The maxima of blocks of 32 to 4096 weights are found while the weights are in registers (quant_fast.cuh). Other block
 * sizes find the maxima beforehand; centering, kept columns and codes take a kernel that goes element by element. */
#include <string.h>

#include "kernels/cuda/quant_fast.cuh"

static constexpr int THREADS = 256;

/* ---- any option: element by element ---- */

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

/* ---- launchers ---- */

static enum err_code maxima_launch(struct cuda_kern *c, const struct quant_setup *s, bool is_plain,
                                   struct err *e)
{
    const unsigned blocks = grid_for(segments_of(s->src.n_blocks, s->src.block) * WARP, THREADS);
    CUDA_TRY(cudaMemsetAsync(s->maxima, 0, (size_t)s->src.n_blocks * sizeof *s->maxima, c->stream),
             "maxima of blocks");
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

static __global__ void absmax_kernel(uint16_t *absmax, const unsigned *maxima, int64_t n)
{
    for (int64_t i = grid_thread(); i < n; i += grid_threads())
        absmax[i] = (uint16_t)maxima[i];
}

/* The maxima of blocks that no warp holds. */
static enum err_code maxima_first(struct cuda_kern *c, const struct quant_sink &k,
                                  const struct quant_setup *s, struct err *e)
{
    const int64_t n = s->src.n_blocks;
    TRY(maxima_launch(c, s, true, e));
    if (k.absmax == NULL)
        return ERR_OK;
    absmax_kernel<<<grid_for(n, THREADS), THREADS, 0, c->stream>>>(k.absmax, s->maxima, n);
    return cuda_launched("maxima of blocks", e);
}

/* Of a power of two from 32 to 4096; else 0. */
static int held_log2(int64_t block)
{
    for (int i = 5; i <= 12; i++)
        if (block == (int64_t)1 << i)
            return i;
    return 0;
}

template <typename E>
static enum err_code run_plain(struct cuda_kern *c, const struct quant_sink &k,
                               const struct quant_setup *s, const struct book *book, struct err *e)
{
    const int64_t block = s->src.block;
    struct fast_args a = {
        k, book->grid, s->src.w16, s->src.n, block, WARP, 1, held_log2(block), NULL, s->faults,
    };
    if (a.log2 == 0) {
        TRY(maxima_first(c, k, s, e));
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

/* Books on both sides, found by what they were made from: a quantile book belongs to one tensor and one k, and
 * configurations come back to it. A full set gives up the oldest. Its device memory is then written by the same stream,
 * behind the kernels that read it. */
static constexpr int BOOKS = 896, CHAINS = 1024;
static_assert(BOOKS * sizeof(struct book) <= (size_t)32 << 20, "books take little of the GPU");

struct kept_book {
    float v[BOOK_MAX];
    int n;                  /* of v */
    struct kept_book *next; /* of its chain */
    struct book host;
    struct cuda_buffer device;
};

struct cuda_book {
    struct kept_book *chain[CHAINS];
    struct kept_book *kept[BOOKS]; /* by age from `oldest` on; NULL or n = 0: nothing kept */
    int oldest;
};

void cuda_book_close(struct cuda_kern *c)
{
    if (c->book == NULL)
        return;
    for (int i = 0; i < BOOKS; i++) {
        if (c->book->kept[i] != NULL)
            cuda_buffer_release(&c->book->kept[i]->device);
        xfree(c->book->kept[i]);
    }
    xfree(c->book);
    c->book = NULL;
}

/* The chain of v[n]. Multiplying carries differences up; the shift brings them down again for the next value. */
static struct kept_book **chain_of(struct cuda_book *all, const float *v, int n)
{
    uint64_t hash = (uint64_t)n;
    for (int i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &v[i], sizeof bits);
        hash = (hash ^ bits) * 0x9e3779b97f4a7c15U;
        hash ^= hash >> 32;
    }
    return &all->chain[hash % CHAINS];
}

static struct kept_book *book_find(struct kept_book *chain, const float *v, int n)
{
    while (chain != NULL && (chain->n != n || memcmp(chain->v, v, (size_t)n * sizeof *v) != 0))
        chain = chain->next;
    return chain;
}

/* The place of the oldest book, or a new one; in no chain. */
static struct kept_book *book_take(struct cuda_book *all)
{
    struct kept_book **place = &all->kept[all->oldest];
    if (*place == NULL)
        *place = (struct kept_book *)xcalloc(1, sizeof **place);
    struct kept_book *b = *place;
    if (b->n > 0) {
        struct kept_book **at = chain_of(all, b->v, b->n);
        while (*at != b)
            at = &(*at)->next;
        *at = b->next;
    }
    b->n = 0;
    return b;
}

static enum err_code book_upload(struct cuda_kern *c, struct kept_book *b, struct err *e)
{
    static const char what[] = "codebook to the GPU";
    void *room; /* for the largest, so that it stays when the place gets another one */
    TRY(cuda_buffer_get(c, &b->device, sizeof b->host, what, &room, e));
    return cuda_keep(c, &b->device, &b->host, book_bytes(&b->host), what, e);
}

static enum err_code book_get(struct cuda_kern *c, const struct kern_quant_args *a,
                              const struct kept_book **out, struct err *e)
{
    if (c->book == NULL)
        c->book = (struct cuda_book *)xcalloc(1, sizeof *c->book);
    struct cuda_book *all = c->book;
    struct kept_book **chain = chain_of(all, a->book, a->n_book);
    *out = book_find(*chain, a->book, a->n_book);
    if (*out != NULL)
        return ERR_OK;
    struct kept_book *b = book_take(all);
    book_init(&b->host, a->book, a->n_book);
    TRY(book_upload(c, b, e));
    memcpy(b->v, a->book, (size_t)a->n_book * sizeof *a->book);
    b->n = a->n_book;
    b->next = *chain;
    *chain = b;
    all->oldest = (all->oldest + 1) % BOOKS;
    *out = b;
    return ERR_OK;
}

static enum err_code run(struct cuda_kern *c, const struct kern_quant_args *a,
                         const struct kept_book *book, const struct quant_setup *s, struct err *e)
{
    const struct quant_sink sink = {(const struct book *)book->device.p, a->out, a->codes,
                                    a->absmax, a->is_dequant_fp32};
    if (is_plain(sink, &s->src))
        CUDA_BY_TYPE(c, return run_plain<E>(c, sink, s, &book->host, e));
    else
        CUDA_BY_TYPE(c, return run_any<E>(c, sink, s, e));
    return ERR_OK;
}

enum err_code cuda_quantize(struct kern *k, const struct kern_quant_args *a, struct err *e)
{
    struct cuda_kern *c = cuda_of(k);
    struct quant_setup s;
    const struct kept_book *book;
    TRY(check_book(a, e));
    TRY(book_get(c, a, &book, e));
    TRY(quant_setup_init(c, a, &s, e));
    const enum err_code code = run(c, a, book, &s, e);
    if (code != ERR_OK)
        return quant_setup_abandon(c, code);
    if (!a->is_checked_later)
        return quant_setup_check(c, &s, e);
    quant_setup_check_later(c, &s);
    return ERR_OK;
}
