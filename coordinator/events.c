#include "coordinator/events.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "base/mem.h"
#include "schema/store_work.h"
#include "schema/wire.h"

struct events {
    int fd;
    char *path;
    struct buf gathered;
    int64_t last_ms; /* of the newest event that the file had when it was opened */
    bool is_again;   /* what follows may stand in the log already */
    bool is_broken;
};

/* ---- the file ---- */

/* "2026-11-22T22:47:18.223Z" at the start of a line, in ms; -1 when it is none. */
static int64_t time_of_line(const char *line)
{
    static const char before[] = "{\"time\":\"";
    struct tm tm = {0};
    int ms = 0;
    if (strncmp(line, before, sizeof(before) - 1) != 0)
        return -1;
    const char *rest = strptime(line + sizeof(before) - 1, "%Y-%m-%dT%H:%M:%S", &tm);
    if (rest == NULL || *rest != '.' || strspn(rest + 1, "0123456789") != 3)
        return -1;
    for (int i = 1; i <= 3; i++)
        ms = 10 * ms + (rest[i] - '0');
    return (int64_t)timegm(&tm) * 1000 + ms;
}

/* The time of the last whole line, and an end for a line that a kill cut short. */
static void read_tail(struct events *ev, int64_t size)
{
    enum { TAIL = 1 << 16 };
    char *tail = xcalloc(1, TAIL + 1);
    int64_t from = size > TAIL ? size - TAIL : 0;
    ssize_t n = pread(ev->fd, tail, TAIL, from);
    ev->last_ms = -1;
    for (char *line = tail; n > 0 && *line != '\0';) {
        char *end = strchr(line, '\n');
        if (end == NULL)
            break;
        int64_t ms = time_of_line(line);
        ev->last_ms = ms >= 0 ? ms : ev->last_ms;
        line = end + 1;
    }
    if (n > 0 && tail[n - 1] != '\n')
        buf_adds(&ev->gathered, "\n");
    xfree(tail);
}

enum err_code events_open(const char *path, struct events **out, struct err *e)
{
    int fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (fd < 0)
        return err_set_errno(e, errno, "cannot write events to %s", path);
    struct events *ev = xcalloc(1, sizeof(*ev));
    *ev = (struct events){.fd = fd, .path = xstrdup(path)};
    ev->gathered.max = (size_t)1 << 30;
    read_tail(ev, io_file_size(path));
    *out = ev;
    return ERR_OK;
}

void events_close(struct events *ev)
{
    if (ev == NULL)
        return;
    events_flush(ev);
    close(ev->fd);
    buf_release(&ev->gathered);
    xfree(ev->path);
    xfree(ev);
}

void events_flush(struct events *ev)
{
    if (ev == NULL || ev->gathered.len == 0)
        return;
    struct err e;
    size_t done = 0;
    while (done < ev->gathered.len && !ev->is_broken) {
        ssize_t n = write(ev->fd, ev->gathered.data + done, ev->gathered.len - done);
        done += n > 0 ? (size_t)n : 0;
        if (n >= 0 || errno == EINTR)
            continue;
        /* Results matter more than their story. */
        err_set_errno(&e, errno, "cannot write events to %s", ev->path);
        log_event(LOG_ERROR, "events", "unwritten", "text=\"%s\"", e.text);
        ev->is_broken = true;
    }
    buf_reset(&ev->gathered);
}

void events_drop(struct events *ev)
{
    if (ev != NULL)
        buf_reset(&ev->gathered);
}

/* ---- events ---- */

static void begin_line(struct events *ev, const char *event)
{
    int64_t ms = clock_wall_ns() / CLOCK_NS_PER_MS;
    time_t s = (time_t)(ms / 1000);
    struct tm tm;
    char text[32];
    gmtime_r(&s, &tm);
    strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
    buf_printf(&ev->gathered, "{\"time\":\"%s.%03dZ\",\"event\":\"%s\"", text, (int)(ms % 1000),
               event);
    if (ev->is_again)
        buf_adds(&ev->gathered, ",\"again\":true");
}

static void add_text(struct events *ev, const char *name, const char *text)
{
    if (text == NULL || text[0] == '\0')
        return;
    json_t *v = wire_text(text);
    buf_printf(&ev->gathered, ",\"%s\":", name);
    json_append(&ev->gathered, v, false);
    json_decref(v);
}

void events_job(struct events *ev, const char *event, const struct event_job *j)
{
    if (ev == NULL)
        return;
    begin_line(ev, event);
    buf_printf(&ev->gathered, ",\"job\":%lld,\"attempt\":%d", (long long)j->job, j->attempt);
    add_text(ev, "worker", j->worker);
    add_text(ev, "code", j->code);
    add_text(ev, "text", j->text);
    if (j->seconds >= 0)
        buf_printf(&ev->gathered, ",\"seconds\":%.6g", j->seconds);
    buf_adds(&ev->gathered, "}\n");
}

void events_leases(struct events *ev, int64_t first, int64_t n, int attempt, const char *worker)
{
    for (int64_t i = 0; ev != NULL && i < n; i++)
        events_job(ev, "leased",
                   &(struct event_job){
                       .job = first + i, .attempt = attempt, .worker = worker, .seconds = -1});
}

void events_other(struct events *ev, const char *event, json_t *body)
{
    if (ev != NULL) {
        struct buf members = {0};
        begin_line(ev, event);
        if (body != NULL && json_object_size(body) > 0) {
            json_append(&members, body, false);
            buf_addc(&ev->gathered, ',');
            buf_add(&ev->gathered, members.data + 1, members.len - 1); /* with its brace */
        } else {
            buf_addc(&ev->gathered, '}');
        }
        buf_addc(&ev->gathered, '\n');
        buf_release(&members);
    }
    json_decref(body);
}

/* ---- the start ---- */

static enum err_code tell_row(void *arg, const struct store_row *row, struct err *e)
{
    (void)e;
    events_job(arg, store_col_text(row, 0),
               &(struct event_job){.job = store_col_int(row, 1),
                                   .attempt = (int)store_col_int(row, 2),
                                   .worker = store_col_text(row, 3),
                                   .code = store_col_text(row, 4),
                                   .text = store_col_text(row, 5),
                                   .seconds = -1});
    return ERR_OK;
}

/* Ends of attempts since the log's last line, and the leases in force. */
static enum err_code tell_again(struct events *ev, struct store *s, struct err *e)
{
    static const char sql[] =
        "SELECT 'done', r.job_id, r.attempt, w.uuid, NULL, NULL FROM run r "
        "LEFT JOIN worker w ON w.id = r.worker_id WHERE r.finished_ms >= CAST(?1 AS INTEGER) "
        "UNION ALL SELECT a.outcome, a.job_id, a.attempt, w.uuid, a.code, a.text FROM attempt a "
        "LEFT JOIN worker w ON w.id = a.worker_id WHERE a.ended_ms >= CAST(?1 AS INTEGER) "
        "UNION ALL SELECT 'leased', j.id, j.attempt, w.uuid, NULL, NULL FROM job j "
        "LEFT JOIN worker w ON w.id = j.worker_id WHERE j.state = 'leased'";
    char since[32];
    /* A new log of an old database begins with the leases in force. */
    snprintf(since, sizeof(since), "%lld", (long long)(ev->last_ms >= 0 ? ev->last_ms : INT64_MAX));
    const char *const params[] = {since};
    ev->is_again = true;
    enum err_code rc = store_query(s, sql, params, 1, tell_row, ev, e);
    ev->is_again = false;
    return rc;
}

enum err_code events_begin(struct events *ev, struct store *s, struct err *e)
{
    struct store_counts c;
    if (ev == NULL)
        return ERR_OK;
    TRY(store_count(s, &c, e));
    json_t *states = json_object();
    for (int i = 0; i < JOB_STATE_COUNT; i++)
        json_object_set_new(states, job_state_label((enum job_state)i), json_integer(c.n[i]));
    events_other(ev, "start", json_pack("{s:i, s:o}", "pid", (int)getpid(), "jobs", states));
    TRY(tell_again(ev, s, e));
    events_flush(ev);
    return ERR_OK;
}
