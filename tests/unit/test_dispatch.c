/* What dispatch promises: the invariants I1..I5 of dispatch.h, changes by people, counts, and scale. */
#include "tests/support/dispatch_lab.h"

DISPATCH_SUITE(dispatch);

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
    cr_expect_eq(dispatch_credit_left(dispatch, a), 1);
    cr_expect(next(&s));
    cr_expect_not(next(&s));
    cr_expect_eq(dispatch_credit_left(dispatch, a), 0);
    dispatch_credit(dispatch, a, 3);
    hello("a");
    cr_expect_eq(dispatch_credit_left(dispatch, a), 0);
    cr_expect_not(next(&s), "a new HELLO starts without credit");
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
