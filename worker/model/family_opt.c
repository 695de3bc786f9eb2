/* OPT: learned positions with an offset of 2, separate q, k and v, tied head. The 350m form is post-norm, has
 * narrower embeddings with projections around the layers and no final norm. */
#include "worker/model/family.h"

static enum err_code read_config(const json_t *c, const char *what, struct wiring *w, struct err *e)
{
    int vocab, context;
    bool is_pre_norm, has_bias, is_norm_removed;
    TRY(family_int(c, "hidden_size", what, FAMILY_REQUIRED, &w->d, e));
    TRY(family_int(c, "num_hidden_layers", what, FAMILY_REQUIRED, &w->n_layers, e));
    TRY(family_int(c, "num_attention_heads", what, FAMILY_REQUIRED, &w->n_heads, e));
    TRY(family_int(c, "ffn_dim", what, FAMILY_REQUIRED, &w->ffn, e));
    TRY(family_int(c, "vocab_size", what, FAMILY_REQUIRED, &vocab, e));
    TRY(family_int(c, "max_position_embeddings", what, 2048, &context, e));
    TRY(family_int(c, "word_embed_proj_dim", what, w->d, &w->d_embed, e));
    TRY(family_act(c, "activation_function", what, "relu", &w->act, e));
    TRY(family_bool(c, "tie_word_embeddings", what, true, &w->is_tied, e));
    TRY(family_bool(c, "do_layer_norm_before", what, true, &is_pre_norm, e));
    TRY(family_bool(c, "enable_bias", what, true, &has_bias, e));
    TRY(family_bool(c, "layer_norm_elementwise_affine", what, true, &w->has_norm_weights, e));
    TRY(family_bool(c, "_remove_final_layer_norm", what, false, &is_norm_removed, e));
    w->vocab = vocab;
    w->context = context;
    w->position = POSITION_LEARNED;
    w->position_offset = 2;
    w->n_positions = w->context + w->position_offset;
    w->eps = 1e-5F; /* no key: fixed in the family */
    w->is_post_norm = !is_pre_norm;
    w->has_final_norm = is_pre_norm && !is_norm_removed;
    w->has_attention_bias = w->has_ffn_bias = has_bias;
    return ERR_OK;
}

static const struct family_tensor tensors[] = {
    {ROLE_EMBED, "decoder.embed_tokens.weight", DIM_VOCAB, DIM_EMBED, NEED_ALWAYS, false},
    {ROLE_POSITIONS, "decoder.embed_positions.weight", DIM_POSITIONS, DIM_D, NEED_ALWAYS, false},
    {ROLE_PROJECT_IN, "decoder.project_in.weight", DIM_D, DIM_EMBED, NEED_PROJECTION, false},
    {ROLE_PROJECT_OUT, "decoder.project_out.weight", DIM_EMBED, DIM_D, NEED_PROJECTION, false},
    {ROLE_FINAL_NORM_W, "decoder.final_layer_norm.weight", DIM_D, DIM_ONE, NEED_FINAL_NORM, false},
    {ROLE_FINAL_NORM_B, "decoder.final_layer_norm.bias", DIM_D, DIM_ONE, NEED_FINAL_NORM, false},
    {ROLE_HEAD, "lm_head.weight", DIM_VOCAB, DIM_EMBED, NEED_HEAD, false},
    {ROLE_NORM1_W, "decoder.layers.%d.self_attn_layer_norm.weight", DIM_D, DIM_ONE, NEED_NORM,
     false},
    {ROLE_NORM1_B, "decoder.layers.%d.self_attn_layer_norm.bias", DIM_D, DIM_ONE, NEED_NORM, false},
    {ROLE_QKV_W, "decoder.layers.%d.self_attn.q_proj.weight", DIM_D, DIM_D, NEED_ALWAYS, false},
    {ROLE_QKV_W, "decoder.layers.%d.self_attn.k_proj.weight", DIM_D, DIM_D, NEED_ALWAYS, false},
    {ROLE_QKV_W, "decoder.layers.%d.self_attn.v_proj.weight", DIM_D, DIM_D, NEED_ALWAYS, false},
    {ROLE_QKV_B, "decoder.layers.%d.self_attn.q_proj.bias", DIM_D, DIM_ONE, NEED_ATTENTION_BIAS,
     false},
    {ROLE_QKV_B, "decoder.layers.%d.self_attn.k_proj.bias", DIM_D, DIM_ONE, NEED_ATTENTION_BIAS,
     false},
    {ROLE_QKV_B, "decoder.layers.%d.self_attn.v_proj.bias", DIM_D, DIM_ONE, NEED_ATTENTION_BIAS,
     false},
    {ROLE_OUT_W, "decoder.layers.%d.self_attn.out_proj.weight", DIM_D, DIM_D, NEED_ALWAYS, false},
    {ROLE_OUT_B, "decoder.layers.%d.self_attn.out_proj.bias", DIM_D, DIM_ONE, NEED_ATTENTION_BIAS,
     false},
    {ROLE_NORM2_W, "decoder.layers.%d.final_layer_norm.weight", DIM_D, DIM_ONE, NEED_NORM, false},
    {ROLE_NORM2_B, "decoder.layers.%d.final_layer_norm.bias", DIM_D, DIM_ONE, NEED_NORM, false},
    {ROLE_FFN1_W, "decoder.layers.%d.fc1.weight", DIM_FFN, DIM_D, NEED_ALWAYS, false},
    {ROLE_FFN1_B, "decoder.layers.%d.fc1.bias", DIM_FFN, DIM_ONE, NEED_FFN_BIAS, false},
    {ROLE_FFN2_W, "decoder.layers.%d.fc2.weight", DIM_D, DIM_FFN, NEED_ALWAYS, false},
    {ROLE_FFN2_B, "decoder.layers.%d.fc2.bias", DIM_D, DIM_ONE, NEED_FFN_BIAS, false},
};

static const char *const ignored[] = {"decoder.version", NULL};

const struct family_ops family_ops_opt = {
    .prefix = "model.",
    .tensors = tensors,
    .n_tensors = ARRAY_LEN(tensors),
    .ignored = ignored,
    .read_config = read_config,
};
