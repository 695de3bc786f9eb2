/* Adding a sweep: its parts once each, then jobs by (model, config, eval). Idempotent: what exists is left alone but for
 * membership, a higher priority and the list of the sweep's evaluations. */
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sha256.h"
#include "schema/store_impl.h"

/* A part of a sweep in the database. A job with a part that is new cannot exist yet, so it needs no look-up: that makes
 * a first plan one insert per job. */
struct part {
    int64_t id;
    bool is_new;
};

struct planning {
    struct store *s;
    const struct sweep *sw;
    struct arena arena;
    struct part *models, *configs, *evals;
    int64_t sweep_id;
    int64_t fresh_set; /* the set of jobs that only this sweep has */
    int priority;
    /* Sets that known jobs move between when this sweep joins: set_from[i] becomes set_to[i]. */
    int64_t *set_from, *set_to;
    int n_sets;
    bool has_moved; /* known jobs changed their set */
    struct store_plan_counts counts;
};

/* ---- models, configurations, evaluations ---- */

static const char sql_model_find[] = "SELECT id FROM model WHERE key = ?1";
static const char sql_model_add[] = "INSERT INTO model (key, family, size, name, path, hub, "
                                    "revision) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) RETURNING id";
/* The same declared path may have moved (another checkout): the identity is guarded by the pinned hash, not by this. */
static const char sql_model_moved[] = "UPDATE model SET path = ?2 WHERE id = ?1 AND path IS NOT ?2";
static const char sql_config_find[] = "SELECT id FROM config WHERE key_head = ?1 AND key_tail = ?2";
static const char sql_config_add[] =
    "INSERT INTO config (key_head, key_tail, k, dtype, exponent_bits, subnormal_shift, block, "
    "center, outlier_pct, "
    "outlier_rule, quant_head, quant_embed, dequant, compute) "
    "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14) RETURNING id";
static const char sql_eval_find[] = "SELECT id FROM eval WHERE key = ?1";
static const char sql_eval_add[] =
    "INSERT INTO eval (key, name, task, data, data_path, subset, max_items, window, max_tokens, "
    "method, join_rule, bos) "
    "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) RETURNING id";
static const char sql_eval_moved[] =
    "UPDATE eval SET data_path = ?2 WHERE id = ?1 AND data_path IS NOT ?2";

static enum err_code plan_model(struct planning *p, const struct model_ref *m, struct part *out,
                                struct err *e)
{
    const char *key = key_of_model(m, &p->arena);
    TRY(store_run(p->s, sql_model_find, ARGS(ARG_TEXT(key)), NULL, &out->id, e));
    if (out->id != 0)
        return store_run(p->s, sql_model_moved, ARGS(ARG_INT(out->id), ARG_TEXT(m->path)), NULL,
                         NULL, e);
    out->is_new = true;
    p->counts.models_new++;
    return store_run(p->s, sql_model_add,
                     ARGS(ARG_TEXT(key), ARG_TEXT(m->family), ARG_TEXT(m->size), ARG_TEXT(m->name),
                          ARG_TEXT(m->path), ARG_TEXT(m->hub), ARG_TEXT(m->revision)),
                     NULL, &out->id, e);
}

static enum err_code plan_config(struct planning *p, const struct config *c, struct part *out,
                                 struct err *e)
{
    char *head = NULL, *tail = NULL;
    key_of_config(c, &p->arena, &head, &tail);
    TRY(store_run(p->s, sql_config_find, ARGS(ARG_TEXT(head), ARG_TEXT(tail)), NULL, &out->id, e));
    if (out->id != 0)
        return ERR_OK;
    out->is_new = true;
    p->counts.configs_new++;
    return store_run(p->s, sql_config_add,
                     ARGS(ARG_TEXT(head), ARG_TEXT(tail), ARG_INT(c->k),
                          ARG_TEXT(dtype_label(c->dtype)), ARG_INT(c->exponent_bits),
                          ARG_INT(c->subnormal_shift), ARG_INT(c->block),
                          ARG_TEXT(center_label(c->center)), ARG_NUM(c->outlier_pct),
                          ARG_TEXT(outlier_rule_label(c->outlier_rule)), ARG_INT(c->quant_head),
                          ARG_INT(c->quant_embed), ARG_TEXT(dequant_label(c->dequant)),
                          ARG_TEXT(compute_label(c->compute))),
                     NULL, &out->id, e);
}

static enum err_code plan_eval(struct planning *p, const struct eval_spec *v, struct part *out,
                               struct err *e)
{
    const char *key = key_of_eval(v, &p->arena);
    TRY(store_run(p->s, sql_eval_find, ARGS(ARG_TEXT(key)), NULL, &out->id, e));
    if (out->id != 0)
        return store_run(p->s, sql_eval_moved, ARGS(ARG_INT(out->id), ARG_TEXT(v->data_path)), NULL,
                         NULL, e);
    out->is_new = true;
    p->counts.evals_new++;
    return store_run(p->s, sql_eval_add,
                     ARGS(ARG_TEXT(key), ARG_TEXT(v->name), ARG_TEXT(task_label(v->task)),
                          ARG_TEXT(v->data), ARG_TEXT(v->data_path), ARG_TEXT(v->subset),
                          ARG_INT(v->limit), ARG_INT(v->window), ARG_INT(v->max_tokens),
                          ARG_TEXT(method_label(v->method)), ARG_TEXT(join_label(v->join)),
                          ARG_INT(v->bos)),
                     NULL, &out->id, e);
}

/* ---- the sweep and its sets ---- */

static const char sql_sweep_find[] = "SELECT id FROM sweep WHERE name = ?1";
static const char sql_sweep_add[] =
    "INSERT INTO sweep (name, created_ms) VALUES (?1, ?2) RETURNING id";
static const char sql_sweep_limit[] =
    "UPDATE sweep SET job_limit_s = ?2 WHERE id = ?1 AND job_limit_s <> ?2";
static const char sql_spec_add[] = "INSERT OR IGNORE INTO spec (sweep_id, sha256, path, text, "
                                   "planned_ms) VALUES (?1, ?2, ?3, ?4, ?5)";
static const char sql_sweep_eval_list[] =
    "SELECT eval_id, position FROM sweep_eval WHERE sweep_id = ?1 ORDER BY position";
static const char sql_sweep_eval_clear[] = "DELETE FROM sweep_eval WHERE sweep_id = ?1";
static const char sql_sweep_eval_add[] =
    "INSERT INTO sweep_eval (sweep_id, eval_id, position) VALUES (?1, ?2, ?3)";
static const char sql_set_find[] = "SELECT id FROM sweep_set WHERE members = ?1";
static const char sql_set_add[] =
    "INSERT INTO sweep_set (members, origin_id) VALUES (?1, ?2) RETURNING id";
static const char sql_member_add[] =
    "INSERT INTO sweep_set_member (set_id, sweep_id) VALUES (?1, ?2)";
static const char sql_tally_start[] = "INSERT INTO tally (set_id, state, n) VALUES (?1, ?2, 0)";
static const char sql_tally_add[] =
    "UPDATE tally SET n = n + ?2 WHERE set_id = ?1 AND state = 'pending'";

/* Whether the sweep's evaluations are those that it has already, in this order. */
struct eval_check {
    const struct planning *p;
    int n;
    bool is_same;
};

static enum err_code check_eval(void *arg, const struct store_row *row, struct err *e)
{
    (void)e;
    struct eval_check *c = arg;
    int i = c->n++;
    c->is_same &= i < c->p->sw->n_evals && c->p->evals[i].id == store_col_int(row, 0) &&
                  store_col_int(row, 1) == i;
    return ERR_OK;
}

/* Curves are of the spec as it is now: evaluations that it has no more keep their jobs and results, but speak no longer for
 * the sweep, and the order may be another. */
static enum err_code plan_sweep_evals(struct planning *p, struct err *e)
{
    struct eval_check c = {.p = p, .is_same = true};
    TRY(store_rows(p->s, sql_sweep_eval_list, ARGS(ARG_INT(p->sweep_id)), check_eval, &c, e));
    if (c.is_same && c.n == p->sw->n_evals)
        return ERR_OK;
    p->counts.has_other_evals = true;
    TRY(store_run(p->s, sql_sweep_eval_clear, ARGS(ARG_INT(p->sweep_id)), NULL, NULL, e));
    for (int i = 0; i < p->sw->n_evals; i++)
        TRY(store_run(p->s, sql_sweep_eval_add,
                      ARGS(ARG_INT(p->sweep_id), ARG_INT(p->evals[i].id), ARG_INT(i)), NULL, NULL,
                      e));
    return ERR_OK;
}

static enum err_code plan_sweep(struct planning *p, struct err *e)
{
    const struct sweep *sw = p->sw;
    TRY(store_run(p->s, sql_sweep_find, ARGS(ARG_TEXT(sw->name)), NULL, &p->sweep_id, e));
    if (p->sweep_id == 0)
        TRY(store_run(p->s, sql_sweep_add, ARGS(ARG_TEXT(sw->name), ARG_INT(store_now_ms())), NULL,
                      &p->sweep_id, e));
    TRY(store_run(p->s, sql_sweep_limit, ARGS(ARG_INT(p->sweep_id), ARG_INT(sw->job_limit_s)), NULL,
                  NULL, e));
    char sha256[SHA256_HEX];
    sha256_bytes(sw->text, strlen(sw->text), sha256);
    TRY(store_run(p->s, sql_spec_add,
                  ARGS(ARG_INT(p->sweep_id), ARG_TEXT(sha256), ARG_TEXT(sw->path),
                       ARG_TEXT(sw->text), ARG_INT(store_now_ms())),
                  NULL, NULL, e));
    return plan_sweep_evals(p, e);
}

/* The set with these members ("1,2,5", origin first), made when it does not exist. */
static enum err_code set_of(struct planning *p, const char *members, int64_t *id, struct err *e)
{
    *id = 0;
    TRY(store_run(p->s, sql_set_find, ARGS(ARG_TEXT(members)), NULL, id, e));
    if (*id != 0)
        return ERR_OK;
    TRY(store_run(p->s, sql_set_add, ARGS(ARG_TEXT(members), ARG_INT(strtoll(members, NULL, 10))),
                  NULL, id, e));
    struct str rest = str_of(members), field;
    while (str_next_field(&rest, ',', &field)) {
        int64_t sweep_id = 0;
        CHECK(parse_i64(field, &sweep_id));
        TRY(store_run(p->s, sql_member_add, ARGS(ARG_INT(*id), ARG_INT(sweep_id)), NULL, NULL, e));
    }
    for (int i = 0; i < JOB_STATE_COUNT; i++)
        TRY(store_run(p->s, sql_tally_start, ARGS(ARG_INT(*id), ARG_TEXT(job_state_label(i))), NULL,
                      NULL, e));
    return ERR_OK;
}

static enum err_code note_set(void *arg, const struct store_row *row, struct err *e)
{
    (void)e;
    struct planning *p = arg;
    p->set_from[p->n_sets] = store_col_int(row, 0);
    p->set_to[p->n_sets++] = 0; /* found when a job needs it */
    return ERR_OK;
}

/* Sets without this sweep: their jobs move when they turn out to be in it. */
static enum err_code list_other_sets(struct planning *p, struct err *e)
{
    static const char sql[] = "SELECT id FROM sweep_set WHERE id NOT IN "
                              "(SELECT set_id FROM sweep_set_member WHERE sweep_id = ?1)";
    int64_t n = 0;
    TRY(store_query_int(p->s, "SELECT count(*) FROM sweep_set", 0, &n, e));
    p->set_from = arena_array(&p->arena, (size_t)n, sizeof(int64_t));
    p->set_to = arena_array(&p->arena, (size_t)n, sizeof(int64_t));
    return store_rows(p->s, sql, ARGS(ARG_INT(p->sweep_id)), note_set, p, e);
}

static enum err_code copy_text(void *arg, const struct store_row *row, struct err *e)
{
    (void)e;
    struct buf *b = arg;
    buf_adds(b, store_col_text(row, 0));
    return ERR_OK;
}

/* Where a job of set `from` goes; `from` itself when the sweep is already in it. */
static enum err_code joined_set(struct planning *p, int64_t from, int64_t *to, struct err *e)
{
    *to = from;
    int i = 0;
    while (i < p->n_sets && p->set_from[i] != from)
        i++;
    if (i == p->n_sets)
        return ERR_OK;
    if (p->set_to[i] == 0) {
        /* Sweeps join in the order of their ids or later: the origin stays in front, the rest need not be sorted to be
         * few. */
        struct buf members = {0};
        enum err_code rc = store_rows(p->s, "SELECT members FROM sweep_set WHERE id = ?1",
                                      ARGS(ARG_INT(from)), copy_text, &members, e);
        buf_printf(&members, ",%lld", (long long)p->sweep_id);
        if (rc == ERR_OK)
            rc = set_of(p, members.data, &p->set_to[i], e);
        buf_release(&members);
        TRY(rc);
    }
    *to = p->set_to[i];
    return ERR_OK;
}

/* ---- jobs ---- */

static const char sql_job_add[] = "INSERT INTO job (model_id, config_id, eval_id, set_id, state, "
                                  "priority) VALUES (?1, ?2, ?3, ?4, 'pending', ?5)";
static const char sql_job_find[] =
    "SELECT id, set_id, priority FROM job WHERE model_id = ?1 AND config_id = ?2 AND eval_id = ?3";
static const char sql_job_join[] =
    "UPDATE job SET set_id = ?2, priority = max(priority, ?3) WHERE id = ?1";

static int bind_cell(sqlite3_stmt *stmt, const struct planning *p, const struct sweep_job *j)
{
    int rc = sqlite3_bind_int64(stmt, 1, p->models[j->model].id);
    if (rc == SQLITE_OK)
        rc = sqlite3_bind_int64(stmt, 2, p->configs[j->config].id);
    if (rc == SQLITE_OK)
        rc = sqlite3_bind_int64(stmt, 3, p->evals[j->eval].id);
    return rc;
}

/* *is_known: the job exists; then it is a member of this sweep now. */
static enum err_code join_known(struct planning *p, sqlite3_stmt *find, const struct sweep_job *j,
                                bool *is_known, struct err *e)
{
    int rc = bind_cell(find, p, j);
    int step = rc == SQLITE_OK ? sqlite3_step(find) : rc;
    *is_known = step == SQLITE_ROW;
    int64_t id = *is_known ? sqlite3_column_int64(find, 0) : 0;
    int64_t set = *is_known ? sqlite3_column_int64(find, 1) : 0;
    int64_t priority = *is_known ? sqlite3_column_int64(find, 2) : 0;
    sqlite3_reset(find);
    if (step != SQLITE_ROW && step != SQLITE_DONE)
        return store_error(p->s, step, "cannot look for a job", e);
    if (!*is_known)
        return ERR_OK;
    p->counts.jobs_known++;
    int64_t joined = 0;
    TRY(joined_set(p, set, &joined, e));
    if (joined == set && priority >= p->priority)
        return ERR_OK;
    p->has_moved |= joined != set;
    return store_run(p->s, sql_job_join, ARGS(ARG_INT(id), ARG_INT(joined), ARG_INT(p->priority)),
                     NULL, NULL, e);
}

static enum err_code add_job(struct planning *p, sqlite3_stmt *add, const struct sweep_job *j,
                             struct err *e)
{
    int rc = bind_cell(add, p, j);
    int step = rc == SQLITE_OK ? sqlite3_step(add) : rc;
    sqlite3_reset(add);
    if (step != SQLITE_DONE)
        return store_error(p->s, step, "cannot add a job", e);
    p->counts.jobs_new++;
    return ERR_OK;
}

static enum err_code plan_jobs(struct planning *p, struct err *e)
{
    sqlite3_stmt *add = NULL, *find = NULL;
    TRY(store_stmt(p->s, sql_job_add, &add, e));
    TRY(store_stmt(p->s, sql_job_find, &find, e));
    if (sqlite3_bind_int64(add, 4, p->fresh_set) != SQLITE_OK ||
        sqlite3_bind_int64(add, 5, p->priority) != SQLITE_OK)
        return store_error(p->s, SQLITE_NOMEM, "cannot bind a value", e);
    for (int64_t i = 0; i < p->sw->n_jobs; i++) {
        const struct sweep_job *j = &p->sw->jobs[i];
        bool is_known = false;
        if (!p->models[j->model].is_new && !p->configs[j->config].is_new &&
            !p->evals[j->eval].is_new)
            TRY(join_known(p, find, j, &is_known, e));
        if (!is_known)
            TRY(add_job(p, add, j, e));
    }
    p->counts.jobs_total = p->sw->n_jobs;
    if (p->has_moved)
        return store_recount(p->s, e);
    if (p->counts.jobs_new == 0)
        return ERR_OK;
    return store_run(p->s, sql_tally_add, ARGS(ARG_INT(p->fresh_set), ARG_INT(p->counts.jobs_new)),
                     NULL, NULL, e);
}

static enum err_code plan_all(struct planning *p, struct err *e)
{
    const struct sweep *sw = p->sw;
    p->models = arena_array(&p->arena, (size_t)sw->n_models, sizeof(*p->models));
    p->configs = arena_array(&p->arena, (size_t)sw->n_configs, sizeof(*p->configs));
    p->evals = arena_array(&p->arena, (size_t)sw->n_evals, sizeof(*p->evals));
    for (int i = 0; i < sw->n_models; i++)
        TRY(plan_model(p, &sw->models[i].ref, &p->models[i], e));
    for (int i = 0; i < sw->n_configs; i++)
        TRY(plan_config(p, &sw->configs[i], &p->configs[i], e));
    for (int i = 0; i < sw->n_evals; i++)
        TRY(plan_eval(p, &sw->evals[i].spec, &p->evals[i], e));
    TRY(plan_sweep(p, e));
    TRY(list_other_sets(p, e));
    char members[32];
    snprintf(members, sizeof(members), "%lld", (long long)p->sweep_id);
    TRY(set_of(p, members, &p->fresh_set, e));
    return plan_jobs(p, e);
}

enum err_code store_plan(struct store *s, const struct sweep *sw, int priority,
                         struct store_plan_counts *out, struct err *e)
{
    struct planning p = {.s = s, .sw = sw, .priority = priority};
    bool is_own = !store_in_transaction(s);
    enum err_code rc = is_own ? store_begin(s, e) : ERR_OK;
    if (rc == ERR_OK)
        rc = plan_all(&p, e);
    if (is_own && rc == ERR_OK)
        rc = store_commit(s, e);
    else if (is_own)
        store_rollback(s);
    if (rc == ERR_OK)
        *out = p.counts;
    arena_release(&p.arena);
    return rc;
}
