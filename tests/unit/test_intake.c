/* What intake does with messages, without a socket: they are handed to it as if they had come, and its outbox is read. */
#include "coordinator/intake.h"
#include "tests/support/dispatch_lab.h"

#include <string.h>

DISPATCH_SUITE(intake);

static struct intake in;
static struct door door;

static void open_intake(void)
{
    start();
    OK(door_open(&door, NULL, &err));
    in = (struct intake){.dispatch = dispatch, .door = &door, .options = usual_dispatch()};
}

static void close_intake(void)
{
    intake_release(&in);
    door_release(&door);
}

/* Worker number `uuid` says HELLO on connection `peer`; the type of the answer. */
static enum wire_type greeting(int uuid, int peer)
{
    struct link_inbox box = {.msg = {.type = WIRE_HELLO}};
    box.from.n = sizeof(peer);
    memcpy(box.from.id, &peer, sizeof(peer));
    box.msg.body = json_pack("{s:o, s:s, s:i, s:s, s:s, s:i, s:i, s:[s], s:[]}", "uuid",
                             json_sprintf("%032x", uuid), "host", "h", "pid", 1, "device", "cpu",
                             "program", "isobit 0.1.0", "numerics", WIRE_NUMERICS, "memory_bytes",
                             0, "computes", "fp32", "held");
    const int n_before = in.n_out;
    begin();
    OK(intake_begin(&in, &err));
    OK(intake_apply(&in, &box, now_ns, &err));
    commit();
    json_decref(box.msg.body);
    cr_assert_eq(in.n_out, n_before + 1, "worker %d", uuid);
    return in.out[n_before].type;
}

Test(intake, a_full_table_still_knows_those_who_sit_in_it)
{
    open_intake();
    for (int i = 0; i < INTAKE_MAX_SEATS; i++)
        cr_assert_eq(greeting(i, i), WIRE_WELCOME);
    cr_expect_eq(greeting(5000, 5000), WIRE_REFUSE, "one too many");
    cr_expect_eq(greeting(7, 7), WIRE_WELCOME, "the same connection again");
    cr_expect_eq(greeting(8, 6000), WIRE_WELCOME, "the same worker on a new connection");
    cr_expect_eq(intake_n_sessions(&in), INTAKE_MAX_SEATS);
    close_intake();
}
