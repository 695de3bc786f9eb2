/* Added tokens: strings that are cut out of the text before anything else, leftmost and longest first, with the
 * flags of Hugging Face's AddedToken. A set is searched through a trie of bytes. Read-only once filled. */
#ifndef ISOBIT_WORKER_TOK_TOK_ADDED_H
#define ISOBIT_WORKER_TOK_TOK_ADDED_H

#include <stdint.h>

#include "base/str.h"

enum { ADDED_MAX_BYTES = 1024, ADDED_MAX_TOTAL = 16 << 20 };

struct added_token {
    int32_t id;
    bool is_single_word; /* matches only where no word character is beside it */
    bool strips_left;    /* takes the white space in front of it, too */
    bool strips_right;
};

struct added; /* opaque */
struct added *added_new(void);
void added_free(struct added *a);
/* Of two tokens with the same text the first stays. Errors: ERR_FORMAT (empty or longer than ADDED_MAX_BYTES, or
 * all together more than ADDED_MAX_TOTAL). */
MUST_USE enum err_code added_insert(struct added *a, struct str text, struct added_token token,
                                    struct err *e);

/* A position in one text; all zero is the start. */
struct added_cursor {
    size_t done;       /* text before it has been handed out */
    size_t search;     /* the next match starts here or later */
    size_t spaces_end; /* end of the white space that the last strips_right took */
};
/* The next stretch: first *gap (may be empty), text without added tokens, then the token *id, -1 at the end of the
 * text. False when nothing is left. `text` is valid UTF-8 and the same in all calls with one cursor. */
bool added_next(const struct added *a, struct str text, struct added_cursor *c, struct str *gap,
                int32_t *id);

#endif
