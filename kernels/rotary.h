/* Angles of rotary embeddings (struct kern_rotary), made on the host for every backend, so that all have the same bits.
 * Private to backends. */
#ifndef ISOBIT_KERNELS_ROTARY_H
#define ISOBIT_KERNELS_ROTARY_H

#include <math.h>

#include "kernels/kernels.h"

/* Positions that occur: 0 up to the result, excluded. */
static inline int64_t rotary_positions(const struct kern_rotary *r)
{
    int64_t n = 1;
    for (int i = 0; i < r->n_seqs; i++) {
        const int64_t end = (int64_t)r->seqs[i].pos0 + r->seqs[i].len;
        n = end > n ? end : n;
    }
    return n;
}

/* table[n_pos, dims / 2] of pairs: cosine and sine of pos * theta_i. theta and the angle are rounded to fp32, as Hugging Face
 * transformers computes them (modeling_gpt_neox.py). */
static inline void rotary_fill(const struct kern_rotary *r, int64_t n_pos, float *table)
{
    const int half = r->dims / 2;
    for (int i = 0; i < half; i++) {
        const float theta = 1.0F / powf(r->base, (float)(2 * i) / (float)r->dims);
        for (int64_t pos = 0; pos < n_pos; pos++) {
            const float angle = (float)pos * theta;
            float *pair = table + 2 * (pos * half + i);
            pair[0] = (float)cos((double)angle);
            pair[1] = (float)sin((double)angle);
        }
    }
}

#endif
