/* JSON through jansson: bounded parsing with the file and line in the error, and typed getters whose
 * errors name the key and what was expected. jansson's types are used as they are; this is the only
 * place that includes its header. Thread: a document belongs to one thread. */
#ifndef ISOBIT_BASE_JSON_H
#define ISOBIT_BASE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

/* Parses `text` (duplicate keys, trailing text and invalid UTF-8 are errors). `what` names the source in
 * errors. *out is a new reference; caller releases it with json_decref. Errors: ERR_FORMAT. */
MUST_USE enum err_code json_parse(struct str text, const char *what, json_t **out, struct err *e);
/* As json_parse, but strings may hold \u0000, as documents of the Pile do: read them with json_string_length. */
MUST_USE enum err_code json_parse_corpus(struct str text, const char *what, json_t **out,
                                         struct err *e);
/* As json_parse of a file of at most `max` bytes. */
MUST_USE enum err_code json_read(const char *path, size_t max, json_t **out, struct err *e);

/* Required members of an object. Strings are borrowed from the document. Errors: ERR_FORMAT with `what`,
 * the key, the expected type and, where given, the allowed range. */
MUST_USE enum err_code json_need_str(const json_t *o, const char *key, const char *what,
                                     const char **out, struct err *e);
MUST_USE enum err_code json_need_int(const json_t *o, const char *key, const char *what,
                                     int64_t min, int64_t max, int64_t *out, struct err *e);
MUST_USE enum err_code json_need_num(const json_t *o, const char *key, const char *what,
                                     double *out, struct err *e);
MUST_USE enum err_code json_need_obj(const json_t *o, const char *key, const char *what,
                                     json_t **out, struct err *e);
MUST_USE enum err_code json_need_arr(const json_t *o, const char *key, const char *what,
                                     json_t **out, struct err *e);

/* Optional members: the default when the key is absent or null or of another type. */
const char *json_opt_str(const json_t *o, const char *key, const char *def);
int64_t json_opt_int(const json_t *o, const char *key, int64_t def);
double json_opt_num(const json_t *o, const char *key, double def);
bool json_opt_bool(const json_t *o, const char *key, bool def);

/* A number for output: JSON null for NaN and infinities, which JSON cannot carry. New reference. */
json_t *json_number_or_null(double v);
/* Compact text with sorted keys off; numbers with 17 digits. Caller frees with free(), as jansson does;
 * wrapped here as a buffer append to keep one allocator. */
void json_append(struct buf *out, const json_t *doc, bool is_indented);
/* false when out->max is reached; a part of the text is in `out` then. */
bool json_try_append(struct buf *out, const json_t *doc, bool is_indented);

#endif
