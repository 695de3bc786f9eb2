/* Linear layers: the output is cut into tiles of rows x columns, each computed by one thread, which then adds bias
 * and activation while the tile is in its cache. */
#include "kernels/cpu/cpu.h"

/* Tiles of 128 x 512 reach the speed of one product over all threads (docs/ENGINE.md). */
enum { TILE_ROWS = 128, TILE_COLS = 256, MIN_COLS = 64, ENOUGH_TILES = 16 };

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* Narrower tiles when there are few rows, so that several threads find work. Depends on the shape only. */
static int64_t tile_cols(int64_t T, int64_t N)
{
    int64_t cols = TILE_COLS;
    while (cols > MIN_COLS && ceil_div(T, TILE_ROWS) * ceil_div(N, cols) < ENOUGH_TILES)
        cols /= 2;
    return cols;
}

enum err_code cpu_linear(struct kern *k, const struct kern_linear_args *a, struct err *e)
{
    (void)e;
    CHECK(!a->is_residual || a->act == KERN_ACT_NONE);
    const struct cpu_kern *c = cpu_of(k);
    const float *x = a->x, *w = a->w, *bias = a->bias;
    float *y = a->y;
    const int64_t cols = tile_cols(a->T, a->N);
    const int64_t n_rows = ceil_div(a->T, TILE_ROWS), n_cols = ceil_div(a->N, cols);
#pragma omp parallel for schedule(dynamic) num_threads(c->threads)
    for (int64_t i = 0; i < n_rows * n_cols; i++) {
        int64_t r = i / n_cols * TILE_ROWS, n = i % n_cols * cols;
        int64_t rows = a->T - r < TILE_ROWS ? a->T - r : TILE_ROWS;
        int64_t width = a->N - n < cols ? a->N - n : cols;
        float *tile = y + r * a->N + n;
        cpu_gemm(&(struct cpu_gemm_args){.y = tile,
                                         .x = x + r * a->K,
                                         .w = w + n * a->K,
                                         .m = rows,
                                         .n = width,
                                         .k = a->K,
                                         .ldx = a->K,
                                         .ldy = a->N,
                                         .is_sum = a->is_residual});
        if (bias != NULL || a->act != KERN_ACT_NONE)
            c->vec->bias_act(tile, a->N, rows, width, bias != NULL ? bias + n : NULL, a->act);
    }
    return ERR_OK;
}

enum err_code cpu_logits(struct kern *k, const struct kern_logits_args *a, struct err *e)
{
    return cpu_linear(k,
                      &(struct kern_linear_args){
                          .y = a->logits, .x = a->x, .w = a->head, .T = a->R, .N = a->V, .K = a->d},
                      e);
}
