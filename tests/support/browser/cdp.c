#include "tests/support/browser/cdp.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "tests/support/support.h"

extern char **environ;

enum { MAX_MESSAGE = 256 << 20, READ_SIZE = 1 << 16, MAX_ARGS = 24 };

struct cdp {
    pid_t pid;
    int to, from;
    int64_t deadline_ns;
    int64_t last_id;
    struct buf in; /* bytes of messages not yet taken */
    size_t taken;
    json_t *answers; /* id -> message, for a caller further up the stack */
    char *session, *profile;
    cdp_event_fn fn;
    void *arg;
    const char *awaited; /* event name of cdp_wait */
    int n_awaited;
};

/* Chromium refuses its sandbox to root; /dev/shm is small in containers. */
static enum err_code spawn_browser(struct cdp *c, const char *program, int in, int out,
                                   struct err *e)
{
    char *profile = xasprintf("--user-data-dir=%s", c->profile);
    const char *argv[MAX_ARGS] = {program,
                                  "--headless=new",
                                  "--remote-debugging-pipe",
                                  "--no-first-run",
                                  "--disable-gpu",
                                  "--disable-dev-shm-usage",
                                  "--disable-extensions",
                                  "--disable-background-networking",
                                  "--disable-component-update",
                                  "--disable-sync",
                                  "--hide-scrollbars",
                                  "--force-color-profile=srgb",
                                  profile};
    int n = 13;
    if (geteuid() == 0)
        argv[n++] = "--no-sandbox";
    argv[n] = "about:blank";
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in, 3);
    posix_spawn_file_actions_adddup2(&actions, out, 4);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawnattr_t attr;
    posix_spawnattr_init(&attr);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP);
    int rc = posix_spawnp(&c->pid, program, &actions, &attr, (char *const *)argv, environ);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&actions);
    xfree(profile);
    return rc == 0 ? ERR_OK : err_set_errno(e, rc, "starting %s", program);
}

/* Descriptors high enough that dup2 to 3 and 4 in the child cannot hit one of them. */
static bool make_pipe(int fd[2])
{
    int low[2];
    if (pipe2(low, O_CLOEXEC) != 0)
        return false;
    for (int i = 0; i < 2; i++) {
        fd[i] = fcntl(low[i], F_DUPFD_CLOEXEC, 16);
        close(low[i]);
    }
    return true;
}

static enum err_code start_browser(struct cdp *c, struct err *e)
{
    static const char *const names[] = {"chromium", "chromium-browser", "google-chrome"};
    int down[2];
    int up[2];
    CHECK(make_pipe(down) && make_pipe(up));
    const char *chosen = getenv("ISOBIT_CHROMIUM");
    enum err_code rc = ERR_NOTFOUND;
    for (size_t i = 0; rc == ERR_NOTFOUND && i < (chosen != NULL ? 1 : ARRAY_LEN(names)); i++)
        rc = spawn_browser(c, chosen != NULL ? chosen : names[i], down[0], up[1], e);
    close(down[0]);
    close(up[1]);
    c->to = down[1];
    c->from = up[0];
    return rc;
}

static enum err_code wait_until(const struct cdp *c, short events, struct err *e)
{
    struct pollfd p = {.fd = events == POLLIN ? c->from : c->to, .events = events};
    for (;;) {
        int64_t left_ms = (c->deadline_ns - clock_mono_ns()) / CLOCK_NS_PER_MS;
        if (left_ms <= 0)
            return err_set(e, ERR_TIMEOUT,
                           "the browser did not finish in time; is the page busy, or does the "
                           "script wait for something that never comes?");
        int rc = poll(&p, 1, (int)(left_ms < 60000 ? left_ms : 60000));
        if (rc > 0)
            return ERR_OK;
        if (rc < 0 && errno != EINTR)
            return err_set_errno(e, errno, "waiting for the browser");
    }
}

static enum err_code send_bytes(struct cdp *c, const char *data, size_t n, struct err *e)
{
    while (n > 0) {
        TRY(wait_until(c, POLLOUT, e));
        ssize_t w = write(c->to, data, n);
        if (w < 0 && errno != EINTR)
            return err_set_errno(e, errno, "writing to the browser");
        data += w > 0 ? w : 0;
        n -= w > 0 ? (size_t)w : 0;
    }
    return ERR_OK;
}

/* The next message, parsed; *out is a new reference. */
static enum err_code next_message(struct cdp *c, json_t **out, struct err *e)
{
    char *end;
    while ((end = memchr(c->in.data + c->taken, '\0', c->in.len - c->taken)) == NULL) {
        if (c->taken > 0) {
            memmove(c->in.data, c->in.data + c->taken, c->in.len - c->taken);
            c->in.len -= c->taken;
            c->taken = 0;
        }
        char chunk[READ_SIZE];
        TRY(wait_until(c, POLLIN, e));
        ssize_t n = read(c->from, chunk, sizeof(chunk));
        if (n < 0 && errno != EINTR)
            return err_set_errno(e, errno, "reading from the browser");
        if (n == 0)
            return err_set(e, ERR_IO, "the browser has ended by itself");
        buf_add(&c->in, chunk, n > 0 ? (size_t)n : 0);
    }
    struct str text = {c->in.data + c->taken, (size_t)(end - (c->in.data + c->taken))};
    c->taken += text.n + 1;
    return json_parse(text, "the browser's message", out, e);
}

/* Takes one message: an answer is kept under its id, an event is told. */
static enum err_code take_message(struct cdp *c, struct err *e)
{
    json_t *message = NULL;
    TRY(next_message(c, &message, e));
    enum err_code rc = ERR_OK;
    const char *method = json_opt_str(message, "method", NULL);
    if (method == NULL) {
        char id[24];
        snprintf(id, sizeof(id), "%lld", (long long)json_opt_int(message, "id", 0));
        json_object_set(c->answers, id, message);
    } else {
        if (c->awaited != NULL && strcmp(method, c->awaited) == 0)
            c->n_awaited++;
        rc = c->fn(c->arg, method, json_object_get(message, "params"), e);
    }
    json_decref(message);
    return rc;
}

static enum err_code send_command(struct cdp *c, const char *method, json_t *params, struct err *e)
{
    json_t *message = json_pack("{s:I,s:s,s:o}", "id", (json_int_t)++c->last_id, "method", method,
                                "params", params != NULL ? params : json_object());
    CHECK(message != NULL);
    if (c->session != NULL)
        json_object_set_new(message, "sessionId", json_string(c->session));
    struct buf text = {0};
    json_append(&text, message, false);
    enum err_code rc = send_bytes(c, text.data, text.len + 1, e);
    buf_release(&text);
    json_decref(message);
    return rc;
}

enum err_code cdp_call(struct cdp *c, const char *method, json_t *params, json_t **result,
                       struct err *e)
{
    TRY(send_command(c, method, params, e));
    char id[24];
    snprintf(id, sizeof(id), "%lld", (long long)c->last_id);
    json_t *answer;
    while ((answer = json_object_get(c->answers, id)) == NULL)
        TRY(take_message(c, e));
    json_incref(answer);
    json_object_del(c->answers, id);
    const json_t *error = json_object_get(answer, "error");
    enum err_code rc = ERR_OK;
    if (error != NULL)
        rc = err_set(e, ERR_FORMAT, "%s: %s", method, json_opt_str(error, "message", "refused"));
    else if (result != NULL)
        *result = json_incref(json_object_get(answer, "result"));
    json_decref(answer);
    return rc;
}

enum err_code cdp_wait(struct cdp *c, const char *method, struct err *e)
{
    c->awaited = method;
    c->n_awaited = 0;
    enum err_code rc = ERR_OK;
    while (rc == ERR_OK && c->n_awaited == 0)
        rc = take_message(c, e);
    c->awaited = NULL;
    return rc;
}

static enum err_code attach(struct cdp *c, struct err *e)
{
    json_t *target = NULL;
    json_t *session = NULL;
    TRY(cdp_call(c, "Target.createTarget", json_pack("{s:s}", "url", "about:blank"), &target, e));
    enum err_code rc = cdp_call(
        c, "Target.attachToTarget",
        json_pack("{s:s,s:b}", "targetId", json_opt_str(target, "targetId", ""), "flatten", 1),
        &session, e);
    if (rc == ERR_OK)
        c->session = xstrdup(json_opt_str(session, "sessionId", ""));
    json_decref(target);
    json_decref(session);
    return rc;
}

enum err_code cdp_open(int64_t deadline_ns, cdp_event_fn fn, void *arg, struct cdp **out,
                       struct err *e)
{
    struct cdp *c = xcalloc(1, sizeof(*c));
    *c = (struct cdp){.pid = -1,
                      .to = -1,
                      .from = -1,
                      .deadline_ns = deadline_ns,
                      .in = {.max = MAX_MESSAGE},
                      .answers = json_object(),
                      .profile = support_tmpdir(),
                      .fn = fn,
                      .arg = arg};
    buf_adds(&c->in, ""); /* data is never NULL */
    signal(SIGPIPE, SIG_IGN);
    enum err_code rc = start_browser(c, e);
    if (rc == ERR_OK)
        rc = attach(c, e);
    if (rc == ERR_OK)
        *out = c;
    else
        cdp_close(c);
    return rc;
}

void cdp_close(struct cdp *c)
{
    if (c == NULL)
        return;
    if (c->to >= 0)
        close(c->to);
    if (c->from >= 0)
        close(c->from);
    if (c->pid > 0) {
        kill(-c->pid, SIGKILL); /* its own group: renderers go with it */
        waitpid(c->pid, NULL, 0);
    }
    json_decref(c->answers);
    buf_release(&c->in);
    support_tmpdir_remove(c->profile);
    xfree(c->session);
    xfree(c);
}
