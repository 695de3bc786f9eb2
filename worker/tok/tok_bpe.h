/* Byte-pair merging: the bytes of one piece of text become token ids. Within a piece the adjacent pair of lowest
 * rank, leftmost first, is merged until no pair is left (evaluation spec, section 10, step 5). Short pieces are
 * remembered in a table of fixed size. Knows nothing of files. Thread: one at a time. */
#ifndef ISOBIT_WORKER_TOK_TOK_BPE_H
#define ISOBIT_WORKER_TOK_TOK_BPE_H

#include "base/str.h"
#include "worker/tok/tok.h"

struct bpe; /* opaque */

/* byte_id[256]: the id of each byte; -1 for bytes that stand in no UTF-8 text. */
struct bpe *bpe_new(const int32_t *byte_id, size_t n_merges);
void bpe_free(struct bpe *b);

/* Rules are given in the order of their rank, at most n_merges of them. A pair given twice keeps the later rank. */
void bpe_add_merge(struct bpe *b, int32_t left, int32_t right, int32_t merged);
/* From the first such call on, a piece that is a whole token is taken as it is (`ignore_merges`).
 * `bytes` is kept. */
void bpe_add_whole(struct bpe *b, struct str bytes, int32_t id);

/* Appends the ids of one piece, shorter than 2 GiB. O(n log n) in its bytes. */
void bpe_encode(struct bpe *b, struct str piece, struct tok_ids *ids);

#endif
