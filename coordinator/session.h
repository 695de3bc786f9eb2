/* The workers that dispatch knows: a table of sessions. A session is named by a number that is never used again; its slot
 * in the table is what jobs point to. Pure. */
#ifndef ISOBIT_COORDINATOR_SESSION_H
#define ISOBIT_COORDINATOR_SESSION_H

#include "base/json.h"
#include "coordinator/board.h"
#include "schema/wire.h"

/* What a session is not given again: a checkpoint, an evaluation (its data are absent or differ), or a job (its
 * configuration does not fit). */
struct session_refusal {
    enum wire_lack what;
    int64_t id;     /* index of the checkpoint or evaluation; the job's number */
    bool is_denied; /* only because another hash is pinned */
};

struct session {
    int64_t number;
    int64_t worker_id; /* in the database; one for each uuid */
    bool is_live;      /* false: leases from before a restart wait for their worker to return */
    char *uuid, *host, *device, *program;
    unsigned computes; /* bit i: enum compute i */
    int64_t memory_bytes;
    int64_t end_ns;                      /* when it leaves, monotonic; 0: not known */
    int64_t since_ns, seen_ns, noted_ns; /* noted: last_seen written to the database */
    int credit;                          /* slices it can still take */
    int64_t begun_group;                 /* the transaction it began in */
    int64_t mark_group;                  /* the transaction in which credit last changed, */
    int mark_credit;                     /* and what it was before */
    struct board_list held;
    int32_t model;   /* checkpoint of its last slice: the one it has loaded; -1: none */
    double slowness; /* its seconds over the mean's; 1: average */
    json_t *progress;
    struct session_refusal *refused; /* sorted */
    int n_refused;
};

/* A checkpoint for which a device with so much memory was too small: no smaller one is offered it. */
struct session_limit {
    int32_t model;
    int64_t bytes;
};

/* All zero is an empty table. */
struct session_table {
    struct session **v; /* by slot; NULL: free */
    int n_slots, n_live;
    int64_t n_ever;
    struct session_limit *limits;
    int n_limits;
};

void session_table_release(struct session_table *t);
/* A new session; its slot in *slot. */
struct session *session_add(struct session_table *t, int64_t worker_id, int *slot);
void session_remove(struct session_table *t, int slot);
/* Slot of a session number or of a worker; -1: none. */
int session_find(const struct session_table *t, int64_t number);
int session_of_worker(const struct session_table *t, int64_t worker_id);

/* Strings are copied. */
struct worker_hello;
void session_describe(struct session *s, const struct worker_hello *h);
void session_set_live(struct session_table *t, struct session *s);
void session_refuse(struct session *s, const struct session_refusal *r);
bool session_refuses(const struct session *s, enum wire_lack what, int64_t id);
void session_limit(struct session_table *t, int32_t model, int64_t bytes);
bool session_is_too_small(const struct session_table *t, const struct session *s, int32_t model);

#endif
