/* What single items say: from the stored per-item log-likelihoods (views `samples` and `items`) to which items a configuration got
 * right and what each document cost it. Blobs are read one by one and reduced at once: a bit per item and score, a float per
 * document; 35,000 jobs over the published data sets take 60 MB. The blobs hold, per item (worker/eval/task_*.c):
 *   perplexity  1 float: log-likelihood of the document or window, summed over its tokens
 *   lambada     2 floats: log-likelihood of the last word; 1 when it was the most likely one
 *   others      one float per choice: its log-likelihood
 * Thread: the items may be read by many once loaded. */
#ifndef ISOBIT_ANALYSIS_ITEM_SCORES_H
#define ISOBIT_ANALYSIS_ITEM_SCORES_H

#include "analysis/frame.h"

/* Ways to call an item right (evaluation spec, section 2). Tasks without lengths have SCORE_ACC only. */
enum item_score { SCORE_ACC, SCORE_NORM, SCORE_BYTES, SCORE_COUNT };

/* The items of one finished job. Jobs with equal `set` saw the same items in the same order. */
struct item_job {
    int64_t job;
    enum task task;
    int n;                              /* items */
    int set;                            /* number of the item set and how many of it there are */
    const uint64_t *right[SCORE_COUNT]; /* bit i % 64 of word i / 64; NULL: no such score */
    const float
        *nll; /* perplexity: nats per document; NULL otherwise. May hold infinities and NaN */
    const double *tokens; /* perplexity: scored tokens per document, shared within the set */
};

struct items {
    struct item_job *jobs; /* ascending job */
    int n;
    int n_sets;
    int n_unreadable;       /* jobs whose samples were left out */
    const char *unreadable; /* why the first one was; NULL: none */
};

/* Loads the items of every job that a row of the frame names. A job without samples has no entry; samples that do not fit their
 * items (damaged, another length, an unknown codec) are left out and counted. Owned by `a`. Errors: those of store_query. */
MUST_USE enum err_code items_read(struct store *s, const struct frame *f, struct arena *a,
                                  struct items *out, struct err *e);

const struct item_job *items_of(const struct items *it, int64_t job); /* NULL: none */

/* Share of right items among [from, to); the whole job is [0, n). NaN without such a score or items. */
double items_accuracy(const struct item_job *j, enum item_score score, int from, int to);
/* Nats per token over the documents [from, to). */
double items_nll(const struct item_job *j, int from, int to);

#endif
