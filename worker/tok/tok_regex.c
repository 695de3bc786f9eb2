#define PCRE2_CODE_UNIT_WIDTH 8
#include "worker/tok/tok_regex.h"

#include <pcre2.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "worker/tok/tok_unicode.h"

/* Deep backtracking takes this much before a match is given up; the patterns in use need less than 32 KiB. */
enum { JIT_STACK_MIN = 32 << 10, JIT_STACK_MAX = 4 << 20, MAX_CLASS_DEPTH = 16 };

const char tok_regex_gpt2[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* ---- rewriting Oniguruma's syntax ---- */

struct translation {
    struct str in;
    size_t at;
    struct buf *out;
};

static enum err_code refuse(const struct translation *t, const char *what, struct err *e)
{
    return err_set(e, ERR_UNSUPPORTED, "%s at byte %zu of the pattern \"%.*s\"", what, t->at,
                   (int)(t->in.n < 200 ? t->in.n : 200), t->in.p);
}

static bool is_alnum(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* The character at offset `ahead` from here; NUL behind the end. */
static char peek(const struct translation *t, size_t ahead)
{
    return ahead < t->in.n - t->at ? t->in.p[t->at + ahead] : '\0';
}

static bool follows(const struct translation *t, const char *z)
{
    return str_starts((struct str){t->in.p + t->at, t->in.n - t->at}, z);
}

/* One byte that stands for itself, or a part of one code point beyond ASCII. */
static void put_literal(struct buf *out, char c)
{
    if ((unsigned char)c < 0x20 || c == 0x7F)
        buf_printf(out, "\\x{%x}", (unsigned int)(unsigned char)c);
    else if ((unsigned char)c >= 0x80 || is_alnum(c))
        buf_addc(out, c);
    else
        buf_printf(out, "\\%c", c);
}

void tok_regex_quote(struct str literal, struct buf *out)
{
    for (size_t i = 0; i < literal.n; i++)
        put_literal(out, literal.p[i]);
}

/* \p{X} and \P{X} of the general categories, except C*: what is unassigned depends on the Unicode version. */
static enum err_code translate_property(struct translation *t, struct err *e)
{
    static const char *const names[] = {"L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M", "Mn",
                                        "Mc", "Me", "N",  "Nd", "Nl", "No", "P", "Pc",
                                        "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "S", "Sm",
                                        "Sc", "Sk", "So", "Z",  "Zs", "Zl", "Zp"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        char text[8];
        snprintf(text, sizeof(text), "{%s}", names[i]);
        t->at += 2;
        bool is_it = follows(t, text);
        t->at -= 2;
        if (is_it) {
            size_t n = 2 + strlen(text);
            buf_add(t->out, t->in.p + t->at, n);
            t->at += n;
            return ERR_OK;
        }
    }
    return refuse(t, "the property is not a general category", e);
}

/* An escape at t->at. *is_set: it stands for a set and cannot end a range. */
static enum err_code translate_escape(struct translation *t, bool in_class, bool *is_set,
                                      struct err *e)
{
    static const struct {
        char letter;
        const char *in_class, *alone;
    } sets[] = {
        {'s', UNI_SPACE_CLASS, "[" UNI_SPACE_CLASS "]"},
        {'S', UNI_NOT_SPACE_CLASS, "[^" UNI_SPACE_CLASS "]"},
        {'d', "\\p{Nd}", "\\p{Nd}"},
        {'D', "\\P{Nd}", "\\P{Nd}"},
        {'n', "\\n", NULL},
        {'r', "\\r", NULL},
        {'t', "\\t", NULL},
    };
    char c = peek(t, 1);
    if (c == 'p' || c == 'P') {
        *is_set = true;
        return translate_property(t, e);
    }
    for (size_t i = 0; i < ARRAY_LEN(sets); i++) {
        if (c != sets[i].letter)
            continue;
        *is_set = sets[i].alone != NULL;
        buf_adds(t->out, in_class || !*is_set ? sets[i].in_class : sets[i].alone);
        t->at += 2;
        return ERR_OK;
    }
    if (c <= 0x20 || c == 0x7F || is_alnum(c))
        return refuse(t, "this escape is not known", e);
    *is_set = false;
    put_literal(t->out, c);
    t->at += 2;
    return ERR_OK;
}

/* One member of a class: an escape or a literal code point. */
static enum err_code translate_member(struct translation *t, bool *is_set, struct err *e)
{
    if (peek(t, 0) == '\\')
        return translate_escape(t, true, is_set, e);
    *is_set = false;
    do {
        put_literal(t->out, t->in.p[t->at++]);
    } while (((unsigned char)peek(t, 0) & 0xC0) == 0x80);
    return ERR_OK;
}

/* A member and, when a hyphen and another one follow, the range between them. */
static enum err_code translate_range(struct translation *t, struct err *e)
{
    bool is_set = false;
    bool is_hyphen = peek(t, 0) == '-';
    TRY(translate_member(t, &is_set, e));
    if (peek(t, 0) != '-' || peek(t, 1) == ']')
        return ERR_OK;
    if (is_set || is_hyphen || peek(t, 1) == '[')
        return refuse(t, "this hyphen in a class is ambiguous", e);
    buf_addc(t->out, '-');
    t->at++;
    TRY(translate_member(t, &is_set, e));
    if (is_set || peek(t, 0) == '-')
        return refuse(t, "this range in a class is ambiguous", e);
    return ERR_OK;
}

/* [...] at t->at. Inner classes are unions, so their members go into the outer class, also a negated one:
 * [^(a|[bc])] is [^(a|bc)]. */
static enum err_code translate_class(struct translation *t, struct err *e)
{
    int depth = 0;
    do {
        char c = peek(t, 0);
        if (t->at >= t->in.n)
            return refuse(t, "a class does not end", e);
        if (follows(t, "&&") || follows(t, "[:"))
            return refuse(t, "set operations and POSIX classes are not known", e);
        if (c == ']') {
            depth--;
            t->at++;
            continue;
        }
        if (c != '[') {
            TRY(translate_range(t, e));
            continue;
        }
        bool is_negated = peek(t, 1) == '^';
        if (++depth > MAX_CLASS_DEPTH || (is_negated && depth > 1))
            return refuse(t, "this class inside a class is not known", e);
        if (depth == 1)
            buf_adds(t->out, is_negated ? "[^" : "[");
        t->at += is_negated ? 2 : 1;
        if (peek(t, 0) == ']')
            return refuse(t, "an empty class", e);
    } while (depth > 0);
    buf_addc(t->out, ']');
    return ERR_OK;
}

/* {n}, {n,} or {n,m}. What follows it is refused: Oniguruma reads {n}+ and {n}? as two quantifiers. */
static enum err_code translate_repeat(struct translation *t, struct err *e)
{
    size_t n = 1;
    while (is_digit(peek(t, n)))
        n++;
    bool is_ok = n > 1;
    if (is_ok && peek(t, n) == ',') {
        n++;
        while (is_digit(peek(t, n)))
            n++;
    }
    is_ok = is_ok && peek(t, n) == '}' && peek(t, n + 1) != '?' && peek(t, n + 1) != '+';
    if (!is_ok)
        return refuse(t, "this use of { is not known", e);
    buf_add(t->out, t->in.p + t->at, n + 1);
    t->at += n + 1;
    return ERR_OK;
}

static enum err_code translate_group(struct translation *t, struct err *e)
{
    /* The only use of (?i: whose foldings are certainly the same in both engines. */
    static const char contractions[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
    static const char *const openings[] = {"(?:", "(?!", "(?="};
    if (follows(t, contractions)) {
        buf_adds(t->out, contractions);
        t->at += sizeof(contractions) - 1;
        return ERR_OK;
    }
    for (size_t i = 0; i < ARRAY_LEN(openings); i++) {
        if (!follows(t, openings[i]))
            continue;
        buf_adds(t->out, openings[i]);
        t->at += strlen(openings[i]);
        return ERR_OK;
    }
    if (peek(t, 1) == '?' || peek(t, 1) == '*')
        return refuse(t, "this kind of group is not known", e);
    buf_adds(t->out, "(?:");
    t->at++;
    return ERR_OK;
}

static enum err_code translate_one(struct translation *t, struct err *e)
{
    bool is_set = false;
    char c = peek(t, 0);
    switch (c) {
    case '\\':
        return translate_escape(t, false, &is_set, e);
    case '[':
        return translate_class(t, e);
    case '(':
        return translate_group(t, e);
    case '{':
        return translate_repeat(t, e);
    case '^':
    case '$':
        return refuse(t, "line anchors are not known", e);
    case '.':
        buf_adds(t->out, "[^\\n]");
        break;
    case ')':
    case '|':
    case '?':
    case '*':
    case '+':
        buf_addc(t->out, c);
        break;
    default:
        put_literal(t->out, c);
        break;
    }
    t->at++;
    return ERR_OK;
}

enum err_code tok_regex_translate(struct str pattern, struct buf *out, struct err *e)
{
    struct translation t = {.in = pattern, .out = out};
    while (t.at < t.in.n)
        TRY(translate_one(&t, e));
    return ERR_OK;
}

/* ---- running ---- */

struct tok_regex {
    pcre2_code *code;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
    pcre2_match_data *match;
};

static enum err_code set_pcre2(struct err *e, enum err_code code, int number, const char *what,
                               size_t at)
{
    PCRE2_UCHAR text[200] = "";
    pcre2_get_error_message(number, text, sizeof(text));
    return err_set(e, code, "%s at byte %zu: %s", what, at, (const char *)text);
}

enum err_code tok_regex_new(struct str pattern, struct tok_regex **out, struct err *e)
{
    int number = 0;
    PCRE2_SIZE at = 0;
    pcre2_code *code =
        pcre2_compile((PCRE2_SPTR)pattern.p, pattern.n,
                      PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &number, &at, NULL);
    if (code == NULL)
        return set_pcre2(e, ERR_FORMAT, number, "the regular expression is wrong", at);
    uint32_t can_be_empty = 0;
    CHECK(pcre2_pattern_info(code, PCRE2_INFO_MATCHEMPTY, &can_be_empty) == 0);
    if (can_be_empty != 0) {
        pcre2_code_free(code);
        return err_set(e, ERR_UNSUPPORTED, "the regular expression matches the empty text");
    }
    struct tok_regex *r = xcalloc(1, sizeof(*r));
    r->code = code;
    r->context = pcre2_match_context_create(NULL);
    r->stack = pcre2_jit_stack_create(JIT_STACK_MIN, JIT_STACK_MAX, NULL);
    r->match = pcre2_match_data_create_from_pattern(code, NULL);
    CHECK(r->context != NULL && r->match != NULL);
    /* Where the JIT compiler is missing, or memory for its stack, the interpreter gives the same matches. */
    if (r->stack != NULL && pcre2_jit_compile(code, PCRE2_JIT_COMPLETE) == 0)
        pcre2_jit_stack_assign(r->context, NULL, r->stack);
    *out = r;
    return ERR_OK;
}

void tok_regex_free(struct tok_regex *r)
{
    if (r == NULL)
        return;
    pcre2_match_data_free(r->match);
    pcre2_jit_stack_free(r->stack);
    pcre2_match_context_free(r->context);
    pcre2_code_free(r->code);
    xfree(r);
}

enum err_code tok_regex_next(struct tok_regex *r, struct str text, size_t from, size_t *start,
                             size_t *end, struct err *e)
{
    int rc = pcre2_match(r->code, (PCRE2_SPTR)text.p, text.n, from, PCRE2_NO_UTF_CHECK, r->match,
                         r->context);
    if (rc == PCRE2_ERROR_NOMATCH) {
        *start = *end = text.n;
        return ERR_OK;
    }
    if (rc < 0)
        return set_pcre2(e, ERR_UNSUPPORTED, rc, "the regular expression gave up", from);
    const PCRE2_SIZE *range = pcre2_get_ovector_pointer(r->match);
    *start = range[0];
    *end = range[1];
    return ERR_OK;
}
