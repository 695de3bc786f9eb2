/* The event log: one JSON object a line for whatever happens to jobs and workers (docs/EVENTS.md). Events of a transaction are
 * gathered in memory and written, in one piece, after its commit: the log never tells of something that was rolled back. A
 * kill between the two loses the events of one commit, which the next start tells again from the database. Thread: serve
 * loop. A NULL `struct events` is a log that nobody asked for: every call does nothing. */
#ifndef ISOBIT_COORDINATOR_EVENTS_H
#define ISOBIT_COORDINATOR_EVENTS_H

#include "base/json.h"
#include "schema/store.h"

struct events; /* opaque */

/* Appends to a file, made when it does not exist. Errors: ERR_IO, ERR_DENIED. */
MUST_USE enum err_code events_open(const char *path, struct events **out, struct err *e);
void events_close(struct events *ev);

/* What happened to a job. NULL texts and seconds < 0 are left out. */
struct event_job {
    int64_t job;
    int attempt;
    const char *worker; /* uuid */
    const char *code, *text;
    double seconds;
};
void events_job(struct events *ev, const char *event, const struct event_job *j);
/* Jobs first .. first + n - 1, leased to a worker in the same attempt: one event each. */
void events_leases(struct events *ev, int64_t first, int64_t n, int attempt, const char *worker);
/* Anything else; `body` is a stolen reference and may be NULL. */
void events_other(struct events *ev, const char *event, json_t *body);

/* After a commit: writes what was gathered; a log that cannot be written is reported once and goes on without. */
void events_flush(struct events *ev);
/* After a rollback: forgets it. */
void events_drop(struct events *ev);

/* At the start: `start` with the counts, then what the last commit before it may have left out. */
MUST_USE enum err_code events_begin(struct events *ev, struct store *s, struct err *e);

#endif
