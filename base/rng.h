/* A seeded, specified generator: SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number
 * generators", OOPSLA 2014). The same seed gives the same numbers on every machine. */
#ifndef ISOBIT_BASE_RNG_H
#define ISOBIT_BASE_RNG_H

#include <math.h>
#include <stdint.h>

struct rng {
    uint64_t state;
};

static inline uint64_t rng_u64(struct rng *r)
{
    uint64_t z = (r->state += 0x9e3779b97f4a7c15U);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
}

/* Uniform in [0, 1) with 53 bits. */
static inline double rng_uniform(struct rng *r)
{
    return (double)(rng_u64(r) >> 11) * 0x1p-53;
}

/* Uniform in [0, n), n > 0; the bias of at most n / 2^64 does not matter here. */
static inline uint64_t rng_below(struct rng *r, uint64_t n)
{
    return (uint64_t)(((unsigned __int128)rng_u64(r) * n) >> 64);
}

/* Standard normal (Box and Muller 1958, one of the pair). */
static inline double rng_normal(struct rng *r)
{
    double u = 1.0 - rng_uniform(r);
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * rng_uniform(r));
}

#endif
