#include "schema/link.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <zmq.h>

#include "base/clock.h"
#include "base/mem.h"
#include "schema/link_impl.h"

enum { MAX_PARTS = 1 + WIRE_MAX_FRAMES, MAX_WAITED = 64 };
enum { HANDSHAKE_MS = 10000 };

struct parts {
    zmq_msg_t v[MAX_PARTS];
    int n;
};

enum err_code link_context_new(struct link_context **out, struct err *e)
{
    void *zmq = zmq_ctx_new();
    if (zmq == NULL)
        return err_set(e, ERR_IO, "cannot start ZeroMQ: %s", zmq_strerror(errno));
    *out = xcalloc(1, sizeof(**out));
    (*out)->zmq = zmq;
    return ERR_OK;
}

void link_context_free(struct link_context *c)
{
    if (c == NULL)
        return;
    while (zmq_ctx_term(c->zmq) != 0 && errno == EINTR)
        continue;
    xfree(c);
}

bool link_is_local(const char *endpoint)
{
    struct str s = str_of(endpoint);
    if (str_starts(s, "ipc://") || str_starts(s, "tcp://localhost:") || str_starts(s, "tcp://lo:"))
        return true;
    /* Parsed as a number, so that a host name that begins like one ("127.example.org") is none. */
    static const char scheme[] = "tcp://";
    const char *colon = strrchr(endpoint, ':');
    char host[INET_ADDRSTRLEN] = "";
    struct in_addr address;
    if (!str_starts(s, scheme) || colon < endpoint + sizeof(scheme) ||
        (size_t)(colon - endpoint) - strlen(scheme) >= sizeof(host))
        return false;
    snprintf(host, sizeof(host), "%.*s", (int)((size_t)(colon - endpoint) - strlen(scheme)),
             endpoint + strlen(scheme));
    return inet_pton(AF_INET, host, &address) == 1 && ntohl(address.s_addr) >> 24 == 127;
}

/* ZeroMQ reads a port with atoi and cuts it to 16 bits, so that 99999999 would listen somewhere. */
static enum err_code check_endpoint(const char *endpoint, struct err *e)
{
    struct str s = str_of(endpoint);
    if (str_starts(s, "ipc://") && s.n > 6)
        return ERR_OK;
    const char *colon = strrchr(endpoint, ':');
    int64_t port = 0;
    if (str_starts(s, "tcp://") && colon > endpoint + 6 &&
        (strcmp(colon, ":*") == 0 ||
         (parse_i64(str_of(colon + 1), &port) && port >= 0 && port <= 65535)))
        return ERR_OK;
    return err_set(e, ERR_USAGE,
                   "%s is no address; expected tcp://HOST:PORT with a port of 0 to 65535, or "
                   "ipc://PATH",
                   endpoint);
}

static int to_ms(int64_t ns, int64_t def_ns)
{
    int64_t v = (ns > 0 ? ns : def_ns) / CLOCK_NS_PER_MS;
    return v < 1 ? 1 : (int)v;
}

/* Every limit that ZeroMQ would otherwise leave open (orchestration spec 4). Its own heartbeats stay off: ours travel as
 * messages, so that they prove that the peer's loop runs and not just its I/O thread. */
static enum err_code set_options(void *socket, bool is_router, const struct link_options *o,
                                 struct err *e)
{
    const struct {
        int option, value;
    } ints[] = {
        {ZMQ_LINGER, to_ms(o->linger_ns, CLOCK_NS_PER_S)},
        {ZMQ_SNDHWM, o->high_water > 0 ? o->high_water : 1000},
        {ZMQ_RCVHWM, o->receive_high_water > 0 ? o->receive_high_water : 1000},
        {ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS},
        {ZMQ_IPV6, 0},
        {ZMQ_RECONNECT_IVL, to_ms(o->reconnect_min_ns, CLOCK_NS_PER_S / 10)},
        {ZMQ_RECONNECT_IVL_MAX, to_ms(o->reconnect_max_ns, 32 * CLOCK_NS_PER_S)},
        /* A default ROUTER drops what it cannot deliver without a word; a default DEALER queues for a peer that may
         * never come, and delivers stale heartbeats when it does. */
        {is_router ? ZMQ_ROUTER_MANDATORY : ZMQ_IMMEDIATE, 1},
    };
    for (size_t i = 0; i < ARRAY_LEN(ints); i++)
        if (zmq_setsockopt(socket, ints[i].option, &ints[i].value, sizeof(int)) != 0)
            return err_set(e, ERR_IO, "ZeroMQ refuses option %d = %d: %s", ints[i].option,
                           ints[i].value, zmq_strerror(errno));
    int64_t max_bytes = WIRE_MAX_BLOB;
    if (zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &max_bytes, sizeof(max_bytes)) != 0)
        return err_set(e, ERR_IO, "ZeroMQ refuses a message limit: %s", zmq_strerror(errno));
    return ERR_OK;
}

static enum err_code link_new(struct link_context *c, bool is_router, const char *endpoint,
                              const struct link_options *o, struct link **out, struct err *e)
{
    static const struct link_options defaults;
    void *socket = zmq_socket(c->zmq, is_router ? ZMQ_ROUTER : ZMQ_DEALER);
    if (socket == NULL)
        return err_set(e, ERR_IO, "cannot make a ZeroMQ socket: %s", zmq_strerror(errno));
    o = o != NULL ? o : &defaults;
    struct link *l = xcalloc(1, sizeof(*l));
    l->socket = socket;
    l->is_router = is_router;
    l->leaves_results = o->leaves_results;
    strncpy(l->endpoint, endpoint, sizeof(l->endpoint) - 1);
    enum err_code rc = set_options(socket, is_router, o, e);
    if (rc == ERR_OK && o->keys != NULL)
        rc = link_use_keys(l, o->keys, e);
    if (rc == ERR_OK && o->door != NULL)
        rc = link_guard_open(c->zmq, l, o, e);
    if (rc != ERR_OK) {
        link_close(l);
        return rc;
    }
    *out = l;
    return ERR_OK;
}

static enum err_code endpoint_error(const char *verb, const char *endpoint, struct err *e)
{
    switch (errno) {
    case EADDRINUSE:
        return err_set(e, ERR_BUSY,
                       "cannot %s %s: the address is in use; choose another port, or 0", verb,
                       endpoint);
    case EACCES:
        return err_set(e, ERR_DENIED, "cannot %s %s: permission denied", verb, endpoint);
    case EINVAL:
    case EPROTONOSUPPORT:
    case ENODEV:
    case EADDRNOTAVAIL:
    case ENAMETOOLONG:
        return err_set(e, ERR_USAGE,
                       "cannot %s %s: %s; expected tcp://HOST:PORT with an IPv4 address or name of "
                       "this machine, or ipc://PATH",
                       verb, endpoint, zmq_strerror(errno));
    default:
        return err_set(e, ERR_IO, "cannot %s %s: %s", verb, endpoint, zmq_strerror(errno));
    }
}

enum err_code link_listen(struct link_context *c, const char *endpoint,
                          const struct link_options *o, char bound[256], struct link **out,
                          struct err *e)
{
    TRY(check_endpoint(endpoint, e));
    if (!link_is_local(endpoint) && (o == NULL || o->keys == NULL))
        return err_set(e, ERR_DENIED,
                       "%s can be reached from other machines, and anybody there could run jobs: "
                       "make keys with `isobit keygen DIR` and give --keys DIR, or listen on "
                       "tcp://127.0.0.1:PORT",
                       endpoint);
    CHECK(o == NULL || o->keys == NULL || o->door != NULL);
    struct link *l = NULL;
    TRY(link_new(c, true, endpoint, o, &l, e));
    size_t n = 256;
    if (zmq_bind(l->socket, endpoint) != 0 ||
        zmq_getsockopt(l->socket, ZMQ_LAST_ENDPOINT, bound, &n) != 0) {
        endpoint_error("listen on", endpoint, e);
        link_close(l);
        return e->code;
    }
    *out = l;
    return ERR_OK;
}

enum err_code link_connect(struct link_context *c, const char *endpoint,
                           const struct link_options *o, struct link **out, struct err *e)
{
    struct link *l = NULL;
    TRY(check_endpoint(endpoint, e));
    TRY(link_new(c, false, endpoint, o, &l, e));
    if (zmq_connect(l->socket, endpoint) != 0) {
        endpoint_error("connect to", endpoint, e);
        link_close(l);
        return e->code;
    }
    *out = l;
    return ERR_OK;
}

void link_close(struct link *l)
{
    if (l == NULL)
        return;
    zmq_close(l->socket);
    link_guard_close(l);
    xfree(l);
}

/* Only the first part of a message can be refused for a full queue or a lost peer: ZeroMQ then takes the rest of a
 * message whole. EINTR before the first part is tried again. */
static enum err_code send_part(struct link *l, const void *data, size_t n, int flags, struct err *e)
{
    int rc;
    do
        rc = zmq_send(l->socket, data, n, flags | ZMQ_DONTWAIT);
    while (rc < 0 && errno == EINTR);
    if (rc >= 0)
        return ERR_OK;
    switch (errno) {
    case EAGAIN:
        return err_set(e, ERR_BUSY, "%s: the queue is full or nothing is connected", l->endpoint);
    case EHOSTUNREACH:
        return err_set(e, ERR_NOTFOUND, "%s: the peer is gone", l->endpoint);
    default:
        return err_set(e, ERR_IO, "%s: cannot send: %s", l->endpoint, zmq_strerror(errno));
    }
}

enum err_code link_send(struct link *l, const struct link_peer *to, enum wire_type type,
                        const json_t *body, const struct wire_frame *blobs, int n_blobs,
                        struct err *e)
{
    CHECK(l->is_router == (to != NULL) && n_blobs >= 0 && n_blobs <= WIRE_MAX_BLOBS);
    unsigned char header[WIRE_HEADER_BYTES];
    struct buf json = {0};
    enum err_code rc = wire_encode(type, body, header, &json, e);
    if (rc == ERR_OK && to != NULL)
        rc = send_part(l, to->id, to->n, ZMQ_SNDMORE, e);
    if (rc == ERR_OK)
        rc = send_part(l, header, sizeof(header), ZMQ_SNDMORE, e);
    if (rc == ERR_OK)
        rc = send_part(l, json.data, json.len, n_blobs > 0 ? ZMQ_SNDMORE : 0, e);
    for (int i = 0; i < n_blobs && rc == ERR_OK; i++)
        rc = send_part(l, blobs[i].data, blobs[i].size, i + 1 < n_blobs ? ZMQ_SNDMORE : 0, e);
    buf_release(&json);
    return rc;
}

/* Takes all parts of one message off the socket; those beyond MAX_PARTS are counted and dropped. */
static int receive_parts(struct link *l, struct parts *p)
{
    int n_seen = 0;
    bool has_more = true;
    while (has_more) {
        zmq_msg_t part;
        zmq_msg_init(&part);
        int rc;
        do
            rc = zmq_msg_recv(&part, l->socket, ZMQ_DONTWAIT);
        while (rc < 0 && errno == EINTR);
        if (rc < 0) {
            zmq_msg_close(&part);
            break;
        }
        has_more = zmq_msg_more(&part) != 0;
        if (n_seen < MAX_PARTS) {
            zmq_msg_init(&p->v[p->n]);
            zmq_msg_move(&p->v[p->n++], &part);
        }
        zmq_msg_close(&part);
        n_seen++;
    }
    return n_seen;
}

/* What the handshake proved travels beside each frame, out of the sender's reach. */
static void note_sender(zmq_msg_t *part, char who[LINK_KEY_HEX])
{
    const char *key = zmq_msg_gets(part, "User-Id");
    if (key != NULL)
        snprintf(who, LINK_KEY_HEX, "%s", key);
}

static enum err_code decode_parts(const struct link *l, struct parts *p, int n_seen,
                                  struct link_inbox *in, struct err *e)
{
    int first = 0;
    if (l->is_router) {
        size_t n = zmq_msg_size(&p->v[0]);
        if (n >
            LINK_PEER_MAX) /* ids that ROUTER assigns have 5 bytes; a peer may choose up to 255 */
            return err_set(e, ERR_FORMAT, "the peer chose a routing id of %zu bytes", n);
        memcpy(in->from.id, zmq_msg_data(&p->v[0]), n);
        in->from.n = (uint8_t)n;
        first = 1;
    }
    struct wire_frame frames[MAX_PARTS];
    for (int i = first; i < p->n; i++) {
        frames[i - first] = (struct wire_frame){zmq_msg_data(&p->v[i]), zmq_msg_size(&p->v[i])};
        in->n_bytes += frames[i - first].size;
    }
    if (p->n > first)
        note_sender(&p->v[first], in->who);
    int n = n_seen - first <= WIRE_MAX_FRAMES ? p->n - first : n_seen - first;
    return l->leaves_results ? wire_decode_but_results(frames, n, &in->msg, e)
                             : wire_decode(frames, n, &in->msg, e);
}

/* libzmq 4.3 aborts ("!_more", fq.cpp) when it learns in the middle of a message that the connection of a ZMQ_IMMEDIATE socket
 * broke, and it looks at every hundredth frame. Asked for events between messages, it learns there. */
static void hear_of_breaks(const struct link *l)
{
    int events = 0;
    size_t n = sizeof(events);
    if (!l->is_router)
        zmq_getsockopt(l->socket, ZMQ_EVENTS, &events, &n);
}

bool link_receive(struct link *l, struct link_inbox *in)
{
    memset(in, 0, sizeof(*in));
    hear_of_breaks(l);
    struct parts *p = xcalloc(1, sizeof(*p));
    int n_seen = receive_parts(l, p);
    in->parts = p;
    if (n_seen == 0) {
        link_inbox_release(in);
        return false;
    }
    in->is_bad = decode_parts(l, p, n_seen, in, &in->why) != ERR_OK;
    return true;
}

void link_inbox_release(struct link_inbox *in)
{
    if (in == NULL || in->parts == NULL)
        return;
    wire_msg_release(&in->msg);
    struct parts *p = in->parts;
    for (int i = 0; i < p->n; i++)
        zmq_msg_close(&p->v[i]);
    xfree(p);
    in->parts = NULL;
}

/* The sockets of guards come last and are served here: their owners need not know of them. */
static int add_guards(struct link *const *links, int n_links, zmq_pollitem_t *items, int n)
{
    for (int i = 0; i < n_links; i++)
        if (links[i]->guard != NULL)
            n += link_guard_items(links[i], items + n);
    return n;
}

static void serve_guards(struct link *const *links, int n_links)
{
    for (int i = 0; i < n_links; i++)
        if (links[i]->guard != NULL)
            link_guard_serve(links[i]);
}

int link_wait(struct link *const *links, int n_links, const int *fds, int n_fds, int64_t timeout_ns,
              bool *readable)
{
    CHECK(n_links + n_fds <= MAX_WAITED);
    zmq_pollitem_t items[MAX_WAITED + MAX_WAITED * LINK_GUARD_ITEMS];
    int n_asked = n_links + n_fds;
    for (int i = 0; i < n_asked; i++) {
        items[i] = (zmq_pollitem_t){.events = ZMQ_POLLIN};
        if (i < n_links)
            items[i].socket = links[i]->socket;
        else
            items[i].fd = fds[i - n_links];
        readable[i] = false;
    }
    int n_items = add_guards(links, n_links, items, n_asked);
    /* Rounded up: a wait of less than a millisecond must not become a busy loop. */
    int64_t ms = timeout_ns < 0 ? -1 : (timeout_ns + CLOCK_NS_PER_MS - 1) / CLOCK_NS_PER_MS;
    int rc = zmq_poll(items, n_items, (long)ms);
    CHECK(rc >= 0 || errno == EINTR);
    if (rc <= 0)
        return 0;
    int n = 0;
    for (int i = 0; i < n_asked; i++) {
        readable[i] = items[i].revents != 0;
        n += readable[i];
    }
    if (rc > n)
        serve_guards(links, n_links);
    return n;
}
