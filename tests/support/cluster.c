#include "tests/support/cluster.h"

#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/mem.h"
#include "base/proc.h"
#include "schema/store.h"
#include "tests/support/support.h"

enum { MAX_ARGS = 32 };
static int n_failures;

void cluster_fail(const char *file, int line, const char *cond, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "%s:%d: expected %s: ", file, line, cond);
    vfprintf(stderr, fmt, ap);
    fprintf(stderr, "\n");
    va_end(ap);
    n_failures++;
}

int cluster_failures(void)
{
    return n_failures;
}

pid_t cluster_start(const char *program, const char *const *args, const char *log)
{
    char path[1024];
    const char *argv[MAX_ARGS] = {path};
    struct err e;
    pid_t pid = 0;
    snprintf(path, sizeof(path), "%s/%s", TEST_BIN_DIR, program);
    for (int i = 0; args[i] != NULL; i++) {
        CHECK(i + 2 < MAX_ARGS);
        argv[i + 1] = args[i];
    }
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    CHECK(fd >= 0);
    const struct proc_options o = {.argv = (char *const *)argv,
                                   .is_output_given = true,
                                   .output = fd,
                                   .is_own_group = true,
                                   .is_tied = true};
    if (proc_start(&o, &pid, &e) != ERR_OK)
        BUG(e.text);
    close(fd);
    return pid;
}

void cluster_kill(pid_t pid)
{
    if (pid <= 0)
        return;
    kill(pid, SIGKILL);
    proc_end(pid, 0);
}

int cluster_wait(pid_t pid, double seconds)
{
    int64_t end_ns = clock_mono_ns() + (int64_t)(seconds * CLOCK_NS_PER_S);
    int status = 0;
    while (!proc_has_ended(pid, &status)) {
        if (clock_mono_ns() > end_ns)
            return -1;
        usleep(10000);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void cluster_plan(const char *spec, const char *db)
{
    char *command = xasprintf("isobit plan %s --db %s", support_source(spec), db);
    struct support_run r = support_shell(command);
    if (r.status != 0)
        fprintf(stderr, "%s%s", r.out.data, r.err.data);
    CHECK(r.status == 0);
    support_run_release(&r);
    xfree(command);
}

static int append(const char **args, int n, const char *const *extra)
{
    for (int i = 0; extra != NULL && extra[i] != NULL; i++)
        args[n++] = extra[i];
    args[n] = NULL;
    return n;
}

/* The address in the last "serving DB on ADDRESS" line after byte `from`. */
static bool find_endpoint(const char *log, size_t from, char endpoint[256])
{
    struct buf text = {0};
    struct err e;
    bool found = false;
    if (io_read_file(log, (size_t)64 << 20, &text, &e) == ERR_OK && text.len > from) {
        const char *at = strstr(text.data + from, " on tcp://");
        if (at != NULL && strchr(at, '\n') != NULL)
            found = sscanf(at + 4, "%255s", endpoint) == 1;
    }
    buf_release(&text);
    return found;
}

pid_t cluster_serve(const char *db, char endpoint[256], const char *log, const char *const *extra)
{
    const char *args[MAX_ARGS] = {"serve", "--db",    db,    "--listen", endpoint, "--heartbeat",
                                  "0.1",   "--lease", "1.5", "--slice",  "2"};
    append(args, 11, extra);
    char *dir = io_dirname(
        db); /* a killed coordinator leaves its control socket: in the test's own folder */
    setenv("XDG_RUNTIME_DIR", dir, 1);
    xfree(dir);
    int64_t size = io_file_size(log);
    pid_t pid = cluster_start("isobit", args, log);
    for (int i = 0; i < 1000; i++) {
        if (find_endpoint(log, size > 0 ? (size_t)size : 0, endpoint))
            return pid;
        usleep(10000);
    }
    BUG("serve did not listen in 10 s");
}

pid_t cluster_worker(const char *endpoint, const char *log, const char *const *extra)
{
    const char *args[MAX_ARGS] = {"run", "--connect", endpoint, "--device",
                                  "cpu", "--threads", "1"};
    append(args, 7, extra);
    return cluster_start("isobit-worker", args, log);
}

int64_t cluster_memory(pid_t pid)
{
    char path[64], line[256];
    long long kib = 0;
    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    FILE *f = fopen(path, "r");
    while (f != NULL && kib == 0 && fgets(line, sizeof(line), f) != NULL)
        if (sscanf(line, "VmRSS: %lld", &kib) != 1)
            kib = 0;
    if (f != NULL)
        fclose(f);
    return (int64_t)kib << 10;
}

void cluster_print_log(const char *log)
{
    char *command = xasprintf("tail -n 60 %s >&2", log);
    if (system(command) != 0) /* a test's own scaffolding; the path is ours */
        fprintf(stderr, "no log\n");
    xfree(command);
}

int64_t cluster_env(const char *name, int64_t def)
{
    int64_t v = 0;
    const char *text = getenv(name);
    return text != NULL && parse_i64(str_of(text), &v) ? v : def;
}

int64_t cluster_query(const char *db, const char *sql)
{
    struct err e;
    int64_t value = -1;
    for (int i = 0; i < 500; i++) {
        struct store *s = NULL;
        enum err_code rc = store_open(db, STORE_READ, &s, &e);
        if (rc == ERR_OK)
            rc = store_query_int(s, sql, -1, &value, &e);
        store_close(s);
        if (rc == ERR_OK)
            return value;
        usleep(10000);
    }
    fprintf(stderr, "%s: %s\n", sql, e.text);
    BUG("query failed for 5 s");
}

void cluster_page(const char *log, char url[128])
{
    struct buf text = {0};
    struct err e;
    url[0] = '\0';
    for (int i = 0; i < 500 && url[0] == '\0'; i++) {
        if (io_read_file(log, 1 << 20, &text, &e) == ERR_OK) {
            const char *at = strstr(text.data, "page on http://");
            if (at != NULL && strchr(at, '\n') != NULL &&
                sscanf(at + strlen("page on "), "%127s", url) != 1)
                url[0] = '\0';
        }
        buf_release(&text);
        usleep(10000);
    }
    CHECK(url[0] != '\0');
}

int cluster_fenced(const char *db, const char *events, pid_t worker)
{
    char *command = xasprintf("uuid=$(sqlite3 %s 'SELECT worker FROM workers WHERE pid = %d'); "
                              "grep '\"fenced\"' %s | grep -c $uuid",
                              db, (int)worker, events);
    struct support_run r = support_shell(command);
    int64_t n = 0;
    CHECK(parse_i64(str_trim(str_of(r.out.data)), &n));
    support_run_release(&r);
    xfree(command);
    return (int)n;
}

bool cluster_await(const char *db, const char *sql, int64_t value, double seconds)
{
    int64_t end_ns = clock_mono_ns() + (int64_t)(seconds * CLOCK_NS_PER_S);
    while (cluster_query(db, sql) != value) {
        if (clock_mono_ns() > end_ns)
            return false;
        usleep(30000);
    }
    return true;
}
