/* A worker's connection to its coordinator: registering, heartbeats, credit, and sending what is in hand until it is
 * acknowledged (PROTOCOL.md sections 4 and 5). Knows nothing of computing. A lost coordinator is no error: the link goes
 * on trying while work in hand goes on. Every call takes the monotonic now_ns. Thread: the parent's loop. */
#ifndef ISOBIT_WORKER_UPLINK_H
#define ISOBIT_WORKER_UPLINK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "schema/link.h"
#include "worker/fetch.h"
#include "worker/hand.h"

/* What BEAT tells of the compute child. */
struct uplink_status {
    int64_t counter, done;
    double running_s; /* of the running job */
};

struct uplink_item { /* an ITEMS message, kept because every session gets it again */
    json_t *body;
    char *key;     /* items_identity */
    int64_t epoch; /* in which it was sent last */
};

struct uplink {
    struct link_context *context; /* borrowed */
    struct link *link;
    struct link_door door;        /* hears why a handshake failed */
    int64_t n_failures;           /* handshakes that failed */
    const char *endpoint;         /* kept */
    const struct link_keys *keys; /* kept */
    struct hand *hand;            /* kept */
    json_t *hello;                /* HELLO without `held` */
    int64_t session;              /* 0: greeting */
    int64_t epoch;                /* counts WELCOMEs: everything open is sent again after each */
    int64_t heartbeat_ns;
    int64_t heard_ns, silence_ns; /* last sign of life; how long none is borne */
    int64_t hello_ns, beat_ns;    /* when the next one is due */
    int credit_max, credit_given;
    int64_t end_ns; /* when this worker leaves; 0: not known */
    struct uplink_item *items;
    int n_items;
    struct fetch *fetch;         /* kept */
    struct uplink_status status; /* the owner keeps it up to date */
    /* What the coordinator asked for; the owner acts and clears them. */
    bool is_drain_asked;
    bool is_stop_asked; /* the running job was revoked */
    bool is_refused;    /* `why` says it; the end */
    struct err why;
};

/* `hello` is a stolen reference. Errors: ERR_USAGE for an endpoint that does not parse. */
MUST_USE enum err_code uplink_open(struct uplink *u, struct link_context *c, const char *endpoint,
                                   json_t *hello, struct hand *hand, int64_t now_ns, struct err *e);
void uplink_close(struct uplink *u);

/* Takes in everything that has arrived. */
void uplink_receive(struct uplink *u, int64_t now_ns);
/* Does everything that is due; returns ns until more is. `may_lease`: give credit. */
int64_t uplink_tick(struct uplink *u, bool may_lease, int64_t now_ns);
/* Facts about items, from the compute child; repeats are dropped. `body` is borrowed. */
void uplink_add_items(struct uplink *u, json_t *body);
/* Says BYE; ERR_BUSY when nothing is connected. */
MUST_USE enum err_code uplink_bye(struct uplink *u, struct err *e);

#endif
