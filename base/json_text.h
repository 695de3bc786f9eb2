/* A JSON text read where it stands: one array of tokens, no tree, nothing copied. For the message that a busy coordinator
 * receives twenty thousand times a second; everything else uses the tree of base/json.h, whose parser this one follows in
 * what it accepts (one object, no duplicate members), but for escaped or non-ASCII member names, which it refuses.
 * Pure; the text must outlive the tokens. */
#ifndef ISOBIT_BASE_JSON_TEXT_H
#define ISOBIT_BASE_JSON_TEXT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/mem.h"
#include "base/str.h"

enum json_kind {
    JSON_KIND_OBJECT,
    JSON_KIND_ARRAY,
    JSON_KIND_STRING,
    JSON_KIND_INT,
    JSON_KIND_REAL,
    JSON_KIND_WORD /* true, false, null */
};

/* A value. An object is followed by its members, name and value in turn, an array by its elements. */
struct json_token {
    struct str text; /* of a string: what stands between the quotes */
    int next;        /* the token after this value */
    enum json_kind kind;
    bool is_plain; /* a string of ASCII without escapes */
};

/* All zero is empty; may be used for one text after the other. */
struct json_text {
    struct json_token *v; /* v[0] is the whole */
    int n, cap;
    const char *what; /* names the text in errors; kept */
};

enum { JSON_TEXT_MAX_DEPTH = 32, JSON_TEXT_MAX_MEMBERS = 256 };

/* Errors: ERR_FORMAT, naming `what` and the byte. */
MUST_USE enum err_code json_text_parse(struct json_text *t, struct str text, const char *what,
                                       struct err *e);
void json_text_release(struct json_text *t);

/* The value of a member; -1 when there is none, or `object` is no object (or -1 itself). */
int json_text_get(const struct json_text *t, int object, const char *name);
bool json_text_is_null(const struct json_text *t, int value); /* also when it is -1 */

/* Members that must be there, as json_need_* of base/json.h. */
MUST_USE enum err_code json_text_int(const struct json_text *t, int object, const char *name,
                                     int64_t min, int64_t max, int64_t *out, struct err *e);
MUST_USE enum err_code json_text_num(const struct json_text *t, int object, const char *name,
                                     double *out, struct err *e);
/* A copy in `a`. */
MUST_USE enum err_code json_text_str(const struct json_text *t, int object, const char *name,
                                     struct arena *a, const char **out, struct err *e);
MUST_USE enum err_code json_text_obj(const struct json_text *t, int object, const char *name,
                                     int *out, struct err *e);

#endif
