#include "coordinator/slurm_cli.h"

#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/proc.h"

/* A busy controller answers after many seconds, and the programs themselves give up after some more. */
static const int64_t answer_ns = 60 * CLOCK_NS_PER_S;
enum { MAX_CANCEL = 64 }; /* ids in one call of scancel */

static enum err_code find(const char *name, char **path, struct err *e)
{
    *path = proc_find(name);
    if (*path == NULL)
        return err_set(e, ERR_NOTFOUND,
                       "%s is not in PATH: give this command where Slurm's programs are, on a "
                       "login node of the cluster",
                       name);
    return ERR_OK;
}

enum err_code slurm_cli_open(struct slurm_cli *c, struct err *e)
{
    *c = (struct slurm_cli){0};
    enum err_code rc = find("sbatch", &c->sbatch, e);
    if (rc == ERR_OK)
        rc = find("squeue", &c->squeue, e);
    if (rc == ERR_OK)
        rc = find("scontrol", &c->scontrol, e);
    if (rc == ERR_OK)
        rc = find("scancel", &c->scancel, e);
    if (rc != ERR_OK)
        slurm_cli_close(c);
    return rc;
}

void slurm_cli_close(struct slurm_cli *c)
{
    xfree(c->sbatch);
    xfree(c->squeue);
    xfree(c->scontrol);
    xfree(c->scancel);
    *c = (struct slurm_cli){0};
}

/* Programs explain themselves in their last line. */
static enum err_code refused(const char *program, const struct proc_output *o, struct err *e)
{
    struct str text = str_trim((struct str){o->err.data, o->err.len});
    struct str line = {0};
    char how[PROC_HOW];
    proc_describe(o->status, how);
    while (str_next_line(&text, &line))
        continue;
    return err_set(e, ERR_IO, "%s %s: %.*s", program, how, (int)(line.n < 400 ? line.n : 400),
                   line.p != NULL ? line.p : "no reason given");
}

static enum err_code ask(const char *const *argv, struct str input, struct proc_output *out,
                         struct err *e)
{
    TRY(proc_run((char *const *)argv, input, answer_ns, out, e));
    if (WIFEXITED(out->status) && WEXITSTATUS(out->status) == 0)
        return ERR_OK;
    enum err_code rc = refused(argv[0], out, e);
    proc_output_release(out);
    return rc;
}

static struct str written(const struct proc_output *o)
{
    return (struct str){o->out.data != NULL ? o->out.data : "", o->out.len};
}

enum err_code slurm_cli_submit(const struct slurm_cli *c, struct str script, int64_t *id,
                               struct err *e)
{
    const char *const argv[] = {c->sbatch, "--parsable", NULL};
    struct proc_output o;
    TRY(ask(argv, script, &o, e));
    enum err_code rc = slurm_parse_submitted(written(&o), id, e);
    proc_output_release(&o);
    return rc;
}

enum err_code slurm_cli_queue(const struct slurm_cli *c, const char *name, struct arena *a,
                              struct slurm_job **out, int *n, struct err *e)
{
    static const char format[] = "--format=" SLURM_QUEUE_FORMAT;
    const char *user = arena_printf(a, "--user=%u", (unsigned)geteuid());
    const char *jobs = arena_printf(a, "--name=%s", name);
    const char *const argv[] = {c->squeue, "--noheader", "--states=all", user, jobs, format, NULL};
    struct proc_output o;
    TRY(ask(argv, (struct str){0}, &o, e));
    enum err_code rc = slurm_parse_queue(written(&o), a, out, n, e);
    proc_output_release(&o);
    return rc;
}

enum err_code slurm_cli_ending(const struct slurm_cli *c, int64_t id, struct slurm_ending *out,
                               struct err *e)
{
    char job[24];
    snprintf(job, sizeof(job), "%lld", (long long)id);
    const char *const argv[] = {c->scontrol, "--oneliner", "show", "job", job, NULL};
    struct proc_output o;
    TRY(ask(argv, (struct str){0}, &o, e));
    enum err_code rc = slurm_parse_ending(written(&o), out, e);
    proc_output_release(&o);
    return rc;
}

enum err_code slurm_cli_cancel_queued(const struct slurm_cli *c, const int64_t *ids, int n,
                                      struct err *e)
{
    for (int done = 0; done < n; done += MAX_CANCEL) {
        const char *argv[MAX_CANCEL + 3] = {c->scancel, "--state=PENDING"};
        char words[MAX_CANCEL][24];
        for (int i = 0; i < MAX_CANCEL && done + i < n; i++) {
            snprintf(words[i], sizeof(words[i]), "%lld", (long long)ids[done + i]);
            argv[i + 2] = words[i];
        }
        struct proc_output o;
        TRY(ask(argv, (struct str){0}, &o, e));
        proc_output_release(&o);
    }
    return ERR_OK;
}
