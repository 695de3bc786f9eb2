/* GPT-2: learned positions, pre-norm, Conv1D matrices stored [in, out], tanh GELU, tied head. */
#include "worker/model/family.h"

/* Where both names are there, the common one wins, as in transformers. */
static enum err_code read_config(const json_t *c, const char *what, struct wiring *w, struct err *e)
{
    int vocab, context;
    bool is_scaled;
    TRY(family_int(c, "hidden_size|n_embd", what, FAMILY_REQUIRED, &w->d, e));
    TRY(family_int(c, "num_hidden_layers|n_layer", what, FAMILY_REQUIRED, &w->n_layers, e));
    TRY(family_int(c, "num_attention_heads|n_head", what, FAMILY_REQUIRED, &w->n_heads, e));
    TRY(family_int(c, "vocab_size", what, FAMILY_REQUIRED, &vocab, e));
    TRY(family_int(c, "max_position_embeddings|n_positions|n_ctx", what, 1024, &context, e));
    TRY(family_int(c, "n_inner", what, (int64_t)4 * w->d, &w->ffn, e));
    TRY(family_number(c, "layer_norm_epsilon", what, 1e-5, &w->eps, e));
    TRY(family_act(c, "activation_function", what, "gelu_new", &w->act, e));
    TRY(family_bool(c, "tie_word_embeddings", what, true, &w->is_tied, e));
    TRY(family_bool(c, "scale_attn_weights", what, true, &is_scaled, e));
    TRY(family_bool(c, "scale_attn_by_inverse_layer_idx", what, false, &w->is_score_scaled_by_layer,
                    e));
    TRY(family_refuse(c, "add_cross_attention", what, e));
    w->vocab = vocab;
    w->context = w->n_positions = context;
    w->position = POSITION_LEARNED;
    w->score_scale = is_scaled ? 0.0F : 1.0F;
    return ERR_OK;
}

static const struct family_tensor tensors[] = {
    {ROLE_EMBED, "wte.weight", DIM_VOCAB, DIM_D, NEED_ALWAYS, false},
    {ROLE_POSITIONS, "wpe.weight", DIM_POSITIONS, DIM_D, NEED_ALWAYS, false},
    {ROLE_FINAL_NORM_W, "ln_f.weight", DIM_D, DIM_ONE, NEED_FINAL_NORM, false},
    {ROLE_FINAL_NORM_B, "ln_f.bias", DIM_D, DIM_ONE, NEED_FINAL_NORM, false},
    {ROLE_HEAD, "lm_head.weight", DIM_VOCAB, DIM_D, NEED_HEAD, false},
    {ROLE_NORM1_W, "h.%d.ln_1.weight", DIM_D, DIM_ONE, NEED_NORM, false},
    {ROLE_NORM1_B, "h.%d.ln_1.bias", DIM_D, DIM_ONE, NEED_NORM, false},
    {ROLE_QKV_W, "h.%d.attn.c_attn.weight", DIM_3D, DIM_D, NEED_ALWAYS, true},
    {ROLE_QKV_B, "h.%d.attn.c_attn.bias", DIM_3D, DIM_ONE, NEED_ATTENTION_BIAS, false},
    {ROLE_OUT_W, "h.%d.attn.c_proj.weight", DIM_D, DIM_D, NEED_ALWAYS, true},
    {ROLE_OUT_B, "h.%d.attn.c_proj.bias", DIM_D, DIM_ONE, NEED_ATTENTION_BIAS, false},
    {ROLE_NORM2_W, "h.%d.ln_2.weight", DIM_D, DIM_ONE, NEED_NORM, false},
    {ROLE_NORM2_B, "h.%d.ln_2.bias", DIM_D, DIM_ONE, NEED_NORM, false},
    {ROLE_FFN1_W, "h.%d.mlp.c_fc.weight", DIM_FFN, DIM_D, NEED_ALWAYS, true},
    {ROLE_FFN1_B, "h.%d.mlp.c_fc.bias", DIM_FFN, DIM_ONE, NEED_FFN_BIAS, false},
    {ROLE_FFN2_W, "h.%d.mlp.c_proj.weight", DIM_D, DIM_FFN, NEED_ALWAYS, true},
    {ROLE_FFN2_B, "h.%d.mlp.c_proj.bias", DIM_D, DIM_ONE, NEED_FFN_BIAS, false},
};

static const char *const ignored[] = {"attn.bias", "attn.masked_bias", NULL};

const struct family_ops family_ops_gpt2 = {
    .prefix = "transformer.",
    .tensors = tensors,
    .n_tensors = ARRAY_LEN(tensors),
    .ignored = ignored,
    .read_config = read_config,
};
