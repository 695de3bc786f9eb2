#include "worker/quant/quant.h"

#include "base/mem.h"
#include "schema/bits.h"
#include "worker/quant/outlier.h"

enum { K_MAX = 8 };
_Static_assert((int)QUANT_BOOK_MAX <= (int)KERN_RANKS, "the ranks of a codebook are found at once");

/* What is known of one tensor: functions of the fp16 master alone. */
struct quant_entry {
    /* Of all its weights as they are, a type and k; NULL until a configuration asks. */
    struct codebook *books[DTYPE_COUNT][K_MAX + 1];
    struct outlier_order order;
};

struct quant_cache {
    int n;
    struct quant_entry entry[];
};

struct quant_cache *quant_cache_new(int n_tensors)
{
    CHECK(n_tensors >= 0);
    struct quant_cache *q = xcalloc(1, sizeof(*q) + (size_t)n_tensors * sizeof(q->entry[0]));
    q->n = n_tensors;
    return q;
}

static void entry_release(struct quant_entry *entry)
{
    for (int d = 0; d < DTYPE_COUNT; d++)
        for (int k = 0; k <= K_MAX; k++)
            xfree(entry->books[d][k]);
    outlier_order_release(&entry->order);
    *entry = (struct quant_entry){0};
}

void quant_cache_free(struct quant_cache *q)
{
    if (q == NULL)
        return;
    for (int i = 0; i < q->n; i++)
        entry_release(&q->entry[i]);
    xfree(q);
}

static enum kern_center kern_center_of(enum center c)
{
    switch (c) {
    case CENTER_TENSOR:
        return KERN_CENTER_TENSOR;
    case CENTER_BLOCK:
        return KERN_CENTER_BLOCK;
    case CENTER_NONE:
    case CENTER_COUNT:
        break;
    }
    return KERN_CENTER_NONE;
}

/* One configuration being applied; `keep` has room for the widest tensor. */
struct application {
    struct kern *k;
    const struct config *config;
    struct codebook book;
    int32_t *keep;
};

enum err_code codebook_of_weights(struct kern *k, const struct config *c,
                                  const struct kern_quant_args *args, struct codebook *out,
                                  struct err *e)
{
    struct order_statistics s;
    if (!dtype_is_data_dependent(c->dtype))
        return codebook_fill(c, NULL, out, e);
    TRY(codebook_ranks(c, args->rows * (args->cols - args->n_keep), &s, e));
    TRY(kern_order_statistics(k, args, s.rank, s.n, s.value, e));
    return codebook_fill(c, &s, out, e);
}

/* Block sizes share the codebook of a type and k, unless columns are taken out or means subtracted. */
static enum err_code fill_from_data(struct application *ap, const struct kern_quant_args *args,
                                    struct quant_entry *entry, struct err *e)
{
    const struct config *c = ap->config;
    if (args->n_keep > 0 || args->center != KERN_CENTER_NONE || c->k < 0 || c->k > K_MAX)
        return codebook_of_weights(ap->k, c, args, &ap->book, e);
    struct codebook **book = &entry->books[c->dtype][c->k];
    if (*book == NULL) {
        TRY(codebook_of_weights(ap->k, c, args, &ap->book, e));
        *book = xmalloc(sizeof(**book));
        **book = ap->book;
    }
    ap->book = **book;
    return ERR_OK;
}

static enum err_code tensor_apply(struct application *ap, const struct quant_tensor *t,
                                  struct quant_entry *entry, int64_t *n_keep, struct err *e)
{
    *n_keep = t->rank_w16 != NULL ? bits_n_keep(ap->config->outlier_pct, t->cols) : 0;
    if (*n_keep > 0)
        TRY(outlier_choose(ap->k, t, &entry->order, *n_keep, ap->keep, e));
    struct kern_quant_args args = {
        .w16 = t->w16,
        .rows = t->rows,
        .cols = t->cols,
        .block = ap->config->block,
        .center = kern_center_of(ap->config->center),
        .keep = *n_keep > 0 ? ap->keep : NULL,
        .n_keep = (int32_t)*n_keep,
        .is_dequant_fp32 = ap->config->dequant == DEQUANT_FP32,
        .out = t->out,
        .is_checked_later = true,
    };
    if (dtype_is_data_dependent(ap->config->dtype))
        TRY(fill_from_data(ap, &args, entry, e));
    args.book = ap->book.v;
    args.n_book = ap->book.n;
    return kern_quantize(ap->k, &args, e);
}

static int64_t widest(const struct quant_tensor *tensors, int n)
{
    int64_t cols = 0;
    for (int i = 0; i < n; i++)
        cols = tensors[i].cols > cols ? tensors[i].cols : cols;
    return cols;
}

/* Queues tensors [first, end) and waits once. Of several that cannot be quantized the first is named. */
static enum err_code apply_some(struct application *ap, const struct quant_tensor *tensors,
                                int first, int end, struct quant_cache *cache, int64_t *n_keep,
                                struct err *e)
{
    enum err_code code = ERR_OK;
    struct err last; /* of the one that could not be queued */
    int64_t call = 0;
    int i = first;
    for (; i < end && code == ERR_OK; i++) {
        struct quant_entry none = {0};
        struct quant_entry *entry = cache != NULL ? &cache->entry[i] : &none;
        code = tensor_apply(ap, &tensors[i], entry, &n_keep[i], &last);
        entry_release(&none);
    }
    if (kern_quant_check(ap->k, &call, e) != ERR_OK)
        return err_wrap(e, "quantizing %s", tensors[first + call].name);
    if (code == ERR_OK)
        return ERR_OK;
    *e = last;
    return err_wrap(e, "quantizing %s", tensors[i - 1].name);
}

static enum err_code apply_all(struct application *ap, const struct quant_tensor *tensors, int n,
                               struct quant_cache *cache, int64_t *n_keep, struct err *e)
{
    for (int i = 0; i < n; i += KERN_QUANT_CALLS) {
        int end = i + KERN_QUANT_CALLS < n ? i + KERN_QUANT_CALLS : n;
        TRY(apply_some(ap, tensors, i, end, cache, n_keep, e));
    }
    return ERR_OK;
}

enum err_code quant_apply(struct kern *k, const struct config *c,
                          const struct quant_tensor *tensors, int n, struct quant_cache *cache,
                          int64_t *n_keep, struct err *e)
{
    CHECK(cache == NULL || cache->n == n);
    struct application ap = {.k = k, .config = c};
    if (!dtype_is_data_dependent(c->dtype))
        TRY(codebook_fill(c, NULL, &ap.book, e));
    ap.keep = xcalloc((size_t)widest(tensors, n), sizeof(*ap.keep));
    enum err_code code = apply_all(&ap, tensors, n, cache, n_keep, e);
    xfree(ap.keep);
    return code;
}
