/* The database: sweeps, jobs, leases and results in SQLite (WAL, synchronous FULL). One process writes through one
 * connection (the holder of the lock file, lock.h); readers open read-only. This is the only module that sees sqlite3.h.
 * Text returned by a query belongs to the row callback. Thread: one per connection.
 *
 * Everything that must not come apart is one transaction: a result and its job's change of state; a lease and its attempt.
 * store_begin/store_commit let a caller put many such steps into one commit (group commit): acknowledge only after
 * store_commit returned ERR_OK; after a failed commit nothing of the group has happened. */
#ifndef ISOBIT_SCHEMA_STORE_H
#define ISOBIT_SCHEMA_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"
#include "schema/job.h"
#include "schema/sweep.h"

struct store; /* opaque */

enum store_mode { STORE_READ, STORE_WRITE, STORE_CREATE };

/* Errors: ERR_NOTFOUND; ERR_VERSION for a database of another schema version (both named, and what to do); ERR_FORMAT for
 * a file that is no isobit database; ERR_UNSUPPORTED on a network file system (with the remedy); ERR_DENIED. STORE_WRITE
 * runs pending migrations; STORE_READ takes an older database as it is, its views have the same columns. STORE_CREATE leaves no
 * file behind that was not there when it fails. */
MUST_USE enum err_code store_open(const char *path, enum store_mode mode, struct store **out,
                                  struct err *e);
void store_close(struct store *s);
/* Closes, and removes the database if this store_open made its file: for a first use that failed, so that no empty database
 * is left. The caller holds the lock still. */
void store_discard(struct store *s);

MUST_USE enum err_code store_begin(struct store *s, struct err *e);
MUST_USE enum err_code store_commit(struct store *s, struct err *e);
void store_rollback(struct store *s);
/* Copies the write-ahead log into the database, a step at a time beside the work, so that no commit waits for it. A writer that
 * has called it once has to call it after each transaction; `is_quiet`: nobody is known to wait for the next one. */
void store_tidy_log(struct store *s, bool is_quiet);
/* How many transactions were begun: names the one that is open. */
int64_t store_transactions(const struct store *s);

struct store_plan_counts {
    int64_t jobs_total, jobs_new, jobs_known, models_new, configs_new, evals_new;
    bool has_other_evals; /* or another order: `scaling` may change without a new job */
};
/* Adds what is new of a sweep (jobs by key); a job another sweep already has becomes a member of this one too. The sweep's
 * evaluations, which the view `scaling` goes by, become those of `sw`. */
MUST_USE enum err_code store_plan(struct store *s, const struct sweep *sw, int priority,
                                  struct store_plan_counts *out, struct err *e);

/* ---- reading with SQL (views of docs/SCHEMA.md) ---- */
/* For a reader: every query until store_close sees the database as it is now, whatever is written meanwhile. */
MUST_USE enum err_code store_snapshot(struct store *s, struct err *e);
struct store_row; /* valid during the callback */
int64_t store_col_int(const struct store_row *r, int col);
double store_col_num(const struct store_row *r, int col);       /* NULL: NaN */
const char *store_col_text(const struct store_row *r, int col); /* NULL stays NULL */
const void *store_col_blob(const struct store_row *r, int col, size_t *n);
bool store_col_is_null(const struct store_row *r, int col);
enum store_type { STORE_NULL, STORE_INT, STORE_NUM, STORE_TEXT, STORE_BLOB };
enum store_type store_col_type(const struct store_row *r, int col);
int store_n_cols(const struct store_row *r);
const char *store_col_name(const struct store_row *r, int col);

/* Runs one SELECT; parameters ?1.. are bound as text. The callback stops the query by returning an error. */
typedef enum err_code (*store_row_fn)(void *arg, const struct store_row *row, struct err *e);
MUST_USE enum err_code store_query(struct store *s, const char *sql, const char *const *params,
                                   int n_params, store_row_fn fn, void *arg, struct err *e);
/* First column of the first row as an integer; `def` when there is no row. */
MUST_USE enum err_code store_query_int(struct store *s, const char *sql, int64_t def, int64_t *out,
                                       struct err *e);

#endif
