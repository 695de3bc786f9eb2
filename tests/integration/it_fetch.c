/* Story: data files that a worker's machine lacks come from the coordinator by SHA-256. The worker looks for them where they
 * are not (a mount of its own hides them), fetches each once, compares the hash, and finds them in its cache the next time. A
 * coordinator that sends something else is not believed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "schema/link.h"
#include "tests/support/cluster.h"
#include "tests/support/fake_compute.h"
#include "tests/support/support.h"

static const char done[] = "SELECT count(*) FROM jobs WHERE state = 'done'";

/* ---- through a real coordinator: its files are elsewhere than the jobs say by the time the worker looks ---- */

struct cluster {
    char *dir, *log, *db, *cache, *data;
    char endpoint[256];
    pid_t coordinator, worker;
};

static void make_spec(const struct cluster *c)
{
    struct buf big = {0};
    char *spec = xasprintf("%s/fetch.yaml", c->dir), *path = xasprintf("%s/words.jsonl", c->data);
    char *labels = xasprintf("%s/words-labels.lst", c->data);
    static const char text[] =
        "name: fetch\n"
        "models: [{family: pythia, sizes: [s0], path: \"models/{family}-{size}\"}]\n"
        "configurations: [{k: 16}, {k: [3, 4, 5], dtype: int}]\n"
        "evaluations: [{task: lambada, data: data/words.jsonl}]\n";
    struct err e;
    CHECK(io_make_dirs(c->data, &e) == ERR_OK);
    support_write(spec, text, sizeof(text) - 1);
    for (int i = 0; i < 200000; i++) /* more than two parts */
        buf_printf(&big, "{\"text\":\"%d\"}\n", i);
    support_write(path, big.data, big.len);
    support_write(labels, "0\n", 2);
    buf_release(&big);
    xfree(labels);
    xfree(path);
    xfree(spec);
}

/* `isobit plan` in the story's folder. */
static void plan(const struct cluster *c)
{
    char *command = xasprintf("cd %s && isobit plan fetch.yaml --db %s", c->dir, c->db);
    struct support_run r = support_shell(command);
    EXPECT(r.status == 0, "plan: %s", r.err.data);
    support_run_release(&r);
    xfree(command);
}

/* The worker sees an empty folder where the data are. */
static pid_t start_blind_worker(const struct cluster *c)
{
    char *command = xasprintf("mount -t tmpfs none %s && exec %s/isobit-worker run --connect %s "
                              "--device cpu --compute-program %s --cache %s",
                              c->data, TEST_BIN_DIR, c->endpoint, fake_compute_path(), c->cache);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        FILE *log = freopen(c->log, "a", stderr);
        execlp("unshare", "unshare", "--mount", "--kill-child", "sh", "-c", command, (char *)NULL);
        _exit(log != NULL ? 127 : 126);
    }
    xfree(command);
    return pid;
}

static bool can_hide_files(void)
{
    struct support_run r = support_shell("unshare --mount true");
    bool can = r.status == 0;
    support_run_release(&r);
    return can;
}

static int64_t fetched_files(const struct cluster *c)
{
    char *command = xasprintf("find %s -type f ! -name '*.part*' | wc -l", c->cache);
    struct support_run r = support_shell(command);
    int64_t n = strtoll(r.out.data, NULL, 10);
    support_run_release(&r);
    xfree(command);
    return n;
}

static void files_come_from_the_coordinator(void)
{
    struct cluster c = {.dir = support_tmpdir(), .endpoint = "tcp://127.0.0.1:0"};
    c.log = xasprintf("%s/log", c.dir);
    c.db = xasprintf("%s/fetch.db", c.dir);
    c.cache = xasprintf("%s/cache", c.dir);
    c.data = xasprintf("%s/data", c.dir);
    make_spec(&c);
    plan(&c);
    setenv("ISOBIT_FAKE_READ", "1", 1);
    c.coordinator = cluster_serve(c.db, c.endpoint, c.log, NULL);
    c.worker = start_blind_worker(&c);
    EXPECT(cluster_await(c.db, done, 4, 20), "only %lld of 4 jobs are done",
           (long long)cluster_query(c.db, done));
    EXPECT(cluster_query(c.db, "SELECT count(*) FROM failures") == 0, "an attempt failed");
    EXPECT(fetched_files(&c) == 2, "%lld files in the cache", (long long)fetched_files(&c));
    char hex[SHA256_HEX], *path = xasprintf("%s/words.jsonl", c.data);
    struct err e;
    CHECK(sha256_file(path, hex, &e) == ERR_OK);
    char *sql = xasprintf("SELECT count(*) FROM results WHERE data_sha256 = '%s'", hex);
    EXPECT(cluster_query(c.db, sql) == 4, "the worker read something else");
    cluster_kill(c.worker);
    cluster_kill(c.coordinator);
    unsetenv("ISOBIT_FAKE_READ");
    xfree(sql);
    xfree(path);
    xfree(c.data);
    xfree(c.cache);
    xfree(c.db);
    xfree(c.log);
    support_tmpdir_remove(c.dir);
}

/* ---- a coordinator that the test plays ---- */

struct played_coordinator {
    struct link *link;
    struct link_peer worker;
};

static json_t *await(struct played_coordinator *p, enum wire_type type, double seconds)
{
    int64_t end_ns = clock_mono_ns() + (int64_t)(seconds * CLOCK_NS_PER_S);
    while (clock_mono_ns() < end_ns) {
        struct link_inbox in;
        bool readable = false;
        link_wait(&p->link, 1, NULL, 0, CLOCK_NS_PER_S / 50, &readable);
        while (link_receive(p->link, &in)) {
            json_t *body = !in.is_bad && in.msg.type == type ? json_incref(in.msg.body) : NULL;
            p->worker = in.from;
            link_inbox_release(&in);
            if (body != NULL)
                return body;
        }
    }
    return NULL;
}

static void tell(struct played_coordinator *p, enum wire_type type, json_t *body, const char *blob)
{
    struct err e;
    const struct wire_frame frame = {blob, blob != NULL ? strlen(blob) : 0};
    EXPECT(link_send(p->link, &p->worker, type, body, &frame, blob != NULL, &e) == ERR_OK, "%s",
           e.text);
    json_decref(body);
}

static void lease_with_file(struct played_coordinator *p, const char *content)
{
    char hex[SHA256_HEX];
    sha256_bytes(content, strlen(content), hex);
    json_decref(await(p, WIRE_HELLO, 10));
    tell(p, WIRE_WELCOME,
         json_pack("{s:i, s:I, s:I}", "session", 1, "heartbeat_ns", (json_int_t)CLOCK_NS_PER_S / 10,
                   "lease_ns", (json_int_t)CLOCK_NS_PER_S),
         NULL);
    json_decref(await(p, WIRE_CREDIT, 5));
    tell(p, WIRE_LEASE,
         json_pack("{s:i, s:i, s:i, s:{s:s}, s:[{s:i}], s:[{s:s, s:s, s:[{s:s, s:s, s:I}]}], "
                   "s:[[i, i, i, i]]}",
                   "slice", 1, "lease_ns", 1, "estimated_bytes", 0, "model", "name", "m", "configs",
                   "k", 16, "evals", "data", "d", "data_path", "/nowhere/d.jsonl", "files", "name",
                   "d.jsonl", "sha256", hex, "bytes", (json_int_t)strlen(content), "jobs", 1, 1, 0,
                   0),
         NULL);
}

/* Answers the next FETCH with these bytes; its offset. */
static int64_t answer_fetch(struct played_coordinator *p, int64_t total, const char *bytes)
{
    json_t *fetch = await(p, WIRE_FETCH, 8);
    EXPECT(fetch != NULL, "no FETCH");
    int64_t offset = json_opt_int(fetch, "offset", -1);
    tell(p, WIRE_DATA,
         json_pack("{s:s, s:I, s:I}", "sha256", json_opt_str(fetch, "sha256", ""), "offset",
                   (json_int_t)offset, "total", (json_int_t)total),
         bytes);
    json_decref(fetch);
    return offset;
}

static void what_does_not_fit_its_hash_is_not_believed(void)
{
    static const char content[] = "the file itself";
    struct played_coordinator p = {0};
    struct link_context *context = NULL;
    struct err e;
    char endpoint[256], *dir = support_tmpdir(), *log = xasprintf("%s/log", dir);
    char *cache = xasprintf("%s/cache", dir);
    CHECK(link_context_new(&context, &e) == ERR_OK);
    CHECK(link_listen(context, "tcp://127.0.0.1:0", NULL, endpoint, &p.link, &e) == ERR_OK);
    setenv("ISOBIT_FAKE_READ", "1", 1);
    const char *const args[] = {"--compute-program", fake_compute_path(), "--cache", cache, NULL};
    pid_t worker = cluster_worker(endpoint, log, args);
    lease_with_file(&p, content);
    EXPECT(answer_fetch(&p, 15, "another file!!!") == 0, "not from the start");
    EXPECT(answer_fetch(&p, 15, "the file ") == 0, "not from the start again");
    EXPECT(answer_fetch(&p, 15, "itself") == 9, "not from where the first part ended");
    json_t *result = await(&p, WIRE_RESULT, 10);
    char hex[SHA256_HEX];
    sha256_bytes(content, strlen(content), hex);
    EXPECT(strcmp(json_opt_str(json_object_get(json_object_get(result, "result"), "identity"),
                               "data_sha256", ""),
                  hex) == 0,
           "the job did not read the file that was sent");
    json_decref(result);
    cluster_kill(worker);
    unsetenv("ISOBIT_FAKE_READ");
    link_close(p.link);
    link_context_free(context);
    xfree(cache);
    xfree(log);
    support_tmpdir_remove(dir);
}

int main(int argc, char **argv)
{
    if (fake_compute_main(argc, argv))
        return 0;
    what_does_not_fit_its_hash_is_not_believed();
    if (can_hide_files())
        files_come_from_the_coordinator();
    else
        printf("skipped: a mount of one's own needs privileges that are not there\n");
    return cluster_failures() > 0;
}
