/* What the tokenizer needs to know of Unicode: validity, white space, word characters, NFC. The tables are
 * utf8proc's. Pure. */
#ifndef ISOBIT_WORKER_TOK_TOK_UNICODE_H
#define ISOBIT_WORKER_TOK_TOK_UNICODE_H

#include <stdint.h>

#include "base/str.h"

/* White_Space as the inside of a PCRE2 class, and everything else. PCRE2's own \s also takes U+001C to U+001F
 * and, in older versions, U+180E. */
#define UNI_SPACE_CLASS                                                                            \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"    \
    "\\x{205f}\\x{3000}"
#define UNI_NOT_SPACE_CLASS                                                                        \
    "\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-"         \
    "\\x{1fff}\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}"        \
    "\\x{3001}-\\x{10ffff}"

/* Offset of the first byte that is not UTF-8 (surrogates and overlong forms are not); text.n when all is. */
size_t uni_valid_prefix(struct str text);

/* Length of the run of White_Space at the end or the start of valid UTF-8. */
size_t uni_spaces_at_end(struct str text);
size_t uni_spaces_at_start(struct str text);

/* Whether the last or first character of valid UTF-8 is a word character: Alphabetic, a mark, a decimal digit,
 * connector punctuation or a join control (UTS #18, annex C). False for the empty text. */
bool uni_ends_in_word(struct str text);
bool uni_starts_in_word(struct str text);

/* Appends the NFC form of valid UTF-8. Linear in the text, however many marks stand in a row. */
void uni_append_nfc(struct buf *out, struct str text);
/* True when the text cannot change under NFC: all below U+0300. False says nothing. */
bool uni_is_plainly_nfc(struct str text);

#endif
