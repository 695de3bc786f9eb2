#include "coordinator/dispatch.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "coordinator/dispatch_impl.h"
#include "coordinator/place.h"
#include "schema/wire.h"

enum {
    MAX_SLICE_JOBS = 256, /* keeps a LEASE message small, a turn short and a lost worker cheap */
    NOTE_SECONDS = 10     /* how exact a live worker's last_seen is in the database */
};

enum err_code dispatch_new(struct store *s, const struct dispatch_options *o, int64_t now_ns,
                           struct dispatch **out, struct err *e)
{
    struct dispatch *d = xcalloc(1, sizeof(*d));
    *d = (struct dispatch){.store = s, .options = *o, .now_ns = now_ns, .is_stale = true};
    enum err_code rc = dispatch_refresh(d, e);
    if (rc != ERR_OK) {
        dispatch_free(d);
        return rc;
    }
    *out = d;
    return ERR_OK;
}

void dispatch_free(struct dispatch *d)
{
    if (d == NULL)
        return;
    session_table_release(&d->sessions);
    pace_release(&d->pace);
    board_release(&d->board);
    xfree(d->revokes);
    xfree(d);
}

/* ---- sessions ---- */

static const char *computes_text(unsigned computes, struct buf *out)
{
    for (int i = 0; i < COMPUTE_COUNT; i++)
        if ((computes >> i & 1) != 0)
            buf_printf(out, "%s%s", out->len > 0 ? "," : "", compute_label((enum compute)i));
    buf_adds(out, "");
    return out->data;
}

static enum err_code note_worker(struct dispatch *d, const struct worker_hello *h, int64_t *id,
                                 struct err *e)
{
    struct buf computes = {0};
    struct store_worker w = {
        .uuid = h->uuid,
        .host = h->host,
        .device = h->device,
        .program = h->program,
        .public_key = h->public_key,
        .computes = computes_text(h->computes, &computes),
        .numerics = h->numerics,
        .memory_bytes = h->memory_bytes,
        .pid = h->pid,
    };
    enum err_code rc = store_worker_hello(d->store, &w, id, e);
    buf_release(&computes);
    return rc;
}

static int compare_ids(const void *a, const void *b)
{
    int64_t x = ((const struct lease *)a)->job, y = ((const struct lease *)b)->job;
    return (x > y) - (x < y);
}

/* What the worker has in hand against what we think it has. A lease it does not name never reached it, or is from before a
 * restart and was lost with it: the job returns without cost (I4). What it names and does not hold is taken from it. */
static enum err_code reconcile(struct dispatch *d, struct session *s, const struct worker_hello *h,
                               struct err *e)
{
    struct board *b = &d->board;
    struct lease *in_hand = xcalloc((size_t)h->n_held, sizeof(*in_hand));
    int n_leases = s->held.n;
    int32_t *leases = xcalloc((size_t)n_leases, sizeof(*leases));
    enum err_code rc = ERR_OK;
    for (int i = 0; i < h->n_held; i++)
        in_hand[i] = (struct lease){h->held_jobs[i], 0, h->held_attempts[i]};
    qsort(in_hand, (size_t)h->n_held, sizeof(*in_hand), compare_ids);
    for (int32_t i = 0, j = s->held.head; i < n_leases; i++, j = b->jobs[j].next)
        leases[i] = j;
    for (int i = 0; i < n_leases && rc == ERR_OK; i++) {
        struct lease wanted = {.job = b->jobs[leases[i]].id};
        const struct lease *found =
            bsearch(&wanted, in_hand, (size_t)h->n_held, sizeof(wanted), compare_ids);
        if (found == NULL || found->attempt != b->jobs[leases[i]].attempt)
            rc = dispatch_end(d, s, leases[i],
                              &(struct dispatch_ending){.code = ERR_STOPPED, .text = ""}, e);
    }
    for (int i = 0; i < h->n_held; i++) {
        int32_t j = board_find(b, h->held_jobs[i]);
        bool is_held = j >= 0 && b->jobs[j].owner >= 0 && d->sessions.v[b->jobs[j].owner] == s;
        if (!is_held || b->jobs[j].attempt != h->held_attempts[i])
            dispatch_revoke(d, s->number, h->held_jobs[i]);
    }
    xfree(leases);
    xfree(in_hand);
    return rc;
}

enum err_code dispatch_hello(struct dispatch *d, const struct worker_hello *h, int64_t now_ns,
                             int64_t *session, struct err *e)
{
    if (h->numerics != WIRE_NUMERICS)
        return err_set(e, ERR_VERSION,
                       "%s on %s computes with numerics version %d, this sweep with %d: results "
                       "would not compare; use the "
                       "worker that belongs to this coordinator",
                       h->program, h->host, h->numerics, (int)WIRE_NUMERICS);
    TRY(dispatch_refresh(d, e));
    d->now_ns = now_ns;
    int64_t worker_id = 0;
    TRY(note_worker(d, h, &worker_id, e));
    int slot = session_of_worker(&d->sessions, worker_id);
    bool is_new = slot < 0;
    struct session *s = is_new ? session_add(&d->sessions, worker_id, &slot) : d->sessions.v[slot];
    if (is_new)
        s->begun_group = store_transactions(d->store);
    if (!s->is_live)
        s->since_ns = now_ns;
    session_describe(s, h);
    s->end_ns = h->left_s > 0 ? now_ns + (int64_t)(h->left_s * CLOCK_NS_PER_S) : 0;
    session_set_live(&d->sessions, s);
    s->seen_ns = s->noted_ns = now_ns;
    dispatch_set_credit(d, s, 0);
    *session = s->number;
    log_event(LOG_INFO, "dispatch", is_new ? "hello" : "hello-again",
              "worker=%s host=%s device=\"%s\" held=%d", s->uuid, s->host, s->device, h->n_held);
    dispatch_tell_worker(d, s, "live");
    return reconcile(d, s, h, e);
}

static struct session *live_session(const struct dispatch *d, int64_t number)
{
    int slot = session_find(&d->sessions, number);
    return slot >= 0 && d->sessions.v[slot]->is_live ? d->sessions.v[slot] : NULL;
}

bool dispatch_knows(const struct dispatch *d, int64_t session)
{
    return live_session(d, session) != NULL;
}

void dispatch_beat(struct dispatch *d, int64_t session, const json_t *progress, int64_t now_ns)
{
    struct session *s = live_session(d, session);
    if (s == NULL)
        return;
    s->seen_ns = now_ns;
    if (progress != NULL) {
        json_decref(s->progress);
        s->progress = json_deep_copy(progress);
    }
}

void dispatch_credit(struct dispatch *d, int64_t session, int n_slices)
{
    struct session *s = live_session(d, session);
    if (s != NULL && n_slices > 0)
        dispatch_set_credit(
            d, s, s->credit + (n_slices < DISPATCH_MAX_CREDIT ? n_slices : DISPATCH_MAX_CREDIT));
}

int dispatch_in_hand(const struct dispatch *d, int64_t session)
{
    const struct session *s = live_session(d, session);
    return s != NULL ? s->held.n : 0;
}

int dispatch_credit_left(const struct dispatch *d, int64_t session)
{
    const struct session *s = live_session(d, session);
    return s != NULL ? s->credit : 0;
}

/* ---- handing out ---- */

/* Copies, because the board may be read anew before the slice is sent. Strings once per slice, not once per job. */
static void describe_jobs(const struct board *b, const int32_t *jobs, struct arena *a,
                          struct slice *out)
{
    struct eval_spec *evals = arena_array(a, (size_t)b->parts.n_evals, sizeof(*evals));
    struct model_ref model =
        model_ref_copy(&b->parts.models[board_cell_of(b, jobs[0])->model].ref, a);
    out->jobs = arena_array(a, (size_t)out->n_jobs, sizeof(*out->jobs));
    for (int i = 0; i < out->n_jobs; i++) {
        const struct board_job *j = &b->jobs[jobs[i]];
        if (evals[j->eval].name == NULL)
            evals[j->eval] = eval_spec_copy(&b->parts.evals[j->eval].spec, a);
        out->jobs[i] = (struct job){.id = j->id,
                                    .attempt = j->attempt,
                                    .model = model,
                                    .config = b->parts.configs[b->cells[j->cell].config].config,
                                    .eval = evals[j->eval]};
    }
}

/* How many of the jobs can be leased in one step: consecutive numbers, one set, before the same attempt. */
static int run_length(const struct board *b, const int32_t *jobs, int n)
{
    const struct board_job *first = &b->jobs[jobs[0]];
    int i = 1;
    for (; i < n; i++) {
        const struct board_job *j = &b->jobs[jobs[i]];
        if (j->id != first->id + i || j->set_id != first->set_id || j->attempt != first->attempt)
            break;
    }
    return i;
}

/* I1: the attempt grows with every lease, and the store refuses one that is not pending. */
static enum err_code lease_jobs(struct dispatch *d, int slot, const int32_t *jobs, int n,
                                struct err *e)
{
    struct session *s = d->sessions.v[slot];
    for (int at = 0, more = 0; at < n; at += more) {
        const struct board_job *first = &d->board.jobs[jobs[at]];
        more = run_length(&d->board, jobs + at, n - at);
        TRY(store_lease(d->store,
                        &(struct store_lease){.first = first->id,
                                              .n = more,
                                              .worker_id = s->worker_id,
                                              .set_id = first->set_id,
                                              .attempt = first->attempt + 1},
                        e));
        events_leases(d->options.events, first->id, more, first->attempt + 1, s->uuid);
        for (int i = at; i < at + more; i++) {
            d->board.jobs[jobs[i]].attempt++;
            d->board.jobs[jobs[i]].worker_id = s->worker_id;
            board_take(&d->board, jobs[i], slot, &s->held);
        }
    }
    return ERR_OK;
}

/* The longest that any of the jobs may run, so that no sweep's limit cuts another's jobs short; 0: one has none. */
static int64_t limit_of(const struct board *b, const int32_t *jobs, int n)
{
    int64_t limit_s = 0;
    for (int i = 0; i < n; i++) {
        int k = 0;
        while (k < b->parts.n_sets && b->parts.sets[k].id != b->jobs[jobs[i]].set_id)
            k++;
        int64_t own_s = k < b->parts.n_sets ? b->parts.sets[k].job_limit_s : 0;
        if (own_s == 0)
            return 0;
        limit_s = own_s > limit_s ? own_s : limit_s;
    }
    return limit_s;
}

/* The next slice for one session: *found = false when there is nothing for it. */
static enum err_code next_for(struct dispatch *d, int slot, struct arena *a, struct slice *out,
                              bool *found, struct err *e)
{
    struct board *b = &d->board;
    struct session *s = d->sessions.v[slot];
    bool *skip = xcalloc((size_t)b->n_lanes, sizeof(*skip));
    int32_t *jobs = xcalloc(MAX_SLICE_JOBS, sizeof(*jobs));
    enum err_code rc = ERR_OK;
    const struct place_time time = {(double)d->options.slice_ns * 1e-9, d->now_ns};
    int n = 0;
    int32_t lane = place_lane(b, &d->sessions, slot, skip);
    while (lane >= 0 && n == 0) {
        n = place_slice(b, &d->pace, &d->sessions, slot, lane, &time, jobs, MAX_SLICE_JOBS);
        if (n == 0) { /* all that is left there is not for this session */
            skip[lane] = true;
            lane = place_lane(b, &d->sessions, slot, skip);
        }
    }
    *found = n > 0;
    if (n > 0) {
        rc = lease_jobs(d, slot, jobs, n, e);
        s->model = b->lanes[lane].model;
        dispatch_set_credit(d, s, s->credit - 1);
        const struct store_model *m = &b->parts.models[s->model];
        *out = (struct slice){.id = ++d->n_slices,
                              .session = s->number,
                              .n_jobs = n,
                              .limit_s = limit_of(b, jobs, n),
                              .estimated_bytes = place_bytes(m, b->lanes[lane].compute)};
        describe_jobs(b, jobs, a, out);
    }
    xfree(jobs);
    xfree(skip);
    return rc;
}

enum err_code dispatch_next(struct dispatch *d, int64_t now_ns, struct arena *a, struct slice *out,
                            bool *found, struct err *e)
{
    TRY(dispatch_refresh(d, e));
    d->now_ns = now_ns;
    *found = false;
    for (int i = 0; i < d->sessions.n_slots && d->board.n_pending > 0; i++) {
        int slot = (d->next_slot + i) % d->sessions.n_slots;
        const struct session *s = d->sessions.v[slot];
        if (s == NULL || !s->is_live || s->credit == 0) /* I5 */
            continue;
        TRY(next_for(d, slot, a, out, found, e));
        if (*found) {
            d->next_slot = slot + 1;
            return ERR_OK;
        }
    }
    return ERR_OK;
}

enum err_code dispatch_revokes(struct dispatch *d, struct arena *a, struct revoke **out, int *n,
                               struct err *e)
{
    TRY(dispatch_refresh(d, e));
    *n = d->n_revokes;
    *out = arena_array(a, (size_t)d->n_revokes, sizeof(**out));
    if (d->n_revokes > 0)
        memcpy(*out, d->revokes, (size_t)d->n_revokes * sizeof(**out));
    d->n_revokes = 0;
    return ERR_OK;
}

/* ---- time ---- */

/* I3. What waited for its worker after a restart of ours costs nothing: the silence was ours. */
static enum err_code end_silent(struct dispatch *d, int slot, struct err *e)
{
    struct session *s = d->sessions.v[slot];
    log_event(LOG_WARN, "dispatch", "lost", "worker=%s jobs=%d",
              s->uuid != NULL ? s->uuid : "of-a-former-run", s->held.n);
    TRY(dispatch_end_all(d, s, s->is_live, e));
    TRY(store_worker_state(d->store, s->worker_id, "lost", e));
    dispatch_tell_worker(d, s, "lost");
    session_remove(&d->sessions, slot);
    return ERR_OK;
}

enum err_code dispatch_tick(struct dispatch *d, int64_t now_ns, int64_t *next_ns, struct err *e)
{
    TRY(dispatch_refresh(d, e));
    d->now_ns = now_ns;
    *next_ns = NOTE_SECONDS * CLOCK_NS_PER_S;
    for (int i = 0; i < d->sessions.n_slots; i++) {
        struct session *s = d->sessions.v[i];
        if (s == NULL)
            continue;
        int64_t left_ns = s->seen_ns + d->options.lease_ns - now_ns;
        if (left_ns <= 0) {
            TRY(end_silent(d, i, e));
            continue;
        }
        *next_ns = left_ns < *next_ns ? left_ns : *next_ns;
        if (s->is_live && now_ns - s->noted_ns >= NOTE_SECONDS * CLOCK_NS_PER_S) {
            TRY(store_worker_state(d->store, s->worker_id, "live", e));
            s->noted_ns = now_ns;
        }
    }
    return ERR_OK;
}

/* ---- what people see ---- */

enum err_code dispatch_count(struct dispatch *d, int64_t now_ns, struct dispatch_counts *out,
                             struct err *e)
{
    TRY(dispatch_refresh(d, e));
    struct store_counts c;
    TRY(store_count(d->store, &c, e));
    *out = (struct dispatch_counts){
        .pending = c.n[JOB_PENDING],
        .leased = c.n[JOB_LEASED],
        .done = c.n[JOB_DONE],
        .buried = c.n[JOB_BURIED],
        .held = c.n[JOB_HELD],
        .cancelled = c.n[JOB_CANCELLED],
        .workers = d->sessions.n_live,
        .jobs_per_s = pace_rate(&d->pace, now_ns),
    };
    double seconds = pace_open_seconds(&d->pace, &d->board);
    double capacity = 0; /* average workers */
    for (int i = 0; i < d->sessions.n_slots; i++)
        if (d->sessions.v[i] != NULL && d->sessions.v[i]->is_live && d->sessions.v[i]->slowness > 0)
            capacity += 1 / d->sessions.v[i]->slowness;
    out->eta_s = seconds < 0 || (capacity <= 0 && seconds > 0) ? -1
                 : seconds > 0                                 ? seconds / capacity
                                                               : 0;
    return ERR_OK;
}

const struct eval_spec *dispatch_eval(const struct dispatch *d, int i)
{
    return i < d->board.parts.n_evals ? &d->board.parts.evals[i].spec : NULL;
}

/* Names of the evaluations that a session is not given because it lacks their data. New reference. */
static json_t *lacking(const struct dispatch *d, const struct session *s)
{
    json_t *names = json_array();
    for (int i = 0; i < s->n_refused; i++)
        if (s->refused[i].what == WIRE_LACK_DATA)
            json_array_append_new(names,
                                  wire_text(d->board.parts.evals[s->refused[i].id].spec.name));
    return names;
}

json_t *dispatch_workers_json(const struct dispatch *d, int64_t now_ns)
{
    json_t *all = json_array(), *w = NULL;
    for (int i = 0; i < d->sessions.n_slots; i++) {
        const struct session *s = d->sessions.v[i];
        if (s == NULL || !s->is_live)
            continue;
        const char *checkpoint = s->model >= 0 && s->model < d->board.parts.n_models
                                     ? d->board.parts.models[s->model].ref.name
                                     : NULL;
        json_array_append_new(
            all, w = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s?, s:i, s:f}", "uuid", s->uuid, "host",
                               s->host, "device", s->device, "program", s->program, "state",
                               s->held.n > 0 ? "busy" : "idle", "checkpoint", checkpoint, "jobs",
                               s->held.n, "seconds", (double)(now_ns - s->since_ns) * 1e-9));
        json_object_set_new(w, "lacks", lacking(d, s));
        if (s->end_ns != 0)
            json_object_set_new(w, "left_s", json_real((double)(s->end_ns - now_ns) * 1e-9));
    }
    return all;
}
