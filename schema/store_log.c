/* The write-ahead log goes into the database in steps beside the work. SQLite's own checkpoint is part of a COMMIT and ends with
 * an fsync of the database file, 1 ms on a good disk and 20 on a poor one, while results wait to be acknowledged. Here:
 *
 *   FILLS    the log has grown by `step` pages: a reading connection takes a snapshot
 *   PINNED   after the next commit: a checkpoint. SQLite copies the pages up to the snapshot, and since the log goes on behind
 *            it, neither syncs nor ends the log. The snapshot is given back, a thread writes the file out (preflush.h)
 *   FLUSHES  when the thread has done so: once more from a new snapshot while many pages came meanwhile, and then a checkpoint.
 *            It copies the few pages since, and its fsync has little left
 *
 * What is durable, when, is SQLite's business in every step: the order of its writes and syncs is what it always is beside a
 * reader. The second connection never writes and never checkpoints, as two that do are not safe before SQLite 3.51.3. */
#include <sqlite3.h>

#include "base/log.h"
#include "base/preflush.h"
#include "schema/store_impl.h"

enum {
    MAX_ROUNDS = 4,
    FEW = 16 /* pages are few when they are not more than this part of a step */
};

static int on_commit(void *arg, sqlite3 *db, const char *name, int n_pages)
{
    (void)db;
    (void)name;
    struct store_log *l = arg;
    if (n_pages < l->n_pages) /* it begins anew */
        l->seen = 0;
    l->n_pages = n_pages;
    return SQLITE_OK;
}

static void begin_steps(struct store *s)
{
    struct store_log *l = &s->log;
    struct err e;
    l->is_stepwise = true;
    l->step = l->step > 0 ? l->step : STORE_LOG_STEP;
    sqlite3_wal_hook(s->db, on_commit, l); /* in place of the checkpoint in COMMIT */
    l->preflush = preflush_new(s->path);
    if (store_open(s->path, STORE_READ, &l->pin, &e) != ERR_OK)
        log_event(LOG_WARN, "store", "log", "text=\"%s\" then=\"checkpoints in one piece\"",
                  e.text);
}

static bool pin(struct store_log *l)
{
    struct err e;
    if (l->pin == NULL || l->preflush == NULL)
        return false;
    if (store_snapshot(l->pin, &e) == ERR_OK)
        return true;
    store_rollback(l->pin);
    return false;
}

/* As far as readers let it. After a failed fsync nobody knows which of the pages copied before are on the disk; SQLite would
 * not copy them again, so the log has to stay, and the next start of the program copies it from its beginning. */
static void copy(struct store *s)
{
    int rc = sqlite3_wal_checkpoint_v2(s->db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    if (rc != SQLITE_IOERR_FSYNC)
        return;
    s->log.is_kept = true;
    sqlite3_db_config(s->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    log_event(LOG_ERROR, "store", "log",
              "text=\"%s: the disk failed to take what was copied from the write-ahead log\" "
              "then=\"the log grows; start again when the disk is well\"",
              s->path);
}

void store_tidy_log(struct store *s, bool is_quiet)
{
    struct store_log *l = &s->log;
    if (!l->is_stepwise)
        begin_steps(s);
    if (l->is_kept || store_in_transaction(s))
        return;
    switch (l->state) {
    case STORE_LOG_FILLS:
        if (l->n_pages - l->seen < l->step)
            return;
        l->seen = l->n_pages;
        l->n_rounds = 1;
        if (pin(l))
            l->state = STORE_LOG_PINNED;
        else
            copy(s);
        return;
    case STORE_LOG_PINNED:
        if (l->n_pages == l->seen)
            return;
        copy(s);
        store_rollback(l->pin);
        preflush_begin(l->preflush);
        l->state = STORE_LOG_FLUSHES;
        return;
    case STORE_LOG_FLUSHES: {
        if (!preflush_is_over(l->preflush) || (!is_quiet && l->n_pages - l->seen < l->step))
            return;
        bool is_last = l->n_pages - l->seen <= l->step / FEW || l->n_rounds == MAX_ROUNDS;
        l->seen = l->n_pages;
        if (!is_last && pin(l)) {
            l->n_rounds++;
            l->state = STORE_LOG_PINNED;
        } else {
            copy(s);
            l->state = STORE_LOG_FILLS;
        }
        return;
    }
    }
}

void store_log_release(struct store *s)
{
    preflush_free(s->log.preflush);
    store_close(s->log.pin);
    s->log = (struct store_log){0};
}
