#include "tests/support/slurm_site.h"

#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/proc.h"
#include "base/rng.h"
#include "tests/support/support.h"

/* What a site needs to run as one user on one machine. cred_expire: the default keeps queued-again jobs waiting for two
 * minutes. config_overrides: the node may say that it has more cores than there are. */
static const char conf_format[] =
    "ClusterName=test\n"
    "SlurmctldHost=%2$s(127.0.0.1)\n"
    "SlurmUser=%3$s\n"
    "SlurmdUser=%3$s\n"
    "AuthType=auth/munge\n"
    "AuthInfo=socket=%1$s/munge.sock,cred_expire=5\n"
    "ProctrackType=proctrack/linuxproc\n"
    "TaskPlugin=task/none\n"
    "SelectType=select/cons_tres\n"
    "SelectTypeParameters=CR_Core\n"
    "SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0\n"
    "ReturnToService=2\n"
    "SlurmctldPort=%4$d\n"
    "SlurmdPort=%5$d\n"
    "SlurmctldPidFile=%1$s/slurmctld.pid\n"
    "SlurmdPidFile=%1$s/slurmd.pid\n"
    "SlurmdSpoolDir=%1$s/spool\n"
    "StateSaveLocation=%1$s/state\n"
    "JobAcctGatherType=jobacct_gather/none\n"
    "AccountingStorageType=accounting_storage/none\n"
    "KillWait=5\n"
    "PreemptType=preempt/partition_prio\n"
    "PreemptMode=REQUEUE\n"
    "SlurmctldParameters=preempt_send_user_signal\n"
    "SlurmdParameters=config_overrides\n"
    "NodeName=%2$s NodeAddr=127.0.0.1 CPUs=%6$d CoresPerSocket=%6$d RealMemory=1000\n"
    "PartitionName=main Nodes=%2$s Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=10\n"
    "PartitionName=cancel Nodes=%2$s PriorityTier=1 PreemptMode=CANCEL GraceTime=10\n"
    "PartitionName=lasting Nodes=%2$s PriorityTier=10 PreemptMode=OFF\n"
    "PartitionName=high Nodes=%2$s PriorityTier=10 PreemptMode=OFF\n";

static void write_conf(const struct slurm_site *s, const char *path)
{
    char host[128] = "localhost";
    gethostname(host, sizeof(host) - 1);
    host[strcspn(host, ".")] = '\0';
    const struct passwd *user = getpwuid(geteuid());
    int port = 20000 + (int)(getpid() % 20000) * 2;
    char *conf = xasprintf(conf_format, s->dir, host, user != NULL ? user->pw_name : "root", port,
                           port + 1, SLURM_SITE_CORES);
    support_write(path, conf, strlen(conf));
    xfree(conf);
}

static void write_key(const char *path)
{
    unsigned char key[128];
    struct rng r = {.state = (uint64_t)getpid()};
    for (size_t i = 0; i < sizeof(key); i++)
        key[i] = (unsigned char)rng_u64(&r);
    support_write(path, key, sizeof(key));
    chmod(path, 0600);
}

static pid_t start(const struct slurm_site *s, const char *const *argv)
{
    char *log = xasprintf("%s/%s.log", s->dir, argv[0]);
    char *path = proc_find(argv[0]);
    const char *args[16] = {path};
    struct err e = {.text = "not in PATH"};
    pid_t pid = 0;
    for (int i = 1; argv[i] != NULL; i++)
        args[i] = argv[i];
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    const struct proc_options o = {.argv = (char *const *)args,
                                   .is_output_given = true,
                                   .output = fd,
                                   .is_own_group = true,
                                   .is_tied = true};
    if (path == NULL || proc_start(&o, &pid, &e) != ERR_OK)
        fprintf(stderr, "%s: %s\n", argv[0], e.text);
    close(fd);
    xfree(path);
    xfree(log);
    return pid;
}

static bool succeeds(const char *command, double seconds)
{
    for (double waited = 0; waited < seconds; waited += 0.2) {
        struct support_run r = support_shell(command);
        bool is_good = r.status == 0;
        support_run_release(&r);
        if (is_good)
            return true;
        usleep(200000);
    }
    return false;
}

static bool start_munge(struct slurm_site *s)
{
    char *key = xasprintf("--key-file=%s/munge.key", s->dir);
    char *socket = xasprintf("--socket=%s/munge.sock", s->dir);
    char *pid = xasprintf("--pid-file=%s/munge.pid", s->dir);
    char *log = xasprintf("--log-file=%s/munge.log", s->dir);
    char *seed = xasprintf("--seed-file=%s/munge.seed", s->dir);
    char *try = xasprintf("munge -n --socket=%s/munge.sock", s->dir);
    const char *const argv[] = {"munged", "-F", "--force", key, socket, pid, log, seed, NULL};
    write_key(key + strlen("--key-file="));
    s->munged = start(s, argv);
    bool is_up = s->munged > 0 && succeeds(try, 10);
    xfree(key);
    xfree(socket);
    xfree(pid);
    xfree(log);
    xfree(seed);
    xfree(try);
    return is_up;
}

bool slurm_site_start(struct slurm_site *s)
{
    *s = (struct slurm_site){0};
    char *path = xasprintf("%s:/usr/sbin:/sbin", getenv("PATH"));
    setenv("PATH", path, 1);
    xfree(path);
    char *found = proc_find("slurmctld");
    if (found == NULL) {
        fprintf(stderr, "Slurm is not installed here (packages slurm-wlm and munge)\n");
        return false;
    }
    xfree(found);
    s->dir = support_tmpdir();
    chmod(s->dir,
          0755); /* munge refuses a folder that others can write, and clients must enter it */
    char *conf = xasprintf("%s/slurm.conf", s->dir);
    write_conf(s, conf);
    setenv("SLURM_CONF", conf, 1);
    bool is_up = start_munge(s);
    if (is_up) {
        const char *const ctld[] = {"slurmctld", "-D", "-f", conf, NULL};
        const char *const d[] = {"slurmd", "-D", "-f", conf, NULL};
        s->slurmctld = start(s, ctld);
        is_up = s->slurmctld > 0 && succeeds("scontrol ping | grep -q UP", 20);
        s->slurmd = is_up ? start(s, d) : 0;
        is_up = s->slurmd > 0 && succeeds("sinfo -h -o %t | grep -q idle", 30);
    }
    xfree(conf);
    if (!is_up) {
        struct support_run r = support_shell("tail -n 20 $(dirname $SLURM_CONF)/*.log");
        fprintf(stderr, "Slurm does not come up\n%s\n", r.out.data);
        support_run_release(&r);
        slurm_site_stop(s);
    }
    return is_up;
}

void slurm_site_stop(struct slurm_site *s)
{
    if (s->slurmctld > 0) {
        struct support_run r = support_shell(
            "scancel --state=PENDING --user=$(id -u); scancel --user=$(id -u); "
            "for i in $(seq 50); do [ -n \"$(squeue -h)\" ] || break; sleep 0.2; done");
        support_run_release(&r);
    }
    const pid_t pids[] = {s->slurmd, s->slurmctld, s->munged};
    for (size_t i = 0; i < ARRAY_LEN(pids); i++) {
        if (pids[i] <= 0)
            continue;
        kill(pids[i], SIGTERM);
        proc_end(pids[i], 5000);
    }
    if (s->dir != NULL)
        support_tmpdir_remove(s->dir);
    *s = (struct slurm_site){0};
}
