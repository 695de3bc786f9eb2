/* Linear layers: the output is cut into tiles of rows x columns, each computed by one thread, which then adds bias
 * and activation while the tile is in its cache. Rotary embeddings come behind. */
#include "kernels/cpu/product.h"

enum { MIN_COLS = 64, ENOUGH_TILES = 16, TILE_FLOATS = PRODUCT_ROWS * PRODUCT_COLS };

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* Narrower tiles when there are few rows, so that several threads find work. Depends on the shape only. */
static int64_t tile_cols(int64_t T, int64_t N)
{
    int64_t cols = PRODUCT_COLS;
    while (cols > MIN_COLS && ceil_div(T, PRODUCT_ROWS) * ceil_div(N, cols) < ENOUGH_TILES)
        cols /= 2;
    return cols;
}

/* `beside`: room for a tile where products cannot write into y, else NULL. */
static void compute_tile(const struct cpu_kern *c, const struct kern_linear_args *a,
                         const struct product_weights *w, const struct product_rows *x,
                         const struct product_tile *t, float *beside)
{
    const float *bias = a->bias;
    float *y = (float *)a->y + t->row * a->N + t->col;
    struct vec_finish f = {.y = y,
                           .x = beside != NULL ? beside : y,
                           .ldy = a->N,
                           .ldx = beside != NULL ? t->cols : a->N,
                           .m = t->rows,
                           .n = t->cols,
                           .bias = bias != NULL ? bias + t->col : NULL,
                           .act = a->act,
                           .is_sum = beside != NULL && a->is_residual};
    if (beside != NULL)
        product_tile(w, x, t, beside, t->cols, false);
    else
        product_tile(w, x, t, y, a->N, a->is_residual);
    if (beside != NULL || bias != NULL || a->act != KERN_ACT_NONE)
        c->vec->finish(&f);
}

enum err_code cpu_linear(struct kern *k, const struct kern_linear_args *a, struct err *e)
{
    struct cpu_kern *c = cpu_of(k);
    const int64_t cols = tile_cols(a->T, a->N);
    const int64_t n_rows = ceil_div(a->T, PRODUCT_ROWS), n_cols = ceil_div(a->N, cols);
    const bool is_beside = product_is_dense(c);
    struct product_weights w;
    struct product_rows x;
    void *tiles = NULL;
    TRY(product_weights_make(c, a->w, a->N, a->K, cols, a->T, &w, e));
    TRY(product_rows_make(c, PRODUCT_X, a->x, a->T, a->K, &x, e));
    if (is_beside)
        TRY(cpu_scratch_get(&c->scratch, (size_t)c->threads * TILE_FLOATS * sizeof(float), &tiles,
                            e));
#pragma omp parallel for schedule(dynamic) num_threads(c->threads)
    for (int64_t i = 0; i < n_rows * n_cols; i++) {
        struct product_tile t = {.row = i / n_cols * PRODUCT_ROWS, .col = i % n_cols * cols};
        t.rows = a->T - t.row < PRODUCT_ROWS ? a->T - t.row : PRODUCT_ROWS;
        t.cols = a->N - t.col < cols ? a->N - t.col : cols;
        float *beside = is_beside ? (float *)tiles + (size_t)cpu_thread() * TILE_FLOATS : NULL;
        compute_tile(c, a, &w, &x, &t, beside);
    }
    return a->rotary != NULL ? cpu_rotate(c, a->rotary, a->y, a->N, e) : ERR_OK;
}

enum err_code cpu_logits(struct kern *k, const struct kern_logits_args *a, struct err *e)
{
    return cpu_linear(k,
                      &(struct kern_linear_args){
                          .y = a->logits, .x = a->x, .w = a->head, .T = a->R, .N = a->V, .K = a->d},
                      e);
}
