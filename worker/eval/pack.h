/* Packing requests into batches. Sequences stand behind each other without padding, so a batch is full when its tokens
 * are; requests are taken by length so that sequences of a batch are alike. What the choices of an item have in common
 * at their front is computed once: it becomes a parent sequence and the choices attend to it. The composition is a pure
 * function of (requests, max_tokens): a resumed sweep packs, and therefore rounds, as an undisturbed one. */
#ifndef ISOBIT_WORKER_EVAL_PACK_H
#define ISOBIT_WORKER_EVAL_PACK_H

#include "worker/eval/eval.h"

/* Requests that go together: those of one item with a shared front, or a single one. */
struct pack_unit {
    int64_t first;    /* index into eval_pack.members */
    int32_t n;        /* requests */
    int32_t shared;   /* input tokens that all have in common; 0 for a single request */
    int64_t n_tokens; /* shared ones once */
};

struct pack_batch {
    int64_t first_unit, n_units;
    int64_t n_seqs, n_targets, n_tokens;
};

struct eval_pack {
    int64_t *members; /* indices of requests that have no equal one before them */
    int64_t n_members;
    struct pack_unit *units; /* longest first */
    int64_t n_units;
    struct pack_batch *batches;
    int64_t n_batches;
    int64_t *scored_before; /* [n_requests]: scored tokens of distinct requests before it */
    int64_t n_scored;       /* of all distinct requests */
};

/* Errors: ERR_NOMEM when a single request does not fit into max_tokens. Caller frees with pack_release. */
MUST_USE enum err_code pack_make(const struct eval_set *set, int64_t max_tokens,
                                 struct eval_pack *out, struct err *e);
void pack_release(struct eval_pack *p);

/* One batch as the model takes it. The arrays belong to the struct and are reused from batch to batch. */
struct pack_arrays {
    struct model_seq *seqs;
    int n_seqs;
    struct model_target *targets;
    int64_t *request; /* [n_targets]: whose target it is */
    int64_t n_targets;
    struct model_answer *answers;
};
/* Room for the largest batch. */
void pack_arrays_init(const struct eval_pack *p, struct pack_arrays *a);
void pack_arrays_release(struct pack_arrays *a);
/* n_sample: number of reference rows (0: no sampling); with only_sampled the targets without a row are left out. */
void pack_build(const struct eval_set *set, const struct eval_pack *p, int64_t batch,
                int64_t n_sample, bool only_sampled, struct pack_arrays *out);

/* The sample of scored positions is evenly spread: row i is scored token floor(i * n_scored / n_sample). A walk over scored
 * tokens in ascending order. */
struct pack_sample {
    int64_t n_scored, n_sample;
    int64_t row, next; /* the next row and its token */
};
/* Before scored token `at`; n_sample 0: no rows. */
struct pack_sample pack_sample_from(int64_t at, int64_t n_scored, int64_t n_sample);
/* Row of `at`, or -1; the walk goes on behind it. */
int32_t pack_sample_take(struct pack_sample *s, int64_t at);

#endif
