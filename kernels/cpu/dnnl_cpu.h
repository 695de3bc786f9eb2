/* What the cpu backend has of oneDNN: single products on the calling thread. Private to kernels/cpu. */
#ifndef ISOBIT_KERNELS_CPU_DNNL_CPU_H
#define ISOBIT_KERNELS_CPU_DNNL_CPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* "oneDNN 2.6.3" */
void dnnl_cpu_name(char *out, size_t size);
/* What oneDNN uses here, which DNNL_MAX_CPU_ISA can limit: 512-bit vectors, and products of bf16 pairs with sums in
 * fp32 in one instruction (AVX512-BF16, AMX). */
bool dnnl_cpu_has_avx512(void);
bool dnnl_cpu_has_bf16(void);

/* y[m, n] = x[m, k] * w (+ y when is_sum) in fp32. w is [n, k], or [k, n] when is_panel; ldx and ldy are row lengths. */
struct dnnl_sgemm_args {
    float *y;
    const float *x, *w;
    int64_t m, n, k, ldx, ldy;
    bool is_sum, is_panel;
};
void dnnl_cpu_sgemm(const struct dnnl_sgemm_args *a);

/* y[m, n] = x[m, k] * w[k, n]: x and w bf16, sums and y fp32, all dense, w in a layout of oneDNN's own. Made once a shape;
 * any number of threads may run one at a time each. */
struct dnnl_product;
MUST_USE enum err_code dnnl_product_new(int64_t m, int64_t n, int64_t k, struct dnnl_product **out,
                                        struct err *e);
void dnnl_product_free(struct dnnl_product *p);
bool dnnl_product_is(const struct dnnl_product *p, int64_t m, int64_t n, int64_t k);
size_t dnnl_product_weight_bytes(const struct dnnl_product *p);
size_t dnnl_product_scratch_bytes(const struct dnnl_product *p);
/* out = panel[k, n] in the layout that dnnl_product_run wants. */
void dnnl_product_pack(const struct dnnl_product *p, const uint16_t *panel, void *out);
void dnnl_product_run(const struct dnnl_product *p, const uint16_t *x, const void *w, float *y,
                      void *scratch);

#endif
