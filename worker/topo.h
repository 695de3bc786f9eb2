/* The machine a worker stands on: cores, NUMA nodes, and the share of them that one of several workers takes. The only
 * module that sees hwloc.h. Thread: start-up only, before threads exist, since bindings are inherited. */
#ifndef ISOBIT_WORKER_TOPO_H
#define ISOBIT_WORKER_TOPO_H

#include <stdint.h>

#include "base/err.h"

struct topo_info {
    int cores, threads, numa_nodes; /* that this process may use */
    int64_t memory_bytes;           /* of the whole machine */
    char cpu[128];                  /* "AMD EPYC 7B13" */
};
MUST_USE enum err_code topo_describe(struct topo_info *out, struct err *e);

/* Binds this process and what it starts to part `part` of `n_parts` of the cores it may use, in the order that keeps a
 * NUMA node together; memory then comes from the nodes of those cores first. With more parts than cores they are shared.
 * Errors: ERR_USAGE (part not in 0..n_parts-1), ERR_UNSUPPORTED (the system does not let us). */
MUST_USE enum err_code topo_bind(int part, int n_parts, struct err *e);

#endif
