#include <criterion/criterion.h>
#include <string.h>

#include "coordinator/plan.h"
#include "coordinator/rows.h"
#include "coordinator/why.h"
#include "schema/store_work.h"
#include "tests/support/support.h"

static const char spec[] = "name: s\n"
                           "compute: fp16\n"
                           "models: [{family: pythia, sizes: s0, path: /nowhere/pythia-s0}]\n"
                           "configurations: [{k: 16}]\n"
                           "evaluations: [{task: lambada, data: /nowhere/lambada.jsonl}]\n";

struct story {
    char *dir, *db;
    struct store *s;
    struct arena a;
};

static struct story open_story(void)
{
    struct story t = {.dir = support_tmpdir()};
    struct sweep sw;
    struct plan_counts n = {0};
    struct err e;
    char *path = xasprintf("%s/s.yaml", t.dir);
    t.db = xasprintf("%s/s.db", t.dir);
    support_write(path, spec, strlen(spec));
    cr_assert_eq(sweep_load(path, &t.a, &sw, &e), ERR_OK, "%s", e.text);
    cr_assert_eq(plan_submit(&sw, t.db, 0, &n, &e), ERR_OK, "%s", e.text);
    cr_assert_eq(store_open(t.db, STORE_WRITE, &t.s, &e), ERR_OK, "%s", e.text);
    xfree(path);
    return t;
}

static void close_story(struct story *t)
{
    store_close(t->s);
    arena_release(&t->a);
    xfree(t->db);
    support_tmpdir_remove(t->dir);
}

static void add_worker(struct story *t, const char *computes)
{
    struct err e;
    int64_t id = 0;
    const struct store_worker w = {.uuid = "0123456789abcdef0123456789abcdef",
                                   .public_key = "",
                                   .host = "node1",
                                   .device = "cpu",
                                   .program = "p",
                                   .computes = computes};
    cr_assert_eq(store_worker_hello(t->s, &w, &id, &e), ERR_OK, "%s", e.text);
}

static void expect_said(struct story *t, bool is_served, const char *words)
{
    struct why x;
    struct err e;
    json_t *jobs = NULL, *sentences = json_array();
    cr_assert_eq(why_open(&x, t->s, t->db, is_served, NULL, &e), ERR_OK, "%s", e.text);
    cr_assert_eq(rows_query(t->s, "SELECT " WHY_COLUMNS " FROM jobs", NULL, 0, &jobs, &e), ERR_OK);
    cr_assert_eq(why_add_failures(&x, json_array_get(jobs, 0), &e), ERR_OK, "%s", e.text);
    cr_assert_eq(why_pending(&x, json_array_get(jobs, 0), sentences, &e), ERR_OK, "%s", e.text);
    char *text = json_dumps(sentences, 0);
    cr_expect(strstr(text, words) != NULL, "%s: %s", words, text);
    free(text);
    json_decref(jobs);
    json_decref(sentences);
    why_close(&x);
}

Test(why, nobody_serves)
{
    struct story t = open_story();
    expect_said(&t, false, "nothing serves this database");
    close_story(&t);
}

Test(why, no_worker_is_here)
{
    struct story t = open_story();
    expect_said(&t, true, "no worker is connected");
    close_story(&t);
}

Test(why, a_worker_lacks_the_arithmetic)
{
    struct story t = open_story();
    add_worker(&t, "fp32,bf16");
    expect_said(&t, true, "worker 01234567 on node1 does not compute in fp16");
    expect_said(&t, true, "none of the 1 live workers can take it");
    close_story(&t);
}

Test(why, it_waits_for_its_turn)
{
    struct story t = open_story();
    add_worker(&t, "fp32,fp16");
    expect_said(&t, true, "it waits for its turn");
    close_story(&t);
}
