/* The wire codec over a stream socket: what a worker parent and its compute child talk over (PROTOCOL.md section 8).
 *
 *   u32 number of frames (2..6)   u32 size of each   the frames' bytes        little-endian
 *
 * Not for networks: no identity, no reconnecting; a stream that breaks the format is over. Thread: one per pipe. */
#ifndef ISOBIT_SCHEMA_PIPE_H
#define ISOBIT_SCHEMA_PIPE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "schema/wire.h"

struct pipe {
    int fd;        /* not owned */
    struct buf in; /* bytes read and not yet handed out */
    size_t used;   /* of `in`, behind the message handed out last */
};
void pipe_init(struct pipe *p, int fd); /* makes fd non-blocking */
void pipe_release(struct pipe *p);

/* Writes a whole message, waiting for room at most timeout_ns (< 0: for ever). Errors: ERR_NOTFOUND (the other side is
 * gone), ERR_TIMEOUT (the stream is then broken in the middle), ERR_IO, ERR_FORMAT (too large). */
MUST_USE enum err_code pipe_send(struct pipe *p, enum wire_type type, const json_t *body,
                                 const struct wire_frame *blobs, int n_blobs, int64_t timeout_ns,
                                 struct err *e);

/* Hands out the next message if one is complete, without waiting; *found says so. Release it with wire_msg_release; its
 * blobs are borrowed until the next pipe_receive. Errors: ERR_NOTFOUND (end of the stream), ERR_FORMAT, ERR_VERSION, ERR_IO. */
MUST_USE enum err_code pipe_receive(struct pipe *p, struct wire_msg *out, bool *found,
                                    struct err *e);

/* Waits until something can be read, at most timeout_ns (< 0: for ever); false on time-out or signal. */
bool pipe_wait(const struct pipe *p, int64_t timeout_ns);

/* Cuts one message off the front of bytes[n]: *size is its length, 0 when it is not complete yet. Pure; frames borrow the
 * bytes. Errors: ERR_FORMAT for counts or sizes out of range. */
MUST_USE enum err_code pipe_split(const void *bytes, size_t n,
                                  struct wire_frame frames[WIRE_MAX_FRAMES], int *n_frames,
                                  size_t *size, struct err *e);

#endif
