/* What the files of the store share: the connection, cached statements, binding, SQLite's errors as ours. Included by
 * schema/store*.c only. sqlite3.h stays out of this header: its struct tags are enough. */
#ifndef ISOBIT_SCHEMA_STORE_IMPL_H
#define ISOBIT_SCHEMA_STORE_IMPL_H

#include "schema/store.h"

struct sqlite3;
struct sqlite3_stmt;

enum { STORE_APPLICATION_ID = 0x69626974 /* "ibit" */, STORE_MAX_STMTS = 64 };
enum { STORE_LOG_STEP = 4000 }; /* pages of the write-ahead log */

/* How far the log's way into the database is (store_log.c). */
struct store_log {
    bool is_stepwise; /* else checkpoints belong to COMMIT, as is SQLite's habit */
    bool is_kept;     /* nothing is copied any more */
    enum { STORE_LOG_FILLS, STORE_LOG_PINNED, STORE_LOG_FLUSHES } state;
    int step;          /* pages; 0: STORE_LOG_STEP */
    int n_pages, seen; /* in the log; when the last step began */
    int n_rounds;      /* of snapshots, since the log was short */
    struct store *pin; /* reads only; NULL: none */
    struct preflush *preflush;
};

/* Additions to counters that the steps of one commit share (store_counters.c). */
struct store_counters {
    struct store_work_count {
        int64_t worker_id, set_id, done, failed;
    } work[64];
    struct store_move_count { /* jobs that entered a state, less those that left it */
        int64_t set_id, n[JOB_STATE_COUNT];
    } moves[16];
    int n_work, n_moves;
};

struct store_last_bits {
    int64_t model_id, config_id;
    struct bits bits;
};

struct store {
    struct sqlite3 *db;
    char *path;
    bool is_writer;
    bool is_made; /* the file was not there before */
    int64_t n_begun;
    bool is_broken; /* a write of the open transaction failed: it can only be rolled back */
    struct {
        const char *sql; /* the literal's address is the key */
        struct sqlite3_stmt *stmt;
    } stmts[STORE_MAX_STMTS];
    int n_stmts;
    struct store_counters counters;
    struct store_log log;
    /* Written last; all zero after a rollback. */
    struct store_last_bits last_bits;
    struct store_last_provenance {
        int64_t id;
        struct buf key; /* its columns, one after the other */
    } provenances[8];
    int next_provenance;
};

struct store_row {
    struct sqlite3_stmt *stmt;
};

/* One bound parameter. */
struct store_arg {
    enum { STORE_ARG_NULL, STORE_ARG_INT, STORE_ARG_NUM, STORE_ARG_TEXT, STORE_ARG_BLOB } type;
    int64_t i;
    double d;      /* not finite: bound as NULL */
    const void *p; /* NULL: bound as NULL; borrowed for the call */
    size_t n;
};
#define ARG_INT(v)                                                                                 \
    {                                                                                              \
        .type = STORE_ARG_INT, .i = (v)                                                            \
    }
#define ARG_NUM(v)                                                                                 \
    {                                                                                              \
        .type = STORE_ARG_NUM, .d = (v)                                                            \
    }
#define ARG_TEXT(v)                                                                                \
    {                                                                                              \
        .type = STORE_ARG_TEXT, .p = (v)                                                           \
    }
#define ARG_BLOB(v, size)                                                                          \
    {                                                                                              \
        .type = STORE_ARG_BLOB, .p = (v), .n = (size)                                              \
    }
#define ARG_NONE                                                                                   \
    {                                                                                              \
        .type = STORE_ARG_NULL                                                                     \
    }
/* ARGS(ARG_INT(id), ARG_TEXT(name)): the array and its length. */
#define ARGS(...)                                                                                  \
    (const struct store_arg[]){__VA_ARGS__},                                                       \
        (int)(sizeof((const struct store_arg[]){__VA_ARGS__}) / sizeof(struct store_arg))

/* Sets *e from the connection's last error; `doing` names the step. Marks an open transaction broken. */
enum err_code store_error(struct store *s, int rc, const char *doing, struct err *e);

/* The cached statement of a string literal, reset and without bindings. */
MUST_USE enum err_code store_stmt(struct store *s, const char *sql, struct sqlite3_stmt **out,
                                  struct err *e);
/* Runs a statement without result rows, or with one RETURNING row whose first column goes to *returned (untouched
 * without a row; may be NULL). *changed (may be NULL) is set to the rows changed. */
MUST_USE enum err_code store_run(struct store *s, const char *sql, const struct store_arg *args,
                                 int n_args, int64_t *changed, int64_t *returned, struct err *e);
/* Runs a query over a cached statement. */
MUST_USE enum err_code store_rows(struct store *s, const char *sql, const struct store_arg *args,
                                  int n_args, store_row_fn fn, void *arg, struct err *e);
/* Several statements without parameters. */
MUST_USE enum err_code store_exec(struct store *s, const char *sql, struct err *e);
bool store_in_transaction(const struct store *s);
int64_t store_now_ms(void);

/* store_migrate.c: brings a writable database to the newest version; a read-only one must have views that can be read. */
MUST_USE enum err_code store_migrate(struct store *s, bool may_create, struct err *e);
/* store_fs.c: "NFS" for the f_type of a network file system, else NULL; and of the folder of a path. */
const char *store_fs_network_name(unsigned long type);
const char *store_fs_network_of(const char *path);
/* store_log.c */
void store_log_release(struct store *s);
/* store_key.c: SQL functions key_glob(pattern, key) and version_number(program). */
MUST_USE enum err_code store_key_functions(struct store *s, struct err *e);
/* store_counters.c: adds to the open transaction's counters; store_commit writes them, or whoever reads them before. */
MUST_USE enum err_code store_count_work(struct store *s, const struct store_work_count *more,
                                        struct err *e);
MUST_USE enum err_code store_count_move(struct store *s, int64_t set_id, enum job_state from,
                                        enum job_state to, int64_t n, struct err *e);
MUST_USE enum err_code store_flush_counters(struct store *s, struct err *e);
/* Counts all jobs anew, after a change of many. */
MUST_USE enum err_code store_recount(struct store *s, struct err *e);

#endif
