/* Story: several hosts. A coordinator and two workers, each with a key, in network namespaces of their own on one bridge. One
 * worker is cut off (its link goes down) past its lease: the other takes its jobs over; when it comes back its late result is
 * fenced, and it works on. Needs root and iproute2; skips with a message where it may not make namespaces. */
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "schema/keys.h"
#include "tests/support/cluster.h"
#include "tests/support/fake_compute.h"
#include "tests/support/support.h"

enum { N_WORKERS = 2, SKIPPED = 77 };

struct story {
    char *dir, *log, *events, *db, *keys;
    char net[32];       /* what the names of its namespaces begin with */
    char endpoint[256]; /* tcp://10.77.0.1:PORT */
    pid_t coordinator, workers[N_WORKERS];
};

static bool shell(const char *fmt, ...) PRINTF_LIKE(1, 2);
static bool shell(const char *fmt, ...)
{
    char command[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(command, sizeof(command), fmt, ap);
    va_end(ap);
    struct support_run r = support_shell(command);
    bool is_good = r.status == 0;
    if (!is_good)
        fprintf(stderr, "%s: %s", command, r.err.data != NULL ? r.err.data : "\n");
    support_run_release(&r);
    return is_good;
}

/* ---- the network: NET-head with a bridge 10.77.0.1, NET-w0 with 10.77.0.10, NET-w1 with 10.77.0.11 ---- */

static bool open_host(const char *net, int i)
{
    return shell("ip netns add %s-w%d", net, i) && shell("ip -n %s-w%d link set lo up", net, i) &&
           shell("ip -n %s-head link add w%d type veth peer name eth0 netns %s-w%d", net, i, net,
                 i) &&
           shell("ip -n %s-head link set w%d master br0 up", net, i) &&
           shell("ip -n %s-w%d addr add 10.77.0.1%d/24 dev eth0", net, i, i) &&
           shell("ip -n %s-w%d link set eth0 up", net, i);
}

static bool open_network(const char *net)
{
    bool is_open = shell("ip netns add %s-head", net) &&
                   shell("ip -n %s-head link set lo up", net) &&
                   shell("ip -n %s-head link add br0 type bridge", net) &&
                   shell("ip -n %s-head addr add 10.77.0.1/24 dev br0", net) &&
                   shell("ip -n %s-head link set br0 up", net);
    for (int i = 0; i < N_WORKERS && is_open; i++)
        is_open = open_host(net, i);
    return is_open;
}

static void close_network(const char *net)
{
    for (int i = 0; i < N_WORKERS; i++)
        shell("ip netns del %s-w%d 2>/dev/null || true", net, i);
    shell("ip netns del %s-head 2>/dev/null || true", net);
}

/* This process, and all that it starts, moves to a namespace; NULL: back to where it was. */
static void move_to(const char *net, const char *host)
{
    static int home = -1;
    if (home < 0)
        home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    CHECK(home >= 0);
    if (host == NULL) {
        CHECK(setns(home, CLONE_NEWNET) == 0);
        return;
    }
    char path[128];
    snprintf(path, sizeof(path), "/run/netns/%s-%s", net, host);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0 && setns(fd, CLONE_NEWNET) == 0);
    close(fd);
}

/* ---- programs in it ---- */

static void start_coordinator(struct story *s)
{
    const char *const extra[] = {"--keys",  s->keys, "--max-attempts", "1000", "--events",
                                 s->events, NULL};
    move_to(s->net, "head");
    EXPECT(shell("timeout 20 isobit serve --db %s --listen tcp://10.77.0.1:0 2>&1 | grep -q "
                 "'isobit keygen'",
                 s->db),
           "it listens on a network without keys");
    snprintf(s->endpoint, sizeof(s->endpoint), "tcp://10.77.0.1:0");
    s->coordinator = cluster_serve(s->db, s->endpoint, s->log, extra);
    move_to(s->net, NULL);
}

static void start_worker(struct story *s, int i)
{
    struct err e;
    char host[8];
    snprintf(host, sizeof(host), "w%d", i);
    CHECK(keys_add(s->keys, KEY_WORKER, host, &e) == ERR_OK);
    char *keys = xasprintf("%s/%s", s->keys, host);
    const char *const extra[] = {"--keys", keys, "--compute-program", fake_compute_path(), NULL};
    move_to(s->net, host);
    s->workers[i] = cluster_worker(s->endpoint, s->log, extra);
    move_to(s->net, NULL);
    xfree(keys);
}

static int64_t of_worker(const struct story *s, int i, const char *column)
{
    char *sql = xasprintf("SELECT %s FROM workers WHERE pid = %d", column, (int)s->workers[i]);
    int64_t v = cluster_query(s->db, sql);
    xfree(sql);
    return v;
}

/* Until the worker's `column` is more than `than`. */
static bool await_more(const struct story *s, int i, const char *column, int64_t than,
                       double seconds)
{
    int64_t end_ns = clock_mono_ns() + (int64_t)(seconds * CLOCK_NS_PER_S);
    while (of_worker(s, i, column) <= than) {
        if (clock_mono_ns() > end_ns)
            return false;
        usleep(50000);
    }
    return true;
}

static bool await_fence(const struct story *s, int i)
{
    for (int tries = 0; tries < 200; tries++) {
        if (cluster_fenced(s->db, s->events, s->workers[i]) > 0)
            return true;
        usleep(100000);
    }
    return false;
}

static void cut_off_and_back(struct story *s)
{
    EXPECT(await_more(s, 0, "done", 1, 30) && await_more(s, 1, "done", 1, 30),
           "the workers do not work");
    EXPECT(await_more(s, 1, "leased", 0, 10), "worker 1 has no job");
    CHECK(shell("ip -n %s-head link set w1 down", s->net));
    for (int i = 0; i < 200 && of_worker(s, 1, "leased") > 0; i++)
        usleep(50000);
    EXPECT(of_worker(s, 1, "leased") == 0, "the leases of a worker that is cut off do not end");
    int64_t done = of_worker(s, 1, "done"), others = of_worker(s, 0, "done");
    EXPECT(await_more(s, 0, "done", others + 3, 10), "the other worker does not go on");
    EXPECT(of_worker(s, 1, "done") == done, "a worker that is cut off reports");
    CHECK(shell("ip -n %s-head link set w1 up", s->net));
    EXPECT(await_fence(s, 1), "its late result was not fenced");
    EXPECT(await_more(s, 1, "done", done + 1, 30), "it does not work on");
    printf("cut off with %lld done; back with a fenced result, then %lld done\n", (long long)done,
           (long long)of_worker(s, 1, "done"));
}

static void run(struct story *s)
{
    struct err e;
    s->dir = support_tmpdir();
    s->log = xasprintf("%s/log", s->dir);
    s->events = xasprintf("%s/events", s->dir);
    s->db = xasprintf("%s/hosts.db", s->dir);
    s->keys = xasprintf("%s/keys", s->dir);
    setenv("ISOBIT_FAKE_MS", "200", 1);
    CHECK(keys_make(s->keys, &e) == ERR_OK);
    cluster_plan("sweeps/paper.yaml", s->db);
    start_coordinator(s);
    for (int i = 0; i < N_WORKERS; i++)
        start_worker(s, i);
    cut_off_and_back(s);
    int64_t twice = cluster_query(
        s->db,
        "SELECT count(*) FROM (SELECT 1 FROM results GROUP BY key, metric HAVING count(*) > 1)");
    EXPECT(twice == 0, "%lld results stand twice", (long long)twice);
    for (int i = 0; i < N_WORKERS; i++)
        cluster_kill(s->workers[i]);
    cluster_kill(s->coordinator);
    if (cluster_failures() > 0)
        cluster_print_log(s->log);
    xfree(s->log);
    xfree(s->events);
    xfree(s->db);
    xfree(s->keys);
    support_tmpdir_remove(s->dir);
}

int main(int argc, char **argv)
{
    if (fake_compute_main(argc, argv))
        return 0;
    struct story s = {0};
    snprintf(s.net, sizeof(s.net), "isobit%d", (int)getpid());
    bool is_open = geteuid() == 0 && open_network(s.net);
    if (is_open)
        run(&s);
    close_network(s.net);
    if (!is_open)
        printf("skipped: network namespaces need root and iproute2 here\n");
    return !is_open ? SKIPPED : cluster_failures() > 0;
}
