/* What a backend is: one table of functions behind kernels.h, and a struct kern that starts its own state.
 * Only backend.c and backends include this. `cpu` is linked in; `cuda` is a module opened with dlopen, which
 * exports its table under KERN_BACKEND_SYMBOL. The version changes with any change of this table, of struct
 * kern or of an argument struct in kernels.h; a module of another version is refused. */
#ifndef ISOBIT_KERNELS_BACKEND_H
#define ISOBIT_KERNELS_BACKEND_H

#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { KERN_BACKEND_VERSION = 7 };
#define KERN_BACKEND_SYMBOL "isobit_kern_backend"

/* Each entry has the contract of the kern_* function of its name. `open` gets the part of the device name
 * behind the colon ("0" of "cuda:0", "" of "cpu") and leaves `ops` and `module` to backend.c. */
struct backend_ops {
    int version; /* KERN_BACKEND_VERSION; stays first in every version */
    const char *name;
    enum err_code (*open)(const char *unit, const struct kern_options *o, struct kern **out,
                          struct err *e);
    void (*close)(struct kern *k);
    enum err_code (*alloc)(struct kern *k, size_t bytes, const char *what, void **out,
                           struct err *e);
    void (*free)(struct kern *k, void *p);
    enum err_code (*upload)(struct kern *k, void *dst, const void *src, size_t bytes,
                            struct err *e);
    enum err_code (*download)(struct kern *k, void *dst, const void *src, size_t bytes,
                              struct err *e);
    enum err_code (*sync)(struct kern *k, struct err *e);
    enum err_code (*host_alloc)(struct kern *k, size_t bytes, const char *what, void **out,
                                struct err *e);
    void (*host_free)(struct kern *k, void *p);
    enum err_code (*copy_mark)(struct kern *k, struct err *e);
    enum err_code (*copy_ahead)(struct kern *k, void *dst, const void *src, size_t bytes,
                                struct err *e);
    enum err_code (*copy_join)(struct kern *k, struct err *e);
    enum err_code (*copy_wait)(struct kern *k, struct err *e);
    enum err_code (*mark)(struct kern *k, int64_t *mark, struct err *e);
    enum err_code (*wait)(struct kern *k, int64_t mark, struct err *e);
    enum err_code (*cast_f16)(struct kern *k, void *dst, const uint16_t *src, int64_t n,
                              struct err *e);
    enum err_code (*cast_f32)(struct kern *k, void *dst, const float *src, int64_t n,
                              struct err *e);
    enum err_code (*embed)(struct kern *k, const struct kern_embed_args *a, struct err *e);
    enum err_code (*layernorm)(struct kern *k, const struct kern_norm_args *a, struct err *e);
    enum err_code (*linear)(struct kern *k, const struct kern_linear_args *a, struct err *e);
    enum err_code (*attention)(struct kern *k, const struct kern_attention_args *a, struct err *e);
    enum err_code (*copy_rows)(struct kern *k, const struct kern_rows_args *a, struct err *e);
    int64_t (*head_bytes)(int64_t V, int64_t R, int64_t n); /* NULL where head_step is 0 */
    enum err_code (*score)(struct kern *k, const struct kern_score_args *a, struct err *e);
    enum err_code (*kl)(struct kern *k, const struct kern_kl_args *a, struct err *e);
    enum err_code (*logits)(struct kern *k, const struct kern_logits_args *a, struct err *e);
    enum err_code (*quantize)(struct kern *k, const struct kern_quant_args *a, struct err *e);
    enum err_code (*quant_check)(struct kern *k, int64_t *call, struct err *e); /* NULL: at once */
    enum err_code (*order_statistics)(struct kern *k, const struct kern_quant_args *a,
                                      const int64_t *rank, int n, float *value, struct err *e);
    enum err_code (*spread)(struct kern *k, const uint16_t *w16, int64_t rows, int64_t cols,
                            bool by_rows, unsigned __int128 *keys, struct err *e);
};

/* First member of every backend's own state. */
struct kern {
    const struct backend_ops *ops;
    void *module; /* dlopen handle, or NULL */
    struct kern_info info;
};

extern const struct backend_ops backend_ops_cpu;

#ifdef __cplusplus
}
#endif

#endif
