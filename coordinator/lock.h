/* The one-writer rule: who writes F.db holds flock(2) on F.db.lock. While `serve` or `run` holds it, the file's text is JSON
 * {"pid", "host", "control"} naming the control socket; `plan`, `retry`, `cancel`, … go through that socket, or take the
 * lock themselves when nothing runs. The lock dies with its process. */
#ifndef ISOBIT_COORDINATOR_LOCK_H
#define ISOBIT_COORDINATOR_LOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct lock {
    int fd; /* < 0: not held */
    char *path;
};

/* What stands in a lock file that somebody else holds. */
struct lock_owner {
    int64_t pid;
    char host[128];
    char control[256]; /* "ipc:///tmp/…"; empty while a short command holds it */
};

/* Takes the lock without waiting. ERR_BUSY: *owner tells who has it. Other errors: ERR_DENIED (read-only folder), ERR_IO. */
MUST_USE enum err_code lock_take(const char *db_path, struct lock *out, struct lock_owner *owner,
                                 struct err *e);
/* Writes the control endpoint into a held lock. */
MUST_USE enum err_code lock_publish(struct lock *l, const char *control, struct err *e);
void lock_release(struct lock *l);
/* Whether somebody holds the lock, and who. Takes nothing, writes nothing. */
bool lock_is_held(const char *db_path, struct lock_owner *owner);

#endif
