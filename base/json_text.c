#include "base/json_text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

/* Grammar: RFC 8259. */
struct reader {
    struct json_text *t;
    const char *start, *p, *end;
    int depth;
    struct err *e;
};

static enum err_code bad(struct reader *r, const char *expected)
{
    return err_set(r->e, ERR_FORMAT, "%s: byte %zu: not valid JSON: %s", r->t->what,
                   (size_t)(r->p - r->start), expected);
}

static void skip_space(struct reader *r)
{
    while (r->p < r->end && (*r->p == ' ' || *r->p == '\n' || *r->p == '\t' || *r->p == '\r'))
        r->p++;
}

static bool take(struct reader *r, char c)
{
    skip_space(r);
    if (r->p == r->end || *r->p != c)
        return false;
    r->p++;
    return true;
}

/* The index of a new token: the array may move. */
static int push(struct json_text *t, enum json_kind kind)
{
    if (t->n == t->cap) {
        t->cap = t->cap > 0 ? 2 * t->cap : 128;
        t->v = xrealloc(t->v, (size_t)t->cap * sizeof(*t->v));
    }
    t->v[t->n] = (struct json_token){.kind = kind, .next = t->n + 1, .is_plain = true};
    return t->n++;
}

/* After the opening quote. Escapes are passed over here and understood by whoever reads the string. */
static enum err_code read_string(struct reader *r)
{
    int at = push(r->t, JSON_KIND_STRING);
    const char *from = r->p;
    bool is_plain = true;
    for (; r->p < r->end && *r->p != '"'; r->p++) {
        if ((unsigned char)*r->p < 0x20)
            return bad(r, "a control character in a string");
        is_plain &= *r->p != '\\' && (unsigned char)*r->p < 0x80;
        if (*r->p == '\\' && ++r->p == r->end)
            break;
    }
    if (r->p == r->end)
        return bad(r, "a string does not end");
    r->t->v[at].text = (struct str){from, (size_t)(r->p - from)};
    r->t->v[at].is_plain = is_plain;
    r->p++;
    return ERR_OK;
}

static size_t digits(struct reader *r)
{
    const char *from = r->p;
    while (r->p < r->end && *r->p >= '0' && *r->p <= '9')
        r->p++;
    return (size_t)(r->p - from);
}

static enum err_code read_number(struct reader *r)
{
    const char *from = r->p;
    enum json_kind kind = JSON_KIND_INT;
    r->p += *r->p == '-';
    bool is_zero_first = r->p < r->end && *r->p == '0';
    size_t n = digits(r);
    if (n == 0 || (is_zero_first && n > 1))
        return bad(r, "expected a value");
    if (r->p < r->end && *r->p == '.') {
        r->p++;
        kind = JSON_KIND_REAL;
        if (digits(r) == 0)
            return bad(r, "expected a digit");
    }
    if (r->p < r->end && (*r->p == 'e' || *r->p == 'E')) {
        r->p++;
        kind = JSON_KIND_REAL;
        r->p += r->p < r->end && (*r->p == '-' || *r->p == '+');
        if (digits(r) == 0)
            return bad(r, "expected a digit");
    }
    int at = push(r->t, kind);
    r->t->v[at].text = (struct str){from, (size_t)(r->p - from)};
    return ERR_OK;
}

static enum err_code read_word(struct reader *r)
{
    static const struct str words[] = {{"true", 4}, {"false", 5}, {"null", 4}};
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        if ((size_t)(r->end - r->p) < words[i].n || memcmp(r->p, words[i].p, words[i].n) != 0)
            continue;
        int at = push(r->t, JSON_KIND_WORD);
        r->t->v[at].text = (struct str){r->p, words[i].n};
        r->p += words[i].n;
        return ERR_OK;
    }
    return read_number(r);
}

static enum err_code read_value(struct reader *r);

/* After the brace. */
static enum err_code read_object(struct reader *r)
{
    int at = push(r->t, JSON_KIND_OBJECT);
    int n = 0;
    bool is_closed = take(r, '}');
    while (!is_closed) {
        int name = r->t->n;
        if (++n > JSON_TEXT_MAX_MEMBERS)
            return bad(r, "too many members");
        if (!take(r, '"'))
            return bad(r, "expected a member's name");
        TRY(read_string(r));
        if (!r->t->v[name].is_plain)
            return bad(r, "a member's name with an escape or beyond ASCII");
        for (int i = at + 1; i < name; i = r->t->v[i + 1].next)
            if (str_eq(r->t->v[i].text, r->t->v[name].text))
                return bad(r, "a member stands twice");
        if (!take(r, ':'))
            return bad(r, "expected ':'");
        TRY(read_value(r));
        is_closed = take(r, '}');
        if (!is_closed && !take(r, ','))
            return bad(r, "expected ',' or '}'");
    }
    r->t->v[at].next = r->t->n;
    return ERR_OK;
}

static enum err_code read_array(struct reader *r)
{
    int at = push(r->t, JSON_KIND_ARRAY);
    bool is_closed = take(r, ']');
    while (!is_closed) {
        TRY(read_value(r));
        is_closed = take(r, ']');
        if (!is_closed && !take(r, ','))
            return bad(r, "expected ',' or ']'");
    }
    r->t->v[at].next = r->t->n;
    return ERR_OK;
}

static enum err_code read_value(struct reader *r)
{
    enum err_code rc;
    if (++r->depth > JSON_TEXT_MAX_DEPTH)
        return bad(r, "too deep");
    if (take(r, '{'))
        rc = read_object(r);
    else if (take(r, '['))
        rc = read_array(r);
    else if (take(r, '"'))
        rc = read_string(r);
    else
        rc = r->p < r->end ? read_word(r) : bad(r, "expected a value");
    r->depth--;
    return rc;
}

enum err_code json_text_parse(struct json_text *t, struct str text, const char *what, struct err *e)
{
    struct reader r = {.t = t, .start = text.p, .p = text.p, .end = text.p + text.n, .e = e};
    t->n = 0;
    t->what = what;
    if (!take(&r, '{'))
        return bad(&r, "expected an object");
    r.depth = 1;
    TRY(read_object(&r));
    skip_space(&r);
    return r.p == r.end ? ERR_OK : bad(&r, "expected the end");
}

void json_text_release(struct json_text *t)
{
    xfree(t->v);
    *t = (struct json_text){0};
}

/* ---- reading ---- */

int json_text_get(const struct json_text *t, int object, const char *name)
{
    if (object < 0 || t->v[object].kind != JSON_KIND_OBJECT)
        return -1;
    for (int i = object + 1; i < t->v[object].next; i = t->v[i + 1].next)
        if (str_eqz(t->v[i].text, name))
            return i + 1;
    return -1;
}

bool json_text_is_null(const struct json_text *t, int value)
{
    return value < 0 || (t->v[value].kind == JSON_KIND_WORD && str_eqz(t->v[value].text, "null"));
}

static enum err_code wrong(const struct json_text *t, int value, const char *name,
                           const char *expected, struct err *e)
{
    static const char *const kinds[] = {"an object",  "an array",      "a string",
                                        "an integer", "a real number", "a word"};
    return err_set(e, ERR_FORMAT, "%s: \"%s\" must be %s, but it is %s", t->what, name, expected,
                   value < 0 ? "missing" : kinds[t->v[value].kind]);
}

enum err_code json_text_int(const struct json_text *t, int object, const char *name, int64_t min,
                            int64_t max, int64_t *out, struct err *e)
{
    int at = json_text_get(t, object, name);
    int64_t n = 0;
    if (at < 0 || t->v[at].kind != JSON_KIND_INT || !parse_i64(t->v[at].text, &n))
        return wrong(t, at, name, "an integer", e);
    if (n < min || n > max)
        return err_set(e, ERR_FORMAT, "%s: \"%s\" is %lld, expected %lld to %lld", t->what, name,
                       (long long)n, (long long)min, (long long)max);
    *out = n;
    return ERR_OK;
}

enum err_code json_text_num(const struct json_text *t, int object, const char *name, double *out,
                            struct err *e)
{
    int at = json_text_get(t, object, name);
    if (at < 0 || (t->v[at].kind != JSON_KIND_INT && t->v[at].kind != JSON_KIND_REAL))
        return wrong(t, at, name, "a number", e);
    /* The grammar was checked, and a number inside an object is followed by something that ends it. */
    double v = strtod(t->v[at].text.p, NULL);
    if (!isfinite(v))
        return wrong(t, at, name, "a finite number", e);
    *out = v;
    return ERR_OK;
}

/* Escapes and UTF-8 are rare enough to leave them to the other parser. */
static const char *decode(const struct json_token *v, struct arena *a)
{
    json_error_t je;
    char *copy = NULL;
    json_t *s = json_loadb(v->text.p - 1, v->text.n + 2, JSON_DECODE_ANY, &je);
    if (json_is_string(s))
        copy = arena_strdup(a, json_string_value(s));
    json_decref(s);
    return copy;
}

enum err_code json_text_str(const struct json_text *t, int object, const char *name,
                            struct arena *a, const char **out, struct err *e)
{
    int at = json_text_get(t, object, name);
    if (at < 0 || t->v[at].kind != JSON_KIND_STRING)
        return wrong(t, at, name, "a string", e);
    const struct json_token *v = &t->v[at];
    *out = v->is_plain ? arena_strndup(a, v->text.p, v->text.n) : decode(v, a);
    if (*out == NULL)
        return err_set(e, ERR_FORMAT, "%s: \"%s\" is no valid string", t->what, name);
    return ERR_OK;
}

enum err_code json_text_obj(const struct json_text *t, int object, const char *name, int *out,
                            struct err *e)
{
    int at = json_text_get(t, object, name);
    if (at < 0 || t->v[at].kind != JSON_KIND_OBJECT)
        return wrong(t, at, name, "an object", e);
    *out = at;
    return ERR_OK;
}
