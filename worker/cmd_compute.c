/* isobit-worker compute: the compute child of `isobit-worker run` (PROTOCOL.md section 8). One job at a time from a socket,
 * or a group of them when they share passes over a checkpoint; ends when the socket does. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/str.h"
#include "kernels/kernels.h"
#include "schema/job_json.h"
#include "schema/pipe.h"
#include "worker/cmd.h"
#include "worker/runner.h"
#include "worker/topo.h"
#include "worker/zstd_samples.h"

static const int64_t progress_ns = CLOCK_NS_PER_S / 5;

struct compute_opts {
    int64_t fd, threads, memory;
    double pass_minutes;
    const char *device, *bind;
};

#define AT(field) offsetof(struct compute_opts, field)
static const struct cli_opt compute_opts[] = {
    {.name = "fd",
     .type = CLI_INT,
     .arg = "N",
     .help = "socket to the parent process",
     .def = "3",
     .min = 0,
     .max = 1023,
     .offset = AT(fd)},
    {.name = "device",
     .type = CLI_STRING,
     .arg = "DEVICE",
     .help = "cpu, cuda:N or auto",
     .def = "auto",
     .offset = AT(device)},
    CMD_OPT_THREADS(AT(threads)),
    CMD_OPT_MEMORY("", AT(memory)),
    {.name = "pass-minutes",
     .type = CLI_NUMBER,
     .arg = "MINUTES",
     .help = "most that one pass over a checkpoint beyond the budget takes on; 0: no limit",
     .def = "0",
     .min = 0,
     .max = 1e6,
     .offset = AT(pass_minutes)},
    {.name = "bind",
     .type = CLI_STRING,
     .arg = "PART/PARTS|none",
     .help = "share of the cores",
     .offset = AT(bind)},
};
#undef AT

struct engine {
    struct pipe pipe;
    struct runner *runner;
    char device[32];
    json_t *items_sent; /* data|task|tokenizer -> true */
    int64_t told_ns;    /* when the last PROGRESS went */
    bool is_stopped;    /* the running job was revoked */
    bool is_over;       /* the parent is gone */
};

/* Jobs that run together: one, or those of a checkpoint that runs in passes. */
enum { MAX_GROUP = 1024 };
struct group {
    struct engine *c;
    struct job *jobs; /* owned by the arena, with their strings */
    int n;
    struct arena *a;
};

/* ---- what this device is ---- */

static enum err_code open_device(struct engine *c, const struct compute_opts *o,
                                 enum kern_compute compute, struct kern_info *info, struct err *e)
{
    struct kern *k = NULL;
    const struct kern_options ko = {
        .device = c->device, .compute = compute, .threads = (int)o->threads};
    TRY(kern_open(&ko, &k, e));
    *info = *kern_get_info(k);
    kern_close(k);
    return ERR_OK;
}

static json_t *find_computes(struct engine *c, const struct compute_opts *o)
{
    static const struct {
        enum kern_compute kern;
        enum compute schema;
    } all[] = {{KERN_FP32, COMPUTE_FP32}, {KERN_FP16, COMPUTE_FP16}, {KERN_BF16, COMPUTE_BF16}};
    json_t *computes = json_array();
    struct kern_info info;
    struct err e;
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        if (open_device(c, o, all[i].kern, &info, &e) == ERR_OK)
            json_array_append_new(computes, json_string(compute_label(all[i].schema)));
    return computes;
}

/* Binds to the share that was asked for. A GPU's worker goes next to it unasked, and stays where it is when that cannot be
 * done. `pci`: of the GPU, or NULL. */
static enum err_code bind_share(const struct engine *c, const struct compute_opts *o,
                                const char *pci, struct err *e)
{
    const bool is_asked = o->bind != NULL;
    struct topo_share share = {.pci = pci, .n_parts = 1};
    struct topo_place at;
    if (is_asked ? strcmp(o->bind, "none") == 0 : pci == NULL)
        return ERR_OK;
    if (is_asked)
        TRY(topo_parse_share(o->bind, &share, e));
    enum err_code rc = topo_bind(&share, &at, e);
    if (rc == ERR_OK)
        log_event(LOG_INFO, "worker", "bound",
                  "device=%s pci=%s near=%s node=%d share=%d/%d cores=%s", c->device,
                  pci != NULL ? pci : "-",
                  pci == NULL  ? "-"
                  : at.is_near ? "yes"
                               : "unknown",
                  at.numa_node, share.part, share.n_parts, at.cores);
    else if (!is_asked)
        log_event(LOG_WARN, "worker", "unbound", "device=%s pci=%s text=\"%s\"", c->device, pci,
                  e->text);
    return is_asked ? rc : ERR_OK;
}

/* Before the CPU is opened, which counts the cores that it may use. */
static enum err_code choose_cpu(struct engine *c, const struct compute_opts *o,
                                struct kern_info *info, struct err *e)
{
    TRY(bind_share(c, o, NULL, e));
    return open_device(c, o, KERN_FP32, info, e);
}

/* `auto` is the first GPU when a module for it is here and works, else the CPU. */
static enum err_code choose_device(struct engine *c, const struct compute_opts *o,
                                   struct kern_info *info, struct err *e)
{
    bool is_auto = strcmp(o->device, "auto") == 0;
    snprintf(c->device, sizeof(c->device), "%s", is_auto ? "cuda:0" : o->device);
    if (strcmp(c->device, "cpu") == 0)
        return choose_cpu(c, o, info, e);
    enum err_code rc = open_device(c, o, KERN_FP32, info, e);
    if (rc == ERR_OK)
        return bind_share(c, o, info->pci[0] != '\0' ? info->pci : NULL, e);
    if (!is_auto)
        return rc;
    snprintf(c->device, sizeof(c->device), "cpu");
    return choose_cpu(c, o, info, e);
}

/* ---- talking to the parent ---- */

static enum err_code try_send(struct engine *c, enum wire_type type, json_t *body,
                              const struct wire_frame *blob, struct err *e)
{
    enum err_code rc = pipe_send(&c->pipe, type, body, blob, blob != NULL, -1, e);
    json_decref(body);
    return rc;
}

static void send_message(struct engine *c, enum wire_type type, json_t *body,
                         const struct wire_frame *blob)
{
    struct err e;
    c->is_over |= try_send(c, type, body, blob, &e) != ERR_OK;
}

static void send_failure(struct engine *c, int64_t job, int64_t attempt, const struct err *why)
{
    json_t *body =
        json_pack("{s:I, s:I, s:s, s:o}", "job", (json_int_t)job, "attempt", (json_int_t)attempt,
                  "code", err_name(why->code), "text", wire_text(why->text));
    if (c->runner != NULL && err_fate(why->code) == ERR_FATE_ELSEWHERE)
        json_object_set_new(body, "lacks", json_string(wire_lack_label(runner_lacks(c->runner))));
    send_message(c, WIRE_FAIL, body, NULL);
}

/* Called by the runner in the middle of its work. Only a REVOKE or the end of the stream can arrive then. */
static bool on_progress(void *arg, int64_t counter)
{
    struct engine *c = arg;
    int64_t now_ns = clock_mono_ns();
    if (now_ns - c->told_ns < progress_ns)
        return c->is_stopped || c->is_over;
    c->told_ns = now_ns;
    send_message(c, WIRE_PROGRESS, json_pack("{s:I}", "counter", (json_int_t)counter), NULL);
    for (bool found = true; found && !c->is_over;) {
        struct wire_msg m;
        struct err e;
        c->is_over |= pipe_receive(&c->pipe, &m, &found, &e) != ERR_OK;
        if (c->is_over || !found)
            break;
        c->is_stopped |= m.type == WIRE_REVOKE;
        wire_msg_release(&m);
    }
    return c->is_stopped || c->is_over;
}

/* Facts about items are large and the same for every configuration: once in the life of this process. Those of more than about a
 * million are too large for a message; results stand without them. */
static void send_items(struct engine *c, const struct job *job, const struct job_result *r)
{
    if (r->items == NULL || r->items->n == 0)
        return;
    const char *key = r->items->items_sha256;
    if (json_object_get(c->items_sent, key) != NULL)
        return;
    struct err e;
    const enum err_code rc =
        try_send(c, WIRE_ITEMS,
                 json_pack("{s:s, s:s, s:o}", "data_sha256", r->data_sha256, "task",
                           task_label(job->eval.task), "items", item_list_to_json(r->items)),
                 NULL, &e);
    if (rc == ERR_FORMAT)
        log_event(LOG_WARN, "compute", "unsendable", "data=%s items=%lld text=\"%s\"",
                  job->eval.data, (long long)r->items->n, e.text);
    c->is_over |= rc != ERR_OK && rc != ERR_FORMAT;
    json_object_set_new(c->items_sent, key, json_true());
}

static enum err_code send_result(struct engine *c, const struct job *job,
                                 const struct job_result *r, struct err *e)
{
    struct wire_frame blob = {0};
    void *packed = NULL;
    char codec[32] = "";
    if (r->samples != NULL && r->n_items > 0)
        TRY(zstd_samples_pack(r->samples, r->n_items, r->per_item, &packed, &blob.size, codec, e));
    blob.data = packed;
    json_t *body = json_pack("{s:I, s:i, s:o}", "job", (json_int_t)job->id, "attempt", job->attempt,
                             "result", job_result_to_json(r));
    if (packed != NULL)
        json_object_set_new(body, "codec", json_string(codec));
    send_message(c, WIRE_RESULT, body, packed != NULL ? &blob : NULL);
    xfree(packed);
    return ERR_OK;
}

/* ---- jobs ---- */

static enum err_code read_start(const json_t *body, struct arena *a, struct job *job, struct err *e)
{
    json_t *model, *config, *eval;
    TRY(json_need_obj(body, "model", "START", &model, e));
    TRY(json_need_obj(body, "config", "START", &config, e));
    TRY(json_need_obj(body, "eval", "START", &eval, e));
    TRY(model_ref_from_json(model, "START model", a, &job->model, e));
    TRY(config_from_json(config, "START config", &job->config, e));
    return eval_spec_from_json(eval, "START eval", a, &job->eval, e);
}

static void take_result(void *arg, int job, const struct job_result *r, const struct err *why)
{
    struct group *g = arg;
    const struct job *j = &g->jobs[job];
    struct err e;
    if (r == NULL) {
        send_failure(g->c, j->id, j->attempt, why);
        return;
    }
    send_items(g->c, j, r);
    if (send_result(g->c, j, r, &e) != ERR_OK)
        send_failure(g->c, j->id, j->attempt, &e);
}

/* A job that cannot be read has its answer at once. */
static void add_job(struct group *g, const json_t *body)
{
    struct err e;
    struct job *j = &g->jobs[g->n];
    *j = (struct job){.id = json_opt_int(body, "job", 0),
                      .attempt = (int)json_opt_int(body, "attempt", 0)};
    if (read_start(body, g->a, j, &e) == ERR_OK)
        g->n++;
    else
        send_failure(g->c, j->id, j->attempt, &e);
}

/* ---- jobs that share passes ---- */

/* Asks for the jobs of this checkpoint that the parent has in hand; a START without a job ends them. */
static void gather(struct group *g)
{
    struct engine *c = g->c;
    send_message(c, WIRE_PROGRESS, json_pack("{s:i, s:i}", "counter", 0, "wants", MAX_GROUP - 1),
                 NULL);
    for (bool is_open = true; is_open && !c->is_over;) {
        struct wire_msg m;
        struct err e;
        bool found = false;
        c->is_over |= pipe_receive(&c->pipe, &m, &found, &e) != ERR_OK;
        if (!c->is_over && !found)
            pipe_wait(&c->pipe, -1);
        if (c->is_over || !found)
            continue;
        is_open = m.type != WIRE_START || json_object_get(m.body, "job") != NULL;
        c->is_stopped |= m.type == WIRE_REVOKE;
        c->is_over |= m.type == WIRE_DRAIN;
        if (m.type == WIRE_START && is_open && g->n < MAX_GROUP)
            add_job(g, m.body);
        wire_msg_release(&m);
    }
}

/* What the parent says will come: [{model, eval}…], of jobs that wait behind this one. */
static void expect(struct engine *c, const json_t *body, const struct job *job)
{
    struct arena a = {0};
    struct err ignored; /* what cannot be read has its answer when its START comes */
    struct job next[RUNNER_MAX_EXPECTED] = {0};
    int n = 0;
    size_t i;
    json_t *one, *model, *eval;
    json_array_foreach(json_object_get(body, "ahead"), i, one)
    {
        if (n < RUNNER_MAX_EXPECTED &&
            json_need_obj(one, "model", "ahead", &model, &ignored) == ERR_OK &&
            json_need_obj(one, "eval", "ahead", &eval, &ignored) == ERR_OK &&
            model_ref_from_json(model, "ahead", &a, &next[n].model, &ignored) == ERR_OK &&
            eval_spec_from_json(eval, "ahead", &a, &next[n].eval, &ignored) == ERR_OK)
            n++;
    }
    if (n > 0)
        runner_expect(c->runner, job, next, n);
    arena_release(&a);
}

static void on_start(struct engine *c, const json_t *body)
{
    struct arena a = {0};
    struct err ignored;
    bool is_streamed = false;
    struct group g = {.c = c, .a = &a};
    char context[64];
    g.jobs = arena_array(&a, MAX_GROUP, sizeof(*g.jobs));
    snprintf(context, sizeof(context), "job %lld", (long long)json_opt_int(body, "job", 0));
    check_context(context);
    c->is_stopped = false;
    add_job(&g, body);
    if (g.n > 0)
        expect(c, body, &g.jobs[0]);
    if (g.n > 0 && runner_opens(c->runner, &g.jobs[0], &is_streamed, &ignored) == ERR_OK &&
        is_streamed)
        gather(&g);
    const struct runner_report report = {take_result, &g, &a};
    if (!c->is_over)
        runner_run_many(c->runner, g.jobs, g.n, &report);
    check_context(NULL);
    arena_release(&a);
}

static int serve_parent(struct engine *c, struct err *e)
{
    while (!c->is_over) {
        struct wire_msg m;
        bool found = false;
        enum err_code rc = pipe_receive(&c->pipe, &m, &found, e);
        if (rc == ERR_NOTFOUND)
            break;
        if (rc != ERR_OK)
            return cli_fail(e);
        if (!found) {
            pipe_wait(&c->pipe, -1);
            continue;
        }
        if (m.type == WIRE_START)
            on_start(c, m.body);
        c->is_over |= m.type == WIRE_DRAIN;
        wire_msg_release(&m);
    }
    return 0;
}

static enum err_code start_up(struct engine *c, const struct compute_opts *o, struct err *e)
{
    struct kern_info info;
    TRY(choose_device(c, o, &info, e));
    const struct runner_options ro = {.device = c->device,
                                      .threads = (int)o->threads,
                                      .memory_bytes = o->memory,
                                      .pass_minutes = o->pass_minutes,
                                      .progress = on_progress,
                                      .progress_arg = c};
    TRY(runner_new(&ro, &c->runner, e));
    int64_t memory = o->memory > 0 ? o->memory : info.memory_bytes;
    send_message(c, WIRE_PROGRESS,
                 json_pack("{s:i, s:o, s:I, s:o}", "counter", 0, "device", wire_text(info.device),
                           "memory_bytes", (json_int_t)memory, "computes", find_computes(c, o)),
                 NULL);
    return ERR_OK;
}

static int run_compute(const void *opts, int n_args, char **args)
{
    (void)n_args;
    (void)args;
    const struct compute_opts *o = opts;
    struct engine c = {.items_sent = json_object()};
    struct err e;
    pipe_init(&c.pipe, (int)o->fd);
    int status = 0;
    if (start_up(&c, o, &e) == ERR_OK) {
        status = serve_parent(&c, &e);
    } else {
        send_failure(&c, 0, 0, &e);
        status = err_exit_status(e.code);
    }
    runner_free(c.runner);
    json_decref(c.items_sent);
    pipe_release(&c.pipe);
    return status;
}

const struct cli_cmd cmd_compute = {
    .name = "compute",
    .summary = "runs jobs for a parent process (internal)",
    .doc = "Started by `isobit-worker run`; speaks the protocol of schema/PROTOCOL.md on a socket.",
    .opts = compute_opts,
    .n_opts = ARRAY_LEN(compute_opts),
    .opt_size = sizeof(struct compute_opts),
    .run = run_compute,
    .is_hidden = true,
};
