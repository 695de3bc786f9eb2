/* The tokenizer against ids that Hugging Face's software gave, and against files that lie. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/rng.h"
#include "tests/support/support.h"
#include "worker/tok/tok.h"

static struct tok *open_dir(const char *dir)
{
    struct tok *t = NULL;
    struct err e = {0};
    cr_assert_eq(tok_open(dir, &t, &e), ERR_OK, "%s", e.text);
    return t;
}

static struct tok *open_tiny(const char *name)
{
    char *dir = xasprintf("%s/%s", support_source("tests/golden/tokenizer_tiny"), name);
    struct tok *t = open_dir(dir);
    xfree(dir);
    return t;
}

static struct tok_ids encode(struct tok *t, struct str text)
{
    struct tok_ids ids = {0};
    struct err e = {0};
    cr_assert_eq(tok_encode(t, text, &ids, &e), ERR_OK, "%s", e.text);
    return ids;
}

/* One of the reference strings has a NUL, which json_read refuses. */
static json_t *read_json(const char *path)
{
    struct buf text = {0};
    struct err e = {0};
    cr_assert_eq(io_read_file(path, (size_t)16 << 20, &text, &e), ERR_OK, "%s", e.text);
    json_t *doc = json_loadb(text.data, text.len, JSON_ALLOW_NUL, NULL);
    cr_assert(doc != NULL, "%s", path);
    buf_release(&text);
    return doc;
}

static void expect_ids(struct tok *t, const char *who, const json_t *text, const json_t *expected)
{
    struct str view = {json_string_value(text), json_string_length(text)};
    struct tok_ids ids = encode(t, view);
    bool is_same = ids.n == json_array_size(expected);
    for (size_t i = 0; is_same && i < ids.n; i++)
        is_same = ids.v[i] == json_integer_value(json_array_get(expected, i));
    cr_expect(is_same, "%s: other ids for \"%s\"", who, view.p);
    tok_ids_release(&ids);
}

/* ---- references ---- */

/* A vocabulary that is not a directory of its own, under the names a checkpoint has. */
struct borrowed {
    const char *file, *name;
};
static const struct borrowed gpt2_files[] = {{"data/tokenizers/gpt2-vocab.json", "vocab.json"},
                                             {"data/tokenizers/gpt2-merges.txt", "merges.txt"},
                                             {NULL, NULL}};
static const struct borrowed neox_files[] = {
    {"data/tokenizers/gpt-neox-20b-tokenizer.json", "tokenizer.json"}, {NULL, NULL}};

static const struct reference {
    const char *name;             /* in the files of reference ids */
    const char *dir;              /* a directory of its own, or: */
    const struct borrowed *files; /* copied into one */
} references[] = {
    {"gpt2", NULL, gpt2_files},
    {"gpt-neox-20b", NULL, neox_files},
    {"zoo-bloom", "models/bloom-s0", NULL},
    {"zoo-pythia", "models/pythia-s0", NULL},
};

/* NULL when the files are absent. */
static struct tok *open_reference(const struct reference *r)
{
    if (r->dir != NULL) {
        const char *dir = support_shared(r->dir);
        return dir != NULL ? open_dir(dir) : NULL;
    }
    char *tmp = support_tmpdir();
    bool is_complete = true;
    for (const struct borrowed *f = r->files; f->file != NULL && is_complete; f++) {
        const char *from = support_shared(f->file);
        struct buf b = {0};
        struct err e;
        is_complete = from != NULL && io_read_file(from, (size_t)16 << 20, &b, &e) == ERR_OK;
        char *to = io_join(tmp, f->name);
        if (is_complete)
            support_write(to, b.data, b.len);
        xfree(to);
        buf_release(&b);
    }
    struct tok *t = is_complete ? open_dir(tmp) : NULL;
    support_tmpdir_remove(tmp);
    return t;
}

/* CRC-32 of IEEE 802.3. */
static uint32_t crc32_of(const void *data, size_t n)
{
    const unsigned char *p = data;
    uint32_t crc = ~0U;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320U : 0);
    }
    return ~crc;
}

static void expect_heldout(struct tok *t, const char *name, const json_t *goldens)
{
    char key[100];
    snprintf(key, sizeof(key), "%s/heldout-first-200000-chars", name);
    const json_t *expected = json_object_get(goldens, key);
    const char *path = support_shared("data/heldout_420k.txt");
    struct buf text = {0};
    struct err e;
    cr_assert(path != NULL && io_read_file(path, (size_t)1 << 20, &text, &e) == ERR_OK);
    struct tok_ids ids = encode(t, (struct str){text.data, 200000}); /* the text is ASCII */
    cr_expect_eq((int64_t)ids.n, json_opt_int(expected, "n", -1), "%s", name);
    cr_expect_eq((int64_t)crc32_of(ids.v, ids.n * sizeof(*ids.v)),
                 json_opt_int(expected, "crc32_of_le_uint32_ids", -1), "%s", name);
    tok_ids_release(&ids);
    buf_release(&text);
}

Test(tok, published_and_small_vocabularies_give_the_reference_ids)
{
    const char *path = support_shared("reference/tokenizer_goldens.json");
    if (path == NULL)
        return;
    json_t *goldens = read_json(path);
    for (size_t r = 0; r < ARRAY_LEN(references); r++) {
        struct tok *t = open_reference(&references[r]);
        cr_assert(t != NULL);
        const json_t *rows = json_object_get(goldens, references[r].name);
        cr_assert_eq(json_array_size(rows), 31);
        for (size_t i = 0; i < json_array_size(rows); i++) {
            const json_t *row = json_array_get(rows, i);
            expect_ids(t, references[r].name, json_object_get(row, "text"),
                       json_object_get(row, "ids"));
        }
        expect_heldout(t, references[r].name, goldens);
        tok_close(t);
    }
    json_decref(goldens);
}

Test(tok, every_model_begins_the_heldout_text_with_its_reference_ids)
{
    static const char *const models[] = {
        "bloom-s0", "bloom-s1", "bloom-s2", "gpt2-s0",   "gpt2-s1",   "gpt2-s2",   "opt-s0",
        "opt-s1p",  "opt-s2",   "opt-s3",   "pythia-s0", "pythia-s1", "pythia-s2", "pythia-s3"};
    const char *path = support_shared("data/heldout_420k.txt");
    if (path == NULL)
        return;
    struct buf text = {0};
    struct err e;
    cr_assert_eq(io_read_file(path, (size_t)1 << 20, &text, &e), ERR_OK);
    text.data[5000] = '\0'; /* 64 ids are far fewer characters */
    for (size_t m = 0; m < ARRAY_LEN(models); m++) {
        char name[64];
        snprintf(name, sizeof(name), "reference/%s.json", models[m]);
        json_t *reference = read_json(support_shared(name));
        const json_t *first = json_object_get(reference, "first_ids");
        snprintf(name, sizeof(name), "models/%s", models[m]);
        struct tok *t = open_dir(support_shared(name));
        struct tok_ids ids = encode(t, str_of(text.data));
        cr_assert_gt(json_array_size(first), 32);
        for (size_t i = 0; i < json_array_size(first); i++)
            cr_assert_eq(ids.v[i], json_integer_value(json_array_get(first, i)), "%s id %zu",
                         models[m], i);
        tok_ids_release(&ids);
        tok_close(t);
        json_decref(reference);
    }
    buf_release(&text);
}

static void expect_frozen(struct tok *t, const json_t *golden, const char *name)
{
    const json_t *strings = json_object_get(golden, "strings");
    const json_t *rows = json_object_get(json_object_get(golden, "ids"), name);
    cr_assert_eq(json_array_size(rows), json_array_size(strings), "%s", name);
    for (size_t i = 0; i < json_array_size(rows); i++)
        expect_ids(t, name, json_array_get(strings, i), json_array_get(rows, i));
}

/* Scripts, marks out of order, emoji, control characters, every kind of white space, unassigned code points, added
 * tokens with all flags: 200 strings and what Hugging Face's `tokenizers` makes of them. */
Test(tok, awkward_unicode_gives_the_frozen_ids)
{
    static const char *const tiny[] = {"neox", "bloom", "falcon", "opt"};
    json_t *golden = read_json(support_source("tests/golden/tokenizer_unicode.json"));
    cr_assert_geq(json_array_size(json_object_get(golden, "strings")), 200);
    for (size_t i = 0; i < ARRAY_LEN(tiny); i++) {
        char name[32];
        snprintf(name, sizeof(name), "tiny/%s", tiny[i]);
        struct tok *t = open_tiny(tiny[i]);
        expect_frozen(t, golden, name);
        tok_close(t);
    }
    for (size_t r = 0; r < ARRAY_LEN(references); r++) {
        struct tok *t = open_reference(&references[r]);
        if (t == NULL)
            continue;
        expect_frozen(t, golden, references[r].name);
        tok_close(t);
    }
    json_decref(golden);
}

/* ---- roles and identity ---- */

Test(tok, roles_come_from_the_tokenizer_files)
{
    static const struct {
        const char *name;
        int32_t size, bos, eos, prefix;
    } rows[] = {
        {"opt", 330, 2, 2, 2},      /* names in tokenizer_config.json, add_bos_token */
        {"falcon", 320, -1, -1, 0}, /* a template in tokenizer.json, no names */
        {"bloom", 320, -1, -1, -1},
        {"neox", 359, -1, -1, -1},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct tok *t = open_tiny(rows[i].name);
        cr_expect_eq(tok_vocab_size(t), rows[i].size, "%s", rows[i].name);
        cr_expect_eq(tok_bos(t), rows[i].bos, "%s", rows[i].name);
        cr_expect_eq(tok_eos(t), rows[i].eos, "%s", rows[i].name);
        cr_expect_eq(tok_default_prefix(t), rows[i].prefix, "%s", rows[i].name);
        tok_close(t);
    }
}

/* A directory in the making: files of a tiny tokenizer, to be spoilt. */
static char *copy_tiny(const char *name)
{
    static const char *const files[] = {"tokenizer.json", "vocab.json", "merges.txt",
                                        "tokenizer_config.json"};
    char *dir = support_tmpdir();
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        char *from =
            xasprintf("%s/%s/%s", support_source("tests/golden/tokenizer_tiny"), name, files[i]);
        char *to = io_join(dir, files[i]);
        struct buf b = {0};
        struct err e;
        if (io_exists(from)) {
            cr_assert_eq(io_read_file(from, (size_t)1 << 20, &b, &e), ERR_OK);
            support_write(to, b.data, b.len);
        }
        buf_release(&b);
        xfree(to);
        xfree(from);
    }
    return dir;
}

static void put(const char *dir, const char *name, const char *text)
{
    char *path = io_join(dir, name);
    support_write(path, text, strlen(text));
    xfree(path);
}

Test(tok, model_config_is_asked_only_for_roles_that_nobody_names)
{
    char *dir = copy_tiny("bloom");
    put(dir, "tokenizer_config.json",
        "{\"eos_token\": {\"content\": \"</s>\"}, \"bos_token\": null}");
    put(dir, "config.json", "{\"bos_token_id\": 7, \"eos_token_id\": [9, 10]}");
    struct tok *t = open_dir(dir);
    cr_expect_eq(tok_bos(t), 7);
    cr_expect_eq(tok_eos(t), 2);
    tok_close(t);
    put(dir, "special_tokens_map.json", "{\"bos_token\": \"<s>\", \"eos_token\": \"<pad>\"}");
    t = open_dir(dir);
    cr_expect_eq(tok_bos(t), 1);
    cr_expect_eq(tok_eos(t), 2);
    tok_close(t);
    support_tmpdir_remove(dir);
}

Test(tok, without_names_of_tokens_the_gpt2_class_takes_end_of_text)
{
    char *dir = copy_tiny("opt");
    put(dir, "tokenizer_config.json", "{}");
    struct tok *t = open_dir(dir);
    cr_expect_eq(tok_bos(t), -1, "this vocabulary has no <|endoftext|>");
    cr_expect_eq(tok_default_prefix(t), -1);
    struct tok_ids ids = encode(t, STR("</s>"));
    cr_expect_gt(ids.n, 1, "not named, so ordinary text");
    tok_ids_release(&ids);
    tok_close(t);
    support_tmpdir_remove(dir);
}

Test(tok, identity_covers_the_tokenizer_files_and_nothing_else)
{
    char *dir = copy_tiny("opt");
    struct buf lines = {0};
    static const char *const sorted[] = {"merges.txt", "tokenizer_config.json", "vocab.json"};
    for (size_t i = 0; i < ARRAY_LEN(sorted); i++) {
        char hex[SHA256_HEX];
        struct err e;
        char *path = io_join(dir, sorted[i]);
        cr_assert_eq(sha256_file(path, hex, &e), ERR_OK);
        buf_printf(&lines, "%s  %s\n", hex, sorted[i]);
        xfree(path);
    }
    char expected[SHA256_HEX];
    sha256_bytes(lines.data, lines.len, expected);
    put(dir, "config.json", "{\"bos_token_id\": 0}");
    struct tok *t = open_dir(dir);
    cr_expect_str_eq(tok_sha256(t), expected);
    tok_close(t);
    buf_release(&lines);
    support_tmpdir_remove(dir);
}

/* ---- texts ---- */

Test(tok, text_that_is_not_utf8_is_refused_with_the_offset)
{
    static const struct {
        struct str text;
        const char *offset;
    } rows[] = {
        {STR("ab\xFFz"), "offset 2"},           {STR("\x80"), "offset 0"},
        {STR("a\xC0\x80"), "offset 1"},         {STR("\xED\xA0\x80"), "offset 0"},
        {STR("ok\xE2\x82"), "offset 2"},        {STR("\xF4\x90\x80\x80"), "offset 0"},
        {STR("12345\xE0\x80\xAF"), "offset 5"},
    };
    struct tok *t = open_tiny("neox");
    struct tok_ids ids = encode(t, STR("kept"));
    size_t before = ids.n;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct err e = {0};
        cr_expect_eq(tok_encode(t, rows[i].text, &ids, &e), ERR_FORMAT, "row %zu", i);
        cr_expect(strstr(e.text, rows[i].offset) != NULL, "row %zu: %s", i, e.text);
        cr_expect_eq(ids.n, before);
    }
    tok_ids_release(&ids);
    tok_close(t);
}

Test(tok, empty_text_has_no_ids_and_nul_is_a_byte_like_any_other)
{
    struct tok *t = open_tiny("bloom");
    struct tok_ids none = encode(t, (struct str){NULL, 0});
    cr_expect_eq(none.n, 0);
    struct tok_ids ids = encode(t, (struct str){"a\0b", 3});
    cr_expect_eq(ids.n, 3);
    tok_ids_release(&ids);
    tok_close(t);
}

Test(tok, remembered_pieces_do_not_change_the_ids)
{
    struct tok *warm = open_tiny("neox");
    struct rng r = {3};
    for (int round = 0; round < 2000; round++) {
        char text[200];
        size_t n = 1 + rng_below(&r, sizeof(text));
        for (size_t i = 0; i < n; i++)
            text[i] = "etaoin  shr.'[0"[rng_below(&r, 15)];
        struct tok_ids a = encode(warm, (struct str){text, n});
        if (round % 50 == 0) {
            struct tok *cold = open_tiny("neox");
            struct tok_ids b = encode(cold, (struct str){text, n});
            cr_assert_eq(a.n, b.n);
            cr_assert(memcmp(a.v, b.v, a.n * sizeof(*a.v)) == 0);
            tok_ids_release(&b);
            tok_close(cold);
        }
        tok_ids_release(&a);
    }
    tok_close(warm);
}

/* Each would take hours if merging, normalizing, matching or cutting were quadratic. */
Test(tok, a_megabyte_in_one_piece_takes_no_quadratic_time, .timeout = 120)
{
    static const struct {
        const char *what, *repeated;
    } rows[] = {
        {"letters", "theathatwherisnot"},
        {"spaces", " "},
        {"marks in reverse order", "\u0301\u0327\u0334"},
        {"lines", "\n"},
        {"beginnings of an added token", "[wo"},
        {"strippers", "[right] "},
        {"beyond the BMP", "\U0001F469\u200D"},
        {"precomposed", "\uAC01"},
    };
    enum { LONG = 1 << 20 };
    static const char *const names[] = {"neox", "bloom", "falcon", "opt"};
    for (size_t t = 0; t < ARRAY_LEN(names); t++) {
        struct tok *tok = open_tiny(names[t]);
        for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
            struct buf text = {0};
            while (text.len < LONG)
                buf_adds(&text, rows[i].repeated);
            struct tok_ids ids = encode(tok, (struct str){text.data, text.len});
            cr_expect_gt(ids.n, 1000, "%s", rows[i].what);
            tok_ids_release(&ids);
            buf_release(&text);
        }
        tok_close(tok);
    }
}

/* ---- files that lie ---- */

static void expect_refused(const char *dir, enum err_code code, const char *fragment,
                           const char *label)
{
    struct tok *t = NULL;
    struct err e = {0};
    cr_expect_eq(tok_open(dir, &t, &e), code, "%s: %s", label, e.text);
    cr_expect(strstr(e.text, fragment) != NULL, "%s: \"%s\" does not say \"%s\"", label, e.text,
              fragment);
    cr_expect(strstr(e.text, dir) != NULL, "%s: \"%s\" names no file", label, e.text);
    tok_close(t);
}

/* Sets doc's member at a path of keys and indices, "model/merges/0", to the JSON value; "" removes it. */
static void set_member(json_t *doc, const char *path, const char *value)
{
    struct str rest = str_of(path);
    struct str key = {0};
    json_t *at = doc;
    json_t *v = value[0] != '\0' ? json_loads(value, JSON_DECODE_ANY, NULL) : NULL;
    char name[100] = "";
    while (str_next_field(&rest, '/', &key)) {
        snprintf(name, sizeof(name), "%.*s", (int)key.n, key.p);
        if (rest.p != NULL)
            at = json_is_array(at) ? json_array_get(at, (size_t)strtol(name, NULL, 10))
                                   : json_object_get(at, name);
    }
    if (v == NULL)
        json_object_del(at, name);
    else if (json_is_array(at))
        cr_assert_eq(json_array_set_new(at, (size_t)strtol(name, NULL, 10), v), 0);
    else
        cr_assert_eq(json_object_set_new(at, name, v), 0);
}

static const struct {
    const char *tiny, *path, *value;
    enum err_code code;
    const char *fragment;
} lies[] = {
    {"neox", "model", "", ERR_FORMAT, "\"model\""},
    {"neox", "model", "[]", ERR_FORMAT, "\"model\" must be an object"},
    {"neox", "model/type", "\"Unigram\"", ERR_UNSUPPORTED, "model \"Unigram\""},
    {"neox", "model/vocab", "", ERR_FORMAT, "\"vocab\""},
    {"neox", "model/vocab", "{}", ERR_FORMAT, "for the byte 0x00"},
    {"neox", "model/vocab/the", "\"x\"", ERR_FORMAT, "\"the\" must be an integer"},
    {"neox", "model/vocab/the", "-1", ERR_FORMAT, "\"the\" is -1"},
    {"neox", "model/vocab/the", "4294967296", ERR_FORMAT, "4294967296"},
    {"neox", "model/vocab/the", "40", ERR_FORMAT, "the same id 40"},
    {"neox", "model/vocab/z", "", ERR_FORMAT, "for the byte 0x7A"},
    {"neox", "model/merges", "{}", ERR_FORMAT, "\"merges\" must be an array"},
    {"neox", "model/merges/3", "7", ERR_FORMAT, "rule 3"},
    {"neox", "model/merges/3", "\"a\"", ERR_FORMAT, "rule 3"},
    {"neox", "model/merges/3", "\"a b c\"", ERR_FORMAT, "rule 3"},
    {"neox", "model/merges/3", "\" a\"", ERR_FORMAT, "rule 3"},
    {"neox", "model/merges/3", "[\"a\"]", ERR_FORMAT, "rule 3"},
    {"neox", "model/merges/3", "[\"a\", 1]", ERR_FORMAT, "rule 3"},
    {"neox", "model/merges/3", "\"qq z\"", ERR_FORMAT, "\"qq\" is not in the vocabulary"},
    {"neox", "model/merges/3", "[\"z\", \"q\"]", ERR_FORMAT, "\"zq\" is not"},
    {"neox", "model/dropout", "0.1", ERR_UNSUPPORTED, "dropout"},
    {"neox", "model/dropout", "\"0\"", ERR_UNSUPPORTED, "dropout"},
    {"neox", "model/end_of_word_suffix", "\"</w>\"", ERR_UNSUPPORTED, "end_of_word_suffix"},
    {"neox", "model/ignore_merges", "1", ERR_FORMAT, "ignore_merges"},
    {"neox", "normalizer", "{\"type\": \"NFKC\"}", ERR_UNSUPPORTED, "normalizer \"NFKC\""},
    {"neox", "normalizer", "\"NFC\"", ERR_FORMAT, "\"type\""},
    {"neox", "normalizer", "{\"type\": \"Sequence\"}", ERR_FORMAT, "\"normalizers\""},
    {"neox", "added_tokens", "{}", ERR_FORMAT, "\"added_tokens\" must be an array"},
    {"neox", "added_tokens/2", "5", ERR_FORMAT, "added_tokens[2]"},
    {"neox", "added_tokens/2/content", "7", ERR_FORMAT, "added_tokens[2]"},
    {"neox", "added_tokens/2/content", "\"\"", ERR_FORMAT, "added_tokens[2]"},
    {"neox", "added_tokens/2/id", "4194304", ERR_FORMAT, "added_tokens[2]"},
    {"neox", "added_tokens/2/id", "331", ERR_FORMAT, "its id is 330"},
    {"neox", "added_tokens/1/id", "0", ERR_FORMAT, "its id is 1"},
    {"neox", "added_tokens/2/lstrip", "1", ERR_FORMAT, "\"lstrip\" must be true or false"},
    {"neox", "added_tokens/1/content", "\"<|endoftext|>\"", ERR_FORMAT, "twice"},
    {"neox", "pre_tokenizer", "null", ERR_UNSUPPORTED, "0 ByteLevel"},
    {"neox", "pre_tokenizer/type", "\"Metaspace\"", ERR_UNSUPPORTED, "\"Metaspace\""},
    {"neox", "pre_tokenizer/use_regex", "\"no\"", ERR_FORMAT, "use_regex"},
    {"neox", "pre_tokenizer/add_prefix_space", "", ERR_FORMAT, "add_prefix_space"},
    {"bloom", "pre_tokenizer/pretokenizers", "{}", ERR_FORMAT, "pretokenizers"},
    {"bloom", "pre_tokenizer/pretokenizers/0", "{\"type\": \"Sequence\", \"pretokenizers\": []}",
     ERR_UNSUPPORTED, "\"Sequence\""},
    {"bloom", "pre_tokenizer/pretokenizers/0/behavior", "\"isolated\"", ERR_FORMAT, "behavior"},
    {"bloom", "pre_tokenizer/pretokenizers/0/invert", "0", ERR_FORMAT, "invert"},
    {"bloom", "pre_tokenizer/pretokenizers/0/pattern", "\"x\"", ERR_FORMAT, "pattern"},
    {"bloom", "pre_tokenizer/pretokenizers/0/pattern/Regex", "\"a(\"", ERR_FORMAT,
     "regular expression"},
    {"bloom", "pre_tokenizer/pretokenizers/0/pattern/Regex", "\"a*\"", ERR_UNSUPPORTED,
     "empty text"},
    {"bloom", "pre_tokenizer/pretokenizers/0/pattern/Regex", "\"\\\\w+\"", ERR_UNSUPPORTED,
     "escape"},
    {"bloom", "pre_tokenizer/pretokenizers/1/type", "\"Split\"", ERR_FORMAT, "behavior"},
    {"falcon", "post_processor/processors/1/type", "\"RobertaProcessing\"", ERR_UNSUPPORTED,
     "RobertaProcessing"},
    {"falcon", "post_processor/processors/1/single", "[]", ERR_UNSUPPORTED, "in front"},
    {"falcon", "post_processor/processors/1/special_tokens", "{}", ERR_FORMAT, "ids"},
    {"falcon", "post_processor/processors/1/special_tokens/>>TITLE<</ids", "[1, 2]",
     ERR_UNSUPPORTED, "one id"},
};

Test(tok, a_tokenizer_json_that_lies_is_refused_by_name_and_place)
{
    for (size_t i = 0; i < ARRAY_LEN(lies); i++) {
        char label[200];
        snprintf(label, sizeof(label), "%s %s = %s", lies[i].tiny, lies[i].path, lies[i].value);
        char *dir = copy_tiny(lies[i].tiny);
        char *path = io_join(dir, "tokenizer.json");
        json_t *doc = read_json(path);
        set_member(doc, lies[i].path, lies[i].value);
        struct buf text = {0};
        json_append(&text, doc, false);
        put(dir, "tokenizer.json", text.data);
        expect_refused(dir, lies[i].code, lies[i].fragment, label);
        buf_release(&text);
        json_decref(doc);
        xfree(path);
        support_tmpdir_remove(dir);
    }
}

Test(tok, a_cut_off_tokenizer_json_is_refused_wherever_it_is_cut)
{
    char *dir = copy_tiny("falcon");
    char *path = io_join(dir, "tokenizer.json");
    struct buf text = {0};
    struct err e;
    cr_assert_eq(io_read_file(path, (size_t)1 << 20, &text, &e), ERR_OK);
    for (size_t n = 0; n + 2 < text.len; n += 97) {
        support_write(path, text.data, n);
        expect_refused(dir, ERR_FORMAT, "tokenizer.json", "cut off");
    }
    buf_release(&text);
    xfree(path);
    support_tmpdir_remove(dir);
}

Test(tok, vocab_and_merges_that_lie_are_refused_by_name_and_line)
{
    static const struct {
        const char *name, *text;
        enum err_code code;
        const char *fragment;
    } rows[] = {
        {"merges.txt", "#version: 0.2\nt h\nt h e\n", ERR_FORMAT, "merges.txt: line 3"},
        {"merges.txt", "#version: 0.2\nth\n", ERR_FORMAT, "merges.txt: line 2"},
        {"merges.txt", "t h\n\nt h\n", ERR_FORMAT, "merges.txt: line 2"},
        {"merges.txt", "t h\nt \n", ERR_FORMAT, "merges.txt: line 2"},
        {"merges.txt", "z q\n", ERR_FORMAT, "\"zq\" is not in the vocabulary"},
        {"merges.txt", "t h\n#version: 0.2\n", ERR_FORMAT, "\"#version:\" is not"},
        {"vocab.json", "[]", ERR_FORMAT, "vocab.json must be a JSON object"},
        {"vocab.json", "{}", ERR_FORMAT, "vocab.json: no token"},
        {"vocab.json", "{\"a\": 1.5}", ERR_FORMAT, "\"a\" must be an integer"},
        {"vocab.json", "{\"a\": 1, \"b\": 1}", ERR_FORMAT, "the same id 1"},
        {"vocab.json", "{\"a\": 1, \"a\": 2}", ERR_FORMAT, "vocab.json"},
        {"tokenizer_config.json", "{\"bos_token\": 5}", ERR_FORMAT, "bos_token"},
        {"tokenizer_config.json", "{\"pad_token\": {\"lstrip\": true}}", ERR_FORMAT, "pad_token"},
        {"tokenizer_config.json", "{\"additional_special_tokens\": [\"<a>\", 1]}", ERR_FORMAT,
         "additional_special_tokens[1]"},
        {"tokenizer_config.json", "{\"added_tokens_decoder\": {\"x\": \"</s>\"}}", ERR_FORMAT,
         "\"x\" is not an id"},
        {"tokenizer_config.json", "{\"added_tokens_decoder\": {\"5\": \"</s>\"}}", ERR_FORMAT,
         "its id is 2"},
        {"tokenizer_config.json", "{\"tokenizer_class\": \"CLIPTokenizer\"}", ERR_UNSUPPORTED,
         "CLIPTokenizer"},
        {"tokenizer_config.json", "null", ERR_FORMAT, "tokenizer_config.json"},
        {"config.json", "{", ERR_FORMAT, "config.json"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char *dir = copy_tiny("opt");
        if (strcmp(rows[i].name, "config.json") == 0) /* which is read only when it is needed */
            put(dir, "tokenizer_config.json", "{}");
        put(dir, rows[i].name, rows[i].text);
        expect_refused(dir, rows[i].code, rows[i].fragment, rows[i].text);
        support_tmpdir_remove(dir);
    }
}

Test(tok, a_directory_without_tokenizer_files_is_not_found)
{
    char *dir = support_tmpdir();
    expect_refused(dir, ERR_NOTFOUND, "neither tokenizer.json nor vocab.json", "empty");
    put(dir, "vocab.json", "{}");
    expect_refused(dir, ERR_NOTFOUND, "merges.txt", "half");
    support_tmpdir_remove(dir);
}

/* ---- files that contradict each other ---- */

static void expect_opens(const char *dir, const char *label)
{
    struct tok *t = NULL;
    struct err e = {0};
    cr_expect_eq(tok_open(dir, &t, &e), ERR_OK, "%s: %s", label, e.text);
    tok_close(t);
}

/* transformers takes tokens from added_tokens.json unless tokenizer_config.json has added_tokens_decoder. */
Test(tok, tokens_that_only_added_tokens_json_has_are_refused)
{
    static const struct {
        const char *tiny, *config, *added;
        enum err_code code;
        const char *says;
    } rows[] = {
        {"opt", NULL, "{\"</s>\": 2}", ERR_OK, ""},
        {"opt", NULL, "{\"</s>\": 2, \"the\": 330}", ERR_UNSUPPORTED, "\"the\""},
        {"opt", NULL, "{\"</s>\": 3}", ERR_UNSUPPORTED, "\"</s>\""},
        {"opt", NULL, "{\"</s>\": \"2\"}", ERR_FORMAT, "\"</s>\" must be an integer"},
        {"opt", NULL, "[]", ERR_FORMAT, "must be a JSON object"},
        {"opt", "{\"pad_token\": \"[PAD]\"}", "{\"[PAD]\": 330}", ERR_OK, ""},
        {"opt", "{\"added_tokens_decoder\": {\"2\": \"</s>\"}}", "{\"the\": 330}", ERR_OK, ""},
        {"falcon", NULL, "{\"the\": 330}", ERR_UNSUPPORTED, "\"the\""},
        {"falcon", NULL, "{\">>TITLE<<\": 0}", ERR_OK, ""},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char *dir = copy_tiny(rows[i].tiny);
        if (rows[i].config != NULL)
            put(dir, "tokenizer_config.json", rows[i].config);
        put(dir, "added_tokens.json", rows[i].added);
        if (rows[i].code == ERR_OK)
            expect_opens(dir, rows[i].added);
        else
            expect_refused(dir, rows[i].code, rows[i].says, rows[i].added);
        support_tmpdir_remove(dir);
    }
}

/* transformers' GPT-2 and GPT-NeoX classes build the pre-tokenizer anew, by tokenizer_config.json alone. */
Test(tok, a_prefix_space_that_two_files_see_differently_is_refused)
{
    static const struct {
        const char *config;
        bool in_json, is_fine;
    } rows[] = {
        {"{\"tokenizer_class\": \"GPTNeoXTokenizer\"}", false, true},
        {"{\"tokenizer_class\": \"GPTNeoXTokenizer\"}", true, false},
        {"{\"tokenizer_class\": \"GPTNeoXTokenizerFast\", \"add_prefix_space\": true}", false,
         false},
        {"{\"tokenizer_class\": \"GPTNeoXTokenizerFast\", \"add_prefix_space\": true}", true, true},
        {"{\"tokenizer_class\": \"GPT2TokenizerFast\", \"add_prefix_space\": false}", true, false},
        {"{\"tokenizer_class\": \"GPT2Tokenizer\", \"add_prefix_space\": true}", true, true},
        {"{\"tokenizer_class\": \"BloomTokenizerFast\", \"add_prefix_space\": true}", false, true},
        {"{\"tokenizer_class\": \"PreTrainedTokenizerFast\"}", true, true},
        {"{}", true, true},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char *dir = copy_tiny("neox"), *path = io_join(dir, "tokenizer.json");
        json_t *doc = read_json(path);
        struct buf text = {0};
        set_member(doc, "pre_tokenizer/add_prefix_space", rows[i].in_json ? "true" : "false");
        json_append(&text, doc, false);
        put(dir, "tokenizer.json", text.data);
        put(dir, "tokenizer_config.json", rows[i].config);
        if (rows[i].is_fine)
            expect_opens(dir, rows[i].config);
        else
            expect_refused(dir, ERR_UNSUPPORTED, "add_prefix_space", rows[i].config);
        buf_release(&text);
        json_decref(doc);
        xfree(path);
        support_tmpdir_remove(dir);
    }
}

/* ---- forms that mean the same ---- */

static void expect_same(const char *a, const char *b, const char *label)
{
    static const char text[] = "the weather, they said: there's 1234 (#th) déjà</s>";
    struct tok *ta = open_dir(a);
    struct tok *tb = open_dir(b);
    struct tok_ids ia = encode(ta, STR(text));
    struct tok_ids ib = encode(tb, STR(text));
    cr_expect(ia.n == ib.n && memcmp(ia.v, ib.v, ia.n * sizeof(*ia.v)) == 0, "%s", label);
    tok_ids_release(&ia);
    tok_ids_release(&ib);
    tok_close(ta);
    tok_close(tb);
}

Test(tok, merges_as_strings_and_as_arrays_mean_the_same)
{
    char *dir = copy_tiny("neox");
    char *path = io_join(dir, "tokenizer.json");
    json_t *doc = read_json(path);
    json_t *merges = json_object_get(json_object_get(doc, "model"), "merges");
    for (size_t i = 0; i < json_array_size(merges); i++) {
        char rule[200];
        snprintf(rule, sizeof(rule), "%s", json_string_value(json_array_get(merges, i)));
        char *space = strchr(rule, ' ');
        *space = '\0';
        cr_assert_eq(json_array_set_new(merges, i, json_pack("[s, s]", rule, space + 1)), 0);
    }
    struct buf text = {0};
    json_append(&text, doc, false);
    put(dir, "tokenizer.json", text.data);
    expect_same(support_source("tests/golden/tokenizer_tiny/neox"), dir, "arrays");
    buf_release(&text);
    json_decref(doc);
    xfree(path);
    support_tmpdir_remove(dir);
}

Test(tok, line_ends_and_a_missing_version_line_of_merges_do_not_matter)
{
    char *dir = copy_tiny("opt");
    char *path = io_join(dir, "merges.txt");
    struct buf text = {0};
    struct buf changed = {0};
    struct err e;
    cr_assert_eq(io_read_file(path, (size_t)1 << 20, &text, &e), ERR_OK);
    struct str rest = {text.data, text.len};
    struct str line = {0};
    cr_assert(str_next_line(&rest, &line) && str_starts(line, "#version"));
    while (str_next_line(&rest, &line))
        buf_printf(&changed, "%.*s\r\n", (int)line.n, line.p);
    put(dir, "merges.txt", changed.data);
    expect_same(support_source("tests/golden/tokenizer_tiny/opt"), dir, "CRLF, no version");
    buf_release(&text);
    buf_release(&changed);
    xfree(path);
    support_tmpdir_remove(dir);
}

Test(tok, a_merge_that_begins_with_a_hash_sign_is_a_merge)
{
    char *dir = support_tmpdir();
    char *from = xasprintf("%s/opt/vocab.json", support_source("tests/golden/tokenizer_tiny"));
    json_t *vocab = read_json(from);
    json_int_t id = (json_int_t)json_object_size(vocab);
    cr_assert_eq(json_object_set_new(vocab, "##", json_integer(id)), 0);
    struct buf text = {0};
    json_append(&text, vocab, false);
    put(dir, "vocab.json", text.data);
    put(dir, "merges.txt", "#version: 0.2\n# #\n");
    struct tok *t = open_dir(dir);
    struct tok_ids ids = encode(t, STR("##"));
    cr_assert_eq(ids.n, 1);
    cr_expect_eq(ids.v[0], id);
    tok_ids_release(&ids);
    tok_close(t);
    buf_release(&text);
    json_decref(vocab);
    xfree(from);
    support_tmpdir_remove(dir);
}
