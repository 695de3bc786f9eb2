/* How long jobs take: measured seconds by (checkpoint, evaluation), what they say about pairs not measured yet, and the
 * rate of the last minute. Pure. */
#ifndef ISOBIT_COORDINATOR_PACE_H
#define ISOBIT_COORDINATOR_PACE_H

#include "coordinator/board.h"

enum { PACE_WINDOW_S = 60 };

struct pace_mean {
    double seconds;
    int n;
};

/* All zero is valid: nothing measured. */
struct pace {
    struct pace_mean *v; /* [models][evals] */
    int n_models, n_evals;
    int64_t finished[PACE_WINDOW_S]; /* jobs by second, a ring */
    int64_t second;                  /* the newest one in the ring */
    int64_t start_s;                 /* when the first job finished; 0: none yet */
};

void pace_release(struct pace *p);
/* Room for all of the board's checkpoints and evaluations; what was measured stays. */
void pace_fit(struct pace *p, const struct store_parts *parts);
void pace_add(struct pace *p, int32_t model, int32_t eval, double seconds, int64_t now_ns);
bool pace_is_measured(const struct pace *p, int32_t model, int32_t eval);
/* Seconds of one job; from other checkpoints, in proportion to their parameters, when this one is not measured.
 * Negative: nothing to go by. */
double pace_job_seconds(const struct pace *p, const struct store_parts *parts, int32_t model,
                        int32_t eval);
/* Jobs a second over the last minute, or since the first one. */
double pace_rate(const struct pace *p, int64_t now_ns);
/* Seconds that one worker would need for all open jobs; negative: not known. */
double pace_open_seconds(const struct pace *p, const struct board *b);

#endif
