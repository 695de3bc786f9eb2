/* Layer normalization, one row per step. */
#include "kernels/cpu/cpu.h"

enum err_code cpu_layernorm(struct kern *k, const struct kern_norm_args *a, struct err *e)
{
    (void)e;
    CHECK(a->rows == NULL || a->y != a->x);
    const struct cpu_kern *c = cpu_of(k);
    const float *x = a->x, *w = a->w, *b = a->b;
    float *y = a->y;
    const int64_t n = a->rows != NULL ? a->n_rows : a->T;
#pragma omp parallel for num_threads(c->threads)
    for (int64_t t = 0; t < n; t++)
        c->vec->layernorm(y + t * a->d, x + (a->rows != NULL ? a->rows[t] : t) * a->d, w, b, a->eps,
                          a->d);
    return ERR_OK;
}
