/* Building an eval_set: texts and token streams become requests. Used by eval_load and the tasks. */
#ifndef ISOBIT_WORKER_EVAL_REQUESTS_H
#define ISOBIT_WORKER_EVAL_REQUESTS_H

#include "worker/eval/eval.h"

/* Starts an item: the requests added until the next one are its own. */
void requests_begin_item(struct eval_set *s, int gold);
/* One choice (or document, or window) of the item in progress, for the item list. */
void requests_add_choice(struct eval_set *s, int64_t chars, int64_t bytes, int64_t n_scored);
/* tokens[at, at + n) of the set, the last n_scored of them scored. */
void requests_add_span(struct eval_set *s, size_t at, int32_t n, int32_t n_scored);
/* After the last item. Finds equal requests. */
void requests_close(struct eval_set *s);

/* Appends log p(continuation | context) by the rules of the source's join mode (1.1) and cuts it to the model's context
 * (1.2). *n_scored is the number of tokens of the continuation. Errors: ERR_FORMAT for a continuation without tokens or
 * longer than the context; those of tok_encode. */
MUST_USE enum err_code requests_add_text(struct eval_set *s, const struct eval_source *src,
                                         struct str context, struct str continuation,
                                         int32_t *n_scored, struct err *e);

/* Appends the ids of `text` to ids, behind the tokenizer's prefix when the evaluation asks for one (--bos) and the text
 * does not begin with it. */
MUST_USE enum err_code requests_encode(const struct eval_source *src, struct str text,
                                       struct tok_ids *ids, struct err *e);
/* What stands before a text without context: h22 eos; h26 bos, else eos. Errors: ERR_UNSUPPORTED. */
MUST_USE enum err_code requests_prefix(const struct eval_source *src, int32_t *id, struct err *e);

#endif
