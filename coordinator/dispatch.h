/* Which worker gets which jobs, and what becomes of them: sessions, credit, leases, fencing, retries, burying. Pure but for
 * the store: no socket, no clock; every call takes the monotonic now_ns. The serve loop owns the sockets, calls these
 * functions between store_begin and store_commit, and sends what they decide only after the commit. Thread: serve loop.
 *
 * Invariants (tested; numbered where the code relies on them):
 *   I1  a job is leased to at most one session; its attempt number grows with every lease
 *   I2  a result counts only if job, attempt and session still match (fenced otherwise), and at most once
 *   I3  a lease whose session is silent for lease_ns ends; the attempt counts for the job that ran (the one BEAT names, else
 *       the first in hand), the jobs waiting behind it return without cost; after max_attempts a job is buried
 *   I4  jobs handed back unrun (drain, files absent, memory too small) cost no attempt
 *   I5  a session never holds more slices than the credit it gave */
#ifndef ISOBIT_COORDINATOR_DISPATCH_H
#define ISOBIT_COORDINATOR_DISPATCH_H

#include <stdint.h>

#include "base/json.h"
#include "coordinator/events.h"
#include "schema/job.h"
#include "schema/store_work.h"
#include "schema/wire.h"

struct dispatch; /* opaque */

struct dispatch_options {
    int64_t lease_ns; /* silence after which a session's leases end */
    int64_t heartbeat_ns;
    int64_t slice_ns; /* target length of a slice */
    int max_attempts;
    struct events *events; /* kept; NULL: nobody asked for them */
};

MUST_USE enum err_code dispatch_new(struct store *s, const struct dispatch_options *o,
                                    int64_t now_ns, struct dispatch **out, struct err *e);
void dispatch_free(struct dispatch *d);

/* What a worker says of itself in HELLO. Strings borrowed. `uuid` is the worker's own name across reconnects: a second HELLO
 * with the same uuid is the same session and keeps its leases (`held` lists what it still has in hand). */
struct worker_hello {
    const char *uuid, *host, *device, *program;
    const char *public_key; /* proved by the connection; "" or NULL: no keys are in force */
    int numerics;           /* another one than our WIRE_NUMERICS is refused */
    int64_t memory_bytes;
    unsigned computes; /* bit i: enum compute i */
    int64_t pid;
    double left_s;            /* until it leaves; 0: not known */
    const int64_t *held_jobs; /* ids with attempts it holds from before */
    const int *held_attempts;
    int n_held;
};

/* *session: a number that later calls take. Errors: ERR_VERSION for other numerics, ERR_DENIED for the uuid of
 * another key (texts for REFUSE). */
MUST_USE enum err_code dispatch_hello(struct dispatch *d, const struct worker_hello *h,
                                      int64_t now_ns, int64_t *session, struct err *e);
bool dispatch_knows(const struct dispatch *d, int64_t session);
/* Sign of life. `progress` (borrowed, may be NULL) is the body of BEAT: kept for status. */
void dispatch_beat(struct dispatch *d, int64_t session, const json_t *progress, int64_t now_ns);
void dispatch_credit(struct dispatch *d, int64_t session, int n_slices);
/* Jobs leased to a session now; a worker that counts fewer in hand has missed a LEASE. */
int dispatch_in_hand(const struct dispatch *d, int64_t session);
/* Slices that a session's credit is still good for; a worker that counts others has missed a LEASE, or its CREDIT was missed. */
int dispatch_credit_left(const struct dispatch *d, int64_t session);

/* One slice: jobs of one checkpoint, all evaluations of 1..c configurations, baseline first. */
struct slice {
    int64_t id;
    int64_t session;
    struct job *jobs; /* owned by the arena */
    int n_jobs;
    int64_t limit_s;         /* a job of it that runs longer has failed; 0: none */
    int64_t estimated_bytes; /* memory a worker needs for the checkpoint; 0: not known */
};
/* Leases the next slice to any session with credit. *found = false: nothing to hand out now. Call until then. */
MUST_USE enum err_code dispatch_next(struct dispatch *d, int64_t now_ns, struct arena *a,
                                     struct slice *out, bool *found, struct err *e);

enum verdict {
    VERDICT_ACCEPTED,
    VERDICT_FENCED,    /* lost lease, or already done: the worker forgets it */
    VERDICT_OTHER_DATA /* beside ERR_DENIED: the data differ, the weights do not */
};

/* Which lease a worker speaks of; all three must still fit (I2). */
struct dispatch_ref {
    int64_t session, job;
    int attempt;
};

/* samples: a compressed blob as it came; its codec is e.g. "zstd-f32/2". Errors: ERR_IO, ERR_BUSY (the store); ERR_DENIED when
 * weights or data differ from the identity that the first worker pinned (both hashes in the text): that session is not given
 * this checkpoint or evaluation again and the job returns to pending (I4). */
MUST_USE enum err_code dispatch_result(struct dispatch *d, const struct dispatch_ref *at,
                                       const struct job_result *r,
                                       const struct store_samples *samples, int64_t now_ns,
                                       enum verdict *v, struct err *e);
/* code decides by err_fate: counts and buries, or waits for another worker as when the checkpoint is missing. */
MUST_USE enum err_code dispatch_fail(struct dispatch *d, const struct dispatch_ref *at,
                                     enum err_code code, const char *text, int64_t now_ns,
                                     enum verdict *v, struct err *e);
/* Handed back unrun because the worker lacks something, which it is not given again. */
struct dispatch_lack {
    enum wire_lack what;
    enum err_code
        code; /* NOTFOUND or NOMEM; after NOMEM for a checkpoint no worker with as little memory is given it */
    const char *text; /* borrowed */
};
MUST_USE enum err_code dispatch_missing(struct dispatch *d, const struct dispatch_ref *at,
                                        const struct dispatch_lack *lack, int64_t now_ns,
                                        enum verdict *v, struct err *e);
/* Handed back unrun; `reason` "drain", "revoked" or "missing" (then this session is not given this checkpoint again). */
MUST_USE enum err_code dispatch_return(struct dispatch *d, const struct dispatch_ref *at,
                                       const char *reason, const char *text, int64_t now_ns,
                                       enum verdict *v, struct err *e);
/* Facts about items, once per items_identity. */
MUST_USE enum err_code dispatch_items(struct dispatch *d, const char *data_sha256, enum task task,
                                      const struct item_list *l, struct err *e);
/* The worker left in peace: what it still holds returns to pending without an attempt. */
MUST_USE enum err_code dispatch_bye(struct dispatch *d, int64_t session, struct err *e);

/* Jobs that a session must stop: cancelled or held while leased. Appends (session, job) pairs; call after control changes. */
struct revoke {
    int64_t session, job;
};
MUST_USE enum err_code dispatch_revokes(struct dispatch *d, struct arena *a, struct revoke **out,
                                        int *n, struct err *e);

/* Everything that is due: ends silent sessions and their leases. *next_ns: ns until more is due. */
MUST_USE enum err_code dispatch_tick(struct dispatch *d, int64_t now_ns, int64_t *next_ns,
                                     struct err *e);
/* After the caller rolled a transaction back (a failed commit): forgets what was decided in it, credit included, so that the
 * same messages can be handled again. */
void dispatch_rolled_back(struct dispatch *d);
/* The caller was deaf until now (it stood still, or the database could not be written): nobody's silence so far counts. */
void dispatch_resume(struct dispatch *d, int64_t now_ns);
/* After jobs changed behind dispatch's back (plan, retry, release through control.h): look at the store again. */
void dispatch_jobs_changed(struct dispatch *d);

struct dispatch_counts {
    int64_t pending, leased, done, buried, held, cancelled;
    int workers;
    double jobs_per_s; /* over the last minute */
    double eta_s;      /* < 0: not known yet; from measured time per cost, not from counts alone */
};
MUST_USE enum err_code dispatch_count(struct dispatch *d, int64_t now_ns,
                                      struct dispatch_counts *out, struct err *e);
/* The evaluations of all jobs, by index; NULL beyond the last one. */
const struct eval_spec *dispatch_eval(const struct dispatch *d, int i);
/* Live sessions for `status`: array of objects uuid, host, device, program, state, checkpoint, jobs, seconds, left_s where the
 * worker has said when it leaves, and lacks (evaluations whose data it has not). New reference. */
json_t *dispatch_workers_json(const struct dispatch *d, int64_t now_ns);

#endif
