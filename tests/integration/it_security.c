/* Story: a coordinator with keys (PROTOCOL.md section 9). Listed workers work, readers ask, strangers get nothing and are
 * logged, nobody takes over another's work, and a thousand strangers at once do not stop those who work. */
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/mem.h"
#include "schema/keys.h"
#include "tests/support/played.h"
#include "tests/support/smoke.h"
#include "tests/support/support.h"

struct story {
    struct smoke run;
    char *keys;
    struct link_context *context;
    struct link_keys worker, gpu7, reader; /* gpu7: a second worker's key */
};

static void start_coordinator(struct story *s)
{
    const char *const extra[] = {"--keys", s->keys, "--max-attempts", "1000", "--lease",
                                 "20",     NULL};
    smoke_serve(&s->run, extra);
}

static void load(const struct story *s, const char *name, enum key_role role, struct link_keys *k)
{
    struct err e;
    char *dir = xasprintf("%s/%s", s->keys, name);
    CHECK(keys_load(dir, role, k, &e) == ERR_OK);
    xfree(dir);
}

static struct story open_story(void)
{
    struct story s = {.run = smoke_open()};
    struct err e;
    s.keys = xasprintf("%s/keys", s.run.dir);
    CHECK(keys_make(s.keys, &e) == ERR_OK);
    CHECK(keys_add(s.keys, KEY_WORKER, "gpu7", &e) == ERR_OK);
    load(&s, ".", KEY_WORKER, &s.worker);
    load(&s, ".", KEY_READER, &s.reader);
    load(&s, "gpu7", KEY_WORKER, &s.gpu7);
    start_coordinator(&s);
    CHECK(link_context_new(&s.context, &e) == ERR_OK);
    return s;
}

static void close_story(struct story *s)
{
    EXPECT(cluster_wait(s->run.coordinator, 0) == -1, "the coordinator did not survive");
    link_context_free(s->context);
    xfree(s->keys);
    smoke_close(&s->run);
}

static struct played play(const struct story *s, const struct link_keys *k, char id)
{
    return played_open(s->context, s->run.endpoint, k, id);
}

static int64_t n_done(const struct story *s)
{
    return cluster_query(s->run.db, SMOKE_DONE);
}

static bool log_has(const struct story *s, const char *text)
{
    for (int i = 0; i < 100; i++) {
        struct buf log = {0};
        struct err e;
        CHECK(io_read_file(s->run.log, (size_t)64 << 20, &log, &e) == ERR_OK);
        bool found = log.data != NULL && strstr(log.data, text) != NULL;
        buf_release(&log);
        if (found)
            return true;
        usleep(20000);
    }
    return false;
}

static struct link_keys unlisted_keys(const struct story *s)
{
    struct link_keys k = s->worker;
    struct err e;
    CHECK(link_make_keys(&k, &e) == ERR_OK);
    return k;
}

/* ---- strangers ---- */

/* A stranger's connection never becomes one that can be written to, and nothing comes back over it. */
static void expect_nothing_for(const struct story *s, const struct link_keys *k, const char *whose)
{
    struct played p = play(s, k, 'e');
    struct err e;
    int n = played_listen(&p, 0.7);
    EXPECT(n == 0, "%s gets %d messages", whose, n);
    EXPECT(link_send(p.link, NULL, WIRE_BEAT, NULL, NULL, 0, &e) == ERR_BUSY,
           "%s has a connection that takes messages", whose);
    played_close(&p);
}

static int connect_raw(const struct story *s)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int64_t port = 0;
    CHECK(parse_i64(str_of(strrchr(s->run.endpoint, ':') + 1), &port));
    to.sin_port = htons((uint16_t)port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0);
    return fd;
}

/* Bytes until the other side closes, or for a second; how many came. */
static size_t read_raw(int fd, char *out, size_t room)
{
    const struct timeval limit = {.tv_sec = 1};
    size_t n = 0;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    for (ssize_t got = 1; got > 0 && n<room; n += got> 0 ? (size_t)got : 0)
        got = recv(fd, out + n, room - n, 0);
    return n;
}

/* ZMTP 3.0 greeting of a CURVE client, 64 bytes. */
static void send_greeting(int fd)
{
    char greeting[64] = {[0] = (char)0xff, [9] = 0x7f, [10] = 3};
    memcpy(greeting + 12, "CURVE", 5);
    CHECK(send(fd, greeting, sizeof(greeting), MSG_NOSIGNAL) == (ssize_t)sizeof(greeting));
}

static void expect_nothing_but_a_greeting(const struct story *s, const char *bytes, size_t n)
{
    char got[512];
    int fd = connect_raw(s);
    CHECK(send(fd, bytes, n, MSG_NOSIGNAL) == (ssize_t)n);
    size_t n_got = read_raw(fd, got, sizeof(got));
    EXPECT(n_got <= 64, "%zu bytes came back", n_got);
    close(fd);
}

static void run_unlisted_worker(const struct story *s)
{
    struct support_run r;
    char *command =
        xasprintf("isobit keygen %s/other >/dev/null && cp %s/coordinator.pub %s/other && "
                  "isobit-worker run --connect %s --device cpu --keys %s/other",
                  s->run.dir, s->keys, s->run.dir, s->run.endpoint, s->run.dir);
    r = support_shell(command);
    EXPECT(r.status == 4, "a worker without a listed key ended with %d", r.status);
    EXPECT(strstr(r.err.data, "does not list this worker's key") != NULL, "%s", r.err.data);
    support_run_release(&r);
    xfree(command);
}

static void listed_keys_work_and_strangers_get_nothing(void)
{
    struct story s = open_story();
    struct link_keys other = unlisted_keys(&s), wrong = s.worker;
    struct err e;
    expect_nothing_for(&s, &other, "a key that is not listed");
    EXPECT(log_has(&s, "door stranger count=1 address=127.0.0.1 key="), "no word of the stranger");
    EXPECT(log_has(&s, other.public_key), "the log does not name its key");
    expect_nothing_for(&s, NULL, "a client without a key");
    EXPECT(log_has(&s, "door no-handshake"), "no word of the client without a key");
    CHECK(link_make_keys(&other, &e) == ERR_OK);
    memcpy(wrong.coordinator, other.public_key, sizeof(wrong.coordinator));
    expect_nothing_for(&s, &wrong, "a listed worker that looks for another coordinator");
    expect_nothing_but_a_greeting(&s, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27);
    expect_nothing_but_a_greeting(&s, "ibit\x01\x01\0\0{}", 10);
    run_unlisted_worker(&s);

    struct played p = play(&s, &s.worker, 'a');
    played_register(&p);
    json_t *lease = played_lease(&p);
    played_result(&p, lease, 0);
    EXPECT(strcmp(played_verdict(&p, 5), "accepted") == 0, "a listed worker's result");
    EXPECT(n_done(&s) == 1, "%lld done", (long long)n_done(&s));
    json_decref(lease);
    played_close(&p);
    close_story(&s);
}

/* ---- one worker against another ---- */

static void expect_refused(struct played *p, const char *says)
{
    played_send(p, WIRE_HELLO, played_hello_body(p, WIRE_NUMERICS));
    json_t *m = played_await(p, WIRE_REFUSE, 5);
    EXPECT(m != NULL && strstr(json_opt_str(m, "text", ""), says) != NULL, "no REFUSE with \"%s\"",
           says);
    json_decref(m);
}

static void nobody_takes_over_anothers_work(void)
{
    struct story s = open_story();
    struct played a = play(&s, &s.worker, 'a'), b = play(&s, &s.gpu7, 'b');
    struct played thief = play(&s, &s.gpu7, 'a');
    played_register(&a);
    played_register(&b);
    json_t *lease = played_lease(&a);
    expect_refused(&thief, "belongs to its key");

    int64_t own = b.session;
    b.session = a.session;
    played_result(&b, lease, 0);
    json_t *m = played_await(&b, WIRE_REGISTER, 5);
    EXPECT(m != NULL, "a result under another worker's session was taken");
    json_decref(m);
    b.session = own;
    played_result(&b, lease, 0);
    EXPECT(strcmp(played_verdict(&b, 5), "fenced") == 0, "a result for another worker's job");
    EXPECT(n_done(&s) == 0, "another worker's lease was completed");
    played_result(&a, lease, 0);
    EXPECT(strcmp(played_verdict(&a, 5), "accepted") == 0, "the owner's own result");

    /* After a restart the sessions are gone, but not whose uuid it is. */
    cluster_kill(s.run.coordinator);
    start_coordinator(&s);
    json_decref(thief.held);
    thief.held = json_incref(a.held);
    expect_refused(&thief, "belongs to its key");
    played_register(&a);
    played_result(&a, lease, 1);
    EXPECT(strcmp(played_verdict(&a, 5), "accepted") == 0, "the owner's result after a restart");
    json_decref(lease);
    played_close(&thief);
    played_close(&a);
    played_close(&b);
    close_story(&s);
}

static void revoked_key_is_out_at_once(void)
{
    struct story s = open_story();
    struct err e;
    struct played p = play(&s, &s.gpu7, 'b');
    char *entry = xasprintf("%s/allow/workers/gpu7.pub", s.keys);
    struct buf text = {0};
    CHECK(io_read_file(entry, 1000, &text, &e) == ERR_OK);
    played_register(&p);
    json_t *lease = played_lease(&p);
    CHECK(unlink(entry) == 0);
    json_t *m = played_await(&p, WIRE_REFUSE, 5); /* long before its lease would have ended */
    EXPECT(m != NULL, "a revoked worker was not told");
    json_decref(m);
    EXPECT(cluster_await(s.run.db, "SELECT count(*) FROM jobs WHERE state = 'leased'", 0, 5),
           "a revoked worker keeps its jobs");
    EXPECT(cluster_query(s.run.db, "SELECT count(*) FROM failures") == 0, "it cost an attempt");
    played_result(&p, lease, 0);
    EXPECT(strcmp(played_verdict(&p, 0.5), "") == 0 && n_done(&s) == 0, "its result counts");
    expect_nothing_for(&s, &s.gpu7, "a revoked key");
    CHECK(io_write_file(entry, text.data, text.len, &e) == ERR_OK);
    CHECK(chmod(entry, 0600) == 0);
    struct played again = play(&s, &s.gpu7, 'b');
    played_register(&again);
    json_decref(lease);
    played_close(&p);
    played_close(&again);
    buf_release(&text);
    xfree(entry);
    close_story(&s);
}

/* ---- readers ---- */

/* `request` is a stolen reference; the code of the reply, "OK" for a good one, "" for none. */
static const char *ask(struct played *p, json_t *request)
{
    static char code[32];
    played_send(p, WIRE_REQUEST, request);
    json_t *reply = played_await(p, WIRE_REPLY, 5);
    snprintf(code, sizeof(code), "%s",
             reply == NULL                       ? ""
             : json_opt_bool(reply, "ok", false) ? "OK"
                                                 : json_opt_str(reply, "code", "?"));
    json_decref(reply);
    return code;
}

static void status_from_another_machine(const struct story *s)
{
    char *command =
        xasprintf("mkdir -m 700 %s/desk && cp %s/reader.key %s/coordinator.pub %s/desk && "
                  "isobit status --connect %s --keys %s/desk --json",
                  s->run.dir, s->keys, s->keys, s->run.dir, s->run.endpoint, s->run.dir);
    struct support_run r = support_shell(command);
    EXPECT(r.status == 0 && strstr(r.out.data, "\"pending\": 50") != NULL, "%s%s", r.out.data,
           r.err.data);
    support_run_release(&r);
    xfree(command);
}

static void readers_may_ask_and_nothing_else(void)
{
    struct story s = open_story();
    status_from_another_machine(&s);
    struct played r = play(&s, &s.reader, 'e'), w = play(&s, &s.worker, 'a');
    expect_refused(&r, "may only ask");
    played_send(&r, WIRE_CREDIT, json_pack("{s:i}", "slices", 2));
    played_send(&r, WIRE_BEAT, json_pack("{s:i}", "in_hand", 0));
    EXPECT(strcmp(ask(&r, json_pack("{s:s}", "op", "workers")), "OK") == 0, "workers");
    EXPECT(strcmp(ask(&r, json_pack("{s:s, s:i}", "op", "jobs", "limit", 3)), "OK") == 0, "jobs");
    static const char *const changes[] = {"cancel", "hold", "retry", "release", "drain", "backup"};
    for (size_t i = 0; i < ARRAY_LEN(changes); i++)
        EXPECT(strcmp(ask(&r, json_pack("{s:s, s:s, s:s}", "op", changes[i], "pattern", "*", "out",
                                        "/dev/null")),
                      "DENIED") == 0,
               "%s over the network", changes[i]);
    EXPECT(strcmp(ask(&w, json_pack("{s:s}", "op", "status")), "DENIED") == 0,
           "a worker's key asks like a reader");
    const char *code = "OK";
    for (int i = 0; i < 30 && strcmp(code, "BUSY") != 0; i++)
        code = ask(&r, json_pack("{s:s}", "op", "workers"));
    EXPECT(strcmp(code, "BUSY") == 0, "a reader may ask as often as it likes");
    EXPECT(cluster_query(s.run.db, "SELECT count(*) FROM jobs WHERE state <> 'pending'") == 0,
           "a reader changed something");
    played_register(&w);
    played_close(&r);
    played_close(&w);
    close_story(&s);
}

/* ---- a thousand ---- */

enum { N_KEYED = 500, N_RAW = 500, N_HEAVY = 20, HEAVY_BYTES = 4 << 20 };

static void *open_keyed_stranger(void *zmq, const struct story *s)
{
    char public_key[41], secret_key[41], coordinator[41];
    unsigned char bytes[32];
    static const int none = 0;
    for (int i = 0; i < 32; i++) {
        unsigned v = 0;
        CHECK(sscanf(s->worker.coordinator + 2 * i, "%2x", &v) == 1);
        bytes[i] = (unsigned char)v;
    }
    CHECK(zmq_z85_encode(coordinator, bytes, 32) != NULL);
    CHECK(zmq_curve_keypair(public_key, secret_key) == 0);
    void *socket = zmq_socket(zmq, ZMQ_DEALER);
    CHECK(socket != NULL);
    zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, public_key, 41);
    zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, secret_key, 41);
    zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, coordinator, 41);
    zmq_setsockopt(socket, ZMQ_LINGER, &none, sizeof(none));
    CHECK(zmq_connect(socket, s->run.endpoint) == 0);
    return socket;
}

/* A handshake that promises much: memory is bounded by how many handshakes there are and by the limit of a frame. */
static void send_heavy_handshake(int fd)
{
    static char chunk[65536];
    static const unsigned char head[] = {6, 0, 0, 0, 0, 0, HEAVY_BYTES >> 16, 0, 0};
    send_greeting(fd);
    if (send(fd, head, sizeof(head), MSG_NOSIGNAL) < 0)
        return;
    for (int at = 0; at < HEAVY_BYTES - 2 * (int)sizeof(chunk); at += (int)sizeof(chunk))
        if (send(fd, chunk, sizeof(chunk), MSG_NOSIGNAL) < 0)
            return;
}

/* Half of them say nothing, half say what is no handshake; some start one and stop in the middle of a large frame. */
static void open_raw_strangers(const struct story *s, int fds[N_RAW])
{
    for (int i = 0; i < N_RAW; i++) {
        fds[i] = connect_raw(s);
        if (i < N_HEAVY)
            send_heavy_handshake(fds[i]);
        else if (i % 2 == 0)
            (void)!send(fds[i], "GET / HTTP/1.1\r\n\r\n", 18, MSG_NOSIGNAL);
    }
}

/* In a process of its own: opens them all, says so, and holds them until it is killed. */
static pid_t start_strangers(const struct story *s, int *told)
{
    int fds[2];
    CHECK(pipe(fds) == 0);
    fflush(stdout);
    pid_t pid = fork();
    CHECK(pid >= 0);
    *told = fds[0];
    if (pid > 0) {
        close(fds[1]);
        return pid;
    }
    int raw[N_RAW];
    open_raw_strangers(s, raw);
    void *zmq = zmq_ctx_new();
    for (int i = 0; i < N_KEYED; i++)
        open_keyed_stranger(zmq, s);
    CHECK(write(fds[1], "x", 1) == 1);
    for (;;)
        pause();
}

/* Results of a lease one after the other, as long as there are jobs; the slowest acknowledgement. */
struct shift {
    json_t *lease;
    size_t next;
    int64_t slowest_ns, most_bytes;
};

static void work_once(const struct story *s, struct played *p, struct shift *w)
{
    if (w->next == json_array_size(json_object_get(w->lease, "jobs"))) {
        json_decref(w->lease);
        w->lease = played_lease(p);
        w->next = 0;
    }
    played_beat(p);
    int64_t start_ns = clock_mono_ns();
    played_result(p, w->lease, w->next++);
    EXPECT(strcmp(played_verdict(p, 5), "accepted") == 0, "a result among strangers");
    int64_t took_ns = clock_mono_ns() - start_ns, bytes = cluster_memory(s->run.coordinator);
    w->slowest_ns = took_ns > w->slowest_ns ? took_ns : w->slowest_ns;
    w->most_bytes = bytes > w->most_bytes ? bytes : w->most_bytes;
}

static void thousand_strangers_do_not_stop_those_who_work(void)
{
    const struct rlimit files = {4096, 1 << 20};
    setrlimit(RLIMIT_NOFILE, &files);
    struct story s = open_story();
    struct played p = play(&s, &s.worker, 'a');
    played_register(&p);
    struct shift w = {.lease = played_lease(&p)};
    int told = -1;
    int64_t before = cluster_memory(s.run.coordinator),
            end_ns = clock_mono_ns() + 60 * CLOCK_NS_PER_S;
    pid_t strangers = start_strangers(&s, &told);
    CHECK(fcntl(told, F_SETFL, O_NONBLOCK) == 0);
    char byte;
    bool are_open = false;
    int n_results = 0;
    for (; clock_mono_ns() < end_ns && n_results < 45; n_results++) {
        work_once(&s, &p, &w);
        usleep(are_open ? 20000 : 200000);
        are_open = are_open || read(told, &byte, 1) == 1;
    }
    EXPECT(are_open, "the strangers did not get through the door's queue");
    EXPECT(log_has(&s, "door stranger count=256"), "the strangers with keys are not all counted");
    struct played late = play(&s, &s.gpu7, 'b');
    played_register(&late); /* there is room for one more who is listed */
    printf(
        "%d strangers: %d results meanwhile, slowest acknowledgement %.0f ms, memory %.1f -> %.1f "
        "MiB\n",
        N_KEYED + N_RAW, n_results, (double)w.slowest_ns * 1e-6, (double)before / 0x1p20,
        (double)w.most_bytes / 0x1p20);
    EXPECT(w.slowest_ns < 2 * CLOCK_NS_PER_S, "one took %.1f s", (double)w.slowest_ns * 1e-9);
    EXPECT(w.most_bytes - before < (int64_t)N_HEAVY * HEAVY_BYTES + (64 << 20),
           "memory grew by %.1f MiB", (double)(w.most_bytes - before) / 0x1p20);
    cluster_kill(strangers);
    close(told);
    json_decref(w.lease);
    played_close(&late);
    played_close(&p);
    close_story(&s);
}

int main(void)
{
    listed_keys_work_and_strangers_get_nothing();
    nobody_takes_over_anothers_work();
    revoked_key_is_out_at_once();
    readers_may_ask_and_nothing_else();
    thousand_strangers_do_not_stop_those_who_work();
    return cluster_failures() > 0;
}
