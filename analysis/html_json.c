#include "analysis/html_json.h"

#include <math.h>

static void add_comma(struct buf *out)
{
    char last = out->len > 0 ? out->data[out->len - 1] : '[';
    if (last != '[' && last != '{' && last != ':')
        buf_addc(out, ',');
}

void hj_open(struct buf *out, char bracket)
{
    add_comma(out);
    buf_addc(out, bracket);
}

void hj_close(struct buf *out, char bracket)
{
    buf_addc(out, bracket);
}

static void add_escaped(struct buf *out, const char *text)
{
    for (const char *c = text; *c != '\0'; c++)
        switch (*c) {
        case '"':
        case '\\':
            buf_addc(out, '\\');
            buf_addc(out, *c);
            break;
        case '\n':
            buf_adds(out, "\\n");
            break;
        case '<':
            buf_adds(out, "\\u003c");
            break;
        default:
            if ((unsigned char)*c < ' ')
                buf_printf(out, "\\u%04x", (unsigned char)*c);
            else
                buf_addc(out, *c);
        }
}

void hj_text(struct buf *out, const char *text)
{
    add_comma(out);
    if (text == NULL) {
        buf_adds(out, "null");
        return;
    }
    buf_addc(out, '"');
    add_escaped(out, text);
    buf_addc(out, '"');
}

void hj_name(struct buf *out, const char *name)
{
    hj_text(out, name);
    buf_addc(out, ':');
}

void hj_number(struct buf *out, double v, int digits)
{
    add_comma(out);
    if (isfinite(v))
        buf_printf(out, "%.*g", digits, v);
    else
        buf_adds(out, "null");
}

void hj_int(struct buf *out, int64_t v)
{
    add_comma(out);
    buf_printf(out, "%lld", (long long)v);
}

static void hj_bool(struct buf *out, bool v)
{
    add_comma(out);
    buf_adds(out, v ? "true" : "false");
}

void hj_put_text(struct buf *out, const char *name, const char *text)
{
    hj_name(out, name);
    hj_text(out, text);
}

void hj_put_number(struct buf *out, const char *name, double v, int digits)
{
    hj_name(out, name);
    hj_number(out, v, digits);
}

void hj_put_int(struct buf *out, const char *name, int64_t v)
{
    hj_name(out, name);
    hj_int(out, v);
}

void hj_put_bool(struct buf *out, const char *name, bool v)
{
    hj_name(out, name);
    hj_bool(out, v);
}

void hj_put_numbers(struct buf *out, const char *name, const double *v, int n, int digits)
{
    hj_name(out, name);
    hj_open(out, '[');
    for (int i = 0; i < n; i++)
        hj_number(out, v[i], digits);
    hj_close(out, ']');
}
