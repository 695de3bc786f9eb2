/* isobit slurm: starts workers as Slurm jobs and keeps up as many as there is work for. */
#include <stdio.h>

#include "base/clock.h"
#include "base/io.h"
#include "coordinator/autoalloc.h"
#include "coordinator/cmd.h"

struct slurm_opts {
    const char *db, *connect, *keys, *partition, *account, *walltime, *worker_program, *logs;
    int64_t max, backlog, gpus;
    double idle_timeout, drain, every;
    struct cli_list sbatch_args, worker_args;
    bool is_dry_run, is_until_done;
};

#define AT(field) offsetof(struct slurm_opts, field)
static const struct cli_opt options[] = {
    {.name = "db",
     .type = CLI_STRING,
     .arg = "F.db",
     .help = "the database that `isobit serve` hands out on this machine",
     .offset = AT(db)},
    {.name = "partition",
     .letter = 'p',
     .type = CLI_STRING,
     .arg = "P",
     .help = "Slurm partition (default: the cluster's)",
     .offset = AT(partition)},
    {.name = "max",
     .type = CLI_INT,
     .arg = "N",
     .help = "Slurm jobs at most, queued and running",
     .def = "8",
     .min = 1,
     .max = 10000,
     .offset = AT(max)},
    {.name = "backlog",
     .type = CLI_INT,
     .arg = "N",
     .help = "of them queued at most",
     .def = "1",
     .min = 1,
     .max = 10000,
     .offset = AT(backlog)},
    {.name = "idle-timeout",
     .type = CLI_NUMBER,
     .arg = "SECONDS",
     .help = "a worker without a job for so long ends",
     .def = "300",
     .min = 1,
     .max = 1e7,
     .offset = AT(idle_timeout)},
    {.name = "walltime",
     .type = CLI_STRING,
     .arg = "TIME",
     .help =
         "time limit of a Slurm job as sbatch takes it, e.g. 4:00:00 (default: the partition's)",
     .offset = AT(walltime)},
    {.name = "drain",
     .type = CLI_NUMBER,
     .arg = "SECONDS",
     .help = "so long before the time limit workers hand back what they cannot finish",
     .def = "90",
     .min = 15,
     .max = 65535,
     .offset = AT(drain)},
    {.name = "gpus",
     .type = CLI_INT,
     .arg = "N",
     .help = "GPUs of a Slurm job, each with a worker; 0: one worker on the CPUs",
     .def = "0",
     .min = 0,
     .max = 64,
     .offset = AT(gpus)},
    {.name = "account",
     .letter = 'A',
     .type = CLI_STRING,
     .arg = "A",
     .help = "Slurm account",
     .offset = AT(account)},
    {.name = "sbatch-arg",
     .type = CLI_LIST,
     .arg = "OPTION",
     .help = "a further option of sbatch, e.g. --sbatch-arg=--mem=20G; may be repeated",
     .offset = AT(sbatch_args)},
    {.name = "worker-arg",
     .type = CLI_LIST,
     .arg = "OPTION",
     .help = "a further option of isobit-worker run, e.g. --worker-arg=--memory=20GiB; may be "
             "repeated",
     .offset = AT(worker_args)},
    {.name = "worker-program",
     .type = CLI_STRING,
     .arg = "PATH",
     .help = "isobit-worker as the nodes see it (default: the one beside this program)",
     .offset = AT(worker_program)},
    {.name = "connect",
     .type = CLI_STRING,
     .arg = "tcp://HOST:PORT",
     .help = "the coordinator as the nodes see it (default: as it listens, with this host's name)",
     .offset = AT(connect)},
    {.name = "keys",
     .type = CLI_STRING,
     .arg = "DIR",
     .help = "keys of the workers, handed through to them",
     .offset = AT(keys)},
    {.name = "logs",
     .type = CLI_STRING,
     .arg = "DIR",
     .help = "folder for the workers' logs, seen by the nodes too (default: F.db-logs)",
     .offset = AT(logs)},
    {.name = "every",
     .type = CLI_NUMBER,
     .arg = "SECONDS",
     .help = "how often Slurm is asked",
     .def = "10",
     .min = 0.2,
     .max = 3600,
     .offset = AT(every)},
    {.name = "until-done",
     .type = CLI_FLAG,
     .help = "end when no job is pending or leased",
     .offset = AT(is_until_done)},
    {.name = "dry-run",
     .type = CLI_FLAG,
     .help = "print the batch script and do nothing",
     .offset = AT(is_dry_run)},
};
#undef AT

/* Text the options point to, once it is made absolute: the nodes start in other folders. */
struct paths {
    char *db, *logs, *keys, *worker_program;
    char name[24];
};

static void find_paths(const struct slurm_opts *o, struct paths *p)
{
    char *dir = io_program_dir();
    p->db = io_absolute(o->db);
    char *logs = o->logs != NULL ? xstrdup(o->logs) : xasprintf("%s-logs", o->db);
    p->logs = io_absolute(logs);
    p->keys = o->keys != NULL ? io_absolute(o->keys) : NULL;
    p->worker_program =
        o->worker_program != NULL ? xstrdup(o->worker_program) : xasprintf("%s/isobit-worker", dir);
    slurm_job_name(o->db, p->name);
    xfree(logs);
    xfree(dir);
}

static void release_paths(struct paths *p)
{
    xfree(p->db);
    xfree(p->logs);
    xfree(p->keys);
    xfree(p->worker_program);
}

static enum err_code print_script(const struct slurm_script *script, struct err *e)
{
    struct slurm_script s = *script;
    struct buf text = {0};
    char *found = NULL;
    if (s.connect == NULL && io_exists(s.db_path))
        TRY(autoalloc_find_coordinator(s.db_path, &found, e));
    if (s.connect == NULL)
        s.connect = found != NULL ? found : "tcp://COORDINATOR:5555";
    enum err_code rc = slurm_write_script(&s, &text, e);
    if (rc == ERR_OK)
        fwrite(text.data, 1, text.len, stdout);
    buf_release(&text);
    xfree(found);
    return rc;
}

static enum err_code work(const struct slurm_opts *o, const struct paths *p, struct err *e)
{
    const struct autoalloc_options ao = {
        .script = {.name = p->name,
                   .db_path = p->db,
                   .worker_program = p->worker_program,
                   .connect = o->connect,
                   .keys_dir = p->keys,
                   .log_dir = p->logs,
                   .partition = o->partition,
                   .account = o->account,
                   .walltime = o->walltime,
                   .gpus = o->gpus,
                   .idle_s = (int64_t)o->idle_timeout,
                   .drain_s = (int64_t)o->drain,
                   .sbatch_args = o->sbatch_args,
                   .worker_args = o->worker_args},
        .limits = {.max = o->max, .backlog = o->backlog, .idle_s = (int64_t)o->idle_timeout},
        .poll_ns = (int64_t)(o->every * CLOCK_NS_PER_S),
        .is_until_done = o->is_until_done,
    };
    if (o->is_dry_run)
        return print_script(&ao.script, e);
    if (!io_exists(p->db))
        return err_set(e, ERR_NOTFOUND,
                       "%s does not exist; `isobit plan SPEC.yaml --db %s` makes it", o->db, o->db);
    struct buf probe = {0}; /* a value that no script can hold is told now */
    struct slurm_script s = ao.script;
    s.connect = "tcp://COORDINATOR:5555";
    enum err_code rc = slurm_write_script(&s, &probe, e);
    buf_release(&probe);
    TRY(rc);
    TRY(io_make_dirs(p->logs, e));
    return autoalloc_run(&ao, e);
}

static int run(const void *opts, int n_args, char **args)
{
    (void)n_args;
    (void)args;
    const struct slurm_opts *o = opts;
    struct err e;
    if (o->db == NULL) {
        err_set(&e, ERR_USAGE, "--db is missing: name the database that `isobit serve` hands out");
        return cli_fail(&e);
    }
    struct paths p;
    find_paths(o, &p);
    enum err_code rc = work(o, &p, &e);
    release_paths(&p);
    return rc == ERR_OK ? 0 : cli_fail(&e);
}

const struct cli_cmd cmd_slurm = {
    .name = "slurm",
    .summary = "start workers as Slurm jobs, as many as there is work for",
    .doc = "Runs beside `isobit serve`, on a machine with Slurm's programs:\n"
           "  isobit slurm --db sweep.db --partition gpu --gpus 1 --walltime 4:00:00 --max 32\n"
           "A Slurm job runs one worker (one for each GPU) that takes experiment after experiment; "
           "there is never one Slurm job an experiment. While jobs are pending, new ones are "
           "submitted up to --max, --backlog at a time; workers without work end by themselves. "
           "Before the time limit and, where the cluster warns, before preemption workers hand "
           "back what they cannot finish and the job queues again (scontrol requeue; where that is "
           "not allowed another one is submitted). After 10 refused submissions or 3 failed starts "
           "in a row it pauses and says why; SIGUSR1 goes on. Ctrl-C: cancels what is queued and "
           "leaves what runs. --dry-run prints the script, for sbatch by hand.",
    .opts = options,
    .n_opts = ARRAY_LEN(options),
    .opt_size = sizeof(struct slurm_opts),
    .run = run,
};
