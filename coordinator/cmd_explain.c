/* isobit explain KEY: why a job is where it is, in words, and what became of its attempts. */
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/cli.h"
#include "coordinator/cmd.h"
#include "coordinator/control.h"
#include "coordinator/lock.h"
#include "coordinator/rows.h"
#include "coordinator/why.h"

enum { MAX_JOBS = 20 }; /* a pattern that matches more is for `isobit jobs` */

struct explain_options {
    const char *db;
    bool is_json;
};

static const struct cli_opt options[] = {
    CMD_OPT_DB(offsetof(struct explain_options, db)),
    {.name = "json",
     .type = CLI_FLAG,
     .help = "print a JSON array of objects",
     .offset = offsetof(struct explain_options, is_json)},
};

static enum err_code say_why(const struct why *x, const json_t *job, json_t *why, struct err *e)
{
    int state = job_state_of(str_of(json_opt_str(job, "state", "")));
    char took[32];
    if (state < 0)
        return err_set(e, ERR_FORMAT, "%s: a job has a state that this version does not know",
                       x->db);
    switch ((enum job_state)state) {
    case JOB_PENDING:
        return why_pending(x, job, why, e);
    case JOB_LEASED:
        why_say(why, "worker %.8s has it%s", json_opt_str(job, "worker", "?"),
                x->is_served ? ""
                             : "; nothing serves this database now, so its lease ends soon after "
                               "`isobit serve` starts");
        break;
    case JOB_DONE:
        why_say(why, "worker %.8s did it in %s", json_opt_str(job, "worker", "?"),
                fmt_duration(json_opt_num(job, "seconds", 0), took));
        break;
    case JOB_BURIED:
        why_say(why, "it failed %lld times, the last with: %s",
                (long long)json_opt_int(job, "attempts", 0), json_opt_str(job, "error", "?"));
        why_say(why, "`isobit retry --db %s KEY` gives it all its attempts again", x->db);
        break;
    case JOB_HELD:
        why_say(why, "somebody holds it back; `isobit release --db %s KEY` lets it run", x->db);
        break;
    case JOB_CANCELLED:
        why_say(why, "somebody cancelled it; `isobit retry --db %s KEY` lets it run", x->db);
        break;
    case JOB_STATE_COUNT:
        break;
    }
    return ERR_OK;
}

/* ---- gathering ---- */

/* Without an answer the explanation is only shorter. New reference or NULL. */
static json_t *ask_live(const char *db)
{
    static const double timeout_s = 2;
    json_t *request = json_pack("{s:s}", "op", "workers"), *live = NULL;
    ERR_IGNORE(control_request(db, request, false, timeout_s, &live, &(struct err){0}));
    json_decref(request);
    return live;
}

static enum err_code explain_job(const struct why *x, json_t *job, struct err *e)
{
    json_t *why = json_array();
    json_object_set_new(job, "why", why);
    TRY(why_add_failures(x, job, e));
    return say_why(x, job, why, e);
}

static enum err_code gather(const struct why *x, const char *pattern, json_t **jobs, struct err *e)
{
    static const char sql_jobs[] = "SELECT sweep, state, worker, seconds, " WHY_COLUMNS
                                   " FROM jobs WHERE key_glob(?1, key) ORDER BY job LIMIT 21";
    TRY(rows_query(x->s, sql_jobs, &pattern, 1, jobs, e));
    if (json_array_size(*jobs) > MAX_JOBS)
        return err_set(e, ERR_USAGE,
                       "%s matches more than %d jobs; narrow it, or list them with `isobit jobs`",
                       pattern, (int)MAX_JOBS);
    size_t i = 0;
    json_t *job = NULL;
    json_array_foreach(*jobs, i, job)
    {
        TRY(explain_job(x, job, e));
    }
    return ERR_OK;
}

/* ---- printing ---- */

static void print_job(const json_t *job)
{
    size_t i = 0;
    json_t *v = NULL;
    printf("%s\n  %s (sweep %s, priority %lld)\n", json_opt_str(job, "key", ""),
           json_opt_str(job, "state", ""), json_opt_str(job, "sweep", ""),
           (long long)json_opt_int(job, "priority", 0));
    json_array_foreach(json_object_get(job, "why"), i, v)
    {
        printf("  - %s\n", json_string_value(v));
    }
    json_array_foreach(json_object_get(job, "failures"), i, v)
    {
        printf("  attempt %lld %s at %s on %s: %s: %s\n", (long long)json_opt_int(v, "attempt", 0),
               json_opt_str(v, "outcome", ""), json_opt_str(v, "ended_at", "?"),
               json_opt_str(v, "host", "?"), json_opt_str(v, "code", ""),
               json_opt_str(v, "text", ""));
    }
}

static void print_all(const json_t *jobs, bool is_json)
{
    size_t i = 0;
    json_t *job = NULL;
    if (is_json) {
        cli_print_json(jobs, true);
        return;
    }
    json_array_foreach(jobs, i, job)
    {
        print_job(job);
    }
}

static enum err_code explain(const struct explain_options *o, const char *pattern, size_t *n,
                             struct err *e)
{
    struct lock_owner owner;
    struct store *s = NULL;
    struct why x = {0};
    json_t *jobs = NULL;
    if (o->db == NULL)
        return err_set(e, ERR_USAGE, "explain: --db F.db is missing");
    TRY(store_open(o->db, STORE_READ, &s, e));
    const bool is_served = lock_is_held(o->db, &owner) && owner.control[0] != '\0';
    json_t *live = is_served ? ask_live(o->db) : NULL;
    enum err_code rc = why_open(&x, s, o->db, is_served, live, e);
    if (rc == ERR_OK)
        rc = gather(&x, pattern, &jobs, e);
    *n = json_array_size(jobs);
    if (rc == ERR_OK)
        print_all(jobs, o->is_json);
    json_decref(jobs);
    why_close(&x);
    json_decref(live);
    store_close(s);
    return rc;
}

static int run(const void *opts, int n_args, char **args)
{
    (void)n_args;
    const struct explain_options *o = opts;
    struct err e;
    size_t n = 0;
    if (explain(o, args[0], &n, &e) != ERR_OK)
        return cli_fail(&e);
    if (n > 0)
        return 0;
    fprintf(stderr, "isobit: no job in %s has the key %s; `isobit jobs --db %s` lists them\n",
            o->db, args[0], o->db);
    return 1;
}

const struct cli_cmd cmd_explain = {
    .name = "explain",
    .args = "KEY",
    .summary = "why a job is pending, held or buried, and what became of its attempts",
    .doc = "KEY is a whole key or a pattern (`*` any text, `?` one character) of at most 20 jobs.\n"
           "\n"
           "  isobit explain --db demo.db '*|k=4|model=*pythia-s0|task=piqa*'\n"
           "\n"
           "--json prints an array of objects: key, sweep, state, attempts, priority, compute,\n"
           "worker, seconds, error, job, model, n_params, why[sentences], failures[{attempt,\n"
           "outcome, code, text, host, started_at, ended_at}].",
    .opts = options,
    .n_opts = ARRAY_LEN(options),
    .opt_size = sizeof(struct explain_options),
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
