/* Added tokens and the tokens with a role. In tokenizer_config.json, special_tokens_map.json and tokenizer.json a
 * token is its text, or {"content": "</s>", "lstrip": false, "rstrip": false, "normalized": true, …}. */
#include <string.h>

#include "base/io.h"
#include "worker/tok/tok_load.h"
#include "worker/tok/tok_unicode.h"

static enum err_code read_flag(const json_t *flags, const char *key, bool *out, struct err *e)
{
    const json_t *v = json_object_get(flags, key);
    if (v != NULL && !json_is_boolean(v))
        return err_set(e, ERR_FORMAT, "\"%s\" must be true or false", key);
    *out = json_is_true(v);
    return ERR_OK;
}

static enum err_code choose_id(struct tok_source *src, const char *text, int64_t id, int32_t *out,
                               struct err *e)
{
    int32_t expected = tok_vocab_id(src, text);
    if (expected < 0)
        expected = src->next_id;
    if (id >= 0 && id != expected)
        return err_set(e, ERR_FORMAT,
                       "the added token \"%.100s\" has id %lld, but by the vocabulary "
                       "and the added tokens before it its id is %d",
                       text, (long long)id, (int)expected);
    if (expected >= TOK_MAX_VOCAB)
        return err_set(e, ERR_FORMAT, "id %d, expected less than %d", (int)expected,
                       (int)TOK_MAX_VOCAB);
    if (expected >= src->next_id)
        src->next_id = expected + 1;
    if (expected > src->max_id)
        src->max_id = expected;
    *out = expected;
    return ERR_OK;
}

enum err_code tok_special_add(struct tok *t, struct tok_source *src, const json_t *flags,
                              const char *text, int64_t id, struct err *e)
{
    struct added_token token = {0};
    bool is_normalized = false;
    TRY(read_flag(flags, "single_word", &token.is_single_word, e));
    TRY(read_flag(flags, "lstrip", &token.strips_left, e));
    TRY(read_flag(flags, "rstrip", &token.strips_right, e));
    TRY(read_flag(flags, "normalized", &is_normalized, e));
    if (json_object_get(src->added, text) != NULL)
        return err_set(e, ERR_FORMAT, "the added token \"%.100s\" is there twice", text);
    TRY(choose_id(src, text, id, &token.id, e));
    CHECK(json_object_set_new(src->added, text, json_integer(token.id)) == 0);
    if (!is_normalized)
        return added_insert(t->raw_added, str_of(text), token, e);
    struct buf content = {.max = TOK_MAX_FILE};
    if (t->is_nfc)
        uni_append_nfc(&content, str_of(text));
    else
        buf_adds(&content, text);
    enum err_code rc =
        added_insert(t->nfc_added, (struct str){content.data, content.len}, token, e);
    buf_release(&content);
    return rc;
}

/* The text of a token in either form; NULL when `v` is neither. */
static const char *text_of(const json_t *v)
{
    return json_is_object(v) ? json_opt_str(v, "content", NULL) : json_string_value(v);
}

/* ---- without tokenizer.json ---- */

static enum err_code add_legacy(struct tok *t, struct tok_source *src, const json_t *v, int64_t id,
                                struct err *e)
{
    const char *text = text_of(v);
    if (text == NULL)
        return err_set(e, ERR_FORMAT, "a token must be a string or an object with \"content\"");
    if (json_object_get(src->added, text) != NULL)
        return ERR_OK;
    return tok_special_add(t, src, json_is_object(v) ? v : NULL, text, id, e);
}

/* "added_tokens_decoder": {"50256": {"content": "<|endoftext|>", …}, …} */
static enum err_code add_decoder(struct tok *t, struct tok_source *src, struct err *e)
{
    const char *key = NULL;
    json_t *v = NULL;
    json_object_foreach(json_object_get(src->doc[TOK_CONFIG], "added_tokens_decoder"), key, v)
    {
        int64_t id = 0;
        if (!parse_i64(str_of(key), &id) || id < 0)
            return err_set(e, ERR_FORMAT, "added_tokens_decoder: \"%.100s\" is not an id", key);
        if (add_legacy(t, src, v, id, e) != ERR_OK)
            return err_wrap(e, "added_tokens_decoder: %lld", (long long)id);
    }
    return ERR_OK;
}

static enum err_code add_named(struct tok *t, struct tok_source *src, const json_t *doc,
                               struct err *e)
{
    /* transformers' order, which numbers tokens that are not in the vocabulary */
    static const char *const keys[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                       "pad_token", "cls_token", "mask_token"};
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        const json_t *v = json_object_get(doc, keys[i]);
        if (v == NULL || json_is_null(v))
            continue;
        if (add_legacy(t, src, v, -1, e) != ERR_OK)
            return err_wrap(e, "%s", keys[i]);
    }
    const json_t *more = json_object_get(doc, "additional_special_tokens");
    for (size_t i = 0; i < json_array_size(more); i++) {
        if (add_legacy(t, src, json_array_get(more, i), -1, e) != ERR_OK)
            return err_wrap(e, "additional_special_tokens[%zu]", i);
    }
    return ERR_OK;
}

enum err_code tok_special_load_legacy(struct tok *t, struct tok_source *src, struct err *e)
{
    if (add_decoder(t, src, e) != ERR_OK || add_named(t, src, src->doc[TOK_CONFIG], e) != ERR_OK)
        return err_wrap(e, "%s", src->path[TOK_CONFIG]);
    if (add_named(t, src, src->doc[TOK_SPECIAL_MAP], e) != ERR_OK)
        return err_wrap(e, "%s", src->path[TOK_SPECIAL_MAP]);
    /* What the GPT-2 class takes when the files name no token. */
    static const char end_of_text[] = "<|endoftext|>";
    if (json_object_size(src->added) > 0 || tok_vocab_id(src, end_of_text) < 0)
        return ERR_OK;
    t->bos = t->eos = tok_vocab_id(src, end_of_text);
    return tok_special_add(t, src, NULL, end_of_text, -1, e);
}

/* ---- added_tokens.json ---- */

/* {"[PAD]": 50257, …}: an older file beside the others, which transformers reads unless there is an added_tokens_decoder. */
static enum err_code check_added(const struct tok_source *src, const json_t *doc, const char *path,
                                 struct err *e)
{
    const char *text = NULL;
    json_t *v = NULL;
    if (!json_is_object(doc))
        return err_set(e, ERR_FORMAT, "%s must be a JSON object", path);
    json_object_foreach((json_t *)doc, text, v)
    {
        int64_t id = 0;
        TRY(json_need_int(doc, text, path, 0, TOK_MAX_VOCAB - 1, &id, e));
        if (!json_equal(json_object_get(src->added, text), v))
            return err_set(
                e, ERR_UNSUPPORTED,
                "%s: the token \"%.100s\" with id %lld is not an added token of the other "
                "files, and this file is not read; save the tokenizer anew with "
                "transformers' AutoTokenizer",
                path, text, (long long)id);
    }
    return ERR_OK;
}

enum err_code tok_special_check_file(const struct tok_source *src, struct err *e)
{
    char *path = io_join(src->dir, "added_tokens.json");
    json_t *doc = NULL;
    enum err_code rc = ERR_OK;
    if (io_exists(path) && json_object_get(src->doc[TOK_CONFIG], "added_tokens_decoder") == NULL) {
        rc = json_read(path, TOK_MAX_FILE, &doc, e);
        if (rc == ERR_OK)
            rc = check_added(src, doc, path, e);
    }
    json_decref(doc);
    xfree(path);
    return rc;
}

/* ---- roles ---- */

static int32_t id_of(const struct tok_source *src, const char *text)
{
    const json_t *added = json_object_get(src->added, text);
    return added != NULL ? (int32_t)json_integer_value(added) : tok_vocab_id(src, text);
}

static int32_t find_role(const struct tok_source *src, const char *key)
{
    static const enum tok_file files[] = {TOK_CONFIG, TOK_SPECIAL_MAP};
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        const char *text = text_of(json_object_get(src->doc[files[i]], key));
        int32_t id = text != NULL ? id_of(src, text) : -1;
        if (id >= 0)
            return id;
    }
    return -1;
}

/* "eos_token_id": 2, or [2, 32000]: then the first; -1 for anything else. */
static int32_t find_model_role(const json_t *config, const char *key)
{
    const json_t *v = json_object_get(config, key);
    if (json_is_array(v))
        v = json_array_get(v, 0);
    json_int_t id = json_is_integer(v) ? json_integer_value(v) : -1;
    return id >= 0 && id < TOK_MAX_VOCAB ? (int32_t)id : -1;
}

static enum err_code ask_model_config(struct tok *t, const char *dir, struct err *e)
{
    char *path = io_join(dir, "config.json");
    json_t *config = NULL;
    enum err_code rc = io_exists(path) ? json_read(path, TOK_MAX_FILE, &config, e) : ERR_OK;
    if (t->bos < 0)
        t->bos = find_model_role(config, "bos_token_id");
    if (t->eos < 0)
        t->eos = find_model_role(config, "eos_token_id");
    json_decref(config);
    xfree(path);
    return rc;
}

enum err_code tok_special_find_roles(struct tok *t, const struct tok_source *src, struct err *e)
{
    int32_t bos = find_role(src, "bos_token");
    int32_t eos = find_role(src, "eos_token");
    t->bos = bos >= 0 ? bos : t->bos;
    t->eos = eos >= 0 ? eos : t->eos;
    if (t->bos < 0 || t->eos < 0)
        TRY(ask_model_config(t, src->dir, e));
    /* With a tokenizer.json its post-processor has the word. */
    if (src->doc[TOK_TOKENIZER] == NULL &&
        json_opt_bool(src->doc[TOK_CONFIG], "add_bos_token", false))
        t->prefix = t->bos;
    return ERR_OK;
}
