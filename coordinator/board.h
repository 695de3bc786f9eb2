/* The open jobs in memory, arranged for handing out. A *cell* is all open evaluations of one configuration on one
 * checkpoint; a *lane* is the cells of one checkpoint with the same arithmetic and priority, baseline first, with a cursor
 * before which nothing is pending. Taking, returning and closing a job are O(1); nothing here scans all jobs. Built from
 * the store and rebuilt when jobs changed behind dispatch's back. About 60 bytes a job. Pure but for board_load. */
#ifndef ISOBIT_COORDINATOR_BOARD_H
#define ISOBIT_COORDINATOR_BOARD_H

#include "schema/store_work.h"

/* Jobs that one owner holds, in the order they were taken. */
struct board_list {
    int32_t head, tail; /* indices of jobs; meaningless when n is 0 */
    int32_t n;
};

struct board_job {
    int64_t id;
    int64_t worker_id;  /* of the lease in the database; 0: none */
    int32_t cell, eval; /* indices */
    int32_t set_id, attempt, failures, priority;
    int32_t owner; /* slot of the session that holds it, -1: none */
    int32_t prev, next;
    int32_t avoid; /* slot of the session it failed on last: others first; -1: none */
    bool is_pending, is_open;
};

struct board_cell {
    int32_t model, config; /* indices */
    int32_t first_job, n_jobs, n_pending;
    int32_t lane, priority;
};

struct board_lane {
    int32_t model;
    enum compute compute;
    int32_t priority;
    int32_t first_cell, n_cells;
    int32_t cursor;          /* no cell before it has pending jobs */
    int32_t n_pending_cells; /* cells with pending jobs */
    int64_t n_pending;
};

/* All zero is an empty board. */
struct board {
    struct arena arena; /* of parts */
    struct store_parts parts;
    struct board_job *jobs;   /* by checkpoint, configuration (baselines first), evaluation */
    struct board_cell *cells; /* by lane */
    struct board_lane *lanes;
    int32_t *by_id;  /* job id -> index, -1 */
    int64_t *n_open; /* [models][evals] open jobs */
    int64_t n_jobs, max_id, n_pending;
    int32_t n_cells, n_lanes;
};

MUST_USE enum err_code board_load(struct board *b, struct store *s, struct err *e);
void board_release(struct board *b);

/* Index of an open job, -1 when there is none. */
int32_t board_find(const struct board *b, int64_t job_id);
const struct board_cell *board_cell_of(const struct board *b, int32_t job);

/* Pending -> held by `owner`, at the end of its list. */
void board_take(struct board *b, int32_t job, int32_t owner, struct board_list *held);
/* Held -> pending, or closed (done, buried, cancelled). */
void board_put_back(struct board *b, int32_t job, struct board_list *held);
void board_close(struct board *b, int32_t job, struct board_list *held);

#endif
