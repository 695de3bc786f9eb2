/* Which job dispatch gives to which worker, and how many at a time. */
#include "tests/support/dispatch_lab.h"

DISPATCH_SUITE(dispatch_place);

static void set_params(void)
{
    OK(store_exec(store, "UPDATE model SET n_params = id * 1000000", &err));
}

Test(dispatch_place, largest_checkpoint_first_baseline_first_and_workers_spread)
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

Test(dispatch_place, slices_grow_to_the_target_and_shrink_at_the_end)
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

Test(dispatch_place, priority_wins_over_the_loaded_checkpoint)
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

Test(dispatch_place, jobs_wait_for_a_worker_that_can_compute_and_hold_them)
{
    plan(2, 2, 5);
    OK(store_exec(store, "UPDATE model SET n_params = 100000000000 WHERE id = 2", &err));
    OK(store_exec(store, "UPDATE config SET compute = 'fp16' WHERE id = 2", &err));
    start();
    join("small", 10);
    struct worker_hello h = hello_of("large");
    h.memory_bytes = (int64_t)2 << 40;
    h.computes = 1u << COMPUTE_FP32 | 1u << COMPUTE_FP16;
    int64_t large = greet(&h);
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
Test(dispatch_place, a_worker_that_leaves_gets_no_job_it_cannot_finish)
{
    plan(1, 8, 5);
    start();
    int64_t a = join("a", 4);
    struct slice s;
    for (int round = 0; round < 2; round++) { /* two configurations measure: 8 s a job */
        cr_assert(next(&s));
        for (int i = 0; i < s.n_jobs; i++) {
            struct job_result r = fixture_result(&arena, s.jobs[i].eval.task, 0.5);
            r.seconds = 8;
            cr_assert_eq(report(a, &s.jobs[i], &r), VERDICT_ACCEPTED);
        }
    }
    struct worker_hello h = hello_of("b");
    h.left_s = 20;
    int64_t b = greet(&h);
    dispatch_credit(dispatch, b, 8);
    begin();
    OK(dispatch_bye(dispatch, a, &err));
    commit();
    int n = 0;
    while (next(&s))
        n += s.n_jobs;
    cr_expect_eq(n, 2, "%d jobs of 8 s for 20 s", n);
    h.left_s = 0; /* its time was extended */
    b = greet(&h);
    dispatch_credit(dispatch, b, 8);
    cr_expect(next(&s), "without an end it gets the rest");
}

/* A job of two sweeps may run as long as the more patient of them says. */
Test(dispatch_place, a_slice_names_the_longest_time_a_job_may_run)
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

Test(dispatch_place, out_of_memory_is_tried_again_on_a_larger_device_only)
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
        session[i] = greet(&h);
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

Test(dispatch_place, what_fits_nobody_is_given_to_somebody)
{
    plan(1, 1, 5);
    OK(store_exec(store, "UPDATE model SET n_params = 100000000000000", &err));
    start();
    join("a", 1);
    struct slice s;
    cr_expect(next(&s), "it may stream the checkpoint, or says that it cannot");
}
