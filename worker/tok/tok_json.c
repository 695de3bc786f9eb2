/* tokenizer.json, as Hugging Face's `tokenizers` writes it:
 *     {"added_tokens": [{"id": 0, "content": "<|endoftext|>", "single_word": false, "lstrip": false,
 *                        "rstrip": false, "normalized": false, "special": true}, …],
 *      "normalizer": null | {"type": "NFC"} | {"type": "Sequence", "normalizers": […]},
 *      "pre_tokenizer": {"type": "ByteLevel", …} | {"type": "Sequence", "pretokenizers": […]},
 *      "post_processor": null | {"type": "ByteLevel"} | {"type": "TemplateProcessing", …} | Sequence,
 *      "model": {"type": "BPE", "vocab": {…}, "merges": […], "ignore_merges": false, …}}
 * A part that is not implemented is an error, never skipped: the ids would be others. */
#include <string.h>

#include "worker/tok/tok_load.h"
#include "worker/tok/tok_regex.h"

/* `known`: what this program has instead. */
static enum err_code unsupported(const char *part, const char *type, const char *known,
                                 struct err *e)
{
    return err_set(e, ERR_UNSUPPORTED, "%s \"%.100s\" is not implemented, only %s", part, type,
                   known);
}

static enum err_code need_bool(const json_t *o, const char *key, const char *what, bool *out,
                               struct err *e)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_boolean(v))
        return err_set(e, ERR_FORMAT, "%s: \"%s\" must be true or false", what, key);
    *out = json_is_true(v);
    return ERR_OK;
}

/* As need_bool, but absent means `def`. */
static enum err_code opt_bool(const json_t *o, const char *key, const char *what, bool def,
                              bool *out, struct err *e)
{
    *out = def;
    return json_object_get(o, key) == NULL ? ERR_OK : need_bool(o, key, what, out, e);
}

/* The steps of a part: itself, or those of a Sequence, which may not nest. */
struct steps {
    const json_t *single; /* NULL: the members of `many` */
    const json_t *many;
    size_t n;
};

static enum err_code find_steps(const json_t *part, const char *what, const char *list_key,
                                struct steps *out, struct err *e)
{
    const char *type = NULL;
    *out = (struct steps){0};
    if (part == NULL || json_is_null(part))
        return ERR_OK;
    TRY(json_need_str(part, "type", what, &type, e));
    if (strcmp(type, "Sequence") != 0) {
        *out = (struct steps){.single = part, .n = 1};
        return ERR_OK;
    }
    json_t *many = NULL;
    TRY(json_need_arr(part, list_key, what, &many, e));
    *out = (struct steps){.many = many, .n = json_array_size(many)};
    return ERR_OK;
}

static const json_t *step_at(const struct steps *s, size_t i)
{
    return s->single != NULL ? s->single : json_array_get(s->many, i);
}

/* ---- model ---- */

static bool is_empty(const json_t *v)
{
    return v == NULL || json_is_null(v) || (json_is_string(v) && json_string_length(v) == 0);
}

static enum err_code load_model(struct tok *t, struct tok_source *src, struct err *e)
{
    json_t *model = NULL;
    json_t *vocab = NULL;
    json_t *merges = NULL;
    TRY(json_need_obj(src->doc[TOK_TOKENIZER], "model", "the file", &model, e));
    const char *type = json_opt_str(model, "type", "BPE"); /* old files leave it out */
    if (strcmp(type, "BPE") != 0)
        return unsupported("model", type, "BPE", e);
    const json_t *dropout = json_object_get(model, "dropout");
    bool is_exact = dropout == NULL || json_is_null(dropout) ||
                    (json_is_number(dropout) && json_number_value(dropout) == 0);
    if (!is_exact)
        return unsupported("model", "dropout", "merging without chance", e);
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (size_t i = 0; i < ARRAY_LEN(affixes); i++) {
        if (!is_empty(json_object_get(model, affixes[i])))
            return unsupported("model", affixes[i], "the byte alphabet without affixes", e);
    }
    TRY(json_need_obj(model, "vocab", "model", &vocab, e));
    TRY(json_need_arr(model, "merges", "model", &merges, e));
    TRY(tok_vocab_set(src, vocab, "model.vocab", e));
    TRY(tok_vocab_load(t, src, merges, "model.merges", e));
    bool takes_wholes = false;
    TRY(opt_bool(model, "ignore_merges", "model", false, &takes_wholes, e));
    if (takes_wholes)
        tok_vocab_take_wholes(t, src);
    return ERR_OK;
}

/* ---- normalizer, added tokens ---- */

static enum err_code load_normalizer(struct tok *t, const json_t *part, struct err *e)
{
    struct steps steps;
    TRY(find_steps(part, "normalizer", "normalizers", &steps, e));
    for (size_t i = 0; i < steps.n; i++) {
        const char *type = NULL;
        TRY(json_need_str(step_at(&steps, i), "type", "normalizer", &type, e));
        if (strcmp(type, "NFC") != 0)
            return unsupported("normalizer", type, "NFC", e);
        t->is_nfc = true;
    }
    return ERR_OK;
}

static enum err_code load_added(struct tok *t, struct tok_source *src, const json_t *list,
                                struct err *e)
{
    if (list != NULL && !json_is_null(list) && !json_is_array(list))
        return err_set(e, ERR_FORMAT, "\"added_tokens\" must be an array");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);
        const char *text = NULL;
        int64_t id = 0;
        enum err_code rc = json_need_str(v, "content", "it", &text, e);
        if (rc == ERR_OK)
            rc = json_need_int(v, "id", "it", 0, TOK_MAX_VOCAB - 1, &id, e);
        if (rc == ERR_OK)
            rc = tok_special_add(t, src, v, text, id, e);
        if (rc != ERR_OK)
            return err_wrap(e, "added_tokens[%zu]", i);
    }
    return ERR_OK;
}

/* ---- pre-tokenizer ---- */

/* The type's own set of punctuation: ASCII's, and P* of an old Unicode version, which had two characters that are
 * symbols now and lacked those in the lookahead. Compared over all code points with PCRE2 10.42. */
#define PUNCTUATION                                                                                \
    "(?![\\x{61d}\\x{9fd}\\x{a76}\\x{c77}\\x{c84}\\x{1b7d}\\x{1b7e}\\x{2e43}-\\x{2e4f}"            \
    "\\x{2e52}-\\x{2e5d}\\x{10ead}\\x{10f55}-\\x{10f59}\\x{10f86}-\\x{10f89}\\x{1144b}-"           \
    "\\x{1144f}\\x{1145a}\\x{1145b}\\x{1145d}\\x{11660}-\\x{1166c}\\x{116b9}\\x{1183b}"            \
    "\\x{11944}-\\x{11946}\\x{119e2}\\x{11a3f}-\\x{11a46}\\x{11a9a}-\\x{11a9c}\\x{11a9e}-"         \
    "\\x{11aa2}\\x{11c41}-\\x{11c45}\\x{11c70}\\x{11c71}\\x{11ef7}\\x{11ef8}\\x{11fff}"            \
    "\\x{12ff1}\\x{12ff2}\\x{16e97}-\\x{16e9a}\\x{16fe2}\\x{1e95e}\\x{1e95f}])"                    \
    "[\\p{P}$+<=>^~|`\\x{166d}\\x{111c9}]"

/* The type's own set of digits: N* of Unicode 15.0, one version later than PCRE2 10.42's tables. */
#define DIGITS "[\\p{N}\\x{11f50}-\\x{11f59}\\x{1d2c0}-\\x{1d2d3}\\x{1e4f0}-\\x{1e4f9}]"

static enum err_code read_behavior(const json_t *step, const char *what, const char *def,
                                   enum split_behavior *out, struct err *e)
{
    static const struct {
        const char *name;
        enum split_behavior behavior;
    } names[] = {
        {"Isolated", SPLIT_ISOLATED},
        {"Removed", SPLIT_REMOVED},
        {"MergedWithPrevious", SPLIT_MERGED_WITH_PREVIOUS},
        {"MergedWithNext", SPLIT_MERGED_WITH_NEXT},
        {"Contiguous", SPLIT_CONTIGUOUS},
    };
    const char *text = json_opt_str(step, "behavior", def);
    for (size_t i = 0; text != NULL && i < ARRAY_LEN(names); i++) {
        if (strcmp(text, names[i].name) == 0) {
            *out = names[i].behavior;
            return ERR_OK;
        }
    }
    return err_set(e, ERR_FORMAT,
                   "%s: \"behavior\" must be Isolated, Removed, MergedWithPrevious, "
                   "MergedWithNext or Contiguous",
                   what);
}

static enum err_code add_translated(struct split *s, const char *pattern, bool is_literal,
                                    enum split_behavior behavior, bool is_inverted, struct err *e)
{
    struct buf pcre2 = {0};
    enum err_code rc = ERR_OK;
    if (strlen(pattern) > 4096)
        return err_set(e, ERR_UNSUPPORTED, "a pattern of more than 4096 bytes");
    if (is_literal)
        tok_regex_quote(str_of(pattern), &pcre2);
    else
        rc = tok_regex_translate(str_of(pattern), &pcre2, e);
    if (rc == ERR_OK)
        rc = split_add_regex(s, (struct str){pcre2.data, pcre2.len}, behavior, is_inverted, e);
    buf_release(&pcre2);
    return rc;
}

/* {"type": "Split", "pattern": {"Regex": "…"} | {"String": "…"}, "behavior": "Isolated", "invert": false} */
static enum err_code add_split(struct split *s, const json_t *step, struct err *e)
{
    enum split_behavior behavior = SPLIT_ISOLATED;
    bool is_inverted = false;
    json_t *pattern = NULL;
    TRY(opt_bool(step, "invert", "Split", false, &is_inverted, e));
    TRY(read_behavior(step, "Split", NULL, &behavior, e));
    TRY(json_need_obj(step, "pattern", "Split", &pattern, e));
    const char *literal = json_opt_str(pattern, "String", NULL);
    const char *regex = literal;
    if (literal == NULL)
        TRY(json_need_str(pattern, "Regex", "Split.pattern", &regex, e));
    return add_translated(s, regex, literal != NULL, behavior, is_inverted, e);
}

static enum err_code add_byte_level(struct split *s, const json_t *step, bool is_last,
                                    struct err *e)
{
    bool has_prefix = false;
    bool has_regex = true;
    TRY(need_bool(step, "add_prefix_space", "ByteLevel", &has_prefix, e));
    TRY(opt_bool(step, "use_regex", "ByteLevel", true, &has_regex, e));
    if (has_prefix)
        TRY(split_add_prefix_space(s, e));
    if (has_regex)
        TRY(add_translated(s, tok_regex_gpt2, false, SPLIT_ISOLATED, false, e));
    return is_last ? ERR_OK : split_add_bytemap(s, e);
}

static enum err_code add_step(struct split *s, const json_t *step, const char *type, bool is_last,
                              struct err *e)
{
    if (strcmp(type, "ByteLevel") == 0)
        return add_byte_level(s, step, is_last, e);
    if (strcmp(type, "Split") == 0)
        return add_split(s, step, e);
    if (strcmp(type, "Digits") == 0) {
        bool is_single = false;
        TRY(need_bool(step, "individual_digits", "Digits", &is_single, e));
        return split_add_regex(s, STR(DIGITS), is_single ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS, false,
                               e);
    }
    if (strcmp(type, "Punctuation") == 0) {
        enum split_behavior behavior = SPLIT_ISOLATED;
        TRY(read_behavior(step, "Punctuation", "Isolated", &behavior, e));
        return split_add_regex(s, STR(PUNCTUATION), behavior, false, e);
    }
    return unsupported("pre_tokenizer", type, "ByteLevel, Split, Digits and Punctuation", e);
}

static enum err_code load_pre_tokenizer(struct tok *t, const json_t *part, struct err *e)
{
    struct steps steps;
    int n_byte_levels = 0;
    TRY(find_steps(part, "pre_tokenizer", "pretokenizers", &steps, e));
    for (size_t i = 0; i < steps.n; i++) {
        const char *type = NULL;
        TRY(json_need_str(step_at(&steps, i), "type", "pre_tokenizer", &type, e));
        n_byte_levels += strcmp(type, "ByteLevel") == 0;
        TRY(add_step(t->split, step_at(&steps, i), type, i + 1 == steps.n, e));
    }
    if (n_byte_levels != 1)
        return err_set(e, ERR_UNSUPPORTED,
                       "pre_tokenizer with %d ByteLevel steps, expected one: only byte-level "
                       "tokenizers are implemented",
                       n_byte_levels);
    return ERR_OK;
}

/* transformers' own classes build the pre-tokenizer anew, with the flag of tokenizer_config.json or without: a file that
 * sees it differently gives other ids there than in `tokenizers`. Other classes leave it to tokenizer.json. */
static enum err_code check_prefix_space(const struct tok_source *src, const json_t *part,
                                        struct err *e)
{
    static const char *const classes[] = {"GPT2Tokenizer", "GPT2TokenizerFast", "GPTNeoXTokenizer",
                                          "GPTNeoXTokenizerFast"};
    const char *type = json_opt_str(src->doc[TOK_CONFIG], "tokenizer_class", "");
    const bool wanted = json_opt_bool(src->doc[TOK_CONFIG], "add_prefix_space", false);
    bool is_built_anew = false;
    struct steps steps;
    for (size_t i = 0; i < ARRAY_LEN(classes); i++)
        is_built_anew = is_built_anew || strcmp(type, classes[i]) == 0;
    TRY(find_steps(part, "pre_tokenizer", "pretokenizers", &steps, e));
    for (size_t i = 0; i < steps.n && is_built_anew; i++) {
        const json_t *found = json_object_get(step_at(&steps, i), "add_prefix_space");
        if (found != NULL && json_is_true(found) != wanted)
            return err_set(e, ERR_UNSUPPORTED,
                           "add_prefix_space is %s here, but %s for tokenizer_class %s in "
                           "tokenizer_config.json, which transformers follows; make them agree",
                           wanted ? "false" : "true", wanted ? "true" : "false", type);
    }
    return ERR_OK;
}

/* ---- post-processor ---- */

/* {"single": [{"SpecialToken": {"id": "<s>", …}}, {"Sequence": {"id": "A", …}}],
 *  "special_tokens": {"<s>": {"ids": [1], …}}}: at most one token in front, none behind. */
static enum err_code load_template(struct tok *t, const json_t *step, struct err *e)
{
    static const char what[] = "post_processor.single";
    json_t *single = NULL;
    json_t *special = NULL;
    json_t *ids = NULL;
    const char *name = NULL;
    TRY(json_need_arr(step, "single", "post_processor", &single, e));
    size_t n = json_array_size(single);
    const json_t *first = json_object_get(json_array_get(single, 0), "SpecialToken");
    const json_t *last = json_object_get(json_array_get(single, n - 1), "Sequence");
    if (n < 1 || n > 2 || last == NULL || (n == 2 && first == NULL))
        return err_set(e, ERR_UNSUPPORTED, "%s must be the text with at most one token in front",
                       what);
    if (n == 1)
        return ERR_OK;
    TRY(json_need_str(first, "id", what, &name, e));
    TRY(json_need_obj(step, "special_tokens", "post_processor", &special, e));
    TRY(json_need_arr(json_object_get(special, name), "ids", what, &ids, e));
    const json_t *id = json_array_get(ids, 0);
    if (json_array_size(ids) != 1 || !json_is_integer(id) || json_integer_value(id) < 0 ||
        json_integer_value(id) >= TOK_MAX_VOCAB)
        return err_set(e, ERR_UNSUPPORTED, "%s: \"%.100s\" must have one id", what, name);
    t->prefix = (int32_t)json_integer_value(id);
    return ERR_OK;
}

static enum err_code load_post_processor(struct tok *t, const json_t *part, struct err *e)
{
    struct steps steps;
    TRY(find_steps(part, "post_processor", "processors", &steps, e));
    for (size_t i = 0; i < steps.n; i++) {
        const char *type = NULL;
        TRY(json_need_str(step_at(&steps, i), "type", "post_processor", &type, e));
        if (strcmp(type, "TemplateProcessing") == 0)
            TRY(load_template(t, step_at(&steps, i), e));
        else if (strcmp(type, "ByteLevel") != 0) /* which only trims offsets */
            return unsupported("post_processor", type, "ByteLevel and TemplateProcessing", e);
    }
    return ERR_OK;
}

static enum err_code load_parts(struct tok *t, struct tok_source *src, struct err *e)
{
    const json_t *doc = src->doc[TOK_TOKENIZER];
    TRY(load_model(t, src, e));
    TRY(load_normalizer(t, json_object_get(doc, "normalizer"), e)); /* before the added tokens */
    TRY(load_added(t, src, json_object_get(doc, "added_tokens"), e));
    TRY(load_pre_tokenizer(t, json_object_get(doc, "pre_tokenizer"), e));
    TRY(check_prefix_space(src, json_object_get(doc, "pre_tokenizer"), e));
    return load_post_processor(t, json_object_get(doc, "post_processor"), e);
}

enum err_code tok_json_load(struct tok *t, struct tok_source *src, struct err *e)
{
    enum err_code rc = load_parts(t, src, e);
    return rc == ERR_OK ? ERR_OK : err_wrap(e, "%s", src->path[TOK_TOKENIZER]);
}
