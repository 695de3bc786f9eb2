/* isobit serve: hands a database's jobs to workers and writes down what they find. */
#include <stdio.h>

#include "base/clock.h"
#include "coordinator/cmd.h"
#include "coordinator/serve.h"
#include "coordinator/site.h"

struct serve_opts {
    const char *db, *listen, *http, *keys, *events;
    bool is_until_done, is_http_open;
    double grace, lease, heartbeat, slice;
    int64_t max_attempts;
};

#define AT(field) offsetof(struct serve_opts, field)
static const struct cli_opt options[] = {
    {.name = "db",
     .type = CLI_STRING,
     .arg = "F.db",
     .help = "database; made when it does not exist",
     .offset = AT(db)},
    {.name = "listen",
     .type = CLI_STRING,
     .arg = "tcp://HOST:PORT",
     .help = "address for workers; port 0 takes a free one; other machines' need keys",
     .def = "tcp://127.0.0.1:5555",
     .offset = AT(listen)},
    {.name = "keys",
     .type = CLI_STRING,
     .arg = "DIR",
     .help = "only listed keys come in, everything is encrypted; `isobit keygen DIR` makes it",
     .offset = AT(keys)},
    CMD_OPT_HTTP(AT(http)),
    CMD_OPT_HTTP_OPEN(AT(is_http_open)),
    {.name = "until-done",
     .type = CLI_FLAG,
     .help = "end when no job is pending or leased",
     .offset = AT(is_until_done)},
    {.name = "grace",
     .type = CLI_NUMBER,
     .arg = "SECONDS",
     .help = "when told to stop, wait so long for workers to finish and leave",
     .def = "40",
     .min = 0,
     .max = 1e6,
     .offset = AT(grace)},
    {.name = "lease",
     .type = CLI_NUMBER,
     .arg = "SECONDS",
     .help = "a worker silent for so long has lost its jobs",
     .def = "15",
     .min = 0.2,
     .max = 86400,
     .offset = AT(lease)},
    {.name = "heartbeat",
     .type = CLI_NUMBER,
     .arg = "SECONDS",
     .help = "time between signs of life, both ways",
     .def = "1",
     .min = 0.05,
     .max = 60,
     .offset = AT(heartbeat)},
    {.name = "slice",
     .type = CLI_NUMBER,
     .arg = "SECONDS",
     .help = "work handed out at a time, by measured job times",
     .def = "45",
     .min = 0.1,
     .max = 86400,
     .offset = AT(slice)},
    {.name = "events",
     .type = CLI_STRING,
     .arg = "FILE.jsonl",
     .help = "append one JSON line for whatever happens to jobs and workers (docs/EVENTS.md)",
     .offset = AT(events)},
    CMD_OPT_MAX_ATTEMPTS(AT(max_attempts)),
};
#undef AT

static int64_t to_ns(double seconds)
{
    return (int64_t)(seconds * CLOCK_NS_PER_S);
}

static enum err_code check(const struct serve_opts *o, struct err *e)
{
    if (o->db == NULL)
        return err_set(e, ERR_USAGE, "--db is missing: name the database, e.g. --db sweep.db");
    if (o->lease < 3 * o->heartbeat)
        return err_set(e, ERR_USAGE,
                       "--lease %g is shorter than three heartbeats of %g s: one late heartbeat "
                       "would cost a worker its jobs",
                       o->lease, o->heartbeat);
    return ERR_OK;
}

static int finish(struct serve *s, enum serve_end end, const char *db)
{
    struct dispatch_counts c = {0};
    struct err e;
    if (serve_count(s, &c, &e) != ERR_OK)
        return cli_fail(&e);
    fprintf(stderr, "%lld done, %lld pending, %lld leased, %lld buried\n", (long long)c.done,
            (long long)c.pending, (long long)c.leased, (long long)c.buried);
    switch (end) {
    case SERVE_DONE:
        return c.buried > 0;
    case SERVE_DRAINED:
        return 0;
    case SERVE_CUT:
        fprintf(stderr, "stopped with workers at work; `isobit serve --db %s` goes on from here\n",
                db);
        return 1;
    }
    return 0;
}

/* The web page hears of what the coordinator knows. */
static void on_turn(void *arg, struct serve *s, int64_t now_ns)
{
    struct site *const *site = arg;
    if (*site != NULL)
        site_publish(*site, s, now_ns);
}

static enum err_code open_site(const struct serve_opts *o, struct site **out, struct err *e)
{
    const struct site_options so = {
        .db_path = o->db, .address = o->http, .is_open = o->is_http_open};
    if (o->http == NULL)
        return ERR_OK;
    return site_open(&so, out, e);
}

static int run(const void *opts, int n_args, char **args)
{
    (void)n_args;
    (void)args;
    const struct serve_opts *o = opts;
    struct err e;
    struct serve *s = NULL;
    struct site *site = NULL;
    if (check(o, &e) != ERR_OK)
        return cli_fail(&e);
    const struct serve_options so = {
        .db_path = o->db,
        .listen = o->listen,
        .keys_dir = o->keys,
        .dispatch = {.lease_ns = to_ns(o->lease),
                     .heartbeat_ns = to_ns(o->heartbeat),
                     .slice_ns = to_ns(o->slice),
                     .max_attempts = (int)o->max_attempts},
        .events_path = o->events,
        .grace_ns = to_ns(o->grace),
        .is_until_done = o->is_until_done,
        .turn = o->http != NULL ? on_turn : NULL,
        .turn_arg = &site,
    };
    if (serve_open(&so, &s, &e) != ERR_OK)
        return cli_fail(&e);
    enum err_code rc = open_site(o, &site, &e);
    if (rc == ERR_OK)
        printf("serving %s on %s\n", o->db, serve_endpoint(s));
    if (site != NULL)
        printf("page on %s\n", site_url(site));
    fflush(stdout);
    int status = rc == ERR_OK ? finish(s, serve_run(s), o->db) : cli_fail(&e);
    site_close(site);
    serve_close(s);
    return status;
}

const struct cli_cmd cmd_serve = {
    .name = "serve",
    .summary = "hand a database's jobs to workers",
    .doc =
        "Leases the jobs of a database to workers that connect, and writes their results.\n"
        "  isobit serve --db sweep.db --listen tcp://127.0.0.1:5555\n"
        "  isobit-worker run --connect tcp://127.0.0.1:5555\n"
        "Workers on other machines need keys:\n"
        "  isobit keygen keys\n"
        "  isobit serve --db sweep.db --listen tcp://0.0.0.0:5555 --keys keys\n"
        "The first line on stdout names the address; with --http the second one names the web page "
        "(docs/HTTP.md). SIGINT or SIGTERM: hands out nothing more, "
        "waits for workers to finish (--grace) and ends; a second one ends at once. Killed or "
        "stopped, it goes on where it was when it is started again. Exit: 0 stopped or all "
        "done, 1 some jobs failed or workers were still busy, 3 bad database, 4 busy.",
    .opts = options,
    .n_opts = ARRAY_LEN(options),
    .opt_size = sizeof(struct serve_opts),
    .run = run,
};
