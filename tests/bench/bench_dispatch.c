/* The coordinator's throughput with workers that compute nothing: leases, results and acknowledgements, every result on
 * disk (synchronous FULL) before it is acknowledged. Beside it, in the same run: SQLite alone with the same size of commit,
 * ZeroMQ alone with messages of the same size, the time to an acknowledgement at half load, and jobs of 100 ms on two
 * slots. Workers and coordinator have keys (CURVE), as on a network. bench_dispatch [JOBS [WORKERS [plain]]]; plain: without.
 * Benchmark: dispatch */
#include <signal.h>
#include <sqlite3.h>
#include <string.h>
#include <zmq.h>

#include "base/log.h"
#include "coordinator/serve.h"
#include "schema/keys.h"
#include "tests/bench/bench.h"
#include "tests/support/dispatch_options.h"
#include "tests/support/fake_compute.h"
#include "tests/support/null_worker.h"
#include "tests/support/support.h"
#include "tests/support/sweep_fixture.h"
#include "worker/parent.h"

enum { MAX_WORKERS = 64, COMMIT = 256 };
enum { RESULT_BYTES = 900, ACK_BYTES = 32 }; /* of ZeroMQ alone: what ours have */

static struct {
    char *dir;
    int64_t n_jobs;
    int n_workers;
    struct null_worker_stats *stats; /* [n_workers] */
    char *endpoint;                  /* of the coordinator that runs */
    double rate;                     /* of one null worker; 0: no limit */
    char *keys_dir;                  /* NULL: without keys */
    struct link_keys keys;           /* the workers' */
} bench;

static char *path_of(const char *name)
{
    return xasprintf("%s/%s", bench.dir, name);
}

static void make_keys(void)
{
    struct err e;
    bench.keys_dir = path_of("keys");
    bench_must(keys_make(bench.keys_dir, &e), &e);
    bench_must(keys_load(bench.keys_dir, KEY_WORKER, &bench.keys, &e), &e);
}

static const struct link_keys *workers_keys(void)
{
    return bench.keys_dir != NULL ? &bench.keys : NULL;
}

/* ---- the coordinator and its workers ---- */

static void plan(void *arg)
{
    const int64_t *n_jobs = arg;
    struct arena a = {0};
    struct err e;
    struct store *s = NULL;
    struct store_plan_counts counts;
    int n_models = *n_jobs >= 2000 ? 20 : 1;
    struct sweep sw = fixture_sweep(&a, "null", n_models, (int)(*n_jobs / n_models / 5), 5);
    char *db = path_of("bench.db");
    unlink(db);
    bench_must(store_open(db, STORE_CREATE, &s, &e), &e);
    bench_must(store_plan(s, &sw, 0, &counts, &e), &e);
    store_close(s);
    xfree(db);
    arena_release(&a);
}

static void serve(void *arg)
{
    (void)arg;
    char *db = path_of("bench.db");
    struct serve *s = NULL;
    struct err e;
    struct serve_options o = {.db_path = db,
                              .listen = "tcp://127.0.0.1:0",
                              .keys_dir = bench.keys_dir,
                              .dispatch = usual_dispatch(),
                              .grace_ns = 10 * CLOCK_NS_PER_S,
                              .is_until_done = true};
    bench_must(serve_open(&o, &s, &e), &e);
    strncpy(bench.endpoint, serve_endpoint(s), 255);
    CHECK(serve_run(s) == SERVE_DONE);
    serve_close(s);
    xfree(db);
}

static void work(void *arg)
{
    const int *i = arg;
    const struct null_worker_options o = {.endpoint = bench.endpoint,
                                          .keys = workers_keys(),
                                          .credit = 8,
                                          .jobs_per_s = bench.rate,
                                          .stats = &bench.stats[*i]};
    null_worker_run(&o);
}

static pid_t start_coordinator(int64_t n_jobs)
{
    bench_finish(bench_start(plan, &n_jobs));
    memset(bench.endpoint, 0, 256);
    pid_t pid = bench_start(serve, NULL);
    while (bench.endpoint[0] == '\0')
        usleep(1000);
    return pid;
}

/* Runs n_jobs through; jobs a second, and what the coordinator cost. */
static double run_null_jobs(int64_t n_jobs, double rate, struct bench_cost *cost)
{
    pid_t workers[MAX_WORKERS];
    memset(bench.stats, 0, (size_t)bench.n_workers * sizeof(*bench.stats));
    bench.rate = rate / bench.n_workers;
    pid_t coordinator = start_coordinator(n_jobs);
    for (int i = 0; i < bench.n_workers; i++)
        workers[i] = bench_start(work, &i);
    *cost = bench_finish(coordinator);
    int64_t first_ns = INT64_MAX, last_ns = 0, n = 0;
    for (int i = 0; i < bench.n_workers; i++) {
        bench_finish(workers[i]);
        const struct null_worker_stats *s = &bench.stats[i];
        first_ns = s->first_ns != 0 && s->first_ns < first_ns ? s->first_ns : first_ns;
        last_ns = s->last_ns > last_ns ? s->last_ns : last_ns;
        n += s->n_accepted;
    }
    CHECK(n == n_jobs);
    return (double)n / ((double)(last_ns - first_ns) * 1e-9);
}

/* ---- SQLite alone: lease, completion and one result per job, 256 jobs a commit ---- */

static void run_sql(sqlite3 *db, const char *sql)
{
    char *why = NULL;
    if (sqlite3_exec(db, sql, NULL, NULL, &why) != SQLITE_OK) {
        (void)fprintf(stderr, "%s: %s\n", sql, why);
        exit(1);
    }
}

static void step(sqlite3_stmt *stmt, int64_t id)
{
    CHECK(sqlite3_bind_int64(stmt, 1, id) == SQLITE_OK && sqlite3_step(stmt) == SQLITE_DONE);
    sqlite3_reset(stmt);
}

static double sqlite_alone(int64_t n_jobs)
{
    static const char *const texts[] = {
        "UPDATE job SET state = 'leased', attempt = attempt + 1 WHERE id = ?1",
        "UPDATE job SET state = 'done' WHERE id = ?1 AND attempt = 1 AND state = 'leased'",
        "INSERT INTO result (job, name, value) VALUES (?1, 'acc', 0.5)"};
    sqlite3 *db = NULL;
    sqlite3_stmt *stmts[3];
    char *path = path_of("sqlite.db");
    CHECK(sqlite3_open(path, &db) == SQLITE_OK);
    run_sql(db, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=4000;"
                "PRAGMA cache_size=-32768;"
                "CREATE TABLE job (id INTEGER PRIMARY KEY, state TEXT, attempt INTEGER);"
                "CREATE TABLE result (job INTEGER, name TEXT, value REAL, PRIMARY KEY (job, name)) "
                "WITHOUT ROWID; BEGIN");
    char *fill = xasprintf("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE "
                           "i < %lld) INSERT INTO job SELECT i, 'pending', 0 FROM n; COMMIT",
                           (long long)n_jobs);
    run_sql(db, fill);
    for (int i = 0; i < 3; i++)
        CHECK(sqlite3_prepare_v2(db, texts[i], -1, &stmts[i], NULL) == SQLITE_OK);
    int64_t start_ns = clock_mono_ns();
    for (int64_t at = 1; at <= n_jobs; at += COMMIT) {
        run_sql(db, "BEGIN IMMEDIATE");
        for (int64_t id = at; id < at + COMMIT && id <= n_jobs; id++)
            for (int i = 0; i < 3; i++)
                step(stmts[i], id);
        run_sql(db, "COMMIT");
    }
    double seconds = clock_seconds_since(start_ns);
    for (int i = 0; i < 3; i++)
        sqlite3_finalize(stmts[i]);
    sqlite3_close(db);
    xfree(fill);
    xfree(path);
    return (double)n_jobs / seconds;
}

/* ---- ZeroMQ alone: the messages' bytes, without what they say ---- */

static void echo_results(void *arg)
{
    const int64_t *n = arg;
    static char body[RESULT_BYTES];
    void *context = zmq_ctx_new(), *socket = zmq_socket(context, ZMQ_DEALER);
    CHECK(zmq_connect(socket, bench.endpoint) == 0);
    const int64_t credit = 256;
    for (int64_t sent = 0, got = 0; got < *n;) {
        for (; sent < *n && sent - got < credit; sent++) {
            CHECK(zmq_send(socket, body, 8, ZMQ_SNDMORE) == 8);
            CHECK(zmq_send(socket, body, sizeof(body), 0) > 0);
        }
        CHECK(zmq_recv(socket, body, sizeof(body), 0) > 0);
        got++;
    }
    zmq_close(socket);
    zmq_ctx_term(context);
}

static void answer_all(void *arg)
{
    const int64_t *n = arg;
    char id[64], body[RESULT_BYTES];
    void *context = zmq_ctx_new(), *socket = zmq_socket(context, ZMQ_ROUTER);
    size_t size = 255;
    CHECK(zmq_bind(socket, "tcp://127.0.0.1:*") == 0);
    CHECK(zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, bench.endpoint, &size) == 0);
    for (int64_t i = 0; i < *n; i++) {
        int id_bytes = zmq_recv(socket, id, sizeof(id), 0);
        CHECK(zmq_recv(socket, body, sizeof(body), 0) == 8);
        CHECK(zmq_recv(socket, body, sizeof(body), 0) == RESULT_BYTES);
        CHECK(zmq_send(socket, id, (size_t)id_bytes, ZMQ_SNDMORE) > 0);
        CHECK(zmq_send(socket, body, ACK_BYTES, 0) > 0);
    }
    zmq_close(socket);
    zmq_ctx_term(context);
}

static double zeromq_alone(int64_t n_jobs)
{
    pid_t workers[MAX_WORKERS];
    int64_t each = n_jobs / bench.n_workers, all = each * bench.n_workers;
    memset(bench.endpoint, 0, 256);
    pid_t router = bench_start(answer_all, &all);
    while (bench.endpoint[0] == '\0')
        usleep(1000);
    int64_t start_ns = clock_mono_ns();
    for (int i = 0; i < bench.n_workers; i++)
        workers[i] = bench_start(echo_results, &each);
    for (int i = 0; i < bench.n_workers; i++)
        bench_finish(workers[i]);
    double seconds = clock_seconds_since(start_ns);
    bench_finish(router);
    return (double)all / seconds;
}

/* ---- jobs of 100 ms on two real workers ---- */

static void work_100ms(void *arg)
{
    (void)arg;
    char *const argv[] = {(char *)fake_compute_path(), "compute", NULL};
    const struct parent_options o = {.connect = bench.endpoint,
                                     .keys = workers_keys(),
                                     .compute_argv = argv,
                                     .credit = 2,
                                     .grace_ns = CLOCK_NS_PER_S};
    struct err e;
    setenv("ISOBIT_FAKE_MS", "100", 1);
    bench_must(parent_run(&o, &e), &e);
}

/* Time from the first lease to the last result over the ideal, less 1. */
static double overhead_of_short_jobs(int64_t n_jobs)
{
    pid_t workers[2];
    pid_t coordinator = start_coordinator(n_jobs);
    for (int i = 0; i < 2; i++)
        workers[i] = bench_start(work_100ms, NULL);
    bench_finish(coordinator);
    for (int i = 0; i < 2; i++)
        bench_finish(workers[i]);
    struct store *s = NULL;
    struct err e;
    int64_t ms = 0;
    char *db = path_of("bench.db");
    bench_must(store_open(db, STORE_READ, &s, &e), &e);
    bench_must(
        store_query_int(s, "SELECT max(finished_ms) - min(finished_ms) FROM run", 0, &ms, &e), &e);
    store_close(s);
    xfree(db);
    /* The first two results end the first 100 ms: what follows takes n / 2 - 1 rounds. */
    return (double)ms / (100.0 * (double)(n_jobs / 2 - 1)) - 1;
}

int main(int argc, char **argv)
{
    if (fake_compute_main(argc, argv))
        return 0;
    bench.n_jobs = argc > 1 ? strtoll(argv[1], NULL, 10) : 200000;
    bench.n_workers = argc > 2 ? (int)strtol(argv[2], NULL, 10) : 2;
    CHECK(bench.n_jobs >= 1000 && bench.n_workers > 0 && bench.n_workers <= MAX_WORKERS);
    log_setup(LOG_ERROR, false, NULL);
    bench.dir = support_tmpdir();
    bench.endpoint = bench_shared(256);
    bench.stats = bench_shared((size_t)bench.n_workers * sizeof(*bench.stats));
    setenv("XDG_RUNTIME_DIR", bench.dir, 1);
    if (argc <= 3 || strcmp(argv[3], "plain") != 0)
        make_keys();
    struct bench_cost cost, quiet;
    double sqlite = sqlite_alone(bench.n_jobs), zeromq = zeromq_alone(bench.n_jobs);
    printf("%-44s %9.0f jobs/s\n%-44s %9.0f jobs/s\n", "SQLite alone, 256 jobs a commit, FULL",
           sqlite, "ZeroMQ alone, messages of the same size", zeromq);
    double rate = run_null_jobs(bench.n_jobs, 0, &cost);
    double cpu_ms = cost.cpu_s * 1e3 / (double)bench.n_jobs;
    double p99_full = null_worker_quantile(bench.stats, bench.n_workers, 0.99);
    printf("%-44s %9.0f jobs/s, %d workers\n",
           bench.keys_dir != NULL ? "durable null jobs, with keys"
                                  : "durable null jobs, without keys",
           rate, bench.n_workers);
    printf("%-44s %9.4f ms a job (at most 0.05)\n", "coordinator's CPU", cpu_ms);
    printf("%-44s %9.1f MiB at %lld jobs (at most 120 at 200000)\n", "coordinator's memory",
           cost.peak_mib, (long long)bench.n_jobs);
    printf("%-44s %9.1f ms\n", "result to acknowledge at full load, p99", p99_full);
    int64_t n_half = (int64_t)(rate * 2.5) / 1000 * 1000;
    run_null_jobs(n_half < bench.n_jobs ? n_half : bench.n_jobs, rate / 2, &quiet);
    printf("%-44s %9.1f ms (at most 20); median %.1f\n", "result to acknowledge at half load, p99",
           null_worker_quantile(bench.stats, bench.n_workers, 0.99),
           null_worker_quantile(bench.stats, bench.n_workers, 0.5));
    printf("%-44s %9.2f %% over the ideal (at most 3)\n", "jobs of 100 ms on 2 slots",
           100 * overhead_of_short_jobs(100));
    bench_print(&(struct bench_line){.name = "dispatch",
                                     .unit = "jobs/s",
                                     .against = "SQLite alone with the same commit size",
                                     .limit = "at least",
                                     .value = rate,
                                     .against_value = sqlite,
                                     .limit_value = 20000});
    support_tmpdir_remove(bench.dir);
    return 0;
}
