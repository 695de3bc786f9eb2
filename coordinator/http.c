#include "coordinator/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/mem.h"

enum { CONNECTION_BYTES = 16 << 10, IDLE_SECONDS = 5, MAX_HOST = 256 };

/* A connection and when it began; the descriptor is open as long as it stands here. */
struct http_guest {
    int fd; /* < 0: free */
    int64_t since_ns;
};

struct http {
    struct http_options o;
    struct MHD_Daemon *daemon;
    char host[MAX_HOST]; /* as given, without brackets */
    char url[MAX_HOST + 32];
    bool is_loopback;
    pthread_mutex_t mutex; /* of guests */
    struct http_guest guests[HTTP_MAX_CONNECTIONS];
};

/* ---- the address ---- */

/* "HOST:PORT" or "[HOST]:PORT". */
static enum err_code split_address(const char *address, char host[MAX_HOST], char port[8],
                                   struct err *e)
{
    const char *colon = strrchr(address, ':');
    size_t n = colon != NULL ? (size_t)(colon - address) : 0;
    int64_t number = -1;
    bool is_bracketed = n > 2 && address[0] == '[' && address[n - 1] == ']';
    struct str name = is_bracketed ? (struct str){address + 1, n - 2} : (struct str){address, n};
    bool is_plain = is_bracketed || (memchr(name.p, ':', name.n) == NULL && address[0] != '[');
    if (name.n == 0 || name.n >= MAX_HOST || !is_plain || !parse_i64(str_of(colon + 1), &number) ||
        number < 0 || number > 65535)
        return err_set(e, ERR_USAGE, "--http %s: expected HOST:PORT, e.g. 127.0.0.1:8080", address);
    snprintf(host, MAX_HOST, "%.*s", (int)name.n, name.p);
    snprintf(port, 8, "%d", (int)number);
    return ERR_OK;
}

static bool is_loopback(const struct sockaddr *a)
{
    if (a->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)(const void *)a)->sin_addr.s_addr) >> 24 == 127;
    return a->sa_family == AF_INET6 &&
           IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr);
}

static enum err_code resolve(struct http *h, struct sockaddr_storage *out, struct err *e)
{
    char port[8];
    struct addrinfo *list = NULL;
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                                   .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    TRY(split_address(h->o.address, h->host, port, e));
    int rc = getaddrinfo(h->host, port, &hints, &list);
    if (rc != 0)
        return err_set(e, ERR_NOTFOUND, "--http %s: %s", h->o.address, gai_strerror(rc));
    memcpy(out, list->ai_addr, list->ai_addrlen);
    freeaddrinfo(list);
    h->is_loopback = is_loopback((const struct sockaddr *)out);
    if (!h->is_loopback && !h->o.is_open)
        return err_set(e, ERR_DENIED,
                       "--http %s: other machines reach this address, and whoever does can read "
                       "everything; listen on 127.0.0.1:%s and reach it from elsewhere with `ssh "
                       "-L %s:127.0.0.1:%s HOST`, or add --http-open",
                       h->o.address, port, port, port);
    return ERR_OK;
}

/* ---- who may ask ---- */

/* Whether the Host of a request ("name", "name:port", "[::1]:port") is this server's. */
static bool is_our_host(const struct http *h, const char *value)
{
    static const char *const names[] = {"localhost", "127.0.0.1", "::1"};
    const char *end = value[0] == '[' ? strchr(value, ']') : strrchr(value, ':');
    struct str host = {value, end != NULL ? (size_t)(end - value) : strlen(value)};
    if (value[0] == '[' && end != NULL)
        host = (struct str){value + 1, (size_t)(end - value) - 1};
    if (host.n == strlen(h->host) && strncasecmp(host.p, h->host, host.n) == 0)
        return true;
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (host.n == strlen(names[i]) && strncasecmp(host.p, names[i], host.n) == 0)
            return true;
    return false;
}

static bool is_allowed(const struct http *h, struct MHD_Connection *c)
{
    const char *host = MHD_lookup_connection_value(c, MHD_HEADER_KIND, MHD_HTTP_HEADER_HOST);
    return !h->is_loopback || host == NULL || is_our_host(h, host);
}

/* ---- answering ---- */

static void add_headers(struct MHD_Response *r, const char *type)
{
    static const char *const headers[][2] = {
        {"Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; "
                                    "connect-src 'self'; img-src 'self' data:; base-uri 'none'; "
                                    "form-action 'none'; frame-ancestors 'none'"},
        {"X-Content-Type-Options", "nosniff"},
        {"Referrer-Policy", "no-referrer"},
        {"Cache-Control", "no-store"},
        {"Connection", "close"},
    };
    for (size_t i = 0; i < ARRAY_LEN(headers); i++)
        MHD_add_response_header(r, headers[i][0], headers[i][1]);
    MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, type);
}

static enum MHD_Result send_answer(struct MHD_Connection *c, struct http_answer *a)
{
    struct MHD_Response *r =
        MHD_create_response_from_buffer(a->body.len, a->body.data, MHD_RESPMEM_MUST_COPY);
    buf_release(&a->body);
    if (r == NULL)
        return MHD_NO;
    add_headers(r, a->type);
    if (a->status == MHD_HTTP_METHOD_NOT_ALLOWED)
        MHD_add_response_header(r, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
    enum MHD_Result rc = MHD_queue_response(c, (unsigned)a->status, r);
    MHD_destroy_response(r);
    return rc;
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *c, const char *url,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_size, void **state)
{
    (void)version;
    (void)upload;
    (void)upload_size;
    (void)state;
    const struct http *h = arg;
    struct http_answer a = {.status = MHD_HTTP_OK, .type = "text/plain; charset=utf-8"};
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0) {
        a.status = MHD_HTTP_METHOD_NOT_ALLOWED;
        buf_adds(&a.body, "this server only shows\n");
    } else if (!is_allowed(h, c)) {
        a.status = MHD_HTTP_FORBIDDEN;
        buf_adds(&a.body, "ask for this machine by the name it listens on\n");
    } else if (!h->o.answer(h->o.arg, url, &a)) {
        a.status = MHD_HTTP_NOT_FOUND;
        buf_adds(&a.body, "there is no such page\n");
    }
    return send_answer(c, &a);
}

/* ---- connections ---- */

static void on_connection(void *arg, struct MHD_Connection *c, void **state,
                          enum MHD_ConnectionNotificationCode code)
{
    (void)state;
    struct http *h = arg;
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
    if (info == NULL)
        return;
    pthread_mutex_lock(&h->mutex);
    bool is_new = code == MHD_CONNECTION_NOTIFY_STARTED;
    for (size_t i = 0; i < ARRAY_LEN(h->guests); i++) {
        struct http_guest *g = &h->guests[i];
        if (g->fd != (is_new ? -1 : info->connect_fd))
            continue;
        g->fd = is_new ? info->connect_fd : -1;
        g->since_ns = clock_mono_ns();
        break;
    }
    pthread_mutex_unlock(&h->mutex);
}

void http_expire(struct http *h, int64_t now_ns)
{
    pthread_mutex_lock(&h->mutex);
    for (size_t i = 0; i < ARRAY_LEN(h->guests); i++) {
        const struct http_guest *g = &h->guests[i];
        if (g->fd >= 0 && now_ns - g->since_ns > HTTP_MAX_SECONDS * CLOCK_NS_PER_S)
            shutdown(g->fd, SHUT_RDWR); /* the server sees its end and closes it */
    }
    pthread_mutex_unlock(&h->mutex);
}

/* ---- opening and closing ---- */

static enum err_code start(struct http *h, struct err *e)
{
    struct sockaddr_storage at = {0};
    TRY(resolve(h, &at, e));
    unsigned flags = MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL;
    if (at.ss_family == AF_INET6)
        flags |= MHD_USE_IPv6;
    h->daemon = MHD_start_daemon(flags, 0, NULL, NULL, on_request, h, MHD_OPTION_SOCK_ADDR, &at,
                                 MHD_OPTION_CONNECTION_LIMIT, (unsigned)HTTP_MAX_CONNECTIONS,
                                 MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_SECONDS,
                                 MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES,
                                 MHD_OPTION_NOTIFY_CONNECTION, on_connection, h, MHD_OPTION_END);
    if (h->daemon == NULL)
        return err_set(e, ERR_BUSY, "--http %s: cannot listen there: %s", h->o.address,
                       strerror(errno));
    const union MHD_DaemonInfo *port = MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_BIND_PORT);
    bool is_v6 = strchr(h->host, ':') != NULL;
    snprintf(h->url, sizeof(h->url), is_v6 ? "http://[%s]:%u/" : "http://%s:%u/", h->host,
             port != NULL ? (unsigned)port->port : 0U);
    return ERR_OK;
}

enum err_code http_start(const struct http_options *o, struct http **out, struct err *e)
{
    struct http *h = xcalloc(1, sizeof(*h));
    h->o = *o;
    pthread_mutex_init(&h->mutex, NULL);
    for (size_t i = 0; i < ARRAY_LEN(h->guests); i++)
        h->guests[i].fd = -1;
    enum err_code rc = start(h, e);
    if (rc != ERR_OK) {
        http_stop(h);
        return rc;
    }
    *out = h;
    return ERR_OK;
}

void http_stop(struct http *h)
{
    if (h == NULL)
        return;
    if (h->daemon != NULL)
        MHD_stop_daemon(h->daemon);
    pthread_mutex_destroy(&h->mutex);
    xfree(h);
}

const char *http_url(const struct http *h)
{
    return h->url;
}
