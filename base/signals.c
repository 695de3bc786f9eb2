#include "base/signals.h"

#include <errno.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum err_code signals_open(struct signals *s, int extra, struct err *e)
{
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGINT);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGHUP);
    if (extra != 0)
        sigaddset(&mask, extra);
    int fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0)
        return err_set_errno(e, errno, "cannot receive signals");
    *s = (struct signals){.fd = fd, .is_open = true};
    sigprocmask(SIG_BLOCK, &mask, &s->before);
    signal(SIGPIPE, SIG_IGN);
    return ERR_OK;
}

int signals_next(const struct signals *s)
{
    struct signalfd_siginfo info;
    bool is_one = read(s->fd, &info, sizeof(info)) == (ssize_t)sizeof(info);
    return is_one ? (int)info.ssi_signo : 0;
}

void signals_close(struct signals *s)
{
    if (!s->is_open)
        return;
    close(s->fd);
    sigprocmask(SIG_SETMASK, &s->before, NULL);
    *s = (struct signals){0};
}
