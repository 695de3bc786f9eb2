#include "analysis/draw.h"

#include <string.h>

#include "base/rng.h"

enum { PER_GROUP = 4, PATTERNS = 1 << PER_GROUP, GROUPS = DRAW_ITEMS / PER_GROUP };

size_t draw_counts_size(int n)
{
    return ((size_t)n + DRAW_ITEMS - 1) / DRAW_ITEMS * DRAW_ITEMS * DRAW_BLOCK;
}

/* Streams of different (task, n, resample) must not overlap: each starts at a mixed state of its own. */
static struct rng stream(uint64_t seed, enum task t, int n, int resample)
{
    struct rng r = {seed};
    const uint64_t parts[] = {(uint64_t)t, (uint64_t)n, (uint64_t)resample};
    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        r.state = rng_u64(&r) ^ parts[i];
    r.state = rng_u64(&r);
    return r;
}

void draw_counts(uint64_t seed, enum task t, int n, int block, uint16_t *counts)
{
    memset(counts, 0, draw_counts_size(n) * sizeof(*counts));
    for (int r = 0; r < DRAW_BLOCK; r++) {
        struct rng rng = stream(seed, t, n, block * DRAW_BLOCK + r);
        for (int i = 0; i < n; i++)
            counts[rng_below(&rng, (uint64_t)n) * DRAW_BLOCK + (uint64_t)r]++;
    }
}

/* One number a resample of a block. As a vector it stays in registers while patterns are added up; 16 bits hold how often
 * DRAW_ITEMS items are drawn (about DRAW_ITEMS times). */
typedef uint16_t lanes __attribute__((vector_size(DRAW_BLOCK * sizeof(uint16_t))));

/* The sums of every subset of four items, so that four bits of a column cost one addition per resample (the method of Arlazarov,
 * Dinic, Kronrod and Faradzhev, 1970). */
static void tabulate(const uint16_t *counts, lanes table[PATTERNS])
{
    memset(&table[0], 0, sizeof(table[0]));
    for (int p = 1; p < PATTERNS; p++) {
        lanes lowest;
        memcpy(&lowest, counts + (size_t)__builtin_ctz((unsigned)p) * DRAW_BLOCK, sizeof(lowest));
        table[p] = table[p & (p - 1)] + lowest;
    }
}

void draw_sum_bits(const uint16_t *counts, int n, const uint64_t *const *columns, int n_columns,
                   uint32_t *sums)
{
    lanes table[GROUPS][PATTERNS];
    memset(sums, 0, (size_t)n_columns * DRAW_BLOCK * sizeof(*sums));
    for (int at = 0; at < n; at += DRAW_ITEMS) {
        for (int g = 0; g < GROUPS; g++)
            tabulate(counts + ((size_t)at + (size_t)g * PER_GROUP) * DRAW_BLOCK, table[g]);
        for (int c = 0; c < n_columns; c++) {
            uint64_t bits = columns[c][at / 64] >> at % 64;
            lanes here = table[0][bits & (PATTERNS - 1)];
            for (int g = 1; g < GROUPS; g++)
                here += table[g][bits >> g * PER_GROUP & (PATTERNS - 1)];
            uint32_t *restrict sum = sums + (size_t)c * DRAW_BLOCK;
            for (int r = 0; r < DRAW_BLOCK; r++)
                sum[r] += here[r];
        }
    }
}

void draw_sum_floats(const uint16_t *counts, int n, const float *const *columns, int n_columns,
                     double *sums)
{
    double weights[DRAW_ITEMS][DRAW_BLOCK];
    memset(sums, 0, (size_t)n_columns * DRAW_BLOCK * sizeof(*sums));
    for (int at = 0; at < n; at += DRAW_ITEMS) {
        int n_here = n - at < DRAW_ITEMS ? n - at : DRAW_ITEMS;
        for (int i = 0; i < n_here; i++)
            for (int r = 0; r < DRAW_BLOCK; r++)
                weights[i][r] = counts[(size_t)(at + i) * DRAW_BLOCK + (size_t)r];
        for (int c = 0; c < n_columns; c++) {
            double *restrict sum = sums + (size_t)c * DRAW_BLOCK;
            for (int i = 0; i < n_here; i++) {
                double v = (double)columns[c][at + i];
                for (int r = 0; r < DRAW_BLOCK; r++)
                    sum[r] += weights[i][r] * v;
            }
        }
    }
}
