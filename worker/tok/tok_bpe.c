#include "worker/tok/tok_bpe.h"

#include <string.h>
#include <xxhash.h>

#include "base/mem.h"

enum { NO_SYMBOL = -1 };
#define NO_RANK UINT32_MAX

/* Open addressing, at most half full. The key is left id << 32 | right id. */
struct pair_slot {
    uint64_t key;
    uint32_t rank; /* NO_RANK: the slot is free */
};

struct whole_slot {
    struct str bytes; /* n == 0: the slot is free */
    int32_t id;
};

/* One remembered piece in two cache lines. A newer piece of the same slot replaces it: no list to keep, and the
 * table never grows. */
enum { CACHE_PIECE = 46, CACHE_IDS = 20, CACHE_SLOTS = 1 << 15 };
struct cached {
    uint8_t n_bytes, n_ids; /* n_bytes == 0: free */
    char bytes[CACHE_PIECE];
    int32_t ids[CACHE_IDS];
};
_Static_assert(sizeof(struct cached) == 128, "two cache lines");

/* A symbol covers some bytes of the piece; merging extends it over its right neighbour, which dies. */
struct symbol {
    int32_t id; /* -1: dead */
    int32_t prev, next;
    uint32_t rank; /* of the pair (this, next); NO_RANK: cannot be merged */
};

struct bpe {
    int32_t byte_id[256];
    struct pair_slot *pairs;
    size_t pair_mask;
    int32_t *merged; /* [n_merges] by rank */
    uint32_t n_merges, max_merges;
    struct whole_slot *wholes; /* NULL: pieces are always merged */
    size_t n_wholes, whole_slots;
    struct cached *cache;
    struct symbol *symbols; /* scratch of one piece */
    size_t symbols_cap;
    uint64_t
        *heap; /* rank << 32 | index of the left symbol: the minimum is the next pair to merge */
    size_t heap_n, heap_cap;
};

static size_t slots_for(size_t n)
{
    size_t slots = 64;
    while (slots < 2 * n)
        slots *= 2;
    return slots;
}

struct bpe *bpe_new(const int32_t *byte_id, size_t n_merges)
{
    CHECK(n_merges < INT32_MAX);
    struct bpe *b = xcalloc(1, sizeof(*b));
    memcpy(b->byte_id, byte_id, sizeof(b->byte_id));
    size_t slots = slots_for(n_merges);
    b->pairs = xmalloc(slots * sizeof(*b->pairs));
    for (size_t i = 0; i < slots; i++)
        b->pairs[i] = (struct pair_slot){0, NO_RANK};
    b->pair_mask = slots - 1;
    b->max_merges = (uint32_t)n_merges;
    b->merged = xmalloc((n_merges + 1) * sizeof(*b->merged));
    b->cache = xcalloc(CACHE_SLOTS, sizeof(*b->cache));
    return b;
}

void bpe_free(struct bpe *b)
{
    if (b == NULL)
        return;
    xfree(b->heap);
    xfree(b->symbols);
    xfree(b->cache);
    xfree(b->wholes);
    xfree(b->merged);
    xfree(b->pairs);
    xfree(b);
}

static uint64_t pair_key(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

/* The slot that holds the pair, or the free one where it belongs. */
static struct pair_slot *pair_slot(const struct bpe *b, uint64_t key)
{
    size_t i = (size_t)((key * 0x9e3779b97f4a7c15U) >> 32) & b->pair_mask;
    while (b->pairs[i].rank != NO_RANK && b->pairs[i].key != key)
        i = (i + 1) & b->pair_mask;
    return &b->pairs[i];
}

void bpe_add_merge(struct bpe *b, int32_t left, int32_t right, int32_t merged)
{
    CHECK(b->n_merges < b->max_merges);
    uint64_t key = pair_key(left, right);
    *pair_slot(b, key) = (struct pair_slot){key, b->n_merges};
    b->merged[b->n_merges++] = merged;
}

static struct whole_slot *whole_slot(struct whole_slot *table, size_t slots, struct str bytes)
{
    size_t i = (size_t)XXH3_64bits(bytes.p, bytes.n) & (slots - 1);
    while (table[i].bytes.n != 0 && !str_eq(table[i].bytes, bytes))
        i = (i + 1) & (slots - 1);
    return &table[i];
}

void bpe_add_whole(struct bpe *b, struct str bytes, int32_t id)
{
    if (bytes.n == 0)
        return;
    if (2 * (b->n_wholes + 1) > b->whole_slots) {
        size_t slots = slots_for(2 * (b->n_wholes + 1));
        struct whole_slot *table = xcalloc(slots, sizeof(*table));
        for (size_t i = 0; i < b->whole_slots; i++) {
            if (b->wholes[i].bytes.n != 0)
                *whole_slot(table, slots, b->wholes[i].bytes) = b->wholes[i];
        }
        xfree(b->wholes);
        b->wholes = table;
        b->whole_slots = slots;
    }
    *whole_slot(b->wholes, b->whole_slots, bytes) = (struct whole_slot){bytes, id};
    b->n_wholes++;
}

static void heap_push(struct bpe *b, uint64_t v)
{
    if (b->heap_n == b->heap_cap) {
        b->heap_cap = b->heap_cap * 2 + 64;
        b->heap = xrealloc(b->heap, b->heap_cap * sizeof(*b->heap));
    }
    size_t i = b->heap_n++;
    while (i > 0 && b->heap[(i - 1) / 2] > v) {
        b->heap[i] = b->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    b->heap[i] = v;
}

static uint64_t heap_pop(struct bpe *b)
{
    uint64_t *h = b->heap;
    uint64_t min = h[0];
    uint64_t v = h[--b->heap_n];
    size_t i = 0;
    for (size_t child = 1; child < b->heap_n; child = 2 * i + 1) {
        child += child + 1 < b->heap_n && h[child + 1] < h[child];
        if (h[child] >= v)
            break;
        h[i] = h[child];
        i = child;
    }
    h[i] = v;
    return min;
}

/* Ranks the pair (i, next of i) afresh and queues it. */
static void rank_pair(struct bpe *b, int32_t i)
{
    struct symbol *s = &b->symbols[i];
    s->rank = s->next == NO_SYMBOL ? NO_RANK
                                   : pair_slot(b, pair_key(s->id, b->symbols[s->next].id))->rank;
    if (s->rank != NO_RANK)
        heap_push(b, (uint64_t)s->rank << 32 | (uint32_t)i);
}

static void merge_piece(struct bpe *b, struct str piece)
{
    if (piece.n > b->symbols_cap) {
        b->symbols_cap = piece.n + 64;
        b->symbols = xrealloc(b->symbols, b->symbols_cap * sizeof(*b->symbols));
    }
    int32_t n = (int32_t)piece.n;
    struct symbol *s = b->symbols;
    for (int32_t i = 0; i < n; i++)
        s[i] = (struct symbol){b->byte_id[(unsigned char)piece.p[i]], i - 1,
                               i + 1 < n ? i + 1 : NO_SYMBOL, NO_RANK};
    b->heap_n = 0;
    for (int32_t i = 0; i < n; i++)
        rank_pair(b, i);
    while (b->heap_n > 0) {
        uint64_t top = heap_pop(b);
        uint32_t rank = (uint32_t)(top >> 32);
        int32_t i = (int32_t)(top & UINT32_MAX);
        /* Entries are never removed early. The pair that starts at i only grows, so an entry is out of date
         * exactly when the rank differs. */
        if (s[i].id < 0 || s[i].rank != rank)
            continue;
        int32_t right = s[i].next;
        s[i].id = b->merged[rank];
        s[i].next = s[right].next;
        s[right].id = -1;
        if (s[right].next != NO_SYMBOL)
            s[s[right].next].prev = i;
        rank_pair(b, i);
        if (s[i].prev != NO_SYMBOL)
            rank_pair(b, s[i].prev);
    }
}

static void remember(struct cached *c, struct str piece, const int32_t *ids, size_t n_ids)
{
    if (n_ids > CACHE_IDS)
        return;
    c->n_bytes = (uint8_t)piece.n;
    c->n_ids = (uint8_t)n_ids;
    memcpy(c->bytes, piece.p, piece.n);
    memcpy(c->ids, ids, n_ids * sizeof(*ids));
}

void bpe_encode(struct bpe *b, struct str piece, struct tok_ids *ids)
{
    CHECK(piece.n < INT32_MAX);
    if (piece.n == 0)
        return;
    struct cached *c = NULL;
    if (piece.n <= CACHE_PIECE) {
        c = &b->cache[XXH3_64bits(piece.p, piece.n) & (CACHE_SLOTS - 1)];
        if (c->n_bytes == piece.n && memcmp(c->bytes, piece.p, piece.n) == 0) {
            for (size_t i = 0; i < c->n_ids; i++)
                tok_ids_push(ids, c->ids[i]);
            return;
        }
    }
    size_t first = ids->n;
    struct whole_slot *whole =
        b->wholes != NULL ? whole_slot(b->wholes, b->whole_slots, piece) : NULL;
    if (whole != NULL && whole->bytes.n != 0) {
        tok_ids_push(ids, whole->id);
    } else {
        merge_piece(b, piece);
        for (int32_t i = 0; i != NO_SYMBOL; i = b->symbols[i].next)
            tok_ids_push(ids, b->symbols[i].id);
    }
    if (c != NULL)
        remember(c, piece, ids->v + first, ids->n - first);
}
