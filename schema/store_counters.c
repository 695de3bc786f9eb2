/* Counters that many steps of one commit share: jobs per state, results per worker and minute. They are gathered in memory
 * and written once per commit; a trigger on every row would cost a third of a lease. */
#include "schema/store_impl.h"

#include "base/mem.h"

static const char sql_worker[] =
    "UPDATE worker SET done = done + ?2, failed = failed + ?3 WHERE id = ?1";
static const char sql_pace[] = "INSERT INTO pace (minute, set_id, n) VALUES (?1, ?2, ?3) "
                               "ON CONFLICT (minute, set_id) DO UPDATE SET n = n + excluded.n";
static const char sql_tally[] = "UPDATE tally SET n = n + ?3 WHERE set_id = ?1 AND state = ?2";

static enum err_code flush_work(struct store *s, struct err *e)
{
    int64_t minute = store_now_ms() / 60000;
    struct store_counters *c = &s->counters;
    for (int i = 0; i < c->n_work; i++) {
        const struct store_work_count *w = &c->work[i];
        TRY(store_run(s, sql_worker,
                      ARGS(ARG_INT(w->worker_id), ARG_INT(w->done), ARG_INT(w->failed)), NULL, NULL,
                      e));
        if (w->done != 0)
            TRY(store_run(s, sql_pace, ARGS(ARG_INT(minute), ARG_INT(w->set_id), ARG_INT(w->done)),
                          NULL, NULL, e));
    }
    c->n_work = 0;
    return ERR_OK;
}

static enum err_code flush_moves(struct store *s, struct err *e)
{
    struct store_counters *c = &s->counters;
    for (int i = 0; i < c->n_moves; i++) {
        for (int state = 0; state < JOB_STATE_COUNT; state++)
            if (c->moves[i].n[state] != 0)
                TRY(store_run(s, sql_tally,
                              ARGS(ARG_INT(c->moves[i].set_id),
                                   ARG_TEXT(job_state_label((enum job_state)state)),
                                   ARG_INT(c->moves[i].n[state])),
                              NULL, NULL, e));
    }
    c->n_moves = 0;
    return ERR_OK;
}

enum err_code store_flush_counters(struct store *s, struct err *e)
{
    TRY(flush_work(s, e));
    return flush_moves(s, e);
}

enum err_code store_count_work(struct store *s, const struct store_work_count *more, struct err *e)
{
    struct store_counters *c = &s->counters;
    int i = 0;
    while (i < c->n_work &&
           (c->work[i].worker_id != more->worker_id || c->work[i].set_id != more->set_id))
        i++;
    if (i == (int)ARRAY_LEN(c->work)) {
        TRY(flush_work(s, e));
        i = 0;
    }
    if (i == c->n_work)
        c->work[c->n_work++] =
            (struct store_work_count){.worker_id = more->worker_id, .set_id = more->set_id};
    c->work[i].done += more->done;
    c->work[i].failed += more->failed;
    return ERR_OK;
}

enum err_code store_count_move(struct store *s, int64_t set_id, enum job_state from,
                               enum job_state to, int64_t n, struct err *e)
{
    struct store_counters *c = &s->counters;
    int i = 0;
    while (i < c->n_moves && c->moves[i].set_id != set_id)
        i++;
    if (i == (int)ARRAY_LEN(c->moves)) {
        TRY(flush_moves(s, e));
        i = 0;
    }
    if (i == c->n_moves)
        c->moves[c->n_moves++] = (struct store_move_count){.set_id = set_id};
    c->moves[i].n[from] -= n;
    c->moves[i].n[to] += n;
    return ERR_OK;
}

enum err_code store_recount(struct store *s, struct err *e)
{
    static const char sql[] = "UPDATE tally SET n = 0;"
                              "INSERT INTO tally (set_id, state, n) SELECT set_id, state, count(*) "
                              "FROM job GROUP BY 1, 2 "
                              "ON CONFLICT (set_id, state) DO UPDATE SET n = excluded.n";
    s->counters.n_moves = 0;
    return store_exec(s, sql, e);
}
