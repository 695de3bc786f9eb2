#include "analysis/pivot.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int compare_int(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

static void find_columns(const struct frame *f, struct pivot *p)
{
    for (int i = 0; i < f->n; i++) {
        bool is_known = p->n_k == PIVOT_MAX_K;
        for (int c = 0; c < p->n_k; c++)
            is_known = is_known || p->k[c] == f->rows[i].k;
        if (!is_known)
            p->k[p->n_k++] = f->rows[i].k;
    }
    qsort(p->k, (size_t)p->n_k, sizeof(p->k[0]), compare_int);
}

static bool is_same_model(const struct pivot_row *r, const struct frame_row *row)
{
    return strcmp(r->sweep, row->sweep) == 0 && strcmp(r->family, row->family) == 0 &&
           strcmp(r->size, row->size) == 0 && strcmp(r->setting.compute, row->compute) == 0;
}

static struct pivot_row *row_for(struct pivot *p, const struct frame_row *row, struct arena *a)
{
    struct setting s = setting_of(row, a);
    for (int i = p->n_rows - 1; i >= 0; i--)
        if (is_same_model(&p->rows[i], row) && setting_equal(&p->rows[i].setting, &s))
            return &p->rows[i];
    struct pivot_row *r = &p->rows[p->n_rows++];
    *r = (struct pivot_row){row->sweep, row->family, row->size, row->n_params, s, {0}, {0}};
    for (int c = 0; c < PIVOT_MAX_K; c++)
        r->value[c] = r->bits_per_param[c] = NAN;
    return r;
}

static void set_cell(const struct pivot *p, struct pivot_row *r, const struct frame_row *row,
                     enum metric_id m)
{
    for (int c = 0; c < p->n_k; c++)
        if (p->k[c] == row->k) {
            r->value[c] = row->metric[m];
            r->bits_per_param[c] = row->bits_per_param;
        }
}

struct pivot pivot_build(const struct frame *f, enum metric_id m, struct arena *a)
{
    struct pivot p = {.rows = arena_array(a, (size_t)f->n + 1, sizeof(struct pivot_row))};
    find_columns(f, &p);
    for (int i = 0; i < f->n; i++)
        if (f->rows[i].k < 16)
            set_cell(&p, row_for(&p, &f->rows[i], a), &f->rows[i], m);
    int n_quantized = p.n_rows;
    for (int i = 0; i < f->n; i++) {
        if (f->rows[i].k < 16)
            continue;
        bool is_placed = false;
        for (int r = 0; r < n_quantized; r++)
            if (is_same_model(&p.rows[r], &f->rows[i])) {
                set_cell(&p, &p.rows[r], &f->rows[i], m);
                is_placed = true;
            }
        if (!is_placed)
            set_cell(&p, row_for(&p, &f->rows[i], a), &f->rows[i], m);
    }
    return p;
}
