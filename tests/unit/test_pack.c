#include <criterion/criterion.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "worker/eval/pack.h"
#include "worker/eval/requests.h"

/* Adds an item of choices written as digits; the last n_scored of each are scored. */
static void add_item(struct eval_set *s, const char *const *texts, const int *n_scored, int n)
{
    requests_begin_item(s, 0);
    for (int i = 0; i < n; i++) {
        size_t at = s->tokens.n, len = strlen(texts[i]);
        for (size_t j = 0; j < len; j++)
            tok_ids_push(&s->tokens, texts[i][j]);
        requests_add_span(s, at, (int32_t)len, n_scored[i]);
        requests_add_choice(s, 1, 1, n_scored[i]);
    }
}

struct stream {
    int32_t at[64];
    int32_t n;
};

/* What a target sees: its sequence up to its position, behind the parent's. */
static struct stream seen_by(const struct pack_arrays *b, const struct model_target *t)
{
    struct stream s = {0};
    const struct model_seq *q = &b->seqs[t->seq];
    if (q->parent >= 0) {
        const struct model_seq *p = &b->seqs[q->parent];
        cr_assert(q->parent < t->seq && p->parent == -1);
        memcpy(s.at, p->tokens, (size_t)p->n * sizeof(int32_t));
        s.n = p->n;
    }
    cr_assert(t->pos >= 0 && t->pos < q->n);
    memcpy(s.at + s.n, q->tokens, (size_t)(t->pos + 1) * sizeof(int32_t));
    s.n += t->pos + 1;
    return s;
}

/* Every distinct request is scored once, each of its targets behind exactly the tokens before it. */
static void expect_faithful(const struct eval_set *s, const struct eval_pack *p, int64_t max_tokens)
{
    struct pack_arrays b = {0};
    int32_t *answered = xcalloc((size_t)s->n_requests, sizeof(*answered));
    pack_arrays_init(p, &b);
    for (int64_t i = 0; i < p->n_batches; i++) {
        pack_build(s, p, i, 0, false, &b);
        int64_t tokens = 0;
        for (int q = 0; q < b.n_seqs; q++) {
            cr_assert_gt(b.seqs[q].n, 0);
            tokens += b.seqs[q].n;
        }
        cr_assert_eq(tokens, p->batches[i].n_tokens);
        cr_assert_leq(tokens, max_tokens);
        cr_assert_eq(b.n_targets, p->batches[i].n_targets);
        cr_assert_eq(b.n_seqs, p->batches[i].n_seqs);
        for (int64_t t = 0; t < b.n_targets; t++) {
            const struct eval_request *r = &s->requests[b.request[t]];
            const int32_t *tokens_of = s->tokens.v + r->at;
            struct stream seen = seen_by(&b, &b.targets[t]);
            int32_t expected = r->n - r->n_scored + answered[b.request[t]]++;
            cr_assert_eq(seen.n, expected);
            cr_assert(memcmp(seen.at, tokens_of, (size_t)seen.n * sizeof(int32_t)) == 0);
            cr_assert_eq(b.targets[t].token, tokens_of[expected]);
        }
    }
    for (int64_t r = 0; r < s->n_requests; r++)
        cr_assert_eq(answered[r], s->requests[r].same_as == r ? s->requests[r].n_scored : 0);
    pack_arrays_release(&b);
    xfree(answered);
}

static void close_and_check(struct eval_set *s, int64_t max_tokens, int64_t n_batches,
                            int64_t n_tokens)
{
    struct err e = {0};
    struct eval_pack p = {0};
    requests_close(s);
    cr_assert_eq(pack_make(s, max_tokens, &p, &e), ERR_OK, "%s", e.text);
    int64_t total = 0;
    for (int64_t i = 0; i < p.n_batches; i++)
        total += p.batches[i].n_tokens;
    cr_expect_eq(total, n_tokens);
    cr_expect_eq(p.n_batches, n_batches);
    expect_faithful(s, &p, max_tokens);
    pack_release(&p);
    eval_set_release(s);
}

Test(pack, a_shared_context_is_computed_once)
{
    struct eval_set s = {.n_choices = 2};
    /* Inputs "0123456789ab" and "0123456789xyz": ten in common, then 2 and 3. */
    add_item(&s, (const char *[]){"0123456789abc", "0123456789xyzw"}, (int[]){3, 4}, 2);
    close_and_check(&s, 100, 1, 10 + 2 + 3);
}

Test(pack, a_choice_of_one_token_needs_no_sequence_of_its_own)
{
    struct eval_set s = {.n_choices = 2};
    add_item(&s, (const char *[]){"0123456789a", "0123456789bc"}, (int[]){1, 2}, 2);
    close_and_check(&s, 100, 1, 10 + 1);
}

Test(pack, what_choices_share_beyond_the_context_is_scored_in_the_parent)
{
    struct eval_set s = {.n_choices = 2};
    add_item(&s, (const char *[]){"0123456789aabbx", "0123456789aabby"}, (int[]){5, 5}, 2);
    close_and_check(&s, 100, 1, 14);
}

Test(pack, short_fronts_are_not_shared)
{
    struct eval_set s = {.n_choices = 2};
    add_item(&s, (const char *[]){"0123abcd", "0123wxyz"}, (int[]){4, 4}, 2);
    close_and_check(&s, 100, 1, 7 + 7);
}

Test(pack, an_item_too_large_for_a_batch_is_taken_apart)
{
    struct eval_set s = {.n_choices = 2};
    add_item(&s, (const char *[]){"0123456789abc", "0123456789xyz"}, (int[]){3, 3}, 2);
    close_and_check(&s, 13, 2, 12 + 12);
}

Test(pack, equal_requests_run_once)
{
    struct eval_set s = {.n_choices = 2};
    add_item(&s, (const char *[]){"0123456789ab", "0123456789ab"}, (int[]){2, 2}, 2);
    add_item(&s, (const char *[]){"0123456789ab", "0123456789ab"}, (int[]){2, 1},
             2); /* the last scores less */
    requests_close(&s);
    cr_expect_eq(s.requests[1].same_as, 0);
    cr_expect_eq(s.requests[2].same_as, 0);
    cr_expect_eq(s.requests[3].same_as, 3);
    close_and_check(&s, 100, 1, 22);
}

Test(pack, a_request_larger_than_a_batch_is_an_error_with_both_numbers)
{
    struct eval_set s = {.n_choices = 1};
    struct eval_pack p = {0};
    struct err e = {0};
    add_item(&s, (const char *[]){"0123456789abc"}, (int[]){3}, 1);
    requests_close(&s);
    cr_expect_eq(pack_make(&s, 11, &p, &e), ERR_NOMEM);
    cr_expect(strstr(e.text, "12 tokens") != NULL && strstr(e.text, "11") != NULL, "%s", e.text);
    eval_set_release(&s);
}

/* Many random items: every packing keeps every request, leaves little room, and is the same the second time. */
Test(pack, random_items_are_kept_whole_in_full_batches)
{
    struct rng rng = {7};
    for (int round = 0; round < 20; round++) {
        struct eval_set s = {.n_choices = 4};
        for (int i = 0; i < 60; i++) {
            char texts[4][48];
            int n_scored[4];
            int shared = (int)rng_below(&rng, 20);
            for (int c = 0; c < 4; c++) {
                int len = 2 + shared + (int)rng_below(&rng, 20);
                for (int j = 0; j < len; j++)
                    texts[c][j] = j < shared ? (char)('a' + (i * 7 + j) % 26)
                                             : (char)('a' + (int)rng_below(&rng, 3));
                texts[c][len] = '\0';
                n_scored[c] = 1 + (int)rng_below(&rng, (uint64_t)len - 1);
            }
            add_item(&s, (const char *[]){texts[0], texts[1], texts[2], texts[3]}, n_scored, 4);
        }
        requests_close(&s);
        int64_t max_tokens = 120 + (int64_t)rng_below(&rng, 1000);
        struct eval_pack p = {0}, again = {0};
        struct err e = {0};
        cr_assert_eq(pack_make(&s, max_tokens, &p, &e), ERR_OK);
        expect_faithful(&s, &p, max_tokens);
        for (int64_t i = 0; i + 1 < p.n_batches; i++)
            cr_expect_gt(p.batches[i].n_tokens + p.units[p.batches[i + 1].first_unit].n_tokens,
                         max_tokens);
        cr_assert_eq(pack_make(&s, max_tokens, &again, &e), ERR_OK);
        cr_expect(memcmp(p.members, again.members, (size_t)p.n_members * sizeof(*p.members)) == 0);
        cr_expect(memcmp(p.units, again.units, (size_t)p.n_units * sizeof(*p.units)) == 0);
        pack_release(&again);
        pack_release(&p);
        eval_set_release(&s);
    }
}

Test(pack, the_sample_is_evenly_spread_and_complete)
{
    const int64_t rows[][2] = {{65408, 4096}, {100, 100}, {101, 100}, {7, 3}, {4097, 4096}, {1, 1}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        int64_t n = rows[i][0], k = rows[i][1], found = 0;
        struct pack_sample walk = pack_sample_from(0, n, k);
        for (int64_t at = 0; at < n; at++) {
            int32_t row = pack_sample_take(&walk, at);
            struct pack_sample other = pack_sample_from(at, n, k); /* begins anywhere */
            cr_assert_eq(pack_sample_take(&other, at), row);
            if (row < 0)
                continue;
            cr_expect_eq(row, found, "row %zu", i);
            cr_expect_eq(at, found * n / k);
            found++;
        }
        cr_expect_eq(found, k);
    }
    struct pack_sample none = pack_sample_from(0, 10, 0);
    cr_expect_eq(pack_sample_take(&none, 0), -1);
}

Test(pack, sampled_targets_keep_their_rows_when_they_run_alone)
{
    struct eval_set s = {.n_choices = 1};
    struct eval_pack p = {0};
    struct pack_arrays all = {0}, some = {0};
    struct err e = {0};
    for (int i = 0; i < 9; i++) {
        char text[32];
        snprintf(text, sizeof(text), "%d123456789abcdefghij", i);
        add_item(&s, (const char *[]){text}, (int[]){15}, 1);
    }
    requests_close(&s);
    cr_assert_eq(pack_make(&s, 60, &p, &e), ERR_OK);
    pack_arrays_init(&p, &all);
    pack_arrays_init(&p, &some);
    int64_t n_sampled = 0;
    for (int64_t i = 0; i < p.n_batches; i++) {
        pack_build(&s, &p, i, 40, false, &all);
        pack_build(&s, &p, i, 40, true, &some);
        cr_expect_eq(all.n_seqs, some.n_seqs);
        int64_t at = 0;
        for (int64_t t = 0; t < all.n_targets; t++)
            if (all.targets[t].ref >= 0)
                cr_expect(memcmp(&all.targets[t], &some.targets[at++], sizeof(some.targets[0])) ==
                          0);
        cr_expect_eq(at, some.n_targets);
        n_sampled += at;
    }
    cr_expect_eq(n_sampled, 40);
    pack_arrays_release(&some);
    pack_arrays_release(&all);
    pack_release(&p);
    eval_set_release(&s);
}
