/* The parent process of `isobit-worker run`: keeps the connection to the coordinator (uplink.h), what is in hand (hand.h)
 * and the compute child (child.h) together. It never computes, so heartbeats go on through the longest layer, and a crash
 * of the child is one failed attempt. Thread: one; it owns the process's signals while it runs. */
#ifndef ISOBIT_WORKER_PARENT_H
#define ISOBIT_WORKER_PARENT_H

#include <stdint.h>

#include "base/err.h"
#include "schema/link.h"

struct parent_options {
    const char *connect;          /* "tcp://127.0.0.1:5555" */
    const struct link_keys *keys; /* NULL: none */
    char *const *compute_argv;    /* the compute child's command line (child.h) */
    const char *cache_dir;        /* of fetched data files; NULL: the user's (fetch.h) */
    int credit;                   /* slices in hand at most */
    int64_t grace_ns;             /* a drain waits so long for the running job */
    int64_t job_timeout_ns;       /* without progress; 0: none */
    int64_t idle_ns;              /* leave after so long without a job; 0: stay */
    int64_t end_ns;               /* monotonic: when the machine is taken away; 0: never */
};

/* Serves until told to leave (SIGTERM, SIGINT, SIGUSR1, DRAIN, idle). ERR_OK: left in peace. Errors: ERR_DENIED (refused by the
 * coordinator), ERR_CRASHED (the compute child does not start), ERR_STOPPED (left with work in hand), and those the child
 * reports of its device. */
MUST_USE enum err_code parent_run(const struct parent_options *o, struct err *e);

#endif
