#include "worker/tok/tok.h"

#include <string.h>

#include "base/io.h"
#include "worker/tok/tok_load.h"
#include "worker/tok/tok_regex.h"
#include "worker/tok/tok_unicode.h"

/* ---- ids ---- */

/* ---- opening ---- */

/* In the order of strcmp, which is that of the lines under tok_sha256. */
static const char *const file_names[TOK_FILE_COUNT] = {
    [TOK_MERGES] = "merges.txt",        [TOK_SPECIAL_MAP] = "special_tokens_map.json",
    [TOK_TOKENIZER] = "tokenizer.json", [TOK_CONFIG] = "tokenizer_config.json",
    [TOK_VOCAB] = "vocab.json",
};

/* Whether a file has a say: vocab.json and merges.txt only where there is no tokenizer.json. */
static bool is_wanted(const struct tok_source *src, enum tok_file f)
{
    bool is_legacy = f == TOK_MERGES || f == TOK_VOCAB;
    return io_exists(src->path[f]) && !(is_legacy && io_exists(src->path[TOK_TOKENIZER]));
}

static enum err_code source_read(struct tok_source *src, struct err *e)
{
    for (int f = 0; f < TOK_FILE_COUNT; f++)
        src->path[f] = io_join(src->dir, file_names[f]);
    for (int f = 0; f < TOK_FILE_COUNT; f++) {
        if (!is_wanted(src, (enum tok_file)f))
            continue;
        struct buf *text = &src->text[f];
        TRY(io_read_file(src->path[f], TOK_MAX_FILE, text, e));
        if (f == TOK_MERGES)
            continue;
        TRY(json_parse((struct str){text->data, text->len}, src->path[f], &src->doc[f], e));
        if (!json_is_object(src->doc[f]))
            return err_set(e, ERR_FORMAT, "%s must be a JSON object", src->path[f]);
    }
    bool is_complete = src->doc[TOK_TOKENIZER] != NULL ||
                       (src->doc[TOK_VOCAB] != NULL && src->text[TOK_MERGES].data != NULL);
    if (!is_complete)
        return err_set(e, ERR_NOTFOUND,
                       "%s has neither tokenizer.json nor vocab.json with merges.txt; put the "
                       "model's tokenizer files beside its weights",
                       src->dir);
    return ERR_OK;
}

static void source_release(struct tok_source *src)
{
    for (int f = 0; f < TOK_FILE_COUNT; f++) {
        json_decref(src->doc[f]);
        buf_release(&src->text[f]);
        xfree(src->path[f]);
    }
    json_decref(src->added);
}

static void identify(struct tok *t, const struct tok_source *src)
{
    struct buf lines = {0};
    for (int f = 0; f < TOK_FILE_COUNT; f++) {
        char hex[SHA256_HEX];
        if (src->text[f].data == NULL)
            continue;
        sha256_bytes(src->text[f].data, src->text[f].len, hex);
        buf_printf(&lines, "%s  %s\n", hex, file_names[f]);
    }
    sha256_bytes(lines.data, lines.len, t->sha256);
    buf_release(&lines);
}

/* vocab.json and merges.txt: the GPT-2 class, which OPT uses too. */
static enum err_code load_legacy(struct tok *t, struct tok_source *src, struct err *e)
{
    const json_t *config = src->doc[TOK_CONFIG];
    const char *type = json_opt_str(config, "tokenizer_class", "GPT2Tokenizer");
    if (strcmp(type, "GPT2Tokenizer") != 0 && strcmp(type, "GPT2TokenizerFast") != 0)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: tokenizer_class \"%.100s\" needs a tokenizer.json; save one with "
                       "transformers' AutoTokenizer",
                       src->path[TOK_CONFIG], type);
    TRY(tok_vocab_set(src, src->doc[TOK_VOCAB], src->path[TOK_VOCAB], e));
    TRY(tok_vocab_load_text(t, src, e));
    TRY(tok_special_load_legacy(t, src, e));
    if (json_opt_bool(config, "add_prefix_space", false))
        TRY(split_add_prefix_space(t->split, e));
    struct buf pattern = {0};
    enum err_code rc = tok_regex_translate(str_of(tok_regex_gpt2), &pattern, e);
    if (rc == ERR_OK)
        rc = split_add_regex(t->split, (struct str){pattern.data, pattern.len}, SPLIT_ISOLATED,
                             false, e);
    buf_release(&pattern);
    return rc;
}

static enum err_code load(struct tok *t, struct tok_source *src, struct err *e)
{
    TRY(source_read(src, e));
    identify(t, src);
    if (src->doc[TOK_TOKENIZER] != NULL)
        TRY(tok_json_load(t, src, e));
    else
        TRY(load_legacy(t, src, e));
    TRY(tok_special_check_file(src, e));
    t->n_ids = src->max_id + 1;
    tok_decode_load(t, src);
    return tok_special_find_roles(t, src, e);
}

enum err_code tok_open(const char *dir, struct tok **out, struct err *e)
{
    struct tok *t = xcalloc(1, sizeof(*t));
    t->raw_added = added_new();
    t->nfc_added = added_new();
    t->split = split_new();
    t->bos = t->eos = t->prefix = -1;
    struct tok_source src = {.dir = dir, .added = json_object()};
    enum err_code rc = load(t, &src, e);
    source_release(&src);
    if (rc == ERR_OK)
        *out = t;
    else
        tok_close(t);
    return rc;
}

void tok_close(struct tok *t)
{
    if (t == NULL)
        return;
    added_free(t->raw_added);
    added_free(t->nfc_added);
    split_free(t->split);
    bpe_free(t->bpe);
    buf_release(&t->nfc);
    arena_release(&t->strings);
    xfree(t);
}

/* ---- encoding ---- */

static enum err_code encode_words(struct tok *t, struct str text, struct tok_ids *ids,
                                  struct err *e)
{
    const struct str *pieces = NULL;
    size_t n = 0;
    TRY(split_run(t->split, text, &pieces, &n, e));
    for (size_t i = 0; i < n; i++)
        bpe_encode(t->bpe, pieces[i], ids);
    return ERR_OK;
}

static struct str normalize(struct tok *t, struct str text)
{
    if (!t->is_nfc || uni_is_plainly_nfc(text))
        return text;
    t->nfc.max = SIZE_MAX / 2;
    buf_reset(&t->nfc);
    uni_append_nfc(&t->nfc, text);
    return (struct str){t->nfc.data, t->nfc.len};
}

/* Text without raw added tokens. */
static enum err_code encode_stretch(struct tok *t, struct str text, struct tok_ids *ids,
                                    struct err *e)
{
    struct str normal = normalize(t, text);
    struct added_cursor at = {0};
    struct str gap = {0};
    int32_t id = -1;
    while (added_next(t->nfc_added, normal, &at, &gap, &id)) {
        TRY(encode_words(t, gap, ids, e));
        if (id >= 0)
            tok_ids_push(ids, id);
    }
    return ERR_OK;
}

static enum err_code encode_text(struct tok *t, struct str text, struct tok_ids *ids, struct err *e)
{
    struct added_cursor at = {0};
    struct str gap = {0};
    int32_t id = -1;
    while (added_next(t->raw_added, text, &at, &gap, &id)) {
        TRY(encode_stretch(t, gap, ids, e));
        if (id >= 0)
            tok_ids_push(ids, id);
    }
    return ERR_OK;
}

enum err_code tok_encode(struct tok *t, struct str text, struct tok_ids *ids, struct err *e)
{
    enum { MAX_TEXT = 1 << 29 }; /* positions inside a piece are 32 bits, and NFC may triple it */
    if (text.n > MAX_TEXT)
        return err_set(e, ERR_UNSUPPORTED, "a text of %zu bytes, at most %d are encoded at once",
                       text.n, (int)MAX_TEXT);
    size_t valid = uni_valid_prefix(text);
    if (valid < text.n)
        return err_set(e, ERR_FORMAT, "the text is not UTF-8: byte 0x%02X at offset %zu",
                       (unsigned int)(unsigned char)text.p[valid], valid);
    size_t before = ids->n;
    enum err_code rc = encode_text(t, text, ids, e);
    if (rc != ERR_OK)
        ids->n = before;
    return rc;
}

/* ---- facts ---- */

int32_t tok_vocab_size(const struct tok *t)
{
    return t->n_ids;
}

int32_t tok_bos(const struct tok *t)
{
    return t->bos;
}

int32_t tok_eos(const struct tok *t)
{
    return t->eos;
}

int32_t tok_default_prefix(const struct tok *t)
{
    return t->prefix;
}

const char *tok_sha256(const struct tok *t)
{
    return t->sha256;
}
