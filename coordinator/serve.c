#include "coordinator/serve.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "base/signals.h"
#include "coordinator/control.h"
#include "coordinator/door.h"
#include "coordinator/intake.h"
#include "coordinator/lock.h"
#include "coordinator/reader.h"

enum {
    BATCH = 256,           /* messages a transaction: near the knee of orchestration spec 2 */
    BATCH_BYTES = 8 << 20, /* and their bytes: parsed JSON takes many times its own */
    QUEUED = 128,          /* messages of one connection that wait */
    LEASED_A_TURN = 256,   /* jobs, then the next turn */
    MAX_CONNECTIONS = 4096,
    OTHER_FILES = 64 /* database, logs, libzmq's own */
};
static const int64_t turn_ns = CLOCK_NS_PER_S / 4;
static const int64_t count_ns = CLOCK_NS_PER_S / 2;
static const int64_t trouble_min_ns = CLOCK_NS_PER_S / 10;
static const int64_t trouble_max_ns = 5 * CLOCK_NS_PER_S;

struct serve {
    struct serve_options o;
    struct lock lock;
    struct store *store;
    struct link_context *context;
    struct link *workers, *control;
    char endpoint[256], control_endpoint[256];
    struct signals signals;
    struct door door;
    struct intake intake;
    struct link_inbox batch[BATCH];
    int n_batch;
    bool is_all_read; /* the batch holds everything that had arrived */
    struct dispatch_counts counts;
    int64_t counted_ns, beat_ns;
    int64_t next_ns;    /* until dispatch has more to do */
    int64_t awaited_ns; /* when this turn was to begin at the latest; 0: it is the first */
    int64_t trouble_ns; /* how long the database is left alone; 0: all is well */
    int64_t try_again_ns;
    bool is_waiting;      /* for try_again_ns: the database could not be written */
    int64_t drain_end_ns; /* 0: not draining */
    int n_signals;
    bool is_begun, is_over;
    enum serve_end end;
};

/* ---- opening and closing ---- */

/* The control socket lives in a folder that only its owner can enter, since whoever reaches it may change the sweep. */
static enum err_code control_path(const char *db_path, char out[256], struct err *e)
{
    const char *base = getenv("XDG_RUNTIME_DIR");
    if (base == NULL || base[0] != '/' || strlen(base) > 48 || !io_is_dir(base))
        base = "/tmp";
    char dir[128], hex[SHA256_HEX];
    snprintf(dir, sizeof(dir), "%s/isobit-%u", base, (unsigned)geteuid());
    if (mkdir(dir, 0700) != 0 && errno != EEXIST)
        return err_set_errno(e, errno, "cannot make %s for the control socket", dir);
    struct stat st;
    if (lstat(dir, &st) != 0 || !S_ISDIR(st.st_mode) || st.st_uid != geteuid() ||
        (st.st_mode & 077) != 0)
        return err_set(e, ERR_DENIED,
                       "%s is not a folder of yours alone (mode 0700): remove it, or set "
                       "XDG_RUNTIME_DIR to a folder of yours",
                       dir);
    char *absolute = io_absolute(db_path);
    sha256_bytes(absolute, strlen(absolute), hex);
    xfree(absolute);
    /* One name for each database: a restart takes the place of a dead predecessor. */
    snprintf(out, 256, "ipc://%s/%.16s.sock", dir, hex);
    return ERR_OK;
}

/* Running out of files would stop the database and every new worker, so there is a limit below that; the system's soft one is
 * made for interactive programs. */
static int room_for_connections(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) != 0)
        return MAX_CONNECTIONS;
    rlim_t wanted = MAX_CONNECTIONS + OTHER_FILES;
    if (r.rlim_cur < wanted) {
        r.rlim_cur = r.rlim_max < wanted ? r.rlim_max : wanted;
        setrlimit(RLIMIT_NOFILE, &r);
        getrlimit(RLIMIT_NOFILE, &r);
    }
    if (r.rlim_cur >= wanted)
        return MAX_CONNECTIONS;
    return r.rlim_cur > (rlim_t)2 * OTHER_FILES ? (int)r.rlim_cur - OTHER_FILES : OTHER_FILES;
}

static enum err_code open_all(struct serve *s, struct err *e)
{
    struct lock_owner owner;
    struct link_door ld = door_link(&s->door, room_for_connections());
    char wanted[256];
    TRY(door_open(&s->door, s->o.keys_dir, e));
    const struct link_options lo = {.keys = door_keys(&s->door),
                                    .door = &ld,
                                    .receive_high_water = QUEUED,
                                    .leaves_results = true};
    TRY(lock_take(s->o.db_path, &s->lock, &owner, e));
    TRY(store_open(s->o.db_path, STORE_CREATE, &s->store, e));
    TRY(signals_open(&s->signals, 0, e));
    signal(SIGXFSZ, SIG_IGN); /* a file size limit is a full disk, not a reason to die */
    TRY(link_context_new(&s->context, e));
    TRY(link_listen(s->context, s->o.listen, &lo, s->endpoint, &s->workers, e));
    TRY(control_path(s->o.db_path, wanted, e));
    TRY(link_listen(s->context, wanted, NULL, s->control_endpoint, &s->control, e));
    if (s->o.events_path != NULL)
        TRY(events_open(s->o.events_path, &s->o.dispatch.events, e));
    s->intake.options = s->o.dispatch;
    s->intake.door = &s->door;
    TRY(dispatch_new(s->store, &s->o.dispatch, clock_mono_ns(), &s->intake.dispatch, e));
    TRY(events_begin(s->o.dispatch.events, s->store, e));
    return lock_publish(&s->lock, s->control_endpoint, e);
}

enum err_code serve_open(const struct serve_options *o, struct serve **out, struct err *e)
{
    struct serve *s = xcalloc(1, sizeof(*s));
    s->o = *o;
    s->lock.fd = -1;
    enum err_code rc = open_all(s, e);
    if (rc != ERR_OK) {
        serve_close(s);
        return rc;
    }
    *out = s;
    return ERR_OK;
}

static void release_batch(struct serve *s)
{
    for (int i = 0; i < s->n_batch; i++)
        link_inbox_release(&s->batch[i]);
    s->n_batch = 0;
}

void serve_close(struct serve *s)
{
    if (s == NULL)
        return;
    release_batch(s);
    dispatch_free(s->intake.dispatch);
    events_other(s->o.dispatch.events, "stop", NULL);
    events_close(s->o.dispatch.events);
    intake_release(&s->intake);
    link_close(s->control);
    link_close(s->workers);
    link_context_free(s->context);
    door_release(&s->door);
    if (s->control_endpoint[0] != '\0')
        unlink(s->control_endpoint + strlen("ipc://"));
    signals_close(&s->signals);
    if (s->is_begun)
        store_close(s->store);
    else
        store_discard(s->store);
    lock_release(&s->lock);
    xfree(s);
}

const char *serve_endpoint(const struct serve *s)
{
    return s->endpoint;
}

enum err_code serve_count(struct serve *s, struct dispatch_counts *out, struct err *e)
{
    return dispatch_count(s->intake.dispatch, clock_mono_ns(), out, e);
}

bool serve_is_draining(const struct serve *s)
{
    return s->drain_end_ns != 0;
}

const struct dispatch_counts *serve_counts(const struct serve *s)
{
    return &s->counts;
}

bool serve_is_in_trouble(const struct serve *s)
{
    return s->trouble_ns != 0;
}

json_t *serve_workers_json(const struct serve *s, int64_t now_ns)
{
    return s->intake.dispatch != NULL ? dispatch_workers_json(s->intake.dispatch, now_ns)
                                      : json_array();
}

/* ---- trouble: the database cannot be written ---- */

/* What memory took for granted of the lost transaction is undone, and its messages are kept to be handled again; but when it
 * is one of them that the database cannot take, the rest must not wait for it, and workers send theirs again. */
static void enter_trouble(struct serve *s, const struct err *why, int64_t now_ns)
{
    store_rollback(s->store);
    dispatch_rolled_back(s->intake.dispatch);
    intake_drop(&s->intake);
    events_drop(s->o.dispatch.events);
    if (s->trouble_ns == 0)
        log_event(LOG_ERROR, "serve", "database",
                  "text=\"%s\" then=\"nothing is acknowledged; trying again\"", why->text);
    s->trouble_ns = s->trouble_ns == 0 ? trouble_min_ns : 2 * s->trouble_ns;
    if (s->trouble_ns > trouble_max_ns)
        s->trouble_ns = trouble_max_ns;
    s->try_again_ns = now_ns + s->trouble_ns;
    s->is_waiting = true;
    if (why->code == ERR_FORMAT)
        release_batch(s);
}

/* True when the database may be used. */
static bool leave_trouble(struct serve *s, int64_t now_ns)
{
    if (s->is_waiting && now_ns >= s->try_again_ns) {
        s->is_waiting = false;
        dispatch_resume(s->intake.dispatch, now_ns);
    }
    return !s->is_waiting;
}

/* ---- a turn ---- */

static void receive_batch(struct serve *s)
{
    size_t bytes = 0;
    while (s->n_batch < BATCH && bytes < BATCH_BYTES &&
           link_receive(s->workers, &s->batch[s->n_batch]))
        bytes += s->batch[s->n_batch++].n_bytes;
    s->is_all_read = s->n_batch < BATCH && bytes < BATCH_BYTES;
}

/* Results that wait behind this turn are acknowledged late: many jobs are handed out in several turns. */
static enum err_code hand_out(struct serve *s, int64_t now_ns, struct err *e)
{
    struct arena a = {0};
    enum err_code rc = ERR_OK;
    int n_jobs = 0;
    bool found = true;
    while (found && n_jobs < LEASED_A_TURN && rc == ERR_OK) {
        struct slice slice = {0};
        rc = dispatch_next(s->intake.dispatch, now_ns, &a, &slice, &found, e);
        if (rc == ERR_OK && found)
            intake_lease(&s->intake, &slice);
        n_jobs += slice.n_jobs;
    }
    if (found)
        s->next_ns = 0; /* there may be more: the next turn follows at once */
    arena_release(&a);
    return rc;
}

static enum err_code send_revokes(struct serve *s, struct err *e)
{
    struct arena a = {0};
    struct revoke *v = NULL;
    int n = 0;
    enum err_code rc = dispatch_revokes(s->intake.dispatch, &a, &v, &n, e);
    if (rc == ERR_OK)
        intake_revoke(&s->intake, v, n);
    arena_release(&a);
    return rc;
}

static bool is_question(const struct link_inbox *in)
{
    return !in->is_bad && in->msg.type == WIRE_REQUEST;
}

/* After the commit, so that what is told is on disk. */
static void answer_readers(struct serve *s, int64_t now_ns)
{
    struct err e;
    for (int i = 0; i < s->n_batch; i++) {
        const struct link_inbox *in = &s->batch[i];
        if (!is_question(in) || door_role(&s->door, in->who) == DOOR_NOBODY)
            continue;
        json_t *reply =
            reader_answer(s->store, s->intake.dispatch, &s->door, in->who, in->msg.body, now_ns);
        ERR_IGNORE(link_send(s->workers, &in->from, WIRE_REPLY, reply, NULL, 0, &e));
        json_decref(reply);
    }
}

/* Inside the transaction: everything that has arrived, then what time brings, then new leases. Time comes second and only
 * when all was read, so that no session ends over heartbeats that wait in the socket. */
static enum err_code apply_all(struct serve *s, int64_t now_ns, struct err *e)
{
    TRY(intake_begin(&s->intake, e));
    for (int i = 0; i < s->n_batch; i++)
        if (!is_question(&s->batch[i]))
            TRY(intake_apply(&s->intake, &s->batch[i], now_ns, e));
    s->next_ns = 0;
    if (s->is_all_read)
        TRY(dispatch_tick(s->intake.dispatch, now_ns, &s->next_ns, e));
    TRY(send_revokes(s, e));
    if (s->drain_end_ns == 0)
        TRY(hand_out(s, now_ns, e));
    if (now_ns - s->counted_ns >= count_ns) {
        s->counted_ns = now_ns;
        return dispatch_count(s->intake.dispatch, now_ns, &s->counts, e);
    }
    return ERR_OK;
}

static void transact(struct serve *s, int64_t now_ns)
{
    struct err e;
    int64_t n_writes = s->intake.n_writes;
    receive_batch(s);
    enum err_code rc = store_begin(s->store, &e);
    if (rc == ERR_OK)
        rc = apply_all(s, now_ns, &e);
    if (rc == ERR_OK)
        rc = store_commit(s->store, &e);
    if (rc != ERR_OK) {
        enter_trouble(s, &e, now_ns);
    } else {
        /* Trouble is over when something was written; an empty transaction proves nothing. */
        if (s->trouble_ns != 0 && s->intake.n_writes > n_writes) {
            log_event(LOG_INFO, "serve", "database", "text=\"it can be written again\"");
            s->trouble_ns = 0;
        }
        events_flush(s->o.dispatch.events);
        intake_flush(&s->intake, s->workers);
        intake_sweep(&s->intake);
        answer_readers(s, now_ns);
        release_batch(s);
        store_tidy_log(s->store, s->is_all_read);
    }
}

/* Who asked for what is in the log, so that it can be understood without the database. */
static void tell_change(struct serve *s, const json_t *request, const json_t *reply)
{
    static const char *const members[] = {"op", "pattern", "state", "program", "priority"};
    if (s->o.dispatch.events == NULL || !json_opt_bool(reply, "ok", false))
        return;
    json_t *body = json_object();
    for (size_t i = 0; i < ARRAY_LEN(members); i++)
        json_object_set(body, members[i], json_object_get(request, members[i]));
    json_object_update_missing(body, (json_t *)reply);
    json_object_del(body, "ok");
    events_other(s->o.dispatch.events, "changed", body);
    events_flush(s->o.dispatch.events);
}

static json_t *answer_request(struct serve *s, const json_t *request, int64_t now_ns)
{
    const char *op = json_opt_str(request, "op", "");
    if (strcmp(op, "workers") == 0)
        return json_pack("{s:b, s:o, s:s, s:b, s:f, s:o}", "ok", true, "workers",
                         serve_workers_json(s, now_ns), "endpoint", s->endpoint, "is_draining",
                         s->drain_end_ns != 0, "jobs_per_s", s->counts.jobs_per_s, "eta_s",
                         s->counts.eta_s < 0 ? json_null() : json_real(s->counts.eta_s));
    if (strcmp(op, "drain") == 0) {
        serve_drain(s, "asked through the control socket");
        return json_pack("{s:b}", "ok", true);
    }
    json_t *reply = control_execute(s->store, request);
    if (!control_is_change(request))
        return reply;
    tell_change(s, request, reply);
    dispatch_jobs_changed(s->intake.dispatch);
    s->counted_ns = 0;
    s->next_ns = 0; /* a turn at once: there may be work for those who wait */
    return reply;
}

/* Between transactions, since each request is one of its own. */
static void answer_requests(struct serve *s, int64_t now_ns)
{
    struct link_inbox in;
    struct err e;
    while (!s->is_waiting && link_receive(s->control, &in)) {
        if (in.is_bad || in.msg.type != WIRE_REQUEST) {
            log_event(LOG_WARN, "serve", "bad-request", "text=\"%s\"",
                      in.is_bad ? in.why.text : wire_type_name(in.msg.type));
        } else {
            json_t *reply = answer_request(s, in.msg.body, now_ns);
            if (link_send(s->control, &in.from, WIRE_REPLY, reply, NULL, 0, &e) != ERR_OK)
                log_event(LOG_WARN, "serve", "no-reply", "text=\"%s\"", e.text);
            json_decref(reply);
        }
        link_inbox_release(&in);
    }
}

static void beat(struct serve *s, int64_t now_ns)
{
    if (now_ns < s->beat_ns)
        return;
    s->beat_ns = now_ns + s->o.dispatch.heartbeat_ns;
    door_look(&s->door, now_ns);
    intake_tell_all(&s->intake, WIRE_BEAT);
    intake_flush(&s->intake, s->workers);
}

/* ---- ending ---- */

void serve_drain(struct serve *s, const char *why)
{
    if (s->drain_end_ns != 0)
        return;
    log_event(LOG_INFO, "serve", "drain", "why=\"%s\" workers=%d", why,
              intake_n_sessions(&s->intake));
    s->drain_end_ns = clock_mono_ns() + s->o.grace_ns;
    s->intake.is_draining = true;
    intake_tell_all(&s->intake, WIRE_DRAIN);
    intake_flush(&s->intake, s->workers);
}

static void end_with(struct serve *s, enum serve_end end)
{
    s->is_over = true;
    s->end = end;
}

static void read_signals(struct serve *s)
{
    for (int number; (number = signals_next(&s->signals)) != 0;) {
        if (++s->n_signals > 1)
            end_with(s, SERVE_CUT);
        else
            serve_drain(s, strsignal(number));
    }
}

static void look_for_end(struct serve *s, int64_t now_ns)
{
    bool is_done = s->counts.pending == 0 && s->counts.leased == 0 && s->counted_ns != 0;
    if (s->o.is_until_done && is_done && s->drain_end_ns == 0)
        serve_drain(s, "all jobs are done");
    if (s->drain_end_ns == 0 || s->is_over)
        return;
    if (intake_n_sessions(&s->intake) == 0)
        end_with(s, is_done && s->n_signals == 0 ? SERVE_DONE : SERVE_DRAINED);
    else if (now_ns >= s->drain_end_ns)
        end_with(s, SERVE_CUT);
}

static int64_t time_to_wait(const struct serve *s, int64_t now_ns)
{
    int64_t wait_ns = s->beat_ns - now_ns;
    if (!s->is_waiting && s->next_ns < wait_ns)
        wait_ns = s->next_ns;
    if ((s->o.turn != NULL || s->o.is_until_done || s->drain_end_ns != 0) && turn_ns < wait_ns)
        wait_ns = turn_ns;
    if (s->is_waiting && s->try_again_ns - now_ns < wait_ns)
        wait_ns = s->try_again_ns - now_ns;
    return wait_ns > 0 ? wait_ns : 0;
}

/* A turn that begins late by a third of a lease follows a time in which this process stood still (SIGSTOP, a machine put to
 * sleep) or was busy: nobody could be heard, and what was sent may reach the sockets only after this turn has looked. */
static void forgive_own_pause(struct serve *s, int64_t now_ns)
{
    const int64_t late_ns = s->awaited_ns != 0 ? now_ns - s->awaited_ns : 0;
    if (late_ns <= s->o.dispatch.lease_ns / 3)
        return;
    log_event(LOG_WARN, "serve", "pause",
              "seconds=%.1f text=\"silence of workers meanwhile does not count\"",
              (double)late_ns * 1e-9);
    dispatch_resume(s->intake.dispatch, now_ns);
}

enum serve_end serve_run(struct serve *s)
{
    struct link *const links[] = {s->workers, s->control};
    bool readable[3];
    s->is_begun = true;
    while (!s->is_over) {
        int64_t now_ns = clock_mono_ns();
        forgive_own_pause(s, now_ns);
        if (leave_trouble(s, now_ns))
            transact(s, now_ns);
        answer_requests(s, now_ns);
        beat(s, now_ns);
        if (s->o.turn != NULL)
            s->o.turn(s->o.turn_arg, s, now_ns);
        look_for_end(s, now_ns);
        if (s->is_over)
            break;
        /* In trouble the sockets are left alone: messages wait in them, and the senders with theirs. */
        int n_links = s->is_waiting ? 0 : 2;
        const int64_t wait_ns = time_to_wait(s, now_ns);
        s->awaited_ns = now_ns + wait_ns;
        link_wait(links, n_links, &s->signals.fd, 1, wait_ns, readable);
        read_signals(s);
    }
    return s->end;
}
