#include "tests/support/played.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/support/cluster.h"
#include "tests/support/fake_compute.h"

struct played played_open(struct link_context *c, const char *endpoint,
                          const struct link_keys *keys, char id)
{
    struct played p = {.held = json_array()};
    const struct link_options o = {.keys = keys};
    struct err e;
    memset(p.uuid, id, 32);
    CHECK(link_connect(c, endpoint, &o, &p.link, &e) == ERR_OK);
    return p;
}

void played_close(struct played *p)
{
    link_close(p->link);
    json_decref(p->held);
}

void played_send(struct played *p, enum wire_type type, json_t *body)
{
    struct err e;
    enum err_code rc = ERR_BUSY;
    if (type != WIRE_HELLO)
        json_object_set_new(body, "session", json_integer(p->session));
    for (int i = 0; i < 500 && rc == ERR_BUSY; i++) {
        rc = link_send(p->link, NULL, type, body, NULL, 0, &e);
        if (rc == ERR_BUSY)
            usleep(10000);
    }
    EXPECT(rc == ERR_OK, "%s: %s", wire_type_name(type), e.text);
    json_decref(body);
}

json_t *played_await(struct played *p, enum wire_type type, double seconds)
{
    int64_t end_ns = clock_mono_ns() + (int64_t)(seconds * CLOCK_NS_PER_S);
    while (clock_mono_ns() < end_ns) {
        struct link_inbox in;
        bool readable = false;
        link_wait(&p->link, 1, NULL, 0, CLOCK_NS_PER_S / 50, &readable);
        while (link_receive(p->link, &in)) {
            json_t *body = !in.is_bad && in.msg.type == type ? json_incref(in.msg.body) : NULL;
            link_inbox_release(&in);
            if (body != NULL)
                return body;
        }
    }
    return NULL;
}

int played_listen(struct played *p, double seconds)
{
    int64_t end_ns = clock_mono_ns() + (int64_t)(seconds * CLOCK_NS_PER_S);
    int n = 0;
    while (clock_mono_ns() < end_ns) {
        struct link_inbox in;
        bool readable = false;
        link_wait(&p->link, 1, NULL, 0, CLOCK_NS_PER_S / 50, &readable);
        for (; link_receive(p->link, &in); n++)
            link_inbox_release(&in);
    }
    return n;
}

json_t *played_hello_body(const struct played *p, int numerics)
{
    return json_pack("{s:s, s:s, s:i, s:s, s:s, s:i, s:I, s:[s, s, s], s:O}", "uuid", p->uuid,
                     "host", "played", "pid", 1, "device", "none", "program", "isobit 0.1.0",
                     "numerics", numerics, "memory_bytes", (json_int_t)1 << 40, "computes", "fp32",
                     "fp16", "bf16", "held", p->held);
}

void played_register(struct played *p)
{
    played_send(p, WIRE_HELLO, played_hello_body(p, WIRE_NUMERICS));
    json_t *welcome = played_await(p, WIRE_WELCOME, 5);
    EXPECT(welcome != NULL, "no WELCOME");
    p->session = json_opt_int(welcome, "session", 0);
    EXPECT(json_opt_int(welcome, "heartbeat_ns", 0) == CLOCK_NS_PER_S / 10, "heartbeat");
    json_decref(welcome);
}

void played_beat(struct played *p)
{
    played_send(p, WIRE_BEAT,
                json_pack("{s:i, s:i, s:i, s:i, s:n}", "in_hand", (int)json_array_size(p->held),
                          "credit", p->credit, "counter", 0, "done", 0, "running"));
}

json_t *played_lease(struct played *p)
{
    played_send(p, WIRE_CREDIT, json_pack("{s:i}", "slices", 1));
    json_t *lease = played_await(p, WIRE_LEASE, 5);
    EXPECT(lease != NULL, "no LEASE");
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(lease, "jobs"), i, row) json_array_append_new(
        p->held, json_pack("[O, O]", json_array_get(row, 0), json_array_get(row, 1)));
    return lease;
}

void played_result(struct played *p, const json_t *lease, size_t i)
{
    const json_t *row = json_array_get(json_object_get(lease, "jobs"), i);
    size_t config = (size_t)json_integer_value(json_array_get(row, 2));
    size_t eval = (size_t)json_integer_value(json_array_get(row, 3));
    json_t *result = fake_compute_result(json_object_get(lease, "model"),
                                         json_array_get(json_object_get(lease, "configs"), config),
                                         json_array_get(json_object_get(lease, "evals"), eval));
    played_send(p, WIRE_RESULT,
                json_pack("{s:O, s:O, s:o}", "job", json_array_get(row, 0), "attempt",
                          json_array_get(row, 1), "result", result));
}

const char *played_verdict(struct played *p, double seconds)
{
    static char verdict[32];
    json_t *ack = played_await(p, WIRE_ACK, seconds);
    const json_t *row = json_array_get(json_object_get(ack, "jobs"), 0);
    const char *text = json_string_value(json_array_get(row, 2));
    snprintf(verdict, sizeof(verdict), "%s", text != NULL ? text : "");
    json_decref(ack);
    return verdict;
}
