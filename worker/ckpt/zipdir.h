/* The entries of a zip archive in memory that are stored as they are, so that a caller can use their bytes in
 * place. Compressed or encrypted entries are refused, not unpacked: nothing here can grow. The only file that
 * sees libzip. Pure. */
#ifndef ISOBIT_WORKER_CKPT_ZIPDIR_H
#define ISOBIT_WORKER_CKPT_ZIPDIR_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/io.h"
#include "base/mem.h"

struct zip_entry {
    const char *name;
    uint64_t offset; /* of its bytes in the file */
    uint64_t size;
};

/* *out: all entries sorted by name, owned by `a`. Every [offset, offset + size) lies in the file, none overlaps
 * another, no name appears twice. `path` is for errors. Errors: ERR_FORMAT, ERR_UNSUPPORTED. */
MUST_USE enum err_code zipdir_read(const struct io_map *file, const char *path, struct arena *a,
                                   struct zip_entry **out, size_t *n, struct err *e);

/* NULL: absent. */
const struct zip_entry *zipdir_find(const struct zip_entry *entries, size_t n, const char *name);

#endif
