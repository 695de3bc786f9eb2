/* From the last layer to answers. A head that stands on the device as a whole serves unit after unit; one that comes in parts
 * serves all units part by part, and what is known of their rows lives on between the parts. */
#include "worker/model/stream_answers.h"

#include "base/mem.h"
#include "worker/model/model_answer.h"
#include "worker/model/stream_config.h"
#include "worker/model/stream_tables.h"

/* Lists of the unit's batch; *n_rows are asked for. */
static enum err_code list_unit(struct stream_run *r, int64_t unit, struct model_batch *b,
                               struct model_answer **answers, int64_t *T, int64_t *n_rows,
                               struct err *e)
{
    r->p->build(r->p->arg, unit, b, answers);
    r->m->ws = r->base; /* answers take room for a whole batch beside x */
    r->m->ws.x = r->places[unit].ws.x;
    TRY(model_lay_out(r->m, b, T, e));
    return model_sort_targets(r->m, b, *T, n_rows, e);
}

/* ---- the whole head ---- */

static enum err_code answer_unit(struct stream_run *r, int64_t unit, struct err *e)
{
    struct model *m = r->m;
    struct model_batch b;
    struct model_answer *answers;
    int64_t T, n_rows, n_refs;
    const void *hidden;
    TRY(list_unit(r, unit, &b, &answers, &T, &n_rows, e));
    if (n_rows > 0) {
        TRY(model_hidden(m, m->lists->rows, n_rows, T, &hidden, e));
        TRY(model_answer(m, &b, hidden, n_rows, &n_refs, e));
        TRY(kern_sync(m->k, e));
        model_deliver(m->lists, &b, n_refs, answers);
    }
    TRY(r->p->take(r->p->arg, unit, e));
    return stream_step_done(r, e);
}

static enum err_code answer_whole(struct stream_run *r, struct err *e)
{
    int config = -1;
    TRY(stream_head(r->m, 0, r->m->wiring.vocab, e));
    for (int64_t i = 0; i < r->p->n_units; i++) {
        TRY(stream_small_for(r, i, &config, e));
        TRY(answer_unit(r, i, e));
    }
    return ERR_OK;
}

/* ---- a head in parts ---- */

/* The final hidden states take the place of the unit's activations, which nobody reads any more. */
static enum err_code keep_hidden(struct stream_run *r, int64_t unit, struct model_head_part *kept,
                                 struct err *e)
{
    static const char what[] = "what is known of logits between parts of the head";
    struct model *m = r->m;
    struct model_batch b;
    struct model_answer *unused;
    int64_t T, n_rows;
    const void *hidden;
    TRY(list_unit(r, unit, &b, &unused, &T, &n_rows, e));
    if (n_rows == 0)
        return ERR_OK;
    TRY(model_hidden(m, m->lists->rows, n_rows, T, &hidden, e));
    const int64_t rows = model_step_rows(m, n_rows);
    const struct kern_rows_args copy = {
        .y = m->ws.x, .x = hidden, .n = rows, .d = m->wiring.d_embed};
    TRY(kern_copy_rows(m->k, &copy, e));
    TRY(kern_alloc(m->k, (size_t)kern_head_bytes(m->k, m->wiring.vocab, rows, b.n_targets), what,
                   &kept->score.state, e));
    /* Targets that share a row may each have a reference, and then are rows of their own. */
    if (b.compare != NULL)
        TRY(kern_alloc(m->k, (size_t)kern_head_bytes(m->k, m->wiring.vocab, b.n_targets, 0), what,
                       &kept->kl.state, e));
    return ERR_OK;
}

/* Queues the part, and behind the last one waits: only then something comes to the host. */
static enum err_code answer_part(struct stream_run *r, int64_t unit, struct model_head_part *kept,
                                 int64_t first, int64_t n, struct err *e)
{
    struct model *m = r->m;
    struct model_batch b;
    struct model_answer *answers;
    int64_t T, n_rows, n_refs = 0;
    const bool is_last = first + n == m->wiring.vocab;
    TRY(list_unit(r, unit, &b, &answers, &T, &n_rows, e));
    kept->score.first = kept->kl.first = first;
    kept->score.n = kept->kl.n = n;
    if (first > 0)
        b.record = NULL; /* once, in front of whoever compares with it in this pass */
    if (n_rows > 0) {
        m->part = kept;
        enum err_code rc = model_answer(m, &b, m->ws.x, n_rows, &n_refs, e);
        m->part = NULL;
        TRY(rc);
    }
    if (is_last) {
        TRY(kern_sync(m->k, e));
        model_deliver(m->lists, &b, n_refs, answers);
        TRY(r->p->take(r->p->arg, unit, e));
    }
    return stream_step_done(r, e);
}

static enum err_code answer_parts(struct stream_run *r, struct model_head_part *kept, struct err *e)
{
    const int64_t V = r->m->wiring.vocab, step = r->s->window.plan.head_rows;
    int config = -1;
    for (int64_t i = 0; i < r->p->n_units; i++) {
        TRY(stream_small_for(r, i, &config, e));
        TRY(keep_hidden(r, i, &kept[i], e));
    }
    for (int64_t first = 0; first < V; first += step) {
        const int64_t n = V - first < step ? V - first : step;
        TRY(stream_head(r->m, first, n, e));
        for (int64_t i = 0; i < r->p->n_units; i++)
            TRY(answer_part(r, i, &kept[i], first, n, e));
    }
    return ERR_OK;
}

enum err_code stream_answers(struct stream_run *r, struct err *e)
{
    if (r->s->window.plan.head_rows >= r->m->wiring.vocab)
        return answer_whole(r, e);
    struct model_head_part *kept = xcalloc((size_t)r->p->n_units, sizeof *kept);
    enum err_code rc = answer_parts(r, kept, e);
    for (int64_t i = 0; i < r->p->n_units; i++) {
        kern_free(r->m->k, kept[i].score.state);
        kern_free(r->m->k, kept[i].kl.state);
    }
    xfree(kept);
    return rc;
}
