#include "worker/eval/pack.h"

#include <stdlib.h>

/* A shorter shared front is not worth an attention call of its own. */
enum { MIN_SHARED = 8 };

static int32_t n_input(const struct eval_request *r)
{
    return r->n - 1; /* the last token is only a target */
}

/* Length of the common front of the inputs of members[0..n). */
static int32_t shared_front(const struct eval_set *s, const int64_t *members, int32_t n)
{
    const struct eval_request *a = &s->requests[members[0]];
    int32_t len = n_input(a);
    for (int32_t i = 1; i < n; i++) {
        const struct eval_request *b = &s->requests[members[i]];
        int32_t at = 0, end = n_input(b) < len ? n_input(b) : len;
        while (at < end && s->tokens.v[a->at + (size_t)at] == s->tokens.v[b->at + (size_t)at])
            at++;
        len = at;
    }
    return len;
}

static void add_unit(struct eval_pack *p, const struct eval_set *s, int64_t first, int32_t n,
                     int32_t shared)
{
    struct pack_unit u = {.first = first, .n = n, .shared = shared, .n_tokens = shared};
    for (int32_t i = 0; i < n; i++)
        u.n_tokens += n_input(&s->requests[p->members[first + i]]) - shared;
    p->units[p->n_units++] = u;
}

/* The requests of one item become one unit when they share a front and fit together, else one unit each. Windows of a
 * document share nothing that could be computed once. */
static void add_item(struct eval_pack *p, const struct eval_set *s, int64_t item,
                     int64_t max_tokens)
{
    int64_t first = p->n_members;
    for (int64_t r = s->first[item]; r < s->first[item + 1]; r++) {
        if (s->requests[r].same_as != r)
            continue;
        p->scored_before[r] = p->n_scored;
        p->n_scored += s->requests[r].n_scored;
        p->members[p->n_members++] = r;
    }
    int32_t n = (int32_t)(p->n_members - first);
    if (n > 1 && s->n_choices > 1) {
        int32_t shared = shared_front(s, p->members + first, n);
        add_unit(p, s, first, n, shared);
        if (shared >= MIN_SHARED && p->units[p->n_units - 1].n_tokens <= max_tokens)
            return;
        p->n_units--;
    }
    for (int32_t i = 0; i < n; i++)
        add_unit(p, s, first + i, 1, 0);
}

/* Longest first; `first` is unique, so the order is total. */
static int compare_units(const void *pa, const void *pb)
{
    const struct pack_unit *a = pa, *b = pb;
    if (a->n_tokens != b->n_tokens)
        return a->n_tokens > b->n_tokens ? -1 : 1;
    return a->first < b->first ? -1 : a->first > b->first;
}

static void count_unit(const struct eval_pack *p, const struct eval_set *s,
                       const struct pack_unit *u, struct pack_batch *b)
{
    b->n_units++;
    b->n_tokens += u->n_tokens;
    b->n_seqs += u->shared > 0;
    for (int32_t i = 0; i < u->n; i++) {
        const struct eval_request *r = &s->requests[p->members[u->first + i]];
        b->n_seqs += n_input(r) > u->shared; /* else it ends where the shared front ends */
        b->n_targets += r->n_scored;
    }
}

/* Fills batch after batch: with units small against a batch and sorted by length, little is left free. */
static enum err_code fill_batches(struct eval_pack *p, const struct eval_set *s, int64_t max_tokens,
                                  struct err *e)
{
    for (int64_t i = 0; i < p->n_units; i++) {
        const struct pack_unit *u = &p->units[i];
        if (u->n_tokens > max_tokens)
            return err_set(e, ERR_NOMEM,
                           "a sequence of %lld tokens does not fit into a batch of %lld; give the "
                           "device more memory or use a smaller window",
                           (long long)u->n_tokens, (long long)max_tokens);
        int64_t at = p->n_batches - 1;
        if (at < 0 || p->batches[at].n_tokens + u->n_tokens > max_tokens) {
            at = p->n_batches++;
            p->batches[at] = (struct pack_batch){.first_unit = i};
        }
        count_unit(p, s, u, &p->batches[at]);
    }
    return ERR_OK;
}

enum err_code pack_make(const struct eval_set *set, int64_t max_tokens, struct eval_pack *out,
                        struct err *e)
{
    size_t n = (size_t)set->n_requests;
    *out = (struct eval_pack){
        .members = xcalloc(n, sizeof(*out->members)),
        .units = xcalloc(n, sizeof(*out->units)),
        .batches = xcalloc(n, sizeof(*out->batches)),
        .scored_before = xcalloc(n, sizeof(*out->scored_before)),
    };
    for (int64_t i = 0; i < set->n_items; i++)
        add_item(out, set, i, max_tokens);
    qsort(out->units, (size_t)out->n_units, sizeof(*out->units), compare_units);
    enum err_code rc = fill_batches(out, set, max_tokens, e);
    if (rc != ERR_OK)
        pack_release(out);
    return rc;
}

void pack_release(struct eval_pack *p)
{
    xfree(p->members);
    xfree(p->units);
    xfree(p->batches);
    xfree(p->scored_before);
    *p = (struct eval_pack){0};
}

void pack_arrays_init(const struct eval_pack *p, struct pack_arrays *a)
{
    int64_t seqs = 0, targets = 0;
    for (int64_t i = 0; i < p->n_batches; i++) {
        seqs = p->batches[i].n_seqs > seqs ? p->batches[i].n_seqs : seqs;
        targets = p->batches[i].n_targets > targets ? p->batches[i].n_targets : targets;
    }
    *a = (struct pack_arrays){
        .seqs = xcalloc((size_t)seqs, sizeof(*a->seqs)),
        .targets = xcalloc((size_t)targets, sizeof(*a->targets)),
        .request = xcalloc((size_t)targets, sizeof(*a->request)),
        .answers = xcalloc((size_t)targets, sizeof(*a->answers)),
    };
}

void pack_arrays_release(struct pack_arrays *a)
{
    xfree(a->seqs);
    xfree(a->targets);
    xfree(a->request);
    xfree(a->answers);
    *a = (struct pack_arrays){0};
}

static void sample_seek(struct pack_sample *s, int64_t row)
{
    s->row = row;
    s->next = row < s->n_sample ? row * s->n_scored / s->n_sample : INT64_MAX;
}

struct pack_sample pack_sample_from(int64_t at, int64_t n_scored, int64_t n_sample)
{
    struct pack_sample s = {.n_scored = n_scored, .n_sample = n_sample};
    /* the smallest row with row * n_scored >= at * n_sample */
    sample_seek(&s, n_sample > 0 ? (at * n_sample + n_scored - 1) / n_scored : 0);
    return s;
}

int32_t pack_sample_take(struct pack_sample *s, int64_t at)
{
    if (at != s->next)
        return -1;
    const int32_t row = (int32_t)s->row;
    sample_seek(s, s->row + 1);
    return row;
}

struct build {
    const struct eval_set *set;
    const struct eval_pack *pack;
    int64_t n_sample;
    bool only_sampled;
    struct pack_arrays *out;
};

/* Targets of one request: position i of its input stands in the parent while i < shared. */
static void add_targets(struct build *b, int64_t request, int32_t shared, int32_t parent,
                        int32_t own)
{
    const struct eval_request *r = &b->set->requests[request];
    const int32_t *tokens = b->set->tokens.v + r->at;
    const int64_t before = b->pack->scored_before[request];
    struct pack_sample sample = pack_sample_from(before, b->pack->n_scored, b->n_sample);
    for (int32_t i = 0; i < r->n_scored; i++) {
        int32_t pos = n_input(r) - r->n_scored + i;
        int32_t ref = pack_sample_take(&sample, before + i);
        if (b->only_sampled && ref < 0)
            continue;
        b->out->request[b->out->n_targets] = request;
        b->out->targets[b->out->n_targets++] = (struct model_target){
            .seq = pos < shared ? parent : own,
            .pos = pos < shared ? pos : pos - shared,
            .token = tokens[pos + 1],
            .ref = ref,
        };
    }
}

static void add_seq(struct build *b, const int32_t *tokens, int32_t n, int32_t parent)
{
    b->out->seqs[b->out->n_seqs++] = (struct model_seq){tokens, n, parent};
}

static void build_unit(struct build *b, const struct pack_unit *u)
{
    int32_t parent = -1;
    const int64_t *members = b->pack->members + u->first;
    if (u->shared > 0) {
        parent = b->out->n_seqs;
        add_seq(b, b->set->tokens.v + b->set->requests[members[0]].at, u->shared, -1);
    }
    for (int32_t i = 0; i < u->n; i++) {
        const struct eval_request *r = &b->set->requests[members[i]];
        int32_t own = b->out->n_seqs;
        if (n_input(r) > u->shared)
            add_seq(b, b->set->tokens.v + r->at + u->shared, n_input(r) - u->shared, parent);
        add_targets(b, members[i], u->shared, parent, own);
    }
}

void pack_build(const struct eval_set *set, const struct eval_pack *p, int64_t batch,
                int64_t n_sample, bool only_sampled, struct pack_arrays *out)
{
    struct build b = {set, p, n_sample, only_sampled, out};
    out->n_seqs = 0;
    out->n_targets = 0;
    const struct pack_batch *at = &p->batches[batch];
    for (int64_t i = 0; i < at->n_units; i++)
        build_unit(&b, &p->units[at->first_unit + i]);
}
