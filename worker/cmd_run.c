/* isobit-worker run: serves a coordinator until told to leave. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "schema/keys.h"
#include "schema/wire.h"
#include "worker/child.h"
#include "worker/cmd.h"
#include "worker/parent.h"
#include "worker/topo.h"
#include "worker/walltime.h"

struct run_opts {
    const char *connect, *keys, *device, *bind, *compute_program, *walltime, *cache;
    int64_t memory, threads, credit;
    double grace, job_timeout, idle_timeout, pass_minutes;
};

#define AT(field) offsetof(struct run_opts, field)
static const struct cli_opt run_opts[] = {
    {.name = "connect",
     .letter = 'c',
     .type = CLI_STRING,
     .arg = "tcp://HOST:PORT",
     .help = "the coordinator's address, as `isobit serve` prints it",
     .offset = AT(connect)},
    {.name = "keys",
     .type = CLI_STRING,
     .arg = "DIR",
     .help = "folder with worker.key and coordinator.pub, made by `isobit keygen` on the "
             "coordinator's machine",
     .offset = AT(keys)},
    {.name = "device",
     .letter = 'd',
     .type = CLI_STRING,
     .arg = "cpu|cuda:N|auto",
     .help = "auto: the first GPU when there is one, else the CPU",
     .def = "auto",
     .offset = AT(device)},
    CMD_OPT_MEMORY("", AT(memory)),
    {.name = "pass-minutes",
     .type = CLI_NUMBER,
     .arg = "MINUTES",
     .help = "most that one pass over a checkpoint beyond the budget takes on: its results come "
             "together, and a lost worker loses them",
     .def = "30",
     .min = 0,
     .max = 1e6,
     .offset = AT(pass_minutes)},
    CMD_OPT_THREADS(AT(threads)),
    {.name = "bind",
     .type = CLI_STRING,
     .arg = "PART/PARTS|none",
     .help =
         "take this share of the machine's cores and their memory, e.g. 0/2 and 1/2; with a GPU "
         "of those next to it (default: with a GPU 0/1, else none)",
     .offset = AT(bind)},
    {.name = "credit",
     .type = CLI_INT,
     .arg = "N",
     .help = "slices in hand at most: one runs, the others wait",
     .def = "2",
     .min = 1,
     .max = WIRE_MAX_CREDIT,
     .offset = AT(credit)},
    {.name = "grace",
     .type = CLI_NUMBER,
     .arg = "SECONDS",
     .help = "when told to leave, wait so long for the running job before handing it back",
     .def = "30",
     .min = 0,
     .max = 1e6,
     .offset = AT(grace)},
    {.name = "job-timeout",
     .type = CLI_NUMBER,
     .arg = "SECONDS",
     .help = "a job without progress for so long has failed; 0: wait for ever",
     .def = "1800",
     .min = 0,
     .max = 1e6,
     .offset = AT(job_timeout)},
    {.name = "idle-timeout",
     .type = CLI_NUMBER,
     .arg = "SECONDS",
     .help = "leave after so long without a job; 0: stay",
     .def = "0",
     .min = 0,
     .max = 1e7,
     .offset = AT(idle_timeout)},
    {.name = "cache",
     .type = CLI_STRING,
     .arg = "DIR",
     .help = "where data files that this machine lacks are kept, after they were fetched from the "
             "coordinator (default: ~/.cache/isobit/data)",
     .offset = AT(cache)},
    {.name = "walltime",
     .type = CLI_STRING,
     .arg = "TIME",
     .help = "when this machine is taken away: 5400, 90m, 2h, 1-12:00:00 from now, or a date such "
             "as 2026-11-23T06:00:00Z; no job is taken that would not end before (default: "
             "SLURM_JOB_END_TIME)",
     .offset = AT(walltime)},
    {.name = "compute-program",
     .type = CLI_STRING,
     .arg = "PATH",
     .help = "run this as the compute process instead of isobit-worker itself; it must speak "
             "schema/PROTOCOL.md section 8 (for tests and simulations)",
     .offset = AT(compute_program)},
};
#undef AT

/* Monotonic ns at which the machine is taken away; 0: never. */
static enum err_code end_of(const char *walltime, int64_t *end_ns, struct err *e)
{
    int64_t at_s = 0, left_s = 0, now_s = clock_wall_ns() / CLOCK_NS_PER_S;
    const char *slurm = getenv("SLURM_JOB_END_TIME");
    *end_ns = 0;
    if (walltime == NULL && (slurm == NULL || !parse_i64(str_of(slurm), &at_s)))
        return ERR_OK;
    if (walltime == NULL || parse_date(walltime, &at_s))
        left_s = at_s - now_s;
    else if (!parse_duration(walltime, &left_s))
        return err_set(e, ERR_USAGE,
                       "--walltime %s: expected a time from now such as 5400, 90m, 2h or "
                       "1-12:00:00, or a date such as 2026-11-23T06:00:00Z",
                       walltime);
    *end_ns = clock_mono_ns() + (left_s > 0 ? left_s : 0) * CLOCK_NS_PER_S;
    return ERR_OK;
}

static enum err_code serve(const struct run_opts *o, struct err *e)
{
    char self[4096], fd[16], threads[32], memory[32], pass_minutes[32];
    struct topo_share share;
    struct link_keys keys;
    if (o->keys != NULL)
        TRY(keys_load(o->keys, KEY_WORKER, &keys, e));
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (n < 0)
        return err_set(e, ERR_IO, "cannot find this program's own file in /proc/self/exe");
    self[n] = '\0';
    snprintf(fd, sizeof(fd), "%d", PROC_FD);
    snprintf(threads, sizeof(threads), "%lld", (long long)o->threads);
    snprintf(memory, sizeof(memory), "%lld", (long long)o->memory);
    snprintf(pass_minutes, sizeof(pass_minutes), "%.17g", o->pass_minutes);
    char *const argv[] = {o->compute_program != NULL ? (char *)o->compute_program : self,
                          "compute",
                          "--fd",
                          fd,
                          "--device",
                          (char *)o->device,
                          "--threads",
                          threads,
                          "--memory",
                          memory,
                          "--pass-minutes",
                          pass_minutes,
                          o->bind != NULL ? "--bind" : NULL,
                          (char *)o->bind,
                          NULL};
    if (o->bind != NULL && strcmp(o->bind, "none") != 0)
        TRY(topo_parse_share(o->bind, &share, e));
    int64_t end_ns = 0;
    TRY(end_of(o->walltime, &end_ns, e));
    const struct parent_options po = {
        .connect = o->connect,
        .keys = o->keys != NULL ? &keys : NULL,
        .compute_argv = argv,
        .cache_dir = o->cache,
        .credit = (int)o->credit,
        .grace_ns = (int64_t)(o->grace * CLOCK_NS_PER_S),
        .job_timeout_ns = (int64_t)(o->job_timeout * CLOCK_NS_PER_S),
        .idle_ns = (int64_t)(o->idle_timeout * CLOCK_NS_PER_S),
        .end_ns = end_ns,
    };
    return parent_run(&po, e);
}

static int run_run(const void *opts, int n_args, char **args)
{
    (void)n_args;
    (void)args;
    const struct run_opts *o = opts;
    struct err e;
    if (o->connect == NULL) {
        err_set(&e, ERR_USAGE, "--connect is missing: give the address that `isobit serve` prints");
        return cli_fail(&e);
    }
    return serve(o, &e) == ERR_OK ? 0 : cli_fail(&e);
}

const struct cli_cmd cmd_run = {
    .name = "run",
    .summary = "serve a coordinator: take jobs, compute, report",
    .doc =
        "Connects to a coordinator and works until it is told to leave.\n"
        "  isobit-worker run --connect tcp://127.0.0.1:5555 --device cpu\n"
        "SIGTERM or SIGINT: finishes the running job (at most --grace), hands the rest back and "
        "ends with 0; a second one ends it at once. SIGUSR1 does the same and leaves SIGTERM to "
        "hurry it, as batch systems warn their jobs. A coordinator that goes away is waited for. "
        "Exit: 0 left in peace, 1 left with work in hand, 2 usage, 4 refused or no device.",
    .opts = run_opts,
    .n_opts = ARRAY_LEN(run_opts),
    .opt_size = sizeof(struct run_opts),
    .run = run_run,
};
