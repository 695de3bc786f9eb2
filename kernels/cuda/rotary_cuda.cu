/* Rotary embeddings: tables on the device, and the pass over q and k for products that do not rotate in their ending. */
#include "kernels/cuda/rotary_cuda.cuh"
#include "kernels/rotary.h"

static constexpr int THREADS = 256;
static const char what[] = "rotary embedding";

struct cuda_rotary_plan {
    struct cuda_seqs seqs; /* what the positions were made from */
    int64_t T;
    struct cuda_buffer positions; /* of every row of T */
    struct cuda_buffer angles;    /* rotary_fill's table */
    int dims;
    float base;
    int64_t n_pos;
};

void cuda_rotary_close(struct cuda_kern *c)
{
    struct cuda_rotary_plan *p = c->rotary;
    if (p == NULL)
        return;
    cuda_buffer_release(&p->positions);
    cuda_buffer_release(&p->angles);
    xfree(p->seqs.v);
    xfree(p);
    c->rotary = NULL;
}

/* ---- tables ---- */

static enum err_code positions_get(struct cuda_kern *c, struct cuda_rotary_plan *p,
                                   const struct kern_rotary *r, int64_t T, struct err *e)
{
    if (p->T == T && cuda_seqs_are(&p->seqs, r->seqs, r->n_seqs))
        return ERR_OK;
    p->seqs.n = 0;
    int32_t *list = (int32_t *)xcalloc((size_t)T, sizeof *list);
    for (int i = 0; i < r->n_seqs; i++)
        for (int32_t t = 0; t < r->seqs[i].len; t++)
            list[r->seqs[i].start + t] = r->seqs[i].pos0 + t;
    const enum err_code code = cuda_keep(c, &p->positions, list, (size_t)T * sizeof *list, what, e);
    xfree(list);
    TRY(code);
    cuda_seqs_keep(&p->seqs, r->seqs, r->n_seqs);
    p->T = T;
    return ERR_OK;
}

static enum err_code angles_get(struct cuda_kern *c, struct cuda_rotary_plan *p,
                                const struct kern_rotary *r, struct err *e)
{
    const int64_t n_pos = rotary_positions(r);
    if (p->dims == r->dims && p->base == r->base && p->n_pos >= n_pos)
        return ERR_OK;
    const size_t bytes = (size_t)(n_pos * r->dims) * sizeof(float);
    p->n_pos = 0;
    float *table = (float *)xmalloc(bytes);
    rotary_fill(r, n_pos, table);
    const enum err_code code = cuda_keep(c, &p->angles, table, bytes, what, e);
    xfree(table);
    TRY(code);
    p->dims = r->dims;
    p->base = r->base;
    p->n_pos = n_pos;
    return ERR_OK;
}

enum err_code cuda_rotation_get(struct cuda_kern *c, const struct kern_rotary *r, int64_t T,
                                struct cuda_rotation *out, struct err *e)
{
    if (c->rotary == NULL)
        c->rotary = (struct cuda_rotary_plan *)xcalloc(1, sizeof *c->rotary);
    struct cuda_rotary_plan *p = c->rotary;
    TRY(positions_get(c, p, r, T, e));
    TRY(angles_get(c, p, r, e));
    *out = {(const float2 *)p->angles.p,
            (const int32_t *)p->positions.p,
            r->q_at,
            r->k_at,
            r->head_stride,
            r->heads,
            r->dims / 2};
    return ERR_OK;
}

/* ---- a pass of its own ---- */

/* Pairs of q, then of k, of a row's heads; N neighbouring pairs at a time. blockDim.y rows a block. */
template <typename E, int N>
static __global__ void rotate_kernel(E *y, int64_t T, int64_t row, struct cuda_rotation r)
{
    struct alignas(N * sizeof(E)) group {
        E v[N];
    };
    const int per_head = r.half / N, per_side = r.heads * per_head;
    const int64_t t = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
    if (t >= T)
        return;
    const float2 *angles = r.angles + (int64_t)r.positions[t] * r.half;
    for (int at = threadIdx.x; at < 2 * per_side; at += blockDim.x) {
        const bool is_k = at >= per_side;
        const int rest = is_k ? at - per_side : at, head = rest / per_head;
        const int i = (rest - head * per_head) * N;
        E *x = y + t * row + (is_k ? r.k_at : r.q_at) + head * r.head_stride + i;
        struct group lo = *reinterpret_cast<struct group *>(x);
        struct group hi = *reinterpret_cast<struct group *>(x + r.half);
#pragma unroll
        for (int j = 0; j < N; j++) {
            const float2 turned = rotate_pair(to_f32(lo.v[j]), to_f32(hi.v[j]), angles[i + j]);
            lo.v[j] = from_f32<E>(turned.x);
            hi.v[j] = from_f32<E>(turned.y);
        }
        *reinterpret_cast<struct group *>(x) = lo;
        *reinterpret_cast<struct group *>(x + r.half) = hi;
    }
}

template <typename E, int N>
static void launch_groups(struct cuda_kern *c, const struct cuda_rotation &r, E *y, int64_t T,
                          int64_t row)
{
    const int64_t of_row = ceil_div((int64_t)2 * r.heads * (r.half / N), WARP) * WARP;
    const unsigned across = (unsigned)(of_row < THREADS ? of_row : THREADS),
                   rows = THREADS / across;
    rotate_kernel<E, N>
        <<<(unsigned)ceil_div(T, rows), dim3(across, rows), 0, c->stream>>>(y, T, row, r);
}

/* Groups of 16 bytes, or of 4, or single elements, as the offsets allow. */
template <typename E>
static void launch(struct cuda_kern *c, const struct cuda_rotation &r, E *y, int64_t T, int64_t row)
{
    constexpr int wide = 16 / sizeof(E), narrow = 4 / sizeof(E);
    const int64_t offsets = row | r.q_at | r.k_at | r.head_stride | r.half;
    if (offsets % wide == 0 && (uintptr_t)y % 16 == 0)
        launch_groups<E, wide>(c, r, y, T, row);
    else if (offsets % narrow == 0 && (uintptr_t)y % 4 == 0)
        launch_groups<E, narrow>(c, r, y, T, row);
    else
        launch_groups<E, 1>(c, r, y, T, row);
}

enum err_code cuda_rotate(struct cuda_kern *c, const struct cuda_rotation &r, void *y, int64_t T,
                          int64_t N, struct err *e)
{
    CUDA_BY_TYPE(c, launch<E>(c, r, (E *)y, T, N));
    return cuda_launched(what, e);
}
