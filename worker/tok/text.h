/* The few Unicode operations that task prompts need, with the meaning Python's str gives them, because the reference
 * implementation of the tasks is written in Python. Texts are valid UTF-8. Pure; any thread. */
#ifndef ISOBIT_WORKER_TOK_TEXT_H
#define ISOBIT_WORKER_TOK_TEXT_H

#include "base/str.h"

/* Code points: bytes that continue none. */
int64_t text_count_chars(struct str s);
/* Without white space (as Python's str.isspace has it) at both ends, or at the right end only. */
struct str text_strip(struct str s);
struct str text_strip_right(struct str s);
/* Appends str.capitalize(): first character to title case, all others to lower case. Of the characters whose case
 * form has several code points, sharp s, the Latin ligatures and the dotted capital I are expanded; the rare Greek and
 * Armenian ones take their one-to-one mapping. */
void text_capitalize(struct str s, struct buf *out);

#endif
