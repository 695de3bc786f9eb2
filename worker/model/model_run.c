/* Batches under way: from tokens to queued answers, and from there to the caller; logits of a single
 * sequence. */
#include "worker/model/model_answer.h"
#include "worker/model/model_forward.h"

/* From tokens to queued answers. */
static enum err_code queue(struct model *m, struct flight *f, struct err *e)
{
    const struct model_batch *b = &f->batch;
    int64_t T, n_rows;
    const void *hidden;
    f->n_refs = 0;
    f->mark = -1;
    if (b->n_targets == 0)
        return ERR_OK;
    TRY(model_lay_out(m, b, &T, e));
    TRY(model_forward(m, b->n_seqs, T, b->magnitudes, e));
    TRY(model_sort_targets(m, b, T, &n_rows, e)); /* while a device already works */
    TRY(model_hidden(m, m->lists->rows, n_rows, T, &hidden, e));
    TRY(model_answer(m, b, hidden, n_rows, &f->n_refs, e));
    return kern_mark(m->k, &f->mark, e);
}

enum err_code model_start(struct model *m, const struct model_batch *b,
                          struct model_answer *answers, struct err *e)
{
    CHECK(m->has_config && m->n_started - m->n_finished < MODEL_IN_FLIGHT);
    struct flight *f = &m->flights[m->n_started % MODEL_IN_FLIGHT];
    f->batch = *b;
    f->answers = answers;
    m->lists = &f->lists;
    TRY(queue(m, f, e));
    m->n_started++;
    return ERR_OK;
}

enum err_code model_wait(struct model *m, struct err *e)
{
    CHECK(m->n_finished < m->n_started);
    const struct flight *f = &m->flights[m->n_finished % MODEL_IN_FLIGHT];
    if (f->mark >= 0)
        TRY(kern_wait(m->k, f->mark, e));
    model_deliver(&f->lists, &f->batch, f->n_refs, f->answers);
    m->n_finished++;
    return ERR_OK;
}

void model_abandon(struct model *m)
{
    struct err untold; /* the error that led here is the one to tell */
    const enum err_code code = kern_sync(m->k, &untold);
    (void)code;
    m->n_finished = m->n_started;
}

enum err_code model_run(struct model *m, const struct model_batch *b, struct model_answer *answers,
                        struct err *e)
{
    enum err_code code = model_start(m, b, answers, e);
    if (code == ERR_OK)
        code = model_wait(m, e);
    if (code != ERR_OK)
        model_abandon(m);
    return code;
}

enum err_code model_logits(struct model *m, const int32_t *tokens, int32_t n, float *logits,
                           struct err *e)
{
    CHECK(m->has_config);
    const struct model_batch b = {
        .seqs = &(struct model_seq){.tokens = tokens, .n = n, .parent = -1}, .n_seqs = 1};
    int64_t T;
    const void *hidden;
    TRY(model_lay_out(m, &b, &T, e));
    TRY(model_forward(m, 1, T, NULL, e));
    for (int32_t i = 0; i < n; i++)
        m->lists->rows[i] = i;
    TRY(model_hidden(m, m->lists->rows, n, T, &hidden, e));
    struct kern_logits_args a = {.x = hidden,
                                 .head = model_head(m),
                                 .R = n,
                                 .d = m->wiring.d_embed,
                                 .V = m->wiring.vocab,
                                 .logits = logits};
    TRY(kern_logits(m->k, &a, e));
    return kern_sync(m->k, e);
}
