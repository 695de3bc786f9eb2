/* Time in ns. Leases, timeouts and rates use the monotonic clock; only what people read uses the wall
 * clock. Code that decides takes `now_ns` as an argument and never calls these. */
#ifndef ISOBIT_BASE_CLOCK_H
#define ISOBIT_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline int64_t clock_read_ns(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline int64_t clock_mono_ns(void)
{
    return clock_read_ns(CLOCK_MONOTONIC);
}

static inline int64_t clock_wall_ns(void)
{
    return clock_read_ns(CLOCK_REALTIME);
}

static inline double clock_seconds_since(int64_t start_mono_ns)
{
    return (double)(clock_mono_ns() - start_mono_ns) * 1e-9;
}

#define CLOCK_NS_PER_S  ((int64_t)1000000000)
#define CLOCK_NS_PER_MS ((int64_t)1000000)

#endif
