#include "worker/uplink.h"

#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

/* PROTOCOL.md section 5. */
static const int64_t silence_min_ns = 5 * CLOCK_NS_PER_S;
static const int64_t silence_max_ns = 32 * CLOCK_NS_PER_S;
static const int64_t hello_again_ns = CLOCK_NS_PER_S;
static const int64_t retry_ns = CLOCK_NS_PER_S / 10;
static const int64_t resend_first_ns = 10 * CLOCK_NS_PER_S;
static const int64_t resend_max_ns = 60 * CLOCK_NS_PER_S;

/* A key that is not listed is as final as REFUSE. Everything else may be a coordinator that is just starting or a stranger on
 * its port, so it is told and tried again. */
static void on_failure(void *arg, bool is_unlisted, const char *text)
{
    struct uplink *u = arg;
    if (is_unlisted) {
        u->is_refused = true;
        err_set(&u->why, ERR_DENIED,
                "the coordinator at %s does not list this worker's key %s: ask for a new one "
                "(`isobit keygen DIR --add-worker NAME` there)",
                u->endpoint, u->keys->public_key);
        return;
    }
    u->n_failures++;
    if ((u->n_failures & (u->n_failures - 1)) == 0)
        log_event(LOG_WARN, "uplink", "no-handshake", "coordinator=%s count=%lld text=\"%s\"",
                  u->endpoint, (long long)u->n_failures,
                  u->keys == NULL ? "it may want keys: give --keys DIR" : text);
}

static enum err_code open_link(struct uplink *u, int64_t now_ns, struct err *e)
{
    u->door = (struct link_door){.arg = u, .on_failure = on_failure};
    struct link_options o = {.keys = u->keys, .door = &u->door};
    TRY(link_connect(u->context, u->endpoint, &o, &u->link, e));
    u->heard_ns = now_ns;
    u->hello_ns = now_ns;
    u->session = 0;
    return ERR_OK;
}

enum err_code uplink_open(struct uplink *u, struct link_context *c, const char *endpoint,
                          json_t *hello, struct hand *hand, int64_t now_ns, struct err *e)
{
    u->context = c;
    u->endpoint = endpoint;
    u->hello = hello;
    u->hand = hand;
    u->heartbeat_ns = CLOCK_NS_PER_S;
    u->silence_ns = silence_min_ns;
    return open_link(u, now_ns, e);
}

void uplink_close(struct uplink *u)
{
    for (int i = 0; i < u->n_items; i++) {
        json_decref(u->items[i].body);
        xfree(u->items[i].key);
    }
    xfree(u->items);
    json_decref(u->hello);
    link_close(u->link);
    *u = (struct uplink){0};
}

/* Sends; false when the connection does not take it now, so that the caller tries again later. A message that can never
 * be sent (too large) is logged and counts as sent, since another try would end the same way. */
static bool send_up(struct uplink *u, enum wire_type type, const json_t *body,
                    const struct wire_frame *blob)
{
    struct err e;
    enum err_code rc = link_send(u->link, NULL, type, body, blob, blob != NULL, &e);
    if (rc == ERR_OK)
        return true;
    if (rc != ERR_FORMAT)
        return false;
    log_event(LOG_ERROR, "uplink", "unsendable", "type=%s text=\"%s\"", wire_type_name(type),
              e.text);
    return true;
}

static void reopen(struct uplink *u, int64_t now_ns)
{
    struct err e;
    log_event(LOG_WARN, "uplink", "silence",
              "coordinator=%s seconds=%.0f in_hand=%d text=\"connecting again\"", u->endpoint,
              (double)(now_ns - u->heard_ns) * 1e-9, u->hand->n);
    /* The next silence is borne longer: many workers must not all knock every few seconds at a coordinator that is
     * coming up. */
    u->silence_ns = u->silence_ns * 2 < silence_max_ns ? u->silence_ns * 2 : silence_max_ns;
    link_close(u->link);
    u->link = NULL;
    if (open_link(u, now_ns, &e) != ERR_OK) {
        u->is_refused = true; /* the endpoint parsed before: the process is out of sockets */
        u->why = e;
    }
}

/* ---- what arrives ---- */

static void on_welcome(struct uplink *u, const json_t *body, int64_t now_ns)
{
    struct err e;
    int64_t session = 0, heartbeat_ns = 0;
    if (json_need_int(body, "session", "WELCOME", 1, INT64_MAX, &session, &e) != ERR_OK ||
        json_need_int(body, "heartbeat_ns", "WELCOME", CLOCK_NS_PER_S / 100, 3600 * CLOCK_NS_PER_S,
                      &heartbeat_ns, &e) != ERR_OK) {
        log_event(LOG_WARN, "uplink", "bad-message", "text=\"%s\"", e.text);
        return;
    }
    u->session = session;
    u->epoch++;
    u->heartbeat_ns = heartbeat_ns;
    u->silence_ns = 5 * heartbeat_ns > silence_min_ns ? 5 * heartbeat_ns : silence_min_ns;
    u->beat_ns = now_ns;
    u->credit_given = 0;
    log_event(LOG_INFO, "uplink", "registered", "coordinator=%s session=%lld in_hand=%d",
              u->endpoint, (long long)session, u->hand->n);
}

static void on_refuse(struct uplink *u, const json_t *body)
{
    u->is_refused = true;
    err_set(&u->why, ERR_DENIED, "the coordinator at %s refuses this worker: %s", u->endpoint,
            json_opt_str(body, "text", "no reason given"));
}

static void on_lease(struct uplink *u, const json_t *body)
{
    struct err e;
    u->credit_given -= u->credit_given > 0;
    if (hand_lease(u->hand, body, &e) != ERR_OK)
        log_event(LOG_ERROR, "uplink", "bad-message", "text=\"%s\"", e.text);
}

static void on_ack(struct uplink *u, const json_t *body)
{
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(body, "jobs"), i, row)
    {
        int64_t job = json_integer_value(json_array_get(row, 0));
        int64_t attempt = json_integer_value(json_array_get(row, 1));
        const char *verdict = json_string_value(json_array_get(row, 2));
        struct hand_job *j = hand_find(u->hand, job, attempt);
        if (j == NULL || verdict == NULL)
            continue;
        if (strcmp(verdict, "denied") == 0) {
            const char *text = json_opt_str(body, "text", "denied");
            log_event(LOG_ERROR, "uplink", "denied", "job=%lld text=\"%s\"", (long long)job, text);
            hand_return_missing(u->hand, j, wire_lack_of(json_opt_str(body, "lacks", NULL)),
                                ERR_NOTFOUND, text);
        }
        if (!hand_settle(u->hand, job, attempt))
            log_event(LOG_WARN, "uplink", "early-ack", "job=%lld", (long long)job);
    }
}

static void on_revoke(struct uplink *u, const json_t *body)
{
    size_t i;
    json_t *id;
    json_array_foreach(json_object_get(body, "jobs"), i, id)
    {
        struct hand_job *j = hand_find(u->hand, json_integer_value(id), -1);
        if (j != NULL && j->state == HAND_WAITING)
            hand_answer_return(j, "revoked", "revoked before it ran");
        u->is_stop_asked |= j != NULL && j->state == HAND_RUNNING;
    }
}

static void on_message(struct uplink *u, const struct wire_msg *m, int64_t now_ns)
{
    switch (m->type) {
    case WIRE_WELCOME:
        on_welcome(u, m->body, now_ns);
        break;
    case WIRE_REFUSE:
        on_refuse(u, m->body);
        break;
    case WIRE_REGISTER:
        u->session = 0;
        u->hello_ns = now_ns;
        break;
    case WIRE_LEASE:
        on_lease(u, m->body);
        break;
    case WIRE_ACK:
        on_ack(u, m->body);
        break;
    case WIRE_REVOKE:
        on_revoke(u, m->body);
        break;
    case WIRE_DRAIN:
        u->is_drain_asked = true;
        break;
    case WIRE_DATA:
        fetch_take(u->fetch, m);
        break;
    case WIRE_BEAT:
        break;
    case WIRE_HELLO:
    case WIRE_CREDIT:
    case WIRE_RESULT:
    case WIRE_FAIL:
    case WIRE_RETURN:
    case WIRE_BYE:
    case WIRE_FETCH:
    case WIRE_ITEMS:
    case WIRE_REQUEST:
    case WIRE_REPLY:
    case WIRE_START:
    case WIRE_PROGRESS:
        log_event(LOG_WARN, "uplink", "unexpected", "type=%s", wire_type_name(m->type));
        break;
    }
}

void uplink_receive(struct uplink *u, int64_t now_ns)
{
    struct link_inbox in;
    while (!u->is_refused && link_receive(u->link, &in)) {
        if (!in.is_bad) {
            u->heard_ns = now_ns;
            on_message(u, &in.msg, now_ns);
        } else if (in.why.code == ERR_VERSION) {
            u->is_refused = true;
            err_set(&u->why, ERR_DENIED, "coordinator at %s: %s", u->endpoint, in.why.text);
        } else {
            log_event(LOG_WARN, "uplink", "bad-message", "text=\"%s\"", in.why.text);
        }
        link_inbox_release(&in);
    }
}

/* ---- what is due ---- */

static void send_hello(struct uplink *u, int64_t now_ns)
{
    json_object_set_new(u->hello, "held", hand_held_json(u->hand));
    if (u->end_ns != 0) {
        int64_t left_ns = u->end_ns > now_ns ? u->end_ns - now_ns : 1;
        json_object_set_new(u->hello, "left_s", json_real((double)left_ns * 1e-9));
    }
    u->hello_ns = now_ns + (send_up(u, WIRE_HELLO, u->hello, NULL) ? hello_again_ns : retry_ns);
}

static void send_beat(struct uplink *u, int64_t now_ns)
{
    const struct hand_job *j = hand_running(u->hand);
    json_t *running = j == NULL ? json_null()
                                : json_pack("{s:I, s:I, s:f}", "job", (json_int_t)j->job, "attempt",
                                            (json_int_t)j->attempt, "seconds", u->status.running_s);
    json_t *body =
        json_pack("{s:I, s:i, s:i, s:I, s:I, s:o}", "session", (json_int_t)u->session, "in_hand",
                  u->hand->n, "credit", u->credit_given, "counter", (json_int_t)u->status.counter,
                  "done", (json_int_t)u->status.done, "running", running);
    if (send_up(u, WIRE_BEAT, body, NULL))
        u->beat_ns = now_ns + u->heartbeat_ns;
    else
        u->beat_ns = now_ns + retry_ns;
    json_decref(body);
}

static bool send_items(struct uplink *u)
{
    for (int i = 0; i < u->n_items; i++) {
        struct uplink_item *it = &u->items[i];
        if (it->epoch == u->epoch)
            continue;
        json_object_set_new(it->body, "session", json_integer(u->session));
        if (!send_up(u, WIRE_ITEMS, it->body, NULL))
            return false;
        it->epoch = u->epoch;
    }
    return true;
}

/* Every answer once a session, and again when its ACK stays away. */
static bool send_answers(struct uplink *u, int64_t now_ns)
{
    for (int i = 0; i < u->hand->n; i++) {
        struct hand_job *j = &u->hand->v[i];
        if (j->state != HAND_ANSWERED || (j->epoch == u->epoch && now_ns < j->resend_ns))
            continue;
        struct wire_frame blob = {j->blob, j->blob_bytes};
        json_object_set_new(j->body, "session", json_integer(u->session));
        if (!send_up(u, j->type, j->body, j->blob != NULL ? &blob : NULL))
            return false;
        if (j->epoch != u->epoch)
            j->n_sent = 0;
        int64_t wait_ns = resend_first_ns << (j->n_sent < 3 ? j->n_sent : 3);
        j->resend_ns = now_ns + (wait_ns < resend_max_ns ? wait_ns : resend_max_ns);
        j->epoch = u->epoch;
        j->n_sent++;
    }
    return true;
}

static bool send_fetch(struct uplink *u, int64_t now_ns, int64_t *next_ns)
{
    json_t *body = fetch_request(u->fetch, now_ns, next_ns);
    if (body == NULL)
        return true;
    json_object_set_new(body, "session", json_integer(u->session));
    bool is_sent = send_up(u, WIRE_FETCH, body, NULL);
    json_decref(body);
    return is_sent;
}

static bool send_credit(struct uplink *u)
{
    int n = u->credit_max - hand_open_slices(u->hand) - u->credit_given;
    if (n <= 0)
        return true;
    json_t *body = json_pack("{s:I, s:i}", "session", (json_int_t)u->session, "slices", n);
    bool is_sent = send_up(u, WIRE_CREDIT, body, NULL);
    u->credit_given += is_sent ? n : 0;
    json_decref(body);
    return is_sent;
}

int64_t uplink_tick(struct uplink *u, bool may_lease, int64_t now_ns)
{
    if (now_ns - u->heard_ns > u->silence_ns)
        reopen(u, now_ns);
    if (u->is_refused)
        return 0;
    if (u->session == 0) {
        if (now_ns >= u->hello_ns)
            send_hello(u, now_ns);
        return u->hello_ns - now_ns;
    }
    if (now_ns >= u->beat_ns)
        send_beat(u, now_ns);
    /* Items before the results they belong to; credit last, so that a lease finds the results in. */
    int64_t fetch_ns = INT64_MAX;
    bool is_all_sent = send_items(u) && send_answers(u, now_ns) &&
                       send_fetch(u, now_ns, &fetch_ns) && (!may_lease || send_credit(u));
    int64_t next_ns = u->beat_ns - now_ns;
    next_ns = fetch_ns < next_ns ? fetch_ns : next_ns;
    return is_all_sent || next_ns < retry_ns ? next_ns : retry_ns;
}

void uplink_add_items(struct uplink *u, json_t *body)
{
    const char *key = json_opt_str(json_object_get(body, "items"), "items_sha256", "");
    for (int i = 0; i < u->n_items; i++)
        if (strcmp(u->items[i].key, key) == 0)
            return;
    u->items = xrealloc(u->items, (size_t)(u->n_items + 1) * sizeof(*u->items));
    u->items[u->n_items++] = (struct uplink_item){.body = json_incref(body), .key = xstrdup(key)};
}

enum err_code uplink_bye(struct uplink *u, struct err *e)
{
    json_t *body = json_pack("{s:I}", "session", (json_int_t)u->session);
    enum err_code rc = link_send(u->link, NULL, WIRE_BYE, body, NULL, 0, e);
    json_decref(body);
    return rc;
}
