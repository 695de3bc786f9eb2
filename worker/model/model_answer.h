/* Stages between a batch and its answers, around the forward pass: for batches under way and for the
 * units of a pass alike. Private to worker/model. */
#ifndef ISOBIT_WORKER_MODEL_MODEL_ANSWER_H
#define ISOBIT_WORKER_MODEL_MODEL_ANSWER_H

#include "worker/model/model_impl.h"

/* Checks a batch, packs its sequences behind each other into lists.ids, positions and seqs; *T tokens. */
MUST_USE enum err_code model_lay_out(struct model *m, const struct model_batch *b, int64_t *T,
                                     struct err *e);
/* Targets in the order of their rows into lists; *n_rows distinct rows are asked for. */
MUST_USE enum err_code model_sort_targets(struct model *m, const struct model_batch *b, int64_t T,
                                          int64_t *n_rows, struct err *e);
/* Queues the answers from the hidden states of the rows that are asked for; they come into the lists. *n_refs rows are
 * compared. */
MUST_USE enum err_code model_answer(struct model *m, const struct model_batch *b,
                                    const void *hidden, int64_t n_rows, int64_t *n_refs,
                                    struct err *e);
/* From the lists to the caller, once the answers are there. */
void model_deliver(const struct batch_lists *l, const struct model_batch *b, int64_t n_refs,
                   struct model_answer *answers);

#endif
