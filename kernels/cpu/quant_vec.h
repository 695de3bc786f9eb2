/* Inner loops of blockwise quantization, one table of functions per instruction set, chosen once. Unlike the loops of
 * vec.h all tables give the same bits: quantizer arithmetic is pinned to single rounded operations (quantization spec,
 * section 1). No threads in here: a call is one thread's piece of work. Pure. */
#ifndef ISOBIT_KERNELS_CPU_QUANT_VEC_H
#define ISOBIT_KERNELS_CPU_QUANT_VEC_H

#include "kernels/cpu/quant_book.h"

/* Consecutive blocks, or a part of a longer one. */
struct quant_run {
    const struct book *book;
    bool is_fp32;        /* values are not rounded to fp16 */
    const uint16_t *y;   /* [n] fp16 bits, finite */
    int n, block;        /* the last block may be shorter */
    const uint16_t *max; /* [blocks] largest magnitude, fp16 bits */
    const float
        *mean;  /* [blocks] added to every value: -0 changes nothing, not even the sign of a zero */
    float *out; /* [n], or NULL */
    uint8_t *codes; /* [n], or NULL */
};

struct quant_vec {
    const char *name;
    /* max[blocks] = the largest magnitude of each block of y[n], as fp16 bits; at least 0x7c00 when one is not finite. */
    void (*maxima)(const uint16_t *y, int n, int block, uint16_t *max);
    /* Codes and values F[j] * max + mean. */
    void (*write)(const struct quant_run *r);
    /* The exact sum of y[n], finite, n <= 4096: multiples of 2^-24 below 2^28, in any order without rounding. */
    double (*sum)(const uint16_t *y, int n);
    /* y[n] = fp16(w[n] - mean) */
    void (*subtract)(const uint16_t *w, float mean, int n, uint16_t *y);
};

/* The best table that this machine can run. */
const struct quant_vec *quant_vec_select(void);

extern const struct quant_vec quant_vec_plain;
#ifdef __x86_64__
extern const struct quant_vec quant_vec_avx2;
#endif

/* Elements [start, end) of one block in plain C, for what is left of a vector and for blocks of zeros. */
void quant_plain_write(const struct quant_run *r, int start, int end, float m, float mean);

#endif
