#include "worker/tok/tok_unicode.h"

#include <string.h>
#include <utf8proc.h>

#include "base/mem.h"

enum { MAX_DECOMPOSED = 4 }; /* code points in the longest canonical decomposition */

/* One code point of valid UTF-8 at s.p[at]; advances `at`. */
static int32_t next_code_point(struct str s, size_t *at)
{
    utf8proc_int32_t cp = 0;
    utf8proc_ssize_t n =
        utf8proc_iterate((const utf8proc_uint8_t *)s.p + *at, (utf8proc_ssize_t)(s.n - *at), &cp);
    CHECK(n > 0);
    *at += (size_t)n;
    return cp;
}

static bool is_continuation(char c)
{
    return ((unsigned char)c & 0xC0) == 0x80;
}

/* Start of the code point that ends at s.p[end], end > 0. */
static size_t step_back(struct str s, size_t end)
{
    do {
        end--;
    } while (end > 0 && is_continuation(s.p[end]));
    return end;
}

size_t uni_valid_prefix(struct str text)
{
    const unsigned char *p = (const unsigned char *)text.p;
    size_t i = 0;
    while (i < text.n) {
        if (p[i] < 0x80) {
            i++;
            continue;
        }
        utf8proc_int32_t cp = 0;
        utf8proc_ssize_t n = utf8proc_iterate(p + i, (utf8proc_ssize_t)(text.n - i), &cp);
        if (n <= 0)
            return i;
        i += (size_t)n;
    }
    return text.n;
}

static bool is_space(int32_t cp)
{
    return (cp >= 0x9 && cp <= 0xD) || cp == 0x20 || cp == 0x85 || cp == 0xA0 || cp == 0x1680 ||
           (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 || cp == 0x2029 || cp == 0x202F ||
           cp == 0x205F || cp == 0x3000;
}

size_t uni_spaces_at_end(struct str text)
{
    size_t end = text.n;
    while (end > 0) {
        size_t start = step_back(text, end);
        size_t at = start;
        if (!is_space(next_code_point(text, &at)))
            break;
        end = start;
    }
    return text.n - end;
}

size_t uni_spaces_at_start(struct str text)
{
    size_t at = 0;
    while (at < text.n) {
        size_t next = at;
        if (!is_space(next_code_point(text, &next)))
            break;
        at = next;
    }
    return at;
}

static bool is_word(int32_t cp)
{
    switch (utf8proc_category(cp)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    case UTF8PROC_CATEGORY_SO: /* circled and squared letters are Alphabetic */
        return (cp >= 0x24B6 && cp <= 0x24E9) || (cp >= 0x1F130 && cp <= 0x1F149) ||
               (cp >= 0x1F150 && cp <= 0x1F169) || (cp >= 0x1F170 && cp <= 0x1F189);
    default:
        return cp == 0x200C || cp == 0x200D;
    }
}

bool uni_ends_in_word(struct str text)
{
    if (text.n == 0)
        return false;
    size_t at = step_back(text, text.n);
    return is_word(next_code_point(text, &at));
}

bool uni_starts_in_word(struct str text)
{
    size_t at = 0;
    return text.n > 0 && is_word(next_code_point(text, &at));
}

/* Lead bytes from 0xCC on begin U+0300 and above. Everything below is a starter that no character before it
 * composes with, so text may be cut in front of it and the parts normalized one by one. */
static bool begins_beyond_latin(char c)
{
    return (unsigned char)c >= 0xCC;
}

bool uni_is_plainly_nfc(struct str text)
{
    for (size_t i = 0; i < text.n; i++) {
        if (begins_beyond_latin(text.p[i]))
            return false;
    }
    return true;
}

static unsigned char class_of(int32_t cp)
{
    return (unsigned char)utf8proc_get_property(cp)->combining_class;
}

/* Canonical order of one run of marks: a stable counting sort, since utf8proc's exchanges of neighbours
 * take quadratic time on a long run. */
static void sort_marks(int32_t *marks, size_t n)
{
    bool is_sorted = true;
    for (size_t i = 1; i < n && is_sorted; i++)
        is_sorted = class_of(marks[i - 1]) <= class_of(marks[i]);
    if (is_sorted)
        return;
    size_t at[257] = {0};
    for (size_t i = 0; i < n; i++)
        at[class_of(marks[i]) + 1]++;
    for (size_t c = 1; c < ARRAY_LEN(at); c++)
        at[c] += at[c - 1];
    int32_t *sorted = xmalloc(n * sizeof(*sorted));
    for (size_t i = 0; i < n; i++)
        sorted[at[class_of(marks[i])]++] = marks[i];
    memcpy(marks, sorted, n * sizeof(*sorted));
    xfree(sorted);
}

static void order_marks(int32_t *cps, size_t n)
{
    size_t i = 0;
    while (i < n) {
        size_t start = i;
        while (i < n && class_of(cps[i]) != 0)
            i++;
        if (i - start > 1)
            sort_marks(cps + start, i - start);
        i += i < n;
    }
}

/* Hugging Face's NFC has the tables of Unicode 9.0: marks that are younger have combining class 0 there, so nothing
 * is reordered or composed across them, and U+11938, the one character since then with a canonical decomposition
 * (U+11935 U+11930), is left alone. These are all such code points up to Unicode 15.0, compared one by one. U+11A7 stands one
 * before the trailing Jamo: it composes with nothing (UAX #15, 3.12), but utf8proc takes it for a trailing one that is absent. */
static bool is_barrier(int32_t cp)
{
    static const struct {
        int32_t first, last;
    } ranges[] = {{0x7FD, 0x7FD},     {0x898, 0x89F},     {0x8CA, 0x8D3},     {0x9FE, 0x9FE},
                  {0xC3C, 0xC3C},     {0xD3B, 0xD3C},     {0xEBA, 0xEBA},     {0x11A7, 0x11A7},
                  {0x1715, 0x1715},   {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFA},   {0xA82C, 0xA82C},
                  {0x10D24, 0x10D27}, {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF}, {0x10F46, 0x10F50},
                  {0x10F82, 0x10F85}, {0x11070, 0x11070}, {0x1133B, 0x1133B}, {0x1145E, 0x1145E},
                  {0x11839, 0x1183A}, {0x11930, 0x11930}, {0x11938, 0x11938}, {0x1193D, 0x1193E},
                  {0x11943, 0x11943}, {0x119E0, 0x119E0}, {0x11A34, 0x11A34}, {0x11A47, 0x11A47},
                  {0x11A99, 0x11A99}, {0x11D42, 0x11D42}, {0x11D44, 0x11D45}, {0x11D97, 0x11D97},
                  {0x11F41, 0x11F42}, {0x16FF0, 0x16FF1}, {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136},
                  {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF}};
    size_t low = 0;
    size_t high = ARRAY_LEN(ranges);
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (cp > ranges[middle].last)
            low = middle + 1;
        else
            high = middle;
    }
    return low < ARRAY_LEN(ranges) && cp >= ranges[low].first;
}

/* Orders and composes what has been decomposed: UAX #15. cps[n] must be writable. */
static void append_composed(struct buf *out, int32_t *cps, size_t n)
{
    order_marks(cps, n);
    /* leaves UTF-8 and a NUL in the same memory */
    utf8proc_ssize_t bytes =
        utf8proc_reencode(cps, (utf8proc_ssize_t)n, UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    CHECK(bytes >= 0);
    buf_add(out, cps, (size_t)bytes);
}

/* All characters but the first have two bytes or more, so there are at most MAX_DECOMPOSED / 2 code points for each
 * byte, and the first one's. */
static void append_normalized(struct buf *out, struct str text)
{
    int32_t *cps = xmalloc((text.n * (MAX_DECOMPOSED / 2) + MAX_DECOMPOSED + 1) * sizeof(*cps));
    size_t n = 0;
    size_t at = 0;
    while (at < text.n) {
        size_t start = at;
        int32_t cp = next_code_point(text, &at);
        if (is_barrier(cp)) {
            append_composed(out, cps, n);
            buf_add(out, text.p + start, at - start);
            n = 0;
            continue;
        }
        int last_boundary = 0;
        utf8proc_ssize_t got = utf8proc_decompose_char(
            cp, cps + n, MAX_DECOMPOSED, UTF8PROC_DECOMPOSE | UTF8PROC_STABLE, &last_boundary);
        CHECK(got >= 0 && got <= MAX_DECOMPOSED);
        n += (size_t)got;
    }
    append_composed(out, cps, n);
    xfree(cps);
}

void uni_append_nfc(struct buf *out, struct str text)
{
    size_t at = 0;
    while (at < text.n) {
        size_t plain = at;
        while (plain < text.n && !begins_beyond_latin(text.p[plain]))
            plain++;
        if (plain == text.n) {
            buf_add(out, text.p + at, plain - at);
            return;
        }
        /* the character before the first one from U+0300 on may compose with it */
        size_t first =
            plain > at ? step_back((struct str){text.p + at, plain - at}, plain - at) + at : plain;
        buf_add(out, text.p + at, first - at);
        size_t end = plain;
        while (end < text.n && (begins_beyond_latin(text.p[end]) || is_continuation(text.p[end])))
            end++;
        append_normalized(out, (struct str){text.p + first, end - first});
        at = end;
    }
}
