#include "coordinator/local.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/proc.h"
#include "base/str.h"

static const int64_t restart_min_ns = CLOCK_NS_PER_S / 2;
static const int64_t restart_max_ns = 30 * CLOCK_NS_PER_S;
static const int64_t healthy_ns =
    60 * CLOCK_NS_PER_S; /* a life that long forgives earlier deaths */
enum { MAX_DEATHS = 5 };

struct local_worker {
    pid_t pid; /* 0: not running */
    int log_fd;
    char *log_path;
    int64_t started_ns, restart_ns, wait_ns;
    int n_deaths; /* in a row */
    char how[PROC_HOW];
};

struct local {
    struct local_options o;
    char *program;
    struct local_worker *v;
};

/* ---- starting ---- */

int local_default_workers(int64_t n_params)
{
    double memory = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    double each = 6.0 * (double)n_params + (512 << 20);
    int n = (int)fmin(memory / each, proc_cores());
    return n > 1 ? n : 1;
}

/* ---- GPUs ---- */

static const int64_t probe_limit_ns = 60 * CLOCK_NS_PER_S;

static char *worker_program(void)
{
    char *dir = io_program_dir();
    char *path = xasprintf("%s/isobit-worker", dir);
    xfree(dir);
    return path;
}

/* What a probe says, as JSON. */
static struct local_devices gpus_of(struct str text, struct arena *a)
{
    struct local_devices list = {0};
    struct err ignored;
    json_t *root = NULL;
    size_t i;
    json_t *d;
    if (json_parse(text, "probe", &root, &ignored) != ERR_OK)
        return list;
    const json_t *devices = json_object_get(root, "devices");
    list.v = arena_array(a, json_array_size(devices), sizeof(*list.v));
    json_array_foreach(devices, i, d)
    {
        const char *name = json_opt_str(d, "name", "");
        if (strncmp(name, "cuda:", 5) == 0)
            list.v[list.n++] = (struct local_device){
                .name = arena_strdup(a, name), .numa_node = (int)json_opt_int(d, "numa_node", -1)};
    }
    json_decref(root);
    return list;
}

struct local_devices local_gpus(struct arena *a)
{
    char *program = worker_program();
    char *const argv[] = {program, "probe", "--json", NULL};
    struct proc_output out = {0};
    struct local_devices list = {0};
    struct err e;
    if (proc_run(argv, (struct str){0}, probe_limit_ns, &out, &e) == ERR_OK)
        list = gpus_of((struct str){out.out.data, out.out.len}, a);
    proc_output_release(&out);
    xfree(program);
    return list;
}

struct local_devices local_named(const struct cli_list *names, struct arena *a)
{
    struct local_devices list = {.v = arena_array(a, (size_t)names->n, sizeof(*list.v)),
                                 .n = names->n};
    struct local_devices gpus = {0};
    for (int i = 0; i < names->n; i++) {
        list.v[i] = (struct local_device){.name = names->v[i], .numa_node = -1};
        if (gpus.v == NULL && strncmp(names->v[i], "cuda:", 5) == 0)
            gpus = local_gpus(a);
        for (int j = 0; j < gpus.n; j++)
            if (strcmp(gpus.v[j].name, names->v[i]) == 0)
                list.v[i] = gpus.v[j];
    }
    return list;
}

struct local_share local_share_of(const struct local_devices *d, int i, int n)
{
    struct local_share s = {.part = i, .n_parts = n};
    if (d->n == 0 || d->v[i % d->n].numa_node < 0)
        return s;
    s = (struct local_share){0};
    for (int j = 0; j < n; j++) {
        const bool is_beside = d->v[j % d->n].numa_node == d->v[i % d->n].numa_node;
        s.n_parts += is_beside;
        s.part += is_beside && j < i;
    }
    return s;
}

static enum err_code start_one(struct local *l, int i, int64_t now_ns, struct err *e)
{
    struct local_worker *w = &l->v[i];
    char threads[16], share[32];
    int per_worker = proc_cores() / l->o.n;
    snprintf(threads, sizeof(threads), "%d", per_worker > 0 ? per_worker : 1);
    const struct local_share s = local_share_of(&l->o.devices, i, l->o.n);
    snprintf(share, sizeof(share), "%d/%d", s.part, s.n_parts);
    const char *argv[16] = {
        l->program,  "run",
        "--connect", l->o.endpoint,
        "--device",  l->o.devices.n > 0 ? l->o.devices.v[i % l->o.devices.n].name : "auto",
        "--threads", threads};
    int n = 8;
    if (l->o.n > 1) {
        argv[n++] = "--bind";
        argv[n++] = share;
    }
    if (l->o.compute_program != NULL) {
        argv[n++] = "--compute-program";
        argv[n++] = l->o.compute_program;
    }
    const struct proc_options po = {.argv = (char *const *)argv,
                                    .is_output_given = true,
                                    .output = w->log_fd,
                                    .is_own_group = true,
                                    .is_tied = true};
    TRY(proc_start(&po, &w->pid, e));
    w->started_ns = now_ns;
    return ERR_OK;
}

static enum err_code open_log(struct local *l, int i, struct err *e)
{
    struct local_worker *w = &l->v[i];
    w->log_path = xasprintf("%s/worker-%d.log", l->o.log_dir, i);
    w->log_fd = open(w->log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (w->log_fd < 0)
        return err_set_errno(e, errno, "cannot open %s", w->log_path);
    w->wait_ns = restart_min_ns;
    return ERR_OK;
}

enum err_code local_start(const struct local_options *o, int64_t now_ns, struct local **out,
                          struct err *e)
{
    struct local *l = xcalloc(1, sizeof(*l));
    l->o = *o;
    l->v = xcalloc((size_t)o->n, sizeof(*l->v));
    for (int i = 0; i < o->n; i++)
        l->v[i].log_fd = -1;
    l->program = worker_program();
    enum err_code rc = io_make_dirs(o->log_dir, e);
    for (int i = 0; i < o->n && rc == ERR_OK; i++) {
        rc = open_log(l, i, e);
        if (rc == ERR_OK)
            rc = start_one(l, i, now_ns, e);
    }
    if (rc != ERR_OK) {
        local_stop(l, 0);
        return rc;
    }
    *out = l;
    return ERR_OK;
}

/* ---- looking after ---- */

static void bury(struct local_worker *w, int i, int status, bool may_restart, int64_t now_ns)
{
    const bool is_expected = status == 0 && !may_restart; /* it was told to drain */
    bool was_healthy = now_ns - w->started_ns > healthy_ns;
    proc_describe(status, w->how);
    w->pid = 0;
    w->n_deaths = was_healthy ? 1 : w->n_deaths + 1;
    w->wait_ns = was_healthy ? restart_min_ns : w->wait_ns;
    w->restart_ns = now_ns + w->wait_ns;
    w->wait_ns = 2 * w->wait_ns < restart_max_ns ? 2 * w->wait_ns : restart_max_ns;
    log_event(is_expected ? LOG_INFO : LOG_WARN, "local",
              is_expected ? "worker-ended" : "worker-died", "worker=%d how=\"%s\" log=%s", i,
              w->how, w->log_path);
}

bool local_turn(struct local *l, bool may_restart, int64_t now_ns, struct err *why)
{
    int n_lost = 0;
    for (int i = 0; i < l->o.n; i++) {
        struct local_worker *w = &l->v[i];
        int status = 0;
        if (w->pid != 0 && proc_has_ended(w->pid, &status))
            bury(w, i, status, may_restart, now_ns);
        n_lost += w->pid == 0 && w->n_deaths >= MAX_DEATHS;
        if (w->pid != 0 || !may_restart || now_ns < w->restart_ns || w->n_deaths >= MAX_DEATHS)
            continue;
        if (start_one(l, i, now_ns, why) != ERR_OK)
            log_event(LOG_ERROR, "local", "start", "text=\"%s\"", why->text);
    }
    if (n_lost < l->o.n || !may_restart)
        return true;
    char words[400];
    io_last_line(l->v[0].log_path, words, sizeof(words));
    err_set(why, ERR_CRASHED,
            "every local worker has died %d times in a row; the first %s and said: %s "
            "(%s)",
            (int)MAX_DEATHS, l->v[0].how, words, l->v[0].log_path);
    return false;
}

void local_stop(struct local *l, int64_t grace_ns)
{
    if (l == NULL)
        return;
    for (int i = 0; i < l->o.n; i++) {
        struct local_worker *w = &l->v[i];
        if (w->pid != 0)
            proc_end(w->pid, (int)(grace_ns / CLOCK_NS_PER_MS));
        if (w->log_fd >= 0)
            close(w->log_fd);
        xfree(w->log_path);
    }
    xfree(l->v);
    xfree(l->program);
    xfree(l);
}
