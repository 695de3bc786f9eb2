#include "coordinator/intake.h"

#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "schema/job_json.h"

_Static_assert((int)WIRE_NUMERICS == (int)DISPATCH_NUMERICS, "one numerics version");

enum { MAX_HELD = 65536, MAX_DIFFERING = 3, MAX_CREDIT = 16, MAX_PARTS = 8, MAX_HELLOS = 64 };

/* ---- seats ---- */

static struct intake_seat *seat_of(struct intake *in, int64_t session)
{
    for (int i = 0; i < in->n_seats; i++)
        if (in->seats[i].session == session)
            return &in->seats[i];
    return NULL;
}

static struct intake_seat *seat_take(struct intake *in, int64_t session)
{
    struct intake_seat *s = seat_of(in, session);
    if (s != NULL)
        return s;
    if (in->n_seats == in->cap_seats) {
        in->cap_seats = in->cap_seats > 0 ? 2 * in->cap_seats : 16;
        in->seats = xrealloc(in->seats, (size_t)in->cap_seats * sizeof(*in->seats));
    }
    s = &in->seats[in->n_seats++];
    *s = (struct intake_seat){.session = session};
    return s;
}

static void seat_leave(struct intake *in, struct intake_seat *s)
{
    *s = in->seats[--in->n_seats];
}

static bool peer_is(const struct link_peer *a, const struct link_peer *b)
{
    return a->n == b->n && memcmp(a->id, b->id, a->n) == 0;
}

void intake_sweep(struct intake *in)
{
    for (int i = in->n_seats - 1; i >= 0; i--)
        if (!dispatch_knows(in->dispatch, in->seats[i].session))
            seat_leave(in, &in->seats[i]);
}

int intake_n_sessions(const struct intake *in)
{
    return in->n_seats;
}

/* ---- the outbox ---- */

/* `body` is a stolen reference; NULL: {}. */
static void put(struct intake *in, const struct link_peer *to, enum wire_type type, json_t *body)
{
    if (in->n_out == in->cap_out) {
        in->cap_out = in->cap_out > 0 ? 2 * in->cap_out : 64;
        in->out = xrealloc(in->out, (size_t)in->cap_out * sizeof(*in->out));
    }
    in->out[in->n_out++] = (struct intake_out){.to = *to, .type = type, .body = body};
}

/* One ACK for each worker and transaction, unless it has to carry a text. */
static void put_ack(struct intake *in, struct intake_seat *seat, int64_t job, int64_t attempt,
                    const char *verdict)
{
    json_t *row = json_pack("[I, I, s]", (json_int_t)job, (json_int_t)attempt, verdict);
    seat->n_in_hand -= seat->n_in_hand > 0;
    for (int i = in->n_out - 1; i >= 0; i--)
        if (in->out[i].type == WIRE_ACK && peer_is(&in->out[i].to, &seat->peer)) {
            json_array_append_new(json_object_get(in->out[i].body, "jobs"), row);
            return;
        }
    put(in, &seat->peer, WIRE_ACK, json_pack("{s:[o]}", "jobs", row));
}

static const char *verdict_name(enum verdict v)
{
    return v == VERDICT_ACCEPTED ? "accepted" : "fenced";
}

void intake_flush(struct intake *in, struct link *l)
{
    struct err e;
    for (int i = 0; i < in->n_out; i++) {
        struct intake_out *o = &in->out[i];
        /* What does not arrive is made good by the protocol: an ACK is asked for again, a LEASE is missed in the next
         * BEATs, a session that is gone times out. */
        const struct wire_frame blob = {o->blob, o->blob_bytes};
        enum err_code rc = link_send(l, &o->to, o->type, o->body, &blob, o->blob != NULL, &e);
        if (rc != ERR_OK)
            log_event(LOG_DEBUG, "intake", "unsent", "type=%s text=\"%s\"", wire_type_name(o->type),
                      e.text);
        json_decref(o->body);
        xfree(o->blob);
    }
    in->n_out = in->n_parts = 0;
    for (int i = 0; i < in->n_seats; i++)
        in->seats[i].n_committed = in->seats[i].n_in_hand;
}

static void drop_out(struct intake *in)
{
    for (int i = 0; i < in->n_out; i++) {
        json_decref(in->out[i].body);
        xfree(in->out[i].blob);
    }
    in->n_out = in->n_parts = 0;
}

void intake_drop(struct intake *in)
{
    drop_out(in);
    for (int i = 0; i < in->n_seats; i++)
        in->seats[i].n_in_hand = in->seats[i].n_committed;
    intake_sweep(in);
}

void intake_release(struct intake *in)
{
    drop_out(in);
    xfree(in->out);
    xfree(in->seats);
    json_text_release(&in->text);
    files_release(&in->files);
    *in = (struct intake){0};
}

void intake_tell_all(struct intake *in, enum wire_type type)
{
    for (int i = 0; i < in->n_seats; i++)
        put(in, &in->seats[i].peer, type, NULL);
}

/* ---- LEASE, REVOKE ---- */

/* Index of the job's configuration in `list`, appended when it is another one than the last: configurations follow one
 * another in a slice, each once. */
static int config_index(json_t *list, const struct slice *s, int i)
{
    if (i == 0 || !config_equal(&s->jobs[i].config, &s->jobs[i - 1].config))
        json_array_append_new(list, config_to_json(&s->jobs[i].config));
    return (int)json_array_size(list) - 1;
}

/* The same for evaluations, of which a slice has few, each described once (describe_jobs): its name's address tells it. */
static int eval_index(struct intake *in, json_t *list, const char **names,
                      const struct eval_spec *v)
{
    int n = (int)json_array_size(list), i = 0;
    while (i < n && names[i] != v->name)
        i++;
    if (i == n) {
        json_t *spec = eval_spec_to_json(v), *offer = files_offer(&in->files, v);
        if (offer != NULL)
            json_object_set_new(spec, "files", offer);
        json_array_append_new(list, spec);
        names[n] = v->name;
    }
    return i;
}

void intake_lease(struct intake *in, const struct slice *s)
{
    struct intake_seat *seat = seat_of(in, s->session);
    CHECK(seat != NULL && s->n_jobs > 0);
    in->n_writes++;
    json_t *configs = json_array(), *evals = json_array(), *jobs = json_array();
    const char **names = xcalloc((size_t)s->n_jobs, sizeof(*names));
    for (int i = 0; i < s->n_jobs; i++) {
        const struct job *j = &s->jobs[i];
        int config = config_index(configs, s, i), eval = eval_index(in, evals, names, &j->eval);
        json_array_append_new(
            jobs, json_pack("[I, i, i, i]", (json_int_t)j->id, j->attempt, config, eval));
    }
    xfree(names);
    seat->n_in_hand += s->n_jobs;
    json_t *lease =
        json_pack("{s:I, s:I, s:I, s:o, s:o, s:o, s:o}", "slice", (json_int_t)s->id, "lease_ns",
                  (json_int_t)in->options.lease_ns, "estimated_bytes",
                  (json_int_t)s->estimated_bytes, "model", model_ref_to_json(&s->jobs[0].model),
                  "configs", configs, "evals", evals, "jobs", jobs);
    if (s->limit_s > 0)
        json_object_set_new(lease, "limit_s", json_integer(s->limit_s));
    put(in, &seat->peer, WIRE_LEASE, lease);
}

void intake_revoke(struct intake *in, const struct revoke *v, int n)
{
    for (int i = 0; i < n; i++) {
        const struct intake_seat *seat = seat_of(in, v[i].session);
        if (seat != NULL)
            put(in, &seat->peer, WIRE_REVOKE, json_pack("{s:[I]}", "jobs", (json_int_t)v[i].job));
    }
}

/* ---- HELLO ---- */

static const double max_left_s = 1e9; /* what ends later has no end that matters */

static enum err_code read_held(const json_t *list, struct arena *a, struct worker_hello *h,
                               struct err *e)
{
    size_t n = json_array_size(list);
    if (n > MAX_HELD)
        return err_set(e, ERR_FORMAT, "HELLO: %zu jobs held, at most %d are allowed", n, MAX_HELD);
    int64_t *jobs = arena_array(a, n, sizeof(*jobs));
    int *attempts = arena_array(a, n, sizeof(*attempts));
    for (size_t i = 0; i < n; i++) {
        const json_t *row = json_array_get(list, i);
        const json_t *job = json_array_get(row, 0), *attempt = json_array_get(row, 1);
        if (!json_is_integer(job) || !json_is_integer(attempt) ||
            json_integer_value(attempt) > INT32_MAX || json_integer_value(attempt) < 0)
            return err_set(e, ERR_FORMAT, "HELLO: held[%zu] is not [job, attempt]", i);
        jobs[i] = json_integer_value(job);
        attempts[i] = (int)json_integer_value(attempt);
    }
    h->held_jobs = jobs;
    h->held_attempts = attempts;
    h->n_held = (int)n;
    return ERR_OK;
}

static bool is_uuid(const char *z)
{
    return strlen(z) == 32 && strspn(z, "0123456789abcdef") == 32;
}

static enum err_code read_hello(const json_t *b, struct arena *a, struct worker_hello *h,
                                struct err *e)
{
    json_t *computes, *held;
    int64_t numerics = 0;
    TRY(json_need_str(b, "uuid", "HELLO", &h->uuid, e));
    TRY(json_need_str(b, "host", "HELLO", &h->host, e));
    TRY(json_need_str(b, "device", "HELLO", &h->device, e));
    TRY(json_need_str(b, "program", "HELLO", &h->program, e));
    TRY(json_need_int(b, "pid", "HELLO", 0, INT64_MAX, &h->pid, e));
    TRY(json_need_int(b, "memory_bytes", "HELLO", 0, INT64_MAX, &h->memory_bytes, e));
    TRY(json_need_int(b, "numerics", "HELLO", 0, INT32_MAX, &numerics, e));
    TRY(json_need_arr(b, "computes", "HELLO", &computes, e));
    TRY(json_need_arr(b, "held", "HELLO", &held, e));
    if (!is_uuid(h->uuid))
        return err_set(e, ERR_FORMAT, "HELLO: \"uuid\" is not 32 hexadecimal digits");
    h->numerics = (int)numerics;
    double left_s = json_opt_num(b, "left_s", 0);
    h->left_s = left_s < max_left_s ? left_s : 0;
    for (size_t i = 0; i < json_array_size(computes); i++) {
        const char *label = json_string_value(json_array_get(computes, i));
        int c = label != NULL ? compute_of(str_of(label)) : -1;
        if (c >= 0) /* a later version's precision is nothing we would ask for */
            h->computes |= 1U << c;
    }
    return read_held(held, a, h, e);
}

static void put_refusal(struct intake *in, const struct link_peer *to, const struct err *why)
{
    log_event(LOG_WARN, "intake", "refused", "text=\"%s\"", why->text);
    events_other(in->options.events, "worker",
                 json_pack("{s:s, s:o}", "state", "refused", "text", wire_text(why->text)));
    put(in, to, WIRE_REFUSE,
        json_pack("{s:s, s:o}", "code", err_name(why->code), "text", wire_text(why->text)));
}

static enum err_code on_hello(struct intake *in, const struct link_inbox *box,
                              const struct worker_hello *h, int64_t now_ns, struct err *e)
{
    struct err why;
    int64_t session = 0;
    if (in->n_seats >= INTAKE_MAX_SEATS) {
        err_set(&why, ERR_BUSY, "%d workers are connected already", in->n_seats);
        put_refusal(in, &box->from, &why);
        return ERR_OK;
    }
    enum err_code rc = dispatch_hello(in->dispatch, h, now_ns, &session, &why);
    if (rc == ERR_VERSION || rc == ERR_DENIED) {
        put_refusal(in, &box->from, &why);
        return ERR_OK;
    }
    if (rc != ERR_OK) {
        *e = why;
        return rc;
    }
    struct intake_seat *seat = seat_take(in, session);
    *seat = (struct intake_seat){.session = session, .peer = box->from, .n_in_hand = h->n_held};
    memcpy(seat->who, box->who, sizeof(seat->who));
    memcpy(seat->uuid, h->uuid, sizeof(seat->uuid));
    put(in, &box->from, WIRE_WELCOME,
        json_pack("{s:I, s:I, s:I}", "session", (json_int_t)session, "heartbeat_ns",
                  (json_int_t)in->options.heartbeat_ns, "lease_ns",
                  (json_int_t)in->options.lease_ns));
    if (in->is_draining)
        put(in, &box->from, WIRE_DRAIN, NULL);
    return ERR_OK;
}

/* ---- BEAT ---- */

static void on_beat(struct intake *in, struct intake_seat *seat, const json_t *body, int64_t now_ns)
{
    dispatch_beat(in->dispatch, seat->session, body, now_ns);
    int64_t claimed = json_opt_int(body, "in_hand", 0);
    bool is_same = claimed == seat->n_claimed;
    seat->n_claimed = claimed;
    seat->n_differing = claimed == seat->n_in_hand ? 0 : is_same ? seat->n_differing + 1 : 1;
    if (seat->n_differing < MAX_DIFFERING)
        return;
    log_event(LOG_WARN, "intake", "differing", "session=%lld in_hand=%lld expected=%lld",
              (long long)seat->session, (long long)claimed, (long long)seat->n_in_hand);
    seat->n_differing = 0;
    put(in, &seat->peer, WIRE_REGISTER, NULL);
}

/* ---- RESULT, FAIL, RETURN ---- */

struct answer {
    int64_t job;
    int attempt;
};

static enum err_code read_answer(const json_t *body, const char *what, struct answer *out,
                                 struct err *e)
{
    int64_t attempt = 0;
    TRY(json_need_int(body, "job", what, 0, INT64_MAX, &out->job, e));
    TRY(json_need_int(body, "attempt", what, 0, INT32_MAX, &attempt, e));
    out->attempt = (int)attempt;
    return ERR_OK;
}

static enum err_code read_result_of(const struct json_text *t, struct answer *out, struct err *e)
{
    int64_t attempt = 0;
    TRY(json_text_int(t, 0, "job", 0, INT64_MAX, &out->job, e));
    TRY(json_text_int(t, 0, "attempt", 0, INT32_MAX, &attempt, e));
    out->attempt = (int)attempt;
    return ERR_OK;
}

static enum err_code fail_code(const json_t *body)
{
    enum err_code code = err_from_name(json_opt_str(body, "code", "IO"));
    return code != ERR_OK ? code : ERR_IO; /* "OK" is no failure */
}

static enum err_code fail_job(struct intake *in, struct intake_seat *seat, const struct answer *an,
                              enum err_code code, const char *text, int64_t now_ns, struct err *e)
{
    enum verdict v;
    log_event(LOG_WARN, "intake", "failed", "job=%lld attempt=%d code=%s text=\"%s\"",
              (long long)an->job, an->attempt, err_name(code), text);
    struct dispatch_ref at = {seat->session, an->job, an->attempt};
    TRY(dispatch_fail(in->dispatch, &at, code, text, now_ns, &v, e));
    put_ack(in, seat, an->job, an->attempt, verdict_name(v));
    return ERR_OK;
}

/* The pinned identity differs: the result does not count, and the worker has to know why. */
static void deny(struct intake *in, struct intake_seat *seat, const struct answer *an,
                 const struct err *why)
{
    log_event(LOG_ERROR, "intake", "denied", "job=%lld text=\"%s\"", (long long)an->job, why->text);
    seat->n_in_hand -= seat->n_in_hand > 0;
    put(in, &seat->peer, WIRE_ACK,
        json_pack("{s:[[I, i, s]], s:o}", "jobs", (json_int_t)an->job, an->attempt, "denied",
                  "text", wire_text(why->text)));
}

/* The text is already parsed. */
static enum err_code on_result(struct intake *in, struct intake_seat *seat,
                               const struct wire_msg *m, const struct answer *an, int64_t now_ns,
                               struct err *e)
{
    struct arena a = {0};
    struct job_result r = {0};
    struct err why;
    const char *codec = "";
    enum err_code rc =
        job_result_from_text(&in->text, json_text_get(&in->text, 0, "result"), &a, &r, &why);
    if (rc == ERR_OK && m->n_blobs > 0)
        rc = json_text_str(&in->text, 0, "codec", &a, &codec, &why);
    if (rc != ERR_OK) {
        rc = fail_job(in, seat, an, ERR_FORMAT, why.text, now_ns, e);
    } else {
        enum verdict v;
        const struct wire_frame none = {0};
        const struct wire_frame *blob = m->n_blobs > 0 ? &m->blobs[0] : &none;
        const struct dispatch_ref at = {seat->session, an->job, an->attempt};
        const struct store_samples samples = {blob->data, blob->size, codec};
        rc = dispatch_result(in->dispatch, &at, &r, &samples, now_ns, &v, &why);
        if (rc == ERR_OK)
            put_ack(in, seat, an->job, an->attempt, verdict_name(v));
        else if (rc == ERR_DENIED)
            deny(in, seat, an, &why);
        else
            *e = why;
        rc = rc == ERR_DENIED ? ERR_OK : rc;
    }
    arena_release(&a);
    return rc;
}

static enum err_code on_return(struct intake *in, struct intake_seat *seat, const json_t *body,
                               int64_t now_ns, struct err *e)
{
    const char *reason = json_opt_str(body, "reason", "drain");
    const char *text = json_opt_str(body, "text", "");
    bool is_missing = strcmp(reason, "missing") == 0;
    enum err_code why_missing = err_from_name(json_opt_str(body, "code", "NOTFOUND"));
    if (err_fate(why_missing) != ERR_FATE_ELSEWHERE)
        why_missing = ERR_NOTFOUND;
    if (!is_missing && strcmp(reason, "revoked") != 0)
        reason = "drain";
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(body, "jobs"), i, row)
    {
        int64_t job = json_integer_value(json_array_get(row, 0));
        int64_t attempt = json_integer_value(json_array_get(row, 1));
        enum verdict v;
        if (attempt < 0 || attempt > INT32_MAX)
            continue;
        struct dispatch_ref at = {seat->session, job, (int)attempt};
        if (is_missing)
            TRY(dispatch_fail(in->dispatch, &at, why_missing, text, now_ns, &v, e));
        else
            TRY(dispatch_return(in->dispatch, &at, reason, text, now_ns, &v, e));
        put_ack(in, seat, job, attempt, verdict_name(v));
    }
    if (is_missing)
        log_event(LOG_WARN, "intake", "returned", "session=%lld text=\"%s\"",
                  (long long)seat->session, text);
    return ERR_OK;
}

static enum err_code on_items(struct intake *in, const json_t *body, struct err *bad, struct err *e)
{
    struct arena a = {0};
    struct item_list list = {0};
    const char *data_sha256 = NULL, *task = NULL;
    json_t *items = NULL;
    enum err_code rc = json_need_str(body, "data_sha256", "ITEMS", &data_sha256, bad);
    if (rc == ERR_OK)
        rc = json_need_str(body, "task", "ITEMS", &task, bad);
    if (rc == ERR_OK)
        rc = json_need_obj(body, "items", "ITEMS", &items, bad);
    if (rc == ERR_OK && task_of(str_of(task)) < 0)
        rc = err_set(bad, ERR_FORMAT, "ITEMS: task \"%s\" is not known", task);
    if (rc == ERR_OK)
        rc = item_list_from_json(items, "ITEMS", &a, &list, bad);
    if (rc == ERR_OK)
        rc = dispatch_items(in->dispatch, data_sha256, (enum task)task_of(str_of(task)), &list, e);
    else
        rc = ERR_OK; /* `bad` says what was wrong */
    arena_release(&a);
    return rc;
}

/* ---- FETCH ---- */

/* A part of a data file. After a restart nothing has been offered yet, but the worker may still hold jobs: then all files
 * are looked at once. More than a few parts a turn are left unanswered, and asked for again. */
static void on_fetch(struct intake *in, const struct intake_seat *seat, const json_t *body,
                     struct err *bad)
{
    const char *sha256 = NULL;
    int64_t offset = 0;
    struct files_part part = {0};
    struct err e;
    if (json_need_str(body, "sha256", "FETCH", &sha256, bad) != ERR_OK ||
        json_need_int(body, "offset", "FETCH", 0, FILES_MAX_BYTES, &offset, bad) != ERR_OK ||
        in->n_parts == MAX_PARTS)
        return;
    enum err_code rc = files_read(&in->files, sha256, offset, &part, &e);
    const struct eval_spec *v = NULL;
    for (int i = 0; rc == ERR_NOTFOUND && (v = dispatch_eval(in->dispatch, i)) != NULL; i++) {
        json_decref(files_offer(&in->files, v));
        rc = files_read(&in->files, sha256, offset, &part, &e);
    }
    json_t *answer = json_pack("{s:s#, s:I}", "sha256", sha256, (int)strnlen(sha256, 64), "offset",
                               (json_int_t)offset);
    if (rc == ERR_OK) {
        json_object_set_new(answer, "total", json_integer(part.total));
    } else {
        json_object_set_new(answer, "code", json_string(err_name(rc)));
        json_object_set_new(answer, "text", wire_text(e.text));
    }
    put(in, &seat->peer, WIRE_DATA, answer);
    in->out[in->n_out - 1].blob = part.data;
    in->out[in->n_out - 1].blob_bytes = part.n;
    in->n_parts++;
}

/* ---- any message ---- */

/* The 1st, 2nd, 4th, 8th … time, so that a broken peer cannot fill the disk with complaints. */
static void complain(struct intake *in, const char *text)
{
    in->n_garbage++;
    if ((in->n_garbage & (in->n_garbage - 1)) == 0)
        log_event(LOG_WARN, "intake", "garbage", "count=%lld text=\"%s\"", (long long)in->n_garbage,
                  text);
}

/* One worker a connection: else one connection could fill the table of sessions. */
static enum err_code check_alone(const struct intake *in, const struct link_inbox *box,
                                 const struct worker_hello *h, struct err *bad)
{
    for (int i = 0; i < in->n_seats; i++)
        if (peer_is(&in->seats[i].peer, &box->from) && strcmp(in->seats[i].uuid, h->uuid) != 0)
            return err_set(bad, ERR_FORMAT, "HELLO: a second worker on one connection");
    return ERR_OK;
}

static enum err_code on_hello_message(struct intake *in, const struct link_inbox *box,
                                      int64_t now_ns, struct err *bad, struct err *e)
{
    struct arena a = {0};
    struct worker_hello h = {.public_key = box->who};
    enum err_code rc = ERR_OK;
    if (read_hello(box->msg.body, &a, &h, bad) == ERR_OK && check_alone(in, box, &h, bad) == ERR_OK)
        rc = on_hello(in, box, &h, now_ns, e);
    arena_release(&a);
    return rc;
}

static enum err_code on_session_message(struct intake *in, struct intake_seat *seat,
                                        const struct wire_msg *m, int64_t now_ns, struct err *bad,
                                        struct err *e)
{
    struct answer an = {0};
    switch (m->type) {
    case WIRE_BEAT:
        on_beat(in, seat, m->body, now_ns);
        return ERR_OK;
    case WIRE_CREDIT: {
        int64_t n = 0;
        if (json_need_int(m->body, "slices", "CREDIT", 1, MAX_CREDIT, &n, bad) == ERR_OK)
            dispatch_credit(in->dispatch, seat->session, (int)n);
        return ERR_OK;
    }
    case WIRE_RESULT:
        return read_result_of(&in->text, &an, bad) == ERR_OK
                   ? on_result(in, seat, m, &an, now_ns, e)
                   : ERR_OK;
    case WIRE_FAIL:
        return read_answer(m->body, "FAIL", &an, bad) == ERR_OK
                   ? fail_job(in, seat, &an, fail_code(m->body), json_opt_str(m->body, "text", ""),
                              now_ns, e)
                   : ERR_OK;
    case WIRE_RETURN:
        return on_return(in, seat, m->body, now_ns, e);
    case WIRE_ITEMS:
        return on_items(in, m->body, bad, e);
    case WIRE_FETCH:
        on_fetch(in, seat, m->body, bad);
        return ERR_OK;
    case WIRE_BYE: {
        int64_t session = seat->session;
        seat_leave(in, seat);
        return dispatch_bye(in->dispatch, session, e);
    }
    case WIRE_HELLO:
    case WIRE_WELCOME:
    case WIRE_REFUSE:
    case WIRE_LEASE:
    case WIRE_ACK:
    case WIRE_REVOKE:
    case WIRE_REGISTER:
    case WIRE_DRAIN:
    case WIRE_DATA:
    case WIRE_REQUEST:
    case WIRE_REPLY:
    case WIRE_START:
    case WIRE_PROGRESS:
        break;
    }
    err_set(bad, ERR_FORMAT, "%s is nothing a worker sends", wire_type_name(m->type));
    return ERR_OK;
}

/* ---- keys ---- */

static const char revoked[] = "this worker's key is no longer listed by the coordinator";

enum err_code intake_begin(struct intake *in, struct err *e)
{
    in->n_hellos = 0;
    if (in->generation == in->door->generation)
        return ERR_OK;
    for (int i = in->n_seats - 1; i >= 0; i--) {
        struct intake_seat *seat = &in->seats[i];
        enum door_role role = door_role(in->door, seat->who);
        if (role == DOOR_WORKER || role == DOOR_ANYBODY)
            continue;
        struct err why;
        err_set(&why, ERR_DENIED, "%s", revoked);
        put_refusal(in, &seat->peer, &why);
        int64_t session = seat->session;
        seat_leave(in, seat);
        TRY(dispatch_bye(in->dispatch, session, e));
    }
    in->generation = in->door->generation;
    return ERR_OK;
}

/* What a sender may not say at all, before it is looked at. True: it is dealt with. */
static bool turn_away(struct intake *in, const struct link_inbox *box, struct err *bad)
{
    struct err why;
    switch (door_role(in->door, box->who)) {
    case DOOR_WORKER:
    case DOOR_ANYBODY:
        return false;
    case DOOR_READER:
        err_set(&why, ERR_DENIED,
                "the key \"%s\" may only ask for the state of things: a worker needs one of "
                "allow/workers (worker.key)",
                door_name(in->door, box->who));
        if (box->msg.type == WIRE_HELLO)
            put_refusal(in, &box->from, &why);
        else
            *bad = why;
        return true;
    case DOOR_NOBODY:
        err_set(bad, ERR_DENIED, "%s", revoked);
        return true;
    }
    return true;
}

/* Which session speaks; a RESULT's text is parsed for it and kept. 0: none is named. */
static int64_t session_of(struct intake *in, const struct wire_msg *m, struct err *bad)
{
    int64_t session = 0;
    if (m->type != WIRE_RESULT)
        return json_opt_int(m->body, "session", 0);
    if (json_text_parse(&in->text, m->text, "RESULT", bad) != ERR_OK ||
        json_text_int(&in->text, 0, "session", 0, INT64_MAX, &session, bad) != ERR_OK)
        return 0;
    return session;
}

enum err_code intake_apply(struct intake *in, struct link_inbox *box, int64_t now_ns, struct err *e)
{
    struct err bad = {0};
    enum err_code rc = ERR_OK;
    if (turn_away(in, box, &bad)) {
        rc = ERR_OK;
    } else if (box->is_bad && box->why.code == ERR_VERSION) {
        put_refusal(in, &box->from, &box->why);
    } else if (box->is_bad) {
        bad = box->why;
    } else if (box->msg.type == WIRE_HELLO && ++in->n_hellos > MAX_HELLOS) {
        err_set(&bad, ERR_BUSY, "more than %d HELLOs in one turn", MAX_HELLOS);
    } else if (box->msg.type == WIRE_HELLO) {
        in->n_writes++;
        rc = on_hello_message(in, box, now_ns, &bad, e);
    } else {
        int64_t session = session_of(in, &box->msg, &bad);
        struct intake_seat *seat = session > 0 ? seat_of(in, session) : NULL;
        bool is_known = seat != NULL && peer_is(&seat->peer, &box->from) &&
                        strcmp(seat->who, box->who) == 0 &&
                        dispatch_knows(in->dispatch, seat->session);
        in->n_writes += is_known && box->msg.type != WIRE_BEAT && box->msg.type != WIRE_CREDIT &&
                        box->msg.type != WIRE_FETCH;
        if (is_known)
            rc = on_session_message(in, seat, &box->msg, now_ns, &bad, e);
        else if (bad.code == ERR_OK)
            put(in, &box->from, WIRE_REGISTER, NULL);
    }
    if (bad.code != ERR_OK)
        complain(in, bad.text);
    return rc;
}
