/* Resampled sums. Items are drawn with replacement, n of n; a resample is how often each item was drawn. Resamples go in blocks of
 * DRAW_BLOCK, the inner dimension of every array, so that one pass over the items of a configuration serves a whole block.
 * Pure: a block depends on (seed, task, n, its number), never on who computes it. */
#ifndef ISOBIT_ANALYSIS_DRAW_H
#define ISOBIT_ANALYSIS_DRAW_H

#include <stddef.h>
#include <stdint.h>

#include "schema/job.h"

enum { DRAW_BLOCK = 64, DRAW_ITEMS = 32 };

/* Entries of an array of counts for n items: rounded up to DRAW_ITEMS, the rest zero. */
size_t draw_counts_size(int n);

/* counts[i * DRAW_BLOCK + r]: how often item i is drawn in resample block * DRAW_BLOCK + r. */
void draw_counts(uint64_t seed, enum task t, int n, int block, uint16_t *counts);

/* sums[c * DRAW_BLOCK + r]: over the items i, counts times bit i of column c. */
void draw_sum_bits(const uint16_t *counts, int n, const uint64_t *const *columns, int n_columns,
                   uint32_t *sums);
/* The same for numbers. */
void draw_sum_floats(const uint16_t *counts, int n, const float *const *columns, int n_columns,
                     double *sums);

#endif
