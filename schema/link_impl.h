/* What link.c and link_guard.c share; nobody else includes it. */
#ifndef ISOBIT_SCHEMA_LINK_IMPL_H
#define ISOBIT_SCHEMA_LINK_IMPL_H

#include <zmq.h>

#include "schema/link.h"

struct link_context {
    void *zmq;
};

struct link_guard;

struct link {
    void *socket;
    bool is_router, leaves_results;
    char endpoint[256];
    struct link_guard *guard; /* NULL: no door was given */
};

/* Sets the CURVE options of a socket that is neither bound nor connected yet. */
MUST_USE enum err_code link_use_keys(struct link *l, const struct link_keys *k, struct err *e);

/* Starts what stands behind o->door, before the link is bound or connected; keys make it answer ZAP. One link in a context may
 * do that. */
MUST_USE enum err_code link_guard_open(void *zmq, struct link *l, const struct link_options *o,
                                       struct err *e);
void link_guard_close(struct link *l); /* after its socket; a link without a guard is fine */
/* The sockets to wait for, at most LINK_GUARD_ITEMS; returns how many. */
enum { LINK_GUARD_ITEMS = 2 };
int link_guard_items(const struct link *l, zmq_pollitem_t items[LINK_GUARD_ITEMS]);
/* Answers and tells everything that waits. */
void link_guard_serve(struct link *l);

#endif
