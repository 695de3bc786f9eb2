/* Workers' messages -> dispatch, and what dispatch decides -> messages. Answers are gathered in an outbox and sent only
 * after the transaction they report is on disk (group commit, PROTOCOL.md section 5); a transaction that fails drops them.
 * Nothing a worker sends is trusted: what does not decode is counted, logged now and then, and dropped. Thread: serve loop. */
#ifndef ISOBIT_COORDINATOR_INTAKE_H
#define ISOBIT_COORDINATOR_INTAKE_H

#include "base/json_text.h"
#include "coordinator/dispatch.h"
#include "coordinator/door.h"
#include "coordinator/files.h"
#include "schema/link.h"

/* What a worker has, as its BEAT says or as the coordinator knows. */
struct intake_claim {
    int64_t in_hand, credit;
};

/* Which connection a session speaks through, and how many jobs the coordinator believes to be in its hand. */
struct intake_seat {
    int64_t session;
    struct link_peer peer;
    char who[LINK_KEY_HEX]; /* the key behind the connection; "": none is in force */
    char uuid[33];
    int64_t n_in_hand;         /* leased or claimed by HELLO, less those acknowledged */
    int64_t n_committed;       /* n_in_hand after the last commit */
    struct intake_claim claim; /* of its last BEAT */
    int n_differing;           /* BEATs in a row that claimed the same, and what is not so here */
};

struct intake_out {
    struct link_peer to;
    enum wire_type type;
    json_t *body;
    void *blob; /* NULL: none */
    size_t blob_bytes;
};

struct intake {
    struct dispatch *dispatch; /* kept */
    const struct door *door;   /* kept */
    int64_t generation;        /* of the door's list that the seats were checked against */
    int n_hellos;              /* in this turn */
    struct dispatch_options options;
    struct intake_seat *seats;
    int n_seats, cap_seats;
    struct intake_out *out;
    int n_out, cap_out;
    int64_t n_garbage;
    int64_t n_writes;      /* messages and leases so far that change the database */
    bool is_draining;      /* whoever registers is told to leave */
    struct json_text text; /* of the RESULT in work */
    struct files files;    /* that workers may fetch */
    int n_parts;           /* of files, in the outbox */
};

enum { INTAKE_MAX_SEATS = 1024 };

void intake_release(struct intake *in);

/* Begins a turn, inside a transaction: sessions whose key is no longer listed end, and their jobs return. */
MUST_USE enum err_code intake_begin(struct intake *in, struct err *e);
/* One message, inside a transaction. Errors: those of the store only; then the transaction must be rolled back. */
MUST_USE enum err_code intake_apply(struct intake *in, struct link_inbox *box, int64_t now_ns,
                                    struct err *e);
/* Puts a slice into the outbox. */
void intake_lease(struct intake *in, const struct slice *s);
void intake_revoke(struct intake *in, const struct revoke *v, int n);
/* DRAIN or BEAT for every seat, into the outbox. */
void intake_tell_all(struct intake *in, enum wire_type type);

/* After a commit: sends the outbox. After a rollback, and dispatch_rolled_back: forgets it and what it took for granted. */
void intake_flush(struct intake *in, struct link *l);
void intake_drop(struct intake *in);
/* Forgets seats whose session dispatch no longer knows. */
void intake_sweep(struct intake *in);
int intake_n_sessions(const struct intake *in);

#endif
