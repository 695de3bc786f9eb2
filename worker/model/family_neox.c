/* GPT-NeoX and Pythia: rotary on a part of the head, fused QKV by head, parallel residual with two norms, untied
 * head. */
#include "worker/model/family.h"

#include <string.h>

/* Recent files keep the rotary settings in one object, older ones in flat keys. */
static enum err_code read_rotary(const json_t *c, const char *what, struct wiring *w, struct err *e)
{
    const json_t *rope = json_object_get(c, "rope_parameters");
    if (rope != NULL && !json_is_null(rope) && !json_is_object(rope))
        return err_set(e, ERR_FORMAT, "%s: \"rope_parameters\" must be an object", what);
    const json_t *scaling = json_object_get(c, "rope_scaling");
    if (scaling != NULL && !json_is_null(scaling))
        return err_set(e, ERR_UNSUPPORTED, "%s: \"rope_scaling\" is not supported", what);
    float share;
    TRY(family_number(c, "rotary_pct|partial_rotary_factor", what, 0.25, &share, e));
    TRY(family_number(c, "rotary_emb_base|rope_theta", what, 10000.0, &w->rotary_base, e));
    if (json_is_object(rope)) {
        const char *type = json_opt_str(rope, "rope_type", "default");
        if (strcmp(type, "default") != 0)
            return err_set(e, ERR_UNSUPPORTED, "%s: rope_type \"%s\" is not supported", what, type);
        TRY(family_number(rope, "partial_rotary_factor", what, (double)share, &share, e));
        TRY(family_number(rope, "rope_theta", what, (double)w->rotary_base, &w->rotary_base, e));
    }
    int head_dim = w->d / w->n_heads;
    w->rotary_dims = (int)((float)head_dim * share);
    if (share > 1.0F || w->rotary_dims % 2 != 0)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: rotary on %d of %d dimensions; an even part is needed", what,
                       w->rotary_dims, head_dim);
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

static const char *const ignored[] = {".attention.bias", ".attention.masked_bias",
                                      ".rotary_emb.inv_freq", NULL};

const struct family_ops family_ops_neox = {
    .prefix = "gpt_neox.",
    .tensors = tensors,
    .n_tensors = ARRAY_LEN(tensors),
    .ignored = ignored,
    .read_config = read_config,
};
