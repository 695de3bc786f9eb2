/* Story: evaluations tokenized ahead on a thread of their own are those that a job would have made itself; one that fails is
 * left to its job, and the thread ends at any moment. A plain program, because Criterion and the thread sanitizer do not run
 * together. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "tests/support/cluster.h"
#include "tests/support/support.h"
#include "worker/eval/ahead.h"

enum { CONTEXT = 512, EVALS = 4, ROUNDS = 30 };

struct story {
    char *dir; /* of the tokenizer */
    struct tok *tok;
    struct eval_spec evals[EVALS];
    char *paths[EVALS];
};

static void open_story(struct story *s)
{
    static const struct {
        enum task task;
        const char *file;
    } rows[EVALS] = {{TASK_hellaswag, "hellaswag.jsonl"},
                     {TASK_lambada, "no-such-file.jsonl"},
                     {TASK_winogrande, "winogrande.jsonl"},
                     {TASK_lambada, "lambada.jsonl"}};
    struct err e;
    s->dir = xstrdup(support_source("sweeps/demo/models/pythia-s0"));
    CHECK(tok_open(s->dir, &s->tok, &e) == ERR_OK);
    for (int i = 0; i < EVALS; i++) {
        s->paths[i] = xasprintf("%s/%s", support_source("sweeps/demo/tasks"), rows[i].file);
        s->evals[i] = (struct eval_spec){.name = "e",
                                         .task = rows[i].task,
                                         .data = rows[i].file,
                                         .data_path = s->paths[i],
                                         .join = JOIN_H26};
    }
}

static void close_story(struct story *s)
{
    for (int i = 0; i < EVALS; i++)
        xfree(s->paths[i]);
    tok_close(s->tok);
    xfree(s->dir);
}

static bool is_same(const struct eval_set *a, const struct eval_set *b)
{
    return a->n_requests == b->n_requests && a->n_items == b->n_items &&
           a->tokens.n == b->tokens.n &&
           memcmp(a->tokens.v, b->tokens.v, (size_t)a->tokens.n * sizeof(*a->tokens.v)) == 0 &&
           memcmp(a->requests, b->requests, (size_t)a->n_requests * sizeof(*a->requests)) == 0 &&
           strcmp(a->items_sha256, b->items_sha256) == 0;
}

/* The set of evals[i] when it was there, and then the job's own. */
static bool is_taken(struct story *s, struct eval_ahead *a, int i)
{
    struct eval_set ahead, own;
    struct err e;
    const struct eval_source src = {.spec = &s->evals[i], .tok = s->tok, .context = CONTEXT};
    if (!eval_ahead_take(a, &s->evals[i], &ahead))
        return false;
    EXPECT(eval_load(&src, &own, &e) == ERR_OK, "%s", e.text);
    EXPECT(is_same(&ahead, &own), "evaluation %d differs", i);
    EXPECT(!eval_ahead_take(a, &s->evals[i], &own), "evaluation %d was taken twice", i);
    eval_set_release(&ahead);
    eval_set_release(&own);
    return true;
}

static void sets_are_those_of_jobs(struct story *s)
{
    struct eval_ahead *a = eval_ahead_start(s->dir, CONTEXT, s->evals, EVALS);
    CHECK(a != NULL);
    while (eval_ahead_has(a, &s->evals[1])) /* it fails, behind the first */
        usleep(1000);
    EXPECT(is_taken(s, a, 0), "the first was made");
    EXPECT(!is_taken(s, a, 1), "there is no such file");
    is_taken(s, a, 3); /* made, being made, or left to the job */
    is_taken(s, a, 2);
    eval_ahead_stop(a);
}

static void it_ends_at_any_moment(struct story *s)
{
    for (int i = 0; i < ROUNDS; i++) {
        struct eval_set set;
        struct eval_ahead *a = eval_ahead_start(s->dir, CONTEXT, s->evals, EVALS);
        usleep((unsigned)i * 700);
        if (i % 3 == 0 && eval_ahead_take(a, &s->evals[0], &set))
            eval_set_release(&set);
        eval_ahead_stop(a);
    }
    eval_ahead_stop(NULL);
    EXPECT(!eval_ahead_has(NULL, &s->evals[0]), "nothing has nothing");
}

int main(void)
{
    struct story s = {0};
    open_story(&s);
    sets_are_those_of_jobs(&s);
    it_ends_at_any_moment(&s);
    close_story(&s);
    return cluster_failures() > 0;
}
