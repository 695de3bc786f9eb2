#include "kernels/cpu/product.h"

#include <string.h>

#include "base/mem.h"
#include "kernels/cpu/bf16.h"
#include "kernels/cpu/dnnl_cpu.h"
#include "kernels/cpu/simd.h"

enum product_math { MATH_FP32, MATH_BF16_ROUNDED, MATH_BF16_NATIVE };

/* Fewer rows than this do not earn the work of laying out panels. */
enum { PANEL_MIN_ROWS = 256 };

struct product_state {
    enum product_math math;
    bool has_panels;
    struct cpu_scratch weights, rows[PRODUCT_PLACES], staging;
    struct dnnl_product **made; /* one a shape that was ever asked for */
    int n_made;
    char *run_scratch; /* of each thread, in `staging` */
    size_t run_bytes;
};

struct product_state *product_state_new(enum kern_compute compute)
{
    struct product_state *s = xcalloc(1, sizeof *s);
    if (compute == KERN_BF16)
        s->math = dnnl_cpu_has_bf16() ? MATH_BF16_NATIVE : MATH_BF16_ROUNDED;
    s->has_panels = dnnl_cpu_has_avx512();
    return s;
}

void product_state_free(struct product_state *s)
{
    if (s == NULL)
        return;
    cpu_scratch_release(&s->weights);
    cpu_scratch_release(&s->staging);
    for (int i = 0; i < PRODUCT_PLACES; i++)
        cpu_scratch_release(&s->rows[i]);
    for (int i = 0; i < s->n_made; i++)
        dnnl_product_free(s->made[i]);
    xfree(s->made);
    xfree(s);
}

const char *product_state_name(const struct product_state *s)
{
    static const char *const names[] = {[MATH_FP32] = "",
                                        [MATH_BF16_ROUNDED] = " bf16 without instructions for it",
                                        [MATH_BF16_NATIVE] = " bf16"};
    return names[s->math];
}

const char *product_state_note(const struct product_state *s)
{
    return s->math == MATH_BF16_ROUNDED
               ? "bf16 is no faster than fp32 here: this processor has no AVX512-BF16 or AMX"
               : "";
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static size_t round_line(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

ISOBIT_CLONES static void narrow(uint16_t *out, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = f32_to_bf16(x[i]);
}

ISOBIT_CLONES static void round_all(float *out, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = f32_round_to_bf16(x[i]);
}

/* out[K, width] = w[width, K]^T, a strip of rows at a time, so that what is read and written stays in the cache. */
static void lay_panel(const struct cpu_kern *c, float *out, const float *w, int64_t width,
                      int64_t ldw, int64_t K)
{
    enum { STRIP = 16 };
    for (int64_t r = 0; r < width; r += STRIP)
        c->vec->transpose(out + r, width, w + r * ldw, ldw, smaller(STRIP, width - r), K);
}

/* The same rounded to bf16, through a buffer of DEPTH rows of the panel. */
enum { DEPTH = 64 };

static void lay_panel_bf16(const struct cpu_kern *c, uint16_t *out, const float *w, int64_t width,
                           int64_t K, float *buffer)
{
    for (int64_t k = 0; k < K; k += DEPTH) {
        int64_t depth = smaller(DEPTH, K - k);
        lay_panel(c, buffer, w + k, width, K, depth);
        narrow(out + k * width, buffer, depth * width);
    }
}

static enum err_code find_product(struct product_state *s, int64_t m, int64_t n, int64_t k,
                                  const struct dnnl_product **out, struct err *e)
{
    int i = 0;
    while (i < s->n_made && !dnnl_product_is(s->made[i], m, n, k))
        i++;
    if (i == s->n_made) {
        struct dnnl_product *p;
        TRY(dnnl_product_new(m, n, k, &p, e));
        s->made = xrealloc(s->made, ((size_t)i + 1) * sizeof(struct dnnl_product *));
        s->made[s->n_made++] = p;
    }
    *out = s->made[i];
    return ERR_OK;
}

/* fp32 panels, rounded where that is asked for. */
static enum err_code make_panels(struct cpu_kern *c, const float *w, struct product_weights *p,
                                 struct err *e)
{
    void *base;
    TRY(cpu_scratch_get(&c->product->weights, (size_t)(p->N * p->K) * sizeof(float), &base, e));
    float *panels = base;
    const bool is_rounded = c->product->math == MATH_BF16_ROUNDED;
#pragma omp parallel for schedule(dynamic) num_threads(c->threads)
    for (int64_t n = 0; n < p->N; n += p->cols) {
        int64_t width = smaller(p->cols, p->N - n);
        lay_panel(c, panels + n * p->K, w + n * p->K, width, p->K, p->K);
        if (is_rounded)
            round_all(panels + n * p->K, panels + n * p->K, width * p->K);
    }
    p->panels = panels;
    return ERR_OK;
}

/* What a thread needs to lay out a panel or to run a product. */
static enum err_code make_staging(struct cpu_kern *c, const struct product_weights *p,
                                  size_t *stage_bytes, char **out, struct err *e)
{
    struct product_state *s = c->product;
    size_t run = dnnl_product_scratch_bytes(p->whole), last = dnnl_product_scratch_bytes(p->last);
    s->run_bytes = round_line(run > last ? run : last);
    *stage_bytes = round_line((size_t)(p->cols * p->K) * sizeof(uint16_t)) +
                   (size_t)(DEPTH * p->cols) * sizeof(float);
    size_t each = *stage_bytes > s->run_bytes ? *stage_bytes : s->run_bytes;
    void *base;
    TRY(cpu_scratch_get(&s->staging, (size_t)c->threads * each, &base, e));
    *out = s->run_scratch = base;
    return ERR_OK;
}

static enum err_code make_native(struct cpu_kern *c, const float *w, struct product_weights *p,
                                 struct err *e)
{
    struct product_state *s = c->product;
    const int64_t n_panels = (p->N + p->cols - 1) / p->cols;
    TRY(find_product(s, PRODUCT_ROWS, smaller(p->cols, p->N), p->K, &p->whole, e));
    TRY(find_product(s, PRODUCT_ROWS, p->N - (n_panels - 1) * p->cols, p->K, &p->last, e));
    const size_t panel_bytes = round_line(dnnl_product_weight_bytes(p->whole));
    size_t stage_bytes;
    char *stages;
    void *base;
    TRY(make_staging(c, p, &stage_bytes, &stages, e));
    TRY(cpu_scratch_get(&s->weights, (size_t)n_panels * panel_bytes, &base, e));
#pragma omp parallel for schedule(dynamic) num_threads(c->threads)
    for (int64_t i = 0; i < n_panels; i++) {
        char *stage = stages + (size_t)cpu_thread() * stage_bytes;
        float *buffer = (float *)(void *)stage;
        uint16_t *panel = (uint16_t *)(void *)(buffer + DEPTH * p->cols);
        int64_t width = smaller(p->cols, p->N - i * p->cols);
        lay_panel_bf16(c, panel, w + i * p->cols * p->K, width, p->K, buffer);
        dnnl_product_pack(i + 1 < n_panels ? p->whole : p->last, panel,
                          (char *)base + (size_t)i * panel_bytes);
    }
    p->native = base;
    return ERR_OK;
}

enum err_code product_weights_make(struct cpu_kern *c, const float *w, int64_t N, int64_t K,
                                   int64_t cols, int64_t T, struct product_weights *out,
                                   struct err *e)
{
    *out = (struct product_weights){.c = c, .N = N, .K = K, .cols = cols};
    switch (c->product->math) {
    case MATH_BF16_NATIVE:
        return make_native(c, w, out, e);
    case MATH_BF16_ROUNDED:
        return make_panels(c, w, out, e);
    case MATH_FP32:
        break;
    }
    if (product_is_laid_out(c, T))
        return make_panels(c, w, out, e);
    out->rows = w;
    return ERR_OK;
}

bool product_is_laid_out(const struct cpu_kern *c, int64_t T)
{
    return c->product->math != MATH_FP32 || (c->product->has_panels && T >= PANEL_MIN_ROWS);
}

bool product_is_dense(const struct cpu_kern *c)
{
    return c->product->math == MATH_BF16_NATIVE;
}

static void narrow_rows(const struct cpu_kern *c, uint16_t *out, const float *x, int64_t T,
                        int64_t padded, int64_t K)
{
#pragma omp parallel for num_threads(c->threads)
    for (int64_t t = 0; t < padded; t++) {
        if (t < T)
            narrow(out + t * K, x + t * K, K);
        else
            memset(out + t * K, 0, (size_t)K * sizeof *out);
    }
}

static void round_rows(const struct cpu_kern *c, float *out, const float *x, int64_t T, int64_t K)
{
#pragma omp parallel for num_threads(c->threads)
    for (int64_t t = 0; t < T; t++)
        round_all(out + t * K, x + t * K, K);
}

enum err_code product_rows_make(struct cpu_kern *c, enum product_place place, const float *x,
                                int64_t T, int64_t K, struct product_rows *out, struct err *e)
{
    struct product_state *s = c->product;
    const int64_t padded = (T + PRODUCT_ROWS - 1) / PRODUCT_ROWS * PRODUCT_ROWS;
    void *base;
    *out = (struct product_rows){.fp32 = x, .T = T, .K = K};
    if (s->math == MATH_FP32)
        return ERR_OK;
    TRY(cpu_scratch_get(&s->rows[place], (size_t)(padded * K) * sizeof(float), &base, e));
    if (s->math == MATH_BF16_NATIVE) {
        narrow_rows(c, base, x, T, padded, K);
        out->bf16 = base;
    } else {
        round_rows(c, base, x, T, K);
        out->fp32 = base;
    }
    return ERR_OK;
}

static void native_tile(const struct product_weights *w, const struct product_rows *x,
                        const struct product_tile *t, float *y)
{
    const struct product_state *s = w->c->product;
    const size_t panel_bytes = round_line(dnnl_product_weight_bytes(w->whole));
    dnnl_product_run(t->col + w->cols < w->N ? w->whole : w->last, x->bf16 + t->row * x->K,
                     w->native + (size_t)(t->col / w->cols) * panel_bytes, y,
                     s->run_scratch + (size_t)cpu_thread() * s->run_bytes);
}

void product_tile(const struct product_weights *w, const struct product_rows *x,
                  const struct product_tile *t, float *y, int64_t ldy, bool is_sum)
{
    if (w->native != NULL) {
        CHECK(ldy == t->cols && !is_sum);
        native_tile(w, x, t, y);
        return;
    }
    const bool is_panel = w->panels != NULL;
    dnnl_cpu_sgemm(&(struct dnnl_sgemm_args){.y = y,
                                             .x = x->fp32 + t->row * x->K,
                                             .w = (is_panel ? w->panels : w->rows) + t->col * w->K,
                                             .m = t->rows,
                                             .n = t->cols,
                                             .k = w->K,
                                             .ldx = x->K,
                                             .ldy = ldy,
                                             .is_sum = is_sum,
                                             .is_panel = is_panel});
}
