/* Story: SIGKILL of workers (50 %), of the coordinator (40 %) or of both (10 %) at random moments of a real sweep. Whatever
 * dies, every job ends done, none twice, with the numbers of an undisturbed run. ISOBIT_KILLS sets how many (default 10),
 * ISOBIT_KILL_SEED the moments. */
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "base/mem.h"
#include "tests/support/disturb.h"
#include "tests/support/support.h"

static const char *const spec = "sweeps/smoke.yaml";

static void plan_smoke(const char *db)
{
    cluster_plan(spec, db);
}

/* ---- `isobit run`, which takes its workers with it ---- */

static pid_t start_run(const struct disturb *d)
{
    const char *const args[] = {
        "run", support_source(spec), "--db",           d->db,  "--device", "cpu", "--workers",
        "1",   "--no-report",        "--max-attempts", "1000", NULL};
    return cluster_start("isobit", args, d->log);
}

static bool is_gone_soon(pid_t pid)
{
    for (int i = 0; i < 300; i++) {
        if (pid <= 0 || kill(pid, 0) != 0)
            return true;
        usleep(10000);
    }
    return false;
}

/* Killed again and again, each time started by the same command; its workers must not outlive it. */
static int run_killed(struct disturb *d, int n)
{
    int done = 0;
    for (; done < n && (done == 0 || !disturb_await_end(d, 0)); done++) {
        pid_t pid = start_run(d);
        usleep((useconds_t)(300000 + rng_below(&d->rng, 1700000)));
        cluster_kill(pid);
        pid_t worker =
            (pid_t)cluster_query(d->db, "SELECT pid FROM workers ORDER BY last_seen DESC LIMIT 1");
        EXPECT(is_gone_soon(worker), "worker %d outlives `isobit run`", (int)worker);
    }
    int status = cluster_wait(start_run(d), 240);
    EXPECT(status == 0, "`isobit run` ended with %d after %d kills", status, done);
    return done;
}

int main(void)
{
    int n_kills = 10;
    struct disturb d = disturb_new(plan_smoke, &n_kills);

    disturb_open(&d, "undisturbed");
    EXPECT(disturb_await_end(&d, 240), "the undisturbed sweep did not end");
    disturb_close(&d);
    struct buf expected = outcome_read(d.db);
    EXPECT(expected.len > 0, "the undisturbed sweep has no results");

    disturb_sweeps(&d, n_kills, &expected);
    buf_release(&expected);

    snprintf(d.events, sizeof(d.events), "%s/none", d.dir); /* `isobit run` writes no events */
    snprintf(d.db, sizeof(d.db), "%s/run-undisturbed.db", d.dir);
    EXPECT(cluster_wait(start_run(&d), 240) == 0, "the undisturbed `isobit run` failed");
    expected = outcome_read(d.db);
    snprintf(d.db, sizeof(d.db), "%s/run-killed.db", d.dir);
    plan_smoke(d.db);
    printf("%d kills of `isobit run`\n", run_killed(&d, (n_kills + 2) / 3));
    outcome_check(d.db, d.events, &expected);
    buf_release(&expected);
    disturb_free(&d);
    return cluster_failures() > 0;
}
