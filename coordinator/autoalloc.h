/* Keeps workers up through Slurm, beside a running coordinator: asks it how much waits, asks Slurm what is queued, and submits
 * or cancels until told to leave. Holds no lock and no state of its own: started again, it finds its Slurm jobs by name.
 * Thread: the main one. */
#ifndef ISOBIT_COORDINATOR_AUTOALLOC_H
#define ISOBIT_COORDINATOR_AUTOALLOC_H

#include "coordinator/alloc.h"

struct autoalloc_options {
    struct slurm_script script; /* `connect` NULL: as the coordinator says */
    struct alloc_limits limits;
    int64_t poll_ns;
    bool is_until_done;
};

/* Where workers reach the coordinator of a database: its own address, with this host's name for a wildcard. *out: caller
 * frees with xfree; NULL when nobody serves the database. */
MUST_USE enum err_code autoalloc_find_coordinator(const char *db_path, char **out, struct err *e);

/* Until SIGINT, SIGTERM, SIGHUP, or, if wanted, until nothing is pending or leased. SIGUSR1 ends a pause. Errors: those of
 * slurm_cli_open and slurm_write_script, ERR_STOPPED (told to leave while paused). */
MUST_USE enum err_code autoalloc_run(const struct autoalloc_options *o, struct err *e);

#endif
