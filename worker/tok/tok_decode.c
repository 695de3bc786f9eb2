#include "worker/tok/tok_bytemap.h"
#include "worker/tok/tok_load.h"

/* Entries of the vocabulary are written in the byte alphabet, unless they stand for themselves. */
static struct str text_of(struct tok *t, struct str entry, bool is_mapped)
{
    char *out = arena_alloc(&t->strings, entry.n + 1);
    size_t n = 0;
    if (is_mapped && bytemap_decode(entry, out, &n))
        return (struct str){out, n};
    return (struct str){arena_strndup(&t->strings, entry.p, entry.n), entry.n};
}

static void add_entries(struct tok *t, json_t *entries, bool is_mapped)
{
    const char *key = NULL;
    json_t *id = NULL;
    json_object_foreach(entries, key, id)
    {
        json_int_t i = json_integer_value(id);
        if (json_is_integer(id) && i >= 0 && i < t->n_ids)
            t->id_text[i] = text_of(t, str_of(key), is_mapped);
    }
}

void tok_decode_load(struct tok *t, const struct tok_source *src)
{
    t->id_text = arena_array(&t->strings, (size_t)t->n_ids, sizeof(*t->id_text));
    add_entries(t, src->vocab, true);
    /* Added tokens are plain text, also where the vocabulary lists them. */
    add_entries(t, src->added, false);
}

void tok_decode(const struct tok *t, const int32_t *ids, size_t n, struct buf *out)
{
    for (size_t i = 0; i < n; i++)
        if (ids[i] >= 0 && ids[i] < t->n_ids)
            buf_add(out, t->id_text[ids[i]].p, t->id_text[ids[i]].n);
}
