/* The parts of the tokenizer one by one: byte alphabet, merging, expressions, cutting, added tokens, NFC. */
#include <criterion/criterion.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "worker/tok/tok_added.h"
#include "worker/tok/tok_bpe.h"
#include "worker/tok/tok_bytemap.h"
#include "worker/tok/tok_regex.h"
#include "worker/tok/tok_split.h"
#include "worker/tok/tok_unicode.h"

/* ---- byte alphabet ---- */

Test(tok_parts, every_byte_has_the_code_point_of_the_definition)
{
    int32_t next = 0x100;
    for (int b = 0; b < 256; b++) {
        bool is_kept = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || (b >= 174 && b <= 255);
        int32_t expected = is_kept ? b : next++;
        cr_expect_eq(bytemap_code_point((unsigned char)b), expected, "byte %d", b);
        cr_expect_eq(bytemap_byte(expected), b, "byte %d", b);
    }
    cr_expect_eq(next, 0x144);
    for (int32_t cp = -1; cp < 0x200; cp++) {
        int b = bytemap_byte(cp);
        cr_expect(b < 0 || bytemap_code_point((unsigned char)b) == cp, "U+%04X", cp);
    }
}

Test(tok_parts, byte_alphabet_goes_round_and_refuses_foreign_text)
{
    char bytes[256], mapped[512], back[512];
    for (int b = 0; b < 256; b++)
        bytes[b] = (char)b;
    size_t n = bytemap_encode((struct str){bytes, 256}, mapped);
    size_t m = 0;
    cr_assert(bytemap_decode((struct str){mapped, n}, back, &m));
    cr_expect(m == 256 && memcmp(bytes, back, 256) == 0);
    static const struct str foreign[] = {STR(" "), STR("\u00AD"), STR("\u0144"), STR("\u4E00"),
                                         STR("\xC4")};
    for (size_t i = 0; i < ARRAY_LEN(foreign); i++)
        cr_expect(!bytemap_decode(foreign[i], back, &m), "row %zu", i);
}

/* ---- merging ---- */

enum { N_RULES = 60, N_LETTERS = 4 };
struct rule {
    int32_t left, right;
};

/* The definition: merge the pair of lowest rank, leftmost first, until there is none. */
static size_t merge_slowly(const struct rule *rules, struct str piece, int32_t *ids)
{
    size_t n = piece.n;
    for (size_t i = 0; i < n; i++)
        ids[i] = (unsigned char)piece.p[i];
    for (;;) {
        int best = N_RULES;
        size_t at = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            for (int r = 0; r < best; r++) {
                if (rules[r].left == ids[i] && rules[r].right == ids[i + 1]) {
                    best = r;
                    at = i;
                }
            }
        }
        if (best == N_RULES)
            return n;
        ids[at] = 256 + best;
        memmove(ids + at + 1, ids + at + 2, (n - at - 2) * sizeof(*ids));
        n--;
    }
}

Test(tok_parts, merging_by_heap_equals_merging_by_definition)
{
    struct rng r = {7};
    for (int round = 0; round < 200; round++) {
        int32_t byte_id[256];
        struct rule rules[N_RULES];
        for (int b = 0; b < 256; b++)
            byte_id[b] = b;
        struct bpe *bpe = bpe_new(byte_id, N_RULES);
        for (int i = 0; i < N_RULES; i++) { /* parts are letters or results of earlier rules */
            int32_t *part[2] = {&rules[i].left, &rules[i].right};
            for (int p = 0; p < 2; p++) {
                int64_t k = (int64_t)rng_below(&r, (uint64_t)(N_LETTERS + i));
                *part[p] = (int32_t)(k < N_LETTERS ? 'a' + k : 256 + k - N_LETTERS);
            }
            bpe_add_merge(bpe, rules[i].left, rules[i].right, 256 + i);
        }
        for (int text = 0; text < 20; text++) {
            char piece[90];
            int32_t expected[90];
            size_t n = 1 + rng_below(&r, sizeof(piece));
            for (size_t i = 0; i < n; i++)
                piece[i] = (char)('a' + rng_below(&r, N_LETTERS));
            size_t n_expected = 0;
            struct rule last[N_RULES]; /* of a pair given twice only the later rule stands */
            memcpy(last, rules, sizeof(last));
            for (int i = 0; i < N_RULES; i++) {
                for (int j = i + 1; j < N_RULES; j++) {
                    if (rules[i].left == rules[j].left && rules[i].right == rules[j].right)
                        last[i] = (struct rule){-1, -1};
                }
            }
            n_expected = merge_slowly(last, (struct str){piece, n}, expected);
            struct tok_ids ids = {0};
            bpe_encode(bpe, (struct str){piece, n}, &ids);
            cr_assert_eq(ids.n, n_expected);
            cr_assert(memcmp(ids.v, expected, n_expected * sizeof(*expected)) == 0);
            tok_ids_release(&ids);
        }
        bpe_free(bpe);
    }
}

Test(tok_parts, a_whole_token_is_taken_only_where_merges_are_ignored)
{
    int32_t byte_id[256];
    for (int b = 0; b < 256; b++)
        byte_id[b] = b;
    struct tok_ids ids = {0};
    for (int is_whole = 0; is_whole < 2; is_whole++) {
        struct bpe *bpe = bpe_new(byte_id, 1);
        bpe_add_merge(bpe, 'a', 'b', 300);
        for (int i = 0; is_whole && i < 1000; i++) { /* so that the table grows */
            static char text[1000][3];
            text[i][0] = (char)('a' + i / 100);
            text[i][1] = (char)('0' + i / 10 % 10);
            text[i][2] = (char)('0' + i % 10);
            bpe_add_whole(bpe, (struct str){text[i], 3}, 1000 + i);
        }
        bpe_encode(bpe, STR("b07"), &ids);
        bpe_encode(bpe, STR("abc"), &ids);
        bpe_free(bpe);
    }
    static const int32_t expected[] = {'b', '0', '7', 300, 'c', 1107, 300, 'c'};
    cr_assert_eq(ids.n, ARRAY_LEN(expected));
    cr_expect(memcmp(ids.v, expected, sizeof(expected)) == 0);
    tok_ids_release(&ids);
}

/* ---- expressions ---- */

#define S  UNI_SPACE_CLASS
#define NS UNI_NOT_SPACE_CLASS

Test(tok_parts, oniguruma_syntax_is_rewritten_for_pcre2)
{
    static const struct {
        const char *in, *out;
    } rows[] = {
        {"a b#", "a\\ b\\#"},
        {"\\s+(?!\\S)", "[" S "]+(?![^" S "])"},
        {"[^\\s\\p{L}\\p{N}]", "[^" S "\\p{L}\\p{N}]"},
        {"[\\S\\d]", "[" NS "\\p{Nd}]"},
        /* inner classes are unions, also of a negated one */
        {" ?[^(\\s|[.,!?…])]+", "\\ ?[^\\(" S "\\|\\.\\,\\!\\?…\\)]+"},
        {"[a[b[c]d]e]", "[abcde]"},
        {"[a-zé-ü]", "[a-zé-ü]"},
        {"[a\\-z-]", "[a\\-z\\-]"},
        {"[-a]", "[\\-a]"},
        {"[!--]", "[\\!-\\-]"},
        {"[\\]\\[\\\\]", "[\\]\\[\\\\]"},
        {"(ab|c)", "(?:ab|c)"},
        {"\\p{Lu}\\P{Nd}", "\\p{Lu}\\P{Nd}"},
        {"a{2}b{1,}c{1,3}", "a{2}b{1,}c{1,3}"},
        {"a?b*?c++", "a?b*?c++"},
        {".\\n\\r\\t", "[^\\n]\\n\\r\\t"},
        {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|x", "(?i:'s|'t|'re|'ve|'m|'ll|'d)|x"},
        {"\x01", "\\x{1}"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct buf out = {0};
        struct err e = {0};
        cr_expect_eq(tok_regex_translate(str_of(rows[i].in), &out, &e), ERR_OK, "%s: %s",
                     rows[i].in, e.text);
        cr_expect_str_eq(out.data, rows[i].out, "%s becomes %s", rows[i].in, out.data);
        buf_release(&out);
    }
}

Test(tok_parts, what_the_engines_may_read_differently_is_refused)
{
    static const char *const rows[] = {
        "^a",      "a$",      "\\w",        "\\b",     "\\h",     "\\x41",       "\\1",
        "\\pL",    "\\p{^L}", "\\p{Greek}", "\\p{C}",  "[a&&b]",  "[[:alpha:]]", "[a[^b]]",
        "[]",      "[]a]",    "[a",         "[\\d-z]", "[a-\\d]", "[a-b-c]",     "[a-[b]]",
        "[--a]",   "(?<a>b)", "(?<=a)b",    "(?i:ab)", "(?i)a",   "(?#c)",       "(*ACCEPT)",
        "a{,3}",   "a{2}+",   "a{1,2}?",    "a{x}",    "{",       "\\",          "[\\",
        "\\u0041", "\\Q",
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct buf out = {0};
        struct err e = {0};
        cr_expect_eq(tok_regex_translate(str_of(rows[i]), &out, &e), ERR_UNSUPPORTED, "%s as %s",
                     rows[i], out.data);
        buf_release(&out);
    }
}

static struct tok_regex *compile(const char *pattern)
{
    struct tok_regex *r = NULL;
    struct err e = {0};
    cr_assert_eq(tok_regex_new(str_of(pattern), &r, &e), ERR_OK, "%s", e.text);
    return r;
}

Test(tok_parts, white_space_is_exactly_the_unicode_property)
{
    struct tok_regex *spaces = compile("[" S "]");
    struct tok_regex *others = compile("[" NS "]");
    struct tok_regex *property = compile("\\p{White_Space}");
    for (uint32_t cp = 1; cp < 0x110000; cp++) {
        char c[5] = {0};
        if (cp >= 0xD800 && cp < 0xE000)
            continue;
        size_t n = cp < 0x80 ? 1 : cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
        static const unsigned char lead[] = {0, 0, 0xC0, 0xE0, 0xF0};
        for (size_t i = 0; i < n; i++)
            c[i] =
                (char)(i > 0 ? 0x80 | (cp >> 6 * (n - 1 - i) & 0x3F) : lead[n] | cp >> 6 * (n - 1));
        struct str text = {c, n};
        struct tok_regex *r[] = {spaces, others, property};
        bool is_match[3];
        for (int i = 0; i < 3; i++) {
            size_t start = 0, end = 0;
            struct err e;
            cr_assert_eq(tok_regex_next(r[i], text, 0, &start, &end, &e), ERR_OK);
            is_match[i] = start == 0;
        }
        cr_expect(is_match[0] == is_match[2] && is_match[1] != is_match[0], "U+%04X", cp);
        cr_expect_eq(uni_spaces_at_start(text) == n, is_match[0], "U+%04X", cp);
    }
    tok_regex_free(spaces);
    tok_regex_free(others);
    tok_regex_free(property);
}

Test(tok_parts, endless_backtracking_is_an_error)
{
    struct tok_regex *r = compile("(?:a|aa|aaa)+[bc]");
    struct buf text = {0};
    for (int i = 0; i < 5000; i++)
        buf_addc(&text, 'a');
    struct err e = {0};
    size_t start = 0, end = 0;
    cr_expect_eq(tok_regex_next(r, (struct str){text.data, text.len}, 0, &start, &end, &e),
                 ERR_UNSUPPORTED);
    cr_expect(strstr(e.text, "gave up") != NULL, "%s", e.text);
    buf_release(&text);
    tok_regex_free(r);
}

/* ---- cutting ---- */

Test(tok_parts, behaviors_cut_as_their_names_say)
{
    static const struct {
        enum split_behavior behavior;
        bool is_inverted;
        const char *pieces;
    } rows[] = {
        {SPLIT_ISOLATED, false, "the|-|final|-|-|cut|-"},
        {SPLIT_REMOVED, false, "the|final|cut"},
        {SPLIT_MERGED_WITH_PREVIOUS, false, "the-|final-|-|cut-"},
        {SPLIT_MERGED_WITH_NEXT, false, "the|-final|-|-cut|-"},
        {SPLIT_CONTIGUOUS, false, "the|-|final|--|cut|-"},
        {SPLIT_ISOLATED, true, "the|-|final|-|-|cut|-"},
        {SPLIT_REMOVED, true, "-|-|-|-"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct split *s = split_new();
        const struct str *pieces = NULL;
        size_t n = 0;
        struct err e = {0};
        struct buf joined = {0};
        cr_assert_eq(split_add_regex(s, STR("-"), rows[i].behavior, rows[i].is_inverted, &e),
                     ERR_OK);
        cr_assert_eq(split_run(s, STR("the-final--cut-"), &pieces, &n, &e), ERR_OK);
        for (size_t p = 0; p < n; p++)
            buf_printf(&joined, "%s%.*s", p > 0 ? "|" : "", (int)pieces[p].n, pieces[p].p);
        cr_expect_str_eq(joined.data, rows[i].pieces, "row %zu: %s", i, joined.data);
        buf_release(&joined);
        split_free(s);
    }
}

Test(tok_parts, stages_after_the_byte_alphabet_see_it_and_pieces_are_bytes_again)
{
    struct split *s = split_new();
    const struct str *pieces = NULL;
    size_t n = 0;
    struct err e = {0};
    cr_assert_eq(split_add_prefix_space(s, &e), ERR_OK);
    cr_assert_eq(split_add_bytemap(s, &e), ERR_OK);
    cr_assert_eq(split_add_regex(s, STR("\u0120"), SPLIT_ISOLATED, false, &e), ERR_OK);
    cr_assert_eq(split_run(s, STR("a é"), &pieces, &n, &e), ERR_OK);
    static const char *const expected[] = {" ", "a", " ", "é"};
    cr_assert_eq(n, ARRAY_LEN(expected));
    for (size_t i = 0; i < n; i++)
        cr_expect(str_eqz(pieces[i], expected[i]), "piece %zu", i);
    split_free(s);
}

Test(tok_parts, more_stages_than_fit_are_refused)
{
    struct split *s = split_new();
    struct err e = {0};
    enum err_code rc = ERR_OK;
    for (int i = 0; i < 100 && rc == ERR_OK; i++)
        rc = split_add_regex(s, STR("x"), SPLIT_ISOLATED, false, &e);
    cr_expect_eq(rc, ERR_UNSUPPORTED);
    split_free(s);
}

/* ---- added tokens ---- */

static void expect_cut(const struct added *a, const char *text, const char *expected)
{
    struct added_cursor c = {0};
    struct buf out = {0};
    struct str gap = {0};
    int32_t id = -1;
    buf_adds(&out, "");
    while (added_next(a, str_of(text), &c, &gap, &id)) {
        if (gap.n > 0)
            buf_printf(&out, "(%.*s)", (int)gap.n, gap.p);
        if (id >= 0)
            buf_printf(&out, "%d", (int)id);
    }
    cr_expect_str_eq(out.data, expected, "\"%s\" gives %s", text, out.data);
    buf_release(&out);
}

Test(tok_parts, added_tokens_match_leftmost_then_longest)
{
    struct added *a = added_new();
    struct err e = {0};
    static const struct {
        const char *text;
        struct added_token token;
    } tokens[] = {
        {"ab", {.id = 1}},
        {"abc", {.id = 2}},
        {"bcd", {.id = 3}},
        {"ab", {.id = 4}}, /* the first one stays */
        {"<w>", {.id = 5, .is_single_word = true}},
        {"<l>", {.id = 6, .strips_left = true}},
        {"<r>", {.id = 7, .strips_right = true}},
    };
    expect_cut(a, "abc", "(abc)");
    for (size_t i = 0; i < ARRAY_LEN(tokens); i++)
        cr_assert_eq(added_insert(a, str_of(tokens[i].text), tokens[i].token, &e), ERR_OK);
    expect_cut(a, "", "");
    expect_cut(a, "ab", "1");
    expect_cut(a, "xabcdbcd", "(x)2(d)3");
    expect_cut(a, "aab", "(a)1");
    expect_cut(a, "<w> a<w> <w>é é<w>", "5( a<w> <w>é é<w>)");
    expect_cut(a, "a \u2003<l> b", "(a)6( b)");
    expect_cut(a, "a <r> \n b", "(a )7(b)");
    expect_cut(a, "<r> <l>", "76");
    added_free(a);
}

Test(tok_parts, added_tokens_of_no_or_absurd_length_are_refused)
{
    struct added *a = added_new();
    struct err e = {0};
    char text[ADDED_MAX_BYTES + 1];
    memset(text, 'x', sizeof(text));
    cr_expect_eq(added_insert(a, STR(""), (struct added_token){0}, &e), ERR_FORMAT);
    cr_expect_eq(added_insert(a, (struct str){text, sizeof(text)}, (struct added_token){0}, &e),
                 ERR_FORMAT);
    enum err_code rc = ERR_OK;
    for (int i = 0; i < 20000 && rc == ERR_OK; i++) {
        memcpy(text, &i, sizeof(i));
        rc = added_insert(a, (struct str){text, ADDED_MAX_BYTES}, (struct added_token){0}, &e);
    }
    cr_expect_eq(rc, ERR_FORMAT, "all together");
    added_free(a);
}

/* ---- Unicode ---- */

Test(tok_parts, nfc_composes_orders_and_stops_at_marks_its_tables_do_not_know)
{
    static const struct {
        const char *in, *out;
    } rows[] = {
        {"plain", "plain"},
        {"e\u0301", "\u00E9"},
        {"A\u030A\u212B", "\u00C5\u00C5"},
        {"a\u0301\u0327", "\u00E1\u0327"},
        {"q\u0301\u0327", "q\u0327\u0301"},
        {"\u1100\u1161\u11A8", "\uAC01"},
        {"\uAC00\u11A7", "\uAC00\u11A7"}, /* one before the trailing consonants */
        {"\u1100\u1161\u11A7\u11A8", "\uAC00\u11A7\u11A8"},
        {"\u0958", "\u0915\u093C"},           /* composition exclusion */
        {"x\u1DF6\u0327y", "x\u1DF6\u0327y"}, /* U+1DF6 is younger than the tables */
        {"e\u1ABF\u0301", "e\u1ABF\u0301"},
        {"\U00011935\U00011930", "\U00011935\U00011930"},
        {"é\u0301 日本 e\u0301", "é\u0301 日本 é"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct buf out = {0};
        uni_append_nfc(&out, str_of(rows[i].in));
        cr_expect_str_eq(out.data, rows[i].out, "row %zu: %s", i, out.data);
        cr_expect(!uni_is_plainly_nfc(str_of(rows[i].in)) || strcmp(rows[i].in, out.data) == 0);
        buf_release(&out);
    }
}

Test(tok_parts, words_end_where_unicode_says)
{
    static const struct {
        const char *text;
        bool starts, ends;
    } rows[] = {
        {"", false, false},     {"a.", true, false}, {".a", false, true}, {"é", true, true},
        {"_", true, true},      {"½", false, false}, {"Ⅷ", true, true},   {"\u0301", true, true},
        {"\u200D", true, true}, {"ⓐ", true, true},   {"-", false, false}, {"３", true, true},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        cr_expect_eq(uni_starts_in_word(str_of(rows[i].text)), rows[i].starts, "row %zu", i);
        cr_expect_eq(uni_ends_in_word(str_of(rows[i].text)), rows[i].ends, "row %zu", i);
    }
}
