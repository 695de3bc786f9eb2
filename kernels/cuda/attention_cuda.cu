/* Causal attention without a [T, T] matrix: out = softmax(scale q k^T + slope j) v with a running softmax over tiles of
 * keys. A sequence's keys are those of its parent, then its own: key j of n_before + len lies in the parent's row
 * j or in its own row j - n_before. Tiles start at key 0 of the sequence, so a query's result depends on its
 * own keys alone, not on what else is in the batch.
 *
 * Three kernels: attention_wgmma.cuh and attention_mma.cuh on the tensor cores for 16-bit types, and a plain one in fp32
 * for everything else.
 * This file cuts the batch into pieces of work and chooses. */
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/attention_mma.cuh"
#include "kernels/cuda/attention_wgmma.cuh"
#include "kernels/cuda/cuda_util.cuh"

/* Rows of a piece: 64 for short sequences; more share a tile of keys among more queries. */
static constexpr int ROWS_SHORT = 64, ROWS_LONG = 128;

/* Kept from call to call: all layers of a batch see the same sequences. */
struct cuda_attention_plan {
    struct cuda_seqs seqs;    /* what the rest was made from */
    int rows;                 /* of a piece */
    int n_pieces;             /* heaviest first, so that the last to start are the light ones */
    struct cuda_buffer lists; /* pieces, n_taken */
    const struct attention_piece *pieces;
    int32_t *n_taken; /* of struct attention_args */
};

void cuda_attention_close(struct cuda_kern *c)
{
    struct cuda_attention_plan *p = c->attention;
    if (p == NULL)
        return;
    cuda_buffer_release(&p->lists);
    xfree(p->seqs.v);
    xfree(p);
    c->attention = NULL;
}

/* ---- plans ---- */

static int longest_of(const struct kern_attention_args *a)
{
    int most = 0;
    for (int i = 0; i < a->n_seqs; i++)
        most = a->seqs[i].len > most ? a->seqs[i].len : most;
    return most;
}

static int compare_pieces(const void *a, const void *b)
{
    const struct attention_piece *x = (const struct attention_piece *)a;
    const struct attention_piece *y = (const struct attention_piece *)b;
    int wx = x->query + x->n_rows, wy = y->query + y->n_rows;
    return wx != wy ? (wx < wy) - (wx > wy) : (x->row > y->row) - (x->row < y->row);
}

/* Pieces of all sequences into out[], or only their number when out is NULL. */
static int pieces_list(const struct kern_attention_args *a, int rows, struct attention_piece *out)
{
    int n = 0;
    for (int i = 0; i < a->n_seqs; i++) {
        const struct kern_seq *s = &a->seqs[i];
        CHECK(s->parent < i && (s->parent < 0 || a->seqs[s->parent].parent < 0));
        const struct kern_seq *parent = s->parent >= 0 ? &a->seqs[s->parent] : NULL;
        /* The light piece at the sequence's start is the one that is not full. */
        for (int t = 0, size = (s->len - 1) % rows + 1; t < s->len; t += size, size = rows, n++) {
            if (out == NULL)
                continue;
            out[n].row = s->start + t;
            out[n].n_rows = size;
            out[n].before_row = parent != NULL ? parent->start : 0;
            out[n].n_before = parent != NULL ? parent->len : 0;
            out[n].own_row = s->start;
            out[n].query = out[n].n_before + t;
            out[n].n_keys = out[n].n_before + s->len;
        }
    }
    if (out != NULL)
        qsort(out, (size_t)n, sizeof *out, compare_pieces);
    return n;
}

static enum err_code lists_upload(struct cuda_kern *c, struct cuda_attention_plan *p,
                                  const struct kern_attention_args *a, struct err *e)
{
    const size_t piece_bytes = (size_t)p->n_pieces * sizeof(struct attention_piece);
    const size_t bytes = piece_bytes + sizeof(int32_t);
    char *host = (char *)xmalloc(bytes);
    pieces_list(a, p->rows, (struct attention_piece *)(void *)host);
    memset(host + piece_bytes, 0, sizeof(int32_t));
    const enum err_code code = cuda_keep(c, &p->lists, host, bytes, "sequences of a batch", e);
    xfree(host);
    TRY(code);
    p->pieces = (const struct attention_piece *)p->lists.p;
    p->n_taken = (int32_t *)(void *)((char *)p->lists.p + piece_bytes);
    return ERR_OK;
}

/* Rows of a piece, by the length of the sequences and what the kernel takes. */
static int rows_choose(const struct cuda_kern *c, const struct attention_args &args,
                       const struct kern_attention_args *a)
{
    const int longest = longest_of(a);
    if (attention_wgmma_can(c, args))
        return attention_wgmma_rows(a->head_dim, longest);
    return longest <= 2 * ROWS_LONG ? ROWS_SHORT : ROWS_LONG;
}

static enum err_code plan_get(struct cuda_kern *c, const struct kern_attention_args *a, int rows,
                              struct cuda_attention_plan **out, struct err *e)
{
    if (c->attention == NULL)
        c->attention = (struct cuda_attention_plan *)xcalloc(1, sizeof *c->attention);
    struct cuda_attention_plan *p = *out = c->attention;
    if (p->rows == rows && cuda_seqs_are(&p->seqs, a->seqs, a->n_seqs))
        return ERR_OK;
    p->seqs.n = 0;
    p->rows = rows;
    p->n_pieces = pieces_list(a, p->rows, NULL);
    TRY(lists_upload(c, p, a, e));
    cuda_seqs_keep(&p->seqs, a->seqs, a->n_seqs);
    return ERR_OK;
}

/* ---- plain kernel: four queries a warp, a tile of 32 keys, one key a lane ---- */

static constexpr int PLAIN_QUERIES = 4, PLAIN_KEYS = WARP;
static constexpr int PLAIN_WARPS = 4, PLAIN_ROWS = PLAIN_QUERIES * PLAIN_WARPS;

/* Floats of shared memory: queries, then keys (padded: lanes read down a column), then values. */
static size_t plain_shared_bytes(int head_dim)
{
    size_t floats = (size_t)PLAIN_ROWS * head_dim + (size_t)PLAIN_KEYS * (head_dim + 1) +
                    (size_t)PLAIN_KEYS * head_dim;
    return floats * sizeof(float);
}

/* Running softmax of one query: each lane has its own key's weight in p and dims lane, lane + 32, … of out. */
template <int DIMS> struct plain_query {
    float max, sum, p, out[DIMS];
};

template <int DIMS> static __device__ void plain_raise(struct plain_query<DIMS> *q, float score)
{
    float top = score;
    for (int o = WARP / 2; o > 0; o /= 2)
        top = fmaxf(top, __shfl_xor_sync(ALL_LANES, top, o));
    top = fmaxf(top, q->max);
    const float factor = expf(q->max - top);
    q->p = expf(score - top);
    q->sum = q->sum * factor + warp_sum(q->p);
    q->max = top;
#pragma unroll
    for (int d = 0; d < DIMS; d++)
        q->out[d] *= factor;
}

template <typename E>
static __device__ void plain_load(const struct attention_args &a, const struct attention_piece &w,
                                  int head, int j0, int n_keys, float *keys, float *values)
{
    const E *qkv = (const E *)a.qkv + head * a.head_stride;
    for (int i = threadIdx.x; i < PLAIN_KEYS * a.head_dim; i += blockDim.x) {
        const int j = i / a.head_dim, d = i % a.head_dim;
        const bool is_there = j0 + j < n_keys;
        const E *row = qkv + attention_key_row(w, is_there ? j0 + j : 0) * a.row;
        keys[j * (a.head_dim + 1) + d] = is_there ? to_f32(row[a.k_at + d]) : 0.0F;
        values[i] = is_there ? to_f32(row[a.v_at + d]) : 0.0F;
    }
}

template <typename E, int DIMS> static __global__ void plain_kernel(struct attention_args a)
{
    extern __shared__ float plain_shared[];
    const int hd = a.head_dim, lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    float *queries = plain_shared, *keys = queries + PLAIN_ROWS * hd;
    float *values = keys + PLAIN_KEYS * (hd + 1);
    const int parts = ceil_div_int(a.piece_rows, PLAIN_ROWS);
    const int head = blockIdx.x % a.heads, part = blockIdx.x / a.heads % parts;
    const struct attention_piece w = a.pieces[blockIdx.x / a.heads / parts];
    const int first = part * PLAIN_ROWS; /* rows of the piece that are this block's */
    if (first >= w.n_rows)
        return;
    const int n_rows = min(PLAIN_ROWS, w.n_rows - first), n_keys = w.query + first + n_rows;
    const E *q_rows = (const E *)a.qkv + (w.row + first) * a.row + a.q_at + head * a.head_stride;
    for (int i = threadIdx.x; i < n_rows * hd; i += blockDim.x)
        queries[i] = to_f32(q_rows[i / hd * a.row + i % hd]) * a.scale;
    struct plain_query<DIMS> q[PLAIN_QUERIES];
#pragma unroll
    for (int r = 0; r < PLAIN_QUERIES; r++) {
        q[r].max = -INFINITY;
        q[r].sum = 0.0F;
#pragma unroll
        for (int d = 0; d < DIMS; d++)
            q[r].out[d] = 0.0F;
    }
    const float slope = a.slopes != NULL ? a.slopes[head] : 0.0F;
    for (int j0 = 0; j0 < n_keys; j0 += PLAIN_KEYS) {
        __syncthreads();
        plain_load<E>(a, w, head, j0, n_keys, keys, values);
        __syncthreads();
#pragma unroll
        for (int r = 0; r < PLAIN_QUERIES; r++) {
            const int row = warp * PLAIN_QUERIES + r, j = j0 + lane;
            if (row >= n_rows)
                continue;
            float score = 0.0F;
            for (int d = 0; d < hd; d++)
                score = fmaf(queries[row * hd + d], keys[lane * (hd + 1) + d], score);
            score += slope * (float)j;
            plain_raise(&q[r], j <= w.query + first + row ? score : -INFINITY);
            for (int i = 0; i < PLAIN_KEYS; i++) {
                const float p = __shfl_sync(ALL_LANES, q[r].p, i);
#pragma unroll
                for (int d = 0; d < DIMS; d++)
                    if (lane + d * WARP < hd)
                        q[r].out[d] = fmaf(p, values[i * hd + lane + d * WARP], q[r].out[d]);
            }
        }
    }
    E *out = (E *)a.out + (w.row + first) * (int64_t)a.heads * hd + head * hd;
#pragma unroll
    for (int r = 0; r < PLAIN_QUERIES; r++) {
        const int row = warp * PLAIN_QUERIES + r;
#pragma unroll
        for (int d = 0; d < DIMS; d++)
            if (row < n_rows && lane + d * WARP < hd)
                out[row * (int64_t)a.heads * hd + lane + d * WARP] =
                    from_f32<E>(q[r].out[d] / q[r].sum);
    }
}

template <typename E, int DIMS>
static enum err_code plain_launch_dims(struct cuda_kern *c, const struct attention_args &a,
                                       struct err *e)
{
    const size_t bytes = plain_shared_bytes(a.head_dim);
    CUDA_TRY(cudaFuncSetAttribute(plain_kernel<E, DIMS>,
                                  cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
             "shared memory of attention");
    const int64_t blocks = (int64_t)a.n_pieces * a.heads * ceil_div(a.piece_rows, PLAIN_ROWS);
    plain_kernel<E, DIMS><<<(unsigned)blocks, PLAIN_WARPS * WARP, bytes, c->stream>>>(a);
    return cuda_launched("attention", e);
}

template <typename E>
static enum err_code plain_launch(struct cuda_kern *c, const struct attention_args &a,
                                  struct err *e)
{
    if (a.head_dim <= WARP)
        return plain_launch_dims<E, 1>(c, a, e);
    if (a.head_dim <= 2 * WARP)
        return plain_launch_dims<E, 2>(c, a, e);
    if (a.head_dim <= 4 * WARP)
        return plain_launch_dims<E, 4>(c, a, e);
    return plain_launch_dims<E, 8>(c, a, e);
}

/* ---- choice ---- */

template <typename E>
static enum err_code launch(struct cuda_kern *c, const struct attention_args &a, struct err *e)
{
    if (attention_wgmma_can(c, a))
        return attention_wgmma<E>(c, a, e);
    return attention_mma_can(c, a) ? attention_mma<E>(c, a, e) : plain_launch<E>(c, a, e);
}

template <>
enum err_code launch<float>(struct cuda_kern *c, const struct attention_args &a, struct err *e) {
    return plain_launch<float>(c, a, e);
}

static enum err_code slopes_upload(struct cuda_kern *c, const struct kern_attention_args *a,
                                   const float **out, struct err *e)
{
    void *device;
    *out = NULL;
    if (a->alibi_slopes == NULL)
        return ERR_OK;
    TRY(cuda_push(c, a->alibi_slopes, (size_t)a->heads * sizeof(float), &device, e));
    *out = (const float *)device;
    return ERR_OK;
}

enum err_code cuda_attention(struct kern *k, const struct kern_attention_args *a, struct err *e)
{
    struct cuda_kern *c = cuda_of(k);
    struct cuda_attention_plan *p;
    if (a->head_dim > HEAD_DIM_MAX)
        return err_set(e, ERR_UNSUPPORTED, "attention heads of %d dimensions; at most %d",
                       a->head_dim, HEAD_DIM_MAX);
    if (a->n_seqs == 0 || a->T == 0)
        return ERR_OK;
    struct attention_args args = {
        a->out,   a->qkv,      a->T,     a->row, a->q_at, a->k_at, a->v_at, a->head_stride,
        a->heads, a->head_dim, a->scale, NULL,   NULL,    0,       0,       NULL};
    TRY(plan_get(c, a, rows_choose(c, args, a), &p, e));
    TRY(slopes_upload(c, a, &args.slopes, e));
    args.pieces = p->pieces;
    args.n_pieces = p->n_pieces;
    args.piece_rows = p->rows;
    args.n_taken = p->n_taken;
    CUDA_BY_TYPE(c, return launch<E>(c, args, e));
    return ERR_OK;
}
