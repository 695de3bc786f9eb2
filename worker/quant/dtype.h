/* What the data types share in filling their codebooks (quantization spec, section 2). Pure. */
#ifndef ISOBIT_WORKER_QUANT_DTYPE_H
#define ISOBIT_WORKER_QUANT_DTYPE_H

#include "worker/quant/quant.h"

/* Sorts level[n] in place, divides by the largest magnitude (not 0) in double and rounds once to float. */
void codebook_from_levels(double *level, int n, struct codebook *out);

#endif
