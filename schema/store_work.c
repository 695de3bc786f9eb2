#include "schema/store_work.h"

#include <string.h>

#include "schema/store_impl.h"

/* ---- workers ---- */

enum err_code store_worker_hello(struct store *s, const struct store_worker *w, int64_t *id,
                                 struct err *e)
{
    static const char sql[] =
        "INSERT INTO worker (uuid, host, device, program, numerics, memory_bytes, computes, pid, "
        "state, first_seen_ms, last_seen_ms, public_key) "
        "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 'live', ?9, ?9, ?10) "
        "ON CONFLICT (uuid) DO UPDATE SET host = ?2, device = ?3, program = ?4, numerics = ?5, "
        "memory_bytes = ?6, computes = ?7, pid = ?8, state = 'live', last_seen_ms = ?9 "
        "WHERE public_key = ?10 RETURNING id";
    int64_t found = 0;
    TRY(store_run(s, sql,
                  ARGS(ARG_TEXT(w->uuid), ARG_TEXT(w->host), ARG_TEXT(w->device),
                       ARG_TEXT(w->program), ARG_INT(w->numerics), ARG_INT(w->memory_bytes),
                       ARG_TEXT(w->computes), ARG_INT(w->pid), ARG_INT(store_now_ms()),
                       ARG_TEXT(w->public_key != NULL ? w->public_key : "")),
                  NULL, &found, e));
    if (found == 0)
        return err_set(e, ERR_DENIED,
                       "another key registered worker %s first: a worker's uuid belongs to its key",
                       w->uuid);
    *id = found;
    return ERR_OK;
}

enum err_code store_worker_state(struct store *s, int64_t worker_id, const char *state,
                                 struct err *e)
{
    static const char sql_state[] =
        "UPDATE worker SET state = ?2, last_seen_ms = max(last_seen_ms, ?3) WHERE id = ?1";
    static const char sql_clear[] = "DELETE FROM refusal WHERE worker_id = ?1";
    /* A worker that went silent was last seen before now: only a sign of life moves last_seen. */
    bool is_sign_of_life = strcmp(state, "lost") != 0;
    TRY(store_run(
        s, sql_state,
        ARGS(ARG_INT(worker_id), ARG_TEXT(state), ARG_INT(is_sign_of_life ? store_now_ms() : 0)),
        NULL, NULL, e));
    if (strcmp(state, "live") == 0)
        return ERR_OK;
    return store_run(s, sql_clear, ARGS(ARG_INT(worker_id)), NULL, NULL, e);
}

enum err_code store_refusal(struct store *s, int64_t worker_id, int64_t model_id,
                            enum err_code code, const char *text, struct err *e)
{
    static const char sql[] = "INSERT OR REPLACE INTO refusal (worker_id, model_id, code, text, "
                              "at_ms) VALUES (?1, ?2, ?3, ?4, ?5)";
    return store_run(s, sql,
                     ARGS(ARG_INT(worker_id), ARG_INT(model_id), ARG_TEXT(err_name(code)),
                          ARG_TEXT(text), ARG_INT(store_now_ms())),
                     NULL, NULL, e);
}

/* ---- attempts ---- */

enum err_code store_lease(struct store *s, const struct store_lease *l, struct err *e)
{
    static const char sql[] =
        "UPDATE job SET state = 'leased', attempt = ?3, worker_id = ?4, leased_ms = ?5 "
        "WHERE id BETWEEN ?1 AND ?2 AND state = 'pending' AND attempt < ?3 AND set_id = ?6";
    int64_t changed = 0;
    TRY(store_run(s, sql,
                  ARGS(ARG_INT(l->first), ARG_INT(l->first + l->n - 1), ARG_INT(l->attempt),
                       ARG_INT(l->worker_id), ARG_INT(store_now_ms()), ARG_INT(l->set_id)),
                  &changed, NULL, e));
    /* Dispatch leases what it knows to be pending; a difference means that somebody else wrote. */
    if (changed != l->n)
        return err_set(
            e, ERR_BUSY,
            "%s: of jobs %lld to %lld only %lld are pending; was the database changed by "
            "another program?",
            s->path, (long long)l->first, (long long)(l->first + l->n - 1), (long long)changed);
    return store_count_move(s, l->set_id, JOB_PENDING, JOB_LEASED, l->n, e);
}

static const char sql_provenance_find[] =
    "SELECT id FROM provenance WHERE weights_sha256 = ?1 AND data_sha256 = ?2 AND device = ?3 "
    "AND host = ?4 AND program = ?5 AND numerics = ?6 AND tokenizer_sha256 = ?7 "
    "AND items_sha256 = ?8";
static const char sql_provenance_add[] = "INSERT INTO provenance (weights_sha256, data_sha256, "
                                         "device, host, program, numerics, tokenizer_sha256, "
                                         "items_sha256) "
                                         "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) RETURNING id";

/* Results come from few workers, checkpoints and files: most have the provenance of one of the last few. */
static enum err_code provenance_of(struct store *s, const struct store_run_facts *facts,
                                   const struct job_result *r, int64_t *id, struct err *e)
{
    const char *const texts[] = {r->weights_sha256, r->data_sha256, r->device,
                                 facts->host,       r->program,     r->tokenizer_sha256,
                                 r->items_sha256};
    struct buf key = {0};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        buf_add(&key, texts[i], strlen(texts[i]) + 1);
    buf_add(&key, &facts->numerics, sizeof(facts->numerics));
    *id = 0;
    for (size_t i = 0; i < ARRAY_LEN(s->provenances) && *id == 0; i++) {
        const struct store_last_provenance *p = &s->provenances[i];
        if (p->key.len == key.len && memcmp(p->key.data, key.data, key.len) == 0)
            *id = p->id;
    }
    if (*id != 0) {
        buf_release(&key);
        return ERR_OK;
    }
    const struct store_arg args[] = {
        ARG_TEXT(r->weights_sha256),   ARG_TEXT(r->data_sha256),  ARG_TEXT(r->device),
        ARG_TEXT(facts->host),         ARG_TEXT(r->program),      ARG_INT(facts->numerics),
        ARG_TEXT(r->tokenizer_sha256), ARG_TEXT(r->items_sha256),
    };
    enum err_code rc = store_run(s, sql_provenance_find, args, ARRAY_LEN(args), NULL, id, e);
    if (rc == ERR_OK && *id == 0)
        rc = store_run(s, sql_provenance_add, args, ARRAY_LEN(args), NULL, id, e);
    struct store_last_provenance *p = &s->provenances[s->next_provenance];
    s->next_provenance = (s->next_provenance + 1) % (int)ARRAY_LEN(s->provenances);
    buf_release(&p->key);
    *p = (struct store_last_provenance){.id = *id, .key = key};
    if (rc != ERR_OK)
        buf_reset(&p->key);
    return rc;
}

static const char sql_metric[] =
    "INSERT INTO metric (job_id, name, value, stderr, n) VALUES (?1, ?2, ?3, ?4, ?5)";
/* A corrected accounting replaces the old one; an equal one writes nothing. */
static const char sql_bits[] =
    "INSERT INTO bits (model_id, config_id, per_param, total_full, total_nominal, total_linear, "
    "uncharged) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (model_id, config_id) DO UPDATE "
    "SET per_param = ?3, total_full = ?4, total_nominal = ?5, total_linear = ?6, uncharged = ?7 "
    "WHERE per_param <> ?3 OR total_full <> ?4 OR total_nominal <> ?5 OR total_linear <> ?6 "
    "OR uncharged <> ?7";
static const char sql_sample[] = "INSERT INTO sample (job_id, codec, blob) VALUES (?1, ?2, ?3)";

static bool is_equal(const struct bits *a, const struct bits *b)
{
    return a->per_param == b->per_param && a->total_full == b->total_full &&
           a->total_nominal == b->total_nominal && a->total_linear == b->total_linear &&
           a->uncharged == b->uncharged;
}

/* The evaluations of a configuration come one after the other and tell the same bits: only the first is looked up. */
static enum err_code add_bits(struct store *s, const struct store_run_facts *facts,
                              const struct bits *b, struct err *e)
{
    const struct store_last_bits *last = &s->last_bits;
    if (last->model_id == facts->model_id && last->config_id == facts->config_id &&
        is_equal(&last->bits, b))
        return ERR_OK;
    TRY(store_run(s, sql_bits,
                  ARGS(ARG_INT(facts->model_id), ARG_INT(facts->config_id), ARG_NUM(b->per_param),
                       ARG_INT(b->total_full), ARG_NUM(b->total_nominal), ARG_INT(b->total_linear),
                       ARG_INT(b->uncharged)),
                  NULL, NULL, e));
    s->last_bits = (struct store_last_bits){facts->model_id, facts->config_id, *b};
    return ERR_OK;
}

static enum err_code add_numbers(struct store *s, int64_t job, const struct store_run_facts *facts,
                                 const struct job_result *r, const struct store_samples *samples,
                                 struct err *e)
{
    for (int i = 0; i < r->n_metrics; i++) {
        const struct metric *m = &r->metrics[i];
        TRY(store_run(s, sql_metric,
                      ARGS(ARG_INT(job), ARG_TEXT(m->name), ARG_NUM(m->value), ARG_NUM(m->stderr_),
                           ARG_INT(m->n)),
                      NULL, NULL, e));
    }
    TRY(add_bits(s, facts, &r->bits, e));
    if (samples->data == NULL)
        return ERR_OK;
    return store_run(
        s, sql_sample,
        ARGS(ARG_INT(job), ARG_TEXT(samples->codec), ARG_BLOB(samples->data, samples->n)), NULL,
        NULL, e);
}

static const char sql_done[] =
    "UPDATE job SET state = 'done', worker_id = NULL, leased_ms = NULL "
    "WHERE id = ?1 AND attempt = ?2 AND state = 'leased' AND worker_id = ?3";
static const char sql_run[] =
    "INSERT INTO run (job_id, attempt, worker_id, provenance_id, seconds, n, tokens, finished_ms, "
    "weights_read) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";

enum err_code store_done(struct store *s, const struct store_fence *f,
                         const struct store_run_facts *facts, const struct job_result *r,
                         const struct store_samples *samples, bool *is_ours, struct err *e)
{
    int64_t changed = 0, provenance = 0;
    TRY(store_run(s, sql_done, ARGS(ARG_INT(f->job), ARG_INT(f->attempt), ARG_INT(f->worker_id)),
                  &changed, NULL, e));
    *is_ours = changed != 0;
    if (!*is_ours)
        return ERR_OK;
    TRY(provenance_of(s, facts, r, &provenance, e));
    TRY(store_run(s, sql_run,
                  ARGS(ARG_INT(f->job), ARG_INT(f->attempt), ARG_INT(f->worker_id),
                       ARG_INT(provenance), ARG_NUM(r->seconds), ARG_INT(r->n), ARG_INT(r->tokens),
                       ARG_INT(store_now_ms()), ARG_INT(r->weights_read)),
                  NULL, NULL, e));
    TRY(add_numbers(s, f->job, facts, r, samples, e));
    TRY(store_count_move(s, facts->set_id, JOB_LEASED, JOB_DONE, 1, e));
    return store_count_work(
        s,
        &(struct store_work_count){.worker_id = f->worker_id, .set_id = facts->set_id, .done = 1},
        e);
}

static const char sql_attempt[] =
    "INSERT INTO attempt (job_id, attempt, worker_id, started_ms, ended_ms, outcome, code, text) "
    "SELECT id, attempt, worker_id, leased_ms, ?4, ?5, ?6, ?7 FROM job "
    "WHERE id = ?1 AND attempt = ?2 AND state = 'leased' AND worker_id = ?3";
static const char sql_end[] =
    "UPDATE job SET state = ?4, failures = failures + ?5, worker_id = NULL, leased_ms = NULL "
    "WHERE id = ?1 AND attempt = ?2 AND state = 'leased' AND worker_id = ?3 RETURNING set_id";

enum err_code store_end_attempt(struct store *s, const struct store_fence *f,
                                const struct store_ending *end, bool *is_ours, struct err *e)
{
    if (end->outcome != NULL)
        TRY(store_run(s, sql_attempt,
                      ARGS(ARG_INT(f->job), ARG_INT(f->attempt), ARG_INT(f->worker_id),
                           ARG_INT(store_now_ms()), ARG_TEXT(end->outcome),
                           ARG_TEXT(err_name(end->code)), ARG_TEXT(end->text)),
                      NULL, NULL, e));
    int64_t set_id = 0;
    enum job_state to = end->is_buried ? JOB_BURIED : JOB_PENDING;
    TRY(store_run(s, sql_end,
                  ARGS(ARG_INT(f->job), ARG_INT(f->attempt), ARG_INT(f->worker_id),
                       ARG_TEXT(job_state_label(to)), ARG_INT(end->counts)),
                  NULL, &set_id, e));
    *is_ours = set_id != 0;
    if (!*is_ours)
        return ERR_OK;
    TRY(store_count_move(s, set_id, JOB_LEASED, to, 1, e));
    return store_count_work(s,
                            &(struct store_work_count){
                                .worker_id = f->worker_id, .set_id = set_id, .failed = end->counts},
                            e);
}

/* ---- identities ---- */

enum err_code store_pin_weights(struct store *s, int64_t model_id, const char *sha256,
                                int64_t n_params, int64_t n_params_linear, struct err *e)
{
    static const char sql[] =
        "UPDATE model SET weights_sha256 = ?2, n_params = ?3, n_params_linear = ?4 "
        "WHERE id = ?1 AND weights_sha256 IS NULL";
    return store_run(
        s, sql,
        ARGS(ARG_INT(model_id), ARG_TEXT(sha256), ARG_INT(n_params), ARG_INT(n_params_linear)),
        NULL, NULL, e);
}

enum err_code store_note_size(struct store *s, const struct model_ref *m, int64_t n_params,
                              struct err *e)
{
    static const char sql[] = "UPDATE model SET n_params = ?2 WHERE key = ?1 AND n_params IS NULL";
    struct arena a = {0};
    enum err_code rc =
        store_run(s, sql, ARGS(ARG_TEXT(key_of_model(m, &a)), ARG_INT(n_params)), NULL, NULL, e);
    arena_release(&a);
    return rc;
}

enum err_code store_pin_data(struct store *s, int64_t eval_id, const char *sha256, struct err *e)
{
    static const char sql[] =
        "UPDATE eval SET data_sha256 = ?2 WHERE id = ?1 AND data_sha256 IS NULL";
    return store_run(s, sql, ARGS(ARG_INT(eval_id), ARG_TEXT(sha256)), NULL, NULL, e);
}

/* ---- items ---- */

static const char sql_item_set[] =
    "INSERT INTO item_set (data_sha256, task, tokenizer_sha256, items_sha256) "
    "VALUES (?1, ?2, ?3, ?4) ON CONFLICT (items_sha256) DO UPDATE SET task = task RETURNING id";
static const char sql_item_known[] = "SELECT ifnull(max(i) + 1, 0) FROM item WHERE set_id = ?1";
static const char sql_item[] =
    "INSERT INTO item (set_id, i, gold, chars, bytes, tokens) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

/* One number, or "[1,2]" in `text`, which must outlive the argument. */
static struct store_arg counts_arg(const int32_t *v, int n, struct buf *text)
{
    if (n == 1)
        return (struct store_arg)ARG_INT(v[0]);
    buf_reset(text);
    for (int i = 0; i < n; i++)
        buf_printf(text, "%c%d", i == 0 ? '[' : ',', v[i]);
    buf_adds(text, n == 0 ? "[]" : "]");
    return (struct store_arg)ARG_TEXT(text->data);
}

enum err_code store_items(struct store *s, const char *data_sha256, enum task task,
                          const struct item_list *l, struct err *e)
{
    int64_t set_id = 0, known = 0;
    TRY(store_run(s, sql_item_set,
                  ARGS(ARG_TEXT(data_sha256), ARG_TEXT(task_label(task)),
                       ARG_TEXT(l->tokenizer_sha256), ARG_TEXT(l->items_sha256)),
                  NULL, &set_id, e));
    TRY(store_run(s, sql_item_known, ARGS(ARG_INT(set_id)), NULL, &known, e));
    struct buf chars = {0}, bytes = {0}, tokens = {0};
    enum err_code rc = ERR_OK;
    for (int64_t i = known; i < l->n && rc == ERR_OK; i++) {
        const struct item *it = &l->items[i];
        const struct store_arg args[] = {
            ARG_INT(set_id),
            ARG_INT(i),
            it->gold >= 0 ? (struct store_arg)ARG_INT(it->gold) : (struct store_arg)ARG_NONE,
            counts_arg(it->chars, it->n_choices, &chars),
            counts_arg(it->bytes, it->n_choices, &bytes),
            counts_arg(it->tokens, it->n_choices, &tokens),
        };
        rc = store_run(s, sql_item, args, ARRAY_LEN(args), NULL, NULL, e);
    }
    buf_release(&chars);
    buf_release(&bytes);
    buf_release(&tokens);
    return rc;
}

/* ---- counting ---- */

static enum err_code add_count(void *arg, const struct store_row *r, struct err *e)
{
    (void)e;
    struct store_counts *c = arg;
    int state = job_state_of(str_of(store_col_text(r, 0)));
    if (state >= 0)
        c->n[state] = store_col_int(r, 1);
    return ERR_OK;
}

enum err_code store_count(struct store *s, struct store_counts *out, struct err *e)
{
    static const char sql[] = "SELECT state, sum(n) FROM tally GROUP BY state";
    *out = (struct store_counts){{0}};
    TRY(store_flush_counters(s, e));
    return store_rows(s, sql, NULL, 0, add_count, out, e);
}
