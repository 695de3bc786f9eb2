/* Finds the backend of a device name and hands every operation to its table. A module lies beside the program (as
 * in a build tree) or in ../lib/isobit (as installed). */
#include "kernels/backend.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"

static enum err_code module_missing(const char *backend, const char *why, struct err *e)
{
    return err_set(e, ERR_NOTFOUND,
                   "device '%s': cannot load the module isobit-%s.so (%s); build it with "
                   "-DISOBIT_CUDA=ON on a machine with the toolkit, or use device cpu",
                   backend, backend, why);
}

static enum err_code module_open(const char *backend, void **out, struct err *e)
{
    static const char *const places[] = {"", "/../lib/isobit"};
    char *dir = io_program_dir();
    char why[500] = "no such file beside the program or in ../lib/isobit";
    void *module = NULL;
    for (size_t i = 0; i < ARRAY_LEN(places) && module == NULL; i++) {
        char *path = xasprintf("%s%s/isobit-%s.so", dir, places[i], backend);
        if (io_exists(path)) {
            module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
            if (module == NULL)
                snprintf(why, sizeof why, "%s", dlerror());
        }
        xfree(path);
    }
    xfree(dir);
    *out = module;
    return module != NULL ? ERR_OK : module_missing(backend, why, e);
}

static enum err_code module_table(void *module, const char *backend, const struct backend_ops **out,
                                  struct err *e)
{
    const struct backend_ops *ops = dlsym(module, KERN_BACKEND_SYMBOL);
    if (ops == NULL)
        return module_missing(backend, "it exports no " KERN_BACKEND_SYMBOL, e);
    if (ops->version != KERN_BACKEND_VERSION)
        return err_set(e, ERR_VERSION,
                       "module isobit-%s.so has interface version %d, this program needs %d; build "
                       "both from the same source",
                       backend, ops->version, KERN_BACKEND_VERSION);
    *out = ops;
    return ERR_OK;
}

static enum err_code open_module_device(const char *backend, const char *unit,
                                        const struct kern_options *o, struct kern **out,
                                        struct err *e)
{
    void *module;
    const struct backend_ops *ops = NULL;
    TRY(module_open(backend, &module, e));
    enum err_code code = module_table(module, backend, &ops, e);
    if (code == ERR_OK)
        code = ops->open(unit, o, out, e);
    if (code != ERR_OK) {
        dlclose(module);
        return code;
    }
    (*out)->ops = ops;
    (*out)->module = module;
    return ERR_OK;
}

enum err_code kern_open(const struct kern_options *o, struct kern **out, struct err *e)
{
    const char *colon = strchr(o->device, ':');
    const char *unit = colon != NULL ? colon + 1 : "";
    size_t n = colon != NULL ? (size_t)(colon - o->device) : strlen(o->device);
    if (n == 3 && memcmp(o->device, "cpu", n) == 0) {
        TRY(backend_ops_cpu.open(unit, o, out, e));
        (*out)->ops = &backend_ops_cpu;
        return ERR_OK;
    }
    if (n == 4 && memcmp(o->device, "cuda", n) == 0)
        return open_module_device("cuda", unit, o, out, e);
    return err_set(e, ERR_FORMAT, "device '%s': expected cpu or cuda:N", o->device);
}

void kern_close(struct kern *k)
{
    if (k == NULL)
        return;
    void *module = k->module;
    k->ops->close(k);
    if (module != NULL)
        dlclose(module);
}

const struct kern_info *kern_get_info(const struct kern *k)
{
    return &k->info;
}

void kern_free(struct kern *k, void *p)
{
    k->ops->free(k, p);
}

enum err_code kern_alloc(struct kern *k, size_t bytes, const char *what, void **out, struct err *e)
{
    return k->ops->alloc(k, bytes, what, out, e);
}

enum err_code kern_upload(struct kern *k, void *dst, const void *src, size_t bytes, struct err *e)
{
    return k->ops->upload(k, dst, src, bytes, e);
}

enum err_code kern_download(struct kern *k, void *dst, const void *src, size_t bytes, struct err *e)
{
    return k->ops->download(k, dst, src, bytes, e);
}

enum err_code kern_sync(struct kern *k, struct err *e)
{
    return k->ops->sync(k, e);
}

enum err_code kern_host_alloc(struct kern *k, size_t bytes, const char *what, void **out,
                              struct err *e)
{
    return k->ops->host_alloc(k, bytes, what, out, e);
}

void kern_host_free(struct kern *k, void *p)
{
    k->ops->host_free(k, p);
}

enum err_code kern_copy_mark(struct kern *k, struct err *e)
{
    return k->ops->copy_mark(k, e);
}

enum err_code kern_copy_ahead(struct kern *k, void *dst, const void *src, size_t bytes,
                              struct err *e)
{
    return k->ops->copy_ahead(k, dst, src, bytes, e);
}

enum err_code kern_copy_join(struct kern *k, struct err *e)
{
    return k->ops->copy_join(k, e);
}

enum err_code kern_copy_wait(struct kern *k, struct err *e)
{
    return k->ops->copy_wait(k, e);
}

enum err_code kern_mark(struct kern *k, int64_t *mark, struct err *e)
{
    return k->ops->mark(k, mark, e);
}

enum err_code kern_wait(struct kern *k, int64_t mark, struct err *e)
{
    return k->ops->wait(k, mark, e);
}

enum err_code kern_cast_f16(struct kern *k, void *dst, const uint16_t *src, int64_t n,
                            struct err *e)
{
    return k->ops->cast_f16(k, dst, src, n, e);
}

enum err_code kern_cast_f32(struct kern *k, void *dst, const float *src, int64_t n, struct err *e)
{
    return k->ops->cast_f32(k, dst, src, n, e);
}

enum err_code kern_embed(struct kern *k, const struct kern_embed_args *a, struct err *e)
{
    return k->ops->embed(k, a, e);
}

enum err_code kern_layernorm(struct kern *k, const struct kern_norm_args *a, struct err *e)
{
    return k->ops->layernorm(k, a, e);
}

enum err_code kern_linear(struct kern *k, const struct kern_linear_args *a, struct err *e)
{
    CHECK((a->act != KERN_ACT_NONE) + a->is_residual + (a->rotary != NULL) <= 1);
    return k->ops->linear(k, a, e);
}

enum err_code kern_attention(struct kern *k, const struct kern_attention_args *a, struct err *e)
{
    return k->ops->attention(k, a, e);
}

enum err_code kern_copy_rows(struct kern *k, const struct kern_rows_args *a, struct err *e)
{
    return k->ops->copy_rows(k, a, e);
}

int64_t kern_head_bytes(const struct kern *k, int64_t V, int64_t R, int64_t n)
{
    return k->ops->head_bytes != NULL ? k->ops->head_bytes(V, R, n) : 0;
}

enum err_code kern_score(struct kern *k, const struct kern_score_args *a, struct err *e)
{
    return k->ops->score(k, a, e);
}

enum err_code kern_kl(struct kern *k, const struct kern_kl_args *a, struct err *e)
{
    return k->ops->kl(k, a, e);
}

enum err_code kern_logits(struct kern *k, const struct kern_logits_args *a, struct err *e)
{
    return k->ops->logits(k, a, e);
}

enum err_code kern_quantize(struct kern *k, const struct kern_quant_args *a, struct err *e)
{
    return k->ops->quantize(k, a, e);
}

enum err_code kern_quant_check(struct kern *k, int64_t *call, struct err *e)
{
    return k->ops->quant_check != NULL ? k->ops->quant_check(k, call, e) : ERR_OK;
}

enum err_code kern_order_statistics(struct kern *k, const struct kern_quant_args *a,
                                    const int64_t *rank, int n, float *value, struct err *e)
{
    return k->ops->order_statistics(k, a, rank, n, value, e);
}

enum err_code kern_spread(struct kern *k, const uint16_t *w16, int64_t rows, int64_t cols,
                          bool by_rows, unsigned __int128 *keys, struct err *e)
{
    return k->ops->spread(k, w16, rows, cols, by_rows, keys, e);
}
