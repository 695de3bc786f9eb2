/* Log-likelihoods and divergences straight from hidden states: the head product runs in tiles of rows x vocabulary
 * that never leave a thread's cache, and each tile is folded into running statistics of its rows. One piece of
 * work is a block of rows and a span of the vocabulary, so that a few rows over a large vocabulary keep all
 * threads busy; spans are merged in order at the end. A large head is gone through in bands of spans. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/product.h"

enum { SPAN_MIN = 2048, SPANS_MAX = 64, TILE_FLOATS = PRODUCT_ROWS * PRODUCT_COLS };

_Static_assert(CPU_HEAD_STEP % PRODUCT_COLS == 0, "a part of a head is whole tiles");

/* As much of a head is laid out for the products at a time. */
enum { BAND_FLOATS = 32 << 20 };

/* What is known of one row over a part of the vocabulary: the maximum, where it is first, and
 * sum e^(logit - max). All zero with `is_used` false: nothing yet. */
struct row_stats {
    double sum;
    float max;
    int32_t top;
    bool is_used;
};

struct grid {
    int64_t R, d, V;
    int64_t span, n_spans, n_blocks;
    int64_t first, end; /* columns that the head has now */
    int64_t band;       /* spans that are laid out at a time */
};

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Columns of a span: of the vocabulary alone, whatever parts its head comes in. */
static int64_t span_of(int64_t V)
{
    return larger(ceil_div(ceil_div(V, SPANS_MAX), PRODUCT_COLS) * PRODUCT_COLS, SPAN_MIN);
}

static struct grid grid_make(const struct cpu_kern *c, int64_t R, int64_t d, int64_t V,
                             const struct kern_head_part *part)
{
    const int64_t span = span_of(V);
    struct grid g = {.R = R,
                     .d = d,
                     .V = V,
                     .span = span,
                     .n_spans = ceil_div(V, span),
                     .n_blocks = ceil_div(R, PRODUCT_ROWS),
                     .first = part != NULL ? part->first : 0,
                     .end = part != NULL ? part->first + part->n : V};
    g.band = product_is_laid_out(c, R) ? ceil_div(BAND_FLOATS, span * d) : g.n_spans;
    return g;
}

/* Makes room for logits that exceed the maximum so far; returns what sums relative to the old one are worth under
 * the new. Ties go to the smallest id: a later tile must be strictly larger, and within a tile the first one
 * counts. */
static double stats_raise(const struct vec_ops *vec, struct row_stats *s, const float *logits,
                          int64_t n, int64_t col)
{
    float max = vec->max(logits, n);
    if (s->is_used && !(max > s->max))
        return 1.0;
    double factor = s->is_used ? exp((double)s->max - (double)max) : 0.0;
    int64_t i = 0;
    while (i < n - 1 && logits[i] != max)
        i++;
    *s = (struct row_stats){
        .sum = s->sum * factor, .max = max, .top = (int32_t)(col + i), .is_used = true};
    return factor;
}

static void stats_fold(const struct vec_ops *vec, struct row_stats *s, const float *logits,
                       int64_t n, int64_t col)
{
    stats_raise(vec, s, logits, n, col);
    s->sum += (double)vec->sum_exp(logits, n, s->max);
}

/* Adds what a later span knows; returns the factors of both sides' sums. */
struct merge_factors {
    double mine, theirs;
};

static struct merge_factors stats_merge(struct row_stats *s, const struct row_stats *later)
{
    struct merge_factors f = {1.0, 1.0};
    if (later->max > s->max) {
        f.mine = exp((double)s->max - (double)later->max);
        s->max = later->max;
        s->top = later->top;
    } else {
        f.theirs = exp((double)later->max - (double)s->max);
    }
    s->sum = s->sum * f.mine + later->sum * f.theirs;
    return f;
}

static double stats_log_sum(const struct row_stats *s)
{
    return (double)s->max + log(s->sum);
}

/* First target whose row is at least `row`. */
static int64_t first_target(const struct kern_score_args *a, int64_t row)
{
    int64_t lo = 0, hi = a->n;
    while (lo < hi) {
        int64_t mid = lo + (hi - lo) / 2;
        if (a->row[mid] < row)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static void gather_targets(const struct kern_score_args *a, const struct product_tile *t,
                           const float *logits, int64_t from, int64_t to, float *of_targets)
{
    for (int64_t i = from; i < to; i++) {
        int64_t col = a->token[i] - t->col;
        if (col >= 0 && col < t->cols)
            of_targets[i] = logits[(a->row[i] - t->row) * t->cols + col];
    }
}

/* Tiles of each thread behind the statistics of all rows, in the kern's scratch; statistics that live on between parts of
 * a head are the caller's. */
struct work {
    struct cpu_kern *c;
    struct grid g;
    void *stats; /* [R, n_spans] of the operation's own struct, zeroed */
    float *tiles;
    int tiles_per_thread;
    struct product_weights
        head; /* of the spans from `from_span` to `to_span`, as far as the head has them */
    int64_t from_span, to_span;
    int64_t from_col;
};

static enum err_code work_make(struct cpu_kern *c, struct grid g, size_t stats_size, void *kept,
                               int tiles_per_thread, struct work *w, struct err *e)
{
    size_t stats_bytes = kept == NULL ? (size_t)(g.R * g.n_spans) * stats_size : 0;
    stats_bytes = (stats_bytes + 63) / 64 * 64;
    size_t tile_bytes = (size_t)TILE_FLOATS * sizeof(float);
    void *p;
    TRY(cpu_scratch_get(&c->scratch,
                        stats_bytes + (size_t)c->threads * (size_t)tiles_per_thread * tile_bytes,
                        &p, e));
    memset(p, 0, stats_bytes);
    *w = (struct work){.c = c,
                       .g = g,
                       .stats = kept != NULL ? kept : p,
                       .tiles = (float *)(void *)((char *)p + stats_bytes),
                       .tiles_per_thread = tiles_per_thread,
                       .to_span = g.first / g.span};
    return ERR_OK;
}

/* The next band of the head; *is_over when there is none. */
static enum err_code work_band(struct work *w, const float *head, bool *is_over, struct err *e)
{
    const struct grid *g = &w->g;
    *is_over = w->to_span * g->span >= g->end;
    if (*is_over)
        return ERR_OK;
    w->from_span = w->to_span;
    w->to_span = smaller(w->from_span + g->band, ceil_div(g->end, g->span));
    w->from_col = larger(w->from_span * g->span, g->first);
    const int64_t to = smaller(w->to_span * g->span, g->end);
    return product_weights_make(w->c, head + (w->from_col - g->first) * g->d, to - w->from_col,
                                g->d, PRODUCT_COLS, g->R, &w->head, e);
}

static int64_t work_pieces(const struct work *w)
{
    return w->g.n_blocks * (w->to_span - w->from_span);
}

static float *work_tile(const struct work *w, int i)
{
    return w->tiles + (size_t)(cpu_thread() * w->tiles_per_thread + i) * TILE_FLOATS;
}

/* The rows and first columns of a piece of work; *end is where its span, or the head, ends. */
static struct product_tile work_piece(const struct work *w, int64_t piece, int64_t *span,
                                      int64_t *end)
{
    const struct grid *g = &w->g;
    const int64_t n = w->to_span - w->from_span;
    *span = w->from_span + piece % n;
    *end = smaller(g->end, (*span + 1) * g->span);
    struct product_tile t = {.row = piece / n * PRODUCT_ROWS,
                             .col = larger(g->first, *span * g->span)};
    t.rows = smaller(PRODUCT_ROWS, g->R - t.row);
    return t;
}

/* All pieces of all bands of the head; `a` is the piece's own. */
static enum err_code work_run(struct work *w, const float *head,
                              void (*piece)(const struct work *w, const void *a, int64_t piece),
                              const void *a, struct err *e)
{
    bool is_over;
    for (;;) {
        TRY(work_band(w, head, &is_over, e));
        if (is_over)
            return ERR_OK;
#pragma omp parallel for schedule(dynamic) num_threads(w->c->threads)
        for (int64_t i = 0; i < work_pieces(w); i++)
            piece(w, a, i);
    }
}

static void work_compute(const struct work *w, const struct product_rows *x,
                         const struct product_tile *t, float *out)
{
    struct product_tile in_band = *t;
    in_band.col -= w->from_col;
    product_tile(&w->head, x, &in_band, out, t->cols, false);
}

/* Logits of targets, until their rows' sums are known: behind the statistics that live on between parts, else where the
 * answers go. */
static float *target_logits(const struct work *w, const struct kern_score_args *a)
{
    struct row_stats *stats = w->stats;
    return a->part != NULL ? (float *)(void *)(stats + a->R * w->g.n_spans) : a->logprob;
}

struct score_operands {
    const struct kern_score_args *a;
    struct product_rows x;
};

static void score_piece(const struct work *w, const void *operands, int64_t piece)
{
    const struct score_operands *o = operands;
    const struct kern_score_args *a = o->a;
    const struct grid *g = &w->g;
    int64_t span, end;
    struct product_tile t = work_piece(w, piece, &span, &end);
    struct row_stats *stats = w->stats;
    float *logits = work_tile(w, 0);
    const int64_t from = first_target(a, t.row), to = first_target(a, t.row + t.rows);
    for (; t.col < end; t.col += PRODUCT_COLS) {
        t.cols = smaller(PRODUCT_COLS, end - t.col);
        work_compute(w, &o->x, &t, logits);
        for (int64_t r = 0; r < t.rows; r++)
            stats_fold(w->c->vec, &stats[(t.row + r) * g->n_spans + span], logits + r * t.cols,
                       t.cols, t.col);
        gather_targets(a, &t, logits, from, to, target_logits(w, a));
    }
}

enum err_code cpu_score(struct kern *k, const struct kern_score_args *a, struct err *e)
{
    struct cpu_kern *c = cpu_of(k);
    struct work w;
    struct score_operands o = {.a = a};
    TRY(work_make(c, grid_make(c, a->R, a->d, a->V, a->part), sizeof(struct row_stats),
                  a->part != NULL ? a->part->state : NULL, 1, &w, e));
    TRY(product_rows_make(c, PRODUCT_X, a->x, a->R, a->d, &o.x, e));
    TRY(work_run(&w, a->head, score_piece, &o, e));
    if (w.g.end < a->V)
        return ERR_OK;
    struct row_stats *stats = w.stats;
#pragma omp parallel for num_threads(c->threads)
    for (int64_t r = 0; r < a->R; r++)
        for (int64_t s = 1; s < w.g.n_spans; s++)
            stats_merge(&stats[r * w.g.n_spans], &stats[r * w.g.n_spans + s]);
    const float *of_targets = target_logits(&w, a);
    for (int64_t i = 0; i < a->n; i++) {
        const struct row_stats *s = &stats[a->row[i] * w.g.n_spans];
        a->logprob[i] = (float)((double)of_targets[i] - stats_log_sum(s));
        a->is_top[i] = a->token[i] == s->top;
    }
    return ERR_OK;
}

/* KL(p || q) = sum p (log p - log q) = D / S_p - lse_p + lse_q with D = sum e^(p - max p) (p - q), all over logits. */
struct kl_stats {
    struct row_stats p, q;
    double d;
};

struct kl_rows {
    struct product_rows x, ref;
};

static void kl_piece(const struct work *w, const void *operands, int64_t piece)
{
    const struct kl_rows *rows = operands;
    const struct grid *g = &w->g;
    const struct vec_ops *vec = w->c->vec;
    int64_t span, end;
    struct product_tile t = work_piece(w, piece, &span, &end);
    struct kl_stats *stats = w->stats;
    float *p = work_tile(w, 0), *q = work_tile(w, 1);
    for (; t.col < end; t.col += PRODUCT_COLS) {
        t.cols = smaller(PRODUCT_COLS, end - t.col);
        work_compute(w, &rows->ref, &t, p);
        work_compute(w, &rows->x, &t, q);
        for (int64_t r = 0; r < t.rows; r++) {
            struct kl_stats *s = &stats[(t.row + r) * g->n_spans + span];
            const float *pr = p + r * t.cols, *qr = q + r * t.cols;
            double factor = stats_raise(vec, &s->p, pr, t.cols, t.col);
            struct vec_divergence v = vec->divergence(pr, qr, t.cols, s->p.max);
            s->p.sum += v.s;
            s->d = s->d * factor + v.d;
            stats_fold(vec, &s->q, qr, t.cols, t.col);
        }
    }
}

enum err_code cpu_kl(struct kern *k, const struct kern_kl_args *a, struct err *e)
{
    struct cpu_kern *c = cpu_of(k);
    struct work w;
    struct kl_rows rows;
    TRY(work_make(c, grid_make(c, a->R, a->d, a->V, a->part), sizeof(struct kl_stats),
                  a->part != NULL ? a->part->state : NULL, 2, &w, e));
    TRY(product_rows_make(c, PRODUCT_X, a->x, a->R, a->d, &rows.x, e));
    TRY(product_rows_make(c, PRODUCT_REF, a->ref, a->R, a->d, &rows.ref, e));
    TRY(work_run(&w, a->head, kl_piece, &rows, e));
    if (w.g.end < a->V)
        return ERR_OK;
    struct kl_stats *stats = w.stats;
    for (int64_t r = 0; r < a->R; r++) {
        struct kl_stats *all = &stats[r * w.g.n_spans];
        for (int64_t s = 1; s < w.g.n_spans; s++) {
            struct merge_factors f = stats_merge(&all->p, &all[s].p);
            all->d = all->d * f.mine + all[s].d * f.theirs;
            stats_merge(&all->q, &all[s].q);
        }
        a->kl[r] = all->d / all->p.sum - stats_log_sum(&all->p) + stats_log_sum(&all->q);
        a->same_top[r] = all->p.top == all->q.top;
    }
    return ERR_OK;
}

int64_t cpu_head_bytes(int64_t V, int64_t R, int64_t n)
{
    return R * ceil_div(V, span_of(V)) * (int64_t)sizeof(struct kl_stats) +
           n * (int64_t)sizeof(float);
}
