/* Decompression of zstd data, chunk by chunk; several frames behind each other are one stream. For data.c. */
#ifndef ISOBIT_WORKER_EVAL_ZSTD_STREAM_H
#define ISOBIT_WORKER_EVAL_ZSTD_STREAM_H

#include "base/err.h"
#include "base/str.h"

enum { ZSTD_STREAM_CHUNK = 1 << 17 };

struct zstd_stream; /* opaque */
struct zstd_stream *zstd_stream_new(void);
void zstd_stream_free(struct zstd_stream *z);

/* Cuts what it reads off *in and appends at most ZSTD_STREAM_CHUNK bytes to `out`; *is_end when there is nothing more.
 * Errors: ERR_FORMAT naming `name` for data that is not zstd, is damaged or ends inside a frame. */
MUST_USE enum err_code zstd_stream_next(struct zstd_stream *z, const char *name, struct str *in,
                                        struct buf *out, bool *is_end, struct err *e);

#endif
