/* What tests and benchmarks give to dispatch: the defaults of `isobit serve`. */
#ifndef ISOBIT_TESTS_SUPPORT_DISPATCH_OPTIONS_H
#define ISOBIT_TESTS_SUPPORT_DISPATCH_OPTIONS_H

#include "base/clock.h"
#include "coordinator/dispatch.h"

static inline struct dispatch_options usual_dispatch(void)
{
    return (struct dispatch_options){.lease_ns = 15 * CLOCK_NS_PER_S,
                                     .heartbeat_ns = CLOCK_NS_PER_S,
                                     .slice_ns = 45 * CLOCK_NS_PER_S,
                                     .max_attempts = 3};
}

#endif
