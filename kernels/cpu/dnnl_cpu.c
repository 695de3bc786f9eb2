/* The matrix product of the cpu backend: oneDNN's sgemm on blocks, one thread each. Measured beside the matmul
 * and inner-product primitives (plain and prepacked weights) for 13 shapes of ours: all of them end in the same
 * kernels and are within the noise, so the call without descriptors wins (docs/ENGINE.md has the figures). The
 * only file that sees dnnl.h; sgemm is the same in oneDNN 2.x and 3.x. */
#include <dnnl.h>
#include <omp.h>
#include <stdio.h>

#include "kernels/cpu/cpu.h"

void cpu_gemm_name(char *out, size_t size)
{
    const dnnl_version_t *v = dnnl_version();
    snprintf(out, size, "oneDNN %d.%d.%d", v->major, v->minor, v->patch);
}

void cpu_gemm(const struct cpu_gemm_args *a)
{
    /* oneDNN keeps to one thread inside a parallel region; a region of one thread does not look like one. */
    int threads = omp_get_max_threads();
    bool is_alone = !omp_in_parallel();
    if (is_alone)
        omp_set_num_threads(1);
    dnnl_status_t status = dnnl_sgemm('N', 'T', a->m, a->n, a->k, 1.0F, a->x, a->ldx, a->w, a->k,
                                      a->is_sum ? 1.0F : 0.0F, a->y, a->ldy);
    if (is_alone)
        omp_set_num_threads(threads);
    CHECK(status == dnnl_success); /* it only refuses shapes that the callers have checked */
}
