/* What distinguishes the model families: how config.json is read into a wiring, and which tensors a checkpoint has.
 * One const struct family_ops per row of schema/family.def, in family_<id>.c; everything else about a forward pass
 * follows from struct wiring. Private to worker/model. Pure. */
#ifndef ISOBIT_WORKER_MODEL_FAMILY_H
#define ISOBIT_WORKER_MODEL_FAMILY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/json.h"
#include "kernels/kernels.h"

enum position_kind { POSITION_LEARNED, POSITION_ROTARY, POSITION_ALIBI };

/* Shapes and switches of one checkpoint (evaluation spec, section 7). */
struct wiring {
    int n_layers, n_heads, head_dim, d, ffn;
    int d_embed; /* width of the token embedding and of what the head sees; d unless has_projection */
    int64_t vocab, context;
    int64_t n_positions; /* rows of the position table */
    enum position_kind position;
    int position_offset; /* row of position 0 (OPT: 2) */
    int rotary_dims;
    float rotary_base;
    float score_scale;             /* of q k^T */
    bool is_score_scaled_by_layer; /* further divided by 1 + layer */
    float eps;
    enum kern_act act;
    bool is_post_norm; /* x = LN(x + f(x)) instead of x += f(LN(x)) */
    bool is_parallel;  /* attention and MLP read the same x */
    bool
        is_residual_normed; /* the residual is the norm's output (BLOOM's post-layernorm variant) */
    bool is_qkv_by_head; /* rows (head, {q, k, v}, channel) instead of ({q, k, v}, head, channel) */
    bool is_tied;        /* the head is the token embedding */
    bool has_attention_bias, has_ffn_bias, has_norm_weights;
    bool has_embed_norm, has_final_norm, has_projection;
};

/* Buffers of weights. Those from ROLE_NORM1_W on exist once per layer. A vector's role follows its matrix. */
enum role {
    ROLE_EMBED,
    ROLE_POSITIONS,
    ROLE_EMBED_NORM_W,
    ROLE_EMBED_NORM_B,
    ROLE_PROJECT_IN,
    ROLE_PROJECT_OUT,
    ROLE_FINAL_NORM_W,
    ROLE_FINAL_NORM_B,
    ROLE_HEAD,
    ROLE_NORM1_W,
    ROLE_NORM1_B,
    ROLE_QKV_W,
    ROLE_QKV_B,
    ROLE_OUT_W,
    ROLE_OUT_B,
    ROLE_NORM2_W,
    ROLE_NORM2_B,
    ROLE_FFN1_W,
    ROLE_FFN1_B,
    ROLE_FFN2_W,
    ROLE_FFN2_B,
    ROLE_COUNT,
};
enum { ROLES_GLOBAL = ROLE_NORM1_W, ROLES_PER_LAYER = ROLE_COUNT - ROLES_GLOBAL };

enum dim { DIM_ONE, DIM_D, DIM_3D, DIM_FFN, DIM_VOCAB, DIM_POSITIONS, DIM_EMBED };

/* When a checkpoint has the tensor. One that is there against its need is an error, except a head that is tied. */
enum need {
    NEED_ALWAYS,
    NEED_NORM,
    NEED_FINAL_NORM,
    NEED_ATTENTION_BIAS,
    NEED_FFN_BIAS,
    NEED_PROJECTION,
    NEED_HEAD,
};

/* One tensor of the files. Several with one role follow each other and lie in one buffer: OPT's q, k and v are
 * three tensors to a quantizer and one matrix [3d, d] to the forward pass. */
struct family_tensor {
    enum role role;
    const char *name;    /* without the prefix; %d is the layer; "a|b": either */
    enum dim rows, cols; /* canonical [out, in]; vectors [n, DIM_ONE] */
    enum need need;
    bool is_transposed; /* stored [in, out] (GPT-2's Conv1D) */
};

struct family_ops {
    const char *prefix; /* "transformer.": every name may come with or without it */
    const struct family_tensor *tensors;
    int n_tensors;
    const char *const *ignored; /* buffers: names, or ends behind a dot; NULL at the end */
    /* `what` names the file in errors. Errors: ERR_FORMAT; ERR_UNSUPPORTED for settings that would change the
     * result and are not implemented. */
    enum err_code (*read_config)(const json_t *config, const char *what, struct wiring *w,
                                 struct err *e);
};

/* Family of config.json's model_type. Errors: ERR_UNSUPPORTED with the known ones. */
MUST_USE enum err_code family_find(const json_t *config, const char *what, const char **label,
                                   const struct family_ops **out, struct err *e);
/* Reads and checks a wiring: head_dim, divisibility, defaults that all families share. */
MUST_USE enum err_code family_wire(const struct family_ops *ops, const json_t *config,
                                   const char *what, struct wiring *w, struct err *e);
bool family_is_needed(const struct wiring *w, enum need need);
int64_t family_dim(const struct wiring *w, enum dim dim);

/* Getters for read_config: an absent or null key, or `o` NULL, takes the default, one of the wrong type is an error. A `key` of
 * the form "a|b" takes the first of the two that is there. */
MUST_USE enum err_code family_int(const json_t *o, const char *key, const char *what, int64_t def,
                                  int *out, struct err *e);
MUST_USE enum err_code family_number(const json_t *o, const char *key, const char *what, double def,
                                     float *out, struct err *e);
MUST_USE enum err_code family_double(const json_t *o, const char *key, const char *what, double def,
                                     double *out, struct err *e);
MUST_USE enum err_code family_bool(const json_t *o, const char *key, const char *what, bool def,
                                   bool *out, struct err *e);
MUST_USE enum err_code family_act(const json_t *o, const char *key, const char *what,
                                  const char *def, enum kern_act *out, struct err *e);
/* ERR_UNSUPPORTED when the switch is on. */
MUST_USE enum err_code family_refuse(const json_t *o, const char *key, const char *what,
                                     struct err *e);
/* A required integer >= 1. */
enum { FAMILY_REQUIRED = -1 };

#endif
