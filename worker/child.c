#include "worker/child.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

/* A child that has closed its socket is on its way out, with a status worth waiting for. */
enum { LAST_WORDS_MS = 20 };

enum err_code child_start(struct child *c, char *const *argv, struct err *e)
{
    int sockets[2];
    *c = (struct child){.fd = -1};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0)
        return err_set_errno(e, errno, "cannot make a socket pair");
    const struct proc_options o = {
        .argv = argv, .is_fd_given = true, .fd = sockets[1], .is_own_group = true, .is_tied = true};
    enum err_code rc = proc_start(&o, &c->pid, e);
    close(sockets[1]);
    if (rc != ERR_OK) {
        close(sockets[0]);
        return err_wrap(e, "the compute process");
    }
    c->fd = sockets[0];
    pipe_init(&c->pipe, c->fd);
    return ERR_OK;
}

void child_stop(struct child *c, char how[PROC_HOW])
{
    snprintf(how, PROC_HOW, "was not running");
    if (c->pid == 0)
        return;
    proc_describe(proc_end(c->pid, LAST_WORDS_MS), how);
    close(c->fd);
    pipe_release(&c->pipe);
    *c = (struct child){.fd = -1};
}
