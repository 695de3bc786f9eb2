/* Which work for which worker: it stays with the checkpoint it has loaded while there is work for it; others take other
 * checkpoints, largest first, and share one only when nothing else is left. Slices last about as long as asked and shrink
 * towards the end. Pure. */
#ifndef ISOBIT_COORDINATOR_PLACE_H
#define ISOBIT_COORDINATOR_PLACE_H

#include "coordinator/board.h"
#include "coordinator/pace.h"
#include "coordinator/session.h"

/* Bytes a worker needs for a checkpoint and its quantized copy; 0: not known. */
int64_t place_bytes(const struct store_model *m, enum compute c);

/* The best lane for the session in `slot`, -1: none. Lanes with skip[i] set are left out (skip may be NULL). */
int32_t place_lane(const struct board *b, const struct session_table *t, int slot,
                   const bool *skip);

struct place_time {
    double slice_s; /* how long a slice should last */
    int64_t now_ns;
};

/* Jobs of one slice from a lane, in the order to run them: indices into b->jobs, at most `max`. Returns their number; 0 when
 * nothing in the lane is for this session: refused, failed there last, or too long for the time it has left. */
int place_slice(const struct board *b, const struct pace *p, const struct session_table *t,
                int slot, int32_t lane, const struct place_time *time, int32_t *jobs, int max);

#endif
