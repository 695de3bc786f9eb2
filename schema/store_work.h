/* The steps of a job's life that dispatch writes: leases, results, failures, identities, workers; and the open jobs it
 * starts from. Nothing here begins or commits: the caller groups many steps into one transaction (store.h). Every step
 * that ends an attempt is guarded by job, attempt and worker, so that a late one changes nothing (fencing).
 * Thread: the one that owns the store. */
#ifndef ISOBIT_SCHEMA_STORE_WORK_H
#define ISOBIT_SCHEMA_STORE_WORK_H

#include "schema/store.h"

/* ---- what dispatch starts from ---- */

struct store_model {
    int64_t id;
    struct model_ref ref;
    const char *weights_sha256; /* NULL: not pinned yet */
    int64_t n_params;           /* 0: not known yet */
};
struct store_config {
    int64_t id;
    struct config config;
};
struct store_eval {
    int64_t id;
    struct eval_spec spec;
    const char *data_sha256;
};
/* A set of sweeps (docs/SCHEMA.md), by what it means for the jobs in it. */
struct store_set {
    int64_t id;
    int64_t job_limit_s; /* the longest of its sweeps; 0: none, also when one of them has none */
};
struct store_parts {
    struct store_set *sets;
    int n_sets;
    struct store_model *models; /* each list by ascending id */
    struct store_config *configs;
    struct store_eval *evals;
    int n_models, n_configs, n_evals;
};
/* Everything in *out is owned by `a`. Errors: ERR_FORMAT for a label this program does not know. */
MUST_USE enum err_code store_load_parts(struct store *s, struct arena *a, struct store_parts *out,
                                        struct err *e);

/* A pending or leased job. */
struct store_open_job {
    int64_t id, model_id, config_id, eval_id, set_id;
    int attempt, failures, priority;
    int64_t worker_id; /* 0: pending */
};
typedef enum err_code (*store_open_fn)(void *arg, const struct store_open_job *job, struct err *e);
/* In order of id. */
MUST_USE enum err_code store_each_open_job(struct store *s, store_open_fn fn, void *arg,
                                           struct err *e);

/* ---- workers ---- */

struct store_worker {
    const char *uuid, *host, *device, *program;
    const char *computes;   /* "fp32,bf16" */
    const char *public_key; /* that its connection proved; "" or NULL: no keys are in force */
    int numerics;
    int64_t memory_bytes, pid;
};
/* Adds or renews a worker by uuid, state live. Errors: ERR_DENIED when another key brought this uuid first. */
MUST_USE enum err_code store_worker_hello(struct store *s, const struct store_worker *w,
                                          int64_t *id, struct err *e);
/* state: live, left, lost; renews last_seen. A worker that is no longer live refuses nothing. */
MUST_USE enum err_code store_worker_state(struct store *s, int64_t worker_id, const char *state,
                                          struct err *e);
/* Notes that a worker cannot serve a checkpoint, for `explain`. */
MUST_USE enum err_code store_refusal(struct store *s, int64_t worker_id, int64_t model_id,
                                     enum err_code code, const char *text, struct err *e);

/* ---- attempts ---- */

/* Jobs with consecutive numbers, all pending, in one set and before the same attempt. */
struct store_lease {
    int64_t first, n, worker_id, set_id;
    int attempt;
};
/* Errors: ERR_BUSY when not all of them are so. */
MUST_USE enum err_code store_lease(struct store *s, const struct store_lease *l, struct err *e);

/* What fences a step: it changes nothing unless the job is leased in this attempt to this worker. */
struct store_fence {
    int64_t job;
    int attempt;
    int64_t worker_id;
};
struct store_samples {
    const void *data; /* NULL: none */
    size_t n;
    const char *codec;
};
struct store_run_facts {
    int64_t model_id, config_id, set_id;
    const char *host;
    int numerics;
};
/* Result and change of state. *is_ours = false: fenced, nothing changed. */
MUST_USE enum err_code store_done(struct store *s, const struct store_fence *f,
                                  const struct store_run_facts *facts, const struct job_result *r,
                                  const struct store_samples *samples, bool *is_ours,
                                  struct err *e);

/* How an attempt without a result ends. */
struct store_ending {
    const char *outcome; /* failed, lost, returned, refused; NULL: leave no trace (drain) */
    enum err_code code;
    const char *text;
    bool counts;    /* a failure of the job */
    bool is_buried; /* else back to pending */
};
MUST_USE enum err_code store_end_attempt(struct store *s, const struct store_fence *f,
                                         const struct store_ending *end, bool *is_ours,
                                         struct err *e);

/* Pin an identity that is not pinned yet; a pinned one stays. The sizes are noted with the weights. */
MUST_USE enum err_code store_pin_weights(struct store *s, int64_t model_id, const char *sha256,
                                         int64_t n_params, int64_t n_params_linear, struct err *e);
MUST_USE enum err_code store_pin_data(struct store *s, int64_t eval_id, const char *sha256,
                                      struct err *e);

/* The size of a checkpoint as its shape tells it, so that large ones can go first; the first result corrects it. */
MUST_USE enum err_code store_note_size(struct store *s, const struct model_ref *m, int64_t n_params,
                                       struct err *e);

/* Facts about items, once per items_identity; a longer list adds its further items. */
MUST_USE enum err_code store_items(struct store *s, const char *data_sha256, enum task task,
                                   const struct item_list *l, struct err *e);

/* ---- counting ---- */

struct store_counts {
    int64_t n[JOB_STATE_COUNT];
};
MUST_USE enum err_code store_count(struct store *s, struct store_counts *out, struct err *e);

/* ---- changes people ask for (control.h) ---- */

enum store_change { STORE_RETRY, STORE_CANCEL, STORE_HOLD, STORE_RELEASE };
struct store_changed {
    int64_t matched; /* jobs whose key the pattern matches */
    int64_t changed; /* of those, jobs that were in a state the change applies to */
};
/* Applies to every job whose key matches `pattern` (str_glob over the whole key). */
MUST_USE enum err_code store_change(struct store *s, enum store_change what, const char *pattern,
                                    struct store_changed *out, struct err *e);
/* Sets the priority of all jobs that match and are not done or cancelled. */
MUST_USE enum err_code store_prioritize(struct store *s, const char *pattern, int priority,
                                        struct store_changed *out, struct err *e);
/* Takes back results of done jobs whose program version is below `before` ("0.2.0"; NULL: all): the jobs become pending, and
 * checkpoints and data files without any result left are no longer pinned, and refuse no worker with others. */
MUST_USE enum err_code store_invalidate(struct store *s, const char *pattern, const char *before,
                                        struct store_changed *out, struct err *e);
/* "retry" -> STORE_RETRY, -1 for others. */
int store_change_of(const char *name);

/* A consistent copy as one file, replaced as a whole; *bytes is its size. Works on a reader too, beside a running writer. */
MUST_USE enum err_code store_backup(struct store *s, const char *out_path, int64_t *bytes,
                                    struct err *e);

#endif
