/* Log-likelihoods and divergences straight from hidden states: the head product runs in tiles of rows x vocabulary in
 * fp32, and one warp a row folds each tile into running statistics, so that [rows, vocabulary] never exists. Where the
 * device allows, log-likelihoods come from gemm_head.cu instead, whose product folds its own tiles. Of a head in parts, rows
 * and targets have a state that goes from part to part; tiles are the same as those of the whole head.
 *
 *   log p(token) = logit - max - log sum e^(logit - max)
 *   KL(p || q) = D / S_p - lse_p + lse_q,  D = sum e^(p - max p) (p - q), S_p = sum e^(p - max p)
 *
 * Ties of the arg max go to the smallest id: a later tile must be strictly larger. */
#include <string.h>

#include "kernels/cuda/cuda_util.cuh"
#include "kernels/cuda/gemm_head.cuh"

/* A tile of 30 MiB is written and read within the second-level cache; two waves of products of 128 x 256, nearly. */
static constexpr int THREADS = 256, TILE_ROWS = 2048, TILE_COLS = HEAD_STEP;

/* Zeroed: nothing seen yet. */
struct row_stats {
    double sum;
    float max;
    int32_t top;
    int32_t is_used;
};

struct kl_stats {
    struct row_stats p, q;
    double d;
};

/* ---- folding a row of a tile ---- */

static constexpr int ROWS = THREADS / WARP; /* of a block */
static constexpr int CHUNK = 1024;          /* of a row, in the registers of a warp */
static constexpr int GROUPS = CHUNK / WARP / 4;

/* Part of a row: groups of four neighbours a lane; -infinity behind its end. */
struct chunk {
    float v[GROUPS][4];
};

static __device__ __forceinline__ int chunk_col(int group)
{
    return (group * WARP + (int)threadIdx.x % WARP) * 4;
}

/* x[0..n), n may be beyond CHUNK. */
static __device__ __forceinline__ struct chunk chunk_load(const float *x, int n)
{
    struct chunk c;
#pragma unroll
    for (int g = 0; g < GROUPS; g++) {
        const int at = chunk_col(g);
        if (at + 4 <= n) {
            const float4 v = *reinterpret_cast<const float4 *>(x + at);
            c.v[g][0] = v.x;
            c.v[g][1] = v.y;
            c.v[g][2] = v.z;
            c.v[g][3] = v.w;
        } else {
#pragma unroll
            for (int i = 0; i < 4; i++)
                c.v[g][i] = at + i < n ? x[at + i] : -INFINITY;
        }
    }
    return c;
}

static __device__ __forceinline__ float warp_max(float x)
{
    for (int o = WARP / 2; o > 0; o /= 2)
        x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, o));
    return x;
}

static __device__ __forceinline__ float chunk_max(const struct chunk &c)
{
    float most = -INFINITY;
#pragma unroll
    for (int g = 0; g < GROUPS; g++)
        most = fmaxf(most, fmaxf(fmaxf(c.v[g][0], c.v[g][1]), fmaxf(c.v[g][2], c.v[g][3])));
    return warp_max(most);
}

/* First column of the chunk with this value, which it has. */
static __device__ __forceinline__ int chunk_find(const struct chunk &c, float value)
{
    unsigned first = CHUNK;
#pragma unroll
    for (int g = GROUPS - 1; g >= 0; g--)
#pragma unroll
        for (int i = 3; i >= 0; i--)
            first = c.v[g][i] == value ? (unsigned)(chunk_col(g) + i) : first;
    return (int)__reduce_min_sync(ALL_LANES, first);
}

/* Makes room for a larger maximum; returns what sums relative to the old one are worth under the new. All lanes compute
 * the same. */
static __device__ __forceinline__ double stats_raise(struct row_stats *s, const struct chunk &c,
                                                     int64_t col)
{
    const float max = chunk_max(c);
    if (s->is_used && !(max > s->max))
        return 1.0;
    const double factor = s->is_used ? exp((double)s->max - (double)max) : 0.0;
    s->sum *= factor;
    s->top = (int32_t)(col + chunk_find(c, max));
    s->max = max;
    s->is_used = 1;
    return factor;
}

static __device__ __forceinline__ void stats_fold(struct row_stats *s, const struct chunk &c,
                                                  int64_t col)
{
    stats_raise(s, c, col);
    float sum = 0.0F;
#pragma unroll
    for (int g = 0; g < GROUPS; g++)
        sum += (exp_fast(c.v[g][0] - s->max) + exp_fast(c.v[g][1] - s->max)) +
               (exp_fast(c.v[g][2] - s->max) + exp_fast(c.v[g][3] - s->max));
    s->sum += (double)warp_sum(sum);
}

/* The part of the product that one tile covers. */
struct tile {
    int64_t row, rows, col, cols;
};

/* Row of the tile that this warp works on. */
static __device__ __forceinline__ int64_t tile_row(void)
{
    return (int64_t)blockIdx.x * ROWS + threadIdx.x / WARP;
}

/* Targets of rows: those of row r of x are [first[r], first[r + 1]). */
struct targets {
    const int32_t *first, *token;
    float *logit;
};

static __global__ void __launch_bounds__(THREADS)
    score_kernel(struct row_stats *stats, struct targets t, const float *logits, struct tile at)
{
    const int lane = threadIdx.x % WARP;
    const int64_t mine = tile_row(), row = at.row + mine;
    if (mine >= at.rows)
        return;
    const float *x = logits + mine * TILE_COLS;
    struct row_stats s = stats[row];
    for (int i = t.first[row] + lane; i < t.first[row + 1]; i += WARP) {
        const int64_t place = t.token[i] - at.col;
        if (place >= 0 && place < at.cols)
            t.logit[i] = x[place];
    }
    for (int done = 0; done < at.cols; done += CHUNK)
        stats_fold(&s, chunk_load(x + done, (int)at.cols - done), at.col + done);
    if (lane == 0)
        stats[row] = s;
}

static __global__ void __launch_bounds__(THREADS)
    kl_kernel(struct kl_stats *stats, const float *p_logits, const float *q_logits, struct tile at)
{
    const int64_t mine = tile_row(), row = at.row + mine;
    if (mine >= at.rows)
        return;
    struct kl_stats s = stats[row];
    for (int done = 0; done < at.cols; done += CHUNK) {
        const int n = (int)at.cols - done;
        const struct chunk p = chunk_load(p_logits + mine * TILE_COLS + done, n);
        const struct chunk q = chunk_load(q_logits + mine * TILE_COLS + done, n);
        const double factor = stats_raise(&s.p, p, at.col + done);
        float sum = 0.0F, d = 0.0F;
#pragma unroll
        for (int g = 0; g < GROUPS; g++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float w = exp_fast(p.v[g][i] - s.p.max);
                sum += w;
                d += chunk_col(g) + i < n ? w * (p.v[g][i] - q.v[g][i]) : 0.0F;
            }
        s.p.sum += (double)warp_sum(sum);
        s.d = s.d * factor + (double)warp_sum(d);
        stats_fold(&s.q, q, at.col + done);
    }
    if (threadIdx.x % WARP == 0)
        stats[row] = s;
}

/* ---- targets ---- */

static __device__ double stats_log_sum(const struct row_stats &s)
{
    return (double)s.max + log(s.sum);
}

static __global__ void answer_kernel(struct head_answer *out, const float *logit,
                                     const struct row_stats *stats, const int32_t *row,
                                     const int32_t *token, int64_t n)
{
    int64_t i = grid_thread();
    if (i >= n)
        return;
    const struct row_stats s = stats[row[i]];
    out[i].logprob = (float)((double)logit[i] - stats_log_sum(s));
    out[i].is_top = s.top == token[i];
}

/* ---- walking over tiles ---- */

struct loss {
    struct cuda_kern *c;
    const void *head;
    int64_t R, d;
    int64_t first, end; /* entries that the head has now */
    float *tiles[2];
};

static struct loss loss_of(struct kern *k, const void *head, int64_t R, int64_t d, int64_t V,
                           const struct kern_head_part *part)
{
    struct loss l = {cuda_of(k), head, R, d, 0, V, {}};
    if (part != NULL) {
        l.first = part->first;
        l.end = part->first + part->n;
    }
    return l;
}

static const char *at_row(const struct loss *l, const void *x, int64_t row)
{
    int64_t bytes = l->c->base.info.act_bytes;
    return (const char *)x + row * l->d * bytes;
}

static enum err_code tile_compute(const struct loss *l, const struct tile *t, const void *x,
                                  float *out, struct err *e)
{
    struct cuda_gemm_args g = {};
    g.y = out;
    g.x = at_row(l, x, t->row);
    g.w = at_row(l, l->head, t->col - l->first);
    g.T = t->rows;
    g.N = t->cols;
    g.K = l->d;
    g.ldy = TILE_COLS;
    g.is_fp32_out = true;
    return cuda_gemm(l->c, &g, e);
}

static struct tile tile_at(const struct loss *l, int64_t row, int64_t col)
{
    struct tile t = {row, l->R - row, col, l->end - col};
    t.rows = t.rows < TILE_ROWS ? t.rows : TILE_ROWS;
    t.cols = t.cols < TILE_COLS ? t.cols : TILE_COLS;
    return t;
}

/* What a call knows of rows and targets: the caller's, from part to part of a head, or its `own` for a whole head. */
static void *state_of(const struct kern_head_part *part, void *own)
{
    return part != NULL ? part->state : own;
}

/* Scratch: `n_tiles` tiles in front, then `bytes` for the operation, zeroed. */
static enum err_code loss_init(struct loss *l, int n_tiles, size_t bytes, void **rest,
                               struct err *e)
{
    static const char what[] = "scratch memory of log-likelihoods";
    const int64_t rows = l->R < TILE_ROWS ? l->R : TILE_ROWS;
    const size_t tile = (size_t)rows * TILE_COLS;
    void *p;
    TRY(cuda_buffer_get(l->c, &l->c->scratch, n_tiles * tile * sizeof(float) + bytes, what, &p, e));
    for (int i = 0; i < n_tiles; i++)
        l->tiles[i] = (float *)p + i * tile;
    *rest = (float *)p + n_tiles * tile;
    CUDA_TRY(cudaMemsetAsync(*rest, 0, bytes, l->c->stream), what);
    return ERR_OK;
}

/* Device arrays of one scoring call. */
struct score {
    struct targets targets;
    struct head_answer *answers; /* [n] of the targets */
    const int32_t *row;
};

static enum err_code score_tiles(struct loss *l, const struct kern_score_args *a,
                                 const struct score *s, struct row_stats *stats, struct err *e)
{
    for (int64_t row = 0; row < a->R; row += TILE_ROWS) {
        for (int64_t col = l->first; col < l->end; col += TILE_COLS) {
            struct tile t = tile_at(l, row, col);
            TRY(tile_compute(l, &t, a->x, l->tiles[0], e));
            score_kernel<<<(unsigned)ceil_div(t.rows, ROWS), THREADS, 0, l->c->stream>>>(
                stats, s->targets, l->tiles[0], t);
            TRY(cuda_launched("log-softmax of a tile", e));
        }
    }
    return ERR_OK;
}

/* Tile by tile: any type, any device. */
static enum err_code score_tiled(struct loss *l, const struct kern_score_args *a, struct score *s,
                                 struct err *e)
{
    const size_t n = (size_t)a->n;
    const size_t kept = (size_t)a->R * sizeof(struct row_stats) + n * sizeof(float);
    void *rest;
    TRY(loss_init(l, 1, n * sizeof *s->answers + (a->part == NULL ? kept : 0), &rest, e));
    s->answers = (struct head_answer *)rest;
    struct row_stats *stats = (struct row_stats *)state_of(a->part, s->answers + n);
    s->targets.logit = (float *)(stats + a->R);
    TRY(score_tiles(l, a, s, stats, e));
    if (l->end < a->V)
        return ERR_OK;
    answer_kernel<<<grid_for(a->n, THREADS), THREADS, 0, l->c->stream>>>(
        s->answers, s->targets.logit, stats, s->row, s->targets.token, a->n);
    return cuda_launched("log-likelihoods", e);
}

/* By a product that folds its own tiles. */
static enum err_code score_fused(struct loss *l, const struct kern_score_args *a, struct score *s,
                                 struct err *e)
{
    struct cuda_head_args args = {};
    const size_t n = (size_t)a->n, answers = n * sizeof *s->answers;
    const size_t kept = (size_t)a->R * sizeof *args.states + n * sizeof *args.targets;
    void *p;
    args.N = l->end - l->first;
    TRY(cuda_buffer_get(l->c, &l->c->scratch,
                        cuda_head_scratch(a->R, args.N) + answers + (a->part == NULL ? kept : 0),
                        "scratch memory of log-likelihoods", &p, e));
    s->answers = (struct head_answer *)((char *)p + cuda_head_scratch(a->R, args.N));
    args.x = a->x;
    args.head = a->head;
    args.R = a->R;
    args.d = a->d;
    args.from = l->first;
    args.n = a->n;
    args.first = s->targets.first;
    args.row = s->row;
    args.token = s->targets.token;
    args.states = (struct head_state *)state_of(a->part, s->answers + n);
    args.targets = (struct head_target *)(args.states + a->R);
    args.answers = l->end < a->V ? NULL : s->answers;
    args.scratch = p;
    return cuda_head(l->c, &args, e);
}

/* Rows and tokens of the targets, and where those of every row of x begin, in one piece. */
static enum err_code targets_push(struct loss *l, const struct kern_score_args *a, struct score *s,
                                  struct err *e)
{
    const size_t n = (size_t)a->n, total = 2 * n + (size_t)a->R + 1;
    int32_t *lists = (int32_t *)xmalloc(total * sizeof *lists), *first = lists + 2 * n;
    int64_t i = 0;
    memcpy(lists, a->row, n * sizeof *lists);
    memcpy(lists + n, a->token, n * sizeof *lists);
    for (int64_t row = 0; row <= a->R; row++) {
        first[row] = (int32_t)i;
        while (i < a->n && a->row[i] == row)
            i++;
    }
    CHECK(i == a->n); /* rows ascend and are below R */
    void *device = NULL;
    enum err_code code = cuda_push(l->c, lists, total * sizeof *lists, &device, e);
    xfree(lists);
    s->row = (const int32_t *)device;
    s->targets.token = s->row + n;
    s->targets.first = s->row + 2 * n;
    return code;
}

static void answers_give(const void *host, const struct cuda_answer *a)
{
    const struct head_answer *from = (const struct head_answer *)host;
    float *logprob = (float *)a->to[0];
    uint8_t *is_top = (uint8_t *)a->to[1];
    for (int64_t i = 0; i < a->n; i++) {
        logprob[i] = from[i].logprob;
        is_top[i] = from[i].is_top != 0;
    }
}

enum err_code cuda_score(struct kern *k, const struct kern_score_args *a, struct err *e)
{
    struct loss l = loss_of(k, a->head, a->R, a->d, a->V, a->part);
    struct score s = {};
    if (a->n == 0)
        return ERR_OK;
    TRY(targets_push(&l, a, &s, e));
    if (cuda_head_can(l.c, a->x, a->head, a->d))
        TRY(score_fused(&l, a, &s, e));
    else
        TRY(score_tiled(&l, a, &s, e));
    if (l.end < a->V)
        return ERR_OK;
    const struct cuda_answer to = {answers_give, a->n, {a->logprob, a->is_top}};
    return cuda_answer_later(l.c, s.answers, (size_t)a->n * sizeof *s.answers, &to, e);
}

int64_t cuda_head_bytes(int64_t V, int64_t R, int64_t n)
{
    static_assert(sizeof(struct kl_stats) >= sizeof(struct row_stats) &&
                      sizeof(struct kl_stats) >= sizeof(struct head_state) &&
                      sizeof(struct head_target) >= sizeof(float),
                  "the same bytes serve every operation");
    (void)V;
    return R * (int64_t)sizeof(struct kl_stats) + n * (int64_t)sizeof(struct head_target);
}

/* ---- divergence ---- */

struct divergence {
    double kl;
    int32_t same_top;
};

static __global__ void divergence_kernel(struct divergence *out, const struct kl_stats *stats,
                                         int64_t R)
{
    int64_t r = grid_thread();
    if (r >= R)
        return;
    const struct kl_stats s = stats[r];
    out[r].kl = s.d / s.p.sum - stats_log_sum(s.p) + stats_log_sum(s.q);
    out[r].same_top = s.p.top == s.q.top;
}

static enum err_code kl_tiles(struct loss *l, const struct kern_kl_args *a, struct kl_stats *stats,
                              struct err *e)
{
    for (int64_t row = 0; row < a->R; row += TILE_ROWS) {
        for (int64_t col = l->first; col < l->end; col += TILE_COLS) {
            struct tile t = tile_at(l, row, col);
            TRY(tile_compute(l, &t, a->ref, l->tiles[0], e));
            TRY(tile_compute(l, &t, a->x, l->tiles[1], e));
            kl_kernel<<<(unsigned)ceil_div(t.rows, ROWS), THREADS, 0, l->c->stream>>>(
                stats, l->tiles[0], l->tiles[1], t);
            TRY(cuda_launched("divergence of a tile", e));
        }
    }
    return ERR_OK;
}

static void divergences_give(const void *host, const struct cuda_answer *a)
{
    const struct divergence *from = (const struct divergence *)host;
    double *kl = (double *)a->to[0];
    uint8_t *same_top = (uint8_t *)a->to[1];
    for (int64_t r = 0; r < a->n; r++) {
        kl[r] = from[r].kl;
        same_top[r] = from[r].same_top != 0;
    }
}

enum err_code cuda_kl(struct kern *k, const struct kern_kl_args *a, struct err *e)
{
    struct loss l = loss_of(k, a->head, a->R, a->d, a->V, a->part);
    const size_t R = (size_t)a->R;
    void *rest;
    if (a->R == 0)
        return ERR_OK;
    const size_t kept = a->part == NULL ? R * sizeof(struct kl_stats) : 0;
    TRY(loss_init(&l, 2, R * sizeof(struct divergence) + kept, &rest, e));
    struct divergence *out = (struct divergence *)rest;
    struct kl_stats *stats = (struct kl_stats *)state_of(a->part, out + R);
    TRY(kl_tiles(&l, a, stats, e));
    if (l.end < a->V)
        return ERR_OK;
    divergence_kernel<<<grid_for(a->R, THREADS), THREADS, 0, l.c->stream>>>(out, stats, a->R);
    TRY(cuda_launched("divergences", e));
    const struct cuda_answer to = {divergences_give, a->R, {a->kl, a->same_top}};
    return cuda_answer_later(l.c, out, R * sizeof *out, &to, e);
}

/* ---- logits ---- */

enum err_code cuda_logits(struct kern *k, const struct kern_logits_args *a, struct err *e)
{
    static const char what[] = "logits from the GPU";
    struct loss l = loss_of(k, a->head, a->R, a->d, a->V, NULL);
    void *none;
    if (a->R == 0)
        return ERR_OK;
    TRY(loss_init(&l, 1, 0, &none, e));
    for (int64_t row = 0; row < a->R; row += TILE_ROWS) {
        for (int64_t col = 0; col < a->V; col += TILE_COLS) {
            struct tile t = tile_at(&l, row, col);
            TRY(tile_compute(&l, &t, a->x, l.tiles[0], e));
            CUDA_TRY(cudaMemcpy2DAsync(a->logits + t.row * a->V + t.col,
                                       (size_t)a->V * sizeof(float), l.tiles[0],
                                       TILE_COLS * sizeof(float), (size_t)t.cols * sizeof(float),
                                       (size_t)t.rows, cudaMemcpyDeviceToHost, l.c->stream),
                     what);
            CUDA_TRY(cudaStreamSynchronize(l.c->stream), what);
        }
    }
    return ERR_OK;
}
