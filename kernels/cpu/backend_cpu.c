/* Life cycle, memory and casts of the cpu backend, and its table. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"
#include "base/proc.h"
#include "base/str.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/dnnl_cpu.h"
#include "kernels/cpu/f16.h"
#include "kernels/cpu/product.h"
#include "kernels/cpu/simd.h"

/* The value of the line that starts with `key` in `key : value` text; "unknown processor" where there is none. */
static struct str value_of(struct str text, const char *key)
{
    struct str line, name;
    while (str_next_line(&text, &line))
        if (str_starts(line, key) && str_next_field(&line, ':', &name) && line.p != NULL)
            return str_trim(line);
    return STR("unknown processor");
}

static void name_processor(char *out, size_t size)
{
    struct buf text = {0};
    struct err ignored;
    ERR_IGNORE(io_read_file("/proc/cpuinfo", (size_t)16 << 20, &text, &ignored));
    struct str name = value_of((struct str){text.data, text.len}, "model name");
    snprintf(out, size, "%.*s", (int)name.n, name.p);
    buf_release(&text);
}

static void describe(struct cpu_kern *c)
{
    char processor[64], gemm[32];
    name_processor(processor, sizeof processor);
    dnnl_cpu_name(gemm, sizeof gemm);
    snprintf(c->base.info.device, sizeof c->base.info.device, "cpu: %s x%d %s %s%s", processor,
             c->threads, c->vec->name, gemm, product_state_name(c->product));
    snprintf(c->base.info.note, sizeof c->base.info.note, "%s", product_state_note(c->product));
    c->base.info.act_bytes = sizeof(float);
    c->base.info.threads = c->threads;
    c->base.info.batch_tokens = 8192;
    c->base.info.row_step = 1;
    c->base.info.is_host = true;
    c->base.info.head_step = CPU_HEAD_STEP;
    c->base.info.activation_bytes = (int64_t)16 << 20; /* they stay in the last-level cache */
    c->base.info.memory_bytes = (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
}

static enum err_code cpu_open(const char *unit, const struct kern_options *o, struct kern **out,
                              struct err *e)
{
    if (unit[0] != '\0')
        return err_set(e, ERR_FORMAT, "device 'cpu:%s': the cpu has no number; write 'cpu'", unit);
    if (o->compute == KERN_FP16)
        return err_set(e, ERR_UNSUPPORTED,
                       "device 'cpu' computes in fp32 and bf16; compute fp16 needs a GPU");
    struct cpu_kern *c = xcalloc(1, sizeof *c);
    c->threads = o->threads > 0 ? o->threads : proc_cores();
    c->vec = vec_select(dnnl_cpu_has_avx512()); /* both follow DNNL_MAX_CPU_ISA */
    c->product = product_state_new(o->compute);
    describe(c);
    *out = &c->base;
    return ERR_OK;
}

static void cpu_close(struct kern *k)
{
    struct cpu_kern *c = cpu_of(k);
    product_state_free(c->product);
    cpu_scratch_release(&c->scratch);
    cpu_scratch_release(&c->rotary.table);
    xfree(c);
}

/* big_free wants the size back: it is kept in one cache line in front of the memory. */
enum { SIZE_LINE = 64 };

static enum err_code cpu_alloc(struct kern *k, size_t bytes, const char *what, void **out,
                               struct err *e)
{
    (void)k;
    size_t total;
    if (!size_add(bytes, SIZE_LINE, &total))
        return err_set(e, ERR_NOMEM, "%s: size overflow", what);
    void *p;
    TRY(big_alloc(total, what, &p, e));
    memcpy(p, &total, sizeof total);
    *out = (char *)p + SIZE_LINE;
    return ERR_OK;
}

static void cpu_free(struct kern *k, void *p)
{
    (void)k;
    if (p == NULL)
        return;
    char *start = (char *)p - SIZE_LINE;
    size_t total;
    memcpy(&total, start, sizeof total);
    big_free(start, total);
}

static enum err_code cpu_copy(struct kern *k, void *dst, const void *src, size_t bytes,
                              struct err *e)
{
    (void)k;
    (void)e;
    memcpy(dst, src, bytes);
    return ERR_OK;
}

static enum err_code cpu_sync(struct kern *k, struct err *e)
{
    (void)k;
    (void)e;
    return ERR_OK;
}

/* Nothing is ever under way. */
static enum err_code cpu_mark(struct kern *k, int64_t *mark, struct err *e)
{
    *mark = 0;
    return cpu_sync(k, e);
}

static enum err_code cpu_wait(struct kern *k, int64_t mark, struct err *e)
{
    (void)mark;
    return cpu_sync(k, e);
}

enum { CAST_RUN = 1 << 16 };

ISOBIT_CLONES static void cast_run(float *out, const uint16_t *src, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = f16_to_f32(src[i]);
}

static enum err_code cpu_cast_f16(struct kern *k, void *dst, const uint16_t *src, int64_t n,
                                  struct err *e)
{
    (void)e;
    float *out = dst;
#pragma omp parallel for num_threads(cpu_of(k)->threads)
    for (int64_t i = 0; i < n; i += CAST_RUN)
        cast_run(out + i, src + i, n - i < CAST_RUN ? n - i : CAST_RUN);
    return ERR_OK;
}

static enum err_code cpu_cast_f32(struct kern *k, void *dst, const float *src, int64_t n,
                                  struct err *e)
{
    return cpu_copy(k, dst, src, (size_t)n * sizeof(float), e);
}

const struct backend_ops backend_ops_cpu = {
    .version = KERN_BACKEND_VERSION,
    .name = "cpu",
    .open = cpu_open,
    .close = cpu_close,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .upload = cpu_copy,
    .download = cpu_copy,
    .sync = cpu_sync,
    .host_alloc = cpu_alloc,
    .host_free = cpu_free,
    .copy_mark = cpu_sync,
    .copy_ahead = cpu_copy,
    .copy_join = cpu_sync,
    .copy_wait = cpu_sync,
    .mark = cpu_mark,
    .wait = cpu_wait,
    .cast_f16 = cpu_cast_f16,
    .cast_f32 = cpu_cast_f32,
    .embed = cpu_embed,
    .layernorm = cpu_layernorm,
    .linear = cpu_linear,
    .attention = cpu_attention,
    .copy_rows = cpu_copy_rows,
    .head_bytes = cpu_head_bytes,
    .score = cpu_score,
    .kl = cpu_kl,
    .logits = cpu_logits,
    .quantize = cpu_quantize,
    .order_statistics = cpu_order_statistics,
    .spread = cpu_spread,
};
