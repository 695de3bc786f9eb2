/* Dispatch when something goes wrong: jobs, files and devices that fail, restarts and reconnects, a full disk. */
#include "tests/support/dispatch_lab.h"

#include <string.h>

DISPATCH_SUITE(dispatch_fail);

/* ---- failures ---- */

Test(dispatch_fail, a_failing_job_is_retried_and_then_buried)
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

Test(dispatch_fail, a_failed_job_goes_to_another_worker_when_there_is_one)
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

Test(dispatch_fail, absent_files_exclude_the_checkpoint_for_that_worker_only)
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

/* Jobs of a slice that are not settled otherwise get their results. */
static void finish(int64_t session, const struct slice *s, int from)
{
    for (int i = from; i < s->n_jobs; i++)
        cr_expect_eq(result(session, &s->jobs[i]), VERDICT_ACCEPTED);
}

Test(dispatch_fail, absent_data_exclude_the_evaluation_for_that_worker_only)
{
    plan(2, 3, 3);
    start();
    int64_t a = join("a", 60);
    struct slice s;
    cr_assert(next(&s));
    const enum task absent = s.jobs[0].eval.task;
    cr_expect_eq(lack(a, &s.jobs[0], WIRE_LACK_DATA, ERR_NOTFOUND), VERDICT_ACCEPTED);
    finish(a, &s, 1);
    while (next(&s)) {
        for (int i = 0; i < s.n_jobs; i++)
            cr_expect_neq(s.jobs[i].eval.task, absent);
        finish(a, &s, 0);
    }
    cr_expect_eq(count_state("done"), 12, "both checkpoints go on");
    json_t *workers = dispatch_workers_json(dispatch, now_ns);
    const json_t *lacks = json_object_get(json_array_get(workers, 0), "lacks");
    cr_assert_eq(json_array_size(lacks), 1);
    cr_expect_str_eq(json_string_value(json_array_get(lacks, 0)), task_label(absent));
    json_decref(workers);
    cr_expect_eq(ask("SELECT sum(failures) FROM job"), 0);
    cr_expect_eq(ask("SELECT count(*) FROM refusal"), 0);
    cr_expect_eq(ask("SELECT count(*) FROM failures WHERE outcome = 'returned'"), 1);
    int64_t b = join("b", 60);
    while (next(&s))
        finish(b, &s, 0);
    cr_expect_eq(count_state("done"), 18);
}

Test(dispatch_fail, a_configuration_that_does_not_fit_excludes_its_job_for_that_worker_only)
{
    plan(1, 3, 3);
    start();
    int64_t a = join("a", 60);
    struct slice s;
    cr_assert(next(&s));
    const int64_t job = s.jobs[0].id;
    lack(a, &s.jobs[0], WIRE_LACK_CONFIGURATION, ERR_NOMEM);
    finish(a, &s, 1);
    while (next(&s))
        finish(a, &s, 0);
    cr_expect_eq(count_state("done"), 8);
    cr_expect_eq(ask("SELECT sum(failures) FROM job"), 0);
    int64_t b = join("b", 1);
    cr_assert(next(&s), "a worker with as much memory may try");
    cr_expect_eq(s.session, b);
    cr_expect_eq(s.jobs[0].id, job);
}

Test(dispatch_fail, a_worker_can_lack_a_great_many_jobs)
{
    plan(1, 40, 5);
    start();
    int64_t a = join("a", 60);
    struct slice s;
    int n = 0;
    for (; next(&s); dispatch_credit(dispatch, a, 1))
        for (int i = s.n_jobs - 1; i >= 0; i--)
            n += lack(a, &s.jobs[i], WIRE_LACK_CONFIGURATION, ERR_NOMEM) == VERDICT_ACCEPTED;
    cr_expect_eq(n, 200, "each once");
    cr_expect_eq(count_state("pending"), 200);
}

Test(dispatch_fail, other_data_than_the_pinned_exclude_the_evaluation_only)
{
    plan(1, 3, 2);
    start();
    int64_t a = join("a", 60), b = join("b", 0);
    struct slice s;
    cr_assert(next(&s));
    cr_expect_eq(s.session, a);
    finish(a, &s, 0);
    hello("a"); /* and it asks for no more */
    dispatch_credit(dispatch, b, 60);
    cr_assert(next(&s));
    cr_expect_eq(s.session, b);
    const enum task other = s.jobs[0].eval.task;
    struct job_result r = fixture_result(&arena, other, 0.5);
    memset(r.data_sha256, 'f', 64);
    enum verdict v = VERDICT_ACCEPTED;
    begin();
    cr_expect_eq(dispatch_result(dispatch,
                                 &(struct dispatch_ref){b, s.jobs[0].id, s.jobs[0].attempt}, &r,
                                 &no_samples, now_ns, &v, &err),
                 ERR_DENIED);
    commit();
    cr_expect_eq(v, VERDICT_OTHER_DATA);
    finish(b, &s, 1);
    int n = 0;
    while (next(&s)) {
        for (int i = 0; i < s.n_jobs; i++)
            cr_expect_neq(s.jobs[i].eval.task, other);
        finish(b, &s, 0);
        n++;
    }
    cr_expect_gt(n, 0, "the checkpoint's other evaluation goes on");
    cr_expect_eq(ask("SELECT count(*) FROM refusal"), 0);
}

Test(dispatch_fail, other_weights_than_the_pinned_ones_are_refused)
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

/* The remedy that the refusal names works at once, without a reconnect; what is simply absent stays refused. */
static void check_pardon(bool is_data)
{
    plan(1, 2, 2);
    start();
    int64_t a = join("a", 1), b = 0;
    struct slice s, own;
    cr_assert(next(&own));
    cr_expect_eq(result(a, &own.jobs[0]), VERDICT_ACCEPTED);
    cr_expect_eq(result(a, &own.jobs[1]), VERDICT_ACCEPTED);
    b = join("b", 1);
    cr_assert(next(&s));
    struct job_result r = fixture_result(&arena, s.jobs[0].eval.task, 0.5);
    memset(is_data ? r.data_sha256 : r.weights_sha256, 'f', 64);
    const struct dispatch_ref at = {b, s.jobs[0].id, s.jobs[0].attempt};
    enum verdict v = VERDICT_ACCEPTED;
    begin();
    cr_expect_eq(dispatch_result(dispatch, &at, &r, &no_samples, now_ns, &v, &err), ERR_DENIED);
    commit();
    lack(b, &s.jobs[1], WIRE_LACK_CONFIGURATION, ERR_NOMEM);
    dispatch_credit(dispatch, b, 1);
    cr_assert_not(next(&own), "what is pinned, or does not fit, keeps the rest from b");
    take_back();
    cr_expect_eq(ask("SELECT count(*) FROM refusal"), 0);
    cr_assert(next(&own));
    cr_expect_eq(own.session, b);
    cr_expect_eq(own.n_jobs, 2, "both evaluations");
    for (int i = 0; i < own.n_jobs; i++)
        cr_expect_neq(own.jobs[i].id, s.jobs[1].id);
    r = fixture_result(&arena, own.jobs[0].eval.task, 0.5);
    memset(is_data ? r.data_sha256 : r.weights_sha256, 'f', 64);
    cr_expect_eq(report(b, &own.jobs[0], &r), VERDICT_ACCEPTED);
}

Test(dispatch_fail, results_taken_back_let_other_weights_in)
{
    check_pardon(false);
}

Test(dispatch_fail, results_taken_back_let_other_data_in)
{
    check_pardon(true);
}

Test(dispatch_fail, a_result_without_identity_is_a_failed_attempt)
{
    static const char *const parts[] = {"weights", "data", "tokenizer", "program", "device"};
    plan(1, 1, ARRAY_LEN(parts));
    start();
    int64_t a = join("a", 1);
    struct slice s;
    cr_assert(next(&s));
    cr_assert_eq(s.n_jobs, ARRAY_LEN(parts));
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        struct job_result r = fixture_result(&arena, s.jobs[i].eval.task, 0.5);
        char *const hashes[] = {r.weights_sha256, r.data_sha256, r.tokenizer_sha256};
        if (i < ARRAY_LEN(hashes))
            hashes[i][0] = '\0';
        else if (i == 3)
            r.program = "";
        else
            r.device = "";
        cr_expect_eq(report(a, &s.jobs[i], &r), VERDICT_ACCEPTED);
        cr_expect_eq(ask(arena_printf(&arena,
                                      "SELECT count(*) FROM failures WHERE job = %lld AND code = "
                                      "'FORMAT' AND text LIKE '%%no identity of its %s'",
                                      (long long)s.jobs[i].id, parts[i])),
                     1, "%s", parts[i]);
    }
    cr_expect_eq(ask("SELECT sum(failures) FROM job"), ARRAY_LEN(parts));
    cr_expect_eq(count_state("done"), 0);
}

Test(dispatch_fail, another_numerics_version_is_refused)
{
    start();
    struct worker_hello h = hello_of("a");
    h.numerics++;
    int64_t session = 0;
    cr_expect_eq(dispatch_hello(dispatch, &h, now_ns, &session, &err), ERR_VERSION);
}

/* ---- restarts and reconnects ---- */

Test(dispatch_fail, leases_survive_a_restart_of_the_coordinator)
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
    int64_t session = greet(&h);
    cr_expect_eq(dispatch_in_hand(dispatch, session), s.n_jobs - 1);
    cr_expect_eq(result(session, &s.jobs[0]), VERDICT_ACCEPTED);
    cr_expect_eq(result(session, &s.jobs[s.n_jobs - 1]), VERDICT_FENCED,
                 "it did not name that one");
    cr_expect_eq(ask("SELECT sum(failures) FROM job"), 0);
}

Test(dispatch_fail, leases_of_a_former_process_end_without_cost_when_nobody_returns)
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

Test(dispatch_fail, a_reconnecting_worker_keeps_its_session_and_is_told_what_it_lost)
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

Test(dispatch_fail, a_rolled_back_group_can_be_handled_again)
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

/* ---- faults ---- */

/* A disk that fills up at any point: after the rollback the same step works, and nothing was lost or counted twice. */
Test(dispatch_fail, a_full_disk_at_any_step_is_survived)
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
