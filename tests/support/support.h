/* What several tests need: the reference folder, temporary directories, running our programs. Plain C, no framework. */
#ifndef ISOBIT_TESTS_SUPPORT_SUPPORT_H
#define ISOBIT_TESTS_SUPPORT_SUPPORT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/str.h"

/* "<shared>/rel" in a static ring of buffers; NULL with a message on stderr when it does not exist (then the test skips). */
const char *support_shared(const char *rel);
/* "<source>/rel". */
const char *support_source(const char *rel);

/* A fresh temporary directory; caller frees with support_tmpdir_remove. */
char *support_tmpdir(void);
void support_tmpdir_remove(char *dir);
void support_write(const char *path, const void *data, size_t n);

struct support_run {
    int status; /* exit status; 128 + n for a signal */
    struct buf out, err;
};
/* Runs a shell command line with PATH starting at our programs, captures both streams, waits. */
struct support_run support_shell(const char *command);
void support_run_release(struct support_run *r);

#endif
