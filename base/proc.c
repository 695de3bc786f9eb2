#include "base/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* Makes `from` the descriptor `to`, open across exec. */
static void give(int from, int to)
{
    if (from == to)
        fcntl(to, F_SETFD, 0);
    else
        dup2(from, to);
}

/* Between fork and exec: only calls that are safe there. `status_fd` closes on exec; an errno in it says that exec
 * failed. */
static _Noreturn void become(const struct proc_options *o, int status_fd, pid_t parent)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (o->is_own_group)
        setpgid(0, 0);
    if (o->is_tied)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    int moved = fcntl(status_fd, F_DUPFD_CLOEXEC, PROC_FD + 1); /* it may be PROC_FD itself */
    if (o->is_output_given) {
        give(o->output, STDOUT_FILENO);
        give(o->output, STDERR_FILENO);
    }
    if (o->is_fd_given)
        give(o->fd, PROC_FD);
    if (!o->is_tied || getppid() == parent)
        execv(o->argv[0], o->argv);
    int saved = errno;
    if (write(moved, &saved, sizeof(saved)) < 0)
        _exit(126);
    _exit(127);
}

enum err_code proc_start(const struct proc_options *o, pid_t *out, struct err *e)
{
    int status[2];
    if (pipe2(status, O_CLOEXEC) != 0)
        return err_set_errno(e, errno, "cannot start %s", o->argv[0]);
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0)
        become(o, status[1], parent);
    int failed = errno;
    close(status[1]);
    bool is_failed = pid < 0 || read(status[0], &failed, sizeof(failed)) == (ssize_t)sizeof(failed);
    close(status[0]);
    if (is_failed) {
        if (pid > 0)
            waitpid(pid, NULL, 0);
        return err_set_errno(e, failed, "cannot start %s", o->argv[0]);
    }
    *out = pid;
    return ERR_OK;
}

bool proc_has_ended(pid_t pid, int *status)
{
    pid_t done = waitpid(pid, status, WNOHANG);
    return done == pid || (done < 0 && errno == ECHILD);
}

int proc_end(pid_t pid, int wait_ms)
{
    int status = 0;
    for (int i = 0; i < wait_ms; i++) {
        if (proc_has_ended(pid, &status))
            return status;
        usleep(1000);
    }
    kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    return status;
}

void proc_describe(int status, char how[PROC_HOW])
{
    if (WIFSIGNALED(status))
        snprintf(how, PROC_HOW, "ended by signal %d (%s)", WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
    else
        snprintf(how, PROC_HOW, "ended with status %d", WEXITSTATUS(status));
}
