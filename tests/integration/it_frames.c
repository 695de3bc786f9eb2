/* Story: hostile frames against a coordinator at work. Processes that know the protocol send it whole, broken, shuffled and
 * oversized messages, in sessions of their own and under others', while two real workers go on being served: the coordinator
 * survives, its memory is bounded, nothing is counted twice. ISOBIT_FRAMES says how many frames (default 200,000; the full
 * run has 10,000,000), ISOBIT_FUZZ_SEED which. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/rng.h"
#include "tests/support/cluster.h"
#include "tests/support/fake_compute.h"
#include "tests/support/support.h"

enum { N_FUZZERS = 2, N_SOCKETS = 4, N_WORKERS = 2, MAX_FRAMES = 12, FRAME_ROOM = 4096 };
static const int64_t stall_ns =
    5 * CLOCK_NS_PER_S; /* without a job done: the workers are not served any more */
static const int64_t memory_limit = (int64_t)300 << 20;

/* ---- making messages ---- */

struct frame {
    unsigned char data[FRAME_ROOM];
    size_t n;
};

struct fuzzer {
    struct rng rng;
    void *zmq, *socket[N_SOCKETS];
    int64_t session[N_SOCKETS]; /* as WELCOME told it; 0: none */
    int64_t n_sent;
    struct frame frame[MAX_FRAMES];
    int n;
    unsigned char *large;
};

static uint64_t below(struct fuzzer *f, uint64_t n)
{
    return rng_below(&f->rng, n);
}

static void set_frame(struct fuzzer *f, int i, const void *data, size_t n)
{
    f->frame[i].n = n < FRAME_ROOM ? n : FRAME_ROOM;
    memcpy(f->frame[i].data, data, f->frame[i].n);
}

/* A number that is plausible, or one at an edge. */
static const char *number(struct fuzzer *f, char out[32])
{
    static const char *const edges[] = {"0",
                                        "-1",
                                        "1",
                                        "9223372036854775807",
                                        "-9223372036854775808",
                                        "9223372036854775808",
                                        "1e999",
                                        "0.5",
                                        "null",
                                        "\"x\"",
                                        "[]",
                                        "4294967296",
                                        "2147483648",
                                        "{}"};
    if (below(f, 4) == 0)
        return edges[below(f, ARRAY_LEN(edges))];
    snprintf(out, 32, "%d", (int)below(f, 2000));
    return out;
}

static int64_t some_session(struct fuzzer *f, int socket)
{
    return below(f, 8) == 0 ? (int64_t)below(f, 1 << 20) : f->session[socket];
}

/* A message as a worker would send it, but for its numbers. */
static void make_message(struct fuzzer *f, int socket)
{
    static const unsigned char types[] = {1, 4, 5, 7, 8, 9, 14, 17, 32, 15};
    unsigned char type = types[below(f, ARRAY_LEN(types))];
    unsigned char header[8] = {'i', 'b', 'i', 't', 1, type, 0, 0};
    char a[32], b[32], c[32], body[1024];
    int64_t session = some_session(f, socket);
    static const char item[] = "{\"tokenizer_sha256\":\"%064d\",\"items\":[[0,[1,2],[3,4],[5,6]]]}";
    char items[256];
    snprintf(items, sizeof(items), item, 0);
    switch (type) {
    case 1:
        snprintf(body, sizeof(body),
                 "{\"uuid\":\"%016llx%016d\",\"host\":\"h\",\"pid\":1,\"device\":\"d\",\"program\":"
                 "\"p\",\"numerics\":1,\"memory_bytes\":%s,\"computes\":[\"fp32\",%s],\"held\":[[%"
                 "s,1]]}",
                 (unsigned long long)(below(f, 4) + 16U * (unsigned)socket), (int)getpid() % 1000,
                 number(f, a), number(f, b), number(f, c));
        break;
    case 5:
        snprintf(body, sizeof(body), "{\"session\":%lld,\"slices\":%s}", (long long)session,
                 below(f, 20) == 0 ? "1" : number(f, a));
        break;
    case 9:
        snprintf(body, sizeof(body),
                 "{\"session\":%lld,\"reason\":\"%s\",\"text\":\"t\",\"jobs\":[[%s,%s],[%s,1]]}",
                 (long long)session, below(f, 2) == 0 ? "missing" : "drain", number(f, a),
                 number(f, b), number(f, c));
        break;
    default:
        snprintf(
            body, sizeof(body),
            "{\"session\":%lld,\"in_hand\":%s,\"job\":%s,\"attempt\":%s,\"code\":\"IO\",\"text\":"
            "\"t\",\"result\":{\"metrics\":[]},\"op\":\"status\",\"data_sha256\":\"%064d\","
            "\"task\":"
            "\"piqa\",\"items\":%s}",
            (long long)session, number(f, a), number(f, b), number(f, c), 0, items);
        break;
    }
    f->n = 2;
    set_frame(f, 0, header, sizeof(header));
    set_frame(f, 1, body, strlen(body));
    for (uint64_t n_blobs = below(f, 12) == 0 ? below(f, 7) : 0; n_blobs > 0; n_blobs--) {
        set_frame(f, f->n, body, below(f, 64));
        f->n++;
    }
}

static void break_bytes(struct fuzzer *f, struct frame *x)
{
    for (uint64_t i = below(f, 6); i > 0 && x->n > 0; i--)
        x->data[below(f, x->n)] = (unsigned char)below(f, 256);
}

static void cut_or_repeat(struct fuzzer *f, struct frame *x)
{
    size_t at = x->n > 0 ? below(f, x->n) : 0;
    if (below(f, 2) == 0) {
        x->n = at;
        return;
    }
    size_t n = x->n - at < FRAME_ROOM - x->n ? x->n - at : FRAME_ROOM - x->n;
    memmove(x->data + x->n, x->data + at, n);
    x->n += n;
}

static void swap_frames(struct fuzzer *f)
{
    struct frame x;
    int i = (int)below(f, (uint64_t)f->n), j = (int)below(f, (uint64_t)f->n);
    memcpy(&x, &f->frame[i], sizeof(x));
    memcpy(&f->frame[i], &f->frame[j], sizeof(x));
    memcpy(&f->frame[j], &x, sizeof(x));
}

static void nest(struct frame *x, char with)
{
    memset(x->data, with, FRAME_ROOM);
    x->n = FRAME_ROOM;
}

/* Half of the messages stay as they are, but for their numbers. */
static void hurt(struct fuzzer *f)
{
    struct frame *x = &f->frame[below(f, (uint64_t)f->n)];
    switch (below(f, 14)) {
    case 0:
    case 1:
        break_bytes(f, x);
        break;
    case 2:
        cut_or_repeat(f, x);
        break;
    case 3:
        swap_frames(f);
        break;
    case 4:
        f->n = 1 + (int)below(f, (uint64_t)f->n);
        break;
    case 5:
        nest(&f->frame[1], below(f, 2) == 0 ? '[' : '{');
        break;
    case 6:
        f->frame[0].data[5] = (unsigned char)below(f, 64); /* another type for the body */
        break;
    default:
        break;
    }
}

/* ---- sending them ---- */

static bool send_one(struct fuzzer *f, void *socket, const void *data, size_t n, bool has_more)
{
    int flags = ZMQ_DONTWAIT | (has_more ? ZMQ_SNDMORE : 0);
    if (zmq_send(socket, data, n, flags) < 0)
        return false;
    f->n_sent++;
    return true;
}

/* Now and then one that is far too large for its type, or for any. */
static void send_large(struct fuzzer *f, void *socket)
{
    static const size_t sizes[] = {70000, 5 << 20, (16 << 20) + 1};
    size_t n = sizes[below(f, ARRAY_LEN(sizes))];
    memset(f->large, '[', n);
    if (send_one(f, socket, f->frame[0].data, f->frame[0].n, true))
        send_one(f, socket, f->large, n, false);
}

static void send_message(struct fuzzer *f, int i)
{
    if (below(f, 20000) == 0) {
        send_large(f, f->socket[i]);
        return;
    }
    for (int k = 0; k < f->n; k++)
        if (!send_one(f, f->socket[i], f->frame[k].data, f->frame[k].n, k + 1 < f->n)) {
            usleep(200); /* the coordinator is behind: the first frame was not taken */
            return;
        }
}

/* Reads some of what came back, whole messages, for the session that a WELCOME gives; not all, so that queues fill as well. */
static void read_some(struct fuzzer *f, int i)
{
    char body[FRAME_ROOM];
    int more = 0;
    size_t size = sizeof(more);
    for (int k = 0; k < 64 || more != 0; k++) {
        int n = zmq_recv(f->socket[i], body, sizeof(body) - 1, ZMQ_DONTWAIT);
        if (n < 0)
            return;
        body[n < FRAME_ROOM ? n : FRAME_ROOM - 1] = '\0';
        zmq_getsockopt(f->socket[i], ZMQ_RCVMORE, &more, &size);
        const char *at = strstr(body, "\"session\":");
        if (at != NULL && strstr(body, "heartbeat_ns") != NULL)
            f->session[i] = strtoll(at + 10, NULL, 10);
    }
}

static void open_socket(struct fuzzer *f, int i, const char *endpoint)
{
    static const int none = 0;
    if (f->socket[i] != NULL)
        zmq_close(f->socket[i]);
    f->socket[i] = zmq_socket(f->zmq, ZMQ_DEALER);
    CHECK(f->socket[i] != NULL);
    zmq_setsockopt(f->socket[i], ZMQ_LINGER, &none, sizeof(none));
    CHECK(zmq_connect(f->socket[i], endpoint) == 0);
    f->session[i] = 0;
}

static _Noreturn void run_fuzzer(const char *endpoint, uint64_t seed, int64_t n_frames)
{
    struct fuzzer *f = xcalloc(1, sizeof(*f));
    f->rng.state = seed;
    f->zmq = zmq_ctx_new();
    f->large = xmalloc((size_t)17 << 20);
    for (int i = 0; i < N_SOCKETS; i++)
        open_socket(f, i, endpoint);
    usleep(300000);
    while (f->n_sent < n_frames) {
        int i = (int)below(f, N_SOCKETS);
        make_message(f, i);
        if (below(f, 2) == 0)
            hurt(f);
        send_message(f, i);
        if (below(f, 64) == 0)
            read_some(f, i);
        if (below(f, 50000) == 0)
            open_socket(f, i, endpoint);
    }
    _exit(0);
}

/* ---- the story ---- */

struct watch {
    int64_t n_done, moved_ns,
        slowest_ns; /* jobs done; when that last grew; the longest it did not */
    int64_t most_bytes;
};

static void look(struct watch *w, const char *db, pid_t coordinator)
{
    int64_t now_ns = clock_mono_ns();
    int64_t n = cluster_query(db, "SELECT count(*) FROM jobs WHERE state = 'done'");
    int64_t bytes = cluster_memory(coordinator);
    if (now_ns - w->moved_ns > w->slowest_ns)
        w->slowest_ns = now_ns - w->moved_ns;
    if (n > w->n_done)
        w->moved_ns = now_ns;
    w->n_done = n;
    w->most_bytes = bytes > w->most_bytes ? bytes : w->most_bytes;
}

static void run(const char *db, const char *endpoint, pid_t coordinator, int64_t n_frames)
{
    pid_t fuzzers[N_FUZZERS];
    uint64_t seed = (uint64_t)cluster_env("ISOBIT_FUZZ_SEED", getpid());
    printf("seed %llu\n", (unsigned long long)seed);
    fflush(stdout);
    int64_t start_ns = clock_mono_ns();
    for (int i = 0; i < N_FUZZERS; i++) {
        fuzzers[i] = fork();
        if (fuzzers[i] == 0)
            run_fuzzer(endpoint, seed + (uint64_t)i, n_frames / N_FUZZERS);
    }
    struct watch w = {.moved_ns = clock_mono_ns()};
    int status = 0;
    for (int n_left = N_FUZZERS; n_left > 0 && cluster_wait(coordinator, 0) == -1;) {
        usleep(200000);
        look(&w, db, coordinator);
        for (int i = 0; i < N_FUZZERS; i++)
            if (fuzzers[i] > 0 && waitpid(fuzzers[i], &status, WNOHANG) == fuzzers[i]) {
                EXPECT(status == 0, "fuzzer %d did not send all it should: status %d", i, status);
                fuzzers[i] = 0;
                n_left--;
            }
    }
    double seconds = clock_seconds_since(start_ns);
    printf(
        "%lld frames in %.1f s (%.0f a second): %lld jobs done meanwhile, never longer than %.2f s "
        "without one, memory at most %.1f MiB\n",
        (long long)n_frames, seconds, (double)n_frames / seconds, (long long)w.n_done,
        (double)w.slowest_ns * 1e-9, (double)w.most_bytes / 0x1p20);
    EXPECT(w.n_done > 0 && w.slowest_ns < stall_ns, "the workers were not served");
    EXPECT(w.most_bytes < memory_limit, "memory is not bounded");
    int64_t before = w.n_done;
    for (int i = 0; i < 50 && w.n_done < before + 20; i++) {
        usleep(200000);
        look(&w, db, coordinator);
    }
    EXPECT(w.n_done >= before + 20, "the workers are not served after it");
}

int main(int argc, char **argv)
{
    if (fake_compute_main(argc, argv))
        return 0;
    char *dir = support_tmpdir(), endpoint[256] = "tcp://127.0.0.1:0";
    char *log = xasprintf("%s/log", dir), *db = xasprintf("%s/frames.db", dir);
    const char *const serve[] = {"--max-attempts", "1000", NULL};
    const char *const work[] = {"--compute-program", fake_compute_path(), NULL};
    int64_t n_frames = cluster_env("ISOBIT_FRAMES", 200000);
    setenv("ISOBIT_FAKE_MS", n_frames > 1000000 ? "200" : "20",
           1); /* there must be jobs to the end */
    cluster_plan("sweeps/paper.yaml", db);
    pid_t coordinator = cluster_serve(db, endpoint, log, serve);
    pid_t workers[N_WORKERS];
    for (int i = 0; i < N_WORKERS; i++)
        workers[i] = cluster_worker(endpoint, log, work);
    EXPECT(cluster_await(db, "SELECT count(*) > 3 FROM jobs WHERE state = 'done'", 1, 30),
           "the workers do not work");
    run(db, endpoint, coordinator, n_frames);
    int64_t twice = cluster_query(
        db,
        "SELECT count(*) FROM (SELECT 1 FROM results GROUP BY key, metric HAVING count(*) > 1)");
    EXPECT(twice == 0, "%lld results stand twice", (long long)twice);
    EXPECT(cluster_wait(coordinator, 0) == -1, "the coordinator did not survive");
    for (int i = 0; i < N_WORKERS; i++)
        cluster_kill(workers[i]);
    cluster_kill(coordinator);
    if (cluster_failures() > 0)
        cluster_print_log(log);
    xfree(log);
    xfree(db);
    support_tmpdir_remove(dir);
    return cluster_failures() > 0;
}
