/* Starting other programs of ours and telling how they ended. What is started dies with this process when asked to, has
 * no signal blocked, and no open file but the standard ones and the one given. Thread: the main thread (a child's death
 * signal hangs on the thread that started it). */
#ifndef ISOBIT_BASE_PROC_H
#define ISOBIT_BASE_PROC_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/str.h"

enum { PROC_FD = 3, PROC_HOW = 128 };

struct proc_options {
    char *const *argv; /* ends with NULL; argv[0] is a path */
    bool is_fd_given;  /* `fd` becomes the program's descriptor PROC_FD */
    int fd;
    bool is_input_given; /* `input` becomes its standard input */
    int input;
    bool is_output_given; /* `output` becomes its standard output and error */
    int output;
    bool is_error_given; /* `error` becomes its standard error instead */
    int error;
    bool is_own_group; /* Ctrl-C at the terminal does not reach it */
    bool is_tied;      /* it is killed when this process ends, however that happens */
};

/* Errors: ERR_NOTFOUND, ERR_DENIED (the program), ERR_IO. */
MUST_USE enum err_code proc_start(const struct proc_options *o, pid_t *out, struct err *e);

/* The path of a program that PATH names; NULL: none. Caller frees with xfree. */
char *proc_find(const char *name);

struct proc_output {
    struct buf out, err; /* what it wrote, each at most PROC_OUTPUT bytes */
    int status;          /* as waitpid gives it */
};
enum { PROC_INPUT = 60000, PROC_OUTPUT = 16 << 20 };
/* Runs a program to its end with `input` (at most PROC_INPUT bytes) as its standard input. Whatever status it ends with is no
 * error; *out is valid then and released by the caller. Errors: ERR_TIMEOUT (it was killed after limit_ns), ERR_FORMAT (more
 * output than PROC_OUTPUT), those of proc_start. */
MUST_USE enum err_code proc_run(char *const *argv, struct str input, int64_t limit_ns,
                                struct proc_output *out, struct err *e);
void proc_output_release(struct proc_output *o);

/* Cores that this process may run on, at least 1. */
int proc_cores(void);

/* Has it ended? Without waiting; *status is as waitpid gives it. */
bool proc_has_ended(pid_t pid, int *status);
/* Waits for its end; kills it first when it has not ended after wait_ms. */
int proc_end(pid_t pid, int wait_ms);
/* "ended by signal 11 (Segmentation fault)", "ended with status 3". */
void proc_describe(int status, char how[PROC_HOW]);

#endif
