/* What a worker has in hand: jobs leased to it, from the LEASE that brought them to the ACK that settles them. An answer
 * (RESULT, FAIL, RETURN) is kept here until it is acknowledged, over reconnects and new sessions; that is what makes a
 * result that was computed once arrive once. Pure: no socket, no clock. Thread: the parent's loop.
 *
 *   WAITING ──▶ RUNNING ──▶ ANSWERED ──ACK──▶ gone
 *    │  ▲          │           ▲
 *    │  └─ split ──┘           │
 *    └──────── RETURN ─────────┘
 */
#ifndef ISOBIT_WORKER_HAND_H
#define ISOBIT_WORKER_HAND_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/json.h"
#include "schema/wire.h"

enum hand_state { HAND_WAITING, HAND_RUNNING, HAND_ANSWERED };

struct hand_job {
    int64_t job, attempt, slice;
    int64_t limit_s; /* it has failed when it runs longer; 0: no limit */
    enum hand_state state;
    int share_max; /* jobs that may run together with it, itself counted; 0: no limit */
    json_t *start; /* body of START; its "model" tells checkpoints apart */
    /* Answered: */
    enum wire_type type;
    json_t *body;
    void *blob; /* NULL: none */
    size_t blob_bytes;
    int64_t epoch;     /* uplink.h: in which it was sent last; 0: not yet */
    int64_t resend_ns; /* when it is sent again if no ACK has come */
    int n_sent;
};

struct hand {
    struct hand_job
        *v; /* oldest first; pointers are valid until the next call that adds or settles */
    int n, cap;
};

enum { HAND_MAX_JOBS = 65536, HAND_MAX_SLICE = 4096 };

void hand_release(struct hand *h);

/* Takes a LEASE in; a job that is already in hand with this attempt is passed over. Errors: ERR_FORMAT; then nothing has
 * been added. */
MUST_USE enum err_code hand_lease(struct hand *h, const json_t *lease, struct err *e);

/* attempt < 0: any. NULL when it is not in hand. */
struct hand_job *hand_find(struct hand *h, int64_t job, int64_t attempt);
struct hand_job *hand_running(struct hand *h); /* the first of several */
int hand_n_running(const struct hand *h);
bool hand_is_same_model(const struct hand_job *a, const struct hand_job *b);
struct hand_job *hand_next_waiting(struct hand *h);
/* The jobs that ran together wait again, for runs of half as many; returns how many they were. */
int hand_split_running(struct hand *h);

/* Notes the answer of a job. `body` is a stolen reference; the blob is copied. */
void hand_answer(struct hand_job *j, enum wire_type type, json_t *body,
                 const struct wire_frame *blob);
/* Answers with FAIL or RETURN in this worker's own words. */
void hand_answer_fail(struct hand_job *j, enum err_code code, const char *text);
void hand_answer_return(struct hand_job *j, const char *reason, const char *text);
/* RETURN `missing`, with what is, and the error that says whether files or memory are. */
void hand_answer_missing(struct hand_job *j, enum wire_lack lacks, enum err_code code,
                         const char *text);
/* The same for all waiting jobs that want the same checkpoint or data as `like`; a configuration is one job's alone. */
void hand_return_missing(struct hand *h, const struct hand_job *like, enum wire_lack lacks,
                         enum err_code code, const char *text);
/* RETURN for everything waiting. */
void hand_return_waiting(struct hand *h, const char *reason, const char *text);

/* ACK: forgets it; false when it is not in hand. */
bool hand_settle(struct hand *h, int64_t job, int64_t attempt);

/* Slices with a job that is not answered yet. */
int hand_open_slices(const struct hand *h);
/* [[job, attempt]…] of everything. New reference. */
json_t *hand_held_json(const struct hand *h);

#endif
