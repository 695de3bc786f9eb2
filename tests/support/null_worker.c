#include "tests/support/null_worker.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "tests/support/fake_compute.h"

struct sent { /* a job leased and not yet acknowledged */
    int64_t attempt, sent_ns;
    int32_t slice; /* 0: not in hand */
};

struct null_worker {
    const struct null_worker_options *o;
    struct link *link;
    json_t *hello, *result;
    int64_t session, heartbeat_ns, beat_ns, hello_ns;
    struct sent *jobs; /* by job number */
    int64_t n_jobs, n_in_hand;
    int64_t
        *queue; /* leased, not answered: a ring that is never longer than what the credit allows */
    int64_t head, tail, cap;
    int32_t n_slices;
    int credit_owed;
    int64_t start_ns, n_sent;
    bool is_over;
};

static bool send_up(struct null_worker *w, enum wire_type type, json_t *body)
{
    struct err e;
    return link_send(w->link, NULL, type, body, NULL, 0, &e) == ERR_OK;
}

static void send_small(struct null_worker *w, enum wire_type type, json_t *body)
{
    json_object_set_new(body, "session", json_integer(w->session));
    if (!send_up(w, type, body) && type == WIRE_CREDIT)
        w->credit_owed += (int)json_opt_int(body, "slices", 0);
    json_decref(body);
}

/* ---- what arrives ---- */

static void on_welcome(struct null_worker *w, const json_t *body)
{
    w->session = json_opt_int(body, "session", 0);
    w->heartbeat_ns = json_opt_int(body, "heartbeat_ns", CLOCK_NS_PER_S);
    w->credit_owed = w->o->credit;
}

static void take_job(struct null_worker *w, const json_t *row)
{
    int64_t job = json_integer_value(json_array_get(row, 0));
    if (job >= w->n_jobs) {
        int64_t n = 2 * job + 1024;
        w->jobs = xrealloc(w->jobs, (size_t)n * sizeof(*w->jobs));
        memset(w->jobs + w->n_jobs, 0, (size_t)(n - w->n_jobs) * sizeof(*w->jobs));
        w->n_jobs = n;
    }
    if (w->tail - w->head == w->cap) {
        int64_t *queue = xcalloc((size_t)(2 * w->cap + 1024), sizeof(*queue));
        for (int64_t i = w->head; i < w->tail; i++)
            queue[i - w->head] = w->queue[i % w->cap];
        xfree(w->queue);
        w->tail -= w->head;
        w->head = 0;
        w->cap = 2 * w->cap + 1024;
        w->queue = queue;
    }
    w->jobs[job] =
        (struct sent){.attempt = json_integer_value(json_array_get(row, 1)), .slice = w->n_slices};
    w->queue[w->tail++ % w->cap] = job;
    w->n_in_hand++;
}

static void on_lease(struct null_worker *w, const json_t *body)
{
    if (w->o->stats->first_ns ==
        0) /* the pace counts from here: what the start took is no backlog */
        w->o->stats->first_ns = w->start_ns = clock_mono_ns();
    if (w->result == NULL) {
        json_t *result = fake_compute_result(json_object_get(body, "model"),
                                             json_array_get(json_object_get(body, "configs"), 0),
                                             json_array_get(json_object_get(body, "evals"), 0));
        /* One text for all jobs: all checkpoints and files are the same to it. */
        json_t *identity = json_object_get(result, "identity");
        json_object_set(identity, "weights_sha256", json_object_get(identity, "tokenizer_sha256"));
        json_object_set(identity, "data_sha256", json_object_get(identity, "tokenizer_sha256"));
        w->result = json_pack("{s:i, s:i, s:I, s:o}", "job", 0, "attempt", 0, "session",
                              (json_int_t)w->session, "result", result);
    }
    w->n_slices++;
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(body, "jobs"), i, row) take_job(w, row);
}

static void on_ack(struct null_worker *w, const json_t *body, int64_t now_ns)
{
    struct null_worker_stats *s = w->o->stats;
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(body, "jobs"), i, row)
    {
        int64_t job = json_integer_value(json_array_get(row, 0));
        const char *verdict = json_string_value(json_array_get(row, 2));
        if (job < 0 || job >= w->n_jobs || w->jobs[job].slice == 0)
            continue;
        int64_t bin = (now_ns - w->jobs[job].sent_ns) / (CLOCK_NS_PER_MS / 10);
        s->bins[bin < NULL_WORKER_BINS ? bin : NULL_WORKER_BINS - 1]++;
        w->jobs[job].slice = 0;
        w->n_in_hand--;
        s->n_accepted += strcmp(verdict, "accepted") == 0;
        s->n_fenced += strcmp(verdict, "fenced") == 0;
    }
    s->last_ns = now_ns;
}

static void receive(struct null_worker *w)
{
    struct link_inbox in;
    while (link_receive(w->link, &in)) {
        CHECK(!in.is_bad && in.msg.type != WIRE_REFUSE);
        if (in.msg.type == WIRE_WELCOME)
            on_welcome(w, in.msg.body);
        else if (in.msg.type == WIRE_LEASE)
            on_lease(w, in.msg.body);
        else if (in.msg.type == WIRE_ACK)
            on_ack(w, in.msg.body, clock_mono_ns());
        else if (in.msg.type == WIRE_REGISTER)
            w->session = 0;
        w->is_over |= in.msg.type == WIRE_DRAIN;
        link_inbox_release(&in);
    }
}

/* ---- what is due ---- */

static void send_hello(struct null_worker *w, int64_t now_ns)
{
    json_t *held = json_array();
    for (int64_t job = 0; job < w->n_jobs; job++)
        if (w->jobs[job].slice != 0)
            json_array_append_new(
                held, json_pack("[I, I]", (json_int_t)job, (json_int_t)w->jobs[job].attempt));
    json_object_set_new(w->hello, "held", held);
    if (send_up(w, WIRE_HELLO, w->hello))
        w->hello_ns = now_ns + CLOCK_NS_PER_S;
}

/* How many more may be sent now. */
static int64_t allowance(const struct null_worker *w, int64_t now_ns)
{
    if (w->o->jobs_per_s <= 0)
        return INT64_MAX;
    return (int64_t)((double)(now_ns - w->start_ns) * 1e-9 * w->o->jobs_per_s) - w->n_sent;
}

/* The next slice is asked for when the last job of one is answered. */
static void send_results(struct null_worker *w)
{
    int64_t left = allowance(w, clock_mono_ns());
    for (; w->head < w->tail && left > 0; left--) {
        int64_t job = w->queue[w->head % w->cap];
        json_integer_set(json_object_get(w->result, "job"), job);
        json_integer_set(json_object_get(w->result, "attempt"), w->jobs[job].attempt);
        json_integer_set(json_object_get(w->result, "session"), w->session);
        w->jobs[job].sent_ns = clock_mono_ns();
        if (!send_up(w, WIRE_RESULT, w->result))
            return;
        w->head++;
        w->n_sent++;
        bool is_last =
            w->head == w->tail || w->jobs[w->queue[w->head % w->cap]].slice != w->jobs[job].slice;
        w->credit_owed += is_last;
    }
}

static void do_what_is_due(struct null_worker *w, int64_t now_ns)
{
    if (w->session == 0) {
        if (now_ns >= w->hello_ns)
            send_hello(w, now_ns);
        return;
    }
    if (now_ns >= w->beat_ns) {
        w->beat_ns = now_ns + w->heartbeat_ns;
        send_small(w, WIRE_BEAT,
                   json_pack("{s:I, s:i, s:i, s:n}", "in_hand", (json_int_t)w->n_in_hand, "counter",
                             0, "done", 0, "running"));
    }
    send_results(w);
    if (w->credit_owed > 0) {
        int n = w->credit_owed;
        w->credit_owed = 0;
        send_small(w, WIRE_CREDIT, json_pack("{s:i}", "slices", n));
    }
}

static json_t *make_hello(void)
{
    char uuid[33];
    snprintf(uuid, sizeof(uuid), "%032lx", (unsigned long)getpid());
    return json_pack("{s:s, s:s, s:i, s:s, s:s, s:i, s:I, s:[s, s, s]}", "uuid", uuid, "host",
                     "null", "pid", (int)getpid(), "device", "null", "program", "isobit 0.1.0",
                     "numerics", WIRE_NUMERICS, "memory_bytes", (json_int_t)1 << 40, "computes",
                     "fp32", "fp16", "bf16");
}

void null_worker_run(const struct null_worker_options *o)
{
    struct null_worker w = {.o = o, .hello = make_hello()};
    struct link_context *context = NULL;
    const struct link_options lo = {.keys = o->keys};
    struct err e;
    CHECK(link_context_new(&context, &e) == ERR_OK);
    CHECK(link_connect(context, o->endpoint, &lo, &w.link, &e) == ERR_OK);
    while (!w.is_over) {
        bool readable = false;
        do_what_is_due(&w, clock_mono_ns());
        bool has_work = w.session != 0 && w.head < w.tail;
        link_wait(&w.link, 1, NULL, 0, (has_work ? 1 : 20) * CLOCK_NS_PER_MS, &readable);
        receive(&w);
    }
    send_small(&w, WIRE_BYE, json_object());
    link_close(w.link);
    link_context_free(context);
    json_decref(w.hello);
    json_decref(w.result);
    xfree(w.jobs);
    xfree(w.queue);
}

double null_worker_quantile(const struct null_worker_stats *stats, int n, double share)
{
    int64_t total = 0, seen = 0;
    for (int i = 0; i < n; i++)
        for (int b = 0; b < NULL_WORKER_BINS; b++)
            total += stats[i].bins[b];
    for (int b = 0; b < NULL_WORKER_BINS; b++) {
        for (int i = 0; i < n; i++)
            seen += stats[i].bins[b];
        if ((double)seen >= share * (double)total)
            return (b + 1) * 0.1;
    }
    return NULL_WORKER_BINS * 0.1;
}
