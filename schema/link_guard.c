/* CURVE and the two sockets behind a door: ZAP, over which libzmq asks who may come in, and the socket monitor, over which it
 * tells what became of handshakes.
 *
 * ZAP (ZeroMQ RFC 27), as a REP socket sees it:
 *   request  "1.0"  request id  domain  address  routing id  "CURVE"  client's public key (32 bytes)
 *   reply    "1.0"  request id  "200" or "400"  text  User-Id  metadata (none)
 * Without a handler at this address CURVE lets every client key in: ours is there before the socket listens and closes after it.
 *
 * Monitor: frame 1 is u16 event and u32 value in the machine's byte order, frame 2 our own endpoint. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/mem.h"
#include "schema/link_impl.h"

enum { KEY_BYTES = 32, Z85_CHARS = 41, ZAP_FRAMES = 7, TEXT = 256 };

struct link_guard {
    struct link_door door;
    void *zap;     /* NULL: no keys, or a connecting link */
    void *monitor; /* the reading end */
    int n_open;    /* connections accepted and not closed yet */
};

/* ---- keys ---- */

static const char hex_digits[] = "0123456789abcdef";

static void to_hex(const unsigned char bytes[KEY_BYTES], char hex[LINK_KEY_HEX])
{
    for (size_t i = 0; i < KEY_BYTES; i++) {
        hex[2 * i] = hex_digits[bytes[i] >> 4];
        hex[2 * i + 1] = hex_digits[bytes[i] & 15];
    }
    hex[LINK_KEY_HEX - 1] = '\0';
}

static bool from_hex(const char *hex, unsigned char bytes[KEY_BYTES])
{
    if (strlen(hex) != LINK_KEY_HEX - 1 || strspn(hex, hex_digits) != LINK_KEY_HEX - 1)
        return false;
    for (size_t i = 0; i < KEY_BYTES; i++)
        bytes[i] = (unsigned char)((strchr(hex_digits, hex[2 * i]) - hex_digits) << 4 |
                                   (strchr(hex_digits, hex[2 * i + 1]) - hex_digits));
    return true;
}

static bool z85_to_hex(const char z85[Z85_CHARS], char hex[LINK_KEY_HEX])
{
    unsigned char bytes[KEY_BYTES];
    if (zmq_z85_decode(bytes, z85) == NULL)
        return false;
    to_hex(bytes, hex);
    return true;
}

enum err_code link_make_keys(struct link_keys *out, struct err *e)
{
    char public_z85[Z85_CHARS], secret_z85[Z85_CHARS];
    if (zmq_curve_keypair(public_z85, secret_z85) != 0)
        return err_set(e, ERR_UNSUPPORTED,
                       "ZeroMQ cannot make keys: %s; install a libzmq with CURVE",
                       zmq_strerror(errno));
    CHECK(z85_to_hex(public_z85, out->public_key) && z85_to_hex(secret_z85, out->secret_key));
    return ERR_OK;
}

enum err_code link_derive_public(struct link_keys *k, struct err *e)
{
    unsigned char secret[KEY_BYTES];
    char public_z85[Z85_CHARS], secret_z85[Z85_CHARS];
    if (!from_hex(k->secret_key, secret))
        return err_set(e, ERR_FORMAT, "a secret key is not 64 hexadecimal digits");
    CHECK(zmq_z85_encode(secret_z85, secret, sizeof(secret)) != NULL);
    if (zmq_curve_public(public_z85, secret_z85) != 0)
        return err_set(e, ERR_UNSUPPORTED,
                       "ZeroMQ cannot use keys: %s; install a libzmq with CURVE",
                       zmq_strerror(errno));
    CHECK(z85_to_hex(public_z85, k->public_key));
    return ERR_OK;
}

static enum err_code set_key(struct link *l, int option, const char *hex, struct err *e)
{
    unsigned char bytes[KEY_BYTES];
    if (!from_hex(hex, bytes))
        return err_set(e, ERR_FORMAT, "%s: a key is not 64 hexadecimal digits", l->endpoint);
    if (zmq_setsockopt(l->socket, option, bytes, sizeof(bytes)) != 0)
        return err_set(e, ERR_UNSUPPORTED, "ZeroMQ refuses a key: %s; install a libzmq with CURVE",
                       zmq_strerror(errno));
    return ERR_OK;
}

enum err_code link_use_keys(struct link *l, const struct link_keys *k, struct err *e)
{
    static const char domain[] = "isobit";
    static const int yes = 1;
    TRY(set_key(l, ZMQ_CURVE_SECRETKEY, k->secret_key, e));
    if (!l->is_router) {
        TRY(set_key(l, ZMQ_CURVE_PUBLICKEY, k->public_key, e));
        return set_key(l, ZMQ_CURVE_SERVERKEY, k->coordinator, e);
    }
    if (zmq_setsockopt(l->socket, ZMQ_CURVE_SERVER, &yes, sizeof(yes)) != 0 ||
        zmq_setsockopt(l->socket, ZMQ_ZAP_DOMAIN, domain, strlen(domain)) != 0)
        return err_set(e, ERR_UNSUPPORTED, "ZeroMQ refuses to serve with keys: %s",
                       zmq_strerror(errno));
    return ERR_OK;
}

/* ---- opening and closing ---- */

static enum err_code open_zap(void *zmq, struct link_guard *g, struct err *e)
{
    static const int none = 0;
    g->zap = zmq_socket(zmq, ZMQ_REP);
    if (g->zap == NULL || zmq_setsockopt(g->zap, ZMQ_LINGER, &none, sizeof(none)) != 0 ||
        zmq_bind(g->zap, "inproc://zeromq.zap.01") != 0)
        return err_set(e, ERR_IO, "cannot answer for keys (ZAP): %s", zmq_strerror(errno));
    return ERR_OK;
}

static enum err_code open_monitor(void *zmq, struct link *l, struct link_guard *g, struct err *e)
{
    static const int none = 0;
    const int events = ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_DISCONNECTED |
                       ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
                       ZMQ_EVENT_HANDSHAKE_FAILED_AUTH;
    char *address = xasprintf("inproc://isobit-monitor-%p", l->socket);
    bool is_open = zmq_socket_monitor(l->socket, address, events) == 0;
    g->monitor = is_open ? zmq_socket(zmq, ZMQ_PAIR) : NULL;
    /* Without a limit: libzmq's own thread waits for room here, and everybody else with it. */
    is_open = g->monitor != NULL &&
              zmq_setsockopt(g->monitor, ZMQ_RCVHWM, &none, sizeof(none)) == 0 &&
              zmq_setsockopt(g->monitor, ZMQ_LINGER, &none, sizeof(none)) == 0 &&
              zmq_connect(g->monitor, address) == 0;
    xfree(address);
    if (!is_open)
        return err_set(e, ERR_IO, "cannot watch %s: %s", l->endpoint, zmq_strerror(errno));
    return ERR_OK;
}

enum err_code link_guard_open(void *zmq, struct link *l, const struct link_options *o,
                              struct err *e)
{
    struct link_guard *g = xcalloc(1, sizeof(*g));
    l->guard = g;
    g->door = *o->door;
    if (l->is_router && o->keys != NULL) {
        CHECK(g->door.admit != NULL);
        TRY(open_zap(zmq, g, e));
    }
    return open_monitor(zmq, l, g, e);
}

void link_guard_close(struct link *l)
{
    struct link_guard *g = l->guard;
    if (g == NULL)
        return;
    if (g->monitor != NULL)
        zmq_close(g->monitor);
    if (g->zap != NULL)
        zmq_close(g->zap);
    xfree(g);
    l->guard = NULL;
}

int link_guard_items(const struct link *l, zmq_pollitem_t items[LINK_GUARD_ITEMS])
{
    int n = 0;
    items[n++] = (zmq_pollitem_t){.socket = l->guard->monitor, .events = ZMQ_POLLIN};
    if (l->guard->zap != NULL)
        items[n++] = (zmq_pollitem_t){.socket = l->guard->zap, .events = ZMQ_POLLIN};
    return n;
}

/* ---- serving ---- */

struct frame {
    char data[TEXT];
    size_t n;
};

/* One whole message; frames beyond `max` and bytes beyond a frame's room are dropped. Returns the frames it had, 0: none is
 * waiting. */
static int receive_frames(void *socket, struct frame *v, int max)
{
    int n = 0;
    for (int more = 1; more != 0; n++) {
        struct frame over, *f = n < max ? &v[n] : &over;
        size_t size = sizeof(more);
        int rc;
        do
            rc = zmq_recv(socket, f->data, sizeof(f->data) - 1, ZMQ_DONTWAIT);
        while (rc < 0 && errno == EINTR);
        if (rc < 0)
            break;
        f->n = (size_t)rc < sizeof(f->data) ? (size_t)rc : sizeof(f->data) - 1;
        f->data[f->n] = '\0';
        zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &size);
    }
    return n;
}

static void reply(void *zap, const struct frame *id, bool is_admitted, const char *key)
{
    const char *const texts[] = {is_admitted ? "200" : "400", is_admitted ? "OK" : "not listed",
                                 is_admitted ? key : "", ""};
    zmq_send(zap, "1.0", 3, ZMQ_SNDMORE);
    zmq_send(zap, id->data, id->n, ZMQ_SNDMORE);
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        zmq_send(zap, texts[i], strlen(texts[i]), i + 1 < ARRAY_LEN(texts) ? ZMQ_SNDMORE : 0);
}

static bool answer_zap(struct link_guard *g)
{
    struct frame v[ZAP_FRAMES] = {0};
    char key[LINK_KEY_HEX] = "";
    int n = receive_frames(g->zap, v, ZAP_FRAMES);
    if (n == 0)
        return false;
    bool is_curve = n == ZAP_FRAMES && strcmp(v[0].data, "1.0") == 0 &&
                    strcmp(v[5].data, "CURVE") == 0 && v[6].n == KEY_BYTES;
    if (is_curve)
        to_hex((const unsigned char *)v[6].data, key);
    reply(g->zap, &v[1], is_curve && g->door.admit(g->door.arg, key, v[3].data), key);
    return true;
}

static void tell_failure(const struct link_guard *g, bool is_unlisted, const char *text)
{
    if (g->door.on_failure != NULL)
        g->door.on_failure(g->door.arg, is_unlisted, text);
}

static bool read_event(struct link *l)
{
    struct link_guard *g = l->guard;
    struct frame v[2] = {0};
    uint16_t event = 0;
    uint32_t value = 0;
    if (receive_frames(g->monitor, v, 2) == 0)
        return false;
    memcpy(&event, v[0].data, sizeof(event));
    memcpy(&value, v[0].data + sizeof(event), sizeof(value));
    switch (event) {
    case ZMQ_EVENT_ACCEPTED:
        g->n_open++;
        /* The value is its socket. The connection may be gone and the number used again: then this ends a younger one,
         * which comes back, or does nothing to what is no socket. */
        if (g->door.max_connections > 0 && g->n_open > g->door.max_connections)
            shutdown((int)value, SHUT_RDWR);
        break;
    case ZMQ_EVENT_DISCONNECTED:
        g->n_open -= l->is_router && g->n_open > 0;
        break;
    case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH: /* on the listening side, admit has said so already */
        if (!l->is_router && value == 400)
            tell_failure(g, true, "the other side does not list this key");
        break;
    case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
        tell_failure(g, false,
                     value == ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH
                         ? "one side uses keys and the other does not"
                         : "what was said is no handshake with this side's key");
        break;
    default: /* ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL: the events asked for */
        tell_failure(g, false, "the connection ended before its handshake");
        break;
    }
    return true;
}

void link_guard_serve(struct link *l)
{
    while (l->guard->zap != NULL && answer_zap(l->guard))
        continue;
    while (read_event(l))
        continue;
}
