#include "base/str.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

struct str str_of(const char *z)
{
    return (struct str){z, z != NULL ? strlen(z) : 0};
}

bool str_eq(struct str a, struct str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

bool str_eqz(struct str a, const char *z)
{
    return str_eq(a, str_of(z));
}

bool str_starts(struct str s, const char *prefix)
{
    size_t n = strlen(prefix);
    return s.n >= n && memcmp(s.p, prefix, n) == 0;
}

bool str_ends(struct str s, const char *suffix)
{
    size_t n = strlen(suffix);
    return s.n >= n && memcmp(s.p + s.n - n, suffix, n) == 0;
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

struct str str_trim(struct str s)
{
    while (s.n > 0 && is_space(s.p[0])) {
        s.p++;
        s.n--;
    }
    while (s.n > 0 && is_space(s.p[s.n - 1]))
        s.n--;
    return s;
}

bool str_next_line(struct str *rest, struct str *line)
{
    if (rest->n == 0)
        return false;
    const char *nl = memchr(rest->p, '\n', rest->n);
    size_t n = nl != NULL ? (size_t)(nl - rest->p) : rest->n;
    size_t used = nl != NULL ? n + 1 : n;
    *line = (struct str){rest->p, n > 0 && nl != NULL && rest->p[n - 1] == '\r' ? n - 1 : n};
    rest->p += used;
    rest->n -= used;
    return true;
}

bool str_next_field(struct str *rest, char sep, struct str *field)
{
    if (rest->p == NULL)
        return false;
    const char *at = rest->n != 0 ? memchr(rest->p, sep, rest->n) : NULL;
    if (at == NULL) {
        *field = *rest;
        *rest = (struct str){NULL, 0};
        return true;
    }
    size_t n = (size_t)(at - rest->p);
    *field = (struct str){rest->p, n};
    rest->p += n + 1;
    rest->n -= n + 1;
    return true;
}

/* Linear back-tracking to the last star only, so a hostile pattern costs O(pattern * text). */
bool str_glob(const char *pattern, const char *text)
{
    const char *star = NULL;
    const char *resume = NULL;
    while (*text != '\0') {
        if (*pattern == '*') {
            star = ++pattern;
            resume = text;
        } else if (*pattern == '?' || *pattern == *text) {
            pattern++;
            text++;
        } else if (star != NULL) {
            pattern = star;
            text = ++resume;
        } else {
            return false;
        }
    }
    while (*pattern == '*')
        pattern++;
    return *pattern == '\0';
}

enum { BUF_DEFAULT_MAX = 64 << 20 };

bool buf_try_add(struct buf *b, const void *data, size_t n)
{
    size_t max = b->max != 0 ? b->max : (size_t)BUF_DEFAULT_MAX;
    if (n > max || b->len > max - n)
        return false;
    if (b->len + n + 1 > b->cap) {
        size_t cap = b->cap != 0 ? b->cap : 256;
        while (cap < b->len + n + 1)
            cap *= 2;
        b->data = xrealloc(b->data, cap);
        b->cap = cap;
    }
    if (n != 0)
        memcpy(b->data + b->len, data, n);
    b->len += n;
    b->data[b->len] = '\0';
    return true;
}

void buf_add(struct buf *b, const void *data, size_t n)
{
    CHECK(buf_try_add(b, data, n));
}

void buf_adds(struct buf *b, const char *z)
{
    buf_add(b, z, strlen(z));
}

void buf_addc(struct buf *b, char c)
{
    buf_add(b, &c, 1);
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
    char small[512];
    va_list ap;
    va_start(ap, fmt);
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(small, sizeof(small), fmt, ap);
    va_end(ap);
    CHECK(n >= 0);
    if ((size_t)n < sizeof(small)) {
        buf_add(b, small, (size_t)n);
    } else {
        char *large = xmalloc((size_t)n + 1);
        CHECK(vsnprintf(large, (size_t)n + 1, fmt, again) == n);
        buf_add(b, large, (size_t)n);
        xfree(large);
    }
    va_end(again);
}

void buf_reset(struct buf *b)
{
    b->len = 0;
    if (b->data != NULL)
        b->data[0] = '\0';
}

void buf_release(struct buf *b)
{
    xfree(b->data);
    *b = (struct buf){.max = b->max};
}

char *buf_detach(struct buf *b)
{
    buf_add(b, "", 0);
    char *data = b->data;
    *b = (struct buf){.max = b->max};
    return data;
}

enum { NUMBER_MAX = 64 };

static bool number_text(struct str s, char out[NUMBER_MAX])
{
    if (s.n == 0 || s.n >= NUMBER_MAX || is_space(s.p[0]) || memchr(s.p, '\0', s.n) != NULL)
        return false;
    memcpy(out, s.p, s.n);
    out[s.n] = '\0';
    return true;
}

bool parse_i64(struct str s, int64_t *out)
{
    char text[NUMBER_MAX];
    if (!number_text(s, text))
        return false;
    char *end = NULL;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0')
        return false;
    *out = v;
    return true;
}

bool parse_f64(struct str s, double *out)
{
    char text[NUMBER_MAX];
    if (!number_text(s, text))
        return false;
    char *end = NULL;
    errno = 0;
    double v = strtod(text, &end);
    if (errno == ERANGE || end == text || *end != '\0' || !isfinite(v))
        return false;
    *out = v;
    return true;
}

bool parse_bytes(struct str s, int64_t *out)
{
    size_t digits = 0;
    while (digits < s.n && ((s.p[digits] >= '0' && s.p[digits] <= '9') || s.p[digits] == '.'))
        digits++;
    double v = 0;
    if (!parse_f64((struct str){s.p, digits}, &v))
        return false;
    struct str unit = {s.p + digits, s.n - digits};
    static const char letters[] = "KMGT";
    double scale = 1;
    if (unit.n > 0 && !str_eqz(unit, "B")) {
        const char *at = strchr(letters, unit.p[0] & ~0x20);
        if (at == NULL || *at == '\0')
            return false;
        const struct str tail = {unit.p + 1, unit.n - 1};
        const bool is_decimal = str_eqz(tail, "B");
        if (tail.n > 0 && !is_decimal && !str_eqz(tail, "iB") && !str_eqz(tail, "i"))
            return false;
        scale = pow(is_decimal ? 1000 : 1024, (double)(at - letters + 1));
    }
    if (v * scale >= 9.2e18)
        return false;
    *out = (int64_t)(v * scale);
    return true;
}

char *fmt_si(double n, char out[32])
{
    static const char *prefix[] = {"", "k", "M", "G", "T", "P", "E", "Z"};
    size_t i = 0;
    while (fabs(n) >= 999.5 && i + 1 < ARRAY_LEN(prefix)) {
        n /= 1000;
        i++;
    }
    int decimals = i == 0 && n == floor(n) ? 0 : fabs(n) < 9.995 ? 2 : fabs(n) < 99.95 ? 1 : 0;
    snprintf(out, 32, "%.*f %s", decimals, n, prefix[i]);
    return out;
}

char *fmt_bytes(double n, char out[32])
{
    fmt_si(n, out);
    size_t used = strlen(out);
    snprintf(out + used, 32 - used, "B");
    return out;
}

char *fmt_duration(double seconds, char out[32])
{
    if (seconds < 10)
        snprintf(out, 32, "%.1f s", seconds);
    else if (seconds < 59.5)
        snprintf(out, 32, "%.0f s", seconds);
    else if (seconds < 3600)
        snprintf(out, 32, "%dm %02ds", (int)(seconds / 60), (int)fmod(seconds, 60));
    else if (seconds < 48 * 3600.0)
        snprintf(out, 32, "%dh %02dm", (int)(seconds / 3600), (int)fmod(seconds / 60, 60));
    else
        snprintf(out, 32, "%.1f days", seconds / 86400);
    return out;
}
