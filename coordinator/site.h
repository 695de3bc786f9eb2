/* The web page of a running coordinator, with the JSON behind it and metrics for Prometheus (docs/HTTP.md). Documents are made
 * beforehand: two threads with read-only connections of their own to the database renew them, a third one answers requests from
 * memory. So a request never waits for a query, and the coordinator for nobody.
 * Thread: site_open, site_publish and site_close belong to the coordinator's thread. */
#ifndef ISOBIT_COORDINATOR_SITE_H
#define ISOBIT_COORDINATOR_SITE_H

#include "base/json.h"
#include "coordinator/serve.h"

struct site; /* opaque */

struct site_options {
    const char *db_path;
    const char *address; /* HOST:PORT */
    bool is_open;        /* other machines may read */
};

/* Errors: those of http_start and store_open. */
MUST_USE enum err_code site_open(const struct site_options *o, struct site **out, struct err *e);
void site_close(struct site *s); /* NULL is fine */
const char *site_url(const struct site *s);

/* What only the coordinator knows: its counts, rate and workers. Called every turn; takes a copy about once a second. */
void site_publish(struct site *s, struct serve *from, int64_t now_ns);

#endif
