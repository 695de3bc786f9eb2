/* A vocabulary is a JSON object, token -> id, with tokens in the byte alphabet (tok_bytemap.h):
 *     {"!": 0, …, "Ġthe": 262, …}
 * The rules are pairs of tokens in the order of their rank, either as lines "Ġ t" of merges.txt, below a first
 * line "#version: 0.2", or in tokenizer.json as strings "Ġ t" or as arrays ["Ġ", "t"]. */
#include <string.h>

#include "worker/tok/tok_bytemap.h"
#include "worker/tok/tok_load.h"

int32_t tok_vocab_id(const struct tok_source *src, const char *token)
{
    const json_t *v = json_object_get(src->vocab, token);
    return json_is_integer(v) ? (int32_t)json_integer_value(v) : -1;
}

enum err_code tok_vocab_set(struct tok_source *src, json_t *vocab, const char *where, struct err *e)
{
    const char *key = NULL;
    json_t *v = NULL;
    enum err_code rc = ERR_OK;
    const char **owner = NULL; /* [id]: the token that has it */
    size_t n_owners = 0;
    json_object_foreach(vocab, key, v)
    {
        int64_t id = 0;
        rc = json_need_int(vocab, key, where, 0, TOK_MAX_VOCAB - 1, &id, e);
        if (rc != ERR_OK)
            goto out;
        if ((size_t)id >= n_owners) {
            size_t n = (size_t)id + 1 + n_owners;
            owner = xrealloc(owner, n * sizeof(*owner));
            memset(owner + n_owners, 0, (n - n_owners) * sizeof(*owner));
            n_owners = n;
        }
        if (owner[id] != NULL) {
            rc = err_set(e, ERR_FORMAT, "%s: \"%s\" and \"%s\" have the same id %lld", where,
                         owner[id], key, (long long)id);
            goto out;
        }
        owner[id] = key;
        if (id > src->max_id)
            src->max_id = (int32_t)id;
    }
    src->vocab = vocab;
    src->next_id = (int32_t)json_object_size(vocab);
out:
    xfree(owner);
    return rc;
}

/* 0xC0, 0xC1 and 0xF5 to 0xFF stand in no UTF-8 text. Every other byte must be a token: then no text meets an
 * unknown token, and unk_token, fuse_unk and byte_fallback of the files do not matter. */
static bool stands_in_utf8(int byte)
{
    return byte != 0xC0 && byte != 0xC1 && byte < 0xF5;
}

static enum err_code new_bpe(struct tok *t, const struct tok_source *src, size_t n_merges,
                             const char *where, struct err *e)
{
    int32_t byte_id[256];
    for (int i = 0; i < 256; i++) {
        char byte = (char)i;
        char token[BYTEMAP_MAX_UTF8 + 1] = "";
        bytemap_encode((struct str){&byte, 1}, token);
        byte_id[i] = tok_vocab_id(src, token);
        if (byte_id[i] < 0 && stands_in_utf8(i))
            return err_set(e, ERR_FORMAT,
                           "%s: no token \"%s\" for the byte 0x%02X; a byte-level vocabulary has "
                           "one for each",
                           where, token, (unsigned int)i);
    }
    t->bpe = bpe_new(byte_id, n_merges);
    return ERR_OK;
}

/* Where the rules come from, for errors: "merges.txt: line 3", "model.merges: rule 3". */
struct rules {
    struct tok *t;
    const struct tok_source *src;
    const char *where, *noun;
    size_t number;    /* of the rule at hand */
    struct buf token; /* scratch; the longest token of GPT-NeoX-20B has 1024 bytes */
};

/* Id of the token that is both texts together. */
static enum err_code find_token(struct rules *r, struct str a, struct str b, int32_t *id,
                                struct err *e)
{
    buf_reset(&r->token);
    buf_add(&r->token, a.p, a.n);
    buf_add(&r->token, b.p, b.n);
    *id = tok_vocab_id(r->src, r->token.data);
    if (*id < 0)
        return err_set(e, ERR_FORMAT, "%s: %s %zu: \"%.200s\" is not in the vocabulary", r->where,
                       r->noun, r->number, r->token.data);
    return ERR_OK;
}

static enum err_code add_rule(struct rules *r, struct str left, struct str right, struct err *e)
{
    enum { MAX_TOKEN = 1 << 20 };
    int32_t left_id = 0;
    int32_t right_id = 0;
    int32_t merged_id = 0;
    if (left.n == 0 || right.n == 0 || left.n > MAX_TOKEN || right.n > MAX_TOKEN)
        return err_set(e, ERR_FORMAT, "%s: %s %zu: a token has %zu bytes, expected 1 to %d",
                       r->where, r->noun, r->number, left.n == 0 ? left.n : right.n,
                       (int)MAX_TOKEN);
    TRY(find_token(r, left, (struct str){"", 0}, &left_id, e));
    TRY(find_token(r, right, (struct str){"", 0}, &right_id, e));
    TRY(find_token(r, left, right, &merged_id, e));
    bpe_add_merge(r->t->bpe, left_id, right_id, merged_id);
    return ERR_OK;
}

static enum err_code add_rule_text(struct rules *r, struct str rule, struct err *e)
{
    struct str left = {0};
    struct str right = rule;
    if (!str_next_field(&right, ' ', &left) || right.p == NULL ||
        memchr(right.p, ' ', right.n) != NULL)
        return err_set(e, ERR_FORMAT,
                       "%s: %s %zu: expected two tokens with one space between them, found "
                       "\"%.*s\"",
                       r->where, r->noun, r->number, (int)(rule.n < 100 ? rule.n : 100), rule.p);
    return add_rule(r, left, right, e);
}

static struct str text_of(const json_t *string)
{
    return (struct str){json_string_value(string), json_string_length(string)};
}

static enum err_code add_json_rule(struct rules *r, const json_t *rule, struct err *e)
{
    const json_t *left = json_array_get(rule, 0);
    const json_t *right = json_array_get(rule, 1);
    if (json_is_string(rule))
        return add_rule_text(r, text_of(rule), e);
    if (json_array_size(rule) == 2 && json_is_string(left) && json_is_string(right))
        return add_rule(r, text_of(left), text_of(right), e);
    return err_set(e, ERR_FORMAT, "%s: %s %zu must be a string \"A B\" or an array [\"A\", \"B\"]",
                   r->where, r->noun, r->number);
}

enum err_code tok_vocab_load(struct tok *t, const struct tok_source *src, const json_t *merges,
                             const char *where, struct err *e)
{
    size_t n = json_array_size(merges);
    if (n > TOK_MAX_VOCAB)
        return err_set(e, ERR_FORMAT, "%s: %zu rules, expected at most %d", where, n,
                       (int)TOK_MAX_VOCAB);
    TRY(new_bpe(t, src, n, where, e));
    struct rules r = {.t = t, .src = src, .where = where, .noun = "rule"};
    enum err_code rc = ERR_OK;
    for (; r.number < n && rc == ERR_OK; r.number++)
        rc = add_json_rule(&r, json_array_get(merges, r.number), e);
    buf_release(&r.token);
    return rc;
}

enum err_code tok_vocab_load_text(struct tok *t, const struct tok_source *src, struct err *e)
{
    const struct buf *file = &src->text[TOK_MERGES];
    struct str rest = {file->data, file->len};
    struct rules r = {.t = t, .src = src, .where = src->path[TOK_MERGES], .noun = "line"};
    if (memchr(rest.p, '\0', rest.n) != NULL)
        return err_set(e, ERR_FORMAT, "%s: a NUL byte, expected text", r.where);
    size_t n_lines = 1;
    for (size_t i = 0; i < rest.n; i++)
        n_lines += rest.p[i] == '\n';
    if (n_lines > TOK_MAX_VOCAB)
        return err_set(e, ERR_FORMAT, "%s: %zu lines, expected at most %d", r.where, n_lines,
                       (int)TOK_MAX_VOCAB);
    TRY(new_bpe(t, src, n_lines, src->path[TOK_VOCAB], e));
    enum err_code rc = ERR_OK;
    struct str line = {0};
    while (rc == ERR_OK && str_next_line(&rest, &line)) {
        r.number++;
        /* GPT-2 has rules that start with '#': only the first line can be the version. */
        bool is_version = r.number == 1 && str_starts(line, "#version");
        bool is_end = line.n == 0 && rest.n == 0;
        if (!is_version && !is_end)
            rc = add_rule_text(&r, line, e);
    }
    buf_release(&r.token);
    return rc;
}

void tok_vocab_take_wholes(struct tok *t, const struct tok_source *src)
{
    const char *key = NULL;
    json_t *v = NULL;
    json_object_foreach(src->vocab, key, v)
    {
        struct str token = str_of(key);
        char *bytes = arena_alloc(&t->strings, token.n + 1);
        size_t n = 0;
        if (bytemap_decode(token, bytes, &n))
            bpe_add_whole(t->bpe, (struct str){bytes, n}, (int32_t)json_integer_value(v));
    }
}
