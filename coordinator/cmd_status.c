/* isobit status: how far the sweeps of a database are, and who works on them. Read from the database, so it needs nobody's
 * permission; what a running coordinator knows beyond it is added when it answers. */
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cli.h"
#include "base/clock.h"
#include "coordinator/cmd.h"
#include "coordinator/control.h"
#include "coordinator/lock.h"
#include "coordinator/progress.h"
#include "coordinator/reader.h"
#include "coordinator/rows.h"
#include "coordinator/screen.h"
#include "schema/store_work.h"

enum { BAR_WIDTH = 30 };
static const double connect_timeout_s = 10;
static const double ask_timeout_s = 2; /* status must not hang on a coordinator that does */

struct status_options {
    const char *db, *connect, *keys;
    double every_s;
    bool is_json, is_watch;
};

static const struct cli_opt options[] = {
    CMD_OPT_DB(offsetof(struct status_options, db)),
    {.name = "connect",
     .letter = 'c',
     .type = CLI_STRING,
     .arg = "tcp://HOST:PORT",
     .help = "instead of --db: ask the coordinator at this address",
     .offset = offsetof(struct status_options, connect)},
    {.name = "keys",
     .type = CLI_STRING,
     .arg = "DIR",
     .help = "with --connect: folder with reader.key and coordinator.pub",
     .offset = offsetof(struct status_options, keys)},
    {.name = "watch",
     .letter = 'w',
     .type = CLI_FLAG,
     .help = "repeat until nothing is pending or leased",
     .offset = offsetof(struct status_options, is_watch)},
    {.name = "every",
     .type = CLI_NUMBER,
     .arg = "SECONDS",
     .help = "with --watch: how often",
     .def = "2",
     .min = 0.1,
     .max = 3600,
     .offset = offsetof(struct status_options, every_s)},
    {.name = "json",
     .type = CLI_FLAG,
     .help = "print one JSON object (with --watch: one a line)",
     .offset = offsetof(struct status_options, is_json)},
};

/* ---- gathering ---- */

static json_t *owner_json(const char *db, struct lock_owner *owner)
{
    if (!lock_is_held(db, owner) || owner->control[0] == '\0')
        return json_null();
    return json_pack("{s:I, s:s, s:s}", "pid", (json_int_t)owner->pid, "host", owner->host,
                     "control", owner->control);
}

/* Checkpoint, jobs and seconds of each live worker, from the coordinator, into the workers' rows. */
static void add_live_facts(const char *db, json_t *workers)
{
    json_t *request = json_pack("{s:s}", "op", "workers");
    json_t *reply = NULL;
    struct err e;
    size_t i = 0, k = 0;
    json_t *row = NULL, *live = NULL;
    if (control_request(db, request, false, ask_timeout_s, &reply, &e) == ERR_OK) {
        json_array_foreach(workers, i, row)
        {
            json_array_foreach(json_object_get(reply, "workers"), k, live)
            {
                if (json_equal(json_object_get(row, "worker"), json_object_get(live, "uuid")))
                    json_object_update_missing(row, live);
            }
        }
    }
    json_decref(reply);
    json_decref(request);
}

static json_t *states_json(const struct store_counts *n)
{
    json_t *o = json_object();
    for (int i = 0; i < JOB_STATE_COUNT; i++)
        json_object_set_new(o, job_state_label((enum job_state)i), json_integer(n->n[i]));
    return o;
}

static enum err_code gather(struct store *s, const char *db, json_t **out, struct err *e)
{
    json_t *sweeps = NULL, *workers = NULL;
    struct lock_owner owner;
    struct store_counts counts;
    TRY(store_count(s, &counts, e));
    TRY(rows_query(s, "SELECT * FROM progress", NULL, 0, &sweeps, e));
    enum err_code rc =
        rows_query(s, "SELECT * FROM workers ORDER BY first_seen", NULL, 0, &workers, e);
    if (rc != ERR_OK) {
        json_decref(sweeps);
        return rc;
    }
    json_t *served = owner_json(db, &owner);
    if (!json_is_null(served))
        add_live_facts(db, workers);
    *out = json_pack("{s:s, s:o, s:o, s:o, s:o}", "db", db, "served", served, "states",
                     states_json(&counts), "sweeps", sweeps, "workers", workers);
    return ERR_OK;
}

/* The same document from another machine. */
static enum err_code ask(const struct status_options *o, json_t **out, struct err *e)
{
    json_t *request = json_pack("{s:s}", "op", "status");
    enum err_code rc = reader_ask(o->connect, o->keys, request, connect_timeout_s, out, e);
    json_decref(request);
    if (rc != ERR_OK)
        return rc;
    json_object_del(*out, "ok");
    json_object_set_new(*out, "db", wire_text(o->connect));
    json_object_set_new(*out, "served", json_null());
    return ERR_OK;
}

static enum err_code look(const struct status_options *o, struct store *s, json_t **out,
                          struct err *e)
{
    return o->connect != NULL ? ask(o, out, e) : gather(s, o->db, out, e);
}

/* ---- printing ---- */

static long long count_of(const json_t *o, const char *key)
{
    return json_opt_int(o, key, 0);
}

static void add_sweeps(const json_t *doc, struct buf *out)
{
    size_t i = 0;
    json_t *w = NULL;
    buf_printf(out, "%-20s %9s %9s %9s %9s %9s %9s %9s\n", "sweep", "pending", "leased", "done",
               "buried", "held", "cancelled", "total");
    json_array_foreach(json_object_get(doc, "sweeps"), i, w)
    {
        long long done = count_of(w, "done"), total = count_of(w, "total");
        buf_printf(out, "%-20s %9lld %9lld %9lld %9lld %9lld %9lld %9lld  %3lld %%",
                   json_opt_str(w, "sweep", ""), count_of(w, "pending"), count_of(w, "leased"),
                   done, count_of(w, "buried"), count_of(w, "held"), count_of(w, "cancelled"),
                   total, total > 0 ? 100 * done / total : 0);
        double rate = json_opt_num(w, "jobs_per_s", 0);
        char left[32];
        if (rate > 0 && count_of(w, "pending") + count_of(w, "leased") > 0)
            buf_printf(out, "  %.3g jobs/s, about %s left", rate,
                       fmt_duration(json_opt_num(w, "eta_s", 0), left));
        buf_addc(out, '\n');
    }
}

static void add_worker(const json_t *w, struct buf *out)
{
    buf_printf(out, "worker %.8s  %-4s  %s, %s: %lld done, %lld failed, %lld leased",
               json_opt_str(w, "worker", ""), json_opt_str(w, "state", ""),
               json_opt_str(w, "host", ""), json_opt_str(w, "device", ""), count_of(w, "done"),
               count_of(w, "failed"), count_of(w, "leased"));
    if (json_opt_str(w, "checkpoint", NULL) != NULL)
        buf_printf(out, "; has %s loaded", json_opt_str(w, "checkpoint", ""));
    buf_addc(out, '\n');
}

static void add_text(const json_t *doc, const char *db, struct buf *out)
{
    size_t i = 0;
    json_t *w = NULL;
    const json_t *served = json_object_get(doc, "served");
    if (db == NULL)
        buf_printf(out, "%s\n", json_opt_str(doc, "db", ""));
    else if (json_is_object(served))
        buf_printf(out, "%s, served by process %lld on %s\n", db, count_of(served, "pid"),
                   json_opt_str(served, "host", ""));
    else
        buf_printf(out, "%s, not served: `isobit serve --db %s` hands its jobs to workers\n", db,
                   db);
    add_sweeps(doc, out);
    json_array_foreach(json_object_get(doc, "workers"), i, w)
    {
        add_worker(w, out);
    }
}

static struct dispatch_counts all_counts(const json_t *doc)
{
    const json_t *states = json_object_get(doc, "states");
    size_t i = 0;
    json_t *row = NULL;
    struct dispatch_counts c = {.pending = count_of(states, "pending"),
                                .leased = count_of(states, "leased"),
                                .done = count_of(states, "done"),
                                .buried = count_of(states, "buried")};
    json_array_foreach(json_object_get(doc, "sweeps"), i, row)
    {
        /* Sweeps share jobs, so rates do not add up: the fastest one, and the slowest one to end, speak for all. */
        c.jobs_per_s = fmax(c.jobs_per_s, json_opt_num(row, "jobs_per_s", 0));
        c.eta_s = fmax(c.eta_s, json_opt_num(row, "eta_s", 0));
    }
    json_array_foreach(json_object_get(doc, "workers"), i, row)
    {
        c.workers += strcmp(json_opt_str(row, "state", ""), "live") == 0;
    }
    return c;
}

/* What --watch says where nothing can be redrawn: "12:30:05 123/456 jobs 27%  3.4 jobs/s  2 workers  2m 10s left". */
static void add_line(const json_t *doc, struct buf *out)
{
    const struct dispatch_counts c = all_counts(doc);
    char clock[16];
    struct tm t;
    time_t now = time(NULL);
    localtime_r(&now, &t);
    strftime(clock, sizeof(clock), "%H:%M:%S ", &t);
    buf_adds(out, clock);
    progress_format(&c, 0, out);
    buf_addc(out, '\n');
}

static void add_bar(const json_t *doc, struct buf *out)
{
    const struct dispatch_counts c = all_counts(doc);
    progress_format(&c, BAR_WIDTH, out);
    buf_adds(out, "\n\n");
}

/* ---- showing ---- */

static void render(const struct status_options *o, const json_t *doc, bool is_terminal,
                   struct buf *out)
{
    buf_reset(out);
    if (o->is_json) {
        json_append(out, doc, !o->is_watch);
        buf_addc(out, '\n');
    } else if (o->is_watch && !is_terminal) {
        add_line(doc, out);
    } else {
        if (o->is_watch)
            add_bar(doc, out);
        add_text(doc, o->db, out);
    }
}

static bool is_over(const json_t *doc)
{
    const json_t *states = json_object_get(doc, "states");
    return count_of(states, "pending") + count_of(states, "leased") == 0;
}

static enum err_code watch(const struct status_options *o, struct store *s, struct buf *text,
                           struct err *e)
{
    struct screen screen;
    enum err_code rc = ERR_OK;
    TRY(screen_open(&screen, STDOUT_FILENO, o->is_json, e));
    for (bool goes_on = true; goes_on;) {
        json_t *doc = NULL;
        rc = look(o, s, &doc, e);
        if (rc != ERR_OK)
            break;
        render(o, doc, screen.is_terminal, text);
        screen_draw(&screen, text);
        goes_on = !is_over(doc);
        json_decref(doc);
        if (goes_on)
            goes_on = screen_wait(&screen, (int64_t)(o->every_s * CLOCK_NS_PER_S)) != SCREEN_LEAVE;
    }
    screen_close(&screen, text);
    return rc;
}

static enum err_code show(const struct status_options *o, struct err *e)
{
    struct store *s = NULL;
    struct buf text = {0};
    json_t *doc = NULL;
    if (o->connect == NULL)
        TRY(store_open(o->db, STORE_READ, &s, e));
    enum err_code rc = o->is_watch ? watch(o, s, &text, e) : look(o, s, &doc, e);
    if (rc == ERR_OK && !o->is_watch) {
        render(o, doc, false, &text);
        fwrite(text.data, 1, text.len, stdout);
        json_decref(doc);
    }
    buf_release(&text);
    store_close(s);
    return rc;
}

static int run(const void *opts, int n_args, char **args)
{
    (void)n_args;
    (void)args;
    const struct status_options *o = opts;
    struct err e;
    if ((o->db == NULL) == (o->connect == NULL)) {
        err_set(&e, ERR_USAGE, "status: expected one of --db F.db and --connect tcp://HOST:PORT");
        return cli_fail(&e);
    }
    return show(o, &e) == ERR_OK ? 0 : cli_fail(&e);
}

const struct cli_cmd cmd_status = {
    .name = "status",
    .summary = "how far the sweeps of a database are, and who works on them",
    .doc =
        "Reads the database only; works while a coordinator runs and when none does. The rate\n"
        "is that of the last five minutes.\n"
        "\n"
        "  isobit status --db demo.db\n"
        "  isobit status --db demo.db --watch\n"
        "  isobit status --connect tcp://head:5555 --keys DIR    (from another machine)\n"
        "\n"
        "--watch redraws a terminal until nothing is left or Ctrl-C; elsewhere it prints a line "
        "at\n"
        "a time. A live view for the browser: `isobit serve --http`.\n"
        "\n"
        "--json prints db, served{pid, host, control} or null, states{state: jobs}, sweeps[rows\n"
        "of the view `progress`], workers[rows of the view `workers`, of live ones also\n"
        "checkpoint, jobs, seconds].",
    .opts = options,
    .n_opts = ARRAY_LEN(options),
    .opt_size = sizeof(struct status_options),
    .run = run,
};
