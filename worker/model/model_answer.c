/* From a batch to answers: checks, positions, targets by row, and from the final hidden states to
 * likelihoods and divergences. */
#include "worker/model/model_answer.h"

#include <string.h>

#include "base/mem.h"
#include "worker/model/model_forward.h"

/* ---- a batch in lists ---- */

static enum err_code check_seq(const struct model *m, const struct model_batch *b, int i, int64_t T,
                               struct err *e)
{
    const struct model_seq *s = &b->seqs[i];
    CHECK(s->n > 0 && s->parent < i && (s->parent < 0 || b->seqs[s->parent].parent < 0));
    int64_t len = s->n + (s->parent >= 0 ? b->seqs[s->parent].n : 0);
    if (len > m->wiring.context)
        return err_set(e, ERR_FORMAT, "%s: a sequence of %lld tokens; the model's context is %lld",
                       ckpt_dir(m->ckpt), (long long)len, (long long)m->wiring.context);
    if (T + s->n > m->max_tokens)
        return err_set(e, ERR_FORMAT, "%s: a batch of more than %lld tokens", ckpt_dir(m->ckpt),
                       (long long)m->max_tokens);
    for (int32_t t = 0; t < s->n; t++)
        if (s->tokens[t] < 0 || s->tokens[t] >= m->wiring.vocab)
            return err_set(e, ERR_FORMAT, "%s: token %d at position %d; the vocabulary has %lld",
                           ckpt_dir(m->ckpt), s->tokens[t], t, (long long)m->wiring.vocab);
    return ERR_OK;
}

/* Packs the sequences behind each other; *T is set to the number of tokens. */
enum err_code model_lay_out(struct model *m, const struct model_batch *b, int64_t *T, struct err *e)
{
    struct batch_lists *l = m->lists;
    *T = 0;
    for (int i = 0; i < b->n_seqs; i++) {
        const struct model_seq *s = &b->seqs[i];
        TRY(check_seq(m, b, i, *T, e));
        int32_t pos0 = s->parent >= 0 ? b->seqs[s->parent].n : 0;
        l->seqs[i] =
            (struct kern_seq){.start = (int32_t)*T, .len = s->n, .parent = s->parent, .pos0 = pos0};
        memcpy(l->ids + *T, s->tokens, (size_t)s->n * sizeof *l->ids);
        for (int32_t t = 0; t < s->n; t++)
            l->positions[*T + t] = pos0 + t + m->wiring.position_offset;
        *T += s->n;
    }
    return ERR_OK;
}

static void lists_grow(struct batch_lists *l, int64_t n)
{
    if (n <= l->n_targets_max)
        return;
    size_t size = (size_t)n;
    l->row = xrealloc(l->row, size * sizeof *l->row);
    l->token = xrealloc(l->token, size * sizeof *l->token);
    l->order = xrealloc(l->order, size * sizeof *l->order);
    l->logprob = xrealloc(l->logprob, size * sizeof *l->logprob);
    l->is_top = xrealloc(l->is_top, size * sizeof *l->is_top);
    l->ref_row = xrealloc(l->ref_row, size * sizeof *l->ref_row);
    l->ref_at = xrealloc(l->ref_at, size * sizeof *l->ref_at);
    l->kl = xrealloc(l->kl, size * sizeof *l->kl);
    l->same_top = xrealloc(l->same_top, size * sizeof *l->same_top);
    l->n_targets_max = n;
}

static int64_t target_row(const struct model *m, const struct model_target *t)
{
    return m->lists->seqs[t->seq].start + t->pos;
}

static enum err_code check_target(const struct model *m, const struct model_batch *b,
                                  const struct model_target *t, struct err *e)
{
    CHECK(t->seq >= 0 && t->seq < b->n_seqs && t->pos >= 0 && t->pos < b->seqs[t->seq].n);
    if (t->token < 0 || t->token >= m->wiring.vocab)
        return err_set(e, ERR_FORMAT, "%s: target token %d; the vocabulary has %lld",
                       ckpt_dir(m->ckpt), t->token, (long long)m->wiring.vocab);
    return ERR_OK;
}

/* Counting sort of the targets by their row; *n_rows distinct rows. The order makes neighbours of equal rows, so that
 * the head runs once for each. */
enum err_code model_sort_targets(struct model *m, const struct model_batch *b, int64_t T,
                                 int64_t *n_rows, struct err *e)
{
    struct batch_lists *l = m->lists;
    lists_grow(l, b->n_targets);
    memset(l->first, 0, (size_t)(T + 1) * sizeof *l->first);
    for (int64_t i = 0; i < b->n_targets; i++) {
        TRY(check_target(m, b, &b->targets[i], e));
        l->first[target_row(m, &b->targets[i]) + 1]++;
    }
    *n_rows = 0;
    for (int64_t r = 0; r < T; r++) {
        if (l->first[r + 1] > 0)
            l->rows[(*n_rows)++] = (int32_t)r;
        l->first[r + 1] += l->first[r];
    }
    for (int64_t i = 0; i < b->n_targets; i++)
        l->order[l->first[target_row(m, &b->targets[i])]++] = i;
    int32_t row = -1;
    for (int64_t i = 0; i < b->n_targets; i++) {
        const struct model_target *t = &b->targets[l->order[i]];
        if (row < 0 || l->rows[row] != target_row(m, t))
            row++;
        l->row[i] = row;
        l->token[i] = t->token;
    }
    return ERR_OK;
}

static enum err_code score(struct model *m, const struct model_batch *b, const void *hidden,
                           int64_t n_rows, struct err *e)
{
    struct batch_lists *l = m->lists;
    struct kern_score_args a = {
        .x = hidden,
        .head = model_head(m),
        .R = model_step_rows(m, n_rows),
        .d = m->wiring.d_embed,
        .V = m->wiring.vocab,
        .row = l->row,
        .token = l->token,
        .n = b->n_targets,
        .logprob = l->logprob,
        .is_top = l->is_top,
        .part = m->part != NULL ? &m->part->score : NULL,
    };
    return kern_score(m->k, &a, e);
}

/* Pairs (row of hidden, row of the reference) of the targets that have one. */
static int64_t list_refs(struct model *m, const struct model_batch *b, int64_t n_ref)
{
    struct batch_lists *l = m->lists;
    int64_t n = 0;
    for (int64_t i = 0; i < b->n_targets; i++) {
        const struct model_target *t = &b->targets[l->order[i]];
        if (t->ref < 0)
            continue;
        CHECK(t->ref < n_ref);
        l->ref_row[n] = l->row[i];
        l->ref_at[n++] = t->ref;
    }
    return n;
}

static enum err_code record(struct model *m, const struct model_batch *b, const void *hidden,
                            struct err *e)
{
    int64_t n = list_refs(m, b, b->record->n);
    struct kern_rows_args a = {.y = b->record->rows,
                               .x = hidden,
                               .y_rows = m->lists->ref_at,
                               .x_rows = m->lists->ref_row,
                               .n = n,
                               .d = m->wiring.d_embed};
    return kern_copy_rows(m->k, &a, e);
}

/* The same part of the head, with what is known of the rows from `from` on. */
static struct kern_head_part part_from(const struct model *m, int64_t from)
{
    struct kern_head_part part = m->part->kl;
    part.state = (char *)part.state + kern_head_bytes(m->k, m->wiring.vocab, from, 0);
    return part;
}

/* KL of the rows [from, from + n) of the list; both sides are gathered into the wide buffer. */
static enum err_code compare_rows(struct model *m, const struct model_batch *b, const void *hidden,
                                  int64_t from, int64_t n, struct err *e)
{
    struct batch_lists *l = m->lists;
    const int64_t d = m->wiring.d_embed;
    void *x = m->ws.wide;
    void *ref = (char *)m->ws.wide + m->max_tokens * d * m->weights.act_bytes;
    struct kern_rows_args take = {.y = x, .x = hidden, .x_rows = l->ref_row + from, .n = n, .d = d};
    TRY(kern_copy_rows(m->k, &take, e));
    take.y = ref;
    take.x = b->compare->rows;
    take.x_rows = l->ref_at + from;
    TRY(kern_copy_rows(m->k, &take, e));
    const struct kern_head_part part =
        m->part != NULL ? part_from(m, from) : (struct kern_head_part){0};
    struct kern_kl_args a = {.x = x,
                             .ref = ref,
                             .head = model_head(m),
                             .R = n,
                             .d = d,
                             .V = m->wiring.vocab,
                             .kl = l->kl + from,
                             .same_top = l->same_top + from,
                             .part = m->part != NULL ? &part : NULL};
    return kern_kl(m->k, &a, e);
}

static enum err_code compare(struct model *m, const struct model_batch *b, const void *hidden,
                             int64_t *n_refs, struct err *e)
{
    const int64_t n = *n_refs = list_refs(m, b, b->compare->n);
    for (int64_t from = 0; from < n; from += m->max_tokens) {
        int64_t left = n - from;
        TRY(compare_rows(m, b, hidden, from, left < m->max_tokens ? left : m->max_tokens, e));
    }
    return ERR_OK;
}

enum err_code model_answer(struct model *m, const struct model_batch *b, const void *hidden,
                           int64_t n_rows, int64_t *n_refs, struct err *e)
{
    *n_refs = 0;
    TRY(score(m, b, hidden, n_rows, e));
    if (b->record != NULL)
        TRY(record(m, b, hidden, e));
    return b->compare != NULL ? compare(m, b, hidden, n_refs, e) : ERR_OK;
}

void model_deliver(const struct batch_lists *l, const struct model_batch *b, int64_t n_refs,
                   struct model_answer *answers)
{
    for (int64_t i = 0; i < b->n_targets; i++)
        answers[l->order[i]] =
            (struct model_answer){.logprob = l->logprob[i], .is_top = l->is_top[i] != 0};
    for (int64_t i = 0; i < n_refs; i++) {
        b->kl[l->ref_at[i]] = l->kl[i];
        b->same_top[l->ref_at[i]] = l->same_top[i];
    }
}

/* ---- rows of the 16-bit run ---- */

enum err_code model_ref_new(struct model *m, int64_t n, struct model_ref_rows **out, struct err *e)
{
    size_t bytes;
    if (!size_mul((size_t)n, (size_t)m->wiring.d_embed * (size_t)m->weights.act_bytes, &bytes))
        return err_set(e, ERR_NOMEM, "hidden states of the 16-bit run: size overflow");
    void *rows;
    TRY(kern_alloc(m->k, bytes, "hidden states of the 16-bit run", &rows, e));
    struct model_ref_rows *r = xcalloc(1, sizeof *r);
    *r = (struct model_ref_rows){.rows = rows, .n = n};
    *out = r;
    return ERR_OK;
}

int64_t model_ref_bytes(const struct model *m, int64_t n)
{
    return n * m->wiring.d_embed * m->weights.act_bytes;
}

void model_ref_free(struct model *m, struct model_ref_rows *r)
{
    if (r == NULL)
        return;
    kern_free(m->k, r->rows);
    xfree(r);
}
