/* `isobit status --watch` on a terminal (a pseudo terminal of 60 columns and 12 rows), and where there is none. */
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "tests/support/cluster.h"
#include "tests/support/support.h"

enum { COLUMNS = 60, ROWS = 12 };

struct watching {
    pid_t pid;
    int fd;
    struct buf seen;
};

static struct watching start_watching(const char *db)
{
    const struct winsize size = {.ws_col = COLUMNS, .ws_row = ROWS};
    struct watching w = {.fd = -1};
    char *program = xasprintf("%s/isobit", TEST_BIN_DIR);
    w.pid = forkpty(&w.fd, NULL, NULL, &size);
    CHECK(w.pid >= 0);
    if (w.pid == 0) {
        execl(program, "isobit", "status", "--db", db, "--watch", "--every", "0.2", (char *)NULL);
        _exit(127);
    }
    xfree(program);
    return w;
}

/* Takes in what is drawn until `text` has come (since byte `from`) or the time is over. */
static bool await_text(struct watching *w, const char *text, size_t from, double seconds)
{
    int64_t end_ns = clock_mono_ns() + (int64_t)(seconds * CLOCK_NS_PER_S);
    while (clock_mono_ns() < end_ns) {
        char chunk[4096];
        struct pollfd p = {.fd = w->fd, .events = POLLIN};
        if (w->seen.data != NULL && w->seen.len > from && strstr(w->seen.data + from, text) != NULL)
            return true;
        if (poll(&p, 1, 50) <= 0)
            continue;
        ssize_t n = read(w->fd, chunk, sizeof(chunk));
        if (n <= 0)
            break;
        buf_add(&w->seen, chunk, (size_t)n);
    }
    return w->seen.data != NULL && w->seen.len > from && strstr(w->seen.data + from, text) != NULL;
}

static int stop_watching(struct watching *w)
{
    int status = 0;
    CHECK(waitpid(w->pid, &status, 0) == w->pid);
    close(w->fd);
    buf_release(&w->seen);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* No drawn line is longer than the terminal is wide: it would wrap and push the others out. */
static void expect_narrow(const struct watching *w)
{
    int column = 0;
    for (size_t i = 0; i < w->seen.len; i++) {
        char c = w->seen.data[i];
        if (c == '\033') { /* a control sequence ends with a letter */
            while (i < w->seen.len && strchr("HJKhl", w->seen.data[i]) == NULL)
                i++;
            column = w->seen.data[i] == 'H' ? 0 : column;
            continue;
        }
        column = c == '\n' || c == '\r' ? 0 : column + 1;
        EXPECT(column <= COLUMNS, "a line of more than %d characters", COLUMNS);
        if (column > COLUMNS)
            return;
    }
}

static void redraws_until_control_c(const char *db)
{
    struct watching w = start_watching(db);
    EXPECT(await_text(&w, "\033[?1049h", 0, 10), "it does not take another screen");
    EXPECT(await_text(&w, "590", 0, 10), "it shows no counts");
    size_t drawn = w.seen.len;
    EXPECT(await_text(&w, "\033[H", drawn, 10), "it does not draw again");
    expect_narrow(&w);
    char *hold = xasprintf("isobit hold --db %s '*|k=16|*'", db);
    struct support_run r = support_shell(hold);
    EXPECT(r.status == 0, "%s", r.err.data);
    support_run_release(&r);
    xfree(hold);
    drawn = w.seen.len;
    EXPECT(await_text(&w, "565", drawn, 10), "a change is not shown");
    const struct winsize wide = {.ws_col = 2 * COLUMNS, .ws_row = ROWS};
    ioctl(w.fd, TIOCSWINSZ, &wide);
    drawn = w.seen.len;
    EXPECT(await_text(&w, "cancelled", drawn, 10), "a wider terminal is not used");
    drawn = w.seen.len;
    EXPECT(write(w.fd, "\003", 1) == 1, "cannot press Ctrl-C");
    EXPECT(await_text(&w, "\033[?25h\033[?1049l", drawn, 10), "the terminal is not given back");
    EXPECT(await_text(&w, "565", drawn, 5), "the last view does not stay");
    int status = stop_watching(&w);
    EXPECT(status == 0, "Ctrl-C ends it with %d", status);
}

static void prints_lines_where_there_is_no_terminal(const char *db)
{
    char *command = xasprintf("timeout -s INT 1 isobit status --db %s --watch --every 0.2", db);
    struct support_run r = support_shell(command);
    struct str rest = {r.out.data, r.out.len}, line;
    int n = 0;
    while (str_next_line(&rest, &line)) {
        n++;
        EXPECT(line.n > 20 && line.n < 120 && line.p[2] == ':' && line.p[5] == ':', "line \"%.*s\"",
               (int)line.n, line.p);
        EXPECT(memchr(line.p, '\033', line.n) == NULL, "control sequences");
    }
    EXPECT(n >= 3, "%d lines in a second", n);
    support_run_release(&r);
    xfree(command);
    command =
        xasprintf("timeout -s INT 1 isobit status --db %s --watch --every 0.2 --json | head -2 | "
                  "jq -e .states.pending",
                  db);
    r = support_shell(command);
    EXPECT(strcmp(r.out.data, "565\n565\n") == 0, "JSON lines: %s", r.out.data);
    support_run_release(&r);
    xfree(command);
}

int main(void)
{
    char *dir = support_tmpdir();
    char *db = xasprintf("%s/s.db", dir);
    cluster_plan("sweeps/demo.yaml", db);
    redraws_until_control_c(db);
    prints_lines_where_there_is_no_terminal(db);
    xfree(db);
    support_tmpdir_remove(dir);
    return cluster_failures() > 0;
}
