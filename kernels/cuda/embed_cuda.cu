/* Casts, table look-ups and row copies: one thread a pack of neighbours. */
#include "kernels/cuda/cuda_util.cuh"

static constexpr int THREADS = 256;

/* ---- casts ---- */

template <typename E, typename S>
static __global__ void cast_kernel(E *dst, const S *src, int64_t n)
{
    for (int64_t i = grid_thread(); i < n; i += grid_threads())
        dst[i] = from_f32<E>(to_f32(src[i]));
}

template <typename S>
static enum err_code cast(struct kern *k, void *dst, const S *src, int64_t n, struct err *e)
{
    struct cuda_kern *c = cuda_of(k);
    if (n == 0)
        return ERR_OK;
    CUDA_BY_TYPE(
        c, (cast_kernel<E, S><<<grid_for(n, THREADS), THREADS, 0, c->stream>>>((E *)dst, src, n)));
    return cuda_launched("cast", e);
}

enum err_code cuda_cast_f16(struct kern *k, void *dst, const uint16_t *src, int64_t n,
                            struct err *e)
{
    return cast(k, dst, (const __half *)src, n, e);
}

enum err_code cuda_cast_f32(struct kern *k, void *dst, const float *src, int64_t n, struct err *e)
{
    return cast(k, dst, src, n, e);
}

/* ---- embedding ---- */

/* out[t] = table[ids[t]] (+ positions[pos[t]]), rows of `packs` packs. */
template <typename E, int N>
static __global__ void embed_kernel(E *out, const E *table, const E *positions, const int32_t *ids,
                                    const int32_t *pos, int64_t T, int64_t packs)
{
    for (int64_t i = grid_thread(); i < T * packs; i += grid_threads()) {
        int64_t t = i / packs, at = i % packs;
        pack<E, N> x = pack_load<E, N>(table, ids[t] * packs + at);
        if (positions != NULL) {
            pack<E, N> p = pack_load<E, N>(positions, pos[t] * packs + at);
#pragma unroll
            for (int j = 0; j < N; j++)
                x.v[j] = from_f32<E>(to_f32(x.v[j]) + to_f32(p.v[j]));
        }
        pack_store<E, N>(out, i, x);
    }
}

template <typename E, int N>
static void embed_launch(struct cuda_kern *c, const struct kern_embed_args *a, const int32_t *ids,
                         const int32_t *pos)
{
    embed_kernel<E, N><<<grid_for(a->T * a->d / N, THREADS), THREADS, 0, c->stream>>>(
        (E *)a->out, (const E *)a->table, (const E *)a->pos_table, ids, pos, a->T, a->d / N);
}

template <typename E>
static void embed_choose(struct cuda_kern *c, const struct kern_embed_args *a, const int32_t *ids,
                         const int32_t *pos)
{
    if (can_pack<E>(a->out, a->d) && can_pack<E>(a->table, a->d) && can_pack<E>(a->pos_table, a->d))
        embed_launch<E, 8>(c, a, ids, pos);
    else
        embed_launch<E, 1>(c, a, ids, pos);
}

enum err_code cuda_embed(struct kern *k, const struct kern_embed_args *a, struct err *e)
{
    struct cuda_kern *c = cuda_of(k);
    void *ids, *pos = NULL;
    if (a->T == 0)
        return ERR_OK;
    TRY(cuda_push(c, a->ids, (size_t)a->T * sizeof *a->ids, &ids, e));
    if (a->pos_table != NULL)
        TRY(cuda_push(c, a->pos, (size_t)a->T * sizeof *a->pos, &pos, e));
    CUDA_BY_TYPE(c, embed_choose<E>(c, a, (const int32_t *)ids, (const int32_t *)pos));
    return cuda_launched("embedding", e);
}

/* ---- row copies ---- */

template <typename E, int N>
static __global__ void rows_kernel(E *y, const E *x, const int32_t *y_rows, const int32_t *x_rows,
                                   int64_t n, int64_t packs)
{
    for (int64_t i = grid_thread(); i < n * packs; i += grid_threads()) {
        int64_t row = i / packs, at = i % packs;
        int64_t to = y_rows != NULL ? y_rows[row] : row;
        int64_t from = x_rows != NULL ? x_rows[row] : row;
        pack_store<E, N>(y, to * packs + at, pack_load<E, N>(x, from * packs + at));
    }
}

template <typename E, int N>
static void rows_launch(struct cuda_kern *c, const struct kern_rows_args *a, const int32_t *y_rows,
                        const int32_t *x_rows)
{
    rows_kernel<E, N><<<grid_for(a->n * a->d / N, THREADS), THREADS, 0, c->stream>>>(
        (E *)a->y, (const E *)a->x, y_rows, x_rows, a->n, a->d / N);
}

template <typename E>
static void rows_choose(struct cuda_kern *c, const struct kern_rows_args *a, const int32_t *y_rows,
                        const int32_t *x_rows)
{
    if (can_pack<E>(a->y, a->d) && can_pack<E>(a->x, a->d))
        rows_launch<E, 8>(c, a, y_rows, x_rows);
    else
        rows_launch<E, 1>(c, a, y_rows, x_rows);
}

enum err_code cuda_copy_rows(struct kern *k, const struct kern_rows_args *a, struct err *e)
{
    struct cuda_kern *c = cuda_of(k);
    void *y_rows = NULL, *x_rows = NULL;
    size_t bytes = (size_t)a->n * sizeof(int32_t);
    if (a->n == 0)
        return ERR_OK;
    if (a->y_rows != NULL)
        TRY(cuda_push(c, a->y_rows, bytes, &y_rows, e));
    if (a->x_rows != NULL)
        TRY(cuda_push(c, a->x_rows, bytes, &x_rows, e));
    CUDA_BY_TYPE(c, rows_choose<E>(c, a, (const int32_t *)y_rows, (const int32_t *)x_rows));
    return cuda_launched("row copy", e);
}
