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

/* Eight numbers of a block, one register of the smallest machine. 16 bits hold how often DRAW_ITEMS items are drawn: about
 * DRAW_ITEMS times. */
typedef uint16_t lanes __attribute__((vector_size(16)));
enum { PER_LANES = sizeof(lanes) / sizeof(uint16_t), LANES = DRAW_BLOCK / PER_LANES };

/* The sums of every subset of four items, so that four bits of a column cost one addition per resample (the method of Arlazarov,
 * Dinic, Kronrod and Faradzhev, 1970). */
static void tabulate(const uint16_t *counts, lanes table[PATTERNS][LANES])
{
    memset(table[0], 0, sizeof(table[0]));
    for (int p = 1; p < PATTERNS; p++) {
        lanes lowest[LANES];
        memcpy(lowest, counts + (size_t)__builtin_ctz((unsigned)p) * DRAW_BLOCK, sizeof(lowest));
        for (int l = 0; l < LANES; l++)
            table[p][l] = table[p & (p - 1)][l] + lowest[l];
    }
}

/* Eight groups at once, so that the running sum stays in a register. */
static void add_items(const lanes table[GROUPS][PATTERNS][LANES], uint64_t bits,
                      uint32_t *restrict sum)
{
    const lanes *row[GROUPS];
    for (int g = 0; g < GROUPS; g++)
        row[g] = table[g][bits >> g * PER_GROUP & (PATTERNS - 1)];
    for (int l = 0; l < LANES; l++) {
        lanes v = row[0][l] + row[1][l] + row[2][l] + row[3][l] + row[4][l] + row[5][l] +
                  row[6][l] + row[7][l];
        for (int r = 0; r < PER_LANES; r++)
            sum[l * PER_LANES + r] += v[r];
    }
}

_Static_assert(GROUPS == 8, "add_items adds eight");

/* Columns go in tiles whose sums stay in the cache; a tile rebuilds the tables, a small part of its work. */
enum { TILE = 256 };

static void sum_bits_of_tile(const uint16_t *counts, int n, const uint64_t *const *columns,
                             int n_columns, uint32_t *sums)
{
    lanes table[GROUPS][PATTERNS][LANES];
    for (int at = 0; at < n; at += DRAW_ITEMS) {
        for (int g = 0; g < GROUPS; g++)
            tabulate(counts + ((size_t)at + (size_t)g * PER_GROUP) * DRAW_BLOCK, table[g]);
        for (int c = 0; c < n_columns; c++)
            add_items(table, columns[c][at / 64] >> at % 64, sums + (size_t)c * DRAW_BLOCK);
    }
}

void draw_sum_bits(const uint16_t *counts, int n, const uint64_t *const *columns, int n_columns,
                   uint32_t *sums)
{
    memset(sums, 0, (size_t)n_columns * DRAW_BLOCK * sizeof(*sums));
    for (int c = 0; c < n_columns; c += TILE)
        sum_bits_of_tile(counts, n, columns + c, n_columns - c < TILE ? n_columns - c : TILE,
                         sums + (size_t)c * DRAW_BLOCK);
}

typedef double pair __attribute__((vector_size(16)));
enum { PAIRS = DRAW_BLOCK / 2 };

/* sum[r] += sum over i of weights[i][r] * v[i], four registers of resamples at a time. */
static void add_products(const pair weights[DRAW_ITEMS][PAIRS], const float *v, int n,
                         double *restrict sum)
{
    for (int p = 0; p < PAIRS; p += 4) {
        pair s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
        for (int i = 0; i < n; i++) {
            double x = (double)v[i];
            s0 += weights[i][p] * x;
            s1 += weights[i][p + 1] * x;
            s2 += weights[i][p + 2] * x;
            s3 += weights[i][p + 3] * x;
        }
        const pair here[] = {s0, s1, s2, s3};
        for (int r = 0; r < 8; r++)
            sum[2 * p + r] += here[r / 2][r % 2];
    }
}

static void sum_floats_of_tile(const uint16_t *counts, int n, const float *const *columns,
                               int n_columns, double *sums)
{
    pair weights[DRAW_ITEMS][PAIRS];
    for (int at = 0; at < n; at += DRAW_ITEMS) {
        int n_here = n - at < DRAW_ITEMS ? n - at : DRAW_ITEMS;
        for (int i = 0; i < n_here; i++)
            for (int r = 0; r < DRAW_BLOCK; r++)
                weights[i][r / 2][r % 2] = counts[(size_t)(at + i) * DRAW_BLOCK + (size_t)r];
        for (int c = 0; c < n_columns; c++)
            add_products(weights, columns[c] + at, n_here, sums + (size_t)c * DRAW_BLOCK);
    }
}

void draw_sum_floats(const uint16_t *counts, int n, const float *const *columns, int n_columns,
                     double *sums)
{
    memset(sums, 0, (size_t)n_columns * DRAW_BLOCK * sizeof(*sums));
    for (int c = 0; c < n_columns; c += TILE)
        sum_floats_of_tile(counts, n, columns + c, n_columns - c < TILE ? n_columns - c : TILE,
                           sums + (size_t)c * DRAW_BLOCK);
}
