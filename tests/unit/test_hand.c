#include <criterion/criterion.h>
#include <string.h>

#include "worker/hand.h"

static struct hand h;
static struct err e;

static void empty(void)
{
    hand_release(&h);
}

TestSuite(hand, .fini = empty);

/* Two jobs of model `name`: (first, 1) and (first + 1, 1). */
static enum err_code lease(int64_t slice, const char *name, int64_t first)
{
    json_t *body = json_pack("{s:I, s:{s:s}, s:[{s:i}], s:[{s:s}, {s:s}], s:[[I,i,i,i],[I,i,i,i]]}",
                             "slice", (json_int_t)slice, "model", "name", name, "configs", "k", 4,
                             "evals", "task", "piqa", "task", "lambada", "jobs", (json_int_t)first,
                             1, 0, 0, (json_int_t)first + 1, 1, 0, 1);
    enum err_code rc = hand_lease(&h, body, &e);
    json_decref(body);
    return rc;
}

static enum err_code lease_text(const char *text)
{
    json_t *body = NULL;
    cr_assert_eq(json_parse(str_of(text), "test", &body, &e), ERR_OK, "%s", e.text);
    enum err_code rc = hand_lease(&h, body, &e);
    json_decref(body);
    return rc;
}

Test(hand, jobs_run_in_the_order_they_came)
{
    cr_assert_eq(lease(1, "m", 10), ERR_OK);
    cr_assert_eq(lease(2, "m", 20), ERR_OK);
    const int64_t order[] = {10, 11, 20, 21};
    for (size_t i = 0; i < ARRAY_LEN(order); i++) {
        struct hand_job *j = hand_next_waiting(&h);
        cr_assert_eq(j->job, order[i]);
        j->state = HAND_RUNNING;
        cr_expect_eq(hand_running(&h), j);
        hand_answer_fail(j, ERR_IO, "x");
    }
    cr_expect_null(hand_next_waiting(&h));
    cr_expect_null(hand_running(&h));
}

Test(hand, start_carries_what_the_child_needs)
{
    cr_assert_eq(lease(1, "m", 10), ERR_OK);
    const json_t *start = hand_find(&h, 11, 1)->start;
    cr_expect_eq(json_opt_int(start, "job", 0), 11);
    cr_expect_str_eq(json_opt_str(json_object_get(start, "eval"), "task", ""), "lambada");
    cr_expect_eq(json_opt_int(json_object_get(start, "config"), "k", 0), 4);
    cr_expect_str_eq(json_opt_str(json_object_get(start, "model"), "name", ""), "m");
}

Test(hand, answers_stay_until_acknowledged)
{
    cr_assert_eq(lease(1, "m", 10), ERR_OK);
    cr_expect_not(hand_settle(&h, 10, 1), "a waiting job cannot be settled");
    hand_answer_return(hand_find(&h, 10, 1), "drain", "bye");
    cr_expect_not(hand_settle(&h, 10, 2), "another attempt's ACK is not ours");
    cr_expect_eq(h.n, 2);
    cr_expect(hand_settle(&h, 10, 1));
    cr_expect_not(hand_settle(&h, 10, 1));
    cr_expect_eq(h.n, 1);
    cr_expect_not_null(hand_find(&h, 11, -1));
}

Test(hand, lease_that_comes_twice_counts_once)
{
    cr_assert_eq(lease(1, "m", 10), ERR_OK);
    cr_assert_eq(lease(1, "m", 10), ERR_OK);
    cr_expect_eq(h.n, 2);
}

Test(hand, slices_close_when_all_their_jobs_are_answered)
{
    cr_assert_eq(lease(1, "m", 10), ERR_OK);
    cr_assert_eq(lease(2, "m", 20), ERR_OK);
    cr_expect_eq(hand_open_slices(&h), 2);
    hand_answer_fail(hand_find(&h, 10, 1), ERR_IO, "x");
    cr_expect_eq(hand_open_slices(&h), 2);
    hand_answer_fail(hand_find(&h, 11, 1), ERR_IO, "x");
    cr_expect_eq(hand_open_slices(&h), 1);
}

Test(hand, missing_checkpoint_returns_its_waiting_jobs_only)
{
    cr_assert_eq(lease(1, "gone", 10), ERR_OK);
    cr_assert_eq(lease(2, "here", 20), ERR_OK);
    struct hand_job *j = hand_next_waiting(&h);
    j->state = HAND_RUNNING;
    hand_return_missing(&h, j, WIRE_LACK_CHECKPOINT, ERR_NOTFOUND, "no files");
    cr_expect_eq(hand_find(&h, 10, 1)->state, HAND_RUNNING);
    cr_expect_eq(hand_find(&h, 11, 1)->state, HAND_ANSWERED);
    cr_expect_eq(hand_find(&h, 20, 1)->state, HAND_WAITING);
    const json_t *body = hand_find(&h, 11, 1)->body;
    cr_expect_str_eq(json_opt_str(body, "reason", ""), "missing");
}

Test(hand, missing_data_return_waiting_jobs_of_that_evaluation_only)
{
    cr_assert_eq(lease(1, "m", 10), ERR_OK);
    cr_assert_eq(lease(2, "n", 20), ERR_OK);
    struct hand_job *j = hand_next_waiting(&h);
    hand_answer_missing(j, WIRE_LACK_DATA, ERR_NOTFOUND, "no file");
    hand_return_missing(&h, j, WIRE_LACK_DATA, ERR_NOTFOUND, "no file");
    cr_expect_eq(hand_find(&h, 11, 1)->state, HAND_WAITING);
    cr_expect_eq(hand_find(&h, 20, 1)->state, HAND_ANSWERED);
    cr_expect_str_eq(json_opt_str(hand_find(&h, 20, 1)->body, "lacks", ""), "data");
    cr_expect_eq(hand_find(&h, 21, 1)->state, HAND_WAITING);
    j = hand_next_waiting(&h);
    hand_answer_missing(j, WIRE_LACK_CONFIGURATION, ERR_NOMEM, "too large");
    hand_return_missing(&h, j, WIRE_LACK_CONFIGURATION, ERR_NOMEM, "too large");
    cr_expect_eq(hand_find(&h, 21, 1)->state, HAND_WAITING);
}

Test(hand, jobs_that_failed_together_are_halved_until_each_runs_alone)
{
    cr_assert_eq(lease(1, "m", 10), ERR_OK);
    cr_assert_eq(lease(2, "m", 20), ERR_OK);
    cr_assert_eq(lease(3, "m", 30), ERR_OK);
    const int sizes[] = {5, 2, 2, 1}, halves[] = {2, 1, 1, 1};
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        for (int j = 0; j < sizes[i]; j++)
            h.v[j].state = HAND_RUNNING;
        cr_expect_eq(hand_split_running(&h), sizes[i]);
        cr_expect_null(hand_running(&h));
        for (int j = 0; j < sizes[i]; j++)
            cr_expect_eq(h.v[j].share_max, halves[i], "%zu %d", i, j);
    }
    cr_expect_eq(hand_find(&h, 31, 1)->share_max, 0, "it never ran");
}

Test(hand, held_names_everything)
{
    cr_assert_eq(lease(1, "m", 10), ERR_OK);
    hand_answer_fail(hand_find(&h, 10, 1), ERR_IO, "\xff not UTF-8");
    json_t *held = hand_held_json(&h), *expected = json_pack("[[i,i],[i,i]]", 10, 1, 11, 1);
    cr_expect(json_equal(held, expected));
    json_decref(held);
    json_decref(expected);
}

Test(hand, malformed_leases_add_nothing)
{
    static const char *const bad[] = {
        "{}",
        "{\"slice\":1,\"model\":{},\"configs\":[],\"evals\":[]}",
        "{\"slice\":1,\"model\":[],\"configs\":[],\"evals\":[],\"jobs\":[]}",
        "{\"slice\":1,\"model\":{},\"configs\":[{}],\"evals\":[{}],\"jobs\":[[1,1,0,0],[2,1,1,0]]}",
        "{\"slice\":1,\"model\":{},\"configs\":[{}],\"evals\":[{}],\"jobs\":[[1,1,0,0],[2,1,0,-1]]"
        "}",
        "{\"slice\":1,\"model\":{},\"configs\":[{}],\"evals\":[{}],\"jobs\":[[1,1,0,0],[2,1,0]]}",
        "{\"slice\":1,\"model\":{},\"configs\":[{}],\"evals\":[{}],\"jobs\":[[1,1,0,0],7]}",
        "{\"slice\":1,\"model\":{},\"configs\":[{}],\"evals\":[{}],\"jobs\":[[1,1,0,0],[\"2\",1,0,"
        "0]]}",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        cr_expect_eq(lease_text(bad[i]), ERR_FORMAT, "%s", bad[i]);
        cr_expect_eq(h.n, 0, "%s", bad[i]);
    }
}
