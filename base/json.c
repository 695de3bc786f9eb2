#include "base/json.h"

#include <math.h>
#include <stdlib.h>

#include "base/io.h"

static enum err_code parse(struct str text, size_t flags, const char *what, json_t **out,
                           struct err *e)
{
    json_error_t je;
    json_t *doc = json_loadb(text.p != NULL ? text.p : "", text.n, flags, &je);
    if (doc == NULL)
        return err_set(e, ERR_FORMAT, "%s:%d:%d: not valid JSON: %s", what, je.line, je.column,
                       je.text);
    *out = doc;
    return ERR_OK;
}

enum err_code json_parse(struct str text, const char *what, json_t **out, struct err *e)
{
    return parse(text, JSON_REJECT_DUPLICATES, what, out, e);
}

enum err_code json_parse_corpus(struct str text, const char *what, json_t **out, struct err *e)
{
    return parse(text, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, what, out, e);
}

enum err_code json_read(const char *path, size_t max, json_t **out, struct err *e)
{
    struct buf text = {0};
    TRY(io_read_file(path, max, &text, e));
    enum err_code rc = json_parse((struct str){text.data, text.len}, path, out, e);
    buf_release(&text);
    return rc;
}

static enum err_code wrong(const json_t *v, const char *key, const char *what, const char *expected,
                           struct err *e)
{
    static const char *names[] = {"an object",     "an array", "a string", "an integer",
                                  "a real number", "true",     "false",    "null"};
    return err_set(e, ERR_FORMAT, "%s: \"%s\" must be %s, but it is %s", what, key, expected,
                   v == NULL ? "missing" : names[json_typeof(v)]);
}

enum err_code json_need_str(const json_t *o, const char *key, const char *what, const char **out,
                            struct err *e)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_string(v))
        return wrong(v, key, what, "a string", e);
    *out = json_string_value(v);
    return ERR_OK;
}

enum err_code json_need_int(const json_t *o, const char *key, const char *what, int64_t min,
                            int64_t max, int64_t *out, struct err *e)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_integer(v))
        return wrong(v, key, what, "an integer", e);
    int64_t n = json_integer_value(v);
    if (n < min || n > max)
        return err_set(e, ERR_FORMAT, "%s: \"%s\" is %lld, expected %lld to %lld", what, key,
                       (long long)n, (long long)min, (long long)max);
    *out = n;
    return ERR_OK;
}

enum err_code json_need_num(const json_t *o, const char *key, const char *what, double *out,
                            struct err *e)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_number(v))
        return wrong(v, key, what, "a number", e);
    *out = json_number_value(v);
    return ERR_OK;
}

enum err_code json_need_obj(const json_t *o, const char *key, const char *what, json_t **out,
                            struct err *e)
{
    json_t *v = json_object_get(o, key);
    if (!json_is_object(v))
        return wrong(v, key, what, "an object", e);
    *out = v;
    return ERR_OK;
}

enum err_code json_need_arr(const json_t *o, const char *key, const char *what, json_t **out,
                            struct err *e)
{
    json_t *v = json_object_get(o, key);
    if (!json_is_array(v))
        return wrong(v, key, what, "an array", e);
    *out = v;
    return ERR_OK;
}

const char *json_opt_str(const json_t *o, const char *key, const char *def)
{
    const json_t *v = json_object_get(o, key);
    return json_is_string(v) ? json_string_value(v) : def;
}

int64_t json_opt_int(const json_t *o, const char *key, int64_t def)
{
    const json_t *v = json_object_get(o, key);
    return json_is_integer(v) ? json_integer_value(v) : def;
}

double json_opt_num(const json_t *o, const char *key, double def)
{
    const json_t *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : def;
}

bool json_opt_bool(const json_t *o, const char *key, bool def)
{
    const json_t *v = json_object_get(o, key);
    return json_is_boolean(v) ? json_boolean_value(v) : def;
}

json_t *json_number_or_null(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

static int append_chunk(const char *data, size_t n, void *arg)
{
    return buf_try_add(arg, data, n) ? 0 : -1;
}

bool json_try_append(struct buf *out, const json_t *doc, bool is_indented)
{
    size_t flags =
        JSON_ENCODE_ANY | JSON_REAL_PRECISION(17) | (is_indented ? JSON_INDENT(2) : JSON_COMPACT);
    return json_dump_callback(doc, append_chunk, out, flags) == 0;
}

void json_append(struct buf *out, const json_t *doc, bool is_indented)
{
    CHECK(json_try_append(out, doc, is_indented));
}
