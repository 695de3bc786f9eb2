/* The compute child of a worker: a process of its own that runs one job at a time and speaks pipe.h. It dies with its
 * parent, whichever way that goes; how it ended is told in words. Thread: the parent's loop. */
#ifndef ISOBIT_WORKER_CHILD_H
#define ISOBIT_WORKER_CHILD_H

#include <sys/types.h>

#include "base/proc.h"
#include "schema/pipe.h"

struct child {
    pid_t pid; /* 0: none */
    int fd;
    struct pipe pipe;
};

/* Starts argv (ends with NULL, argv[0] a path); the program finds its socket as descriptor PROC_FD. Errors: as proc_start. */
MUST_USE enum err_code child_start(struct child *c, char *const *argv, struct err *e);

/* Ends it at once if it still runs, waits for it, and writes how it ended. */
void child_stop(struct child *c, char how[PROC_HOW]);

#endif
