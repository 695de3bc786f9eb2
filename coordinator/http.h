/* A small web server that only answers: GET and HEAD of fixed paths, in a thread of its own. It never calls into the coordinator
 * and nobody waits for it. This is the only module that sees microhttpd.h.
 *
 * Whoever can connect can read, so it listens on loopback unless told otherwise, and then answers only requests whose Host names
 * this machine: a web page elsewhere cannot read it through a visitor's browser by renaming itself (DNS rebinding). Connections
 * are few and live for seconds; one that sends its request byte by byte is cut. */
#ifndef ISOBIT_COORDINATOR_HTTP_H
#define ISOBIT_COORDINATOR_HTTP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

struct http; /* opaque */

struct http_answer {
    int status;       /* 200 unless set */
    const char *type; /* static */
    struct buf body;  /* the server releases it */
};
/* Answers a path such as "/api/status" (without query); false: there is no such thing. Thread: the server's. */
typedef bool (*http_fn)(void *arg, const char *path, struct http_answer *out);

struct http_options {
    const char *address; /* "127.0.0.1:8080", "[::1]:8080", "localhost:0" (0: a free port) */
    bool is_open;        /* addresses that other machines reach are allowed */
    http_fn answer;
    void *arg;
};

enum { HTTP_MAX_CONNECTIONS = 64, HTTP_MAX_SECONDS = 10 };

/* Errors: ERR_USAGE (no HOST:PORT), ERR_NOTFOUND (no such host), ERR_DENIED (not loopback), ERR_BUSY (the port is taken). */
MUST_USE enum err_code http_start(const struct http_options *o, struct http **out, struct err *e);
void http_stop(struct http *h);             /* NULL is fine */
const char *http_url(const struct http *h); /* "http://127.0.0.1:8080/" */
/* Cuts connections older than HTTP_MAX_SECONDS; to be called about once a second. Thread: any. */
void http_expire(struct http *h, int64_t now_ns);

#endif
