/* isobit run SPEC.yaml: plan, serve, local workers, progress and report in one command. Running it again goes on where it
 * was; when all is done it says so. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/proc.h"
#include "coordinator/cmd.h"
#include "coordinator/local.h"
#include "coordinator/plan.h"
#include "coordinator/progress.h"
#include "coordinator/rows.h"
#include "coordinator/serve.h"
#include "coordinator/site.h"
#include "coordinator/why.h"
#include "schema/hub.h"

/* Local workers die with this process, so a short lease makes the next run take their jobs up soon. */
static const int64_t lease_ns = 5 * CLOCK_NS_PER_S;
static const int64_t heartbeat_ns = CLOCK_NS_PER_S / 2;
static const int64_t slice_ns = 45 * CLOCK_NS_PER_S;
static const int64_t grace_ns = 35 * CLOCK_NS_PER_S;
static const int64_t stall_ns = 20 * CLOCK_NS_PER_S;
static const int64_t leave_ns = 2 * CLOCK_NS_PER_S;

struct run_opts {
    const char *db, *report, *compute_program, *http;
    struct cli_list devices;
    int64_t workers, max_attempts;
    bool is_without_report, is_http_open;
};

#define AT(field) offsetof(struct run_opts, field)
static const struct cli_opt options[] = {
    CMD_OPT_SPEC_DB(AT(db)),
    {.name = "workers",
     .letter = 'w',
     .type = CLI_INT,
     .arg = "N",
     .help = "local workers; 0: one for each --device, without any one a core as memory allows",
     .def = "0",
     .min = 0,
     .max = 1024,
     .offset = AT(workers)},
    {.name = "device",
     .letter = 'd',
     .type = CLI_LIST,
     .arg = "cpu|cuda:N|auto",
     .help = "device of a worker; repeat for several (default: auto, every GPU, else the CPU)",
     .offset = AT(devices)},
    {.name = "report",
     .type = CLI_STRING,
     .arg = "DIR",
     .help = "folder for the report (default: NAME-report)",
     .offset = AT(report)},
    {.name = "no-report",
     .type = CLI_FLAG,
     .help = "leave the report out",
     .offset = AT(is_without_report)},
    CMD_OPT_HTTP(AT(http)),
    CMD_OPT_HTTP_OPEN(AT(is_http_open)),
    CMD_OPT_MAX_ATTEMPTS(AT(max_attempts)),
    {.name = "compute-program",
     .type = CLI_STRING,
     .arg = "PATH",
     .help = "handed to the workers (for tests and simulations)",
     .offset = AT(compute_program)},
};
#undef AT

struct run {
    const struct run_opts *o;
    const char *spec_path;
    char *db, *report, *logs;
    struct local *local;
    struct site *site; /* NULL: no web page */
    struct progress progress;
    int64_t largest_params; /* of the sweep's checkpoints */
    int told_fd;            /* the terminal's stderr while the log goes to a file */
    int64_t leased_ns;      /* when a job was leased last */
    bool has_other_evals;   /* than when the report was made */
    bool has_devices;       /* `devices` is known */
    struct local_devices devices;
    bool is_stalled, is_workerless;
    struct err why;    /* of is_workerless */
    json_t *obstacles; /* of is_stalled: sentences */
};

/* ---- before anything starts ---- */

static enum err_code check_files(const struct sweep *sw, const struct estimate *est,
                                 struct arena *a, struct err *e)
{
    for (int i = 0; i < sw->n_models; i++) {
        const struct model_ref *m = &sw->models[i].ref;
        const struct sweep_mark *at = &sw->models[i].mark;
        if (est->models[i].is_here)
            continue;
        if (m->hub != NULL)
            return err_set(e, ERR_NOTFOUND,
                           "%s:%d:%d: %s is not on this machine; fetch it with: %s", sw->path,
                           at->line, at->column, m->name,
                           hub_fetch_command(&(struct hub_id){m->hub, m->revision}, a));
        return err_set(e, ERR_NOTFOUND,
                       "%s:%d:%d: %s holds no checkpoint; expected config.json and weights there",
                       sw->path, at->line, at->column, m->path);
    }
    for (int i = 0; i < sw->n_evals; i++)
        if (!est->evals[i].is_here)
            return err_set(e, ERR_NOTFOUND, "%s:%d:%d: data file %s does not exist", sw->path,
                           sw->evals[i].mark.line, sw->evals[i].mark.column,
                           sw->evals[i].spec.data_path);
    return ERR_OK;
}

/* `auto`, which is the default, is every GPU that a worker here can use, one worker each; without one the CPU. Looked for once,
 * and only when they matter: a probe takes a while. */
static struct local_devices find_devices(struct run *r, struct arena *a)
{
    const struct cli_list *d = &r->o->devices;
    bool is_auto = d->n == 0 || (d->n == 1 && strcmp(d->v[0], "auto") == 0);
    if (!r->has_devices)
        r->devices = is_auto ? local_gpus(a) : local_named(d, a);
    r->has_devices = true;
    return r->devices;
}

static enum err_code check_devices(const struct cli_list *names, struct err *e)
{
    for (int i = 0; i < names->n; i++) {
        const char *name = names->v[i];
        const bool is_gpu = strncmp(name, "cuda:", 5) == 0 && name[5] >= '0' && name[5] <= '9';
        if (!is_gpu && strcmp(name, "cpu") != 0 && strcmp(name, "auto") != 0)
            return err_set(e, ERR_USAGE, "--device is '%s', expected cpu, cuda:N or auto", name);
    }
    return ERR_OK;
}

/* A sweep in fp16 alone, where no device computes in it, would wait for ever. */
static enum err_code check_compute(struct run *r, const struct sweep *sw, struct arena *a,
                                   struct err *e)
{
    if (r->o->compute_program != NULL)
        return ERR_OK;
    for (int i = 0; i < sw->n_configs; i++)
        if (sw->configs[i].compute != COMPUTE_FP16)
            return ERR_OK;
    const struct local_devices devices = find_devices(r, a);
    for (int i = 0; i < devices.n; i++)
        if (strcmp(devices.v[i].name, "cpu") != 0)
            return ERR_OK;
    return err_set(e, ERR_UNSUPPORTED,
                   "%s: compute is fp16, which takes a GPU, and no device here is one; expected "
                   "compute: fp32 or bf16",
                   sw->path);
}

static enum err_code plan(struct run *r, struct arena *a, struct err *e)
{
    struct sweep sw;
    struct estimate est;
    struct plan_counts n = {0};
    TRY(sweep_load(r->spec_path, a, &sw, e));
    estimate_sweep(&sw, a, &est);
    TRY(check_files(&sw, &est, a, e));
    TRY(check_compute(r, &sw, a, e));
    for (int i = 0; i < sw.n_models; i++)
        if (est.models[i].n_params > r->largest_params)
            r->largest_params = est.models[i].n_params;
    r->db = r->o->db != NULL ? xstrdup(r->o->db) : plan_default_db(r->spec_path);
    r->report = r->o->report != NULL ? xstrdup(r->o->report) : xasprintf("%s-report", sw.name);
    r->logs = xasprintf("%s-logs", r->db);
    TRY(plan_submit(&sw, r->db, 0, &n, e));
    r->has_other_evals = n.has_other_evals;
    if (n.jobs_new > 0)
        fprintf(stderr, "planned %lld new jobs into %s (%lld were there already)\n",
                (long long)n.jobs_new, r->db, (long long)n.jobs_known);
    return ERR_OK;
}

/* ---- while it runs ---- */

static void append_new(json_t *list, const json_t *more)
{
    size_t i = 0, j = 0;
    json_t *v = NULL, *old = NULL;
    json_array_foreach(more, i, v)
    {
        bool is_known = false;
        json_array_foreach(list, j, old)
        {
            is_known |= json_equal(old, v) != 0;
        }
        if (!is_known)
            json_array_append(list, v);
    }
}

/* Why what is pending cannot run, while the workers are still here to be asked about. Without an answer there is less to tell. */
static enum err_code gather_obstacles(struct store *s, const char *db, json_t *out, struct err *e)
{
    static const char sql[] = "SELECT " WHY_COLUMNS " FROM jobs WHERE state = 'pending' "
                              "GROUP BY model, compute, evaluation ORDER BY job LIMIT 10";
    struct why x = {0};
    json_t *jobs = NULL, *job = NULL;
    size_t i = 0;
    enum err_code rc = why_open(&x, s, db, true, NULL, e);
    if (rc == ERR_OK)
        rc = rows_query(s, sql, NULL, 0, &jobs, e);
    json_array_foreach(jobs, i, job)
    {
        json_t *sentences = json_array();
        if (rc == ERR_OK)
            rc = why_add_failures(&x, job, e);
        if (rc == ERR_OK)
            rc = why_pending(&x, job, sentences, e);
        append_new(out, sentences);
        json_decref(sentences);
    }
    json_decref(jobs);
    why_close(&x);
    return rc;
}

static void find_obstacles(struct run *r)
{
    struct store *s = NULL;
    struct err e;
    r->obstacles = json_array();
    if (store_open(r->db, STORE_READ, &s, &e) == ERR_OK)
        ERR_IGNORE(gather_obstacles(s, r->db, r->obstacles, &e));
    store_close(s);
}

/* The coordinator's story goes to a file, so that progress is not torn apart by it. */
static enum err_code turn_log_to_file(struct run *r, struct err *e)
{
    TRY(io_make_dirs(r->logs, e));
    char *path = xasprintf("%s/coordinator.log", r->logs);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    int saved = errno;
    xfree(path);
    if (fd < 0)
        return err_set_errno(e, saved, "cannot write a log to %s", r->logs);
    fflush(stderr);
    r->told_fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, PROC_FD + 1);
    dup2(fd, STDERR_FILENO);
    close(fd);
    return ERR_OK;
}

static void turn_log_back(struct run *r)
{
    if (r->told_fd < 0)
        return;
    dup2(r->told_fd, STDERR_FILENO);
    close(r->told_fd);
    r->told_fd = -1;
}

static void on_turn(void *arg, struct serve *s, int64_t now_ns)
{
    struct run *r = arg;
    const struct dispatch_counts *c = serve_counts(s);
    progress_show(&r->progress, c, now_ns);
    if (r->site != NULL)
        site_publish(r->site, s, now_ns);
    if (!r->is_workerless && !local_turn(r->local, !serve_is_draining(s), now_ns, &r->why)) {
        r->is_workerless = true;
        serve_drain(s, "no local worker stays alive");
    }
    if (c->leased > 0 || c->pending == 0 || c->workers == 0)
        r->leased_ns = now_ns;
    if (now_ns - r->leased_ns > stall_ns && !serve_is_draining(s)) {
        r->is_stalled = true;
        find_obstacles(r);
        serve_drain(s, "no worker here can run what is pending");
    }
}

static enum err_code open_site(struct run *r, struct err *e)
{
    const struct site_options so = {
        .db_path = r->db, .address = r->o->http, .is_open = r->o->is_http_open};
    if (r->o->http == NULL)
        return ERR_OK;
    TRY(site_open(&so, &r->site, e));
    fprintf(stderr, "page on %s\n", site_url(r->site));
    return ERR_OK;
}

static enum err_code work(struct run *r, struct serve *s, struct arena *a, enum serve_end *end,
                          struct err *e)
{
    const struct local_devices devices = find_devices(r, a);
    const struct local_options lo = {
        .n = r->o->workers > 0 ? (int)r->o->workers
             : devices.n > 0   ? devices.n
                               : local_default_workers(r->largest_params),
        .devices = devices,
        .endpoint = serve_endpoint(s),
        .log_dir = r->logs,
        .compute_program = r->o->compute_program,
    };
    TRY(open_site(r, e));
    TRY(turn_log_to_file(r, e));
    progress_init(&r->progress, r->told_fd);
    r->leased_ns = clock_mono_ns();
    enum err_code rc = local_start(&lo, clock_mono_ns(), &r->local, e);
    if (rc == ERR_OK) {
        *end = serve_run(s);
        local_stop(r->local, leave_ns);
        struct dispatch_counts c = {0};
        rc = serve_count(s, &c, e);
        c.workers = lo.n;
        if (rc == ERR_OK)
            progress_finish(&r->progress, &c);
    }
    turn_log_back(r);
    return rc;
}

/* ---- after it ---- */

static void make_report(const struct run *r)
{
    char *dir = io_program_dir();
    char *program = xasprintf("%s/isobit-analysis", dir);
    char *const argv[] = {program, "report", "--db", r->db, "--out", r->report, NULL};
    const struct proc_options po = {.argv = argv};
    struct err e;
    pid_t pid = 0;
    int status = 0;
    if (proc_start(&po, &pid, &e) != ERR_OK)
        fprintf(stderr, "no report: %s\n", e.text);
    else if (waitpid(pid, &status, 0) == pid && status != 0)
        fprintf(stderr,
                "no report: isobit-analysis report failed; run it again with: %s report "
                "--db %s --out %s\n",
                program, r->db, r->report);
    xfree(program);
    xfree(dir);
}

/* Jobs that wait for nobody but the one who set them aside. */
static void tell_set_aside(const struct run *r, const struct dispatch_counts *c)
{
    if (c->held > 0)
        fprintf(stderr, "%lld %s held: `isobit release --db %s '*'` lets %s run\n",
                (long long)c->held, c->held == 1 ? "job is" : "jobs are", r->db,
                c->held == 1 ? "it" : "them");
    if (c->cancelled > 0)
        fprintf(stderr, "%lld %s cancelled: `isobit retry --db %s '*'` makes %s pending again\n",
                (long long)c->cancelled, c->cancelled == 1 ? "job is" : "jobs are", r->db,
                c->cancelled == 1 ? "it" : "them");
}

static int64_t n_jobs(const struct dispatch_counts *c)
{
    return c->done + c->pending + c->leased + c->buried + c->held + c->cancelled;
}

static void tell_idle(const struct run *r, const struct dispatch_counts *c)
{
    if (c->done == n_jobs(c))
        printf("nothing to do: all %lld jobs in %s are done\n", (long long)c->done, r->db);
    else if (c->buried == 0) /* else they were told of as failed */
        printf("nothing to do: %lld of %lld jobs in %s are done\n", (long long)c->done,
               (long long)n_jobs(c), r->db);
}

static int tell_end(const struct run *r, enum serve_end end, const struct dispatch_counts *c)
{
    if (r->is_workerless)
        return cli_fail(&r->why);
    if (r->is_stalled) {
        fprintf(stderr,
                "%lld jobs wait for a worker that can run them; %s has the workers' words:\n",
                (long long)c->pending, r->logs);
        size_t i = 0;
        json_t *v = NULL;
        json_array_foreach(r->obstacles, i, v)
        {
            fprintf(stderr, "  - %s\n", json_string_value(v));
        }
        return 1;
    }
    if (end != SERVE_DONE) {
        fprintf(stderr, "stopped: %lld of %lld jobs are done; the same command goes on from here\n",
                (long long)c->done, (long long)n_jobs(c));
        return 1;
    }
    if (c->buried > 0)
        fprintf(stderr,
                "%lld of %lld jobs failed: `isobit jobs --db %s --state buried` lists them, "
                "`isobit retry --db %s '*'` tries them again\n",
                (long long)c->buried, (long long)n_jobs(c), r->db, r->db);
    tell_set_aside(r, c);
    return c->buried > 0 || c->done == 0;
}

static enum err_code serve_and_work(struct run *r, struct arena *a, int *status, struct err *e)
{
    struct serve *s = NULL;
    struct dispatch_counts c = {0};
    enum serve_end end = SERVE_DONE;
    const struct serve_options so = {
        .db_path = r->db,
        .listen = "tcp://127.0.0.1:0",
        .dispatch = {.lease_ns = lease_ns,
                     .heartbeat_ns = heartbeat_ns,
                     .slice_ns = slice_ns,
                     .max_attempts = (int)r->o->max_attempts},
        .grace_ns = grace_ns,
        .is_until_done = true,
        .turn = on_turn,
        .turn_arg = r,
    };
    TRY(serve_open(&so, &s, e));
    enum err_code rc = serve_count(s, &c, e);
    bool is_idle = c.pending == 0 && c.leased == 0;
    if (rc == ERR_OK && !is_idle)
        rc = work(r, s, a, &end, e);
    if (rc == ERR_OK && !is_idle)
        rc = serve_count(s, &c, e);
    site_close(r->site);
    serve_close(s);
    if (rc != ERR_OK)
        return rc;
    *status = tell_end(r, end, &c);
    if (is_idle)
        tell_idle(r, &c);
    /* A finished sweep that has its report already is left alone: running again must cost nothing. */
    bool has_report = is_idle && !r->has_other_evals && io_exists(r->report);
    if (end == SERVE_DONE && c.done > 0 && !r->o->is_without_report && !has_report)
        make_report(r);
    return ERR_OK;
}

static int run(const void *opts, int n_args, char **args)
{
    (void)n_args;
    struct run r = {.o = opts, .spec_path = args[0], .told_fd = -1};
    struct arena a = {0};
    struct err e;
    int status = 0;
    enum err_code rc = check_devices(&r.o->devices, &e);
    if (rc == ERR_OK)
        rc = plan(&r, &a, &e);
    if (rc == ERR_OK)
        rc = serve_and_work(&r, &a, &status, &e);
    arena_release(&a);
    json_decref(r.obstacles);
    xfree(r.db);
    xfree(r.report);
    xfree(r.logs);
    return rc == ERR_OK ? status : cli_fail(&e);
}

const struct cli_cmd cmd_run = {
    .name = "run",
    .args = "SPEC.yaml",
    .summary = "do a whole sweep on this machine: plan, run, report",
    .doc = "Plans SPEC.yaml into a database, runs its jobs with local workers, shows progress and "
           "makes a report.\n"
           "  isobit run sweeps/demo.yaml --workers 2\n"
           "Interrupted in any way (Ctrl-C, kill, power), the same command goes on where it was; "
           "when all is done it says so. Workers on other machines: see `isobit serve`. What the "
           "coordinator and the workers have to say is in F.db-logs/. Exit: 0 done, 1 stopped, "
           "some jobs failed or none is done, 3 bad spec, 4 files missing or database busy.",
    .opts = options,
    .n_opts = ARRAY_LEN(options),
    .opt_size = sizeof(struct run_opts),
    .min_args = 1,
    .max_args = 1,
    .run = run,
};
