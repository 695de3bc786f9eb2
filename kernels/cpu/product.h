/* Matrix products x[T, K] * w[N, K]^T in tiles of rows x columns: both operands are made ready once by all threads, then
 * each tile is one thread's. How they are made ready depends on the compute type and the processor:
 *
 *   fp32              as they are; with AVX-512 and enough rows w as panels [K][cols], which oneDNN's sgemm multiplies
 *                     faster than rows, since it no longer packs them again for every tile
 *   bf16, native      x rounded to bf16, w rounded and in oneDNN's own layout for the processor's bf16 products
 *   bf16, elsewhere   both rounded to bf16 but kept as fp32: the same products, which are exact in fp32, and sums
 *
 * docs/ENGINE.md has the figures. Private to kernels/cpu. */
#ifndef ISOBIT_KERNELS_CPU_PRODUCT_H
#define ISOBIT_KERNELS_CPU_PRODUCT_H

#include "kernels/cpu/cpu.h"

enum { PRODUCT_ROWS = 128, PRODUCT_COLS = 256 }; /* the largest tile */

/* w[N, K] ready for tiles of `cols` columns; valid until the next one is made. */
struct product_weights {
    const struct cpu_kern *c;
    const float *rows, *panels;              /* fp32: one of them */
    const char *native;                      /* or panels in oneDNN's layout, each `whole`'s size */
    const struct dnnl_product *whole, *last; /* of a panel of `cols` columns, and of the last one */
    int64_t N, K, cols;
};

/* x[T, K] ready; valid until the next one in the same place is made. */
struct product_rows {
    const float *fp32;
    const uint16_t *bf16; /* zero rows behind the last make whole tiles */
    int64_t T, K;
};

/* Places for rows: a divergence has two of them at once. */
enum product_place { PRODUCT_X, PRODUCT_REF, PRODUCT_PLACES };

/* `T` is the number of rows that come to these weights. Errors: ERR_NOMEM, ERR_UNSUPPORTED. */
MUST_USE enum err_code product_weights_make(struct cpu_kern *c, const float *w, int64_t N,
                                            int64_t K, int64_t cols, int64_t T,
                                            struct product_weights *out, struct err *e);
MUST_USE enum err_code product_rows_make(struct cpu_kern *c, enum product_place place,
                                         const float *x, int64_t T, int64_t K,
                                         struct product_rows *out, struct err *e);

/* Whether that makes a copy of w. */
bool product_is_laid_out(const struct cpu_kern *c, int64_t T);

/* One tile, from `row` and `col`, a multiple of `cols`. */
struct product_tile {
    int64_t row, rows, col, cols;
};
/* y[rows, cols] = tile (+ y when is_sum). Where product_is_dense, y has room for PRODUCT_ROWS rows whatever t->rows is,
 * ldy is t->cols and is_sum false. On the calling thread, inside a region of the kern's threads. */
bool product_is_dense(const struct cpu_kern *c);
void product_tile(const struct product_weights *w, const struct product_rows *x,
                  const struct product_tile *t, float *y, int64_t ldy, bool is_sum);

/* Layouts and scratch memory of one kern. */
struct product_state *product_state_new(enum kern_compute compute);
void product_state_free(struct product_state *s);
/* What is said of the compute type behind a device's description; "" for fp32. */
const char *product_state_name(const struct product_state *s);
/* For kern_info's note. */
const char *product_state_note(const struct product_state *s);

#endif
