/* Bit accounting of a quantized checkpoint (quantization spec, section 7; paper section 2.3). Pure. */
#ifndef ISOBIT_SCHEMA_BITS_H
#define ISOBIT_SCHEMA_BITS_H

#include <stdint.h>

#include "schema/job.h"

/* One tensor that a configuration quantizes: [out, in], n_keep input columns at 16 bit. */
struct bits_tensor {
    int64_t out, in;
    int64_t n_keep;
};

/* round_half_up(pct / 100 * in). */
int64_t bits_n_keep(double outlier_pct, int64_t in);
/* k + 16/B + 16/B (center=block) + share*(16-k), for the formula's own table; block 0 needs n. */
double bits_nominal_per_param(const struct config *c, int64_t n);
/* Sums over the tensors; n_total counts every parameter once (tied tensors once). */
struct bits bits_of(const struct config *c, const struct bits_tensor *t, int n_tensors,
                    int64_t n_total);

#endif
