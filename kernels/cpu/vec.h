/* Inner loops of the cpu backend that need the machine's vector width and fused multiply-add: one table per
 * instruction set, chosen once when the backend opens. The loops are written once (vec_body.h) and compiled by
 * vec_plain.c, vec_avx2.c and vec_avx512.c. Rounding differs between the sets (fused or not), never between runs
 * on one machine. No OpenMP in here: a call is one thread's piece of work. Pure. */
#ifndef ISOBIT_KERNELS_CPU_VEC_H
#define ISOBIT_KERNELS_CPU_VEC_H

#include <stdint.h>

#include "kernels/kernels.h"

/* Attention handles this many query rows at once, one per lane: scores are kept transposed, [key][query], so that
 * the soft max runs down columns without any horizontal step. */
enum { VEC_QUERIES = 16 };

/* One tile of VEC_QUERIES queries of one head against its keys. */
struct vec_attend {
    const float *k, *v; /* [n_keys, head_dim], contiguous */
    const float *q;     /* [head_dim, VEC_QUERIES], scaled; dead lanes zero */
    int64_t n_keys;     /* all that any lane sees */
    int64_t n_common;   /* lane l sees keys j < n_common + l */
    int head_dim;
    const float *slope; /* NULL, or ALiBi: *slope * j is added to the score of key j */
    float *scores;      /* scratch [n_keys, VEC_QUERIES] */
    float *out;         /* [head_dim, VEC_QUERIES]: not yet divided by the sums */
    float *sums;        /* [VEC_QUERIES] */
};

/* Sums over a row piece for the divergence of two rows of logits, relative to p_max: s = sum e^(p - p_max),
 * d = sum e^(p - p_max) * (p - q). */
struct vec_divergence {
    double s, d;
};

/* What follows a product: y[m, n] = act(x[m, n] + bias[n]) (+ y when is_sum); rows are ldy and ldx apart. */
struct vec_finish {
    float *y;
    const float *x; /* may be y */
    int64_t ldy, ldx, m, n;
    const float *bias; /* or NULL */
    enum kern_act act;
    bool is_sum; /* then act is NONE */
};

struct vec_ops {
    const char *name;
    void (*attend)(const struct vec_attend *a);
    void (*finish)(const struct vec_finish *f);
    /* One row of kern_layernorm. y may be x. */
    void (*layernorm)(float *y, const float *x, const float *w, const float *b, float eps,
                      int64_t d);
    /* y[cols, rows] = x[rows, cols]^T; ldy and ldx are row lengths. */
    void (*transpose)(float *y, int64_t ldy, const float *x, int64_t ldx, int64_t rows,
                      int64_t cols);
    float (*max)(const float *x, int64_t n); /* n > 0 */
    /* sum of e^(x - max) of values not above max, in fp32: callers cut rows into pieces of some hundred */
    float (*sum_exp)(const float *x, int64_t n, float max);
    struct vec_divergence (*divergence)(const float *p, const float *q, int64_t n, float p_max);
    void (*exp)(float *y, const float *x, int64_t n);
};

/* The best table this machine can run; without `may_avx512` not the one of 512 bits. */
const struct vec_ops *vec_select(bool may_avx512);

extern const struct vec_ops vec_ops_plain;
#ifdef __x86_64__
extern const struct vec_ops vec_ops_avx2, vec_ops_avx512;
#endif

#endif
