/* A worker that a test plays by hand, message by message. Aborts (CHECK) when the scaffolding itself fails; what the
 * coordinator does wrong is an EXPECT of cluster.h. */
#ifndef ISOBIT_TESTS_SUPPORT_PLAYED_H
#define ISOBIT_TESTS_SUPPORT_PLAYED_H

#include "base/json.h"
#include "schema/link.h"

struct played {
    struct link *link;
    char uuid[33];
    int64_t session;
    json_t *held; /* [[job, attempt]…] */
    int credit;   /* slices given that no LEASE has used, as its beats say */
};

/* `id` makes the uuid; keys may be NULL. Returns at once, as link_connect does. */
struct played played_open(struct link_context *c, const char *endpoint,
                          const struct link_keys *keys, char id);
void played_close(struct played *p);

/* Adds `session`; `body` is a stolen reference. Waits up to 5 s for a connection. */
void played_send(struct played *p, enum wire_type type, json_t *body);
/* The body of the next message of this type; others are passed over. NULL after `seconds`. New reference. */
json_t *played_await(struct played *p, enum wire_type type, double seconds);
/* Sends nothing and receives for so long: how many messages of any type came. */
int played_listen(struct played *p, double seconds);

json_t *played_hello_body(const struct played *p, int numerics);
void played_register(struct played *p); /* HELLO, WELCOME */
void played_beat(struct played *p);
/* Gives credit for one slice and awaits it; its jobs are then held. New reference. */
json_t *played_lease(struct played *p);
/* The result of job i of a lease, under any worker's name. */
void played_result(struct played *p, const json_t *lease, size_t i);
/* "accepted", "fenced", … of the next ACK; "" when none comes. */
const char *played_verdict(struct played *p, double seconds);

#endif
