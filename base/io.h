/* Files: read whole, map read-only, write-then-rename. Every error names the path. */
#ifndef ISOBIT_BASE_IO_H
#define ISOBIT_BASE_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

/* Reads a whole regular file of at most `max` bytes into out->data (terminated); caller releases `out`.
 * Errors: ERR_NOTFOUND, ERR_DENIED, ERR_FORMAT (larger than max), ERR_IO. */
MUST_USE enum err_code io_read_file(const char *path, size_t max, struct buf *out, struct err *e);

struct io_map {
    const unsigned char *data; /* NULL for an empty file */
    size_t size;
};
/* Maps a regular file read-only. All zero is a valid closed map. */
MUST_USE enum err_code io_map_open(const char *path, struct io_map *m, struct err *e);
void io_map_close(struct io_map *m);
/* Tells the system that [at, at + n) will not be read again soon, so that it stops counting against
 * the process. */
void io_map_forget(const struct io_map *m, size_t at, size_t n);

/* Replaces `path` by `data` as one step: temporary file beside it, fsync, rename. On an error `path` is
 * what it was and no temporary file is left. */
MUST_USE enum err_code io_write_file(const char *path, const void *data, size_t n, struct err *e);

MUST_USE enum err_code io_make_dirs(const char *path, struct err *e); /* like mkdir -p */
bool io_exists(const char *path);
bool io_is_dir(const char *path);
/* Size in bytes, -1 when it cannot be told. */
int64_t io_file_size(const char *path);

/* The last line of a text file, where a program that gave up says why; cut to fit out[n], empty when it cannot be read. */
void io_last_line(const char *path, char *out, size_t n);

/* dir of "a/b/c" is "a/b", of "c" is "."; caller frees with xfree. */
char *io_dirname(const char *path);
/* `path` if it is absolute, else base/path; caller frees with xfree. */
char *io_join(const char *base, const char *path);
/* Absolute form without symlink resolution of the last part; caller frees with xfree. */
char *io_absolute(const char *path);
/* Directory of the running program, to find sibling programs; caller frees with xfree. */
char *io_program_dir(void);

#endif
