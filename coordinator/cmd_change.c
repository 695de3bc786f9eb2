/* isobit retry, cancel, hold, release, priority: what people ask of all jobs whose key matches a pattern. */
#include <stddef.h>
#include <stdio.h>

#include "base/cli.h"
#include "coordinator/cmd.h"
#include "coordinator/control.h"

static const double change_timeout_s = 120;

struct change_options {
    const char *db, *program; /* program: retry only */
    bool is_done;             /* retry only */
};

static const struct cli_opt options[] = {
    CMD_OPT_DB(offsetof(struct change_options, db)),
};
static const struct cli_opt retry_options[] = {
    CMD_OPT_DB(offsetof(struct change_options, db)),
    {.name = "done",
     .type = CLI_FLAG,
     .help = "take back results of done jobs instead, so that they run again",
     .offset = offsetof(struct change_options, is_done)},
    {.name = "program",
     .type = CLI_STRING,
     .arg = "'<V'",
     .help = "with --done: only results of program versions below V",
     .offset = offsetof(struct change_options, program)},
};

/* What each does, in the words of its message. */
static const struct verb {
    const char *op, *past, *applies_to;
} verbs[] = {
    {"retry", "pending again", "buried, cancelled or failed"},
    {"cancel", "cancelled", "pending, leased, held or buried"},
    {"hold", "held", "pending or leased"},
    {"release", "pending again", "held"},
    {"priority", "of that priority now", "open with another priority"},
};

static enum err_code check(const struct verb *v, const struct change_options *o, struct err *e)
{
    if (o->db == NULL)
        return err_set(e, ERR_USAGE, "%s: --db F.db is missing", v->op);
    if (o->program != NULL && !o->is_done)
        return err_set(e, ERR_USAGE, "%s: --program selects results of done jobs; add --done",
                       v->op);
    return ERR_OK;
}

/* Exit status 1 when nothing matches: the answer is no. */
static int report(const struct verb *v, const struct change_options *o, const char *pattern,
                  const json_t *reply)
{
    long long matched = json_opt_int(reply, "matched", 0),
              changed = json_opt_int(reply, "changed", 0);
    if (matched == 0) {
        fprintf(
            stderr,
            "isobit: no job in %s has a key that matches %s; `isobit jobs --db %s` lists them\n",
            o->db, pattern, o->db);
        return 1;
    }
    if (changed == 0)
        printf("nothing changed: of %lld matching jobs none is %s\n", matched,
               o->is_done ? "done with such a program" : v->applies_to);
    else
        printf("%lld of %lld matching jobs %s %s\n", changed, matched, changed == 1 ? "is" : "are",
               v->past);
    return 0;
}

/* priority: of the verb of that name; NULL for the others. */
static int change(const struct verb *v, const struct change_options *o, const char *pattern,
                  const int64_t *priority)
{
    struct err e;
    json_t *reply = NULL;
    if (check(v, o, &e) != ERR_OK)
        return cli_fail(&e);
    json_t *request = json_pack("{s:s, s:s, s:s*, s:s*}", "op", v->op, "pattern", pattern, "state",
                                o->is_done ? "done" : NULL, "program", o->program);
    if (request != NULL && priority != NULL)
        json_object_set_new(request, "priority", json_integer(*priority));
    enum err_code rc = request != NULL
                           ? control_request(o->db, request, false, change_timeout_s, &reply, &e)
                           : err_set(&e, ERR_USAGE, "%s: the pattern is not UTF-8", v->op);
    json_decref(request);
    if (rc != ERR_OK)
        return cli_fail(&e);
    int status = report(v, o, pattern, reply);
    json_decref(reply);
    return status;
}

#define RUN(name, row)                                                                             \
    static int run_##name(const void *opts, int n_args, char **args)                               \
    {                                                                                              \
        (void)n_args;                                                                              \
        return change(&verbs[row], opts, args[0], NULL);                                           \
    }
RUN(retry, 0)
RUN(cancel, 1)
RUN(hold, 2)
RUN(release, 3)

static int run_priority(const void *opts, int n_args, char **args)
{
    (void)n_args;
    struct err e;
    int64_t priority = 0;
    if (parse_i64(str_of(args[1]), &priority) && priority >= -1000 && priority <= 1000)
        return change(&verbs[4], opts, args[0], &priority);
    err_set(&e, ERR_USAGE, "priority %s: expected a whole number from -1000 to 1000", args[1]);
    return cli_fail(&e);
}

#define PATTERN_DOC                                                                                \
    "KEY-PATTERN matches whole keys: `*` is any text, `?` one character. Works while a\n"          \
    "coordinator runs and when none does. Exit status 1 when no key matches.\n"                    \
    "\n"

#define COMMAND(id, opts_table, sentence, text)                                                    \
    const struct cli_cmd cmd_##id = {.name = #id,                                                  \
                                     .args = "KEY-PATTERN",                                        \
                                     .summary = (sentence),                                        \
                                     .doc = (text),                                                \
                                     .opts = (opts_table),                                         \
                                     .n_opts = ARRAY_LEN(opts_table),                              \
                                     .opt_size = sizeof(struct change_options),                    \
                                     .min_args = 1,                                                \
                                     .max_args = 1,                                                \
                                     .run = run_##id}

COMMAND(retry, retry_options, "give buried, cancelled and failed jobs all their attempts again",
        PATTERN_DOC
        "  isobit retry --db demo.db '*'\n"
        "  isobit retry --db demo.db --done --program '<0.2.0' '*|dtype=quantile|*'\n"
        "\n"
        "--done takes back results, so that the jobs run again; a checkpoint or data file without\n"
        "any result left is no longer bound to the SHA-256 it had.");
COMMAND(cancel, options, "stop jobs and run them no more",
        PATTERN_DOC "  isobit cancel --db demo.db '*|k=3|*'\n"
                    "\n"
                    "`isobit retry` takes it back. Results stay.");
COMMAND(hold, options, "keep jobs from running until they are released",
        PATTERN_DOC "  isobit hold --db demo.db '*|task=hellaswag|*'");
COMMAND(release, options, "let held jobs run", PATTERN_DOC "  isobit release --db demo.db '*'");

const struct cli_cmd cmd_priority = {
    .name = "priority",
    .args = "KEY-PATTERN N",
    .summary = "let jobs go before others, or after them",
    .doc = PATTERN_DOC "  isobit priority --db demo.db '*|task=lambada|*' 10\n"
                       "\n"
                       "Jobs of a higher priority are leased first; what is leased already stays.\n"
                       "New jobs have the priority of their `isobit plan --priority`, else 0.",
    .opts = options,
    .n_opts = ARRAY_LEN(options),
    .opt_size = sizeof(struct change_options),
    .min_args = 2,
    .max_args = 2,
    .run = run_priority,
};
