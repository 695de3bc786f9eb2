/* State of the cpu backend and the functions that fill its table. Device memory is ordinary memory and every
 * call is finished when it returns, so upload and download are copies and sync does nothing. Work is cut
 * into pieces whose shape never depends on the number of threads, and a piece belongs to one thread: results
 * are the same for any number of threads. Private to kernels/cpu. */
#ifndef ISOBIT_KERNELS_CPU_CPU_H
#define ISOBIT_KERNELS_CPU_CPU_H

#include "kernels/backend.h"
#include "kernels/cpu/vec.h"

/* Grows to the largest request so far and stays, so that nothing is allocated between equal batches. */
struct cpu_scratch {
    void *p;
    size_t bytes;
};

/* Of the last embedding: rotary_fill's table. */
struct cpu_rotary {
    int dims;
    float base;
    int64_t n_pos;
    struct cpu_scratch table;
};

struct cpu_kern {
    struct kern base; /* first */
    const struct vec_ops *vec;
    struct product_state *product; /* product.h */
    int threads;
    struct cpu_scratch scratch; /* of the call that runs */
    struct cpu_rotary rotary;
};

static inline struct cpu_kern *cpu_of(struct kern *k)
{
    return (struct cpu_kern *)(void *)k;
}

/* At least `bytes` bytes, 64-byte aligned, valid until the next call. Errors: ERR_NOMEM. */
MUST_USE enum err_code cpu_scratch_get(struct cpu_scratch *s, size_t bytes, void **out,
                                       struct err *e);
void cpu_scratch_release(struct cpu_scratch *s);

/* Number of the calling thread within its parallel region, 0..threads-1. */
int cpu_thread(void);

enum err_code cpu_linear(struct kern *k, const struct kern_linear_args *a, struct err *e);
/* Rotates rows of N elements (rotary_cpu.c). */
MUST_USE enum err_code cpu_rotate(struct cpu_kern *c, const struct kern_rotary *r, float *y,
                                  int64_t N, struct err *e);
enum err_code cpu_attention(struct kern *k, const struct kern_attention_args *a, struct err *e);
enum err_code cpu_embed(struct kern *k, const struct kern_embed_args *a, struct err *e);
enum err_code cpu_copy_rows(struct kern *k, const struct kern_rows_args *a, struct err *e);
enum err_code cpu_layernorm(struct kern *k, const struct kern_norm_args *a, struct err *e);
enum { CPU_HEAD_STEP = 256 }; /* columns of a tile of logits */
int64_t cpu_head_bytes(int64_t V, int64_t R, int64_t n);
enum err_code cpu_score(struct kern *k, const struct kern_score_args *a, struct err *e);
enum err_code cpu_kl(struct kern *k, const struct kern_kl_args *a, struct err *e);
enum err_code cpu_logits(struct kern *k, const struct kern_logits_args *a, struct err *e);
enum err_code cpu_quantize(struct kern *k, const struct kern_quant_args *a, struct err *e);
enum err_code cpu_order_statistics(struct kern *k, const struct kern_quant_args *a,
                                   const int64_t *rank, int n, float *value, struct err *e);
enum err_code cpu_spread(struct kern *k, const uint16_t *w16, int64_t rows, int64_t cols,
                         bool by_rows, unsigned __int128 *keys, struct err *e);

#endif
