/* The compute child of a worker: a process of its own that runs one job at a time and speaks pipe.h. It dies with its
 * parent, whichever way that goes; how it dies is told in words. Thread: the parent's loop. */
#ifndef ISOBIT_WORKER_CHILD_H
#define ISOBIT_WORKER_CHILD_H

#include <sys/types.h>

#include "base/err.h"
#include "schema/pipe.h"

struct child {
    pid_t pid; /* 0: none */
    int fd;
    struct pipe pipe;
};

/* Starts `argv` (NULL-terminated, argv[0] a path) with "--fd N" already in it for N = CHILD_FD: the socket is given to the
 * new process under that number. Errors: ERR_IO, ERR_NOTFOUND (the program). */
enum { CHILD_FD = 3 };
MUST_USE enum err_code child_start(struct child *c, char *const *argv, struct err *e);

/* Ends it at once if it still runs, waits for it, and writes how it ended: "ended by signal 11 (Segmentation fault)". */
void child_stop(struct child *c, char how[128]);

#endif
