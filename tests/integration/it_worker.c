/* Story: what schema/PROTOCOL.md asks of a worker, with a coordinator that the test plays: results are kept until they are
 * acknowledged, revoked and unrunnable jobs come back, a refusal ends it. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/mem.h"
#include "schema/link.h"
#include "tests/support/cluster.h"
#include "tests/support/fake_compute.h"
#include "tests/support/support.h"

struct story {
    char *dir, *log;
    struct link_context *context;
    struct link *link;
    struct link_peer worker;
    pid_t pid;
};

static struct story open_story(const char *self, const char *job_ms)
{
    struct story s = {.dir = support_tmpdir()};
    struct err e;
    char endpoint[256];
    const char *const extra[] = {"--compute-program", self, "--grace", "1", NULL};
    setenv("ISOBIT_FAKE_MS", job_ms, 1);
    s.log = xasprintf("%s/log", s.dir);
    CHECK(link_context_new(&s.context, &e) == ERR_OK);
    CHECK(link_listen(s.context, "tcp://127.0.0.1:0", NULL, endpoint, &s.link, &e) == ERR_OK);
    s.pid = cluster_worker(endpoint, s.log, extra);
    return s;
}

static void close_story(struct story *s)
{
    cluster_kill(s->pid);
    link_close(s->link);
    link_context_free(s->context);
    xfree(s->log);
    support_tmpdir_remove(s->dir);
}

/* The body of the next message of this type; others are passed over. NULL after `seconds`. */
static json_t *await_message(struct story *s, enum wire_type type, double seconds)
{
    int64_t end_ns = clock_mono_ns() + (int64_t)(seconds * CLOCK_NS_PER_S);
    while (clock_mono_ns() < end_ns) {
        struct link_inbox in;
        bool readable = false;
        link_wait(&s->link, 1, NULL, 0, CLOCK_NS_PER_S / 50, &readable);
        while (link_receive(s->link, &in)) {
            json_t *body = !in.is_bad && in.msg.type == type ? json_incref(in.msg.body) : NULL;
            s->worker = in.from;
            link_inbox_release(&in);
            if (body != NULL)
                return body;
        }
    }
    return NULL;
}

/* `body` is a stolen reference. */
static void tell(struct story *s, enum wire_type type, json_t *body)
{
    struct err e;
    enum err_code rc = link_send(s->link, &s->worker, type, body, NULL, 0, &e);
    EXPECT(rc == ERR_OK, "%s: %s", wire_type_name(type), e.text);
    json_decref(body);
}

/* HELLO, WELCOME, CREDIT; returns HELLO. */
static json_t *welcome(struct story *s, int64_t session)
{
    json_t *hello = await_message(s, WIRE_HELLO, 10);
    EXPECT(hello != NULL, "no HELLO");
    tell(s, WIRE_WELCOME,
         json_pack("{s:I, s:I, s:I}", "session", (json_int_t)session, "heartbeat_ns",
                   (json_int_t)CLOCK_NS_PER_S / 10, "lease_ns", (json_int_t)CLOCK_NS_PER_S));
    return hello;
}

/* Three jobs 1, 2, 3 of one checkpoint. */
static void lease(struct story *s)
{
    json_t *credit = await_message(s, WIRE_CREDIT, 5);
    EXPECT(json_opt_int(credit, "slices", 0) == 2, "credit is not 2");
    json_decref(credit);
    tell(s, WIRE_LEASE,
         json_pack(
             "{s:i, s:i, s:i, s:{s:s}, s:[{s:i}], s:[{s:s}], s:[[i,i,i,i],[i,i,i,i],[i,i,i,i]]}",
             "slice", 1, "lease_ns", 1, "estimated_bytes", 0, "model", "name", "m", "configs", "k",
             16, "evals", "data", "d", "jobs", 1, 1, 0, 0, 2, 1, 0, 0, 3, 1, 0, 0));
}

static void acknowledge(struct story *s, int64_t job, const char *verdict)
{
    tell(s, WIRE_ACK, json_pack("{s:[[I, i, s]]}", "jobs", (json_int_t)job, 1, verdict));
}

static int64_t awaited_job(struct story *s, enum wire_type type, const char *reason)
{
    json_t *m = await_message(s, type, 5);
    int64_t job = json_opt_int(m, "job", -1);
    if (type == WIRE_RETURN) {
        EXPECT(strcmp(json_opt_str(m, "reason", ""), reason) == 0, "returned as %s",
               json_opt_str(m, "reason", "nothing"));
        const json_t *row = json_array_get(json_object_get(m, "jobs"), 0);
        job = json_integer_value(json_array_get(row, 0));
    }
    json_decref(m);
    return job;
}

static void results_are_kept_until_acknowledged(const char *self)
{
    struct story s = open_story(self, "0");
    json_decref(welcome(&s, 1));
    lease(&s);
    for (int64_t job = 1; job <= 3; job++)
        EXPECT(awaited_job(&s, WIRE_RESULT, NULL) == job, "result of job %lld", (long long)job);
    acknowledge(&s, 2, "accepted");
    usleep(200000);
    tell(&s, WIRE_REGISTER, NULL);
    json_t *hello = welcome(&s, 2), *held = json_pack("[[i,i],[i,i]]", 1, 1, 3, 1);
    EXPECT(json_equal(json_object_get(hello, "held"), held), "held is not jobs 1 and 3");
    json_decref(hello);
    json_decref(held);
    EXPECT(awaited_job(&s, WIRE_RESULT, NULL) == 1, "job 1 was not sent again");
    EXPECT(awaited_job(&s, WIRE_RESULT, NULL) == 3, "job 3 was not sent again");
    acknowledge(&s, 1, "accepted");
    acknowledge(&s, 3, "fenced");
    tell(&s, WIRE_DRAIN, NULL);
    json_t *bye = await_message(&s, WIRE_BYE, 5);
    EXPECT(json_opt_int(bye, "session", 0) == 2, "no BYE");
    json_decref(bye);
    int status = cluster_wait(s.pid, 5);
    EXPECT(status == 0, "worker ended with %d", status);
    s.pid = 0;
    close_story(&s);
}

static void revoked_jobs_come_back(const char *self)
{
    struct story s = open_story(self, "60000");
    json_decref(welcome(&s, 1));
    lease(&s);
    usleep(300000); /* job 1 runs */
    tell(&s, WIRE_REVOKE, json_pack("{s:[i, i]}", "jobs", 2, 1));
    EXPECT(awaited_job(&s, WIRE_RETURN, "revoked") == 2, "the waiting job");
    EXPECT(awaited_job(&s, WIRE_RETURN, "revoked") == 1, "the running job");
    kill(s.pid, SIGTERM); /* grace of 1 s is too short for job 3 */
    EXPECT(awaited_job(&s, WIRE_RETURN, "drain") == 3, "the job cut short by leaving");
    close_story(&s);
}

static void unrunnable_checkpoint_comes_back_whole(const char *self)
{
    setenv("ISOBIT_FAKE_MISSING", "1", 1);
    struct story s = open_story(self, "50");
    json_decref(welcome(&s, 1));
    lease(&s);
    for (int64_t job = 1; job <= 3; job++)
        EXPECT(awaited_job(&s, WIRE_RETURN, "missing") == job, "job %lld", (long long)job);
    unsetenv("ISOBIT_FAKE_MISSING");
    close_story(&s);

    s = open_story(self, "100");
    json_decref(welcome(&s, 1));
    lease(&s);
    EXPECT(awaited_job(&s, WIRE_RESULT, NULL) == 1, "job 1");
    acknowledge(&s, 1, "denied"); /* job 2 is running by now */
    EXPECT(awaited_job(&s, WIRE_RETURN, "missing") == 3, "the rest of a denied checkpoint");
    close_story(&s);
}

/* Jobs 1 and 3 want data that are not here, job 2 others. */
static void absent_data_leave_the_rest_of_a_checkpoint(const char *self)
{
    setenv("ISOBIT_FAKE_MISSING", "1001", 1);
    setenv("ISOBIT_FAKE_LACKS", "data", 1);
    struct story s = open_story(self, "0");
    json_decref(welcome(&s, 1));
    json_decref(await_message(&s, WIRE_CREDIT, 5));
    tell(&s, WIRE_LEASE,
         json_pack("{s:i, s:i, s:i, s:{s:s}, s:[{s:i}], s:[{s:s}, {s:s}], "
                   "s:[[i,i,i,i],[i,i,i,i],[i,i,i,i]]}",
                   "slice", 1, "lease_ns", 1, "estimated_bytes", 0, "model", "name", "m", "configs",
                   "k", 16, "evals", "data", "d", "data", "e", "jobs", 1001, 1, 0, 0, 2, 1, 0, 1, 3,
                   1, 0, 0));
    for (int i = 0; i < 2; i++) {
        json_t *m = await_message(&s, WIRE_RETURN, 5);
        EXPECT(strcmp(json_opt_str(m, "lacks", ""), "data") == 0, "lacks %s",
               json_opt_str(m, "lacks", "nothing"));
        EXPECT(strcmp(json_opt_str(m, "code", ""), "NOTFOUND") == 0, "code");
        json_decref(m);
    }
    EXPECT(awaited_job(&s, WIRE_RESULT, NULL) == 2, "the other evaluation did not run");
    unsetenv("ISOBIT_FAKE_MISSING");
    unsetenv("ISOBIT_FAKE_LACKS");
    close_story(&s);
}

/* A job of 60 s in a sweep that allows one second. */
static void job_limit_ends_a_job(const char *self)
{
    struct story s = open_story(self, "60000");
    json_decref(welcome(&s, 1));
    json_decref(await_message(&s, WIRE_CREDIT, 5));
    tell(&s, WIRE_LEASE,
         json_pack("{s:i, s:i, s:i, s:i, s:{s:s}, s:[{s:i}], s:[{s:s}], s:[[i,i,i,i]]}", "slice", 1,
                   "lease_ns", 1, "limit_s", 1, "estimated_bytes", 0, "model", "name", "m",
                   "configs", "k", 16, "evals", "data", "d", "jobs", 1, 1, 0, 0));
    json_t *m = await_message(&s, WIRE_FAIL, 5);
    EXPECT(strcmp(json_opt_str(m, "code", ""), "TIMEOUT") == 0, "code %s",
           json_opt_str(m, "code", "none"));
    EXPECT(strstr(json_opt_str(m, "text", ""), "job_limit of 1 s") != NULL, "%s",
           json_opt_str(m, "text", ""));
    json_decref(m);
    close_story(&s);
}

static void killed_compute_process_is_one_failed_attempt(const char *self)
{
    setenv("ISOBIT_FAKE_CRASH", "2", 1);
    struct story s = open_story(self, "0");
    json_decref(welcome(&s, 1));
    lease(&s);
    json_t *m = await_message(&s, WIRE_FAIL, 5);
    EXPECT(json_opt_int(m, "job", 0) == 2, "job 2");
    EXPECT(strcmp(json_opt_str(m, "code", ""), "CRASHED") == 0, "code");
    EXPECT(strstr(json_opt_str(m, "text", ""), "signal 9") != NULL, "%s",
           json_opt_str(m, "text", ""));
    json_decref(m);
    EXPECT(awaited_job(&s, WIRE_RESULT, NULL) == 3, "the next job did not run");
    unsetenv("ISOBIT_FAKE_CRASH");
    close_story(&s);
}

/* Jobs 1 to 12 of one checkpoint, which share passes. */
static void lease_twelve(struct story *s, int limit_s)
{
    json_decref(await_message(s, WIRE_CREDIT, 5));
    json_t *jobs = json_array();
    for (int i = 1; i <= 12; i++)
        json_array_append_new(jobs, json_pack("[i, i, i, i]", i, 1, 0, 0));
    tell(s, WIRE_LEASE,
         json_pack("{s:i, s:i, s:i, s:i, s:{s:s}, s:[{s:i}], s:[{s:s}], s:o}", "slice", 1,
                   "lease_ns", 1, "limit_s", limit_s, "estimated_bytes", 0, "model", "name", "m",
                   "configs", "k", 16, "evals", "data", "d", "jobs", jobs));
}

/* Twelve jobs of 0.15 s in a sweep that allows a job one second: the last of them ends after 1.8 s, which is its pass's time
 * and not its own. */
static void job_limit_counts_all_jobs_of_a_pass(const char *self)
{
    setenv("ISOBIT_FAKE_PASSES", "1", 1);
    struct story s = open_story(self, "150");
    json_decref(welcome(&s, 1));
    lease_twelve(&s, 1);
    for (int64_t job = 1; job <= 12; job++)
        EXPECT(awaited_job(&s, WIRE_RESULT, NULL) == job, "job %lld", (long long)job);
    unsetenv("ISOBIT_FAKE_PASSES");
    close_story(&s);
}

/* The next RESULT or FAIL; *code is empty for a RESULT. 0: none comes. */
static int64_t awaited_answer(struct story *s, char code[16], double seconds)
{
    int64_t end_ns = clock_mono_ns() + (int64_t)(seconds * CLOCK_NS_PER_S), job = 0;
    while (job == 0 && clock_mono_ns() < end_ns) {
        struct link_inbox in;
        bool readable = false;
        link_wait(&s->link, 1, NULL, 0, CLOCK_NS_PER_S / 50, &readable);
        if (!link_receive(s->link, &in))
            continue;
        if (!in.is_bad && (in.msg.type == WIRE_RESULT || in.msg.type == WIRE_FAIL)) {
            job = json_opt_int(in.msg.body, "job", 0);
            snprintf(code, 16, "%s", json_opt_str(in.msg.body, "code", ""));
        }
        link_inbox_release(&in);
    }
    return job;
}

/* Whose fault it was that a pass broke off shows when the jobs run apart: no other has failed, and each has its result. */
static void a_job_that_breaks_passes_fails_alone(const char *self, const char *how,
                                                 const char *code_expected)
{
    setenv("ISOBIT_FAKE_PASSES", "1", 1);
    setenv("ISOBIT_JOB_TIMEOUT", "0.5", 1);
    setenv(how, "7", 1);
    struct story s = open_story(self, "0");
    json_decref(welcome(&s, 1));
    lease_twelve(&s, 0);
    int n_results = 0, n_failures = 0;
    char code[16];
    for (int64_t job; n_results + n_failures < 12 && (job = awaited_answer(&s, code, 10)) != 0;) {
        n_results += code[0] == '\0';
        n_failures += code[0] != '\0';
        EXPECT((job == 7) == (strcmp(code, code_expected) == 0), "job %lld: %s", (long long)job,
               code);
        acknowledge(&s, job, "accepted");
    }
    EXPECT(n_results == 11 && n_failures == 1, "%d results, %d failures", n_results, n_failures);
    unsetenv("ISOBIT_FAKE_PASSES");
    unsetenv("ISOBIT_JOB_TIMEOUT");
    unsetenv(how);
    close_story(&s);
}

static void refusal_ends_the_worker(const char *self)
{
    struct story s = open_story(self, "0");
    json_decref(await_message(&s, WIRE_HELLO, 10));
    tell(&s, WIRE_REFUSE,
         json_pack("{s:s, s:s}", "code", "VERSION", "text", "numerics version 1, not 2"));
    int status = cluster_wait(s.pid, 5);
    EXPECT(status == 4, "worker ended with %d", status);
    s.pid = 0;
    struct buf log = {0};
    struct err e;
    CHECK(io_read_file(s.log, 1 << 20, &log, &e) == ERR_OK);
    EXPECT(strstr(log.data, "numerics version 1, not 2") != NULL, "%s", log.data);
    buf_release(&log);
    close_story(&s);
}

/* A CUDA context that has met a fault fails everything after it. */
static void a_broken_device_fails_one_job(const char *self)
{
    setenv("ISOBIT_FAKE_DEVICE", "2", 1);
    struct story s = open_story(self, "0");
    json_decref(welcome(&s, 1));
    lease(&s);
    EXPECT(awaited_job(&s, WIRE_RESULT, NULL) == 1, "job 1");
    json_t *m = await_message(&s, WIRE_FAIL, 5);
    EXPECT(json_opt_int(m, "job", 0) == 2, "job 2");
    EXPECT(strcmp(json_opt_str(m, "code", ""), "DEVICE") == 0, "code");
    json_decref(m);
    EXPECT(awaited_job(&s, WIRE_RESULT, NULL) == 3, "the next job did not get a device that works");
    unsetenv("ISOBIT_FAKE_DEVICE");
    close_story(&s);
}

/* Else it would use up the attempts of every job there is. */
static void a_device_that_fails_everything_ends_the_worker(const char *self)
{
    setenv("ISOBIT_FAKE_DEVICE", "1", 1);
    struct story s = open_story(self, "0");
    json_decref(welcome(&s, 1));
    lease_twelve(&s, 0);
    int status = cluster_wait(s.pid, 10);
    EXPECT(status == 4, "worker ended with %d", status);
    s.pid = 0;
    unsetenv("ISOBIT_FAKE_DEVICE");
    close_story(&s);
}

/* It connects again after a silence, for which no descriptor is left. */
static void a_worker_out_of_sockets_ends_with_a_word(const char *self)
{
    struct story s = open_story(self, "0");
    const struct rlimit none = {.rlim_cur = 6, .rlim_max = 6}; /* poll wants as many */
    json_decref(await_message(&s, WIRE_HELLO, 10));
    EXPECT(prlimit(s.pid, RLIMIT_NOFILE, &none, NULL) == 0, "no limit");
    int status = cluster_wait(s.pid, 15);
    struct buf log = {0};
    struct err e;
    CHECK(io_read_file(s.log, 1 << 20, &log, &e) == ERR_OK);
    EXPECT(status == 4, "worker ended with %d: %s", status, log.data);
    buf_release(&log);
    s.pid = 0;
    close_story(&s);
}

int main(int argc, char **argv)
{
    if (fake_compute_main(argc, argv))
        return 0;
    const char *self = fake_compute_path();
    results_are_kept_until_acknowledged(self);
    revoked_jobs_come_back(self);
    unrunnable_checkpoint_comes_back_whole(self);
    absent_data_leave_the_rest_of_a_checkpoint(self);
    killed_compute_process_is_one_failed_attempt(self);
    a_job_that_breaks_passes_fails_alone(self, "ISOBIT_FAKE_CRASH", "CRASHED");
    a_job_that_breaks_passes_fails_alone(self, "ISOBIT_FAKE_HANG", "TIMEOUT");
    a_job_that_breaks_passes_fails_alone(self, "ISOBIT_FAKE_DEVICE", "DEVICE");
    a_broken_device_fails_one_job(self);
    a_device_that_fails_everything_ends_the_worker(self);
    job_limit_ends_a_job(self);
    job_limit_counts_all_jobs_of_a_pass(self);
    refusal_ends_the_worker(self);
    a_worker_out_of_sockets_ends_with_a_word(self);
    return cluster_failures() > 0;
}
