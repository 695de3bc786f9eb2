#include "worker/child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* Between fork and exec: only calls that are safe there. `status_fd` closes on exec; an errno written to it says that
 * exec failed. */
static _Noreturn void become(char *const *argv, int socket_fd, int status_fd, pid_t parent)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGINT, SIG_IGN); /* Ctrl-C reaches the whole group; the parent decides what it means */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int moved = fcntl(status_fd, F_DUPFD_CLOEXEC, CHILD_FD + 1); /* may have been CHILD_FD itself */
    if (socket_fd == CHILD_FD)
        fcntl(CHILD_FD, F_SETFD, 0);
    else
        dup2(socket_fd, CHILD_FD);
    if (getppid() == parent)
        execv(argv[0], argv);
    int saved = errno;
    if (write(moved, &saved, sizeof(saved)) < 0)
        _exit(126);
    _exit(127);
}

static enum err_code spawn(struct child *c, char *const *argv, const int sockets[2],
                           const int status[2], struct err *e)
{
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid < 0)
        return err_set_errno(e, errno, "cannot start the compute process");
    if (pid == 0)
        become(argv, sockets[1], status[1], parent);
    close(status[1]);
    int failed = 0;
    ssize_t n = read(status[0], &failed, sizeof(failed));
    if (n == (ssize_t)sizeof(failed)) {
        waitpid(pid, NULL, 0);
        return err_set_errno(e, failed, "cannot start the compute process %s", argv[0]);
    }
    c->pid = pid;
    c->fd = sockets[0];
    pipe_init(&c->pipe, c->fd);
    return ERR_OK;
}

enum err_code child_start(struct child *c, char *const *argv, struct err *e)
{
    int sockets[2], status[2];
    *c = (struct child){.fd = -1};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0)
        return err_set_errno(e, errno, "cannot make a socket pair");
    if (pipe2(status, O_CLOEXEC) != 0) {
        int saved = errno;
        close(sockets[0]);
        close(sockets[1]);
        return err_set_errno(e, saved, "cannot make a pipe");
    }
    enum err_code rc = spawn(c, argv, sockets, status, e);
    close(status[0]);
    close(sockets[1]);
    if (rc != ERR_OK)
        close(sockets[0]);
    return rc;
}

void child_stop(struct child *c, char how[128])
{
    snprintf(how, 128, "was not running");
    if (c->pid == 0)
        return;
    /* A child that has closed its end may still be on its way out with a status worth telling. */
    int st = 0;
    pid_t done = 0;
    for (int i = 0; i < 20 && done == 0; i++) {
        done = waitpid(c->pid, &st, WNOHANG);
        if (done == 0)
            usleep(1000);
    }
    if (done == 0) {
        kill(c->pid, SIGKILL);
        while (waitpid(c->pid, &st, 0) < 0 && errno == EINTR)
            continue;
    }
    if (WIFSIGNALED(st))
        snprintf(how, 128, "ended by signal %d (%s%s)", WTERMSIG(st), strsignal(WTERMSIG(st)),
                 WTERMSIG(st) == SIGKILL ? "; out of memory?" : "");
    else
        snprintf(how, 128, "ended with status %d", WEXITSTATUS(st));
    close(c->fd);
    pipe_release(&c->pipe);
    *c = (struct child){.fd = -1};
}
