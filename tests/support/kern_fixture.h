/* For kernel tests: one cpu kern, random operands, comparison with a double-precision reference. Header only. */
#ifndef ISOBIT_TESTS_SUPPORT_KERN_FIXTURE_H
#define ISOBIT_TESTS_SUPPORT_KERN_FIXTURE_H

#include <criterion/criterion.h>
#include <math.h>

#include "base/mem.h"
#include "base/rng.h"
#include "kernels/kernels.h"

static inline struct kern *fixture_kern(int threads)
{
    struct kern *k = NULL;
    struct err e = {0};
    struct kern_options o = {.device = "cpu", .threads = threads};
    cr_assert_eq(kern_open(&o, &k, &e), ERR_OK, "%s", e.text);
    return k;
}

/* n numbers of mean 0 and standard deviation `sd`; caller frees with xfree. */
static inline float *fixture_normal(struct rng *r, int64_t n, double sd)
{
    float *v = xcalloc((size_t)n + 16, sizeof *v);
    for (int64_t i = 0; i < n; i++)
        v[i] = (float)(sd * rng_normal(r));
    return v;
}

static inline float *fixture_zeros(int64_t n)
{
    return xcalloc((size_t)n + 16, sizeof(float));
}

/* Frees all of its arguments. */
#define fixture_free(...)                                                                          \
    do {                                                                                           \
        void *all[] = {__VA_ARGS__};                                                               \
        for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)                                  \
            xfree(all[i]);                                                                         \
    } while (0)

/* ||y - ref|| / ||ref||. */
static inline double fixture_error(const float *y, const double *ref, int64_t n)
{
    double diff = 0.0, size = 0.0;
    for (int64_t i = 0; i < n; i++) {
        diff += ((double)y[i] - ref[i]) * ((double)y[i] - ref[i]);
        size += ref[i] * ref[i];
    }
    return sqrt(diff / size);
}

#endif
