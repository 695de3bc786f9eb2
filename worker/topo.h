/* The machine a worker stands on: cores, NUMA nodes, and the share of them that one of several workers takes. The only
 * module that sees hwloc.h. Thread: start-up only; a binding holds for every thread of the process and is inherited. */
#ifndef ISOBIT_WORKER_TOPO_H
#define ISOBIT_WORKER_TOPO_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct topo_info {
    int cores, threads, numa_nodes; /* that this process may use */
    int64_t memory_bytes;           /* of the whole machine */
    char cpu[128];                  /* "AMD EPYC 7B13" */
};
MUST_USE enum err_code topo_describe(struct topo_info *out, struct err *e);

/* Part `part` of `n_parts` of the cores that this process may use, in the order that keeps a NUMA node together; with more
 * parts than cores they are shared. With `pci` ("0000:3b:00.0") of the cores next to that device, as far as the machine says
 * which these are. */
struct topo_share {
    const char *pci; /* NULL: no device */
    int part, n_parts;
};

/* The cores of a share. */
struct topo_place {
    bool is_near; /* to the device; false: the machine does not tell, or these cores are not ours */
    int numa_node; /* that is_near; -1: not one node, or unknown */
    int n_cores;
    char cores[256]; /* numbers of their threads: "0-7,32-39" */
};

/* `xml` is a topology as `lstopo --of xml` writes it, of which all may be used; NULL: this machine. Errors: ERR_USAGE
 * (part not in 0..n_parts-1), ERR_UNSUPPORTED (the system does not tell its cores). */
MUST_USE enum err_code topo_find(const char *xml, const struct topo_share *share,
                                 struct topo_place *out, struct err *e);

/* Binds this process and what it starts to the share; memory then comes from the nodes of those cores first. Errors: as
 * topo_find, ERR_UNSUPPORTED (the system does not let us). */
MUST_USE enum err_code topo_bind(const struct topo_share *share, struct topo_place *out,
                                 struct err *e);

/* "0/2" as part and n_parts. Errors: ERR_USAGE. */
MUST_USE enum err_code topo_parse_share(const char *text, struct topo_share *out, struct err *e);

#endif
