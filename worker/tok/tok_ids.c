#include "base/mem.h"
#include "worker/tok/tok.h"

void tok_ids_push(struct tok_ids *ids, int32_t id)
{
    if (ids->n == ids->cap) {
        ids->cap = ids->cap * 2 + 64;
        ids->v = xrealloc(ids->v, ids->cap * sizeof(*ids->v));
    }
    ids->v[ids->n++] = id;
}

void tok_ids_release(struct tok_ids *ids)
{
    xfree(ids->v);
    *ids = (struct tok_ids){0};
}
