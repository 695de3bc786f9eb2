/* GPT-NeoX and Pythia: rotary on a part of the head, fused QKV by head, parallel residual with two norms, untied
 * head. */
#include "worker/model/family.h"

#include <string.h>

static enum err_code check_rope_type(const json_t *rope, const char *name, const char *what,
                                     struct err *e)
{
    const char *key = json_object_get(rope, "rope_type") != NULL ? "rope_type" : "type";
    const json_t *type = json_object_get(rope, key);
    if (type == NULL)
        return ERR_OK;
    if (!json_is_string(type))
        return err_set(e, ERR_FORMAT, "%s: %s: \"%s\" must be a string", what, name, key);
    if (strcmp(json_string_value(type), "default") != 0)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: %s: %s \"%s\" is not supported, only \"default\" is", what, name, key,
                       json_string_value(type));
    return ERR_OK;
}

/* Recent files keep the rotary settings in rope_parameters; in rope_scaling, its older name, they count first. NULL: in
 * neither. */
static enum err_code find_rope(const json_t *c, const char *what, const json_t **out, struct err *e)
{
    static const char *const names[] = {"rope_scaling", "rope_parameters"};
    *out = NULL;
    for (size_t i = 0; i < ARRAY_LEN(names) && *out == NULL; i++) {
        const json_t *rope = json_object_get(c, names[i]);
        if (rope != NULL && !json_is_null(rope) && !json_is_object(rope))
            return err_set(e, ERR_FORMAT, "%s: \"%s\" must be an object", what, names[i]);
        if (json_object_size(rope) > 0) {
            TRY(check_rope_type(rope, names[i], what, e));
            *out = rope;
        }
    }
    return ERR_OK;
}

/* Versions of transformers disagree on whether this flat key counts: it may say what is in force, nothing else. */
static enum err_code check_flat(const json_t *c, const char *key, const char *what, double in_force,
                                struct err *e)
{
    double flat;
    TRY(family_double(c, key, what, in_force, &flat, e));
    if (flat != in_force)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: \"%s\" is %g, but %g is in force: this architecture takes it from "
                       "rope_parameters, rotary_pct and rotary_emb_base; make them agree",
                       what, key, flat, in_force);
    return ERR_OK;
}

static enum err_code read_rotary(const json_t *c, const char *what, struct wiring *w, struct err *e)
{
    const json_t *rope;
    double share, base;
    TRY(find_rope(c, what, &rope, e));
    TRY(family_double(c, "rotary_pct", what, 0.25, &share, e));
    TRY(family_double(c, "rotary_emb_base", what, 10000.0, &base, e));
    TRY(family_double(rope, "partial_rotary_factor", what, share, &share, e));
    TRY(family_double(rope, "rope_theta", what, base, &base, e));
    TRY(check_flat(c, "partial_rotary_factor", what, share, e));
    TRY(check_flat(c, "rope_theta", what, base, e));
    const int head_dim = w->d / w->n_heads;
    if (share > 1.0)
        return err_set(e, ERR_UNSUPPORTED, "%s: rotary on %g of a head, expected at most 1", what,
                       share);
    w->rotary_dims = (int)((double)head_dim * share); /* in double, as Python cuts it off */
    if (w->rotary_dims % 2 != 0)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: rotary on %d of %d dimensions; an even part is needed", what,
                       w->rotary_dims, head_dim);
    w->rotary_base = (float)base;
    return ERR_OK;
}

static enum err_code read_config(const json_t *c, const char *what, struct wiring *w, struct err *e)
{
    int vocab, context;
    TRY(family_int(c, "hidden_size", what, FAMILY_REQUIRED, &w->d, e));
    TRY(family_int(c, "num_hidden_layers", what, FAMILY_REQUIRED, &w->n_layers, e));
    TRY(family_int(c, "num_attention_heads", what, FAMILY_REQUIRED, &w->n_heads, e));
    TRY(family_int(c, "intermediate_size", what, FAMILY_REQUIRED, &w->ffn, e));
    TRY(family_int(c, "vocab_size", what, FAMILY_REQUIRED, &vocab, e));
    TRY(family_int(c, "max_position_embeddings", what, 2048, &context, e));
    TRY(family_number(c, "layer_norm_eps", what, 1e-5, &w->eps, e));
    TRY(family_act(c, "hidden_act", what, "gelu", &w->act, e));
    TRY(family_bool(c, "tie_word_embeddings", what, false, &w->is_tied, e));
    TRY(family_bool(c, "use_parallel_residual", what, true, &w->is_parallel, e));
    TRY(family_bool(c, "attention_bias", what, true, &w->has_attention_bias, e));
    TRY(read_rotary(c, what, w, e));
    w->vocab = vocab;
    w->context = context;
    w->position = POSITION_ROTARY;
    w->is_qkv_by_head = true;
    return ERR_OK;
}

static const struct family_tensor tensors[] = {
    {ROLE_EMBED, "embed_in.weight", DIM_VOCAB, DIM_D, NEED_ALWAYS, false},
    {ROLE_FINAL_NORM_W, "final_layer_norm.weight", DIM_D, DIM_ONE, NEED_FINAL_NORM, false},
    {ROLE_FINAL_NORM_B, "final_layer_norm.bias", DIM_D, DIM_ONE, NEED_FINAL_NORM, false},
    {ROLE_HEAD, "embed_out.weight|lm_head.weight", DIM_VOCAB, DIM_D, NEED_HEAD, false},
    {ROLE_NORM1_W, "layers.%d.input_layernorm.weight", DIM_D, DIM_ONE, NEED_NORM, false},
    {ROLE_NORM1_B, "layers.%d.input_layernorm.bias", DIM_D, DIM_ONE, NEED_NORM, false},
    {ROLE_QKV_W, "layers.%d.attention.query_key_value.weight", DIM_3D, DIM_D, NEED_ALWAYS, false},
    {ROLE_QKV_B, "layers.%d.attention.query_key_value.bias", DIM_3D, DIM_ONE, NEED_ATTENTION_BIAS,
     false},
    {ROLE_OUT_W, "layers.%d.attention.dense.weight", DIM_D, DIM_D, NEED_ALWAYS, false},
    {ROLE_OUT_B, "layers.%d.attention.dense.bias", DIM_D, DIM_ONE, NEED_ATTENTION_BIAS, false},
    {ROLE_NORM2_W, "layers.%d.post_attention_layernorm.weight", DIM_D, DIM_ONE, NEED_NORM, false},
    {ROLE_NORM2_B, "layers.%d.post_attention_layernorm.bias", DIM_D, DIM_ONE, NEED_NORM, false},
    {ROLE_FFN1_W, "layers.%d.mlp.dense_h_to_4h.weight", DIM_FFN, DIM_D, NEED_ALWAYS, false},
    {ROLE_FFN1_B, "layers.%d.mlp.dense_h_to_4h.bias", DIM_FFN, DIM_ONE, NEED_FFN_BIAS, false},
    {ROLE_FFN2_W, "layers.%d.mlp.dense_4h_to_h.weight", DIM_D, DIM_FFN, NEED_ALWAYS, false},
    {ROLE_FFN2_B, "layers.%d.mlp.dense_4h_to_h.bias", DIM_D, DIM_ONE, NEED_FFN_BIAS, false},
};

static const char *const ignored[] = {"attention.bias",
                                      "attention.masked_bias",
                                      "attention.norm_factor",
                                      "rotary_emb.inv_freq",
                                      "rotary_emb.cos_cached",
                                      "rotary_emb.sin_cached",
                                      NULL};

const struct family_ops family_ops_neox = {
    .prefix = "gpt_neox.",
    .tensors = tensors,
    .n_tensors = ARRAY_LEN(tensors),
    .ignored = ignored,
    .read_config = read_config,
};
