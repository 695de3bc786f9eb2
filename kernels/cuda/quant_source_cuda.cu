/* quant_source.cuh: checks, kept columns, means and faults of one call. */
#include <string.h>

#include "kernels/cuda/quant_source.cuh"
#include "kernels/quant_check.h"

static constexpr int THREADS = 256;

/* The sum of a block in units of 2^-24 as high * 2^32 + low, and how many weights are in it: parts that 64-bit
 * atomics can add. */
struct sum_parts {
    unsigned long long low;
    long long high;
    unsigned long long n;
};

/* ---- means ---- */

static __device__ __forceinline__ int64_t warp_sum_units(int64_t x)
{
    for (int o = WARP / 2; o > 0; o /= 2)
        x += __shfl_xor_sync(ALL_LANES, (long long)x, o);
    return x;
}

/* A warp a segment: 4096 weights of less than 2^40 units stay below 2^52. */
static __global__ void sums_kernel(struct sum_parts *sums, struct quant_source s,
                                   struct quant_faults *faults)
{
    const int lane = threadIdx.x % WARP;
    const int64_t n_segments = segments_of((s.n + s.mean_block - 1) / s.mean_block, s.mean_block);
    for (int64_t i = grid_thread() / WARP; i < n_segments; i += grid_threads() / WARP) {
        const struct segment g = segment_at(i, s.n, s.mean_block);
        int64_t units = 0, count = 0;
        for (int64_t at = g.start + lane; at < g.end; at += WARP) {
            const unsigned w = s.w16[at];
            if ((w & F16_MAGNITUDE) >= F16_INFINITY)
                fault_note(&faults->weight, at);
            else if (!is_kept_at(s, at)) {
                units += f16_units(w);
                count++;
            }
        }
        units = warp_sum_units(units);
        count = warp_sum_units(count);
        if (lane == 0) {
            struct sum_parts *p = &sums[g.block];
            atomicAdd(&p->low, (unsigned long long)(units & 0xffffffff));
            atomicAdd((unsigned long long *)&p->high, (unsigned long long)(units >> 32));
            atomicAdd(&p->n, (unsigned long long)count);
        }
    }
}

/* fp16(units / n * 2^-24), rounded once to nearest even. In these units the spacing of binary16 is 2^shift, where a
 * quotient of 11 + shift bits has its leading 11 bits kept; below 2^11 it is 1, subnormal or not. The carry of
 * rounding up runs into the exponent as it should. */
static __device__ uint16_t mean_round(const struct sum_parts &p)
{
    const __int128 units = ((__int128)p.high << 32) + (__int128)p.low;
    if (p.n == 0)
        return 0;
    const unsigned __int128 n = p.n, mag = (unsigned __int128)(units < 0 ? -units : units);
    const uint64_t whole = (uint64_t)(mag / n), rest = (uint64_t)(mag % n);
    int shift = 0;
    while (whole >> shift >= 2048)
        shift++;
    const uint64_t kept = whole >> shift;
    /* Twice the dropped part against one spacing, both in units of 1/n. */
    const unsigned __int128 dropped = (unsigned __int128)(whole - (kept << shift)) * n + rest;
    const unsigned __int128 spacing = n << shift;
    const bool is_up = 2 * dropped > spacing || (2 * dropped == spacing && (kept & 1) != 0);
    const uint64_t bits = ((uint64_t)shift << 10) + kept + (is_up ? 1 : 0);
    return (uint16_t)(bits | (units < 0 ? 0x8000U : 0U));
}

static __global__ void means_kernel(uint16_t *means, const struct sum_parts *sums, int64_t n)
{
    for (int64_t i = grid_thread(); i < n; i += grid_threads())
        means[i] = mean_round(sums[i]);
}

static enum err_code means_launch(struct cuda_kern *c, const struct quant_setup *s,
                                  struct sum_parts *sums, uint16_t *means, struct err *e)
{
    const int64_t n = ceil_div(s->src.n, s->src.mean_block);
    const int64_t warps = segments_of(n, s->src.mean_block);
    sums_kernel<<<grid_for(warps * WARP, THREADS), THREADS, 0, c->stream>>>(sums, s->src,
                                                                            s->faults);
    TRY(cuda_launched("sums of weights", e));
    means_kernel<<<grid_for(n, THREADS), THREADS, 0, c->stream>>>(means, sums, n);
    return cuda_launched("means of weights", e);
}

/* ---- setting up ---- */

static enum err_code source_init(const struct kern_quant_args *a, struct quant_source *s,
                                 struct err *e)
{
    *s = {};
    TRY(quant_check_shape(a, &s->n, &s->block, e));
    s->w16 = a->w16;
    s->cols = a->cols;
    s->n_blocks = ceil_div(s->n, s->block);
    s->mean_block = a->center == KERN_CENTER_BLOCK ? s->block : s->n;
    return ERR_OK;
}

static enum err_code keep_upload(struct cuda_kern *c, const struct kern_quant_args *a,
                                 struct quant_source *s, struct err *e)
{
    void *device = NULL;
    if (a->n_keep <= 0)
        return ERR_OK;
    TRY(quant_check_keep(a, e));
    uint8_t *is_kept = (uint8_t *)xcalloc((size_t)a->cols, 1);
    for (int32_t i = 0; i < a->n_keep; i++)
        is_kept[a->keep[i]] = 1;
    enum err_code code = cuda_push(c, is_kept, (size_t)a->cols, &device, e);
    xfree(is_kept);
    s->is_kept = (const uint8_t *)device;
    return code;
}

/* Faults of calls, in pinned memory where kernels note them, so that a call without any has nothing to copy: those to be
 * checked later in order, the last place for one that is checked at once. Only the call that took a place writes there. */
struct quant_checks {
    struct quant_faults *faults; /* [KERN_QUANT_CALLS + 1] */
    const uint16_t *w16[KERN_QUANT_CALLS];
    int n;
};

void cuda_quant_close(struct cuda_kern *c)
{
    if (c->checks != NULL)
        (void)cudaFreeHost(c->checks->faults);
    xfree(c->checks);
    c->checks = NULL;
}

static enum err_code faults_take(struct cuda_kern *c, const struct kern_quant_args *a,
                                 struct quant_faults **out, struct err *e)
{
    if (c->checks == NULL)
        c->checks = (struct quant_checks *)xcalloc(1, sizeof *c->checks);
    struct quant_checks *all = c->checks;
    if (all->faults == NULL) {
        void *p = NULL;
        CUDA_TRY(
            cudaHostAlloc(&p, (KERN_QUANT_CALLS + 1) * sizeof *all->faults, cudaHostAllocDefault),
            "room for faults of quantizers");
        all->faults = (struct quant_faults *)p;
    }
    CHECK(!a->is_checked_later || all->n < KERN_QUANT_CALLS);
    *out = &all->faults[a->is_checked_later ? all->n : KERN_QUANT_CALLS];
    **out = {INT64_MAX, INT64_MAX, INT64_MAX};
    return ERR_OK;
}

/* Scratch: sums, maxima, means. */
static enum err_code room_make(struct cuda_kern *c, struct quant_setup *s, int64_t n_means,
                               struct sum_parts **sums, uint16_t **means, struct err *e)
{
    static const char what[] = "scratch memory of a quantizer";
    const size_t sum_bytes = (size_t)n_means * sizeof(struct sum_parts);
    const size_t max_bytes = (size_t)s->src.n_blocks * sizeof(unsigned);
    void *p;
    TRY(cuda_buffer_get(c, &c->scratch, sum_bytes + max_bytes + (size_t)n_means * sizeof **means,
                        what, &p, e));
    *sums = (struct sum_parts *)p;
    s->maxima = (unsigned *)(*sums + n_means);
    *means = (uint16_t *)(s->maxima + s->src.n_blocks);
    if (n_means > 0)
        CUDA_TRY(cudaMemsetAsync(*sums, 0, sum_bytes, c->stream), what);
    return ERR_OK;
}

enum err_code quant_setup_init(struct cuda_kern *c, const struct kern_quant_args *a,
                               struct quant_setup *s, struct err *e)
{
    struct sum_parts *sums;
    uint16_t *means;
    TRY(source_init(a, &s->src, e));
    TRY(faults_take(c, a, &s->faults, e));
    TRY(keep_upload(c, a, &s->src, e));
    const bool is_centered = a->center != KERN_CENTER_NONE;
    TRY(room_make(c, s, is_centered ? ceil_div(s->src.n, s->src.mean_block) : 0, &sums, &means, e));
    if (!is_centered)
        return ERR_OK;
    TRY(means_launch(c, s, sums, means, e));
    s->src.means = means;
    return ERR_OK;
}

/* ---- faults ---- */

static float f16_to_float(uint16_t bits)
{
    __half_raw raw;
    raw.x = bits;
    return __half2float(__half(raw));
}

/* The stream is past the call that noted f. */
static enum err_code faults_report(struct cuda_kern *c, const struct quant_faults &f,
                                   const uint16_t *w16, struct err *e)
{
    uint16_t w;
    const int64_t i = f.weight != INT64_MAX ? f.weight : f.source != INT64_MAX ? f.source : f.out;
    if (i == INT64_MAX)
        return ERR_OK;
    TRY(cuda_pull(c, &w, w16 + i, sizeof w, "a weight from the GPU", e));
    return quant_refuse(i, (w & F16_MAGNITUDE) < F16_INFINITY, (double)f16_to_float(w), e);
}

enum err_code quant_setup_check(struct cuda_kern *c, const struct quant_setup *s, struct err *e)
{
    CUDA_TRY(cudaStreamSynchronize(c->stream), "waiting for a quantizer");
    return faults_report(c, *s->faults, s->src.w16, e);
}

enum err_code quant_setup_abandon(struct cuda_kern *c, enum err_code code)
{
    (void)cudaStreamSynchronize(c->stream);
    return code;
}

void quant_setup_check_later(struct cuda_kern *c, const struct quant_setup *s)
{
    c->checks->w16[c->checks->n++] = s->src.w16;
}

enum err_code cuda_quant_check(struct kern *k, int64_t *call, struct err *e)
{
    struct cuda_kern *c = cuda_of(k);
    const int n = c->checks != NULL ? c->checks->n : 0;
    if (n == 0)
        return ERR_OK;
    c->checks->n = 0;
    CUDA_TRY(cudaStreamSynchronize(c->stream), "waiting for quantizers");
    for (int i = 0; i < n; i++) {
        *call = i;
        TRY(faults_report(c, c->checks->faults[i], c->checks->w16[i], e));
    }
    return ERR_OK;
}
