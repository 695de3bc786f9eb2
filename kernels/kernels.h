/* Operations on device memory: the only header of kernels/ that others see. Arrays in, arrays out; nothing
 * here knows of jobs or files. A backend is a table of functions (backend.c); `cpu` is the reference:
 * simple, exact, never fast-math. Device pointers are `void *` that only kern_* functions may follow; on
 * the cpu they are ordinary memory. Element types: activations and compute weights have the backend's
 * type for the compute precision (cpu: float, also for bf16), `act_bytes` each. All calls are asynchronous on the
 * kern's own stream and ordered. Calls that wait for it: kern_download, kern_sync, kern_logits, kern_spread,
 * kern_order_statistics, and kern_quantize unless it is checked later. Answers to host memory (kern_score, kern_kl) are there
 * once a mark behind the call was waited for. Thread: one thread per kern.
 * Every call that can fail returns enum err_code. Shapes are row-major, written [rows, cols]. */
#ifndef ISOBIT_KERNELS_H
#define ISOBIT_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#ifdef __cplusplus
extern "C" {
#endif

struct kern;

enum kern_compute { KERN_FP32, KERN_FP16, KERN_BF16 };
enum kern_act { KERN_ACT_NONE, KERN_ACT_RELU, KERN_ACT_GELU_ERF, KERN_ACT_GELU_TANH };

struct kern_options {
    const char *device;        /* "cpu", "cuda:0" */
    enum kern_compute compute; /* cpu: KERN_FP32, KERN_BF16 */
    int threads;               /* cpu; 0: one per core of the process's affinity mask */
};

struct kern_info {
    char device[128]; /* "cpu: AMD EPYC x2 avx512 oneDNN 2.6.3" */
    char pci[16];     /* where a GPU is plugged in, "0000:3b:00.0"; "" for the cpu */
    char note[96];    /* what to know before choosing this compute type here; "" */
    int act_bytes;    /* bytes of an activation or compute-weight element */
    int64_t memory_bytes;
    int threads;
    int64_t batch_tokens;     /* a batch of more gains nothing */
    int64_t activation_bytes; /* nor does one whose activations of a layer take more */
    int64_t row_step;         /* products like multiples of this many rows; 1: any */
    bool is_host;             /* device memory is ordinary memory: other threads may write it */
    int64_t head_step; /* a head may come in parts of multiples of this many rows; 0: whole only */
};

MUST_USE enum err_code kern_open(const struct kern_options *o, struct kern **out, struct err *e);
void kern_close(struct kern *k);
const struct kern_info *kern_get_info(const struct kern *k);

/* Device memory, 64-byte aligned, zeroed. Errors: ERR_NOMEM names `what`. Free takes NULL. */
MUST_USE enum err_code kern_alloc(struct kern *k, size_t bytes, const char *what, void **out,
                                  struct err *e);
void kern_free(struct kern *k, void *p);
/* `src` may be reused on return, but for memory of kern_host_alloc: that is read until a mark behind the call was waited for. */
MUST_USE enum err_code kern_upload(struct kern *k, void *dst, const void *src, size_t bytes,
                                   struct err *e);
MUST_USE enum err_code kern_download(struct kern *k, void *dst, const void *src, size_t bytes,
                                     struct err *e);
MUST_USE enum err_code kern_sync(struct kern *k, struct err *e);

/* Copies to the device beside the work on it. Their sources are from kern_host_alloc (pinned where that matters; any
 * thread may fill them). kern_copy_mark: copies queued from now on wait for the work queued so far, and for nothing
 * later. kern_copy_join: work queued from now on waits for the copies queued so far. kern_copy_wait: returns when
 * they are done and their sources may be used again. */
MUST_USE enum err_code kern_host_alloc(struct kern *k, size_t bytes, const char *what, void **out,
                                       struct err *e);
void kern_host_free(struct kern *k, void *p);
MUST_USE enum err_code kern_copy_mark(struct kern *k, struct err *e);
MUST_USE enum err_code kern_copy_ahead(struct kern *k, void *dst, const void *src, size_t bytes,
                                       struct err *e);
MUST_USE enum err_code kern_copy_join(struct kern *k, struct err *e);
MUST_USE enum err_code kern_copy_wait(struct kern *k, struct err *e);
/* *mark stands behind everything called so far; kern_wait returns once that is done and its answers are in the caller's
 * memory, while later calls go on. Marks are waited for in their order; at most KERN_MARKS are open. */
enum { KERN_MARKS = 4 };
MUST_USE enum err_code kern_mark(struct kern *k, int64_t *mark, struct err *e);
MUST_USE enum err_code kern_wait(struct kern *k, int64_t mark, struct err *e);

/* dst[n] (compute type) = src[n]: fp16 bits or fp32 on the device. */
MUST_USE enum err_code kern_cast_f16(struct kern *k, void *dst, const uint16_t *src, int64_t n,
                                     struct err *e);
MUST_USE enum err_code kern_cast_f32(struct kern *k, void *dst, const float *src, int64_t n,
                                     struct err *e);

/* out[T, d] = table[ids[t], :] (+ pos_table[pos[t], :] when not NULL). ids, pos on the host. */
struct kern_embed_args {
    void *out;
    const void *table, *pos_table;
    const int32_t *ids, *pos;
    int64_t T, d;
};
MUST_USE enum err_code kern_embed(struct kern *k, const struct kern_embed_args *a, struct err *e);

/* Where a normalized row goes, times w[d], plus b[d]; w and b may be NULL. */
struct kern_norm_out {
    void *y;
    const void *w, *b;
};

/* y[T, d] = LayerNorm(x[T, d]) * w[d] + b[d], and the same for `also`; population variance, eps inside the root; y may be x
 * where `also` has none. With `rows` (host, n_rows entries) only these rows of x are read, y is [n_rows, d]. */
struct kern_norm_args {
    const void *x;
    struct kern_norm_out out, also; /* also.y may be NULL */
    float eps;
    int64_t T, d;
    const int32_t *rows; /* NULL: all T rows; else y is not x */
    int64_t n_rows;
};
MUST_USE enum err_code kern_layernorm(struct kern *k, const struct kern_norm_args *a,
                                      struct err *e);

/* Sequences packed along T. A sequence sees itself causally and, before it, all of its parent's tokens
 * (a shared prefix; parents come earlier in the list and have no parent themselves). */
struct kern_seq {
    int32_t start, len; /* rows in T */
    int32_t parent;     /* index, or -1 */
    int32_t pos0;       /* position of the first token: the parent's length, or 0 */
};

/* Rotary embedding (RoFormer, arXiv:2104.09864, section 3.2; the rotate-half form): of the first `dims` elements of every
 * head's q and k, pairs (i, i + dims / 2) turn by the row's position times theta_i = base^(-2i/dims). Head h's q starts at
 * column q_at + h * head_stride of a row, its k at k_at + h * head_stride. Rows of no sequence have position 0. */
struct kern_rotary {
    int dims; /* even, above 0 */
    float base;
    int heads;
    int64_t q_at, k_at, head_stride;
    const struct kern_seq *seqs; /* host */
    int n_seqs;
};

/* y[T, N] = act(x[T, K] * W[N, K]^T + bias[N]) (+ y when `is_residual`). y may not alias x. With `rotary` the rows of y are
 * rotated, in fp32, before or after they are rounded to the compute type. At most one of act, is_residual and rotary. */
struct kern_linear_args {
    void *y;
    const void *x, *w, *bias; /* bias may be NULL */
    int64_t T, N, K;
    enum kern_act act;
    bool is_residual;
    const struct kern_rotary *rotary; /* or NULL */
};
MUST_USE enum err_code kern_linear(struct kern *k, const struct kern_linear_args *a, struct err *e);

/* q, k, v live in one buffer [T, row]: head h's q starts at q_at + h * head_stride, and so on; scores are
 * scale * qk^T + slope[h] * j with j the absolute key position when slopes is not NULL.
 * out[T, heads * head_dim], head-major. seqs on the host. */
struct kern_attention_args {
    void *out;
    const void *qkv;
    int64_t row, q_at, k_at, v_at, head_stride;
    int heads, head_dim;
    float scale;
    const float *alibi_slopes; /* host, [heads], or NULL */
    const struct kern_seq *seqs;
    int n_seqs;
    int64_t T;
};
MUST_USE enum err_code kern_attention(struct kern *k, const struct kern_attention_args *a,
                                      struct err *e);

/* y[y_rows[i], :] = x[x_rows[i], :] for i < n; rows of d elements; the row lists are on the host, NULL: i. */
struct kern_rows_args {
    void *y;
    const void *x;
    const int32_t *y_rows, *x_rows;
    int64_t n, d;
};
MUST_USE enum err_code kern_copy_rows(struct kern *k, const struct kern_rows_args *a,
                                      struct err *e);

/* A head that comes in parts of the vocabulary, one call after the other from its front to its end: rows [first, first + n)
 * of its V stand at `head` now; first is a multiple of kern_info.head_step. The other arguments stay what they are, but
 * their arrays may lie elsewhere. `state` is what is known so far: device memory of kern_head_bytes for R rows with n
 * targets in all (kern_kl: 0), in proportion to both, 8-byte aligned, zeroed in front of the first part. Answers come behind
 * the last part, nothing is written to the host before; they are those of the whole head to the bit. */
struct kern_head_part {
    int64_t first, n;
    void *state;
};
int64_t kern_head_bytes(const struct kern *k, int64_t V, int64_t R, int64_t n);

/* For every target i: log_softmax(x[row[i], :] * head[V, d]^T)[token[i]] and whether token[i] is the arg max
 * (ties: smallest id). Works in vocabulary tiles with a running log-sum-exp: [rows, V] never exists.
 * x [R, d]; row, token, logprob, is_top on the host, n entries; row ascending. logprob and is_top are answers: they stay
 * the call's until a mark behind it was waited for, or kern_sync. */
struct kern_score_args {
    const void *x, *head;
    int64_t R, d, V;
    const int32_t *row, *token;
    int64_t n;
    float *logprob;
    uint8_t *is_top;
    const struct kern_head_part *part; /* NULL: the whole head */
};
MUST_USE enum err_code kern_score(struct kern *k, const struct kern_score_args *a, struct err *e);

/* KL(softmax(ref[i] * head^T) || softmax(x[i] * head^T)) in nats and whether both have the same arg max, for R
 * rows; x, ref [R, d]; kl, same_top on the host, answers as those of kern_score. */
struct kern_kl_args {
    const void *x, *ref, *head;
    int64_t R, d, V;
    double *kl;
    uint8_t *same_top;
    const struct kern_head_part *part; /* NULL: the whole head */
};
MUST_USE enum err_code kern_kl(struct kern *k, const struct kern_kl_args *a, struct err *e);

/* logits[R, V] (host) = x[R, d] * head[V, d]^T. For `logits` and tests only. */
struct kern_logits_args {
    const void *x, *head;
    int64_t R, d, V;
    float *logits;
};
MUST_USE enum err_code kern_logits(struct kern *k, const struct kern_logits_args *a, struct err *e);

/* Blockwise quantize-dequantize of one tensor, quantization spec sections 1, 3, 4, 6. w16[n] fp16 bits in
 * canonical [rows, cols] order, n = rows * cols. */
enum kern_center { KERN_CENTER_NONE, KERN_CENTER_TENSOR, KERN_CENTER_BLOCK };
struct kern_quant_args {
    const uint16_t *w16; /* device */
    int64_t rows, cols;
    int64_t block;     /* 0: whole tensor */
    const float *book; /* host, ascending in [-1, 1] */
    int n_book;        /* 1..256 */
    enum kern_center center;
    const int32_t *keep; /* host, ascending input columns that stay 16 bit, or NULL */
    int32_t n_keep;
    bool is_dequant_fp32; /* skip the final rounding to fp16 */
    void *out;            /* device, compute type, [rows, cols], or NULL */
    uint8_t *codes;   /* device, one index a byte, or NULL; 255-safe: kept columns have code 0 */
    uint16_t *absmax; /* device, fp16 bits, ceil(n / block), or NULL */
    bool is_checked_later;
};
MUST_USE enum err_code kern_quantize(struct kern *k, const struct kern_quant_args *a,
                                     struct err *e);

/* Weights that cannot be quantized are an error of kern_quantize, which waits for that; or, of calls with is_checked_later,
 * of kern_quant_check, which waits for all of them at once: *call is the first that failed, counted from the last check.
 * Their w16 stays as it is until then. At most KERN_QUANT_CALLS between two checks. Backends that do not queue report at
 * once all the same. */
enum { KERN_QUANT_CALLS = 1024 };
MUST_USE enum err_code kern_quant_check(struct kern *k, int64_t *call, struct err *e);

/* value[n] (host) = order statistics of what kern_quantize would put into blocks: without the kept columns, after centering.
 * rank[n] (host) ascends within the rows * (cols - n_keep) weights, 0 being the smallest; equal ranks are possible, and n = 0.
 * Both zeros are +0. Only rows, cols, block, center, keep, w16 of `a` are read. Waits. Errors: ERR_FORMAT; ERR_NUMERIC says
 * how many weights are not finite. */
enum { KERN_RANKS = 256 }; /* the largest n */
MUST_USE enum err_code kern_order_statistics(struct kern *k, const struct kern_quant_args *a,
                                             const int64_t *rank, int n, float *value,
                                             struct err *e);

/* Exact rank keys of spec section 6: key[i] = n * sum x^2 - (sum x)^2 over row i (by_rows) or column i, in
 * units of 2^-48, as 128-bit integers. w16 [rows, cols] on the device; keys on the host. */
MUST_USE enum err_code kern_spread(struct kern *k, const uint16_t *w16, int64_t rows, int64_t cols,
                                   bool by_rows, unsigned __int128 *keys, struct err *e);

#ifdef __cplusplus
}
#endif

#endif
