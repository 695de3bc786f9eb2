/* Text as one token stream, cut into windows that do not overlap: what strided perplexity and weight-std run on. */
#ifndef ISOBIT_WORKER_EVAL_WINDOWS_H
#define ISOBIT_WORKER_EVAL_WINDOWS_H

#include "worker/eval/data.h"
#include "worker/eval/eval.h"

/* Next document of the evaluation's subset; *record NULL at the end. The text is borrowed from the record. */
MUST_USE enum err_code windows_next_document(const struct eval_source *src, struct data_reader *r,
                                             json_t **record, struct str *text, struct err *e);
/* Tokens of the whole file into set->tokens; documents of JSON lines are joined by an empty line. */
MUST_USE enum err_code windows_read(const struct eval_source *src, struct data_reader *r,
                                    struct eval_set *set, struct err *e);
/* An item for each of the first `limit` (0: all) windows of set->tokens, tokens 1..window-1 scored; the tail is dropped.
 * Errors: ERR_FORMAT when not one window is full. */
MUST_USE enum err_code windows_add(const struct eval_source *src, struct eval_set *set,
                                   int32_t window, int64_t limit, struct err *e);

#endif
