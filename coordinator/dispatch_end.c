/* How leases end: results, failures, jobs handed back, sessions that leave or fall silent. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "coordinator/dispatch_impl.h"
#include "schema/wire.h"

/* I2: the job is open, held by this very session, in this very attempt. -1: fenced. */
static int32_t held_job(const struct dispatch *d, const struct dispatch_ref *at)
{
    int slot = session_find(&d->sessions, at->session);
    int32_t i = slot >= 0 ? board_find(&d->board, at->job) : -1;
    if (i < 0 || d->board.jobs[i].owner != slot || d->board.jobs[i].attempt != at->attempt)
        return -1;
    return i;
}

static void tell(struct dispatch *d, const struct session *s, const struct board_job *j,
                 const struct dispatch_ending *end, bool is_buried)
{
    const struct event_job event = {.job = j->id,
                                    .attempt = j->attempt,
                                    .worker = s->uuid,
                                    .code = end->outcome != NULL ? err_name(end->code) : NULL,
                                    .text = end->text,
                                    .seconds = -1};
    events_job(d->options.events, end->outcome != NULL ? end->outcome : "returned", &event);
    if (is_buried)
        events_job(d->options.events, "buried", &event);
}

void dispatch_tell_worker(struct dispatch *d, const struct session *s, const char *state)
{
    if (d->options.events != NULL && s->uuid != NULL)
        events_other(d->options.events, "worker",
                     json_pack("{s:s, s:s, s:o, s:o}", "state", state, "worker", s->uuid, "host",
                               wire_text(s->host), "device", wire_text(s->device)));
}

enum err_code dispatch_end(struct dispatch *d, struct session *s, int32_t job,
                           const struct dispatch_ending *end, struct err *e)
{
    struct board_job *j = &d->board.jobs[job];
    struct store_fence fence = {j->id, j->attempt, s->worker_id};
    struct store_ending ending = {
        .outcome = end->outcome,
        .code = end->code,
        .text = end->text,
        .counts = end->counts,
        .is_buried = end->counts && j->failures + 1 >= d->options.max_attempts,
    };
    bool is_ours = false;
    TRY(store_end_attempt(d->store, &fence, &ending, &is_ours, e));
    if (!is_ours) { /* changed behind our back: the store is right */
        d->is_stale = true;
        return ERR_OK;
    }
    j->failures += end->counts;
    tell(d, s, j, end, ending.is_buried);
    if (ending.is_buried) {
        log_event(LOG_WARN, "dispatch", "bury", "job=%lld attempts=%d code=%s text=\"%s\"",
                  (long long)j->id, j->failures, err_name(end->code), end->text);
        board_close(&d->board, job, &s->held);
    } else {
        board_put_back(&d->board, job, &s->held);
    }
    return ERR_OK;
}

/* What BEAT said is running, if it is one of ours; else the first in hand: a worker runs its slices in order. */
static int32_t running_job(const struct dispatch *d, const struct session *s)
{
    const json_t *running = json_object_get(s->progress, "running");
    struct dispatch_ref at = {s->number, json_opt_int(running, "job", 0),
                              (int)json_opt_int(running, "attempt", 0)};
    int32_t i = held_job(d, &at);
    return i >= 0 ? i : s->held.head;
}

enum err_code dispatch_end_all(struct dispatch *d, struct session *s, bool is_lost, struct err *e)
{
    static const struct dispatch_ending unrun = {.code = ERR_STOPPED, .text = ""};
    static const struct dispatch_ending lost = {.outcome = "lost",
                                                .code = ERR_TIMEOUT,
                                                .text = "the worker went silent while this job ran",
                                                .counts = true};
    if (is_lost && s->held.n > 0)
        TRY(dispatch_end(d, s, running_job(d, s), &lost, e));
    while (s->held.n > 0 && !d->is_stale)
        TRY(dispatch_end(d, s, s->held.head, &unrun, e));
    return ERR_OK;
}

/* ---- results ---- */

/* What a result must be able to say that it rests on; NULL: it does. */
static const char *unnamed_part(const struct job_result *r)
{
    const struct {
        const char *name, *value;
    } parts[] = {{"weights", r->weights_sha256},
                 {"data", r->data_sha256},
                 {"tokenizer", r->tokenizer_sha256},
                 {"program", r->program},
                 {"device", r->device}};
    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        if (parts[i].value == NULL || parts[i].value[0] == '\0')
            return parts[i].name;
    return NULL;
}

/* An identity that differs from the pinned one. Text of both hashes in *e, whose they are in *differs. */
static enum err_code check_identity(struct dispatch *d, const struct session *s,
                                    const struct board_job *j, const struct job_result *r,
                                    enum wire_lack *differs, struct err *e)
{
    const struct board_cell *cell = &d->board.cells[j->cell];
    const struct store_model *m = &d->board.parts.models[cell->model];
    const struct store_eval *v = &d->board.parts.evals[j->eval];
    *differs = WIRE_LACK_CHECKPOINT;
    if (m->weights_sha256 != NULL && strcmp(m->weights_sha256, r->weights_sha256) != 0)
        return err_set(e, ERR_DENIED,
                       "%s on %s: its weights have SHA-256 %s, this database has results of %s; "
                       "put the same files there, "
                       "or take the old results back with `isobit retry --done`",
                       m->ref.name, s->host, r->weights_sha256, m->weights_sha256);
    *differs = WIRE_LACK_DATA;
    if (v->data_sha256 != NULL && strcmp(v->data_sha256, r->data_sha256) != 0)
        return err_set(e, ERR_DENIED,
                       "%s on %s: the file has SHA-256 %s, this database has results of %s; put "
                       "the same file there, or "
                       "take the old results back with `isobit retry --done`",
                       v->spec.data, s->host, r->data_sha256, v->data_sha256);
    return ERR_OK;
}

static enum err_code pin_identity(struct dispatch *d, const struct board_job *j,
                                  const struct job_result *r, struct err *e)
{
    struct board *b = &d->board;
    struct store_model *m = &b->parts.models[b->cells[j->cell].model];
    struct store_eval *v = &b->parts.evals[j->eval];
    if (m->weights_sha256 == NULL) {
        TRY(store_pin_weights(d->store, m->id, r->weights_sha256, r->n_params, r->n_params_linear,
                              e));
        m->weights_sha256 = arena_strdup(&b->arena, r->weights_sha256);
        m->n_params = r->n_params;
    }
    if (v->data_sha256 == NULL) {
        TRY(store_pin_data(d->store, v->id, r->data_sha256, e));
        v->data_sha256 = arena_strdup(&b->arena, r->data_sha256);
    }
    return ERR_OK;
}

/* The session is not given again what it lacks; `explain` can say why of a checkpoint, and of the rest by the attempts. */
static enum err_code refuse(struct dispatch *d, struct session *s, const struct board_job *j,
                            const struct dispatch_lack *lack, struct err *e)
{
    const int32_t model = d->board.cells[j->cell].model;
    const int64_t ids[] = {[WIRE_LACK_CHECKPOINT] = model,
                           [WIRE_LACK_DATA] = j->eval,
                           [WIRE_LACK_CONFIGURATION] = j->id};
    if (session_refuses(s, lack->what, ids[lack->what]))
        return ERR_OK;
    session_refuse(
        s, &(struct session_refusal){lack->what, ids[lack->what], lack->code == ERR_DENIED});
    log_event(LOG_WARN, "dispatch", "refuse",
              "worker=%s job=%lld checkpoint=%s lacks=%s code=%s text=\"%s\"", s->uuid,
              (long long)j->id, d->board.parts.models[model].ref.name, wire_lack_label(lack->what),
              err_name(lack->code), lack->text);
    if (lack->what != WIRE_LACK_CHECKPOINT)
        return ERR_OK;
    return store_refusal(d->store, s->worker_id, d->board.parts.models[model].id, lack->code,
                         lack->text, e);
}

/* The job returns without an attempt (I4); ERR_DENIED stays in *e unless the store fails. */
static enum err_code deny(struct dispatch *d, struct session *s, int32_t job,
                          enum wire_lack differs, struct err *e)
{
    const struct dispatch_lack lack = {differs, ERR_DENIED, e->text};
    const struct dispatch_ending end = {.outcome = "refused", .code = ERR_DENIED, .text = e->text};
    struct err store_err;
    enum err_code rc = refuse(d, s, &d->board.jobs[job], &lack, &store_err);
    if (rc == ERR_OK)
        rc = dispatch_end(d, s, job, &end, &store_err);
    if (rc != ERR_OK)
        *e = store_err;
    return e->code;
}

static enum err_code accept(struct dispatch *d, struct session *s, int32_t job,
                            const struct job_result *r, const struct store_samples *samples,
                            bool *is_ours, struct err *e)
{
    struct board *b = &d->board;
    const struct board_job *j = &b->jobs[job];
    const struct board_cell *cell = &b->cells[j->cell];
    struct store_fence fence = {j->id, j->attempt, s->worker_id};
    struct store_run_facts facts = {
        .model_id = b->parts.models[cell->model].id,
        .config_id = b->parts.configs[cell->config].id,
        .set_id = j->set_id,
        .host = s->host,
        .numerics = WIRE_NUMERICS,
    };
    TRY(store_done(d->store, &fence, &facts, r, samples, is_ours, e));
    if (!*is_ours) {
        d->is_stale = true;
        return ERR_OK;
    }
    TRY(pin_identity(d, j, r, e));
    double expected = pace_job_seconds(&d->pace, &b->parts, cell->model, j->eval);
    if (expected > 0 && r->seconds > 0)
        s->slowness += 0.1 * (r->seconds / expected - s->slowness);
    events_job(d->options.events, "done",
               &(struct event_job){
                   .job = j->id, .attempt = j->attempt, .worker = s->uuid, .seconds = r->seconds});
    pace_add(&d->pace, cell->model, j->eval, r->seconds, d->now_ns);
    board_close(b, job, &s->held);
    return ERR_OK;
}

/* What a result, failure or return speaks of; *s stays NULL when it is fenced. Any word is a sign of life. */
static enum err_code look_up(struct dispatch *d, const struct dispatch_ref *at, int64_t now_ns,
                             struct session **s, int32_t *job, struct err *e)
{
    TRY(dispatch_refresh(d, e));
    d->now_ns = now_ns;
    int slot = session_find(&d->sessions, at->session);
    if (slot >= 0)
        d->sessions.v[slot]->seen_ns = now_ns;
    *job = held_job(d, at);
    *s = *job >= 0 ? d->sessions.v[slot] : NULL;
    return ERR_OK;
}

enum err_code dispatch_result(struct dispatch *d, const struct dispatch_ref *at,
                              const struct job_result *r, const struct store_samples *samples,
                              int64_t now_ns, enum verdict *v, struct err *e)
{
    struct session *s = NULL;
    int32_t job = -1;
    *v = VERDICT_FENCED;
    TRY(look_up(d, at, now_ns, &s, &job, e));
    if (s == NULL) {
        int slot = session_find(&d->sessions, at->session);
        events_job(d->options.events, "fenced",
                   &(struct event_job){.job = at->job,
                                       .attempt = at->attempt,
                                       .worker = slot >= 0 ? d->sessions.v[slot]->uuid : NULL,
                                       .seconds = -1});
        return ERR_OK;
    }
    const char *unnamed = unnamed_part(r);
    if (unnamed != NULL) {
        char text[64];
        snprintf(text, sizeof(text), "the result names no identity of its %s", unnamed);
        return dispatch_fail(d, at, ERR_FORMAT, text, now_ns, v, e);
    }
    enum wire_lack differs;
    if (check_identity(d, s, &d->board.jobs[job], r, &differs, e) != ERR_OK) {
        *v = differs == WIRE_LACK_DATA ? VERDICT_OTHER_DATA : VERDICT_FENCED;
        return deny(d, s, job, differs, e);
    }
    bool is_ours = false;
    TRY(accept(d, s, job, r, samples, &is_ours, e));
    *v = is_ours ? VERDICT_ACCEPTED : VERDICT_FENCED;
    return ERR_OK;
}

/* ---- failures and returns ---- */

enum err_code dispatch_fail(struct dispatch *d, const struct dispatch_ref *at, enum err_code code,
                            const char *text, int64_t now_ns, enum verdict *v, struct err *e)
{
    const struct dispatch_lack lack = {WIRE_LACK_CHECKPOINT, code, text};
    const struct dispatch_ending end = {
        .outcome = "failed", .code = code, .text = text, .counts = true};
    struct session *s = NULL;
    int32_t job = -1;
    if (err_fate(code) == ERR_FATE_ELSEWHERE)
        return dispatch_missing(d, at, &lack, now_ns, v, e);
    *v = VERDICT_FENCED;
    TRY(look_up(d, at, now_ns, &s, &job, e));
    if (s == NULL)
        return ERR_OK;
    *v = VERDICT_ACCEPTED;
    d->board.jobs[job].avoid = d->board.jobs[job].owner;
    return dispatch_end(d, s, job, &end, e);
}

enum err_code dispatch_missing(struct dispatch *d, const struct dispatch_ref *at,
                               const struct dispatch_lack *lack, int64_t now_ns, enum verdict *v,
                               struct err *e)
{
    const struct dispatch_ending end = {
        .outcome = "returned", .code = lack->code, .text = lack->text};
    struct session *s = NULL;
    int32_t job = -1;
    *v = VERDICT_FENCED;
    TRY(look_up(d, at, now_ns, &s, &job, e));
    if (s == NULL)
        return ERR_OK;
    *v = VERDICT_ACCEPTED;
    const struct board_job *j = &d->board.jobs[job];
    if (lack->what == WIRE_LACK_CHECKPOINT && lack->code == ERR_NOMEM && s->memory_bytes > 0)
        session_limit(&d->sessions, d->board.cells[j->cell].model, s->memory_bytes);
    TRY(refuse(d, s, j, lack, e));
    return dispatch_end(d, s, job, &end, e);
}

enum err_code dispatch_return(struct dispatch *d, const struct dispatch_ref *at, const char *reason,
                              const char *text, int64_t now_ns, enum verdict *v, struct err *e)
{
    struct session *s = NULL;
    int32_t job = -1;
    if (strcmp(reason, "missing") == 0)
        return dispatch_fail(d, at, ERR_NOTFOUND, text, now_ns, v, e);
    *v = VERDICT_FENCED;
    TRY(look_up(d, at, now_ns, &s, &job, e));
    if (s == NULL)
        return ERR_OK;
    *v = VERDICT_ACCEPTED;
    return dispatch_end(d, s, job, &(struct dispatch_ending){.code = ERR_STOPPED, .text = text}, e);
}

enum err_code dispatch_bye(struct dispatch *d, int64_t session, struct err *e)
{
    TRY(dispatch_refresh(d, e));
    int slot = session_find(&d->sessions, session);
    if (slot < 0)
        return ERR_OK;
    struct session *s = d->sessions.v[slot];
    TRY(dispatch_end_all(d, s, false, e));
    TRY(store_worker_state(d->store, s->worker_id, "left", e));
    dispatch_tell_worker(d, s, "left");
    session_remove(&d->sessions, slot);
    return ERR_OK;
}

enum err_code dispatch_items(struct dispatch *d, const char *data_sha256, enum task task,
                             const struct item_list *l, struct err *e)
{
    return store_items(d->store, data_sha256, task, l, e);
}
