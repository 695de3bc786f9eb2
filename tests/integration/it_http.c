/* The web side of a coordinator from outside: what it says, whom it refuses, and that nothing sent to it disturbs the work. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/json.h"
#include "base/mem.h"
#include "schema/store.h"
#include "tests/support/cluster.h"
#include "tests/support/fake_compute.h"
#include "tests/support/support.h"

struct story {
    char *dir, *db, *log;
    char endpoint[256];
    pid_t serve, worker;
    int port;
};

static struct story open_story(void)
{
    static const char *const http[] = {"--http", "127.0.0.1:0", NULL};
    char url[128];
    struct story s = {.dir = support_tmpdir(), .endpoint = "tcp://127.0.0.1:0"};
    s.db = xasprintf("%s/s.db", s.dir);
    s.log = xasprintf("%s/serve.log", s.dir);
    cluster_plan("sweeps/demo.yaml", s.db);
    s.serve = cluster_serve(s.db, s.endpoint, s.log, http);
    cluster_page(s.log, url);
    CHECK(sscanf(url, "http://127.0.0.1:%d/", &s.port) == 1);
    char *worker_log = xasprintf("%s/worker.log", s.dir);
    const char *const compute[] = {"--compute-program", fake_compute_path(), NULL};
    s.worker = cluster_worker(s.endpoint, worker_log, compute);
    xfree(worker_log);
    return s;
}

static void close_story(struct story *s)
{
    cluster_kill(s->worker);
    cluster_kill(s->serve);
    support_tmpdir_remove(s->dir);
    xfree(s->db);
    xfree(s->log);
}

/* ---- requests ---- */

static int dial(int port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0);
    return fd;
}

/* Everything the server says until it hangs up; the status of its first line, 0 when it says nothing. */
static int listen_to(int fd, struct buf *said, double seconds)
{
    int64_t end_ns = clock_mono_ns() + (int64_t)(seconds * CLOCK_NS_PER_S);
    char chunk[16384];
    int status = 0;
    for (ssize_t n = 1; n > 0 && clock_mono_ns() < end_ns;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, 100) <= 0)
            continue;
        n = recv(fd, chunk, sizeof(chunk), 0);
        if (n > 0)
            buf_add(said, chunk, (size_t)n);
    }
    if (said->data != NULL && sscanf(said->data, "HTTP/1.%*d %d", &status) != 1)
        status = 0;
    return status;
}

static int ask_raw(int port, const void *bytes, size_t n, struct buf *said)
{
    int fd = dial(port);
    (void)!send(fd, bytes, n, MSG_NOSIGNAL);
    int status = listen_to(fd, said, 8);
    close(fd);
    return status;
}

/* The body goes into *body (released by the caller). */
static int ask(int port, const char *method, const char *path, const char *headers,
               struct buf *body)
{
    struct buf said = {0};
    char *request =
        xasprintf("%s %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n%s\r\n", method, path, port, headers);
    int status = ask_raw(port, request, strlen(request), &said);
    const char *at = said.data != NULL ? strstr(said.data, "\r\n\r\n") : NULL;
    if (at != NULL && body != NULL)
        buf_adds(body, at + 4);
    buf_release(&said);
    xfree(request);
    return status;
}

static json_t *ask_json(const struct story *s, const char *path)
{
    struct buf body = {0};
    struct err e = {0};
    json_t *doc = NULL;
    int status = ask(s->port, "GET", path, "", &body);
    EXPECT(status == 200, "%s: status %d", path, status);
    EXPECT(json_parse((struct str){body.data, body.len}, path, &doc, &e) == ERR_OK, "%s", e.text);
    buf_release(&body);
    return doc;
}

/* ---- what it says ---- */

static bool await_number(const struct story *s, const char *path, const char *list, double seconds)
{
    int64_t end_ns = clock_mono_ns() + (int64_t)(seconds * CLOCK_NS_PER_S);
    for (;;) {
        json_t *doc = ask_json(s, path);
        bool is_there = json_array_size(json_object_get(doc, list)) > 0;
        json_decref(doc);
        if (is_there || clock_mono_ns() > end_ns)
            return is_there;
        usleep(200000);
    }
}

static void documents_say_what_the_database_does(const struct story *s)
{
    EXPECT(cluster_await(s->db, "SELECT count(*) FROM jobs WHERE state <> 'done'", 0, 60),
           "the sweep does not end");
    usleep(2500000); /* documents are a second old, slow ones two */
    json_t *status = ask_json(s, "/api/status");
    const json_t *states = json_object_get(status, "states");
    EXPECT(json_opt_int(states, "done", -1) == 590, "done: %lld",
           (long long)json_opt_int(states, "done", -1));
    EXPECT(json_opt_int(status, "total", -1) == 590, "total");
    EXPECT(json_opt_int(status, "workers", -1) == 1, "workers");
    EXPECT(strcmp(json_opt_str(status, "endpoint", ""), s->endpoint) == 0, "endpoint");
    json_decref(status);
    json_t *progress = ask_json(s, "/api/progress");
    const json_t *rows = json_object_get(progress, "rows");
    int64_t n_done = 0;
    size_t i = 0;
    json_t *row = NULL;
    json_array_foreach(rows, i, row)
    {
        n_done += json_integer_value(json_array_get(row, 7));
    }
    EXPECT(strcmp(json_string_value(json_array_get(json_object_get(progress, "columns"), 7)),
                  "done") == 0,
           "the column of done jobs");
    EXPECT(n_done == 590, "cells hold %lld done jobs", (long long)n_done);
    json_decref(progress);
    EXPECT(await_number(s, "/api/scaling", "mean_zero_shot", 5), "no scaling curve");
    json_t *workers = ask_json(s, "/api/workers");
    const json_t *first = json_array_get(json_object_get(workers, "workers"), 0);
    EXPECT(strcmp(json_opt_str(first, "device", ""), "fake") == 0, "device");
    EXPECT(json_opt_str(first, "checkpoint", NULL) != NULL, "the loaded model");
    json_decref(workers);
    json_decref(ask_json(s, "/api/failures"));
}

/* Every line is a comment, or name{label="value",…} number. */
static void metrics_are_in_prometheus_form(const struct story *s)
{
    struct buf body = {0};
    struct support_run r;
    EXPECT(ask(s->port, "GET", "/metrics", "", &body) == 200, "no metrics");
    char *path = xasprintf("%s/metrics", s->dir);
    support_write(path, body.data, body.len);
    char *command = xasprintf(
        "grep -vE '^# (HELP|TYPE) [a-z_]+ .+$|^[a-z_]+(\\{([a-z_]+=\"([^\"\\\\]|\\\\.)*\",?)+\\})? "
        "[-+0-9.e]+$' %s",
        path);
    r = support_shell(command);
    EXPECT(r.status == 1, "these lines are no metrics:\n%s", r.out.data);
    support_run_release(&r);
    static const char *const wanted[] = {
        "isobit_jobs{sweep=\"demo\",state=\"done\"} 590\n", "isobit_results_total 590\n",
        "isobit_workers{state=\"live\"} 1\n", "process_resident_memory_bytes "};
    for (size_t i = 0; i < ARRAY_LEN(wanted); i++)
        EXPECT(strstr(body.data, wanted[i]) != NULL, "%s is missing", wanted[i]);
    xfree(command);
    xfree(path);
    buf_release(&body);
}

/* ---- whom it refuses ---- */

static void only_reading_is_allowed(const struct story *s)
{
    static const char *const methods[] = {"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"};
    for (size_t i = 0; i < ARRAY_LEN(methods); i++) {
        int status = ask(s->port, methods[i], "/api/status", "Content-Length: 0\r\n", NULL);
        EXPECT(status == 405, "%s: %d", methods[i], status);
    }
    static const char *const absent[] = {"/../../etc/passwd",   "/..%2f..%2fetc/passwd",
                                         "/page.js/../../s.db", "//etc/passwd",
                                         "/api/status/",        "/s.db",
                                         "/api/status%00.html"};
    for (size_t i = 0; i < ARRAY_LEN(absent); i++) {
        int status = ask(s->port, "GET", absent[i], "", NULL);
        bool is_refused = status == 404 || status == 400 || status == 0;
        EXPECT(is_refused || i == 6, "%s: %d", absent[i], status); /* %00 ends a path */
    }
    EXPECT(ask(s->port, "HEAD", "/healthz", "", NULL) == 200, "HEAD");
}

static void other_names_and_other_addresses_are_refused(const struct story *s)
{
    struct buf said = {0};
    static const char foreign[] = "GET /api/status HTTP/1.1\r\nHost: evil.example\r\n\r\n";
    EXPECT(ask_raw(s->port, foreign, strlen(foreign), &said) == 403, "a foreign Host");
    buf_reset(&said);
    static const char local[] = "GET /api/status HTTP/1.1\r\nHost: localhost\r\n\r\n";
    EXPECT(ask_raw(s->port, local, strlen(local), &said) == 200, "Host localhost");
    buf_release(&said);
    char *command = xasprintf(
        "isobit serve --db %s/other.db --listen tcp://127.0.0.1:0 --http 0.0.0.0:0", s->dir);
    struct support_run r = support_shell(command);
    EXPECT(r.status == 4, "0.0.0.0: %d", r.status);
    EXPECT(strstr(r.err.data, "ssh -L") != NULL, "no remedy: %s", r.err.data);
    support_run_release(&r);
    xfree(command);
}

/* ---- hostility ---- */

static void garbage_ends_its_own_connection_only(const struct story *s)
{
    static const char *const garbage[] = {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
                                          "GET\r\n\r\n",
                                          "GET / HTTP/9.9\r\n\r\n",
                                          "\r\n\r\n\r\n\r\n\r\n",
                                          "GET / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
                                          "GET / HTTP/1.1\r\n: x\r\n\r\n"};
    for (size_t i = 0; i < ARRAY_LEN(garbage); i++) {
        struct buf said = {0};
        ask_raw(s->port, garbage[i], strlen(garbage[i]), &said);
        buf_release(&said);
    }
    size_t n = (size_t)1 << 20;
    char *huge = xmalloc(n);
    memset(huge, 'a', n);
    memcpy(huge, "GET /", 5);
    struct buf said = {0};
    int status = ask_raw(s->port, huge, n, &said);
    EXPECT(status == 414 || status == 431 || status == 413 || status == 400 || status == 0,
           "a path of a mebibyte: %d", status);
    buf_reset(&said);
    memcpy(huge, "GET / HTTP/1.1\r\nX: ", 19);
    status = ask_raw(s->port, huge, n, &said);
    EXPECT(status == 431 || status == 413 || status == 400 || status == 0,
           "a header of a mebibyte: %d", status);
    buf_release(&said);
    xfree(huge);
    EXPECT(ask(s->port, "GET", "/healthz", "", NULL) == 200, "not healthy after garbage");
}

static bool is_answered_within_a_second(int port)
{
    static const char request[] = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    struct buf said = {0};
    int fd = dial(port);
    (void)!send(fd, request, sizeof(request) - 1, MSG_NOSIGNAL);
    bool is_good = listen_to(fd, &said, 1) == 200;
    close(fd);
    buf_release(&said);
    return is_good;
}

/* More slow requests than connections are allowed, a byte a second each: workers do not feel it, and the page is back when the
 * slow ones have had their time. */
static void slow_requests_block_neither_work_nor_page_for_long(struct story *s)
{
    enum { N = 100 };
    int fds[N];
    for (int i = 0; i < N; i++)
        fds[i] = dial(s->port);
    char *command = xasprintf("isobit retry --db %s --done '*'", s->db);
    struct support_run r = support_shell(command);
    EXPECT(r.status == 0, "%s", r.err.data);
    support_run_release(&r);
    xfree(command);
    bool is_back = false;
    int64_t began_ns = clock_mono_ns();
    while (!is_back && clock_seconds_since(began_ns) < 30) {
        for (int i = 0; i < N; i++)
            (void)!send(fds[i], "G", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
        is_back = is_answered_within_a_second(s->port) && clock_seconds_since(began_ns) > 2;
    }
    EXPECT(is_back, "the page stays away");
    EXPECT(cluster_await(s->db, "SELECT count(*) FROM jobs WHERE state <> 'done'", 0, 30),
           "jobs stand still");
    for (int i = 0; i < N; i++)
        close(fds[i]);
}

static bool await_health(const struct story *s, int wanted, double seconds)
{
    int64_t end_ns = clock_mono_ns() + (int64_t)(seconds * CLOCK_NS_PER_S);
    while (clock_mono_ns() < end_ns) {
        if (ask(s->port, "GET", "/healthz", "", NULL) == wanted)
            return true;
        usleep(200000);
    }
    return false;
}

/* Somebody else holds the database's write lock longer than the coordinator waits for it. */
static void trouble_with_the_database_is_shown(const struct story *s)
{
    struct store *other = NULL;
    struct err e = {0};
    CHECK(store_open(s->db, STORE_WRITE, &other, &e) == ERR_OK);
    EXPECT(store_begin(other, &e) == ERR_OK, "%s", e.text);
    EXPECT(await_health(s, 503, 40), "a coordinator that cannot write calls itself healthy");
    store_rollback(other);
    store_close(other);
    EXPECT(await_health(s, 200, 60), "it does not recover");
}

int main(int argc, char **argv)
{
    if (fake_compute_main(argc, argv))
        return 0;
    struct story s = open_story();
    documents_say_what_the_database_does(&s);
    metrics_are_in_prometheus_form(&s);
    only_reading_is_allowed(&s);
    other_names_and_other_addresses_are_refused(&s);
    garbage_ends_its_own_connection_only(&s);
    slow_requests_block_neither_work_nor_page_for_long(&s);
    trouble_with_the_database_is_shown(&s);
    kill(s.serve, SIGTERM);
    int status = cluster_wait(s.serve, 10);
    EXPECT(status == 0, "serve ended with %d", status);
    s.serve = 0;
    close_story(&s);
    return cluster_failures() > 0;
}
