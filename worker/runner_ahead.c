/* Host work for jobs to come: the device computes this one meanwhile. Nothing here fails; what could not be done ahead is done
 * by its job, which meets the error. */
#include <string.h>

#include "worker/runner_impl.h"

static void forget_evals(struct foresight *f)
{
    arena_release(&f->arena);
    f->arena = (struct arena){0};
    f->n_evals = 0;
}

static void forget_next(struct foresight *f)
{
    ckpt_close(f->next);
    xfree(f->next_key);
    f->next = NULL;
    f->next_key = NULL;
}

/* Takes over `key`. */
static void open_next(struct foresight *f, const struct model_ref *m, char *key)
{
    struct err e; /* its job will tell */
    if (f->next_key != NULL && strcmp(f->next_key, key) == 0) {
        xfree(key);
        return;
    }
    forget_next(f);
    f->next_key = key;
    if (ckpt_open(m, &f->next, &e) == ERR_OK)
        ckpt_identity_start(f->next);
    else
        f->next = NULL;
}

void runner_expect(struct runner *r, const struct job *job, const struct job *next, int n)
{
    struct foresight *f = &r->ahead;
    char *own = runner_model_key(&job->model);
    bool has_other = false;
    forget_evals(f);
    for (int i = 0; i < n && i < RUNNER_MAX_EXPECTED; i++) {
        char *key = runner_model_key(&next[i].model);
        const bool is_own = strcmp(key, own) == 0;
        if (is_own)
            f->evals[f->n_evals++] = eval_spec_copy(&next[i].eval, &f->arena);
        if (is_own || has_other) {
            xfree(key);
            continue;
        }
        open_next(f, &next[i].model, key);
        has_other = true;
    }
    xfree(own);
}

struct ckpt *runner_ahead_take(struct runner *r, const char *key)
{
    struct foresight *f = &r->ahead;
    struct ckpt *c = NULL;
    if (f->next_key != NULL && strcmp(f->next_key, key) == 0) {
        c = f->next;
        f->next = NULL;
        forget_next(f);
    }
    return c;
}

void runner_ahead_begin(struct runner *r)
{
    struct foresight *f = &r->ahead;
    struct eval_spec open[RUNNER_MAX_EXPECTED];
    int n = 0;
    for (int i = 0; i < f->n_evals; i++)
        if (runner_find_prepared(r, &f->evals[i]) == NULL && !eval_ahead_has(f->sets, &f->evals[i]))
            open[n++] = f->evals[i];
    if (n > 0) {
        runner_drop_sets_ahead(r);
        f->sets = eval_ahead_start(ckpt_dir(r->ckpt), r->set_context, open, n);
    }
    forget_evals(f);
}

void runner_ahead_stop(struct runner *r)
{
    runner_drop_sets_ahead(r);
    forget_evals(&r->ahead);
    forget_next(&r->ahead);
}
