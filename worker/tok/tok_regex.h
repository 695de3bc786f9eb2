/* Regular expressions of tokenizer files, run by PCRE2 with its JIT compiler. The files are written for Oniguruma,
 * whose classes nest and whose \s is exactly White_Space; a pattern is rewritten for PCRE2, and whatever the two
 * engines may understand differently is refused. Thread: one at a time (match data is kept). */
#ifndef ISOBIT_WORKER_TOK_TOK_REGEX_H
#define ISOBIT_WORKER_TOK_TOK_REGEX_H

#include "base/str.h"

/* The pre-tokenizer of GPT-2 (evaluation spec, section 10), also that of `ByteLevel` with use_regex. */
extern const char tok_regex_gpt2[];

/* Appends the pattern in PCRE2's syntax. Errors: ERR_UNSUPPORTED with the construct and its byte offset. */
MUST_USE enum err_code tok_regex_translate(struct str pattern, struct buf *out, struct err *e);
/* Appends text that matches `literal` and nothing else. */
void tok_regex_quote(struct str literal, struct buf *out);

struct tok_regex; /* opaque */

/* Compiles PCRE2 syntax. Errors: ERR_FORMAT (with the offset), ERR_UNSUPPORTED when it could match no characters at
 * all. */
MUST_USE enum err_code tok_regex_new(struct str pcre2_pattern, struct tok_regex **out,
                                     struct err *e);
void tok_regex_free(struct tok_regex *r);

/* The first match in valid UTF-8 that starts at offset `from` or later: [*start, *end), or *start == text.n when
 * there is none. Errors: ERR_UNSUPPORTED when a limit of the engine was met. */
MUST_USE enum err_code tok_regex_next(struct tok_regex *r, struct str text, size_t from,
                                      size_t *start, size_t *end, struct err *e);

#endif
