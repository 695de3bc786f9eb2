/* A sweep whose coordinator and workers are killed at random (what must come of it: outcome.h). Shared by the kill stories;
 * plain C, no framework. */
#ifndef ISOBIT_TESTS_SUPPORT_DISTURB_H
#define ISOBIT_TESTS_SUPPORT_DISTURB_H

#include "base/rng.h"
#include "tests/support/cluster.h"
#include "tests/support/outcome.h"

enum { DISTURB_WORKERS = 2 };

struct disturb {
    char *dir, *log;
    char db[512], events[520];
    char endpoint[256];
    pid_t coordinator, workers[DISTURB_WORKERS];
    const char *const *worker_args; /* beyond the usual ones; may be NULL */
    void (*plan)(const char *db);
    int pause_ms; /* between two kills, at most */
    struct rng rng;
};

/* Kills asked for (ISOBIT_KILLS, else `n_kills`) and the seed (ISOBIT_KILL_SEED, else the process id), printed. */
struct disturb disturb_new(void (*plan)(const char *db), int *n_kills);
void disturb_free(struct disturb *d);

/* A new database DIR/NAME.db with its coordinator and workers. */
void disturb_open(struct disturb *d, const char *name);
void disturb_close(struct disturb *d);
/* On d->endpoint, over d->db, with an event log. */
void disturb_start_coordinator(struct disturb *d);
/* Until nothing is pending or leased; false after `seconds`. */
bool disturb_await_end(const struct disturb *d, double seconds);
/* Kills workers (50 %), the coordinator (40 %) or both at random moments of as many new sweeps as `n_kills` takes; each must
 * come out as `expected`. Prints what it did. */
void disturb_sweeps(struct disturb *d, int n_kills, const struct buf *expected);

#endif
