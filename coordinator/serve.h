/* The coordinator's loop: one thread, no locks. It owns the database's lock, the store, the worker socket, the control
 * socket and the process's signals. Each turn takes in what has arrived, writes it in one transaction, and only then
 * answers (PROTOCOL.md). Used by `serve` and by `run`, which adds local workers through the turn hook. */
#ifndef ISOBIT_COORDINATOR_SERVE_H
#define ISOBIT_COORDINATOR_SERVE_H

#include "base/json.h"
#include "coordinator/dispatch.h"
#include "schema/link.h"

struct serve; /* opaque */

struct serve_options {
    const char *db_path;
    const char *listen;   /* "tcp://127.0.0.1:0" */
    const char *keys_dir; /* NULL: no keys, and only local addresses */
    struct dispatch_options dispatch;
    const char *events_path; /* the event log (docs/EVENTS.md); NULL: none */
    int64_t grace_ns;        /* a drain waits so long for workers to leave */
    bool is_until_done;      /* end when nothing is pending or leased */
    /* Called every turn, at least four times a second; may be NULL. It may call serve_drain. */
    void (*turn)(void *arg, struct serve *s, int64_t now_ns);
    void *turn_arg;
};

/* Takes the lock, opens (or creates) the database, listens. Strings are kept. Signals SIGINT, SIGTERM and SIGHUP are
 * blocked from here to serve_close. Errors: ERR_BUSY (somebody else has the database or the port), those of store_open
 * and link_listen. */
MUST_USE enum err_code serve_open(const struct serve_options *o, struct serve **out, struct err *e);
/* A database that serve_open made is removed again when serve_run was never called. */
void serve_close(struct serve *s);

const char *serve_endpoint(const struct serve *s); /* "tcp://127.0.0.1:41233" */
/* Counts now, before serve_run. */
MUST_USE enum err_code serve_count(struct serve *s, struct dispatch_counts *out, struct err *e);

enum serve_end {
    SERVE_DONE,    /* nothing pending or leased */
    SERVE_DRAINED, /* asked to stop; every worker has left */
    SERVE_CUT      /* asked twice, or the grace ran out: leases remain in the database */
};
/* Runs until done or asked to stop. */
enum serve_end serve_run(struct serve *s);

/* Stops leasing and asks all workers to leave; serve_run then ends. */
void serve_drain(struct serve *s, const char *why);
bool serve_is_draining(const struct serve *s);

/* Counts of about half a second ago at most. */
const struct dispatch_counts *serve_counts(const struct serve *s);

/* The database cannot be written at present; nothing is acknowledged meanwhile. */
bool serve_is_in_trouble(const struct serve *s);
/* Live workers, as dispatch_workers_json; an empty array while the database cannot be written. New reference. */
json_t *serve_workers_json(const struct serve *s, int64_t now_ns);

#endif
