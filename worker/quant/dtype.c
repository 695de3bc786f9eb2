#include <math.h>
#include <stdlib.h>

#include "worker/quant/dtype.h"
#include "worker/quant/quant.h"

#define X(id, label, k_min, k_max) extern const struct dtype_ops dtype_ops_##id;
#include "schema/dtype.def"
#undef X

/* What dtype.def says of each type. */
static const struct row {
    const char *label;
    int k_min, k_max;
    const struct dtype_ops *ops;
} rows[DTYPE_COUNT] = {
#define X(id, label, k_min, k_max) [DTYPE_##id] = {label, k_min, k_max, &dtype_ops_##id},
#include "schema/dtype.def"
#undef X
};

static bool does_exist(enum dtype d)
{
    return (int)d >= 0 && d < DTYPE_COUNT;
}

bool dtype_is_data_dependent(enum dtype d)
{
    return does_exist(d) && rows[d].ops->ranks != NULL;
}

static enum err_code row_of(const struct config *c, const struct row **out, struct err *e)
{
    if (!does_exist(c->dtype))
        return err_set(e, ERR_FORMAT, "data type number %d does not exist", (int)c->dtype);
    const struct row *row = &rows[c->dtype];
    if (c->k < row->k_min || c->k > row->k_max)
        return err_set(e, ERR_FORMAT, "k=%d is not possible with dtype %s; use k from %d to %d",
                       c->k, row->label, row->k_min, row->k_max);
    *out = row;
    return ERR_OK;
}

enum err_code codebook_ranks(const struct config *c, int64_t count, struct order_statistics *s,
                             struct err *e)
{
    const struct row *row;
    TRY(row_of(c, &row, e));
    CHECK(row->ops->ranks != NULL);
    *s = (struct order_statistics){0};
    if (count > 0)
        row->ops->ranks(c->k, count, s);
    return ERR_OK;
}

enum err_code codebook_fill(const struct config *c, const struct order_statistics *s,
                            struct codebook *out, struct err *e)
{
    const struct row *row;
    TRY(row_of(c, &row, e));
    CHECK(row->ops->ranks == NULL || s != NULL);
    *out = (struct codebook){0};
    return row->ops->fill(c, s, out, e);
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

void codebook_from_levels(double *level, int n, struct codebook *out)
{
    CHECK(n >= 1 && n <= QUANT_BOOK_MAX);
    double max = 0;
    for (int i = 0; i < n; i++)
        max = fmax(max, fabs(level[i]));
    qsort(level, (size_t)n, sizeof(*level), compare_doubles);
    out->n = n;
    for (int i = 0; i < n; i++)
        out->v[i] = (float)(level[i] / max);
}
