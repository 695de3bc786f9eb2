#include "worker/eval/requests.h"

#include <stdlib.h>
#include <string.h>

#include "worker/tok/text.h"

/* Room for one more element of `size` bytes behind v[n]. */
static void *grow(void *v, int64_t n, int64_t *cap, size_t size)
{
    if (n < *cap)
        return v;
    *cap = *cap != 0 ? 2 * *cap : 64;
    size_t bytes = 0;
    CHECK(size_mul((size_t)*cap, size, &bytes));
    return xrealloc(v, bytes);
}

void requests_begin_item(struct eval_set *s, int gold)
{
    s->first = grow(s->first, s->n_items + 1, &s->cap_items, sizeof(*s->first));
    s->first[s->n_items++] = s->n_requests;
    tok_ids_push(&s->gold, gold);
}

static int32_t clamp_i32(int64_t n)
{
    return n > INT32_MAX ? INT32_MAX : (int32_t)n;
}

void requests_add_choice(struct eval_set *s, int64_t chars, int64_t bytes, int64_t n_scored)
{
    tok_ids_push(&s->chars, clamp_i32(chars));
    tok_ids_push(&s->bytes, clamp_i32(bytes));
    tok_ids_push(&s->n_scored, clamp_i32(n_scored));
}

void requests_add_span(struct eval_set *s, size_t at, int32_t n, int32_t n_scored)
{
    CHECK(n_scored >= 1 && n > n_scored && at + (size_t)n <= s->tokens.n);
    s->requests = grow(s->requests, s->n_requests, &s->cap_requests, sizeof(*s->requests));
    s->requests[s->n_requests] =
        (struct eval_request){.at = at, .n = n, .n_scored = n_scored, .same_as = s->n_requests};
    s->n_requests++;
}

static int compare_requests(const void *pa, const void *pb, void *arg)
{
    const struct eval_set *s = arg;
    int64_t ia = *(const int64_t *)pa, ib = *(const int64_t *)pb;
    const struct eval_request *a = &s->requests[ia], *b = &s->requests[ib];
    if (a->n != b->n)
        return a->n < b->n ? -1 : 1;
    if (a->n_scored != b->n_scored)
        return a->n_scored < b->n_scored ? -1 : 1;
    int c = memcmp(s->tokens.v + a->at, s->tokens.v + b->at, (size_t)a->n * sizeof(int32_t));
    return c != 0 ? c : ia < ib ? -1 : ia > ib;
}

static bool is_same(const struct eval_set *s, const struct eval_request *a,
                    const struct eval_request *b)
{
    return a->n == b->n && a->n_scored == b->n_scored &&
           memcmp(s->tokens.v + a->at, s->tokens.v + b->at, (size_t)a->n * sizeof(int32_t)) == 0;
}

/* Sorting brings equal requests together, the first in file order in front. */
static void find_same(struct eval_set *s)
{
    int64_t *order = xcalloc((size_t)s->n_requests, sizeof(*order));
    for (int64_t i = 0; i < s->n_requests; i++)
        order[i] = i;
    qsort_r(order, (size_t)s->n_requests, sizeof(*order), compare_requests, s);
    for (int64_t i = 1; i < s->n_requests; i++) {
        struct eval_request *before = &s->requests[order[i - 1]], *r = &s->requests[order[i]];
        if (is_same(s, before, r))
            r->same_as = before->same_as;
    }
    xfree(order);
}

void requests_close(struct eval_set *s)
{
    s->first = grow(s->first, s->n_items, &s->cap_items, sizeof(*s->first));
    s->first[s->n_items] = s->n_requests;
    find_same(s);
}

/* What --bos puts in front: the tokenizer's own default, else its BOS. */
static enum err_code bos_id(const struct eval_source *src, int32_t *id, struct err *e)
{
    *id = tok_default_prefix(src->tok) >= 0 ? tok_default_prefix(src->tok) : tok_bos(src->tok);
    if (*id < 0)
        return err_set(e, ERR_UNSUPPORTED,
                       "this tokenizer has no beginning-of-sequence token to add; leave out --bos");
    return ERR_OK;
}

/* A text that already begins with the token that was put in front of it keeps only its own. */
static void drop_doubled(struct tok_ids *ids, size_t start)
{
    if (ids->n < start + 2 || ids->v[start + 1] != ids->v[start])
        return;
    memmove(ids->v + start, ids->v + start + 1, (ids->n - start - 1) * sizeof(*ids->v));
    ids->n--;
}

enum err_code requests_encode(const struct eval_source *src, struct str text, struct tok_ids *ids,
                              struct err *e)
{
    size_t start = ids->n;
    if (!src->spec->bos)
        return tok_encode(src->tok, text, ids, e);
    int32_t bos = -1;
    TRY(bos_id(src, &bos, e));
    tok_ids_push(ids, bos);
    TRY(tok_encode(src->tok, text, ids, e));
    drop_doubled(ids, start);
    return ERR_OK;
}

enum err_code requests_prefix(const struct eval_source *src, int32_t *id, struct err *e)
{
    int32_t bos = tok_bos(src->tok), eos = tok_eos(src->tok);
    *id = src->spec->join == JOIN_H26 && bos >= 0 ? bos : eos;
    if (*id < 0)
        return err_set(e, ERR_UNSUPPORTED,
                       "this tokenizer has neither a BOS nor an EOS token to start a text with");
    return ERR_OK;
}

/* Without context the prefix stands for it. */
static enum err_code join_without_context(const struct eval_source *src, struct str continuation,
                                          struct tok_ids *ids, size_t *n_context, struct err *e)
{
    size_t start = ids->n;
    int32_t prefix = -1;
    TRY(requests_prefix(src, &prefix, e));
    tok_ids_push(ids, prefix);
    TRY(tok_encode(src->tok, continuation, ids, e));
    if (src->spec->join == JOIN_H26)
        drop_doubled(ids, start);
    *n_context = 1;
    return ERR_OK;
}

static enum err_code join_h22(const struct eval_source *src, struct str context,
                              struct str continuation, struct tok_ids *ids, size_t *n_context,
                              struct err *e)
{
    size_t start = ids->n;
    TRY(requests_encode(src, context, ids, e));
    *n_context = ids->n - start;
    return tok_encode(src->tok, continuation, ids, e);
}

/* h26 encodes both texts as one and takes what follows the context's number of tokens as the continuation. */
static enum err_code join_h26(const struct eval_source *src, struct str context,
                              struct str continuation, struct tok_ids *ids, size_t *n_context,
                              struct err *e)
{
    size_t start = ids->n;
    TRY(requests_encode(src, context, ids, e));
    *n_context = ids->n - start;
    ids->n = start;
    struct buf whole = {0};
    buf_add(&whole, context.p, context.n);
    buf_add(&whole, continuation.p, continuation.n);
    enum err_code rc = requests_encode(src, (struct str){whole.data, whole.len}, ids, e);
    buf_release(&whole);
    return rc;
}

/* Moves the white space at the context's end to the front of the continuation; the text is kept in `moved`. */
static struct str move_space(struct str *context, struct str continuation, struct buf *moved)
{
    struct str stripped = text_strip_right(*context);
    if (stripped.n == context->n)
        return continuation;
    buf_add(moved, context->p + stripped.n, context->n - stripped.n);
    buf_add(moved, continuation.p, continuation.n);
    *context = stripped;
    return (struct str){moved->data, moved->len};
}

enum err_code requests_add_text(struct eval_set *s, const struct eval_source *src,
                                struct str context, struct str continuation, int32_t *n_scored,
                                struct err *e)
{
    size_t start = s->tokens.n, n_context = 0;
    bool is_joint = src->spec->join == JOIN_H26;
    struct buf moved = {0};
    if (is_joint)
        continuation = move_space(&context, continuation, &moved);
    enum err_code rc = context.n == 0
                           ? join_without_context(src, continuation, &s->tokens, &n_context, e)
                       : is_joint ? join_h26(src, context, continuation, &s->tokens, &n_context, e)
                                  : join_h22(src, context, continuation, &s->tokens, &n_context, e);
    buf_release(&moved);
    TRY(rc);
    size_t n = s->tokens.n - start;
    if (n <= n_context || n_context == 0)
        return err_set(e, ERR_FORMAT, "the continuation has no tokens of its own");
    if (n - n_context > (size_t)src->context)
        return err_set(e, ERR_FORMAT,
                       "the continuation has %zu tokens, more than the model's context of %lld",
                       n - n_context, (long long)src->context);
    /* The last context + 1 tokens: the last one is only a target. */
    size_t kept = n < (size_t)src->context + 1 ? n : (size_t)src->context + 1;
    *n_scored = (int32_t)(n - n_context);
    requests_add_span(s, s->tokens.n - kept, (int32_t)kept, *n_scored);
    return ERR_OK;
}
