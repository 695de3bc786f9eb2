/* Casts of stored elements (fp32, fp16, bf16; little endian, any alignment) to fp16 or fp32. A cast is a pure
 * function of the element; what is not finite or became zero is counted, for the caller to judge. */
#ifndef ISOBIT_WORKER_CKPT_CONVERT_H
#define ISOBIT_WORKER_CKPT_CONVERT_H

#include <stddef.h>
#include <stdint.h>

#include "worker/ckpt/ckpt.h"

struct convert_counts {
    int64_t bad;     /* NaN or infinite after the cast */
    int64_t flushed; /* not zero before, zero after */
};

int convert_bytes(enum ckpt_dtype from); /* of one element; 0 for CKPT_OTHER */

/* dst[n] = cast of the n elements at src; adds to *counts. `from` is not CKPT_OTHER. To fp16: round to nearest,
 * ties to even, beyond 65519.99 to infinity, at most 2^-25 to zero. To fp32: exact. */
void convert_to_f16(enum ckpt_dtype from, const unsigned char *src, size_t n, uint16_t *dst,
                    struct convert_counts *counts);
void convert_to_f32(enum ckpt_dtype from, const unsigned char *src, size_t n, float *dst,
                    struct convert_counts *counts);

#endif
