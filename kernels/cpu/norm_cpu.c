/* Layer normalization, one row per step. */
#include "kernels/cpu/cpu.h"

static void norm_row(const struct cpu_kern *c, const struct kern_norm_args *a, int64_t t)
{
    const float *x = (const float *)a->x + (a->rows != NULL ? a->rows[t] : t) * a->d;
    const struct kern_norm_out *outs[] = {&a->out, &a->also};
    for (int i = 0; i < 2; i++)
        if (outs[i]->y != NULL)
            c->vec->layernorm((float *)outs[i]->y + t * a->d, x, outs[i]->w, outs[i]->b, a->eps,
                              a->d);
}

enum err_code cpu_layernorm(struct kern *k, const struct kern_norm_args *a, struct err *e)
{
    (void)e;
    CHECK(a->out.y != a->x || (a->rows == NULL && a->also.y == NULL));
    const struct cpu_kern *c = cpu_of(k);
    const int64_t n = a->rows != NULL ? a->n_rows : a->T;
#pragma omp parallel for num_threads(c->threads)
    for (int64_t t = 0; t < n; t++)
        norm_row(c, a, t);
    return ERR_OK;
}
