/* Who sits where, and what goes out to whom: seats, the outbox, leases. */
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "coordinator/intake_impl.h"
#include "schema/job_json.h"

/* ---- seats ---- */

struct intake_seat *intake_seat_of(struct intake *in, int64_t session)
{
    for (int i = 0; i < in->n_seats; i++)
        if (in->seats[i].session == session)
            return &in->seats[i];
    return NULL;
}

struct intake_seat *intake_seat_take(struct intake *in, int64_t session)
{
    struct intake_seat *s = intake_seat_of(in, session);
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

void intake_seat_leave(struct intake *in, struct intake_seat *s)
{
    *s = in->seats[--in->n_seats];
}

bool intake_peer_is(const struct link_peer *a, const struct link_peer *b)
{
    return a->n == b->n && memcmp(a->id, b->id, a->n) == 0;
}

void intake_sweep(struct intake *in)
{
    for (int i = in->n_seats - 1; i >= 0; i--)
        if (!dispatch_knows(in->dispatch, in->seats[i].session))
            intake_seat_leave(in, &in->seats[i]);
}

int intake_n_sessions(const struct intake *in)
{
    return in->n_seats;
}

/* ---- the outbox ---- */

void intake_put(struct intake *in, const struct link_peer *to, enum wire_type type, json_t *body)
{
    if (in->n_out == in->cap_out) {
        in->cap_out = in->cap_out > 0 ? 2 * in->cap_out : 64;
        in->out = xrealloc(in->out, (size_t)in->cap_out * sizeof(*in->out));
    }
    in->out[in->n_out++] = (struct intake_out){.to = *to, .type = type, .body = body};
}

void intake_put_ack(struct intake *in, struct intake_seat *seat, int64_t job, int64_t attempt,
                    enum verdict v)
{
    const char *verdict = v == VERDICT_ACCEPTED ? "accepted" : "fenced";
    json_t *row = json_pack("[I, I, s]", (json_int_t)job, (json_int_t)attempt, verdict);
    seat->n_in_hand -= seat->n_in_hand > 0;
    for (int i = in->n_out - 1; i >= 0; i--)
        if (in->out[i].type == WIRE_ACK && intake_peer_is(&in->out[i].to, &seat->peer)) {
            json_array_append_new(json_object_get(in->out[i].body, "jobs"), row);
            return;
        }
    intake_put(in, &seat->peer, WIRE_ACK, json_pack("{s:[o]}", "jobs", row));
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
        intake_put(in, &in->seats[i].peer, type, NULL);
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
    struct intake_seat *seat = intake_seat_of(in, s->session);
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
    intake_put(in, &seat->peer, WIRE_LEASE, lease);
}

void intake_revoke(struct intake *in, const struct revoke *v, int n)
{
    for (int i = 0; i < n; i++) {
        const struct intake_seat *seat = intake_seat_of(in, v[i].session);
        if (seat != NULL)
            intake_put(in, &seat->peer, WIRE_REVOKE,
                       json_pack("{s:[I]}", "jobs", (json_int_t)v[i].job));
    }
}
