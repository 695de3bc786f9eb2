/* The matrix products of the cpu backend, by oneDNN, on blocks, one thread each. In fp32 the call without
 * descriptors is as fast as the matmul primitive (docs/ENGINE.md has the figures); for bf16 there are only primitives.
 * The only file that sees dnnl.h; 2.6 and 3.x differ in how a primitive is described. */
#include "kernels/cpu/dnnl_cpu.h"

#include <dnnl.h>
#include <omp.h>
#include <stdio.h>

#include "base/mem.h"

/* A description of an array: a struct of ours to keep before 3.0, an object of the library since. */
#if DNNL_VERSION_MAJOR < 3
typedef const dnnl_memory_desc_t *array_ref;
#else
typedef const_dnnl_memory_desc_t array_ref;
#endif

struct dnnl_product {
    int64_t m, n, k;
    dnnl_engine_t engine;
    dnnl_memory_desc_t x_array, panel_array, y_array;
    dnnl_primitive_desc_t matmul_desc, pack_desc; /* they keep the other arrays' descriptions */
    dnnl_primitive_t matmul, pack;
};

void dnnl_cpu_name(char *out, size_t size)
{
    const dnnl_version_t *v = dnnl_version();
    snprintf(out, size, "oneDNN %d.%d.%d", v->major, v->minor, v->patch);
}

static bool has_isa(unsigned isa)
{
    return ((unsigned)dnnl_get_effective_cpu_isa() & isa) == isa;
}

bool dnnl_cpu_has_avx512(void)
{
    return has_isa(dnnl_cpu_isa_avx512_core);
}

bool dnnl_cpu_has_bf16(void)
{
    return has_isa(dnnl_cpu_isa_avx512_core_bf16);
}

/* oneDNN keeps to one thread inside a parallel region; a region of one thread does not look like one. Returns what
 * leave_one_thread wants back. */
static int keep_to_one_thread(void)
{
    int threads = omp_in_parallel() ? 0 : omp_get_max_threads();
    if (threads > 0)
        omp_set_num_threads(1);
    return threads;
}

static void leave_one_thread(int threads)
{
    if (threads > 0)
        omp_set_num_threads(threads);
}

void dnnl_cpu_sgemm(const struct dnnl_sgemm_args *a)
{
    int threads = keep_to_one_thread();
    dnnl_status_t status =
        dnnl_sgemm('N', a->is_panel ? 'N' : 'T', a->m, a->n, a->k, 1.0F, a->x, a->ldx, a->w,
                   a->is_panel ? a->n : a->k, a->is_sum ? 1.0F : 0.0F, a->y, a->ldy);
    leave_one_thread(threads);
    CHECK(status == dnnl_success); /* it only refuses shapes that the callers have checked */
}

#if DNNL_VERSION_MAJOR < 3

static array_ref array_of(const dnnl_memory_desc_t *d)
{
    return d;
}

static dnnl_status_t array_init(dnnl_memory_desc_t *out, int64_t rows, int64_t cols,
                                dnnl_data_type_t type, dnnl_format_tag_t tag)
{
    return dnnl_memory_desc_init_by_tag(out, 2, (dnnl_dims_t){rows, cols}, type, tag);
}

static void array_release(dnnl_memory_desc_t *d)
{
    (void)d;
}

static dnnl_status_t describe_matmul(dnnl_primitive_desc_t *out, dnnl_engine_t engine, array_ref x,
                                     array_ref w, array_ref y, const_dnnl_primitive_attr_t attr)
{
    dnnl_matmul_desc_t d;
    dnnl_status_t status = dnnl_matmul_desc_init(&d, x, w, NULL, y);
    return status != dnnl_success ? status
                                  : dnnl_primitive_desc_create(out, &d, attr, engine, NULL);
}

#else

static array_ref array_of(const dnnl_memory_desc_t *d)
{
    return *d;
}

static dnnl_status_t array_init(dnnl_memory_desc_t *out, int64_t rows, int64_t cols,
                                dnnl_data_type_t type, dnnl_format_tag_t tag)
{
    return dnnl_memory_desc_create_with_tag(out, 2, (dnnl_dims_t){rows, cols}, type, tag);
}

static void array_release(dnnl_memory_desc_t *d)
{
    if (*d != NULL)
        (void)dnnl_memory_desc_destroy(*d);
}

static dnnl_status_t describe_matmul(dnnl_primitive_desc_t *out, dnnl_engine_t engine, array_ref x,
                                     array_ref w, array_ref y, const_dnnl_primitive_attr_t attr)
{
    return dnnl_matmul_primitive_desc_create(out, engine, x, w, NULL, y, attr);
}

#endif

#define TRY_DNNL(expr)                                                                             \
    do {                                                                                           \
        dnnl_status_t status_ = (expr);                                                            \
        if (status_ != dnnl_success)                                                               \
            return status_;                                                                        \
    } while (0)

/* The library chooses the layout of w, and takes its working memory from us: its own belongs to the thread that made
 * the primitive. */
static dnnl_status_t make_matmul(struct dnnl_product *p)
{
    dnnl_memory_desc_t any_w = {0};
    dnnl_primitive_attr_t attr;
    TRY_DNNL(array_init(&p->x_array, p->m, p->k, dnnl_bf16, dnnl_ab));
    TRY_DNNL(array_init(&p->panel_array, p->k, p->n, dnnl_bf16, dnnl_ab));
    TRY_DNNL(array_init(&p->y_array, p->m, p->n, dnnl_f32, dnnl_ab));
    TRY_DNNL(array_init(&any_w, p->k, p->n, dnnl_bf16, dnnl_format_tag_any));
    dnnl_status_t status = dnnl_primitive_attr_create(&attr);
    if (status == dnnl_success) {
        (void)dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
        status = describe_matmul(&p->matmul_desc, p->engine, array_of(&p->x_array),
                                 array_of(&any_w), array_of(&p->y_array), attr);
        (void)dnnl_primitive_attr_destroy(attr);
    }
    array_release(&any_w);
    return status != dnnl_success ? status : dnnl_primitive_create(&p->matmul, p->matmul_desc);
}

static array_ref packed_array(const struct dnnl_product *p)
{
    return dnnl_primitive_desc_query_md(p->matmul_desc, dnnl_query_weights_md, 0);
}

static array_ref scratch_array(const struct dnnl_product *p)
{
    return dnnl_primitive_desc_query_md(p->matmul_desc, dnnl_query_scratchpad_md, 0);
}

static dnnl_status_t make_all(struct dnnl_product *p)
{
    TRY_DNNL(dnnl_engine_create(&p->engine, dnnl_cpu, 0));
    TRY_DNNL(make_matmul(p));
    TRY_DNNL(dnnl_reorder_primitive_desc_create(&p->pack_desc, array_of(&p->panel_array), p->engine,
                                                packed_array(p), p->engine, NULL));
    return dnnl_primitive_create(&p->pack, p->pack_desc);
}

enum err_code dnnl_product_new(int64_t m, int64_t n, int64_t k, struct dnnl_product **out,
                               struct err *e)
{
    struct dnnl_product *p = xcalloc(1, sizeof *p);
    *p = (struct dnnl_product){.m = m, .n = n, .k = k};
    int threads = keep_to_one_thread();
    dnnl_status_t status = make_all(p);
    leave_one_thread(threads);
    if (status == dnnl_success) {
        *out = p;
        return ERR_OK;
    }
    dnnl_product_free(p);
    return err_set(
        e, status == dnnl_out_of_memory ? ERR_NOMEM : ERR_UNSUPPORTED,
        "oneDNN cannot make a bf16 product of %lld x %lld x %lld (status %d); use compute "
        "fp32",
        (long long)m, (long long)n, (long long)k, (int)status);
}

void dnnl_product_free(struct dnnl_product *p)
{
    if (p == NULL)
        return;
    if (p->pack != NULL)
        (void)dnnl_primitive_destroy(p->pack);
    if (p->matmul != NULL)
        (void)dnnl_primitive_destroy(p->matmul);
    if (p->pack_desc != NULL)
        (void)dnnl_primitive_desc_destroy(p->pack_desc);
    if (p->matmul_desc != NULL)
        (void)dnnl_primitive_desc_destroy(p->matmul_desc);
    array_release(&p->x_array);
    array_release(&p->panel_array);
    array_release(&p->y_array);
    if (p->engine != NULL)
        (void)dnnl_engine_destroy(p->engine);
    xfree(p);
}

bool dnnl_product_is(const struct dnnl_product *p, int64_t m, int64_t n, int64_t k)
{
    return p->m == m && p->n == n && p->k == k;
}

size_t dnnl_product_weight_bytes(const struct dnnl_product *p)
{
    return dnnl_memory_desc_get_size(packed_array(p));
}

size_t dnnl_product_scratch_bytes(const struct dnnl_product *p)
{
    return dnnl_memory_desc_get_size(scratch_array(p));
}

enum { ARGS_MAX = 4 };

struct run_arg {
    int kind;
    array_ref array;
    void *data;
};

/* Shapes and layouts are settled by now: what is left to fail is a small allocation. */
static void run_primitive(const struct dnnl_product *p, const_dnnl_primitive_t primitive,
                          const struct run_arg *a, int n)
{
    dnnl_exec_arg_t args[ARGS_MAX];
    dnnl_stream_t stream;
    int threads = keep_to_one_thread();
    CHECK(dnnl_stream_create(&stream, p->engine, dnnl_stream_default_flags) == dnnl_success);
    for (int i = 0; i < n; i++) {
        args[i].arg = a[i].kind;
        CHECK(dnnl_memory_create(&args[i].memory, a[i].array, p->engine, a[i].data) ==
              dnnl_success);
    }
    CHECK(dnnl_primitive_execute(primitive, stream, n, args) == dnnl_success);
    for (int i = 0; i < n; i++)
        (void)dnnl_memory_destroy(args[i].memory);
    (void)dnnl_stream_destroy(stream);
    leave_one_thread(threads);
}

void dnnl_product_pack(const struct dnnl_product *p, const uint16_t *panel, void *out)
{
    const struct run_arg args[] = {
        {DNNL_ARG_FROM, array_of(&p->panel_array), (void *)(uintptr_t)panel},
        {DNNL_ARG_TO, packed_array(p), out},
    };
    run_primitive(p, p->pack, args, ARRAY_LEN(args));
}

void dnnl_product_run(const struct dnnl_product *p, const uint16_t *x, const void *w, float *y,
                      void *scratch)
{
    const struct run_arg args[ARGS_MAX] = {
        {DNNL_ARG_SRC, array_of(&p->x_array), (void *)(uintptr_t)x},
        {DNNL_ARG_WEIGHTS, packed_array(p), (void *)(uintptr_t)w},
        {DNNL_ARG_DST, array_of(&p->y_array), y},
        {DNNL_ARG_SCRATCHPAD, scratch_array(p), scratch},
    };
    run_primitive(p, p->matmul, args, ARRAY_LEN(args));
}
