/* Text to token ids: byte-level BPE from tokenizer.json, or from vocab.json + merges.txt (evaluation spec,
 * section 10). Encoding is exact to Hugging Face's `tokenizers` up to 0.20, whose expressions have Unicode 14.0, as
 * PCRE2 10.42 has, and whose NFC has 9.0 (tok_unicode.c); compared over every code point. Since 0.21 its expressions
 * have Unicode 16.0: letters and numbers that are younger than 14.0 can then be cut elsewhere.
 * Thread: one at a time (it has a cache). */
#ifndef ISOBIT_WORKER_TOK_TOK_H
#define ISOBIT_WORKER_TOK_TOK_H

#include <stdint.h>

#include "base/err.h"
#include "base/sha256.h"
#include "base/str.h"

struct tok; /* opaque */

/* A growing list of ids; all zero is empty; release with tok_ids_release. */
struct tok_ids {
    int32_t *v;
    size_t n, cap;
};
void tok_ids_push(struct tok_ids *ids, int32_t id);
void tok_ids_release(struct tok_ids *ids);

/* Reads the tokenizer files of a checkpoint directory. Errors: ERR_NOTFOUND, ERR_FORMAT (file, place),
 * ERR_UNSUPPORTED for a tokenizer.json whose parts this program does not implement, naming the part. */
MUST_USE enum err_code tok_open(const char *dir, struct tok **out, struct err *e);
void tok_close(struct tok *t);

/* Appends the ids of `text` (UTF-8; invalid bytes are an error with the offset) without special tokens added;
 * special tokens that stand in the text are recognized as Hugging Face does. */
MUST_USE enum err_code tok_encode(struct tok *t, struct str text, struct tok_ids *ids,
                                  struct err *e);

/* Appends the bytes of text that ids[n] stand for (after normalization; not always whole UTF-8 sequences: an id may end
 * inside one). Ids without an entry add nothing. */
void tok_decode(const struct tok *t, const int32_t *ids, size_t n, struct buf *out);

int32_t tok_vocab_size(const struct tok *t); /* largest id + 1, added tokens included */
/* -1 when the tokenizer has none: from tokenizer_config.json / special tokens, else config.json's ids. */
int32_t tok_bos(const struct tok *t);
int32_t tok_eos(const struct tok *t);
/* What the tokenizer puts in front when asked for special tokens: OPT </s>; -1: nothing. */
int32_t tok_default_prefix(const struct tok *t);
/* SHA-256 over the tokenizer files read, as "<sha256>  <name>\n" lines sorted by name. config.json is not one of
 * them: checkpoints that share a tokenizer share this. */
const char *tok_sha256(const struct tok *t);

#endif
