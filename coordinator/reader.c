#include "coordinator/reader.h"

#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "coordinator/rows.h"
#include "schema/link.h"
#include "schema/store_work.h"

enum { MAX_JOBS = 1000 };

/* ---- answering ---- */

/* An operation adds its members to `reply`. */
typedef enum err_code (*op_fn)(struct store *s, const struct dispatch *d, const json_t *request,
                               int64_t now_ns, json_t *reply, struct err *e);

static enum err_code add_rows(struct store *s, json_t *reply, const char *name, const char *sql,
                              const char *const *params, int n_params, struct err *e)
{
    json_t *rows = NULL;
    TRY(rows_query(s, sql, params, n_params, &rows, e));
    json_object_set_new(reply, name, rows);
    return ERR_OK;
}

static enum err_code op_status(struct store *s, const struct dispatch *d, const json_t *request,
                               int64_t now_ns, json_t *reply, struct err *e)
{
    (void)d, (void)request, (void)now_ns;
    struct store_counts counts;
    TRY(store_count(s, &counts, e));
    json_t *states = json_object();
    for (int i = 0; i < JOB_STATE_COUNT; i++)
        json_object_set_new(states, job_state_label((enum job_state)i), json_integer(counts.n[i]));
    json_object_set_new(reply, "states", states);
    TRY(add_rows(s, reply, "sweeps", "SELECT * FROM progress", NULL, 0, e));
    return add_rows(s, reply, "workers",
                    "SELECT * FROM workers ORDER BY first_seen DESC LIMIT 1000", NULL, 0, e);
}

static enum err_code op_workers(struct store *s, const struct dispatch *d, const json_t *request,
                                int64_t now_ns, json_t *reply, struct err *e)
{
    (void)s, (void)request, (void)e;
    json_object_set_new(reply, "workers", dispatch_workers_json(d, now_ns));
    return ERR_OK;
}

static enum err_code op_jobs(struct store *s, const struct dispatch *d, const json_t *request,
                             int64_t now_ns, json_t *reply, struct err *e)
{
    (void)d, (void)now_ns;
    int64_t limit = json_opt_int(request, "limit", MAX_JOBS);
    const char *state = json_opt_str(request, "state", NULL);
    if (limit < 1 || limit > MAX_JOBS)
        return err_set(e, ERR_USAGE, "limit %lld: expected 1 to %d", (long long)limit, MAX_JOBS);
    char *sql = xasprintf("SELECT * FROM jobs WHERE %s ORDER BY job LIMIT %lld",
                          state != NULL ? "state = ?1" : "?1 IS NULL", (long long)limit);
    enum err_code rc = add_rows(s, reply, "jobs", sql, &state, 1, e);
    xfree(sql);
    return rc;
}

static const struct {
    const char *name;
    op_fn run;
} ops[] = {{"status", op_status}, {"workers", op_workers}, {"jobs", op_jobs}};

static enum err_code answer(struct store *s, const struct dispatch *d, struct door *door,
                            const char *who, const json_t *request, int64_t now_ns, json_t *reply,
                            struct err *e)
{
    const char *name = NULL;
    enum door_role role = door_role(door, who);
    if (role != DOOR_READER && role != DOOR_ANYBODY)
        return err_set(
            e, ERR_DENIED,
            "this key belongs to a worker; asking needs one of allow/readers (reader.key)");
    if (!door_may_ask(door, who, now_ns))
        return err_set(e, ERR_BUSY, "too many requests with this key: ask again in a second");
    TRY(json_need_str(request, "op", "request", &name, e));
    for (size_t i = 0; i < ARRAY_LEN(ops); i++)
        if (strcmp(ops[i].name, name) == 0)
            return ops[i].run(s, d, request, now_ns, reply, e);
    return err_set(
        e, ERR_DENIED,
        "\"%.100s\" cannot be asked over the network, only status, workers and jobs: give "
        "the command where the coordinator runs",
        name);
}

json_t *reader_answer(struct store *s, const struct dispatch *d, struct door *door, const char *who,
                      const json_t *request, int64_t now_ns)
{
    struct err e;
    json_t *reply = json_object();
    if (answer(s, d, door, who, request, now_ns, reply, &e) == ERR_OK) {
        json_object_set_new(reply, "ok", json_true());
        return reply;
    }
    json_decref(reply);
    return json_pack("{s:b, s:s, s:o}", "ok", 0, "code", err_name(e.code), "text",
                     wire_text(e.text));
}

/* ---- asking ---- */

struct asking {
    const char *endpoint;
    bool is_unlisted;
    char failure[128]; /* of the handshake; "": none failed */
};

static void on_failure(void *arg, bool is_unlisted, const char *text)
{
    struct asking *q = arg;
    q->is_unlisted |= is_unlisted;
    strncpy(q->failure, text, sizeof(q->failure) - 1);
}

static enum err_code take_reply(json_t *reply, json_t **out, struct err *e)
{
    if (json_opt_bool(reply, "ok", false)) {
        *out = json_incref(reply);
        return ERR_OK;
    }
    enum err_code code = err_from_name(json_opt_str(reply, "code", "IO"));
    return err_set(e, code != ERR_OK ? code : ERR_IO, "%s",
                   json_opt_str(reply, "text", "the coordinator gave no reason"));
}

/* Sends as soon as there is a connection, then waits for the reply; BEATs and the like are passed over. */
static enum err_code converse(struct link *l, struct asking *q, const json_t *request,
                              int64_t end_ns, json_t **reply, struct err *e)
{
    static const int64_t look_ns = 20 * CLOCK_NS_PER_MS;
    enum err_code sent = ERR_BUSY;
    while (clock_mono_ns() < end_ns && q->failure[0] == '\0') {
        struct link_inbox in;
        bool is_readable = false;
        if (sent != ERR_OK)
            sent = link_send(l, NULL, WIRE_REQUEST, request, NULL, 0, e);
        if (sent != ERR_OK && sent != ERR_BUSY)
            return sent;
        link_wait(&l, 1, NULL, 0, look_ns, &is_readable);
        while (link_receive(l, &in)) {
            bool is_reply = !in.is_bad && in.msg.type == WIRE_REPLY;
            enum err_code rc = is_reply ? take_reply(in.msg.body, reply, e) : ERR_OK;
            link_inbox_release(&in);
            if (is_reply)
                return rc;
        }
    }
    if (q->is_unlisted)
        return err_set(e, ERR_DENIED, "%s does not list this key among its readers", q->endpoint);
    if (q->failure[0] != '\0')
        return err_set(e, ERR_DENIED,
                       "%s: %s; --keys DIR names a folder with reader.key and "
                       "coordinator.pub",
                       q->endpoint, q->failure);
    return err_set(e, ERR_TIMEOUT, "no answer from %s", q->endpoint);
}

enum err_code reader_ask(const char *endpoint, const char *keys_dir, const json_t *request,
                         double timeout_s, json_t **reply, struct err *e)
{
    struct link_keys keys;
    struct asking q = {.endpoint = endpoint};
    struct link_door door = {.arg = &q, .on_failure = on_failure};
    struct link_options o = {.keys = keys_dir != NULL ? &keys : NULL, .door = &door};
    struct link_context *context = NULL;
    struct link *l = NULL;
    if (keys_dir != NULL)
        TRY(keys_load(keys_dir, KEY_READER, &keys, e));
    int64_t end_ns = clock_mono_ns() + (int64_t)(timeout_s * (double)CLOCK_NS_PER_S);
    enum err_code rc = link_context_new(&context, e);
    if (rc == ERR_OK)
        rc = link_connect(context, endpoint, &o, &l, e);
    if (rc == ERR_OK)
        rc = converse(l, &q, request, end_ns, reply, e);
    link_close(l);
    link_context_free(context);
    return rc;
}
