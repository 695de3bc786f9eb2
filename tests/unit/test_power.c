/* Orchestration spec, section 3: a power cut at any moment loses no acknowledged result and leaves an intact database; a disk
 * that fails at any write costs that commit and nothing else. ISOBIT_CRASHES sets how many moments are tried (default 300),
 * ISOBIT_TEST_FULL=1 tries 10,000 and every single write. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "base/preflush.h"
#include "coordinator/dispatch.h"
#include "schema/store_impl.h"
#include "schema/wire.h"
#include "tests/support/dispatch_options.h"
#include "tests/support/fault_vfs.h"
#include "tests/support/support.h"
#include "tests/support/sweep_fixture.h"

enum { N_JOBS = 60, SAMPLE_BYTES = 3000 /* a page each: written once */ };
static const int64_t now_ns = 1000 * CLOCK_NS_PER_S;
/* How the log gets into the database: as part of a COMMIT, or beside the work (store_tidy_log). */
enum tidying { IN_COMMIT, IN_STEPS, N_TIDYINGS };
static const char *const tidying_names[] = {"in COMMIT", "in steps"};

static char *dir, *db;
static struct arena arena;
static struct err err;
/* Acknowledged: the commit had returned at this moment. */
static struct {
    int64_t job, moment;
} acked[N_JOBS];
static int n_acked;

#define OK(call) cr_assert_eq((call), ERR_OK, "%s", err.text)

static void setup(void)
{
    log_setup(LOG_ERROR, false, NULL);
    fault_vfs_install();
    dir = support_tmpdir();
    db = arena_printf(&arena, "%s/power.db", dir);
}

static void teardown(void)
{
    arena_release(&arena);
    support_tmpdir_remove(dir);
}

TestSuite(power, .init = setup, .fini = teardown);

static int n_crashes(void)
{
    int64_t n = 0;
    const char *text = getenv("ISOBIT_CRASHES");
    if (text != NULL && parse_i64(str_of(text), &n))
        return (int)n;
    return getenv("ISOBIT_TEST_FULL") != NULL ? 10000 : 300;
}

static void plan(void)
{
    struct store *s = NULL;
    struct store_plan_counts counts = {0};
    struct sweep sw = fixture_sweep(&arena, "demo", 2, N_JOBS / 10, 5);
    unlink(db);
    OK(store_open(db, STORE_CREATE, &s, &err));
    OK(store_plan(s, &sw, 0, &counts, &err));
    store_close(s);
    n_acked = 0;
}

/* ---- a coordinator's work, one step a transaction ---- */

struct work {
    struct store *s;
    struct dispatch *d;
    int64_t session;
    enum tidying tidying;
    struct job jobs[N_JOBS]; /* leased */
    int n_jobs, n_done;
};

static enum err_code hello(struct work *w, struct err *e)
{
    const struct worker_hello h = {.uuid = "a",
                                   .host = "host",
                                   .device = "cpu",
                                   .program = "isobit 0.1.0",
                                   .numerics = WIRE_NUMERICS,
                                   .computes = 1u << COMPUTE_FP32};
    return dispatch_hello(w->d, &h, now_ns, &w->session, e);
}

static enum err_code lease(struct work *w, struct err *e)
{
    struct slice slice;
    bool found = false;
    dispatch_credit(w->d, w->session, 1);
    w->n_jobs = w->n_done = 0;
    TRY(dispatch_next(w->d, now_ns, &arena, &slice, &found, e));
    for (int i = 0; found && i < slice.n_jobs; i++)
        w->jobs[w->n_jobs++] = slice.jobs[i];
    return ERR_OK;
}

/* One to three results in one commit. */
static enum err_code results(struct work *w, int n, struct err *e)
{
    const struct store_samples samples = {arena_alloc(&arena, SAMPLE_BYTES), SAMPLE_BYTES, "raw"};
    for (int i = w->n_done; i < w->n_done + n; i++) {
        struct job_result r = fixture_result(&arena, w->jobs[i].eval.task, 0.5);
        enum verdict v = VERDICT_FENCED;
        const struct dispatch_ref at = {w->session, w->jobs[i].id, w->jobs[i].attempt};
        TRY(dispatch_result(w->d, &at, &r, &samples, now_ns, &v, e));
        cr_assert_eq(v, VERDICT_ACCEPTED);
    }
    return ERR_OK;
}

static int group_of(const struct work *w)
{
    int left = w->n_jobs - w->n_done, n = 1 + n_acked % 3;
    return n < left ? n : left;
}

/* The next step in a transaction of its own: registering, leasing or results. */
static enum err_code step(struct work *w, struct err *e)
{
    bool is_lease = w->session != 0 && w->n_done == w->n_jobs;
    int n = w->session == 0 || is_lease ? 0 : group_of(w);
    int64_t session = w->session;
    TRY(store_begin(w->s, e));
    enum err_code rc = session == 0 ? hello(w, e) : is_lease ? lease(w, e) : results(w, n, e);
    if (rc == ERR_OK)
        rc = store_commit(w->s, e);
    else
        store_rollback(w->s);
    if (rc != ERR_OK) { /* as if it had not been tried */
        w->session = session;
        w->n_done = is_lease ? w->n_jobs : w->n_done;
        dispatch_rolled_back(w->d);
        return rc;
    }
    for (int i = 0; i < n; i++) {
        acked[n_acked].job = w->jobs[w->n_done++].id;
        acked[n_acked++].moment = fault_vfs_moment();
    }
    if (w->tidying == IN_STEPS) {
        while (w->s->log.preflush != NULL && !preflush_is_over(w->s->log.preflush))
            usleep(100); /* a real sync takes longer than many of our commits */
        store_tidy_log(w->s, true);
    }
    return ERR_OK;
}

static enum err_code begin_work(struct work *w, enum tidying tidying, struct err *e)
{
    const struct dispatch_options o = usual_dispatch();
    *w = (struct work){.tidying = tidying};
    enum err_code rc = store_open(db, STORE_WRITE, &w->s, e);
    if (rc == ERR_OK) /* checkpoints are the interesting moments: often */
        rc = store_exec(w->s, "PRAGMA wal_autocheckpoint=12", e);
    if (rc == ERR_OK)
        w->s->log.step = 12;
    return rc == ERR_OK ? dispatch_new(w->s, &o, now_ns, &w->d, e) : rc;
}

static void end_work(struct work *w)
{
    dispatch_free(w->d);
    store_close(w->s);
}

/* ---- power cuts ---- */

static enum err_code mark_done(void *arg, const struct store_row *row, struct err *e)
{
    (void)e;
    ((bool *)arg)[store_col_int(row, 0)] = true;
    return ERR_OK;
}

/* Acknowledged results that the database after the cut does not have; -1: it is not intact. */
static int n_lost(const char *path, int64_t moment)
{
    struct store *s = NULL;
    bool is_done[N_JOBS + 1] = {false};
    int64_t n_bad = -1;
    int lost = 0;
    if (store_open(path, STORE_WRITE, &s, &err) != ERR_OK)
        return -1;
    OK(store_query_int(s,
                       "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check <> 'ok'",
                       -1, &n_bad, &err));
    OK(store_query(s,
                   "SELECT r.job_id FROM run r JOIN job j ON j.id = r.job_id AND j.state = 'done' "
                   "JOIN sample x ON x.job_id = r.job_id JOIN metric m ON m.job_id = r.job_id",
                   NULL, 0, mark_done, is_done, &err));
    int64_t n_open = 0, n_counted = 0;
    OK(store_query_int(s, "SELECT count(*) FROM job WHERE state IN ('pending', 'leased')", 0,
                       &n_open, &err));
    OK(store_query_int(s, "SELECT sum(n) FROM tally WHERE state IN ('pending', 'leased')", 0,
                       &n_counted, &err));
    store_close(s);
    for (int i = 0; i < n_acked && acked[i].moment <= moment; i++)
        lost += !is_done[acked[i].job];
    return n_bad == 0 && n_open == n_counted ? lost : -1;
}

static void work_to_the_end(enum tidying tidying, const char *settings)
{
    struct work w;
    plan();
    fault_vfs_record(db);
    OK(begin_work(&w, tidying, &err));
    if (settings != NULL)
        OK(store_exec(w.s, settings, &err));
    while (n_acked < N_JOBS)
        OK(step(&w, &err));
    end_work(&w);
    fault_vfs_record(NULL);
}

/* Cuts the power `n` times, evenly over the run; how many of them lost something, and how many broke the database. */
static void cut_power(int n, int *n_losing, int *n_broken)
{
    static const int keeps[] = {0, 1000, 500, 900, 100};
    struct rng rng = {12345};
    struct fault_replay *r = fault_replay_new();
    char *to = arena_printf(&arena, "%s/after", dir);
    OK(io_make_dirs(to, &err));
    int64_t n_changes = fault_vfs_moment();
    *n_losing = *n_broken = 0;
    for (int i = 0; i < n; i++) {
        int64_t moment = (n_changes + 1) * i / n;
        fault_replay_crash(r, moment, keeps[i % (int)ARRAY_LEN(keeps)], &rng, to);
        int lost = n_lost(arena_printf(&arena, "%s/power.db", to), moment);
        *n_losing += lost > 0;
        *n_broken += lost < 0;
        cr_expect(lost >= 0, "cut %d at change %lld: %s", i, (long long)moment, err.text);
    }
    fault_replay_free(r);
}

Test(power, a_cut_at_any_moment_loses_no_acknowledged_result, .timeout = 900)
{
    int n_losing = 0, n_broken = 0, n = n_crashes() / N_TIDYINGS;
    for (int t = 0; t < N_TIDYINGS; t++) {
        work_to_the_end((enum tidying)t, NULL);
        cut_power(n, &n_losing, &n_broken);
        cr_expect_eq(n_losing, 0);
        cr_expect_eq(n_broken, 0);
        printf("%d power cuts over %lld changes of the files (checkpoints %s): %d lost something, "
               "%d broke it\n",
               n, (long long)fault_vfs_moment(), tidying_names[t], n_losing, n_broken);
    }
}

/* The shim sees what it is there for: with synchronous NORMAL a cut does lose acknowledged results. */
Test(power, without_full_synchronization_results_are_lost)
{
    int n_losing = 0, n_broken = 0;
    work_to_the_end(IN_COMMIT, "PRAGMA synchronous=NORMAL; PRAGMA wal_autocheckpoint=40");
    cut_power(200, &n_losing, &n_broken);
    cr_expect_gt(n_losing, 10);
    cr_expect_eq(n_broken, 0, "NORMAL loses commits, but breaks nothing");
}

/* ---- failing writes ---- */

/* The whole work with change number n failing until the failed step was rolled back; false when there is no such change. */
static bool work_with_fault(int64_t n, enum tidying tidying, enum fault_kind kind)
{
    struct work w;
    int n_failed = 0;
    plan();
    fault_vfs_fail(n, kind, true);
    while (begin_work(&w, tidying, &err) != ERR_OK) {
        end_work(&w);
        cr_assert_eq(n_failed++, 0, "opening failed twice: %s", err.text);
        cr_assert(fault_vfs_heal());
    }
    while (n_acked < N_JOBS) {
        if (step(&w, &err) == ERR_OK)
            continue;
        cr_assert_eq(n_failed++, 0, "change %lld: failed again after the disk was well: %s",
                     (long long)n, err.text);
        cr_assert(fault_vfs_heal());
    }
    bool has_failed = fault_vfs_heal();
    end_work(&w);
    cr_assert_eq(n_lost(db, INT64_MAX), 0, "change %lld", (long long)n);
    return has_failed;
}

static void fail_everywhere(enum fault_kind kind)
{
    int64_t stride = getenv("ISOBIT_TEST_FULL") != NULL ? 1 : 9;
    for (int t = 0; t < N_TIDYINGS; t++) {
        int64_t n = 1;
        while (work_with_fault(n, (enum tidying)t, kind))
            n += stride;
        cr_expect_gt(n, 100, "only %lld changes", (long long)n);
    }
}

Test(power, a_disk_full_at_any_write_costs_one_commit, .timeout = 600)
{
    fail_everywhere(FAULT_FULL);
}

Test(power, an_io_error_at_any_write_costs_one_commit, .timeout = 600)
{
    fail_everywhere(FAULT_EIO);
}

/* A sync that failed once, and a power cut much later: what the failed one was for must have stayed in the log. */
static bool work_with_passing_fault(int64_t n, enum tidying tidying, const char *to)
{
    struct work w;
    struct rng rng = {n};
    plan();
    fault_vfs_record(db);
    OK(begin_work(&w, tidying, &err));
    fault_vfs_fail(n, FAULT_EIO, false);
    while (n_acked < N_JOBS)
        ERR_IGNORE(step(&w, &err));
    bool has_failed = fault_vfs_heal();
    struct fault_replay *r = fault_replay_new();
    fault_replay_crash(r, fault_vfs_moment(), 0, &rng, to);
    fault_replay_free(r);
    end_work(&w);
    fault_vfs_record(NULL);
    cr_expect_eq(n_lost(arena_printf(&arena, "%s/power.db", to), INT64_MAX), 0,
                 "change %lld failed, checkpoints %s", (long long)n, tidying_names[tidying]);
    return has_failed;
}

Test(power, a_passing_io_error_loses_nothing_to_a_later_cut, .timeout = 600)
{
    int64_t stride = getenv("ISOBIT_TEST_FULL") != NULL ? 1 : 3;
    char *to = arena_printf(&arena, "%s/after", dir);
    OK(io_make_dirs(to, &err));
    for (int t = 0; t < N_TIDYINGS; t++) {
        int64_t n = 1;
        while (work_with_passing_fault(n, (enum tidying)t, to))
            n += stride;
        cr_expect_gt(n, 100, "only %lld changes", (long long)n);
    }
}

/* ---- making a database ---- */

static int n_files(const char *folder)
{
    struct dirent **names = NULL;
    int n = scandir(folder, &names, NULL, NULL);
    for (int i = 0; i < n; i++)
        free(names[i]);
    free(names);
    return n - 2; /* "." and ".." */
}

/* False when there is no n-th change. */
static bool make_with_fault(int64_t n, enum fault_kind kind)
{
    struct store *s = NULL;
    fault_vfs_fail(n, kind, true);
    enum err_code rc = store_open(db, STORE_CREATE, &s, &err);
    bool has_failed = fault_vfs_heal();
    if (rc == ERR_OK)
        store_discard(s);
    return has_failed;
}

Test(power, a_disk_that_fails_while_a_database_is_made_leaves_nothing)
{
    static const enum fault_kind kinds[] = {FAULT_FULL, FAULT_EIO};
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        int64_t n = 1;
        while (make_with_fault(n, kinds[k])) {
            cr_expect_eq(n_files(dir), 0, "change %lld leaves files", (long long)n);
            n++;
        }
        cr_expect_eq(n_files(dir), 0);
        cr_expect_gt(n, 10, "only %lld changes", (long long)n);
    }
}

/* With a journal of it that failed, which its next writer needs. */
Test(power, a_file_that_was_there_is_never_removed)
{
    support_write(db, "", 0);
    for (int64_t n = 1; make_with_fault(n, FAULT_FULL); n++)
        cr_expect(io_exists(db), "change %lld", (long long)n);
    cr_expect(io_exists(db));
}
