#include "coordinator/intake.h"

#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "coordinator/intake_impl.h"

enum { MAX_HELD = 65536, MAX_DIFFERING = 3, MAX_HELLOS = 64 };

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
    intake_put(in, to, WIRE_REFUSE,
               json_pack("{s:s, s:o}", "code", err_name(why->code), "text", wire_text(why->text)));
}

static bool has_seat(const struct intake *in, const char *uuid)
{
    for (int i = 0; i < in->n_seats; i++)
        if (strcmp(in->seats[i].uuid, uuid) == 0)
            return true;
    return false;
}

static enum err_code on_hello(struct intake *in, const struct link_inbox *box,
                              const struct worker_hello *h, int64_t now_ns, struct err *e)
{
    struct err why;
    int64_t session = 0;
    if (in->n_seats >= INTAKE_MAX_SEATS && !has_seat(in, h->uuid)) {
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
    struct intake_seat *seat = intake_seat_take(in, session);
    *seat = (struct intake_seat){.session = session, .peer = box->from, .n_in_hand = h->n_held};
    memcpy(seat->who, box->who, sizeof(seat->who));
    memcpy(seat->uuid, h->uuid, sizeof(seat->uuid));
    intake_put(in, &box->from, WIRE_WELCOME,
               json_pack("{s:I, s:I, s:I}", "session", (json_int_t)session, "heartbeat_ns",
                         (json_int_t)in->options.heartbeat_ns, "lease_ns",
                         (json_int_t)in->options.lease_ns));
    if (in->is_draining)
        intake_put(in, &box->from, WIRE_DRAIN, NULL);
    return ERR_OK;
}

/* ---- BEAT ---- */

/* Whether a worker and its coordinator have the same in mind. Doubled messages are acknowledged twice, so that n_in_hand may fall
 * short; fewer jobs than the session holds are missed in any case. */
static bool is_so(const struct intake_seat *seat, const struct intake_claim *c,
                  const struct intake_claim *here)
{
    return c->in_hand == seat->n_in_hand && c->in_hand >= here->in_hand &&
           c->credit == here->credit;
}

static void on_beat(struct intake *in, struct intake_seat *seat, const json_t *body, int64_t now_ns)
{
    const struct intake_claim here = {dispatch_in_hand(in->dispatch, seat->session),
                                      dispatch_credit_left(in->dispatch, seat->session)};
    const struct intake_claim c = {json_opt_int(body, "in_hand", 0),
                                   json_opt_int(body, "credit", here.credit)};
    const bool is_same = c.in_hand == seat->claim.in_hand && c.credit == seat->claim.credit;
    dispatch_beat(in->dispatch, seat->session, body, now_ns);
    seat->n_differing = is_so(seat, &c, &here) ? 0 : is_same ? seat->n_differing + 1 : 1;
    seat->claim = c;
    if (seat->n_differing < MAX_DIFFERING)
        return;
    log_event(LOG_WARN, "intake", "differing",
              "session=%lld in_hand=%lld expected=%lld credit=%lld expected_credit=%lld",
              (long long)seat->session, (long long)c.in_hand, (long long)seat->n_in_hand,
              (long long)c.credit, (long long)here.credit);
    seat->n_differing = 0;
    intake_put(in, &seat->peer, WIRE_REGISTER, NULL);
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
        if (intake_peer_is(&in->seats[i].peer, &box->from) &&
            strcmp(in->seats[i].uuid, h->uuid) != 0)
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
    switch (m->type) {
    case WIRE_BEAT:
        on_beat(in, seat, m->body, now_ns);
        return ERR_OK;
    case WIRE_CREDIT: {
        int64_t n = 0;
        if (json_need_int(m->body, "slices", "CREDIT", 1, WIRE_MAX_CREDIT, &n, bad) == ERR_OK)
            dispatch_credit(in->dispatch, seat->session, (int)n);
        return ERR_OK;
    }
    case WIRE_RESULT:
        return intake_on_result(in, seat, m, now_ns, bad, e);
    case WIRE_FAIL:
        return intake_on_fail(in, seat, m->body, now_ns, bad, e);
    case WIRE_RETURN:
        return intake_on_return(in, seat, m->body, now_ns, e);
    case WIRE_ITEMS:
        return intake_on_items(in, m->body, bad, e);
    case WIRE_FETCH:
        intake_on_fetch(in, seat, m->body, bad);
        return ERR_OK;
    case WIRE_BYE: {
        int64_t session = seat->session;
        intake_seat_leave(in, seat);
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
        intake_seat_leave(in, seat);
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
        struct intake_seat *seat = session > 0 ? intake_seat_of(in, session) : NULL;
        bool is_known = seat != NULL && intake_peer_is(&seat->peer, &box->from) &&
                        strcmp(seat->who, box->who) == 0 &&
                        dispatch_knows(in->dispatch, seat->session);
        in->n_writes += is_known && box->msg.type != WIRE_BEAT && box->msg.type != WIRE_CREDIT &&
                        box->msg.type != WIRE_FETCH;
        if (is_known)
            rc = on_session_message(in, seat, &box->msg, now_ns, &bad, e);
        else if (bad.code == ERR_OK)
            intake_put(in, &box->from, WIRE_REGISTER, NULL);
    }
    if (bad.code != ERR_OK)
        complain(in, bad.text);
    return rc;
}
