/* Reading tokenizer files into the parts that encode; used by tok.c only. The files of a directory are read and
 * parsed once into a struct tok_source, from which the loaders fill a struct tok. Thread: one at a time. */
#ifndef ISOBIT_WORKER_TOK_TOK_LOAD_H
#define ISOBIT_WORKER_TOK_TOK_LOAD_H

#include "base/json.h"
#include "base/mem.h"
#include "worker/tok/tok_added.h"
#include "worker/tok/tok_bpe.h"
#include "worker/tok/tok_split.h"

enum { TOK_MAX_VOCAB = 4 << 20, TOK_MAX_FILE = 256 << 20 };

struct tok {
    struct added *raw_added;  /* looked for in the text as it is */
    bool is_nfc;              /* then the text is normalized, */
    struct added *nfc_added;  /* these are looked for, */
    struct split *split;      /* the rest is cut into pieces */
    struct bpe *bpe;          /* and merged */
    int32_t n_ids;            /* largest id + 1 */
    int32_t bos, eos, prefix; /* -1: none */
    char sha256[SHA256_HEX];
    struct str *id_text;  /* [n_ids]: the bytes an id stands for */
    struct buf nfc;       /* scratch */
    struct arena strings; /* texts that the parts keep */
};

enum tok_file { TOK_MERGES, TOK_SPECIAL_MAP, TOK_TOKENIZER, TOK_CONFIG, TOK_VOCAB, TOK_FILE_COUNT };

struct tok_source {
    const char *dir;
    char *path[TOK_FILE_COUNT];
    struct buf text[TOK_FILE_COUNT]; /* data == NULL: the file is absent */
    json_t *doc[TOK_FILE_COUNT];     /* NULL: absent, or no JSON (merges.txt) */
    json_t *vocab;                   /* borrowed from a doc: token -> id, in the byte alphabet */
    json_t *added;                   /* added token -> id */
    int32_t max_id;                  /* of the vocabulary and the added tokens */
    int32_t next_id;                 /* what the next token that is not in the vocabulary gets */
};

/* tok_vocab.c. `where` names the place in errors.
 * Takes `vocab` (borrowed, kept) as src->vocab once all its ids are in range and no two are equal. */
MUST_USE enum err_code tok_vocab_set(struct tok_source *src, json_t *vocab, const char *where,
                                     struct err *e);
/* src->vocab and an array of merge rules become t->bpe. */
MUST_USE enum err_code tok_vocab_load(struct tok *t, const struct tok_source *src,
                                      const json_t *merges, const char *where, struct err *e);
/* The same from the lines of merges.txt. */
MUST_USE enum err_code tok_vocab_load_text(struct tok *t, const struct tok_source *src,
                                           struct err *e);
/* Every token that is made of bytes is taken whole (`ignore_merges`). */
void tok_vocab_take_wholes(struct tok *t, const struct tok_source *src);
/* Id of a token of the vocabulary, -1 when there is none. */
int32_t tok_vocab_id(const struct tok_source *src, const char *token);

/* tok_json.c: everything from tokenizer.json. */
MUST_USE enum err_code tok_json_load(struct tok *t, struct tok_source *src, struct err *e);

/* tok_special.c: added tokens and the ids with a role.
 * Adds one token under the number Hugging Face gives it: its own in the vocabulary, else the next free one;
 * `id` < 0 takes that number, any other id must be equal to it. */
MUST_USE enum err_code tok_special_add(struct tok *t, struct tok_source *src, const json_t *flags,
                                       const char *text, int64_t id, struct err *e);
/* The special tokens of a directory without tokenizer.json. */
MUST_USE enum err_code tok_special_load_legacy(struct tok *t, struct tok_source *src,
                                               struct err *e);
/* That added_tokens.json, where it counts, says nothing that the other files do not say. */
MUST_USE enum err_code tok_special_check_file(const struct tok_source *src, struct err *e);
/* t->bos and t->eos. */
MUST_USE enum err_code tok_special_find_roles(struct tok *t, const struct tok_source *src,
                                              struct err *e);

/* tok_decode.c: t->id_text. */
void tok_decode_load(struct tok *t, const struct tok_source *src);

#endif
