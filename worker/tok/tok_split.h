/* Pre-tokenization: a stretch of text between added tokens is cut into the pieces that are merged on their own. A
 * splitter is a list of stages, run one after the other over all pieces (Hugging Face's `Sequence`). Thread: one at
 * a time. */
#ifndef ISOBIT_WORKER_TOK_TOK_SPLIT_H
#define ISOBIT_WORKER_TOK_TOK_SPLIT_H

#include "base/str.h"

/* What becomes of a match: a piece of its own, dropped, joined with the piece before or behind it, or adjacent
 * matches in one piece. */
enum split_behavior {
    SPLIT_ISOLATED,
    SPLIT_REMOVED,
    SPLIT_MERGED_WITH_PREVIOUS,
    SPLIT_MERGED_WITH_NEXT,
    SPLIT_CONTIGUOUS
};

struct split; /* opaque */
struct split *split_new(void);
void split_free(struct split *s);

/* `pattern` is in PCRE2's syntax; `is_inverted`: what it does not match is the delimiter.
 * Errors: those of tok_regex_new; ERR_UNSUPPORTED for too many stages. */
MUST_USE enum err_code split_add_regex(struct split *s, struct str pattern,
                                       enum split_behavior behavior, bool is_inverted,
                                       struct err *e);
/* Puts a space in front of pieces that do not begin with one. */
MUST_USE enum err_code split_add_prefix_space(struct split *s, struct err *e);
/* Later stages see the byte alphabet of tok_bytemap.h; the pieces that come out are bytes again. */
MUST_USE enum err_code split_add_bytemap(struct split *s, struct err *e);

/* *pieces: array[*n], valid until the next call; together the text, except what a stage added or removed.
 * `text` is valid UTF-8 and borrowed until then. Errors: ERR_UNSUPPORTED (limits of the regex engine). */
MUST_USE enum err_code split_run(struct split *s, struct str text, const struct str **pieces,
                                 size_t *n, struct err *e);

#endif
