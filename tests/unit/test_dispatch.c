/* Dispatch against a real store and a made-up clock. The invariants I1..I5 are those of dispatch.h. */
#include <criterion/criterion.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "coordinator/dispatch.h"
#include "coordinator/place.h"
#include "schema/store_impl.h"
#include "tests/support/support.h"
#include "tests/support/sweep_fixture.h"

static char *dir;
static struct store *store;
static struct dispatch *dispatch;
static struct arena arena;
static struct err err;
static int64_t now_ns;
static const struct store_samples no_samples = {0};

#define OK(call) cr_assert_eq((call), ERR_OK, "%s", err.text)
#define S        CLOCK_NS_PER_S

static void setup(void)
{
    log_setup(LOG_ERROR, false, NULL);
    dir = support_tmpdir();
    now_ns = 1000 * S;
    OK(store_open(arena_printf(&arena, "%s/t.db", dir), STORE_CREATE, &store, &err));
}

static void teardown(void)
{
    dispatch_free(dispatch);
    store_close(store);
    arena_release(&arena);
    support_tmpdir_remove(dir);
}

TestSuite(dispatch, .init = setup, .fini = teardown);

/* ---- steps, each in a transaction as the serve loop does ---- */

static void begin(void)
{
    OK(store_begin(store, &err));
}

static void commit(void)
{
    OK(store_commit(store, &err));
}

static void plan(int n_models, int n_configs, int n_evals)
{
    struct sweep sw = fixture_sweep(&arena, "demo", n_models, n_configs, n_evals);
    struct store_plan_counts counts = {0};
    OK(store_plan(store, &sw, 0, &counts, &err));
}

static void start(void)
{
    struct dispatch_options o = dispatch_defaults();
    dispatch_free(dispatch);
    dispatch = NULL;
    OK(dispatch_new(store, &o, now_ns, &dispatch, &err));
}

static struct worker_hello hello_of(const char *uuid)
{
    return (struct worker_hello){.uuid = uuid,
                                 .host = "host",
                                 .device = "cpu",
                                 .program = "isobit 0.1.0",
                                 .numerics = DISPATCH_NUMERICS,
                                 .memory_bytes = (int64_t)64 << 30,
                                 .computes = 1u << COMPUTE_FP32,
                                 .pid = 1};
}

static int64_t hello(const char *uuid)
{
    struct worker_hello h = hello_of(uuid);
    int64_t session = 0;
    begin();
    OK(dispatch_hello(dispatch, &h, now_ns, &session, &err));
    commit();
    return session;
}

static int64_t join(const char *uuid, int credit)
{
    int64_t session = hello(uuid);
    dispatch_credit(dispatch, session, credit);
    return session;
}

static bool next(struct slice *s)
{
    bool found = false;
    begin();
    OK(dispatch_next(dispatch, now_ns, &arena, s, &found, &err));
    commit();
    return found;
}

static enum verdict result(int64_t session, const struct job *j)
{
    struct job_result r = fixture_result(&arena, j->eval.task, 0.5);
    enum verdict v = VERDICT_FENCED;
    begin();
    OK(dispatch_result(dispatch, &(struct dispatch_ref){session, j->id, j->attempt}, &r,
                       &no_samples, now_ns, &v, &err));
    commit();
    return v;
}

static enum verdict fail(int64_t session, const struct job *j, enum err_code code)
{
    enum verdict v = VERDICT_FENCED;
    begin();
    OK(dispatch_fail(dispatch, &(struct dispatch_ref){session, j->id, j->attempt}, code, "it broke",
                     now_ns, &v, &err));
    commit();
    return v;
}

static void tick(void)
{
    int64_t next_ns = 0;
    begin();
    OK(dispatch_tick(dispatch, now_ns, &next_ns, &err));
    commit();
    cr_assert(next_ns > 0 && next_ns <= 15 * S);
}

static int64_t ask(const char *sql)
{
    int64_t n = 0;
    OK(store_query_int(store, sql, -1, &n, &err));
    return n;
}

static int64_t count_state(const char *state)
{
    return ask(arena_printf(&arena, "SELECT count(*) FROM job WHERE state = '%s'", state));
}

static void change(enum store_change what, const char *pattern)
{
    struct store_changed c = {0};
    OK(store_change(store, what, pattern, &c, &err));
    dispatch_jobs_changed(dispatch);
}

/* ---- invariants ---- */

Test(dispatch, I1_a_job_is_leased_once_and_its_attempt_grows)
{
    plan(2, 3, 5);
    start();
    join("a", 10);
    join("b", 10);
    bool seen[31] = {false};
    struct slice s;
    while (next(&s)) {
        for (int i = 0; i < s.n_jobs; i++) {
            cr_assert_not(seen[s.jobs[i].id], "job %lld twice", (long long)s.jobs[i].id);
            seen[s.jobs[i].id] = true;
            cr_assert_eq(s.jobs[i].attempt, 1);
        }
    }
    cr_expect_eq(count_state("leased"), 30);
    now_ns += 16 * S;
    tick();
    cr_expect_eq(count_state("pending"), 30);
    join("c", 1);
    cr_assert(next(&s));
    cr_expect_eq(s.jobs[0].attempt, 2);
}

Test(dispatch, I2_a_result_counts_once_and_only_from_its_holder)
{
    plan(1, 1, 5);
    start();
    int64_t a = join("a", 1), b = join("b", 1);
    struct slice s;
    cr_assert(next(&s));
    int64_t holder = s.session, other = holder == a ? b : a;
    struct job wrong = s.jobs[0];
    wrong.attempt++;
    cr_expect_eq(result(other, &s.jobs[0]), VERDICT_FENCED);
    cr_expect_eq(result(holder, &wrong), VERDICT_FENCED);
    cr_expect_eq(result(holder, &s.jobs[0]), VERDICT_ACCEPTED);
    cr_expect_eq(result(holder, &s.jobs[0]), VERDICT_FENCED);
    cr_expect_eq(result(12345, &s.jobs[1]), VERDICT_FENCED);
    cr_expect_eq(ask("SELECT count(*) FROM run"), 1);
}

Test(dispatch, I2_a_late_result_of_a_lost_lease_is_fenced)
{
    plan(1, 1, 5);
    start();
    int64_t a = join("a", 1);
    struct slice first, second;
    cr_assert(next(&first));
    now_ns += 16 * S;
    tick();
    cr_expect_not(dispatch_knows(dispatch, a));
    cr_expect_eq(result(a, &first.jobs[0]), VERDICT_FENCED, "while it is pending");
    int64_t b = join("b", 1);
    cr_assert(next(&second));
    int64_t again = hello("a");
    cr_expect_neq(again, a);
    cr_expect_eq(result(again, &first.jobs[0]), VERDICT_FENCED, "while another has it");
    cr_expect_eq(result(b, &second.jobs[0]), VERDICT_ACCEPTED);
    cr_expect_eq(result(again, &first.jobs[0]), VERDICT_FENCED, "when it is done");
}

Test(dispatch, I3_silence_counts_for_the_running_job_only)
{
    plan(1, 1, 5);
    start();
    int64_t a = join("a", 1);
    struct slice s;
    cr_assert(next(&s));
    cr_assert_eq(s.n_jobs, 5);
    json_t *beat =
        json_pack("{s:{s:I, s:i}}", "running", "job", (json_int_t)s.jobs[2].id, "attempt", 1);
    dispatch_beat(dispatch, a, beat, now_ns);
    json_decref(beat);
    now_ns += 14 * S;
    tick();
    cr_expect_eq(count_state("leased"), 5, "not silent for long enough");
    now_ns += 2 * S;
    tick();
    cr_expect_eq(count_state("pending"), 5);
    cr_expect_eq(ask("SELECT sum(failures) FROM job"), 1);
    cr_expect_eq(ask("SELECT job_id FROM attempt WHERE outcome = 'lost'"), s.jobs[2].id);
    cr_expect_eq(ask("SELECT count(*) FROM worker WHERE state = 'lost'"), 1);
}

Test(dispatch, I3_a_job_that_kills_its_workers_is_buried_and_the_rest_is_done)
{
    plan(1, 1, 5);
    start();
    int64_t poison = 0;
    for (int round = 0; count_state("pending") > 0; round++) {
        cr_assert(round < 10);
        int64_t w = join(arena_printf(&arena, "w%d", round), 1);
        struct slice s;
        cr_assert(next(&s));
        poison = poison != 0 ? poison : s.jobs[2].id;
        for (int i = 0; i < s.n_jobs && s.jobs[i].id != poison; i++)
            cr_assert_eq(result(w, &s.jobs[i]), VERDICT_ACCEPTED);
        now_ns += 16 * S; /* dies at the poisonous one, which is then the first in hand */
        tick();
        if (ask("SELECT count(*) FROM job WHERE state = 'pending' AND failures = 0") == 2 &&
            round > 3)
            break;
    }
    cr_expect_eq(count_state("buried"), 1);
    cr_expect_eq(ask("SELECT id FROM job WHERE state = 'buried'"), poison);
    int64_t w = join("last", 1);
    struct slice s;
    while (next(&s)) {
        for (int i = 0; i < s.n_jobs; i++)
            cr_assert_eq(result(w, &s.jobs[i]), VERDICT_ACCEPTED);
        dispatch_credit(dispatch, w, 1);
    }
    cr_expect_eq(count_state("done"), 4);
}

Test(dispatch, I4_jobs_handed_back_cost_no_attempt)
{
    plan(1, 1, 5);
    start();
    int64_t a = join("a", 1);
    struct slice s;
    cr_assert(next(&s));
    enum verdict v = VERDICT_FENCED;
    begin();
    OK(dispatch_return(dispatch, &(struct dispatch_ref){a, s.jobs[0].id, 1}, "drain", "", now_ns,
                       &v, &err));
    OK(dispatch_bye(dispatch, a, &err));
    commit();
    cr_expect_eq(v, VERDICT_ACCEPTED);
    cr_expect_eq(count_state("pending"), 5);
    cr_expect_eq(ask("SELECT sum(failures) FROM job"), 0);
    cr_expect_eq(ask("SELECT sum(attempts) FROM jobs"), 0);
    cr_expect_eq(ask("SELECT count(*) FROM attempt"), 0);
    cr_expect_eq(ask("SELECT count(*) FROM worker WHERE state = 'left'"), 1);
}

Test(dispatch, I5_no_more_slices_than_credit)
{
    plan(4, 20, 5);
    start();
    int64_t a = join("a", 2);
    struct slice s;
    cr_expect(next(&s));
    cr_expect(next(&s));
    cr_expect_not(next(&s));
    dispatch_credit(dispatch, a, 1);
    cr_expect(next(&s));
    cr_expect_not(next(&s));
    hello("a");
    cr_expect_not(next(&s), "a new HELLO starts without credit");
}

/* ---- failures ---- */

Test(dispatch, a_failing_job_is_retried_and_then_buried)
{
    plan(1, 1, 1);
    start();
    int64_t a = join("a", 10);
    struct slice s;
    for (int attempt = 1; attempt <= 3; attempt++) {
        cr_assert(next(&s), "attempt %d", attempt);
        cr_expect_eq(s.jobs[0].attempt, attempt);
        cr_expect_eq(fail(a, &s.jobs[0], ERR_CRASHED), VERDICT_ACCEPTED);
    }
    cr_expect_eq(fail(a, &s.jobs[0], ERR_CRASHED), VERDICT_FENCED, "a repeat");
    cr_expect_eq(count_state("buried"), 1);
    cr_expect_not(next(&s));
    change(STORE_RETRY, "*");
    cr_assert(next(&s));
    cr_expect_eq(s.jobs[0].attempt, 4);
    cr_expect_eq(result(a, &s.jobs[0]), VERDICT_ACCEPTED);
}

Test(dispatch, a_failed_job_goes_to_another_worker_when_there_is_one)
{
    plan(1, 1, 1);
    start();
    int64_t a = join("a", 5);
    struct slice s;
    cr_assert(next(&s));
    int64_t b = join("b", 5);
    fail(a, &s.jobs[0], ERR_DEVICE);
    cr_assert(next(&s));
    cr_expect_eq(s.session, b);
    fail(b, &s.jobs[0], ERR_DEVICE);
    cr_assert(next(&s));
    cr_expect_eq(s.session, a);
}

Test(dispatch, absent_files_exclude_the_checkpoint_for_that_worker_only)
{
    plan(2, 1, 5);
    start();
    int64_t a = join("a", 10);
    struct slice s;
    cr_assert(next(&s));
    const char *absent = s.jobs[0].model.name;
    for (int i = 0; i < s.n_jobs; i++)
        fail(a, &s.jobs[i], ERR_NOTFOUND);
    cr_expect_eq(ask("SELECT sum(failures) FROM job"), 0);
    cr_expect_eq(ask("SELECT count(*) FROM refusal"), 1);
    while (next(&s))
        cr_expect_str_neq(s.jobs[0].model.name, absent);
    int64_t b = join("b", 10);
    cr_assert(next(&s));
    cr_expect_eq(s.session, b);
    cr_expect_str_eq(s.jobs[0].model.name, absent);
}

Test(dispatch, other_weights_than_the_pinned_ones_are_refused)
{
    plan(1, 1, 5);
    start();
    int64_t a = join("a", 1);
    struct slice s;
    cr_assert(next(&s));
    cr_expect_eq(result(a, &s.jobs[0]), VERDICT_ACCEPTED);
    struct job_result r = fixture_result(&arena, s.jobs[1].eval.task, 0.5);
    memset(r.weights_sha256, 'f', 64);
    enum verdict v = VERDICT_ACCEPTED;
    begin();
    cr_expect_eq(dispatch_result(dispatch, &(struct dispatch_ref){a, s.jobs[1].id, 1}, &r,
                                 &no_samples, now_ns, &v, &err),
                 ERR_DENIED);
    commit();
    cr_expect(strstr(err.text, "ffff") != NULL && strstr(err.text, "aaaa") != NULL, "%s", err.text);
    cr_expect_eq(v, VERDICT_FENCED);
    cr_expect_eq(ask("SELECT count(*) FROM job WHERE state = 'pending' AND failures = 0"), 1);
    cr_expect_eq(ask("SELECT count(*) FROM failures WHERE outcome = 'refused' AND code = 'DENIED'"),
                 1);
    dispatch_credit(dispatch, a, 1);
    cr_expect_not(next(&s), "this worker is not given the checkpoint again");
    join("b", 1);
    cr_expect(next(&s));
}

Test(dispatch, a_result_without_identity_is_a_failed_attempt)
{
    plan(1, 1, 1);
    start();
    int64_t a = join("a", 1);
    struct slice s;
    cr_assert(next(&s));
    struct job_result r = fixture_result(&arena, s.jobs[0].eval.task, 0.5);
    r.weights_sha256[0] = '\0';
    enum verdict v = VERDICT_FENCED;
    begin();
    OK(dispatch_result(dispatch, &(struct dispatch_ref){a, s.jobs[0].id, 1}, &r, &no_samples,
                       now_ns, &v, &err));
    commit();
    cr_expect_eq(ask("SELECT failures FROM job"), 1);
    cr_expect_eq(count_state("done"), 0);
}

Test(dispatch, another_numerics_version_is_refused)
{
    start();
    struct worker_hello h = hello_of("a");
    h.numerics++;
    int64_t session = 0;
    cr_expect_eq(dispatch_hello(dispatch, &h, now_ns, &session, &err), ERR_VERSION);
}

/* ---- restarts and reconnects ---- */

Test(dispatch, leases_survive_a_restart_of_the_coordinator)
{
    plan(1, 2, 5);
    start();
    join("a", 1);
    struct slice s;
    cr_assert(next(&s));
    start(); /* a new process over the same database */
    cr_expect_eq(count_state("leased"), s.n_jobs);
    struct worker_hello h = hello_of("a");
    int64_t jobs[8];
    int attempts[8];
    for (h.n_held = 0; h.n_held < s.n_jobs - 1; h.n_held++) {
        jobs[h.n_held] = s.jobs[h.n_held].id;
        attempts[h.n_held] = s.jobs[h.n_held].attempt;
    }
    h.held_jobs = jobs;
    h.held_attempts = attempts;
    int64_t session = 0;
    begin();
    OK(dispatch_hello(dispatch, &h, now_ns, &session, &err));
    commit();
    cr_expect_eq(dispatch_in_hand(dispatch, session), s.n_jobs - 1);
    cr_expect_eq(result(session, &s.jobs[0]), VERDICT_ACCEPTED);
    cr_expect_eq(result(session, &s.jobs[s.n_jobs - 1]), VERDICT_FENCED,
                 "it did not name that one");
    cr_expect_eq(ask("SELECT sum(failures) FROM job"), 0);
}

Test(dispatch, leases_of_a_former_process_end_without_cost_when_nobody_returns)
{
    plan(1, 1, 5);
    start();
    join("a", 1);
    struct slice s;
    cr_assert(next(&s));
    start();
    join("b", 1);
    cr_expect_not(next(&s));
    now_ns += 14 * S;
    tick();
    cr_expect_eq(count_state("leased"), 5);
    now_ns += 2 * S;
    tick();
    cr_expect_eq(count_state("pending"), 5);
    cr_expect_eq(ask("SELECT sum(failures) FROM job"), 0);
}

Test(dispatch, a_reconnecting_worker_keeps_its_session_and_is_told_what_it_lost)
{
    plan(1, 2, 5);
    start();
    int64_t a = join("a", 1);
    struct slice s;
    cr_assert(next(&s));
    struct worker_hello h = hello_of("a");
    int64_t jobs[] = {s.jobs[0].id, 9999};
    int attempts[] = {1, 1};
    h.held_jobs = jobs;
    h.held_attempts = attempts;
    h.n_held = 2;
    int64_t session = 0;
    begin();
    OK(dispatch_hello(dispatch, &h, now_ns, &session, &err));
    struct revoke *r = NULL;
    int n = 0;
    OK(dispatch_revokes(dispatch, &arena, &r, &n, &err));
    commit();
    cr_expect_eq(session, a);
    cr_assert_eq(n, 1);
    cr_expect_eq(r[0].job, 9999);
    cr_expect_eq(count_state("leased"), 1);
}

Test(dispatch, a_rolled_back_group_can_be_handled_again)
{
    plan(1, 2, 5);
    start();
    int64_t a = join("a", 0);
    struct slice s, again;
    bool found = false;
    begin();
    dispatch_credit(dispatch, a, 1);
    OK(dispatch_next(dispatch, now_ns, &arena, &s, &found, &err));
    cr_assert(found);
    store_rollback(store);
    dispatch_rolled_back(dispatch);
    cr_expect_not(next(&again), "the credit came in the group that was rolled back");
    dispatch_credit(dispatch, a, 1);
    cr_assert(next(&again));
    cr_expect_eq(again.jobs[0].id, s.jobs[0].id);
    cr_expect_eq(result(a, &again.jobs[0]), VERDICT_ACCEPTED);
}

/* ---- changes by people ---- */

Test(dispatch, cancelled_and_held_jobs_are_revoked_and_fenced)
{
    plan(1, 1, 5);
    start();
    int64_t a = join("a", 1);
    struct slice s;
    cr_assert(next(&s));
    change(STORE_CANCEL, "*task=piqa*");
    change(STORE_HOLD, "*task=lambada*");
    struct revoke *r = NULL;
    int n = 0;
    begin();
    OK(dispatch_revokes(dispatch, &arena, &r, &n, &err));
    commit();
    cr_assert_eq(n, 2);
    cr_expect_eq(r[0].session, a);
    for (int i = 0; i < s.n_jobs; i++) {
        bool is_stopped = s.jobs[i].eval.task == TASK_piqa || s.jobs[i].eval.task == TASK_lambada;
        cr_expect_eq(result(a, &s.jobs[i]), is_stopped ? VERDICT_FENCED : VERDICT_ACCEPTED);
    }
    begin();
    OK(dispatch_revokes(dispatch, &arena, &r, &n, &err));
    commit();
    cr_expect_eq(n, 0, "told once");
}

Test(dispatch, jobs_planned_later_are_handed_out)
{
    plan(1, 1, 5);
    start();
    int64_t a = join("a", 100);
    struct slice s;
    int n = 0;
    while (next(&s))
        n += s.n_jobs;
    cr_expect_eq(n, 5);
    plan(2, 3, 5);
    dispatch_jobs_changed(dispatch);
    cr_expect_eq(dispatch_in_hand(dispatch, a), 5);
    while (next(&s))
        n += s.n_jobs;
    cr_expect_eq(n, 30);
}

/* ---- placement ---- */

static void set_params(void)
{
    OK(store_exec(store, "UPDATE model SET n_params = id * 1000000", &err));
}

Test(dispatch, largest_checkpoint_first_baseline_first_and_workers_spread)
{
    plan(3, 10, 5);
    set_params();
    start();
    int64_t a = join("a", 1), b = join("b", 1);
    struct slice s;
    const char *models[2];
    for (int i = 0; i < 2; i++) {
        cr_assert(next(&s));
        models[i] = s.jobs[0].model.size;
        cr_expect_eq(s.jobs[0].config.k, 16);
        cr_expect_eq(s.n_jobs, 5, "the first slice of a checkpoint is one configuration");
    }
    cr_expect_str_eq(models[0], "s2");
    cr_expect_str_eq(models[1], "s1");
    dispatch_credit(dispatch, a, 1);
    dispatch_credit(dispatch, b, 1);
    for (int i = 0; i < 2; i++) {
        cr_assert(next(&s));
        cr_expect_str_eq(s.jobs[0].model.size, s.session == a ? models[0] : models[1],
                         "a worker stays");
    }
}

Test(dispatch, slices_grow_to_the_target_and_shrink_at_the_end)
{
    plan(1, 400, 5);
    start();
    int64_t a = join("a", 1);
    struct slice s;
    int sizes[1000], n = 0, total = 0;
    while (next(&s)) {
        for (int i = 0; i < s.n_jobs; i++)
            cr_assert_eq(result(a, &s.jobs[i]), VERDICT_ACCEPTED); /* 0.5 s each */
        cr_assert(n < 1000);
        total += s.n_jobs;
        sizes[n++] = s.n_jobs;
        dispatch_credit(dispatch, a, 1);
    }
    cr_expect_eq(total, 2000);
    cr_expect_eq(sizes[0], 5);
    cr_expect(sizes[1] >= 85 && sizes[1] <= 100, "45 s are 90 jobs, not %d", sizes[1]);
    cr_expect(sizes[n - 1] <= 10, "the last slice has %d", sizes[n - 1]);
}

Test(dispatch, priority_wins_over_the_loaded_checkpoint)
{
    plan(2, 10, 5);
    set_params();
    OK(store_exec(store, "UPDATE job SET priority = 5 WHERE model_id = 1 AND config_id = 7", &err));
    start();
    int64_t a = join("a", 1);
    struct slice s;
    cr_assert(next(&s));
    cr_expect_str_eq(s.jobs[0].model.size, "s0");
    cr_expect_eq(s.n_jobs, 5);
    dispatch_credit(dispatch, a, 1);
    cr_assert(next(&s));
    cr_expect_str_eq(s.jobs[0].model.size, "s0", "there is work for what it has loaded");
}

Test(dispatch, jobs_wait_for_a_worker_that_can_compute_and_hold_them)
{
    plan(2, 2, 5);
    OK(store_exec(store, "UPDATE model SET n_params = 100000000000 WHERE id = 2", &err));
    OK(store_exec(store, "UPDATE config SET compute = 'fp16' WHERE id = 2", &err));
    start();
    join("small", 10);
    struct worker_hello h = hello_of("large");
    h.memory_bytes = (int64_t)2 << 40;
    h.computes = 1u << COMPUTE_FP32 | 1u << COMPUTE_FP16;
    int64_t large = 0;
    begin();
    OK(dispatch_hello(dispatch, &h, now_ns, &large, &err));
    commit();
    struct slice s;
    while (next(&s)) {
        cr_expect_str_eq(s.jobs[0].model.size, "s0");
        cr_expect_eq(s.jobs[0].config.compute, COMPUTE_FP32);
    }
    dispatch_credit(dispatch, large, 10);
    int n = 0;
    while (next(&s))
        n += s.n_jobs;
    cr_expect_eq(n, 15);
}

/* A worker that leaves in 20 s gets jobs of 8 s until 16 s of them are in its hand, and then none. */
Test(dispatch, a_worker_that_leaves_gets_no_job_it_cannot_finish)
{
    plan(1, 8, 5);
    start();
    int64_t a = join("a", 4);
    struct slice s;
    for (int round = 0; round < 2; round++) { /* two configurations measure: 8 s a job */
        cr_assert(next(&s));
        for (int i = 0; i < s.n_jobs; i++) {
            struct job_result r = fixture_result(&arena, s.jobs[i].eval.task, 0.5);
            enum verdict v = VERDICT_FENCED;
            r.seconds = 8;
            begin();
            OK(dispatch_result(dispatch, &(struct dispatch_ref){a, s.jobs[i].id, s.jobs[i].attempt},
                               &r, &no_samples, now_ns, &v, &err));
            commit();
        }
    }
    struct worker_hello h = hello_of("b");
    int64_t b = 0;
    h.left_s = 20;
    begin();
    OK(dispatch_hello(dispatch, &h, now_ns, &b, &err));
    commit();
    dispatch_credit(dispatch, b, 8);
    begin();
    OK(dispatch_bye(dispatch, a, &err));
    commit();
    int n = 0;
    while (next(&s))
        n += s.n_jobs;
    cr_expect_eq(n, 2, "%d jobs of 8 s for 20 s", n);
    h.left_s = 0; /* its time was extended */
    begin();
    OK(dispatch_hello(dispatch, &h, now_ns, &b, &err));
    commit();
    dispatch_credit(dispatch, b, 8);
    cr_expect(next(&s), "without an end it gets the rest");
}

/* A job of two sweeps may run as long as the more patient of them says. */
Test(dispatch, a_slice_names_the_longest_time_a_job_may_run)
{
    struct store_plan_counts counts = {0};
    struct sweep sw = fixture_sweep(&arena, "quick", 1, 1, 2);
    struct slice s;
    sw.job_limit_s = 60;
    OK(store_plan(store, &sw, 0, &counts, &err));
    start();
    int64_t a = join("a", 1);
    cr_assert(next(&s));
    cr_expect_eq(s.limit_s, 60);
    for (int i = 0; i < s.n_jobs; i++)
        cr_assert_eq(fail(a, &s.jobs[i], ERR_IO), VERDICT_ACCEPTED);
    sw.name = "patient";
    sw.job_limit_s = 600;
    OK(store_plan(store, &sw, 0, &counts, &err));
    dispatch_jobs_changed(dispatch);
    dispatch_credit(dispatch, a, 1);
    cr_assert(next(&s));
    cr_expect_eq(s.limit_s, 600);
}

Test(dispatch, out_of_memory_is_tried_again_on_a_larger_device_only)
{
    plan(1, 2, 5);
    start();
    struct worker_hello h = hello_of("small");
    int64_t session[3] = {0};
    static const int64_t bytes[] = {(int64_t)8 << 30, (int64_t)8 << 30, (int64_t)24 << 30};
    static const char *const names[] = {"small", "same", "large"};
    struct slice s;
    for (int i = 0; i < 3; i++) {
        h.uuid = names[i];
        h.memory_bytes = bytes[i];
        begin();
        OK(dispatch_hello(dispatch, &h, now_ns, &session[i], &err));
        commit();
        if (i == 0) {
            dispatch_credit(dispatch, session[0], 1);
            cr_assert(next(&s));
            cr_assert_eq(fail(session[0], &s.jobs[0], ERR_NOMEM), VERDICT_ACCEPTED);
        }
    }
    dispatch_credit(dispatch, session[1], 1);
    cr_expect(!next(&s), "as small a device is not tried");
    dispatch_credit(dispatch, session[2], 1);
    cr_assert(next(&s));
    cr_expect_eq(s.session, session[2]);
    cr_expect_eq(ask("SELECT max(failures) FROM job"), 0, "it cost no attempt");
}

Test(dispatch, what_fits_nobody_is_given_to_somebody)
{
    plan(1, 1, 5);
    OK(store_exec(store, "UPDATE model SET n_params = 100000000000000", &err));
    start();
    join("a", 1);
    struct slice s;
    cr_expect(next(&s), "it may stream the checkpoint, or says that it cannot");
}

/* ---- counts ---- */

Test(dispatch, counts_rate_and_time_left_follow_the_work)
{
    plan(1, 40, 5);
    start();
    struct dispatch_counts c;
    OK(dispatch_count(dispatch, now_ns, &c, &err));
    cr_expect_eq(c.pending, 200);
    cr_expect(c.eta_s < 0, "nothing measured");
    int64_t a = join("a", 1);
    struct slice s;
    cr_assert(next(&s));
    for (int i = 0; i < s.n_jobs; i++) {
        now_ns += S / 2;
        result(a, &s.jobs[i]);
    }
    OK(dispatch_count(dispatch, now_ns, &c, &err));
    cr_expect_eq(c.done, 5);
    cr_expect_eq(c.workers, 1);
    cr_expect_float_eq(c.eta_s, 195 * 0.5, 1.0);
    cr_expect(c.jobs_per_s > 1 && c.jobs_per_s < 3, "%g", c.jobs_per_s);
    json_t *workers = dispatch_workers_json(dispatch, now_ns);
    cr_expect_eq(json_array_size(workers), 1);
    cr_expect_str_eq(json_opt_str(json_array_get(workers, 0), "checkpoint", ""),
                     "models/pythia-s0");
    json_decref(workers);
}

/* ---- faults ---- */

/* A disk that fills up at any point: after the rollback the same step works, and nothing was lost or counted twice. */
Test(dispatch, a_full_disk_at_any_step_is_survived)
{
    plan(2, 6, 5);
    start();
    int64_t a = join("a", 1);
    struct slice s;
    int n_faults = 0;
    const struct store_samples samples = {arena_alloc(&arena, 3000), 3000, "zstd-f32/1"};
    for (int64_t done = 0; done < 60;) {
        int64_t pages = ask("PRAGMA page_count");
        OK(store_exec(store, arena_printf(&arena, "PRAGMA max_page_count=%lld", (long long)pages),
                      &err));
        for (int is_retry = 0; is_retry < 2; is_retry++) {
            bool found = false;
            struct err e;
            enum err_code rc = store_begin(store, &e);
            if (rc == ERR_OK)
                rc = dispatch_next(dispatch, now_ns, &arena, &s, &found, &e);
            for (int i = 0; found && i < s.n_jobs && rc == ERR_OK; i++) {
                struct job_result r = fixture_result(&arena, s.jobs[i].eval.task, 0.5);
                enum verdict v = VERDICT_FENCED;
                rc = dispatch_result(dispatch,
                                     &(struct dispatch_ref){a, s.jobs[i].id, s.jobs[i].attempt}, &r,
                                     &samples, now_ns, &v, &e);
                cr_assert(rc != ERR_OK || v == VERDICT_ACCEPTED);
            }
            if (rc == ERR_OK)
                rc = store_commit(store, &e);
            else
                store_rollback(store);
            if (rc == ERR_OK) {
                cr_assert(found);
                done += s.n_jobs;
                break;
            }
            cr_assert_eq(is_retry, 0, "%s", e.text);
            n_faults++;
            dispatch_rolled_back(dispatch);
            OK(store_exec(store, "PRAGMA max_page_count=1000000", &err));
        }
        dispatch_credit(dispatch, a, 1);
    }
    cr_expect(n_faults > 5, "%d", n_faults);
    cr_expect_eq(count_state("done"), 60);
    cr_expect_eq(ask("SELECT count(*) FROM run"), 60);
    cr_expect_eq(ask("SELECT count(*) FROM sample"), 60);
}

/* ---- scale: a bound far above what it takes; figures are in tests/bench ---- */

Test(dispatch, thirty_five_thousand_jobs_through_eight_workers)
{
    plan(31, 226, 5);
    start();
    int64_t start_ns = clock_mono_ns();
    for (int i = 0; i < 8; i++)
        join(arena_printf(&arena, "w%d", i), 2);
    int64_t done = 0;
    bool is_more = true;
    while (is_more) {
        struct arena a = {0};
        struct slice s[16];
        int n = 0;
        begin();
        for (bool found = true; found && n < 16;) {
            OK(dispatch_next(dispatch, now_ns, &a, &s[n], &found, &err));
            n += found;
        }
        commit();
        begin();
        for (int k = 0; k < n; k++) {
            for (int i = 0; i < s[k].n_jobs; i++) {
                const struct job *j = &s[k].jobs[i];
                struct job_result r = fixture_result(&a, j->eval.task, 0.5);
                enum verdict v = VERDICT_FENCED;
                OK(dispatch_result(dispatch,
                                   &(struct dispatch_ref){s[k].session, j->id, j->attempt}, &r,
                                   &no_samples, now_ns, &v, &err));
                done += v == VERDICT_ACCEPTED;
            }
            dispatch_credit(dispatch, s[k].session, 1);
        }
        commit();
        is_more = n > 0;
        arena_release(&a);
    }
    double seconds = clock_seconds_since(start_ns);
    cr_expect_eq(done, 35030);
    cr_expect_eq(count_state("done"), 35030);
    cr_expect(seconds < 60);
    cr_log_info("%.2f s, %.0f jobs/s", seconds, 35030 / seconds);
}
