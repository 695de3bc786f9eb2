#include "worker/eval/zstd_stream.h"

#include <zstd.h>

#include "base/mem.h"

struct zstd_stream {
    ZSTD_DStream *stream;
    bool is_frame_open; /* the last frame has not ended */
};

struct zstd_stream *zstd_stream_new(void)
{
    struct zstd_stream *z = xcalloc(1, sizeof(*z));
    z->stream = ZSTD_createDStream();
    CHECK(z->stream != NULL);
    return z;
}

void zstd_stream_free(struct zstd_stream *z)
{
    if (z == NULL)
        return;
    ZSTD_freeDStream(z->stream);
    xfree(z);
}

enum err_code zstd_stream_next(struct zstd_stream *z, const char *name, struct str *in,
                               struct buf *out, bool *is_end, struct err *e)
{
    char chunk[ZSTD_STREAM_CHUNK];
    ZSTD_inBuffer from = {in->p, in->n, 0};
    ZSTD_outBuffer to = {chunk, sizeof(chunk), 0};
    size_t hint = ZSTD_decompressStream(z->stream, &to, &from);
    if (ZSTD_isError(hint))
        return err_set(e, ERR_FORMAT, "%s: not valid zstd data: %s; fetch the file again", name,
                       ZSTD_getErrorName(hint));
    *is_end = in->n == 0 && to.pos == 0;
    if (*is_end && z->is_frame_open)
        return err_set(e, ERR_FORMAT,
                       "%s: ends in the middle of a zstd frame; fetch the file again", name);
    if (!*is_end)
        z->is_frame_open = hint != 0;
    in->p += from.pos;
    in->n -= from.pos;
    buf_add(out, chunk, to.pos);
    return ERR_OK;
}
