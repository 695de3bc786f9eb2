/* isobit status: how far the sweeps of a database are, and who works on them. Read from the database, so it needs nobody's
 * permission; what a running coordinator knows beyond it is added when it answers. */
#include <stddef.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "base/cli.h"
#include "coordinator/cmd.h"
#include "coordinator/control.h"
#include "coordinator/lock.h"
#include "coordinator/reader.h"
#include "coordinator/rows.h"
#include "schema/store_work.h"

static const double connect_timeout_s = 10;
static const double ask_timeout_s = 2; /* status must not hang on a coordinator that does */

struct status_options {
    const char *db, *connect, *keys;
    double every_s;
    bool is_json, is_watch;
};

static const struct cli_opt options[] = {
    {.name = "db",
     .type = CLI_STRING,
     .arg = "F.db",
     .help = "the database",
     .offset = offsetof(struct status_options, db)},
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

/* ---- printing ---- */

static long long count_of(const json_t *o, const char *key)
{
    return json_opt_int(o, key, 0);
}

static void print_sweeps(const json_t *doc)
{
    size_t i = 0;
    json_t *w = NULL;
    printf("%-20s %9s %9s %9s %9s %9s %9s %9s\n", "sweep", "pending", "leased", "done", "buried",
           "held", "cancelled", "total");
    json_array_foreach(json_object_get(doc, "sweeps"), i, w)
    {
        long long done = count_of(w, "done"), total = count_of(w, "total");
        printf("%-20s %9lld %9lld %9lld %9lld %9lld %9lld %9lld  %3lld %%",
               json_opt_str(w, "sweep", ""), count_of(w, "pending"), count_of(w, "leased"), done,
               count_of(w, "buried"), count_of(w, "held"), count_of(w, "cancelled"), total,
               total > 0 ? 100 * done / total : 0);
        double rate = json_opt_num(w, "jobs_per_s", 0);
        char left[32];
        if (rate > 0 && count_of(w, "pending") + count_of(w, "leased") > 0)
            printf("  %.3g jobs/s, about %s left", rate,
                   fmt_duration(json_opt_num(w, "eta_s", 0), left));
        printf("\n");
    }
}

static void print_worker(const json_t *w)
{
    printf("worker %.8s  %-4s  %s, %s: %lld done, %lld failed, %lld leased",
           json_opt_str(w, "worker", ""), json_opt_str(w, "state", ""), json_opt_str(w, "host", ""),
           json_opt_str(w, "device", ""), count_of(w, "done"), count_of(w, "failed"),
           count_of(w, "leased"));
    if (json_opt_str(w, "checkpoint", NULL) != NULL)
        printf("; has %s loaded", json_opt_str(w, "checkpoint", ""));
    printf("\n");
}

static void print_text(const json_t *doc, const char *db)
{
    size_t i = 0;
    json_t *w = NULL;
    const json_t *served = json_object_get(doc, "served");
    if (db == NULL)
        printf("%s\n", json_opt_str(doc, "db", ""));
    else if (json_is_object(served))
        printf("%s, served by process %lld on %s\n", db, count_of(served, "pid"),
               json_opt_str(served, "host", ""));
    else
        printf("%s, not served: `isobit serve --db %s` hands its jobs to workers\n", db, db);
    print_sweeps(doc);
    json_array_foreach(json_object_get(doc, "workers"), i, w)
    {
        print_worker(w);
    }
}

static void print(const struct status_options *o, const json_t *doc)
{
    if (o->is_json) {
        cli_print_json(doc, !o->is_watch);
    } else {
        if (o->is_watch && isatty(STDOUT_FILENO))
            printf("\033[H\033[J");
        print_text(doc, o->db);
    }
    fflush(stdout);
}

static enum err_code show(const struct status_options *o, struct err *e)
{
    struct store *s = NULL;
    bool is_over = false;
    enum err_code rc = o->connect == NULL ? store_open(o->db, STORE_READ, &s, e) : ERR_OK;
    while (rc == ERR_OK && !is_over) {
        json_t *doc = NULL;
        rc = o->connect != NULL ? ask(o, &doc, e) : gather(s, o->db, &doc, e);
        if (rc != ERR_OK)
            break;
        print(o, doc);
        const json_t *states = json_object_get(doc, "states");
        is_over = !o->is_watch || count_of(states, "pending") + count_of(states, "leased") == 0;
        json_decref(doc);
        if (!is_over)
            nanosleep(
                &(struct timespec){.tv_sec = (time_t)o->every_s,
                                   .tv_nsec =
                                       (long)((o->every_s - (double)(time_t)o->every_s) * 1e9)},
                NULL);
    }
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
        "--json prints db, served{pid, host, control} or null, states{state: jobs}, sweeps[rows\n"
        "of the view `progress`], workers[rows of the view `workers`, of live ones also\n"
        "checkpoint, jobs, seconds].",
    .opts = options,
    .n_opts = ARRAY_LEN(options),
    .opt_size = sizeof(struct status_options),
    .run = run,
};
