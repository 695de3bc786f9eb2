/* Small data files that workers may fetch, by SHA-256 (PROTOCOL.md, FETCH and DATA): those of evaluations that were handed out,
 * as far as they lie on this machine, and nothing else; a worker never names a path. Thread: serve loop. */
#ifndef ISOBIT_COORDINATOR_FILES_H
#define ISOBIT_COORDINATOR_FILES_H

#include "base/json.h"
#include "schema/job.h"

enum { FILES_CHUNK = 1 << 20 };

struct file_entry {
    char *path;
    char sha256[65];
    int64_t bytes, changed_ns; /* as they were when it was hashed */
};

/* All zero is empty. */
struct files {
    struct file_entry *v;
    int n;
};

void files_release(struct files *f);

/* [{name, sha256, bytes}…] of an evaluation's data: the file and the labels beside it, when there are any. NULL when the file
 * is not here or too large. New reference. Hashes a file once, and again when it changed. */
json_t *files_offer(struct files *f, const struct eval_spec *v);

/* At most FILES_CHUNK bytes of an offered file from `offset`. Caller frees *data with xfree. Errors: ERR_NOTFOUND for a
 * hash that was not offered, ERR_FORMAT for an offset beyond the end, ERR_IO. */
struct files_part {
    void *data;
    size_t n;
    int64_t total;
};
MUST_USE enum err_code files_read(struct files *f, const char *sha256, int64_t offset,
                                  struct files_part *out, struct err *e);

#endif
