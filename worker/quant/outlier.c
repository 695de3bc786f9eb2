#include "worker/quant/outlier.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

struct ranked {
    unsigned __int128 key;
    int32_t column;
};

static int compare_ranked(const void *a, const void *b)
{
    const struct ranked *x = a;
    const struct ranked *y = b;
    if (x->key != y->key)
        return x->key > y->key ? -1 : 1;
    return (x->column > y->column) - (x->column < y->column);
}

static int compare_columns(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a;
    int32_t y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

void outlier_order_release(struct outlier_order *o)
{
    xfree(o->column);
    *o = (struct outlier_order){0};
}

static enum err_code check_map(const struct quant_tensor *t, int64_t n_lines, struct err *e)
{
    for (int64_t j = 0; j < t->cols; j++) {
        if (t->rank_at[j] < 0 || t->rank_at[j] >= n_lines)
            return err_set(e, ERR_FORMAT,
                           "input column %" PRId64 " is ranked by line %d of a tensor with %" PRId64
                           " lines",
                           j, t->rank_at[j], n_lines);
    }
    return ERR_OK;
}

static void order_by(const struct quant_tensor *t, const unsigned __int128 *keys,
                     struct outlier_order *o)
{
    struct ranked *ranked = xcalloc((size_t)t->cols, sizeof(*ranked));
    for (int64_t j = 0; j < t->cols; j++)
        ranked[j] = (struct ranked){.key = keys[t->rank_at[j]], .column = (int32_t)j};
    qsort(ranked, (size_t)t->cols, sizeof(*ranked), compare_ranked);
    outlier_order_release(o);
    *o = (struct outlier_order){
        .rank_w16 = t->rank_w16,
        .rank_by_rows = t->rank_by_rows,
        .n = t->cols,
        .column = xcalloc((size_t)t->cols, sizeof(*o->column)),
    };
    for (int64_t j = 0; j < t->cols; j++)
        o->column[j] = ranked[j].column;
    xfree(ranked);
}

static enum err_code order_compute(struct kern *k, const struct quant_tensor *t,
                                   struct outlier_order *o, struct err *e)
{
    int64_t n_lines = t->rank_by_rows ? t->rank_rows : t->rank_cols;
    TRY(check_map(t, n_lines, e));
    if (t->rank_keys != NULL) {
        order_by(t, t->rank_keys, o);
        return ERR_OK;
    }
    unsigned __int128 *keys = xcalloc((size_t)n_lines, sizeof(*keys));
    enum err_code code =
        kern_spread(k, t->rank_w16, t->rank_rows, t->rank_cols, t->rank_by_rows, keys, e);
    if (code == ERR_OK)
        order_by(t, keys, o);
    xfree(keys);
    return code;
}

enum err_code outlier_choose(struct kern *k, const struct quant_tensor *t, struct outlier_order *o,
                             int64_t n_keep, int32_t *keep, struct err *e)
{
    CHECK(t->rank_w16 != NULL && n_keep <= t->cols);
    if (o->rank_w16 != t->rank_w16 || o->rank_by_rows != t->rank_by_rows)
        TRY(order_compute(k, t, o, e));
    CHECK(o->n == t->cols);
    memcpy(keep, o->column, (size_t)n_keep * sizeof(*keep));
    qsort(keep, (size_t)n_keep, sizeof(*keep), compare_columns);
    return ERR_OK;
}
