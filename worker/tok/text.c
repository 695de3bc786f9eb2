#include "worker/tok/text.h"

#include <utf8proc.h>

int64_t text_count_chars(struct str s)
{
    int64_t n = 0;
    for (size_t i = 0; i < s.n; i++)
        n += ((unsigned char)s.p[i] & 0xC0) != 0x80;
    return n;
}

/* The code point at `at`, and its length in bytes; a broken sequence is one byte that stands for itself, so that callers
 * always advance. */
static int32_t code_point_at(struct str s, size_t at, size_t *len)
{
    utf8proc_int32_t c = 0;
    utf8proc_ssize_t n =
        utf8proc_iterate((const utf8proc_uint8_t *)s.p + at, (utf8proc_ssize_t)(s.n - at), &c);
    *len = n > 0 ? (size_t)n : 1;
    return n > 0 ? c : (unsigned char)s.p[at];
}

/* White_Space of Unicode plus the four separators U+001C..U+001F that Python adds. */
static bool is_space(int32_t c)
{
    return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
           c == 0x202F || c == 0x205F || c == 0x3000;
}

struct str text_strip_right(struct str s)
{
    while (s.n > 0) {
        size_t at = s.n - 1, len = 0;
        while (at > 0 && ((unsigned char)s.p[at] & 0xC0) == 0x80)
            at--;
        if (!is_space(code_point_at(s, at, &len)))
            break;
        s.n = at;
    }
    return s;
}

struct str text_strip(struct str s)
{
    s = text_strip_right(s);
    size_t at = 0, len = 0;
    while (at < s.n && is_space(code_point_at(s, at, &len)))
        at += len;
    return (struct str){s.p + at, s.n - at};
}

static void add_code_point(struct buf *out, int32_t c)
{
    utf8proc_uint8_t bytes[4];
    buf_add(out, bytes, (size_t)utf8proc_encode_char(c, bytes));
}

/* All title-case forms of several code points (SpecialCasing.txt). */
static const struct {
    int32_t from;
    const char *to;
} long_titles[] = {
    {0x00DF, "Ss"},
    {0x0149, "\u02BCN"},
    {0x01F0, "J\u030C"},
    {0x0390, "\u0399\u0308\u0301"},
    {0x03B0, "\u03A5\u0308\u0301"},
    {0x0587, "\u0535\u0582"},
    {0x1E96, "H\u0331"},
    {0x1E97, "T\u0308"},
    {0x1E98, "W\u030A"},
    {0x1E99, "Y\u030A"},
    {0x1E9A, "A\u02BE"},
    {0x1F50, "\u03A5\u0313"},
    {0x1F52, "\u03A5\u0313\u0300"},
    {0x1F54, "\u03A5\u0313\u0301"},
    {0x1F56, "\u03A5\u0313\u0342"},
    {0x1FB2, "\u1FBA\u0345"},
    {0x1FB4, "\u0386\u0345"},
    {0x1FB6, "\u0391\u0342"},
    {0x1FB7, "\u0391\u0342\u0345"},
    {0x1FC2, "\u1FCA\u0345"},
    {0x1FC4, "\u0389\u0345"},
    {0x1FC6, "\u0397\u0342"},
    {0x1FC7, "\u0397\u0342\u0345"},
    {0x1FD2, "\u0399\u0308\u0300"},
    {0x1FD3, "\u0399\u0308\u0301"},
    {0x1FD6, "\u0399\u0342"},
    {0x1FD7, "\u0399\u0308\u0342"},
    {0x1FE2, "\u03A5\u0308\u0300"},
    {0x1FE3, "\u03A5\u0308\u0301"},
    {0x1FE4, "\u03A1\u0313"},
    {0x1FE6, "\u03A5\u0342"},
    {0x1FE7, "\u03A5\u0308\u0342"},
    {0x1FF2, "\u1FFA\u0345"},
    {0x1FF4, "\u038F\u0345"},
    {0x1FF6, "\u03A9\u0342"},
    {0x1FF7, "\u03A9\u0342\u0345"},
    {0xFB00, "Ff"},
    {0xFB01, "Fi"},
    {0xFB02, "Fl"},
    {0xFB03, "Ffi"},
    {0xFB04, "Ffl"},
    {0xFB05, "St"},
    {0xFB06, "St"},
    {0xFB13, "\u0544\u0576"},
    {0xFB14, "\u0544\u0565"},
    {0xFB15, "\u0544\u056B"},
    {0xFB16, "\u054E\u0576"},
    {0xFB17, "\u0544\u056D"},
};

static void add_title(struct buf *out, int32_t c)
{
    for (size_t i = 0; i < ARRAY_LEN(long_titles); i++) {
        if (long_titles[i].from == c) {
            buf_adds(out, long_titles[i].to);
            return;
        }
    }
    add_code_point(out, utf8proc_totitle(c));
}

/* Cased of Unicode, without what is_case_ignorable says first. */
static bool is_cased(int32_t c)
{
    const utf8proc_category_t k = utf8proc_category(c);
    return k == UTF8PROC_CATEGORY_LU || k == UTF8PROC_CATEGORY_LL || k == UTF8PROC_CATEGORY_LT ||
           c == 0xAA || c == 0xBA || utf8proc_tolower(c) != c || utf8proc_toupper(c) != c;
}

/* Characters that the final-sigma rule looks through (Case_Ignorable): marks, formats, modifiers, and the punctuation
 * that stands inside words. */
static bool is_case_ignorable(int32_t c)
{
    static const int32_t inside_words[] = {'\'',   '.',    ':',    0xB7,   0x387,  0x55F,
                                           0x5F4,  0x2018, 0x2019, 0x2024, 0x2027, 0xFE13,
                                           0xFE52, 0xFE55, 0xFF07, 0xFF0E, 0xFF1A};
    for (size_t i = 0; i < ARRAY_LEN(inside_words); i++)
        if (c == inside_words[i])
            return true;
    const utf8proc_category_t k = utf8proc_category(c);
    return k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_ME || k == UTF8PROC_CATEGORY_CF ||
           k == UTF8PROC_CATEGORY_LM || k == UTF8PROC_CATEGORY_SK;
}

/* Whether the capital sigma at [at, at + len) ends a word: a cased letter before it and none after it. */
static bool is_final_sigma(struct str s, size_t at, size_t len)
{
    bool is_after_cased = false;
    size_t n = 0;
    for (size_t i = 0; i < at; i += n) {
        int32_t c = code_point_at(s, i, &n);
        if (!is_case_ignorable(c))
            is_after_cased = is_cased(c);
    }
    for (size_t i = at + len; i < s.n; i += n) {
        int32_t c = code_point_at(s, i, &n);
        if (!is_case_ignorable(c))
            return is_after_cased && !is_cased(c);
    }
    return is_after_cased;
}

void text_capitalize(struct str s, struct buf *out)
{
    enum { CAPITAL_SIGMA = 0x3A3, SIGMA = 0x3C3, FINAL_SIGMA = 0x3C2, CAPITAL_DOTTED_I = 0x130 };
    size_t len = 0;
    for (size_t at = 0; at < s.n; at += len) {
        int32_t c = code_point_at(s, at, &len);
        if (at == 0)
            add_title(out, c);
        else if (c == CAPITAL_SIGMA)
            add_code_point(out, is_final_sigma(s, at, len) ? FINAL_SIGMA : SIGMA);
        else if (c == CAPITAL_DOTTED_I)
            buf_adds(out, "i\u0307");
        else
            add_code_point(out, utf8proc_tolower(c));
    }
}
