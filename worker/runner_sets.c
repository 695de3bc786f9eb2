/* Evaluations ready to run: sets of items, made here or ahead, packed for the checkpoint in force. */
#include <string.h>

#include "worker/runner_impl.h"

/* What depends on the model, of one evaluation. */
static void unpack(struct runner *r, struct prepared *p)
{
    model_ref_free(r->model, p->ref);
    p->ref = NULL;
    pack_release(&p->pack);
    p->is_packed = false;
}

static void drop(struct runner *r, struct prepared *p)
{
    unpack(r, p);
    eval_set_release(&p->set);
    xfree(p->key);
}

void runner_unpack(struct runner *r)
{
    for (int i = 0; i < r->n_prepared; i++)
        unpack(r, &r->prepared[i]);
}

void runner_drop_sets_ahead(struct runner *r)
{
    eval_ahead_stop(r->ahead.sets);
    r->ahead.sets = NULL;
}

void runner_drop_prepared(struct runner *r)
{
    for (int i = 0; i < r->n_prepared; i++)
        drop(r, &r->prepared[i]);
    r->n_prepared = 0;
    runner_drop_sets_ahead(r);
}

/* Room for one more prepared evaluation; the oldest makes place. */
static struct prepared *new_prepared(struct runner *r)
{
    if (r->n_prepared == MAX_PREPARED) {
        drop(r, &r->prepared[0]);
        r->n_prepared--;
        memmove(r->prepared, r->prepared + 1, (size_t)r->n_prepared * sizeof(*r->prepared));
    }
    struct prepared *p = &r->prepared[r->n_prepared];
    *p = (struct prepared){0};
    return p;
}

struct prepared *runner_find_prepared(struct runner *r, const struct eval_spec *ev)
{
    char *key = eval_set_key(ev);
    struct prepared *found = NULL;
    for (int i = 0; i < r->n_prepared && found == NULL; i++)
        if (strcmp(r->prepared[i].key, key) == 0)
            found = &r->prepared[i];
    xfree(key);
    return found;
}

static enum err_code find_or_load(struct runner *r, const struct eval_spec *ev,
                                  struct prepared **out, struct err *e)
{
    *out = runner_find_prepared(r, ev);
    if (*out != NULL)
        return ERR_OK;
    struct prepared *p = new_prepared(r);
    struct eval_source src = {.spec = ev,
                              .tok = r->tok,
                              .context = r->set_context,
                              .progress = runner_tell_progress,
                              .progress_arg = r};
    if (!eval_ahead_take(r->ahead.sets, ev, &p->set)) {
        const enum err_code rc = eval_load(&src, &p->set, e);
        if (rc == ERR_NOTFOUND)
            r->lacks = WIRE_LACK_DATA;
        TRY(rc);
    }
    p->key = eval_set_key(ev);
    r->n_prepared++;
    *out = p;
    return ERR_OK;
}

enum err_code runner_prepare(struct runner *r, const struct eval_spec *ev, struct prepared **out,
                             struct err *e)
{
    TRY(find_or_load(r, ev, out, e));
    struct prepared *p = *out;
    if (p->is_packed)
        return ERR_OK;
    TRY(pack_make(&p->set, model_max_tokens(r->model), &p->pack, e));
    p->is_packed = true;
    return ERR_OK;
}
