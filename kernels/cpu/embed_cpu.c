/* Table look-ups and row copies. */
#include <string.h>

#include "kernels/cpu/cpu.h"

enum err_code cpu_embed(struct kern *k, const struct kern_embed_args *a, struct err *e)
{
    (void)e;
    const float *table = a->table, *pos_table = a->pos_table;
    float *out = a->out;
#pragma omp parallel for num_threads(cpu_of(k)->threads)
    for (int64_t t = 0; t < a->T; t++) {
        float *row = out + t * a->d;
        memcpy(row, table + a->ids[t] * a->d, (size_t)a->d * sizeof(float));
        if (pos_table == NULL)
            continue;
        const float *p = pos_table + a->pos[t] * a->d;
        for (int64_t i = 0; i < a->d; i++)
            row[i] += p[i];
    }
    return ERR_OK;
}

enum err_code cpu_copy_rows(struct kern *k, const struct kern_rows_args *a, struct err *e)
{
    (void)e;
    const float *x = a->x;
    float *y = a->y;
#pragma omp parallel for num_threads(cpu_of(k)->threads)
    for (int64_t i = 0; i < a->n; i++) {
        int64_t to = a->y_rows != NULL ? a->y_rows[i] : i;
        int64_t from = a->x_rows != NULL ? a->x_rows[i] : i;
        memcpy(y + to * a->d, x + from * a->d, (size_t)a->d * sizeof(float));
    }
    return ERR_OK;
}
