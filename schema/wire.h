/* Messages <-> bytes (PROTOCOL.md). A message is a fixed header frame, one JSON frame and optional binary frames:
 *
 *   header  0 'i' 'b' 'i' 't'   4 u8 version   5 u8 type   6 u16 0 (reserved)     8 bytes
 *   json    UTF-8 object, at most as large as its type's row allows, WIRE_MAX_JSON bytes altogether
 *   binary  0..WIRE_MAX_BLOBS frames, at most WIRE_MAX_BLOB bytes each (samples: zstd float32)
 *
 * Pure: no sockets, no clock. Decoding trusts nothing. The same codec runs over ZeroMQ (link.h) and over the socketpair
 * between a worker and its compute child (pipe.h). */
#ifndef ISOBIT_SCHEMA_WIRE_H
#define ISOBIT_SCHEMA_WIRE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/json.h"
#include "base/str.h"

enum {
    WIRE_VERSION = 1,
    WIRE_HEADER_BYTES = 8,
    WIRE_MAX_JSON = 16 << 20,
    WIRE_MAX_BLOB = 16 << 20,
    WIRE_MAX_BLOBS = 4,
    WIRE_MAX_FRAMES = 2 + WIRE_MAX_BLOBS,
    WIRE_MAX_CREDIT = 16,    /* slices in a CREDIT */
    WIRE_MAX_FILE = 64 << 20 /* bytes of a data file that a worker may FETCH */
};

/* HELLO's `numerics`: grows when a change of ours changes numbers. Results of two versions never meet in one database. */
enum { WIRE_NUMERICS = 4 };

/* X(NAME, number, KiB of its body at most, who sends it). Numbers are frozen; a retired one is never reused. Limits are checked
 * before a body is parsed, since parsed JSON takes up to twenty times its bytes. */
#define WIRE_TYPE_LIST(X)                                                                          \
    X(HELLO, 1, 4096, "worker")       /* who I am, what I can do; answered by WELCOME or REFUSE */ \
    X(WELCOME, 2, 4, "coordinator")   /* session id, heartbeat interval, lease length */           \
    X(REFUSE, 3, 64, "coordinator")   /* code, text; the worker ends with it */                    \
    X(BEAT, 4, 4, "both")             /* I live; worker: jobs in hand with progress counters */    \
    X(CREDIT, 5, 4, "worker")         /* I can hold n more slices */                               \
    X(LEASE, 6, 16384, "coordinator") /* one slice: checkpoint, jobs with attempts */              \
    X(RESULT, 7, 1024, "worker")      /* one job done; binary: samples */                          \
    X(FAIL, 8, 64, "worker")          /* one job failed: code, text, fate */                       \
    X(RETURN, 9, 4096, "worker") /* jobs handed back unrun (drain, files absent): no attempt */    \
    X(ACK, 10, 16384, "coordinator")    /* RESULT/FAIL/RETURN committed or fenced */               \
    X(REVOKE, 11, 16384, "coordinator") /* stop these jobs: cancelled or lease lost */             \
    X(REGISTER, 12, 4, "coordinator")   /* I do not know you: send HELLO again */                  \
    X(DRAIN, 13, 4, "coordinator")      /* finish what runs, return the rest, leave */             \
    X(BYE, 14, 4, "worker")             /* I leave; nothing is in hand */                          \
    X(FETCH, 15, 4, "worker")           /* send me the data file with this SHA-256 */              \
    X(DATA, 16, 4, "coordinator")       /* a part of it; binary: bytes */                          \
    X(ITEMS, 17, 16384, "worker")       /* facts about an evaluation's items under a tokenizer */  \
    X(REQUEST, 32, 4096, "client") /* plan, retry, cancel, hold, release, …; readers: status */  \
    X(REPLY, 33, 16384, "coordinator")                                                             \
    X(START, 48, 1024, "worker parent") /* to the compute child: run this job */                   \
    X(PROGRESS, 49, 64, "compute child")

enum wire_type {
#define X(name, number, max_kib, sender) WIRE_##name = (number),
    WIRE_TYPE_LIST(X)
#undef X
};
const char *wire_type_name(enum wire_type t); /* "?" for an unknown one */

/* What a worker lacks for a job that it returns as `missing`: then it is not given the checkpoint, the evaluation or that one
 * job again. */
enum wire_lack { WIRE_LACK_CHECKPOINT, WIRE_LACK_DATA, WIRE_LACK_CONFIGURATION };
const char *wire_lack_label(enum wire_lack l);
enum wire_lack wire_lack_of(const char *label); /* other words and NULL: the checkpoint */

struct wire_frame {
    const void *data;
    size_t size;
};

/* A decoded message. `body` is an owned reference; text (the body as it came) and blobs borrow the frames. */
struct wire_msg {
    enum wire_type type;
    json_t *body;
    struct str text;
    struct wire_frame blobs[WIRE_MAX_BLOBS];
    int n_blobs;
};

/* Errors: ERR_VERSION (both named), ERR_FORMAT; then *out is all zero. */
MUST_USE enum err_code wire_decode(const struct wire_frame *frames, int n_frames,
                                   struct wire_msg *out, struct err *e);
/* The same, but the body of a RESULT stays text, unread: `body` is NULL then. */
MUST_USE enum err_code wire_decode_but_results(const struct wire_frame *frames, int n_frames,
                                               struct wire_msg *out, struct err *e);
void wire_msg_release(struct wire_msg *m);

/* Bytes of the first two frames; blobs follow as they are. `body` is borrowed, NULL means {}; `json` is a growing buffer
 * that the caller releases. Errors: ERR_FORMAT for a body above its type's limit. */
MUST_USE enum err_code wire_encode(enum wire_type type, const json_t *body,
                                   unsigned char header[WIRE_HEADER_BYTES], struct buf *json,
                                   struct err *e);

/* A JSON string of any text: bytes that are not UTF-8 (file names, messages of other libraries) become '?', and it is cut
 * at WIRE_MAX_TEXT bytes. New reference. */
enum { WIRE_MAX_TEXT = 1000 };
json_t *wire_text(const char *z);

#endif
