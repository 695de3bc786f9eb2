#include "tests/support/fake_compute.h"

#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/proc.h"
#include "base/sha256.h"
#include "schema/job_json.h"
#include "schema/pipe.h"

static int64_t env_int(const char *name)
{
    int64_t v = 0;
    const char *text = getenv(name);
    return text != NULL && parse_i64(str_of(text), &v) ? v : 0;
}

/* A number in [0, 1) that depends on every byte of the document. */
static double number_of(const json_t *doc)
{
    struct buf text = {0};
    char hex[SHA256_HEX];
    json_append(&text, doc, false);
    sha256_bytes(text.data, text.len, hex);
    buf_release(&text);
    hex[13] = '\0';
    return (double)strtoull(hex, NULL, 16) / 0x1p52;
}

json_t *fake_compute_result(const json_t *model, const json_t *config, const json_t *eval)
{
    const struct metric metric = {.name = "acc",
                                  .value =
                                      (number_of(model) + number_of(config) + number_of(eval)) / 3,
                                  .stderr_ = NAN,
                                  .n = 100};
    struct job_result r = {.metrics = &metric,
                           .n_metrics = 1,
                           .n = 100,
                           .tokens = 1000,
                           .seconds = 0.001,
                           .bits = {.per_param = 4.25,
                                    .total_full = 4250000,
                                    .total_nominal = 4250000,
                                    .total_linear = 4000000},
                           .n_params = 1000000,
                           .n_params_linear = 900000,
                           .device = "fake",
                           .program = "isobit 0.1.0"};
    sha256_bytes(json_opt_str(model, "name", ""), strlen(json_opt_str(model, "name", "")),
                 r.weights_sha256);
    sha256_bytes(json_opt_str(eval, "data", ""), strlen(json_opt_str(eval, "data", "")),
                 r.data_sha256);
    sha256_bytes("tokenizer", 9, r.tokenizer_sha256);
    return job_result_to_json(&r);
}

static void send_message(struct pipe *p, enum wire_type type, json_t *body)
{
    struct err e;
    if (pipe_send(p, type, body, NULL, 0, -1, &e) != ERR_OK)
        exit(0);
    json_decref(body);
}

static bool falls_on(const char *name, int64_t job)
{
    int64_t n = env_int(name);
    return n > 0 && job % n == 0;
}

/* Waits as a runner does: telling progress, and heeding a REVOKE. False: stopped. */
static bool work(struct pipe *p, int64_t ms, bool is_hanging)
{
    int64_t end_ns = clock_mono_ns() + ms * CLOCK_NS_PER_MS;
    for (int64_t counter = 1; is_hanging || clock_mono_ns() < end_ns; counter++) {
        struct wire_msg m;
        struct err e;
        bool found = false;
        if (!is_hanging)
            send_message(p, WIRE_PROGRESS, json_pack("{s:I}", "counter", (json_int_t)counter));
        int64_t left_us = (end_ns - clock_mono_ns()) / 1000;
        usleep(is_hanging || left_us > 5000 ? 5000 : left_us > 0 ? (useconds_t)left_us : 0);
        if (pipe_receive(p, &m, &found, &e) != ERR_OK)
            exit(0);
        bool is_revoked = found && m.type == WIRE_REVOKE;
        if (found)
            wire_msg_release(&m);
        if (is_revoked && !is_hanging)
            return false;
    }
    return true;
}

static bool is_device_broken;

static void run_job(struct pipe *p, const json_t *start)
{
    int64_t job = json_opt_int(start, "job", 0);
    json_t *id = json_pack("{s:I, s:I}", "job", (json_int_t)job, "attempt",
                           (json_int_t)json_opt_int(start, "attempt", 0));
    bool is_done = work(p, env_int("ISOBIT_FAKE_MS"), falls_on("ISOBIT_FAKE_HANG", job));
    if (falls_on("ISOBIT_FAKE_CRASH", job))
        raise(SIGKILL);
    is_device_broken |= falls_on("ISOBIT_FAKE_DEVICE", job);
    char data_hex[SHA256_HEX] = "";
    struct err e;
    const char *path = json_opt_str(json_object_get(start, "eval"), "data_path", "");
    bool is_missing =
        falls_on("ISOBIT_FAKE_MISSING", job) ||
        (env_int("ISOBIT_FAKE_READ") != 0 && sha256_file(path, data_hex, &e) != ERR_OK);
    if (!is_done || is_missing || is_device_broken || falls_on("ISOBIT_FAKE_FAIL", job)) {
        const char *code = !is_done           ? "STOPPED"
                           : is_device_broken ? "DEVICE"
                           : is_missing       ? "NOTFOUND"
                                              : "FORMAT";
        json_object_set_new(id, "code", json_string(code));
        json_object_set_new(id, "text", json_string(is_done ? "made to fail" : "stopped"));
        if (getenv("ISOBIT_FAKE_LACKS") != NULL)
            json_object_set_new(id, "lacks", json_string(getenv("ISOBIT_FAKE_LACKS")));
        send_message(p, WIRE_FAIL, id);
        return;
    }
    json_t *result =
        fake_compute_result(json_object_get(start, "model"), json_object_get(start, "config"),
                            json_object_get(start, "eval"));
    if (env_int("ISOBIT_FAKE_READ") != 0)
        json_object_set_new(json_object_get(result, "identity"), "data_sha256",
                            json_string(data_hex));
    json_object_set_new(id, "result", result);
    send_message(p, WIRE_RESULT, id);
}

/* Asks for the jobs that may share passes with the first, as a runner does on a streamed checkpoint. Returns all. */
static json_t *gather(struct pipe *p, json_t *first)
{
    json_t *group = json_pack("[O]", first);
    send_message(p, WIRE_PROGRESS, json_pack("{s:i, s:i}", "counter", 0, "wants", 1000));
    for (bool is_open = true; is_open;) {
        struct wire_msg m;
        struct err e;
        bool found = false;
        if (pipe_receive(p, &m, &found, &e) != ERR_OK)
            exit(0);
        if (!found) {
            pipe_wait(p, -1);
            continue;
        }
        is_open = m.type == WIRE_START && json_object_get(m.body, "job") != NULL;
        if (is_open)
            json_array_append(group, m.body);
        wire_msg_release(&m);
    }
    return group;
}

/* One job that kills or hangs the process takes all that share its passes along, before any has its result. */
static void run_passes(struct pipe *p, json_t *first)
{
    json_t *group = gather(p, first), *start;
    size_t i;
    json_array_foreach(group, i, start)
    {
        const int64_t job = json_opt_int(start, "job", 0);
        if (falls_on("ISOBIT_FAKE_CRASH", job))
            raise(SIGKILL);
        if (falls_on("ISOBIT_FAKE_HANG", job))
            work(p, 0, true);
        is_device_broken |= falls_on("ISOBIT_FAKE_DEVICE", job);
    }
    json_array_foreach(group, i, start) run_job(p, start);
    json_decref(group);
}

const char *fake_compute_path(void)
{
    static char path[1024];
    ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
    CHECK(n > 0);
    path[n] = '\0';
    return path;
}

bool fake_compute_main(int argc, char **argv)
{
    if (argc < 2 || strcmp(argv[1], "compute") != 0)
        return false;
    struct pipe p;
    pipe_init(&p, PROC_FD);
    send_message(&p, WIRE_PROGRESS,
                 json_pack("{s:i, s:s, s:I, s:[s, s, s]}", "counter", 0, "device", "fake",
                           "memory_bytes", (json_int_t)1 << 40, "computes", "fp32", "fp16",
                           "bf16"));
    for (;;) {
        struct wire_msg m;
        struct err e;
        bool found = false;
        if (pipe_receive(&p, &m, &found, &e) != ERR_OK)
            return true;
        if (!found) {
            pipe_wait(&p, -1);
            continue;
        }
        if (m.type == WIRE_START && env_int("ISOBIT_FAKE_PASSES") != 0)
            run_passes(&p, m.body);
        else if (m.type == WIRE_START)
            run_job(&p, m.body);
        wire_msg_release(&m);
    }
}
