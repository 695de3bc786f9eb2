#include "worker/parent.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/cli.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/signals.h"
#include "worker/child.h"
#include "worker/hand.h"
#include "worker/uplink.h"

static const int64_t send_limit_ns = 5 * CLOCK_NS_PER_S; /* a START that the child does not take */
static const int64_t stop_limit_ns =
    10 * CLOCK_NS_PER_S;                                /* a REVOKE that the child does not heed */
static const int64_t bye_limit_ns = 5 * CLOCK_NS_PER_S; /* ACKs that do not come while leaving */
static const int64_t hurry_ns = 2 * CLOCK_NS_PER_S;     /* from TERM after USR1: KILL is near */
enum { MAX_EARLY_DEATHS = 3, MAX_AHEAD = 16 };
/* In a row: more than one bad job's attempts, less than those of several. */
enum { MAX_DEVICE_ERRORS = 6 };

struct parent {
    const struct parent_options *o;
    struct link_context *context;
    struct signals signals;
    struct child child;
    struct hand hand;
    struct uplink up;
    struct fetch *fetch;
    bool is_ready; /* the child has said what it is */
    bool has_uplink;
    int n_early_deaths;  /* of children that never became ready, in a row */
    int n_device_errors; /* of jobs that ran alone, since the last result */
    int64_t started_ns;  /* the running job */
    int n_together;      /* jobs that were started with it, itself counted */
    int64_t told_slice;  /* of whose jobs the child has been told; -1: none */
    int64_t counter_ns;  /* when the progress counter last moved */
    int64_t stop_ns;     /* when a revoked job is stopped the hard way; 0: none */
    int64_t idle_since_ns;
    int64_t drain_end_ns; /* 0: not draining */
    int n_signals;
    bool is_warned; /* by SIGUSR1, as Slurm's --signal sends it: SIGTERM and SIGKILL follow */
    bool is_over;
    struct err why; /* code ERR_OK: left in peace */
};

static void give_up(struct parent *p, const struct err *why)
{
    p->is_over = true;
    p->why = *why;
}

/* ---- who we are ---- */

static json_t *make_hello(const json_t *ready)
{
    unsigned char id[16];
    char uuid[33], host[256] = "unknown";
    CHECK(getrandom(id, sizeof(id), 0) == (ssize_t)sizeof(id));
    for (size_t i = 0; i < sizeof(id); i++)
        snprintf(uuid + 2 * i, 3, "%02x", id[i]);
    gethostname(host, sizeof(host) - 1);
    json_t *computes = json_object_get(ready, "computes");
    return json_pack("{s:s, s:o, s:I, s:o, s:s, s:i, s:I, s:O}", "uuid", uuid, "host",
                     wire_text(host), "pid", (json_int_t)getpid(), "device",
                     wire_text(json_opt_str(ready, "device", "?")), "program", cli_version,
                     "numerics", WIRE_NUMERICS, "memory_bytes",
                     (json_int_t)json_opt_int(ready, "memory_bytes", 0), "computes", computes);
}

/* ---- the compute child ---- */

static void start_child(struct parent *p, int64_t now_ns)
{
    struct err e;
    p->is_ready = false;
    p->stop_ns = 0;
    p->counter_ns = now_ns;
    if (child_start(&p->child, p->o->compute_argv, &e) != ERR_OK)
        give_up(p, &e);
}

static void replace_child(struct parent *p, int64_t now_ns, char how[PROC_HOW])
{
    child_stop(&p->child, how);
    p->told_slice = -1;
    p->n_early_deaths = p->is_ready ? 0 : p->n_early_deaths + 1;
    struct err e;
    if (p->n_early_deaths >= MAX_EARLY_DEATHS) {
        err_set(&e, ERR_CRASHED, "the compute process %s before it was ready, %d times in a row",
                how, MAX_EARLY_DEATHS);
        give_up(p, &e);
    } else {
        start_child(p, now_ns);
    }
}

/* The job that ran has failed. Of several that share passes nobody can tell which broke them, so none has: they run again,
 * half as many at a time, until the one that breaks its pass is alone in it. Each halving makes the next smaller, so it ends. */
static void fail_running(struct parent *p, enum err_code code, const char *text)
{
    struct hand_job *j = hand_running(&p->hand);
    if (j == NULL)
        return;
    if (hand_n_running(&p->hand) == 1) {
        hand_answer_fail(j, code, text);
        return;
    }
    const int n = hand_split_running(&p->hand);
    log_event(LOG_WARN, "parent", "split", "jobs=%d code=%s text=\"%s\"", n, err_name(code), text);
}

static void return_running(struct parent *p, const char *reason, const char *text)
{
    for (struct hand_job *j; (j = hand_running(&p->hand)) != NULL;)
        hand_answer_return(j, reason, text);
}

/* What ran when the child broke off. */
static void settle_running(struct parent *p, bool is_revoked, enum err_code code, const char *text)
{
    if (is_revoked)
        return_running(p, "revoked", text);
    else
        fail_running(p, code, text);
}

static void on_child_gone(struct parent *p, const struct err *why, int64_t now_ns)
{
    char how[PROC_HOW];
    struct hand_job *j = hand_running(&p->hand);
    const bool is_revoked = p->stop_ns != 0;
    replace_child(p, now_ns, how);
    log_event(LOG_ERROR, "parent", "child-gone", "job=%lld text=\"compute process %s (%s)\"",
              j != NULL ? (long long)j->job : 0, how, why->text);
    char *text = xasprintf("the compute process %s", how);
    settle_running(p, is_revoked, ERR_CRASHED, text);
    xfree(text);
}

static void on_ready(struct parent *p, const json_t *body, int64_t now_ns)
{
    struct err e;
    p->is_ready = true;
    if (p->has_uplink)
        return; /* a new child on the same device */
    if (!json_is_array(json_object_get(body, "computes"))) {
        err_set(&e, ERR_FORMAT, "the compute process did not say what it can compute");
        give_up(p, &e);
        return;
    }
    p->up = (struct uplink){
        .keys = p->o->keys,
        .credit_max = p->o->credit,
        .fetch = p->fetch,
        .end_ns = p->o->end_ns != 0 ? p->o->end_ns - p->o->grace_ns : 0,
    };
    if (uplink_open(&p->up, p->context, p->o->connect, make_hello(body), &p->hand, now_ns, &e) !=
        ERR_OK)
        give_up(p, &e);
    else
        p->has_uplink = true;
    log_event(LOG_INFO, "parent", "ready", "device=\"%s\" coordinator=%s",
              json_opt_str(body, "device", "?"), p->o->connect);
}

/* What cannot work here but may elsewhere costs no attempt: all that lacks the same goes back. */
static void answer_failure(struct parent *p, struct hand_job *j, enum err_code code,
                           const json_t *body)
{
    const char *text = json_opt_str(body, "text", "no reason given");
    if (code == ERR_STOPPED) {
        hand_answer_return(j, "revoked", text);
        return;
    }
    log_event(LOG_WARN, "parent", "failed", "job=%lld code=%s text=\"%s\"", (long long)j->job,
              err_name(code), text);
    if (err_fate(code) != ERR_FATE_ELSEWHERE) {
        hand_answer(j, WIRE_FAIL, json_incref((json_t *)body), NULL);
        return;
    }
    const enum wire_lack lacks = wire_lack_of(json_opt_str(body, "lacks", NULL));
    hand_answer_missing(j, lacks, code, text);
    hand_return_missing(&p->hand, j, lacks, code, text);
}

/* After a fault a device may fail everything that this process asks of it, as a CUDA context does: another process gets another
 * context. Of several jobs that run, each would have said the same. */
static void on_device_error(struct parent *p, const char *text, int64_t now_ns)
{
    char how[PROC_HOW];
    const bool is_revoked = p->stop_ns != 0;
    p->n_device_errors +=
        hand_n_running(&p->hand) == 1; /* halves of a pass have one fault in common */
    log_event(LOG_ERROR, "parent", "device-error", "text=\"%s\"", text);
    replace_child(p, now_ns, how);
    settle_running(p, is_revoked, ERR_DEVICE, text);
    if (p->n_device_errors >= MAX_DEVICE_ERRORS) {
        struct err e;
        err_set(&e, ERR_DEVICE, "the device failed %d times in a row, the last with: %s",
                MAX_DEVICE_ERRORS, text);
        give_up(p, &e);
    }
}

static void on_answer(struct parent *p, struct wire_msg *m, int64_t now_ns)
{
    enum err_code code = err_from_name(json_opt_str(m->body, "code", "IO"));
    int64_t job = json_opt_int(m->body, "job", 0);
    if (m->type == WIRE_FAIL && job == 0) { /* the device cannot be used at all */
        struct err e;
        err_set(&e, code != ERR_OK ? code : ERR_IO, "%s",
                json_opt_str(m->body, "text", "the compute process cannot start"));
        give_up(p, &e);
        return;
    }
    struct hand_job *j = hand_find(&p->hand, job, json_opt_int(m->body, "attempt", -1));
    if (j == NULL || j->state != HAND_RUNNING) {
        log_event(LOG_ERROR, "parent", "stray-answer", "job=%lld", (long long)job);
        return;
    }
    if (m->type == WIRE_RESULT) {
        p->n_device_errors = 0;
        hand_answer(j, WIRE_RESULT, json_incref(m->body), m->n_blobs > 0 ? &m->blobs[0] : NULL);
    } else if (code == ERR_DEVICE) {
        on_device_error(p, json_opt_str(m->body, "text", "no reason given"), now_ns);
    } else {
        answer_failure(p, j, code, m->body);
    }
    p->up.status.done++;
    if (hand_running(&p->hand) == NULL)
        p->stop_ns = 0;
}

/* The child runs its job's checkpoint in passes: the waiting jobs of that checkpoint whose data is here go along, and from
 * now on more slices are asked for, so that the next passes are fuller. Those of a pass that broke off stay among
 * themselves. */
static void join_jobs(struct parent *p, int64_t n_wanted, int64_t now_ns)
{
    const struct hand_job *first = hand_running(&p->hand);
    enum err_code rc = first != NULL ? ERR_OK : ERR_NOTFOUND;
    struct err e;
    if (first != NULL && first->share_max > 0 && n_wanted > first->share_max - 1)
        n_wanted = first->share_max - 1;
    for (int i = 0; i < p->hand.n && rc == ERR_OK && n_wanted > 0; i++) {
        struct hand_job *j = &p->hand.v[i];
        if (j->state != HAND_WAITING || j->share_max != first->share_max ||
            !hand_is_same_model(j, first) ||
            fetch_prepare(p->fetch, json_object_get(j->start, "eval")) == FETCH_WAITING)
            continue;
        rc = pipe_send(&p->child.pipe, WIRE_START, j->start, NULL, 0, send_limit_ns, &e);
        j->state = HAND_RUNNING;
        p->n_together++;
        n_wanted--;
    }
    if (rc == ERR_OK) {
        json_t *end = json_object();
        rc = pipe_send(&p->child.pipe, WIRE_START, end, NULL, 0, send_limit_ns, &e);
        json_decref(end);
    }
    if (rc != ERR_OK && rc != ERR_NOTFOUND)
        on_child_gone(p, &e, now_ns);
    p->up.credit_max = WIRE_MAX_CREDIT;
}

static void on_child_message(struct parent *p, struct wire_msg *m, int64_t now_ns)
{
    if (m->type == WIRE_PROGRESS && json_object_get(m->body, "device") != NULL) {
        on_ready(p, m->body, now_ns);
    } else if (m->type == WIRE_PROGRESS) {
        int64_t counter = json_opt_int(m->body, "counter", 0);
        if (counter != p->up.status.counter)
            p->counter_ns = now_ns;
        p->up.status.counter = counter;
        const int64_t n_wanted = json_opt_int(m->body, "wants", 0);
        if (n_wanted > 0)
            join_jobs(p, n_wanted, now_ns);
    } else if (m->type == WIRE_RESULT || m->type == WIRE_FAIL) {
        on_answer(p, m, now_ns);
    } else if (m->type == WIRE_ITEMS && p->has_uplink) {
        uplink_add_items(&p->up, m->body);
    } else {
        log_event(LOG_ERROR, "parent", "unexpected", "type=%s", wire_type_name(m->type));
    }
}

static void receive_from_child(struct parent *p, int64_t now_ns)
{
    for (bool found = true; found && !p->is_over;) {
        struct wire_msg m;
        struct err e;
        if (pipe_receive(&p->child.pipe, &m, &found, &e) != ERR_OK) {
            on_child_gone(p, &e, now_ns);
            return;
        }
        if (found) {
            on_child_message(p, &m, now_ns);
            wire_msg_release(&m);
        }
    }
}

static bool is_listed(const json_t *list, const json_t *one)
{
    bool is = false;
    for (size_t i = 0; i < json_array_size(list) && !is; i++)
        is = json_equal(json_array_get(list, i), one) != 0;
    return is;
}

/* Checkpoints and evaluations of jobs that wait behind `first`, each pair once, so that the child prepares them while its
 * device computes. Asks for their data files, too. */
static json_t *list_ahead(struct parent *p, const struct hand_job *first)
{
    json_t *list = json_array();
    for (int i = 0; i < p->hand.n && json_array_size(list) < MAX_AHEAD; i++) {
        const struct hand_job *j = &p->hand.v[i];
        json_t *eval = json_object_get(j->start, "eval");
        if (j->state != HAND_WAITING || j == first ||
            fetch_prepare(p->fetch, eval) == FETCH_WAITING)
            continue;
        json_t *one =
            json_pack("{s:O, s:O}", "model", json_object_get(j->start, "model"), "eval", eval);
        if (!is_listed(list, one))
            json_array_append(list, one);
        json_decref(one);
    }
    return list;
}

/* START of a job; the first of a slice says what comes behind it. */
static enum err_code send_start(struct parent *p, const struct hand_job *j, struct err *e)
{
    if (j->slice == p->told_slice)
        return pipe_send(&p->child.pipe, WIRE_START, j->start, NULL, 0, send_limit_ns, e);
    json_t *body = json_copy(j->start);
    CHECK(json_object_set_new(body, "ahead", list_ahead(p, j)) == 0);
    enum err_code rc = pipe_send(&p->child.pipe, WIRE_START, body, NULL, 0, send_limit_ns, e);
    json_decref(body);
    p->told_slice = j->slice;
    return rc;
}

static void start_next_job(struct parent *p, int64_t now_ns)
{
    struct hand_job *j = hand_next_waiting(&p->hand);
    if (!p->is_ready || j == NULL || hand_running(&p->hand) != NULL)
        return;
    if (fetch_prepare(p->fetch, json_object_get(j->start, "eval")) == FETCH_WAITING)
        return;
    struct err e;
    j->state = HAND_RUNNING;
    p->started_ns = p->counter_ns = now_ns;
    p->n_together = 1;
    if (send_start(p, j, &e) != ERR_OK)
        on_child_gone(p, &e, now_ns);
}

/* Ends the running job the hard way and answers for it. */
static void kill_running(struct parent *p, struct hand_job *j, int64_t now_ns)
{
    char how[PROC_HOW];
    replace_child(p, now_ns, how);
    log_event(LOG_WARN, "parent", "child-killed", "job=%lld", (long long)j->job);
}

static void watch_running(struct parent *p, int64_t now_ns)
{
    struct hand_job *j = hand_running(&p->hand);
    struct err e;
    if (j == NULL) {
        p->up.is_stop_asked = false;
        return;
    }
    p->up.status.running_s = (double)(now_ns - p->started_ns) * 1e-9;
    if (p->up.is_stop_asked && p->stop_ns == 0) {
        p->stop_ns = now_ns + stop_limit_ns;
        ERR_IGNORE(pipe_send(&p->child.pipe, WIRE_REVOKE, NULL, NULL, 0, send_limit_ns, &e));
    }
    p->up.is_stop_asked = false;
    if (p->stop_ns != 0 && now_ns >= p->stop_ns) {
        kill_running(p, j, now_ns);
        return_running(p, "revoked", "revoked while it ran");
    } else if (j->limit_s > 0 && p->up.status.running_s > (double)j->limit_s * p->n_together) {
        char *text =
            xasprintf("ran longer than the sweep's job_limit of %lld s", (long long)j->limit_s);
        kill_running(p, j, now_ns);
        fail_running(p, ERR_TIMEOUT, text);
        xfree(text);
    } else if (p->o->job_timeout_ns > 0 && now_ns - p->counter_ns > p->o->job_timeout_ns) {
        char *text = xasprintf("no progress for %.0f s", (double)p->o->job_timeout_ns * 1e-9);
        kill_running(p, j, now_ns);
        fail_running(p, ERR_TIMEOUT, text);
        xfree(text);
    }
}

/* ---- leaving ---- */

static void begin_drain(struct parent *p, const char *why, int64_t now_ns)
{
    if (p->drain_end_ns != 0)
        return;
    p->drain_end_ns = now_ns + p->o->grace_ns;
    log_event(LOG_INFO, "parent", "drain", "why=\"%s\" in_hand=%d", why, p->hand.n);
}

static void leave_in_peace(struct parent *p)
{
    struct err e;
    if (p->has_uplink && p->up.session != 0)
        ERR_IGNORE(uplink_bye(&p->up, &e));
    p->is_over = true;
}

static void go_on_draining(struct parent *p, int64_t now_ns)
{
    struct hand_job *j = hand_running(&p->hand);
    hand_return_waiting(&p->hand, "drain", "the worker leaves");
    if (j != NULL && now_ns >= p->drain_end_ns) {
        kill_running(p, j, now_ns);
        return_running(p, "drain", "the worker leaves");
    }
    if (p->hand.n == 0) {
        leave_in_peace(p);
    } else if (j == NULL && now_ns >= p->drain_end_ns + bye_limit_ns) {
        struct err e;
        err_set(&e, ERR_STOPPED, "left with %d jobs that the coordinator has not acknowledged",
                p->hand.n);
        give_up(p, &e);
    }
}

static void on_signals(struct parent *p, int64_t now_ns)
{
    for (int number; (number = signals_next(&p->signals)) != 0;) {
        if (number == SIGUSR1) {
            begin_drain(p, "a batch system takes the machine back", now_ns);
            p->is_warned = true;
            continue;
        }
        p->n_signals++;
        if (p->is_warned && p->n_signals == 1) {
            if (p->drain_end_ns > now_ns + hurry_ns)
                p->drain_end_ns = now_ns + hurry_ns;
            continue;
        }
        if (p->n_signals > 1) {
            struct err e;
            err_set(&e, ERR_STOPPED, "stopped at once by a second signal");
            give_up(p, &e);
            return;
        }
        begin_drain(p, strsignal(number), now_ns);
    }
}

static void watch_idleness(struct parent *p, int64_t now_ns)
{
    if (p->hand.n > 0)
        p->idle_since_ns = now_ns;
    else if (p->o->idle_ns > 0 && now_ns - p->idle_since_ns > p->o->idle_ns)
        begin_drain(p, "nothing to do", now_ns);
}

/* The machine is taken away at a known moment: what runs then is handed back before it, at no cost. */
static void watch_walltime(struct parent *p, int64_t now_ns)
{
    if (p->o->end_ns != 0 && now_ns >= p->o->end_ns - p->o->grace_ns)
        begin_drain(p, "its time ends", now_ns);
}

/* ---- the loop ---- */

static int64_t tick(struct parent *p, int64_t now_ns)
{
    if (p->drain_end_ns != 0)
        go_on_draining(p, now_ns);
    if (p->is_over)
        return 0;
    start_next_job(p, now_ns);
    watch_running(p, now_ns);
    watch_idleness(p, now_ns);
    watch_walltime(p, now_ns);
    int64_t wait_ns = CLOCK_NS_PER_S / 4;
    if (p->has_uplink) {
        int64_t next_ns = uplink_tick(&p->up, p->drain_end_ns == 0, now_ns);
        wait_ns = next_ns < wait_ns ? next_ns : wait_ns;
    }
    return wait_ns > 0 ? wait_ns : 0;
}

static void loop(struct parent *p)
{
    while (!p->is_over) {
        int64_t wait_ns = tick(p, clock_mono_ns());
        if (p->up.is_refused) /* it may have no socket to wait on */
            give_up(p, &p->up.why);
        if (p->is_over)
            break;
        bool readable[3];
        const int fds[2] = {p->signals.fd, p->child.fd};
        link_wait(&p->up.link, p->has_uplink, fds, 2, wait_ns, readable);
        int64_t now_ns = clock_mono_ns();
        on_signals(p, now_ns);
        if (!p->is_over)
            receive_from_child(p, now_ns);
        if (p->has_uplink && !p->is_over)
            uplink_receive(&p->up, now_ns);
        if (p->up.is_refused)
            give_up(p, &p->up.why);
        if (p->up.is_drain_asked)
            begin_drain(p, "the coordinator asks for it", now_ns);
    }
}

enum err_code parent_run(const struct parent_options *o, struct err *e)
{
    struct parent p = {.o = o,
                       .child = {.fd = -1},
                       .told_slice = -1,
                       .fetch = fetch_new(o->cache_dir),
                       .idle_since_ns = clock_mono_ns()};
    enum err_code rc = signals_open(&p.signals, SIGUSR1, e);
    if (rc == ERR_OK)
        rc = link_context_new(&p.context, e);
    if (rc == ERR_OK) {
        start_child(&p, clock_mono_ns());
        loop(&p);
        if (p.why.code != ERR_OK)
            *e = p.why;
        rc = p.why.code;
    }
    char how[PROC_HOW];
    child_stop(&p.child, how);
    if (p.has_uplink)
        uplink_close(&p.up);
    hand_release(&p.hand);
    fetch_free(p.fetch);
    link_context_free(p.context);
    signals_close(&p.signals);
    return rc;
}
