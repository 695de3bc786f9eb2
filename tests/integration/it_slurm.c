/* `isobit slurm` on a real Slurm: up to the maximum and down again when idle, preemption, time limits, failing starts. Workers
 * compute nothing (fake_compute), so that the story is Slurm's. No job is lost and none pays for what the cluster does. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/mem.h"
#include "tests/support/cluster.h"
#include "tests/support/fake_compute.h"
#include "tests/support/slurm_site.h"
#include "tests/support/support.h"

struct story {
    char *dir, *db, *serve_log, *slurm_log;
    char *keys; /* NULL: without */
    char endpoint[256];
    pid_t serve, slurm;
};

static void make_keys(struct story *s)
{
    s->keys = xasprintf("%s/keys", s->dir);
    char *command = xasprintf("isobit keygen %s", s->keys);
    struct support_run r = support_shell(command);
    EXPECT(r.status == 0, "%s", r.err.data);
    support_run_release(&r);
    xfree(command);
}

static struct story open_story(const char *fake_ms, bool has_keys)
{
    struct story s = {.dir = support_tmpdir(), .endpoint = "tcp://127.0.0.1:0"};
    s.db = xasprintf("%s/s.db", s.dir);
    s.serve_log = xasprintf("%s/serve.log", s.dir);
    s.slurm_log = xasprintf("%s/slurm.log", s.dir);
    if (has_keys)
        make_keys(&s);
    const char *const keys[] = {"--keys", s.keys, NULL};
    setenv("ISOBIT_FAKE_MS", fake_ms, 1);
    cluster_plan("sweeps/demo.yaml", s.db);
    s.serve = cluster_serve(s.db, s.endpoint, s.serve_log, has_keys ? keys : NULL);
    return s;
}

static void start_slurm(struct story *s, const char *const *extra)
{
    char *compute = xasprintf("--worker-arg=--compute-program=%s", fake_compute_path());
    const char *args[32] = {
        "slurm",          "--db", s->db,     "--every", "1",
        "--idle-timeout", "4",    "--drain", "24",      "--worker-arg=--credit=1",
        compute};
    int n = 11;
    for (int i = 0; extra[i] != NULL; i++)
        args[n++] = extra[i];
    if (s->keys != NULL) {
        args[n++] = "--keys";
        args[n++] = s->keys;
    }
    s->slurm = cluster_start("isobit", args, s->slurm_log);
    xfree(compute);
}

static void show_logs(const struct story *s)
{
    char command[2048];
    snprintf(command, sizeof(command),
             "tail -n 40 %s; tail -n 8 %s-logs/*.log; squeue --states=all", s->slurm_log, s->db);
    struct support_run r = support_shell(command);
    fprintf(stderr, "%s\n", r.out.data);
    support_run_release(&r);
}

static void close_story(struct story *s)
{
    if (cluster_failures() > 0)
        show_logs(s);
    cluster_kill(s->slurm);
    cluster_kill(s->serve);
    support_tmpdir_remove(s->dir);
    xfree(s->db);
    xfree(s->serve_log);
    xfree(s->slurm_log);
    xfree(s->keys);
}

/* What a command prints, as a number. */
static int64_t number(const char *command)
{
    struct support_run r = support_shell(command);
    int64_t n = -1;
    if (r.status != 0 || !parse_i64(str_trim((struct str){r.out.data, r.out.len}), &n))
        fprintf(stderr, "%s: %s%s\n", command, r.out.data, r.err.data);
    support_run_release(&r);
    return n;
}

static int64_t n_jobs(const char *partition, const char *state)
{
    char command[200];
    snprintf(command, sizeof(command), "squeue -h --partition=%s --states=%s -o %%i | wc -l",
             partition, state);
    return number(command);
}

static bool await_jobs(const char *partition, const char *state, int64_t n, double seconds)
{
    int64_t end_ns = clock_mono_ns() + (int64_t)(seconds * CLOCK_NS_PER_S);
    while (n_jobs(partition, state) != n) {
        if (clock_mono_ns() > end_ns)
            return false;
        usleep(200000);
    }
    return true;
}

static int64_t count_in_log(const struct story *s, const char *text)
{
    char command[1200];
    snprintf(command, sizeof(command), "grep -c '%s' %s || true", text, s->slurm_log);
    return number(command);
}

static bool await_log(const struct story *s, const char *text, int64_t at_least, double seconds)
{
    int64_t end_ns = clock_mono_ns() + (int64_t)(seconds * CLOCK_NS_PER_S);
    while (count_in_log(s, text) < at_least) {
        if (clock_mono_ns() > end_ns)
            return false;
        usleep(200000);
    }
    return true;
}

/* A job of somebody more important takes all cores for some seconds, but the one in `lasting`. */
static void take_the_node(void)
{
    char command[300];
    snprintf(command, sizeof(command),
             "sbatch --partition=high --ntasks=%d --time=5 --output=/dev/null --wrap 'sleep 4'",
             SLURM_SITE_CORES - 1);
    struct support_run r = support_shell(command);
    EXPECT(r.status == 0, "%s", r.err.data);
    support_run_release(&r);
}

static void expect_all_done(const struct story *s, double seconds)
{
    EXPECT(cluster_await(s->db, "SELECT count(*) FROM jobs WHERE state <> 'done'", 0, seconds),
           "%lld jobs are not done",
           (long long)cluster_query(s->db, "SELECT count(*) FROM jobs WHERE state <> 'done'"));
    int64_t paid =
        cluster_query(s->db, "SELECT count(*) FROM failures WHERE outcome <> 'returned'");
    EXPECT(paid == 0, "%lld attempts were paid for", (long long)paid);
}

static void expect_exit(struct story *s, int signal, int status)
{
    if (signal != 0)
        kill(s->slurm, signal);
    int got = cluster_wait(s->slurm, 20);
    EXPECT(got == status, "isobit slurm ended with %d and not %d", got, status);
    s->slurm = 0;
}

/* ---- stories: each starts its `isobit slurm`; Slurm's slowness makes them go on side by side ---- */

static struct story start_refused(void)
{
    struct story s = open_story("0", false);
    static const char *const extra[] = {"--partition", "nowhere", "--every", "0.2", NULL};
    start_slurm(&s, extra);
    return s;
}

static void pauses_when_submissions_are_refused(struct story *s)
{
    EXPECT(await_log(s, "slurm paused", 1, 30), "ten refusals do not pause it");
    EXPECT(count_in_log(s, "nvalid partition") == 1, "sbatch's reason is not told once");
    expect_exit(s, SIGTERM, 1);
}

static struct story start_failing(void)
{
    struct story s = open_story("0", false);
    static const char *const extra[] = {
        "--worker-program", "/bin/false", "--backlog", "3", "--max", "3", NULL};
    start_slurm(&s, extra);
    return s;
}

static void pauses_when_starts_fail_and_goes_on_when_told(struct story *s)
{
    EXPECT(await_log(s, "slurm paused", 1, 30), "three failed starts do not pause it");
    int64_t n = count_in_log(s, "slurm submitted");
    sleep(2);
    EXPECT(count_in_log(s, "slurm submitted") == n, "it submits while paused");
    EXPECT(count_in_log(s, "status=1") >= 3, "the status of the failed ones is not told");
    kill(s->slurm, SIGUSR1);
    EXPECT(await_log(s, "slurm paused", 2, 30), "it does not try again after USR1");
    expect_exit(s, SIGINT, 1);
}

/* Slurm queues its preempted workers again. */
static void start_slurm_in_main(struct story *s)
{
    static const char *const extra[] = {"--partition", "main", "--max", "2",
                                        "--backlog",   "2",    NULL};
    start_slurm(s, extra);
}

static struct story start_requeued(void)
{
    struct story s = open_story("150", true);
    start_slurm_in_main(&s);
    return s;
}

/* Slurm may not queue these again: every end asks for a new submission. Their time limit comes up to a minute early. */
static struct story start_limited(void)
{
    struct story s = open_story("180", false);
    static const char *const extra[] = {"--partition",
                                        "cancel",
                                        "--max",
                                        "2",
                                        "--backlog",
                                        "2",
                                        "--walltime",
                                        "1",
                                        "--sbatch-arg=--no-requeue",
                                        "--until-done",
                                        NULL};
    start_slurm(&s, extra);
    return s;
}

/* One Slurm job that queues itself again whenever its time is over, and does all jobs of the sweep in the end. */
static struct story start_renewed(void)
{
    struct story s = open_story("40", false);
    static const char *const extra[] = {"--partition",  "lasting", "--max",   "1",
                                        "--walltime",   "1",       "--every", "0.5",
                                        "--until-done", NULL};
    start_slurm(&s, extra);
    return s;
}

/* What runs goes on without it, and belongs to the next one. */
static void may_be_stopped_and_started_again(struct story *s)
{
    expect_exit(s, SIGINT, 0);
    EXPECT(count_in_log(s, "2 Slurm jobs with workers go on") == 1, "it does not say what goes on");
    EXPECT(n_jobs("main", "RUNNING") == 2, "workers end with it");
    int64_t n = count_in_log(s, "slurm submitted");
    start_slurm_in_main(s);
    EXPECT(await_log(s, "slurm coordinator", 2, 10), "it does not start again");
    sleep(2);
    EXPECT(count_in_log(s, "slurm submitted") == n, "it does not find its own Slurm jobs");
}

static void grow_to_the_maximum_and_survive_preemption(struct story *requeued,
                                                       struct story *limited)
{
    EXPECT(await_jobs("main", "RUNNING", 2, 30), "not two Slurm jobs run in main");
    EXPECT(await_jobs("cancel", "RUNNING", 2, 30), "not two Slurm jobs run in cancel");
    EXPECT(cluster_await(requeued->db, "SELECT count(*) FROM workers WHERE state = 'live'", 2, 10),
           "not two workers");
    EXPECT(n_jobs("main", "RUNNING,PENDING") == 2, "more Slurm jobs than --max");
    may_be_stopped_and_started_again(requeued);
    take_the_node();
    EXPECT(await_jobs("high", "RUNNING", 1, 30), "the high job does not get the node");
    EXPECT(await_jobs("high", "RUNNING", 0, 30), "the high job does not end");
    EXPECT(await_log(limited, "slurm submitted", 4, 30), "the cancelled ones are not replaced");
    EXPECT(await_jobs("main", "RUNNING", 2, 60), "preempted workers do not come back");
    EXPECT(number("scontrol -o show job | grep Partition=main | grep -o 'Restarts=[0-9]*' | "
                  "tr -dc '0-9\\n' | sort -n | tail -1") >= 1,
           "no Slurm job was queued again");
}

static void leaves_when_idle(struct story *s)
{
    expect_all_done(s, 90);
    EXPECT(await_jobs("main", "RUNNING,PENDING", 0, 30), "workers without work stay");
    EXPECT(count_in_log(s, "failed-start") == 0, "a start counts as failed");
    expect_exit(s, SIGINT, 0);
}

static void survives_the_time_limit(struct story *s)
{
    EXPECT(await_log(s, "slurm submitted", 5, 70), "after the time limit nothing new is submitted");
    expect_all_done(s, 90);
    EXPECT(count_in_log(s, "failed-start") == 0, "a start counts as failed");
    expect_exit(s, 0, 0); /* --until-done */
}

static void is_queued_again_at_the_time_limit(struct story *s)
{
    expect_all_done(s, 150);
    int64_t n =
        number("scontrol -o show job | grep Partition=lasting | grep -o 'Restarts=[0-9]*' | "
               "tr -dc '0-9\\n' | sort -n | tail -1");
    EXPECT(n >= 1, "its Slurm job was not queued again at the time limit");
    EXPECT(count_in_log(s, "slurm submitted") == 1, "another Slurm job was submitted in its place");
    EXPECT(count_in_log(s, "failed-start") == 0, "a start counts as failed");
    expect_exit(s, 0, 0); /* --until-done */
    printf("one Slurm job, queued again %lld times at its time limit, did %lld jobs\n",
           (long long)n,
           (long long)cluster_query(s->db, "SELECT count(*) FROM jobs WHERE state = 'done'"));
}

int main(int argc, char **argv)
{
    struct slurm_site site;
    if (fake_compute_main(argc, argv))
        return 0;
    if (!slurm_site_start(&site)) {
        fprintf(stderr, "SKIPPED: no Slurm\n");
        return 77;
    }
    struct story refused = start_refused(), failing = start_failing();
    struct story requeued = start_requeued(), limited = start_limited(), renewed = start_renewed();
    grow_to_the_maximum_and_survive_preemption(&requeued, &limited);
    pauses_when_submissions_are_refused(&refused);
    pauses_when_starts_fail_and_goes_on_when_told(&failing);
    leaves_when_idle(&requeued);
    survives_the_time_limit(&limited);
    is_queued_again_at_the_time_limit(&renewed);
    struct story *const stories[] = {&refused, &failing, &requeued, &limited, &renewed};
    for (size_t i = 0; i < ARRAY_LEN(stories); i++)
        close_story(stories[i]);
    slurm_site_stop(&site);
    return cluster_failures() > 0;
}
