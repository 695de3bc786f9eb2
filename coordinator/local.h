/* Workers that `run` starts on its own machine: sibling isobit-worker processes, started again when they die, gone when
 * this process is. Their words go to one log file each. Thread: serve loop. */
#ifndef ISOBIT_COORDINATOR_LOCAL_H
#define ISOBIT_COORDINATOR_LOCAL_H

#include <stdint.h>

#include "base/cli.h"
#include "base/err.h"
#include "base/mem.h"

struct local_device {
    const char *name; /* "cuda:0" */
    int numa_node;    /* of a GPU; -1: unknown, or no GPU */
};

struct local_devices {
    struct local_device *v;
    int n;
};

struct local_options {
    int n;                        /* workers */
    struct local_devices devices; /* worker i takes devices[i % n]; empty: auto */
    const char *endpoint;         /* of the coordinator */
    const char *log_dir;
    const char *compute_program; /* NULL: none; handed through */
};

struct local; /* opaque */

/* Workers that serve this machine best without a GPU: one a core, as long as each can hold a checkpoint of n_params
 * parameters in memory (fp16 master and fp32 compute weights, 6 bytes each, and 512 MiB beside them). Small products leave
 * several threads waiting for each other; several workers share nothing. At least 1. */
int local_default_workers(int64_t n_params);

/* The GPUs that workers here can use, as `isobit-worker probe` finds them; none when it finds none or cannot be asked.
 * Owned by `a`. */
struct local_devices local_gpus(struct arena *a);
/* The devices of these names; what a probe knows of GPUs among them is filled in. Owned by `a`. */
struct local_devices local_named(const struct cli_list *names, struct arena *a);

/* Which part of how many worker i of `n` takes of the cores: of those of its device's NUMA node, which it shares with the
 * workers of devices there; of all where no node is known. */
struct local_share {
    int part, n_parts;
};
struct local_share local_share_of(const struct local_devices *d, int i, int n);

/* Starts all of them. Strings are kept. Errors: ERR_NOTFOUND (no isobit-worker beside this program), ERR_IO. */
MUST_USE enum err_code local_start(const struct local_options *o, int64_t now_ns,
                                   struct local **out, struct err *e);
/* Looks after them: starts dead ones again, later and later. False when every one has died too often in a row; `why` then
 * says what the last one said. */
bool local_turn(struct local *l, bool may_restart, int64_t now_ns, struct err *why);
/* Waits up to grace_ns for those that are leaving, ends the others, and frees. NULL is fine. */
void local_stop(struct local *l, int64_t grace_ns);

#endif
