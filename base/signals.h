/* Signals received through a descriptor, by a program's own loop, instead of ending the process: SIGINT, SIGTERM, SIGHUP and
 * what else the program listens to. SIGPIPE is ignored from then on: whoever reads our output, such as `tee`, may be gone
 * before the work is handed back. Thread: the main one, before others start, since they inherit what is blocked. */
#ifndef ISOBIT_BASE_SIGNALS_H
#define ISOBIT_BASE_SIGNALS_H

#include <signal.h>
#include <stdbool.h>

#include "base/err.h"

struct signals {
    int fd; /* readable when one has come */
    bool is_open;
    sigset_t before; /* what was blocked */
};

/* `extra`: one signal more, or 0. Errors: ERR_IO and the like; then nothing is changed. */
MUST_USE enum err_code signals_open(struct signals *s, int extra, struct err *e);
/* The number of the next signal that has come, 0: none. Does not wait. */
int signals_next(const struct signals *s);
/* They act on the process as before. All zero is fine. */
void signals_close(struct signals *s);

#endif
