/* Decides from an event log alone (docs/EVENTS.md) whether every job was completed exactly once: attempts grow, nobody holds
 * a job twice, one attempt is done and nothing follows it. Plain C, no framework. */
#ifndef ISOBIT_TESTS_SUPPORT_HISTORY_H
#define ISOBIT_TESTS_SUPPORT_HISTORY_H

#include <stdint.h>

#include "base/str.h"

struct history {
    int64_t n_events, n_starts, n_torn; /* torn: lines that a kill cut short */
    int64_t n_done, n_open; /* jobs done; jobs leased and neither done nor handed back */
    int64_t n_fenced, n_failed, n_lost, n_buried;
    int64_t n_violations;
    struct buf violations; /* the first ones, a line each */
};

/* Aborts (CHECK) when the file cannot be read. */
void history_read(const char *path, struct history *out);
void history_release(struct history *h);

#endif
