/* What the files of dispatch share. Calls go one way: dispatch.c (sessions, handing out) uses dispatch_end.c (taking back),
 * both use dispatch_board.c (what the store says). Included by them only. */
#ifndef ISOBIT_COORDINATOR_DISPATCH_IMPL_H
#define ISOBIT_COORDINATOR_DISPATCH_IMPL_H

#include "coordinator/board.h"
#include "coordinator/dispatch.h"
#include "coordinator/pace.h"
#include "coordinator/session.h"

struct dispatch {
    struct store *store;
    struct dispatch_options options;
    struct board board;
    struct pace pace;
    struct session_table sessions;
    struct revoke *revokes;
    int n_revokes;
    int next_slot; /* sessions take turns */
    int64_t n_slices;
    int64_t now_ns;
    bool is_stale; /* the board must be read again from the store */
};

enum { DISPATCH_MAX_CREDIT = 64 }; /* a worker that asks for more is not believed */

/* Brings the board up to date when jobs changed behind it. */
MUST_USE enum err_code dispatch_refresh(struct dispatch *d, struct err *e);
/* The credit before the open transaction is kept, for dispatch_rolled_back. */
void dispatch_set_credit(struct dispatch *d, struct session *s, int credit);
void dispatch_revoke(struct dispatch *d, int64_t session, int64_t job);

/* A job in somebody's hand. */
struct lease {
    int64_t job;
    int slot, attempt;
};

/* Ends the attempt of a held job in the store and on the board. counts: a failure of the job, which buries it when it
 * was the last. outcome NULL: leaves no trace. */
struct dispatch_ending {
    const char *outcome;
    enum err_code code;
    const char *text;
    bool counts;
};
MUST_USE enum err_code dispatch_end(struct dispatch *d, struct session *s, int32_t job,
                                    const struct dispatch_ending *end, struct err *e);
/* A worker's change of state, for the event log. */
void dispatch_tell_worker(struct dispatch *d, const struct session *s, const char *state);
/* Hands back everything a session holds; `lost` says that it went silent: then the job that ran counts (I3). */
MUST_USE enum err_code dispatch_end_all(struct dispatch *d, struct session *s, bool is_lost,
                                        struct err *e);

#endif
