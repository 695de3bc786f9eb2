/* Story: what schema/PROTOCOL.md promises, asked of a real coordinator by a worker that the test plays: acknowledged means
 * on disk, late and doubled results do not count, strangers and garbage do no harm, a full disk loses nothing. */
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zmq.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/mem.h"
#include "schema/link.h"
#include "tests/support/played.h"
#include "tests/support/smoke.h"
#include "tests/support/support.h"

struct story {
    struct smoke run;
    struct link_context *context;
};

static struct story open_story(void)
{
    struct story s = {.run = smoke_open()};
    struct err e;
    smoke_serve(&s.run, NULL);
    CHECK(link_context_new(&s.context, &e) == ERR_OK);
    return s;
}

static void close_story(struct story *s)
{
    EXPECT(cluster_wait(s->run.coordinator, 0) == -1, "the coordinator did not survive");
    link_context_free(s->context);
    smoke_close(&s->run);
}

static struct played play(const struct story *s, char id)
{
    return played_open(s->context, s->run.endpoint, NULL, id);
}

static int64_t n_done(const struct story *s)
{
    return cluster_query(s->run.db, SMOKE_DONE);
}

/* ---- the promises ---- */

static void acknowledged_is_on_disk_and_doubles_do_not_count(void)
{
    struct story s = open_story();
    struct played f = play(&s, 'a');
    played_register(&f);
    json_t *lease = played_lease(&f);
    for (int i = 0; i < 3; i++) {
        played_result(&f, lease, (size_t)i);
        const char *v = played_verdict(&f, 5);
        EXPECT(strcmp(v, "accepted") == 0, "result %d: \"%s\"", i, v);
        EXPECT(n_done(&s) == i + 1, "acknowledged, but %lld done", (long long)n_done(&s));
        played_result(&f, lease, (size_t)i);
        v = played_verdict(&f, 5);
        EXPECT(strcmp(v, "fenced") == 0, "doubled result %d: \"%s\"", i, v);
    }
    int64_t twice = cluster_query(
        s.run.db,
        "SELECT count(*) FROM (SELECT 1 FROM results GROUP BY key, metric HAVING count(*) > 1)");
    EXPECT(twice == 0, "%lld results stand twice", (long long)twice);
    json_decref(lease);
    played_close(&f);
    close_story(&s);
}

static void strangers_are_asked_to_register(void)
{
    struct story s = open_story();
    struct played f = play(&s, 'a'), other = play(&s, 'b');
    f.session = 12345;
    played_beat(&f);
    json_t *m = played_await(&f, WIRE_REGISTER, 5);
    EXPECT(m != NULL, "no REGISTER for an unknown session");
    json_decref(m);
    played_register(&f);
    other.session = f.session; /* a session of another connection */
    played_send(&other, WIRE_CREDIT, json_pack("{s:i}", "slices", 1));
    m = played_await(&other, WIRE_REGISTER, 5);
    EXPECT(m != NULL, "no REGISTER for somebody else's session");
    json_decref(m);
    played_close(&other);
    played_close(&f);
    close_story(&s);
}

static void other_versions_are_refused(void)
{
    struct story s = open_story();
    struct played f = play(&s, 'a');
    played_send(&f, WIRE_HELLO, played_hello_body(&f, WIRE_NUMERICS + 1));
    json_t *m = played_await(&f, WIRE_REFUSE, 5);
    EXPECT(m != NULL && strstr(json_opt_str(m, "text", ""), "numerics") != NULL, "no REFUSE");
    json_decref(m);
    played_close(&f);
    close_story(&s);
}

/* Frames as only a broken or hostile peer sends them, on a DEALER of its own. */
static void send_frames(void *socket, const char *const *frames, const size_t *sizes, int n)
{
    for (int i = 0; i < n; i++)
        CHECK(zmq_send(socket, frames[i], sizes[i], i + 1 < n ? ZMQ_SNDMORE : 0) >= 0);
}

static void send_garbage(const char *endpoint)
{
    static const char header[] = "ibit\x01\x01\0\0", next[] = "ibit\x02\x01\0\0";
    void *context = zmq_ctx_new(), *socket = zmq_socket(context, ZMQ_DEALER);
    CHECK(zmq_connect(socket, endpoint) == 0);
    const char *const rows[][3] = {{"x"},
                                   {"", ""},
                                   {header, "not json"},
                                   {header, "{}"},
                                   {header, "[]"},
                                   {header, "{\"uuid\":\"a\"}"},
                                   {next, "{}"},
                                   {header, "{\"session\":1e99}", "blob"}};
    static const size_t sizes[][3] = {{1},    {0, 0},  {8, 8}, {8, 2},
                                      {8, 2}, {8, 12}, {8, 2}, {8, 16, 4}};
    static const int n[] = {1, 2, 2, 2, 2, 2, 2, 3};
    for (int repeat = 0; repeat < 20; repeat++)
        for (size_t i = 0; i < ARRAY_LEN(n); i++)
            send_frames(socket, rows[i], sizes[i], n[i]);
    const char *many[40];
    size_t lengths[40];
    for (int i = 0; i < 40; i++) {
        many[i] = header;
        lengths[i] = 8;
    }
    send_frames(socket, many, lengths, 40);
    zmq_close(socket);
    zmq_ctx_term(context);
}

/* Bytes that are not even ZeroMQ's. */
static void send_http(const char *endpoint)
{
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *to = NULL;
    CHECK(getaddrinfo("127.0.0.1", strrchr(endpoint, ':') + 1, &hints, &to) == 0);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(fd, to->ai_addr, to->ai_addrlen) == 0);
    static const char text[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    CHECK(send(fd, text, sizeof(text) - 1, MSG_NOSIGNAL) > 0);
    close(fd);
    freeaddrinfo(to);
}

static void garbage_does_no_harm(void)
{
    struct story s = open_story();
    send_garbage(s.run.endpoint);
    send_http(s.run.endpoint);
    struct played f = play(&s, 'a');
    played_register(&f);
    json_t *lease = played_lease(&f);
    json_t *jobs = json_object_get(lease, "jobs");
    /* A result that does not decode is answered as a failure, so that it is not offered for ever. */
    played_send(&f, WIRE_RESULT,
                json_pack("{s:O, s:O, s:{}}", "job", json_array_get(json_array_get(jobs, 0), 0),
                          "attempt", json_array_get(json_array_get(jobs, 0), 1), "result"));
    EXPECT(strcmp(played_verdict(&f, 5), "accepted") == 0, "no ACK for a malformed result");
    EXPECT(n_done(&s) == 0, "a malformed result counts");
    played_send(&f, WIRE_RESULT, json_object());
    played_send(&f, WIRE_CREDIT, json_pack("{s:i}", "slices", -1));
    played_send(&f, WIRE_LEASE, json_object());
    played_send(&f, WIRE_ITEMS, json_object());
    played_result(&f, lease, 1);
    EXPECT(strcmp(played_verdict(&f, 5), "accepted") == 0, "no ACK after garbage");
    json_decref(lease);
    played_close(&f);
    close_story(&s);
}

static void late_result_of_a_silent_worker_is_fenced(void)
{
    struct story s = open_story();
    struct played late = play(&s, 'a'), quick = play(&s, 'b');
    played_register(&late);
    json_t *lost = played_lease(&late);
    EXPECT(cluster_await(s.run.db, "SELECT count(*) FROM jobs WHERE state = 'leased'", 0, 5),
           "the lease of a silent worker did not end");
    played_register(&quick);
    json_t *lease = played_lease(&quick);
    int64_t job =
        json_integer_value(json_array_get(json_array_get(json_object_get(lost, "jobs"), 0), 0));
    bool is_found = false;
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(lease, "jobs"), i,
                       row) if (json_integer_value(json_array_get(row, 0)) == job)
    {
        EXPECT(json_integer_value(json_array_get(row, 1)) == 2,
               "the second attempt is not number 2");
        played_result(&quick, lease, i);
        is_found = true;
    }
    if (is_found)
        EXPECT(strcmp(played_verdict(&quick, 5), "accepted") == 0, "the second worker's result");
    int64_t before = n_done(&s);
    played_result(&late, lost, 0);
    json_t *m = played_await(&late, WIRE_REGISTER, 5);
    EXPECT(m != NULL, "no REGISTER for an ended session");
    json_decref(m);
    played_register(&late);
    played_result(&late, lost, 0);
    EXPECT(strcmp(played_verdict(&late, 5), "fenced") == 0, "the late result was not fenced");
    EXPECT(n_done(&s) == before, "the late result counts");
    json_decref(lost);
    json_decref(lease);
    played_close(&late);
    played_close(&quick);
    close_story(&s);
}

/* Whether one of so many beats is answered by REGISTER. */
static bool is_asked_to_register(struct played *f, int n_beats)
{
    bool is_asked = false;
    for (int i = 0; i < n_beats && !is_asked; i++) {
        played_beat(f);
        json_t *m = played_await(f, WIRE_REGISTER, 0.1);
        is_asked = m != NULL;
        json_decref(m);
    }
    return is_asked;
}

/* What the worker holds is as if it had never arrived; its beats tell. */
static void lose_lease(struct story *s, struct played *f)
{
    json_array_clear(f->held);
    EXPECT(is_asked_to_register(f, 20), "nobody noticed that the LEASE was lost");
    played_register(f);
    EXPECT(cluster_await(s->run.db, "SELECT count(*) FROM jobs WHERE state = 'leased'", 0, 2),
           "jobs that nobody has stay leased");
    EXPECT(cluster_query(s->run.db, "SELECT count(*) FROM failures") == 0, "it cost an attempt");
}

static void lost_lease_is_noticed(void)
{
    struct story s = open_story();
    struct played f = play(&s, 'a');
    played_register(&f);
    json_decref(played_lease(&f));
    lose_lease(&s, &f);
    played_close(&f);
    close_story(&s);
}

/* Doubled results are acknowledged as often as the lease has jobs: that does not count for the jobs that never arrived. */
static void lost_lease_is_noticed_beside_doubled_results(void)
{
    struct story s = open_story();
    struct played f = play(&s, 'a');
    played_register(&f);
    json_t *lease = played_lease(&f);
    const size_t n = json_array_size(json_object_get(lease, "jobs"));
    EXPECT(n > 1, "a lease of %zu jobs", n);
    for (size_t i = 0; i < n; i++) {
        played_result(&f, lease, 0);
        const char *v = played_verdict(&f, 5);
        EXPECT(strcmp(v, i == 0 ? "accepted" : "fenced") == 0, "result %zu: \"%s\"", i, v);
    }
    json_decref(lease);
    lose_lease(&s, &f);
    played_close(&f);
    close_story(&s);
}

/* A CREDIT that never arrived, or that a late HELLO undid: worker and coordinator would wait for each other. */
static void lost_credit_is_noticed(void)
{
    struct story s = open_story();
    struct played f = play(&s, 'a');
    played_register(&f);
    EXPECT(!is_asked_to_register(&f, 6), "nothing is lost");
    f.credit = 1;
    EXPECT(is_asked_to_register(&f, 20), "nobody noticed that the CREDIT was lost");
    f.credit = 0;
    played_register(&f);
    json_decref(played_lease(&f));
    EXPECT(!is_asked_to_register(&f, 6), "nothing is lost behind a LEASE");
    played_close(&f);
    close_story(&s);
}

/* `isobit explain` says so of jobs of this task. */
static void expect_explained(const struct story *s, const char *task, const char *words)
{
    char *pattern = xasprintf("*|task=%s|*", task);
    char *path = xasprintf("%s/explained", s->run.dir);
    const char *const args[] = {"explain", "--db", s->run.db, pattern, NULL};
    struct buf text = {0};
    struct err e;
    EXPECT(cluster_wait(cluster_start("isobit", args, path), 10) == 0, "explain failed");
    CHECK(io_read_file(path, 1 << 20, &text, &e) == ERR_OK);
    EXPECT(strstr(text.data, words) != NULL, "explained: %s", text.data);
    buf_release(&text);
    xfree(path);
    xfree(pattern);
}

/* What a worker lacks of one evaluation keeps it from that evaluation, not from the checkpoint. */
static void missing_data_leave_the_checkpoint(void)
{
    struct story s = open_story();
    struct played f = play(&s, 'a');
    played_register(&f);
    json_t *lease = played_lease(&f);
    const json_t *jobs = json_object_get(lease, "jobs"), *first = json_array_get(jobs, 0);
    const json_t *model = json_object_get(lease, "model");
    const json_t *absent = json_array_get(json_object_get(lease, "evals"),
                                          (size_t)json_integer_value(json_array_get(first, 3)));
    played_send(&f, WIRE_RETURN,
                json_pack("{s:s, s:s, s:s, s:s, s:[[O, O]]}", "reason", "missing", "code",
                          "NOTFOUND", "lacks", "data", "text", "no file", "jobs",
                          json_array_get(first, 0), json_array_get(first, 1)));
    EXPECT(strcmp(played_verdict(&f, 5), "accepted") == 0, "no ACK");
    for (size_t i = 1; i < json_array_size(jobs); i++) {
        played_result(&f, lease, i);
        EXPECT(strcmp(played_verdict(&f, 5), "accepted") == 0, "no ACK");
    }
    expect_explained(&s, json_opt_str(absent, "task", ""), "gave it back: no file");
    expect_explained(&s, json_opt_str(absent, "task", ""), "has not the data of");
    json_t *next = played_lease(&f);
    EXPECT(json_equal(json_object_get(next, "model"), model), "it left its checkpoint");
    size_t i;
    json_t *eval;
    json_array_foreach(json_object_get(next, "evals"), i, eval)
        EXPECT(strcmp(json_opt_str(eval, "name", ""), json_opt_str(absent, "name", "")) != 0,
               "it is given %s again", json_opt_str(eval, "name", ""));
    json_decref(next);
    json_decref(lease);
    played_close(&f);
    close_story(&s);
}

static void restart_takes_leases_up_again(void)
{
    struct story s = open_story();
    struct played f = play(&s, 'a');
    played_register(&f);
    json_t *lease = played_lease(&f);
    cluster_kill(s.run.coordinator);
    smoke_serve(&s.run, NULL);
    played_beat(&f);
    json_t *m = played_await(&f, WIRE_REGISTER, 5);
    EXPECT(m != NULL, "no REGISTER after the restart");
    json_decref(m);
    played_register(&f);
    played_result(&f, lease, 0);
    EXPECT(strcmp(played_verdict(&f, 5), "accepted") == 0, "a held lease was not taken up again");
    EXPECT(n_done(&s) == 1, "%lld done", (long long)n_done(&s));
    json_decref(lease);
    played_close(&f);
    close_story(&s);
}

/* A coordinator that stood still past a lease (SIGSTOP, a machine put to sleep) has heard nobody meanwhile: that is no
 * worker's fault. Who stays silent afterwards is lost all the same. */
static void own_pause_ends_no_lease(void)
{
    struct story s = open_story();
    struct played f = play(&s, 'a');
    played_register(&f);
    json_t *lease = played_lease(&f);
    CHECK(kill(s.run.coordinator, SIGSTOP) == 0);
    usleep(2500000);
    CHECK(kill(s.run.coordinator, SIGCONT) == 0);
    usleep(500000);
    played_result(&f, lease, 0);
    EXPECT(strcmp(played_verdict(&f, 5), "accepted") == 0, "its lease was ended");
    EXPECT(cluster_query(s.run.db, "SELECT count(*) FROM failures") == 0, "it cost an attempt");
    EXPECT(cluster_await(s.run.db, "SELECT count(*) FROM failures WHERE outcome = 'lost'", 1, 5),
           "a worker that stays silent is not lost");
    json_decref(lease);
    played_close(&f);
    close_story(&s);
}

static void full_disk_loses_nothing(void)
{
    struct story s = open_story();
    struct played f = play(&s, 'a');
    played_register(&f);
    json_t *lease = played_lease(&f);
    struct rlimit full = {1, RLIM_INFINITY}, free_again = {RLIM_INFINITY, RLIM_INFINITY};
    CHECK(prlimit(s.run.coordinator, RLIMIT_FSIZE, &full, NULL) == 0);
    played_result(&f, lease, 0);
    EXPECT(strcmp(played_verdict(&f, 1.0), "") == 0, "acknowledged with a full disk");
    json_t *m = played_await(&f, WIRE_BEAT, 1.0);
    EXPECT(m != NULL, "heartbeats stopped with a full disk");
    json_decref(m);
    EXPECT(n_done(&s) == 0, "done with a full disk");
    CHECK(prlimit(s.run.coordinator, RLIMIT_FSIZE, &free_again, NULL) == 0);
    EXPECT(strcmp(played_verdict(&f, 10), "accepted") == 0,
           "the coordinator did not go on when there was room again");
    EXPECT(n_done(&s) == 1, "%lld done", (long long)n_done(&s));
    json_decref(lease);
    played_close(&f);
    close_story(&s);
}

int main(void)
{
    acknowledged_is_on_disk_and_doubles_do_not_count();
    strangers_are_asked_to_register();
    other_versions_are_refused();
    garbage_does_no_harm();
    late_result_of_a_silent_worker_is_fenced();
    lost_lease_is_noticed();
    lost_lease_is_noticed_beside_doubled_results();
    lost_credit_is_noticed();
    missing_data_leave_the_checkpoint();
    restart_takes_leases_up_again();
    own_pause_ends_no_lease();
    full_disk_loses_nothing();
    return cluster_failures() > 0;
}
