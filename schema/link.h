/* ZeroMQ sockets under isobit's messages: the only module that sees zmq.h. One ROUTER (coordinator), DEALERs (workers,
 * control clients). No heartbeat logic here: the loops that own a link decide when. ROUTER_MANDATORY is on, LINGER finite,
 * MAXMSGSIZE set, routing ids are assigned by the ROUTER and never trusted as identity. Thread: one per link. */
#ifndef ISOBIT_SCHEMA_LINK_H
#define ISOBIT_SCHEMA_LINK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "schema/wire.h"

struct link_context; /* one per process */
struct link;         /* one socket */

enum { LINK_PEER_MAX = 32 };
struct link_peer { /* a ROUTER's name for a connection; meaningless after that connection ends */
    unsigned char id[LINK_PEER_MAX];
    uint8_t n;
};

MUST_USE enum err_code link_context_new(struct link_context **out, struct err *e);
void link_context_free(
    struct link_context *c); /* waits for closed links' last messages, at most LINGER */

/* CURVE keys, as 64 hexadecimal digits each. */
enum { LINK_KEY_HEX = 65 };
struct link_keys {
    char public_key[LINK_KEY_HEX], secret_key[LINK_KEY_HEX];
    char coordinator[LINK_KEY_HEX]; /* its public key; read by connecting links only */
};
/* A new pair; `coordinator` is left alone. Errors: ERR_UNSUPPORTED when libzmq was built without CURVE. */
MUST_USE enum err_code link_make_keys(struct link_keys *out, struct err *e);
/* Fills public_key in from secret_key. */
MUST_USE enum err_code link_derive_public(struct link_keys *k, struct err *e);

/* Who comes in and who fails to. Called from link_wait and link_listen's owner's thread, never from another. */
struct link_door {
    void *arg;
    /* Listening with keys: may the owner of this public key come in? `address` is where from. Required there. */
    bool (*admit)(void *arg, const char key[LINK_KEY_HEX], const char *address);
    /* A handshake that failed; may be NULL. is_unlisted (connecting): the other side does not list our key. */
    void (*on_failure)(void *arg, bool is_unlisted, const char *text);
    int max_connections; /* listening: more are closed at once; 0: no limit */
};

struct link_options {
    /* NULL: no encryption, and then only this machine can be listened on */
    const struct link_keys *keys;
    /* Copied; NULL: nobody is told. Listening with keys needs one. */
    const struct link_door *door;
    int64_t reconnect_min_ns; /* connecting links; 0: 100 ms */
    int64_t reconnect_max_ns; /* 0: 32 s; the wait doubles from min to max */
    int64_t linger_ns;        /* how long a closed link may still send; 0: 1 s */
    int high_water;           /* messages queued for each peer; 0: 1000 */
    int receive_high_water;   /* messages of each peer that wait to be received; 0: 1000 */
    bool leaves_results;      /* bodies of RESULTs stay text (wire_decode_but_results) */
};

/* True for ipc:// and for tcp:// on a loopback address: nobody on another machine can reach it. */
bool link_is_local(const char *endpoint);

/* endpoint "tcp://127.0.0.1:5555", port 0 or * takes a free one; "ipc://PATH". `bound` (256 bytes) gets the real
 * endpoint. Errors: ERR_BUSY for a port in use, naming it; ERR_USAGE for an endpoint that does not parse; ERR_DENIED for
 * one that is not local, without keys. */
MUST_USE enum err_code link_listen(struct link_context *c, const char *endpoint,
                                   const struct link_options *o, char bound[256], struct link **out,
                                   struct err *e);
/* Returns at once; the connection is made, and made again, in the background. */
MUST_USE enum err_code link_connect(struct link_context *c, const char *endpoint,
                                    const struct link_options *o, struct link **out, struct err *e);
void link_close(struct link *l); /* NULL is fine */

/* Sends; `to` is NULL on a connecting link. Never blocks: ERR_BUSY when the queue is full or nothing is connected,
 * ERR_NOTFOUND when the peer is gone. */
MUST_USE enum err_code link_send(struct link *l, const struct link_peer *to, enum wire_type type,
                                 const json_t *body, const struct wire_frame *blobs, int n_blobs,
                                 struct err *e);

/* A received message; release with link_inbox_release. `bad` is set (and msg all zero) when the frames did not decode:
 * then `why` says what was wrong; the caller logs it and goes on. */
struct link_inbox {
    struct link_peer from;
    char who
        [LINK_KEY_HEX]; /* the sender's public key, proved by its handshake; "": no keys are in force */
    size_t n_bytes;     /* of all frames */
    struct wire_msg msg;
    bool is_bad;
    struct err why;
    void *parts; /* the frames behind msg.blobs; link.c's own */
};
/* false: nothing is waiting. */
bool link_receive(struct link *l, struct link_inbox *in);
void link_inbox_release(struct link_inbox *in);

/* Waits until one of the links or file descriptors can be read, at most timeout_ns (< 0: for ever), or a signal arrives.
 * readable[i] is set for links first, then fds; returns the number set (0: time-out or signal). */
int link_wait(struct link *const *links, int n_links, const int *fds, int n_fds, int64_t timeout_ns,
              bool *readable);

#endif
