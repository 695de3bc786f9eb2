#include "tests/support/proxy.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"

enum { MAX_PARTS = 8, MAX_CLIENTS = 64, MAX_ID = 32 };

struct client {
    unsigned char id[MAX_ID];
    size_t n_id;
    void *back; /* its own connection to the coordinator */
};

/* A message under way; whoever takes it out of the list owns its parts. */
struct parcel {
    zmq_msg_t part[MAX_PARTS];
    int n;
    int client;
    bool is_up; /* to the coordinator */
    int64_t due_ns;
};

struct relay {
    void *zmq, *front;
    const char *upstream;
    char endpoint[256];
    struct client client[MAX_CLIENTS];
    int n_clients;
    struct parcel *parcel;
    int n_parcels, cap_parcels;
    struct proxy_mood mood;
    struct rng rng;
};

/* ---- connections ---- */

static void *open_socket(struct relay *r, int type)
{
    static const int none = 0;
    void *socket = zmq_socket(r->zmq, type);
    CHECK(socket != NULL);
    zmq_setsockopt(socket, ZMQ_LINGER, &none, sizeof(none));
    return socket;
}

/* Again on the same port after a hang-up, which may take the system a moment to give back. */
static void open_front(struct relay *r, const char *endpoint)
{
    size_t n = sizeof(r->endpoint);
    r->front = open_socket(r, ZMQ_ROUTER);
    for (int i = 0; zmq_bind(r->front, endpoint) != 0; i++) {
        CHECK(errno == EADDRINUSE && i < 1000);
        usleep(5000);
    }
    CHECK(zmq_getsockopt(r->front, ZMQ_LAST_ENDPOINT, r->endpoint, &n) == 0);
}

static void release_parcel(struct parcel *p)
{
    for (int i = 0; i < p->n; i++)
        zmq_msg_close(&p->part[i]);
}

static void hang_up(struct relay *r)
{
    char endpoint[256];
    for (int i = 0; i < r->n_clients; i++)
        zmq_close(r->client[i].back);
    for (int i = 0; i < r->n_parcels; i++)
        release_parcel(&r->parcel[i]);
    r->n_clients = r->n_parcels = 0;
    memcpy(endpoint, r->endpoint, sizeof(endpoint));
    zmq_close(r->front);
    open_front(r, endpoint);
}

static int client_of(struct relay *r, const void *id, size_t n)
{
    for (int i = 0; i < r->n_clients; i++)
        if (r->client[i].n_id == n && memcmp(r->client[i].id, id, n) == 0)
            return i;
    CHECK(r->n_clients < MAX_CLIENTS && n <= MAX_ID);
    struct client *c = &r->client[r->n_clients];
    memcpy(c->id, id, n);
    c->n_id = n;
    c->back = open_socket(r, ZMQ_DEALER);
    CHECK(zmq_connect(c->back, r->upstream) == 0);
    return r->n_clients++;
}

/* ---- parcels ---- */

static bool receive(void *socket, struct parcel *p)
{
    int more = 1;
    size_t size = sizeof(more);
    for (p->n = 0; more != 0; p->n++) {
        CHECK(p->n < MAX_PARTS);
        zmq_msg_init(&p->part[p->n]);
        if (zmq_msg_recv(&p->part[p->n], socket, ZMQ_DONTWAIT) < 0) {
            CHECK(p->n == 0 && (errno == EAGAIN || errno == EINTR));
            return false;
        }
        zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &size);
    }
    return true;
}

static struct parcel copy_parcel(struct parcel *p)
{
    struct parcel c = *p;
    for (int i = 0; i < p->n; i++) {
        zmq_msg_init(&c.part[i]);
        zmq_msg_copy(&c.part[i], &p->part[i]);
    }
    return c;
}

static void put(struct relay *r, const struct parcel *p, int64_t now_ns)
{
    if (r->n_parcels == r->cap_parcels) {
        r->cap_parcels = r->cap_parcels > 0 ? 2 * r->cap_parcels : 64;
        r->parcel = xrealloc(r->parcel, (size_t)r->cap_parcels * sizeof(*r->parcel));
    }
    struct parcel *q = &r->parcel[r->n_parcels++];
    *q = *p;
    q->due_ns = now_ns;
    if (rng_uniform(&r->rng) < r->mood.delay)
        q->due_ns += (int64_t)(rng_uniform(&r->rng) * r->mood.delay_ms) * CLOCK_NS_PER_MS;
}

/* What becomes of a message. */
static void accept_parcel(struct relay *r, struct parcel *p, int64_t now_ns)
{
    if (r->mood.is_cut || rng_uniform(&r->rng) < r->mood.drop) {
        release_parcel(p);
        return;
    }
    if (rng_uniform(&r->rng) < r->mood.duplicate) {
        struct parcel second = copy_parcel(p);
        put(r, &second, now_ns);
    }
    put(r, p, now_ns);
}

static void deliver(struct relay *r, struct parcel *p)
{
    const struct client *c = &r->client[p->client];
    void *to = p->is_up ? c->back : r->front;
    bool goes =
        p->is_up || zmq_send(to, c->id, c->n_id, ZMQ_SNDMORE | ZMQ_DONTWAIT) == (int)c->n_id;
    for (int i = 0; i < p->n && goes; i++)
        goes = zmq_msg_send(&p->part[i], to, ZMQ_DONTWAIT | (i + 1 < p->n ? ZMQ_SNDMORE : 0)) >= 0;
    release_parcel(p);
}

/* Everything that is due, oldest first; ns until more is. */
static int64_t deliver_due(struct relay *r, int64_t now_ns)
{
    int64_t next_ns = CLOCK_NS_PER_S;
    int n_kept = 0;
    for (int i = 0; i < r->n_parcels; i++) {
        struct parcel p = r->parcel[i];
        if (p.due_ns <= now_ns) {
            deliver(r, &p);
            continue;
        }
        next_ns = p.due_ns - now_ns < next_ns ? p.due_ns - now_ns : next_ns;
        r->parcel[n_kept++] = p;
    }
    r->n_parcels = n_kept;
    return next_ns;
}

/* ---- the process ---- */

static void take_in(struct relay *r, int64_t now_ns)
{
    struct parcel p = {.is_up = true};
    while (receive(r->front, &p)) {
        p.client = client_of(r, zmq_msg_data(&p.part[0]), zmq_msg_size(&p.part[0]));
        zmq_msg_close(&p.part[0]);
        memmove(&p.part[0], &p.part[1], (size_t)(p.n - 1) * sizeof(p.part[0]));
        p.n--;
        accept_parcel(r, &p, now_ns);
    }
    p.is_up = false;
    for (int i = 0; i < r->n_clients; i++)
        for (p.client = i; receive(r->client[i].back, &p);)
            accept_parcel(r, &p, now_ns);
}

static bool read_mood(struct relay *r, int fd)
{
    struct proxy_mood mood;
    ssize_t n = read(fd, &mood, sizeof(mood));
    if (n == 0)
        return false;
    CHECK(n == (ssize_t)sizeof(mood));
    if (mood.hangs_up)
        hang_up(r);
    r->mood = mood;
    return true;
}

static void relay_run(struct relay *r, int moods)
{
    for (bool goes_on = true; goes_on;) {
        zmq_pollitem_t items[MAX_CLIENTS + 2] = {{.fd = moods, .events = ZMQ_POLLIN},
                                                 {.socket = r->front, .events = ZMQ_POLLIN}};
        int64_t wait_ns = deliver_due(r, clock_mono_ns());
        if (r->n_clients > MAX_CLIENTS - 8)
            hang_up(r); /* left behind by workers that connected anew */
        for (int i = 0; i < r->n_clients; i++)
            items[i + 2] = (zmq_pollitem_t){.socket = r->client[i].back, .events = ZMQ_POLLIN};
        items[1].socket = r->front;
        CHECK(zmq_poll(items, r->n_clients + 2, (long)(wait_ns / CLOCK_NS_PER_MS) + 1) >= 0 ||
              errno == EINTR);
        take_in(r, clock_mono_ns());
        if (items[0].revents != 0)
            goes_on = read_mood(r, moods);
    }
}

void proxy_start(struct proxy *p, const char *upstream, uint64_t seed)
{
    int moods[2], told[2];
    CHECK(pipe2(moods, O_CLOEXEC) == 0 && pipe2(told, O_CLOEXEC) == 0);
    fflush(stdout);
    p->pid = fork();
    CHECK(p->pid >= 0);
    if (p->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(moods[1]);
        struct relay *r = xcalloc(1, sizeof(*r));
        *r = (struct relay){.zmq = zmq_ctx_new(), .upstream = upstream, .rng = {seed}};
        open_front(r, "tcp://127.0.0.1:*");
        CHECK(write(told[1], r->endpoint, sizeof(r->endpoint)) == (ssize_t)sizeof(r->endpoint));
        relay_run(r, moods[0]);
        _exit(0);
    }
    close(moods[0]);
    close(told[1]);
    CHECK(read(told[0], p->endpoint, sizeof(p->endpoint)) == (ssize_t)sizeof(p->endpoint));
    close(told[0]);
    p->moods = moods[1];
}

void proxy_set(const struct proxy *p, const struct proxy_mood *mood)
{
    CHECK(write(p->moods, mood, sizeof(*mood)) == (ssize_t)sizeof(*mood));
}

void proxy_stop(struct proxy *p)
{
    close(p->moods);
    kill(p->pid, SIGKILL);
    waitpid(p->pid, NULL, 0);
    *p = (struct proxy){.moods = -1};
}
