/* Rotary embeddings of the rows that a linear layer has just written. */
#include "kernels/cpu/cpu.h"
#include "kernels/rotary.h"

static enum err_code table_get(struct cpu_rotary *kept, const struct kern_rotary *r, struct err *e)
{
    const int64_t n_pos = rotary_positions(r);
    if (kept->dims == r->dims && kept->base == r->base && kept->n_pos >= n_pos)
        return ERR_OK;
    void *p;
    kept->n_pos = 0;
    TRY(cpu_scratch_get(&kept->table, (size_t)n_pos * (size_t)r->dims * sizeof(float), &p, e));
    rotary_fill(r, n_pos, p);
    kept->dims = r->dims;
    kept->base = r->base;
    kept->n_pos = n_pos;
    return ERR_OK;
}

/* One head's q or k in one row. */
static void rotate(float *x, const float *pairs, int64_t half)
{
#pragma omp simd
    for (int64_t i = 0; i < half; i++) {
        const float c = pairs[2 * i], s = pairs[2 * i + 1], lo = x[i], hi = x[i + half];
        x[i] = lo * c - hi * s;
        x[i + half] = hi * c + lo * s;
    }
}

static void rotate_head(const struct kern_rotary *r, const float *table, const struct kern_seq *s,
                        int head, float *y, int64_t N)
{
    const int half = r->dims / 2;
    float *row = y + s->start * N + head * r->head_stride;
    for (int32_t t = 0; t < s->len; t++, row += N) {
        const float *pairs = table + (int64_t)(s->pos0 + t) * r->dims;
        rotate(row + r->q_at, pairs, half);
        rotate(row + r->k_at, pairs, half);
    }
}

enum err_code cpu_rotate(struct cpu_kern *c, const struct kern_rotary *r, float *y, int64_t N,
                         struct err *e)
{
    TRY(table_get(&c->rotary, r, e));
    const float *table = c->rotary.table.p;
#pragma omp parallel for schedule(dynamic) num_threads(c->threads)
    for (int64_t i = 0; i < (int64_t)r->n_seqs * r->heads; i++)
        rotate_head(r, table, &r->seqs[i / r->heads], (int)(i % r->heads), y, N);
    return ERR_OK;
}
