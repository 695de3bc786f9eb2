/* Causal attention without a [T, T] matrix: per head, 16 queries at a time against all keys they see. One piece of
 * work is one head of a family of sequences: a sequence without a parent and all that continue it. Its keys and
 * values are copied side by side once; each child's follow in the same place, so
 * that a child sees parent and itself as one run of keys. */
#include <string.h>

#include "kernels/cpu/cpu.h"

/* Scratch of one thread; sizes in floats are multiples of 16, so every part is aligned. */
struct head_scratch {
    float *k, *v;   /* [max_keys, head_dim] */
    float *scores;  /* [max_keys, VEC_QUERIES] */
    float *q, *out; /* [head_dim, VEC_QUERIES] */
    float *
        rows; /* [VEC_QUERIES, head_dim]: a tile of queries or results before or after transposition */
};

struct plan {
    const struct kern_attention_args *a;
    const struct vec_ops *vec;
    int64_t max_keys;
    size_t per_thread; /* floats */
};

static size_t round16(int64_t n)
{
    return ((size_t)n + 15) / 16 * 16;
}

static struct head_scratch scratch_split(const struct plan *p, float *base)
{
    int64_t hd = p->a->head_dim;
    struct head_scratch s;
    s.k = base;
    s.v = s.k + round16(p->max_keys * hd);
    s.scores = s.v + round16(p->max_keys * hd);
    s.q = s.scores + p->max_keys * VEC_QUERIES;
    s.out = s.q + hd * VEC_QUERIES;
    s.rows = s.out + hd * VEC_QUERIES;
    return s;
}

static size_t scratch_floats(int64_t max_keys, int64_t hd)
{
    return 2 * round16(max_keys * hd) + (size_t)(max_keys + 3 * hd) * VEC_QUERIES;
}

/* Rows of qkv are pages apart, beyond what the processor fetches ahead by itself. */
enum { LINE_FLOATS = 16, ROWS_AHEAD = 16 };

static void fetch_ahead(const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i += LINE_FLOATS)
        __builtin_prefetch(x + i);
}

/* Copies keys and values of a sequence behind `at` keys that are already there. */
static void copy_keys(const struct plan *p, const struct head_scratch *s,
                      const struct kern_seq *seq, int h, int64_t at)
{
    const struct kern_attention_args *a = p->a;
    const int64_t hd = a->head_dim;
    const float *row = (const float *)a->qkv + seq->start * a->row + h * a->head_stride;
    for (int64_t t = 0; t < seq->len; t++, row += a->row) {
        float *k = s->k + (at + t) * hd;
        if (t + ROWS_AHEAD < seq->len) {
            fetch_ahead(row + ROWS_AHEAD * a->row + a->k_at, hd);
            fetch_ahead(row + ROWS_AHEAD * a->row + a->v_at, hd);
        }
        memcpy(k, row + a->k_at, (size_t)hd * sizeof(float));
        memcpy(s->v + (at + t) * hd, row + a->v_at, (size_t)hd * sizeof(float));
    }
}

/* q[dim][lane] of up to 16 queries, scaled; lanes without a query are zero. */
static void copy_queries(const struct plan *p, const struct head_scratch *s,
                         const struct kern_seq *seq, int h, int64_t t0, int64_t lanes)
{
    const struct kern_attention_args *a = p->a;
    const int64_t hd = a->head_dim;
    const float *row =
        (const float *)a->qkv + (seq->start + t0) * a->row + a->q_at + h * a->head_stride;
    float *q = s->rows;
    for (int64_t l = 0; l < lanes; l++, row += a->row, q += hd) {
        if (t0 + l + ROWS_AHEAD < seq->len)
            fetch_ahead(row + ROWS_AHEAD * a->row, hd);
#pragma omp simd
        for (int64_t i = 0; i < hd; i++)
            q[i] = row[i] * a->scale;
    }
    memset(q, 0, (size_t)((VEC_QUERIES - lanes) * hd) * sizeof(float));
    p->vec->transpose(s->q, VEC_QUERIES, s->rows, hd, VEC_QUERIES, hd);
}

static void store_output(const struct plan *p, const struct head_scratch *s, const float *sums,
                         int64_t row0, int h, int64_t lanes)
{
    const int64_t hd = p->a->head_dim, width = p->a->heads * hd;
    float *out = (float *)p->a->out + row0 * width + h * hd;
    const float *row = s->rows;
    p->vec->transpose(s->rows, hd, s->out, VEC_QUERIES, hd, VEC_QUERIES);
    for (int64_t l = 0; l < lanes; l++, out += width, row += hd) {
        const float scale = 1.0F / sums[l];
#pragma omp simd
        for (int64_t i = 0; i < hd; i++)
            out[i] = row[i] * scale;
    }
}

static void attend_sequence(const struct plan *p, const struct head_scratch *s,
                            const struct kern_seq *seq, int h, int64_t n_before)
{
    copy_keys(p, s, seq, h, n_before);
    for (int64_t t0 = 0; t0 < seq->len; t0 += VEC_QUERIES) {
        int64_t lanes = seq->len - t0 < VEC_QUERIES ? seq->len - t0 : VEC_QUERIES;
        float sums[VEC_QUERIES];
        copy_queries(p, s, seq, h, t0, lanes);
        p->vec->attend(&(struct vec_attend){
            .k = s->k,
            .v = s->v,
            .q = s->q,
            .n_keys = n_before + t0 + lanes,
            .n_common = n_before + t0 + 1,
            .head_dim = p->a->head_dim,
            .slope = p->a->alibi_slopes != NULL ? &p->a->alibi_slopes[h] : NULL,
            .scores = s->scores,
            .out = s->out,
            .sums = sums,
        });
        store_output(p, s, sums, seq->start + t0, h, lanes);
    }
}

static void attend_family(const struct plan *p, const struct head_scratch *s, int root, int h)
{
    const struct kern_attention_args *a = p->a;
    const struct kern_seq *parent = &a->seqs[root];
    if (parent->parent >= 0)
        return; /* done with its parent */
    attend_sequence(p, s, parent, h, 0);
    for (int i = root + 1; i < a->n_seqs; i++)
        if (a->seqs[i].parent == root)
            attend_sequence(p, s, &a->seqs[i], h, parent->len);
}

static int64_t keys_of(const struct kern_attention_args *a, int i)
{
    return a->seqs[i].len + (a->seqs[i].parent >= 0 ? a->seqs[a->seqs[i].parent].len : 0);
}

static struct plan plan_make(const struct cpu_kern *c, const struct kern_attention_args *a)
{
    struct plan p = {.a = a, .vec = c->vec};
    for (int i = 0; i < a->n_seqs; i++) {
        const struct kern_seq *s = &a->seqs[i];
        CHECK(s->parent < i && (s->parent < 0 || a->seqs[s->parent].parent < 0));
        int64_t keys = keys_of(a, i);
        p.max_keys = keys > p.max_keys ? keys : p.max_keys;
    }
    p.per_thread = scratch_floats(p.max_keys, a->head_dim);
    return p;
}

enum err_code cpu_attention(struct kern *k, const struct kern_attention_args *a, struct err *e)
{
    struct cpu_kern *c = cpu_of(k);
    const struct plan p = plan_make(c, a);
    void *base;
    TRY(cpu_scratch_get(&c->scratch, (size_t)c->threads * p.per_thread * sizeof(float), &base, e));
#pragma omp parallel for schedule(dynamic) num_threads(c->threads)
    for (int64_t i = 0; i < (int64_t)a->n_seqs * a->heads; i++) {
        struct head_scratch s =
            scratch_split(&p, (float *)base + (size_t)cpu_thread() * p.per_thread);
        attend_family(&p, &s, (int)(i / a->heads), (int)(i % a->heads));
    }
    return ERR_OK;
}
