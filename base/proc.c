#include "base/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/mem.h"

int proc_cores(void)
{
    cpu_set_t set;
    const int n = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
    return n > 0 ? n : 1;
}

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
    signal(SIGPIPE, SIG_DFL);
    if (o->is_own_group)
        setpgid(0, 0);
    if (o->is_tied)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    int moved = fcntl(status_fd, F_DUPFD_CLOEXEC, PROC_FD + 1); /* it may be PROC_FD itself */
    if (o->is_input_given)
        give(o->input, STDIN_FILENO);
    if (o->is_output_given) {
        give(o->output, STDOUT_FILENO);
        give(o->output, STDERR_FILENO);
    }
    if (o->is_error_given)
        give(o->error, STDERR_FILENO);
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

/* ---- running to the end ---- */

char *proc_find(const char *name)
{
    struct str rest = str_of(getenv("PATH")), dir;
    while (str_next_field(&rest, ':', &dir)) {
        char *path = xasprintf("%.*s/%s", (int)dir.n, dir.p, name);
        if (dir.n > 0 && access(path, X_OK) == 0 && !io_is_dir(path))
            return path;
        xfree(path);
    }
    return NULL;
}

enum { IN_READ, IN_WRITE, OUT_READ, OUT_WRITE, ERR_READ, ERR_WRITE, N_ENDS };

static void close_end(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* Three pipes; the input lies in its one from the beginning, since it fits. */
static enum err_code open_pipes(int ends[N_ENDS], struct str input, const char *program,
                                struct err *e)
{
    for (int i = 0; i < N_ENDS; i += 2)
        if (pipe2(&ends[i], O_CLOEXEC) != 0)
            return err_set_errno(e, errno, "cannot start %s", program);
    if (input.n > PROC_INPUT || write(ends[IN_WRITE], input.p, input.n) != (ssize_t)input.n)
        return err_set(e, ERR_IO, "cannot hand %zu bytes to %s", input.n, program);
    close_end(&ends[IN_WRITE]);
    return ERR_OK;
}

/* Takes in what there is; closes the end when there is no more. False: more than anybody should write. */
static bool drain_end(int *fd, struct buf *to)
{
    char chunk[16384];
    ssize_t n = read(*fd, chunk, sizeof(chunk));
    if (n > 0)
        return buf_try_add(to, chunk, (size_t)n);
    if (n == 0 || errno != EINTR)
        close_end(fd);
    return true;
}

static enum err_code gather(int ends[N_ENDS], int64_t end_ns, const char *program,
                            struct proc_output *out, struct err *e)
{
    while (ends[OUT_READ] >= 0 || ends[ERR_READ] >= 0) {
        struct pollfd p[2] = {{.fd = ends[OUT_READ], .events = POLLIN},
                              {.fd = ends[ERR_READ], .events = POLLIN}};
        int64_t left_ns = end_ns - clock_mono_ns();
        if (left_ns <= 0)
            return err_set(e, ERR_TIMEOUT, "%s did not end in time", program);
        poll(p, 2, (int)(left_ns / CLOCK_NS_PER_MS) + 1);
        if ((p[0].revents != 0 && !drain_end(&ends[OUT_READ], &out->out)) ||
            (p[1].revents != 0 && !drain_end(&ends[ERR_READ], &out->err)))
            return err_set(e, ERR_FORMAT, "%s writes more than %d bytes", program, PROC_OUTPUT);
    }
    return ERR_OK;
}

enum err_code proc_run(char *const *argv, struct str input, int64_t limit_ns,
                       struct proc_output *out, struct err *e)
{
    int ends[N_ENDS] = {-1, -1, -1, -1, -1, -1};
    int64_t end_ns = clock_mono_ns() + limit_ns;
    pid_t pid = 0;
    *out = (struct proc_output){.out.max = PROC_OUTPUT, .err.max = PROC_OUTPUT};
    enum err_code rc = open_pipes(ends, input, argv[0], e);
    if (rc == ERR_OK) {
        const struct proc_options o = {.argv = argv,
                                       .is_input_given = true,
                                       .input = ends[IN_READ],
                                       .is_output_given = true,
                                       .output = ends[OUT_WRITE],
                                       .is_error_given = true,
                                       .error = ends[ERR_WRITE],
                                       .is_own_group = true,
                                       .is_tied = true};
        rc = proc_start(&o, &pid, e);
    }
    close_end(&ends[IN_READ]);
    close_end(&ends[OUT_WRITE]);
    close_end(&ends[ERR_WRITE]);
    if (rc == ERR_OK)
        rc = gather(ends, end_ns, argv[0], out, e);
    if (pid > 0) /* who closed both streams is about to end; who did not has had its time */
        out->status = proc_end(pid, rc == ERR_OK ? 1000 : 0);
    for (int i = 0; i < N_ENDS; i++)
        close_end(&ends[i]);
    if (rc != ERR_OK)
        proc_output_release(out);
    return rc;
}

void proc_output_release(struct proc_output *o)
{
    buf_release(&o->out);
    buf_release(&o->err);
}
