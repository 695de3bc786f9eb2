/* BLOOM and BLOOMZ: ALiBi, a norm behind the embedding, fused QKV by head, tanh GELU, tied head. */
#include "worker/model/family.h"

/* Over slices of the hidden units, transformers leaves out the biases of both products that end in the residual stream. */
static enum err_code refuse_slices(const json_t *c, const char *what, struct err *e)
{
    bool is_slow;
    int n_slices;
    TRY(family_bool(c, "slow_but_exact", what, false, &is_slow, e));
    TRY(family_int(c, "pretraining_tp", what, 1, &n_slices, e));
    if (is_slow && n_slices > 1)
        return err_set(
            e, ERR_UNSUPPORTED,
            "%s: \"slow_but_exact\": true with \"pretraining_tp\": %d is not supported "
            "(transformers then leaves out biases); set it to false for the usual result",
            what, n_slices);
    return ERR_OK;
}

/* Where both names are there, the one wins that does in transformers. */
static enum err_code read_config(const json_t *c, const char *what, struct wiring *w, struct err *e)
{
    int vocab, context;
    TRY(family_int(c, "n_embed|hidden_size", what, FAMILY_REQUIRED, &w->d, e));
    TRY(family_int(c, "num_hidden_layers|n_layer", what, FAMILY_REQUIRED, &w->n_layers, e));
    TRY(family_int(c, "num_attention_heads|n_head", what, FAMILY_REQUIRED, &w->n_heads, e));
    TRY(family_int(c, "vocab_size", what, FAMILY_REQUIRED, &vocab, e));
    /* ALiBi sets no limit; BLOOM's own files name the length of training. */
    TRY(family_int(c, "seq_length", what, 2048, &context, e));
    TRY(refuse_slices(c, what, e));
    TRY(family_number(c, "layer_norm_epsilon", what, 1e-5, &w->eps, e));
    TRY(family_bool(c, "tie_word_embeddings", what, true, &w->is_tied, e));
    TRY(family_bool(c, "apply_residual_connection_post_layernorm", what, false,
                    &w->is_residual_normed, e));
    w->vocab = vocab;
    w->context = context;
    w->ffn = 4 * w->d;
    w->act = KERN_ACT_GELU_TANH;
    w->position = POSITION_ALIBI;
    w->is_qkv_by_head = true;
    w->has_embed_norm = true;
    return ERR_OK;
}

static const struct family_tensor tensors[] = {
    {ROLE_EMBED, "word_embeddings.weight", DIM_VOCAB, DIM_D, NEED_ALWAYS, false},
    {ROLE_EMBED_NORM_W, "word_embeddings_layernorm.weight", DIM_D, DIM_ONE, NEED_NORM, false},
    {ROLE_EMBED_NORM_B, "word_embeddings_layernorm.bias", DIM_D, DIM_ONE, NEED_NORM, false},
    {ROLE_FINAL_NORM_W, "ln_f.weight", DIM_D, DIM_ONE, NEED_FINAL_NORM, false},
    {ROLE_FINAL_NORM_B, "ln_f.bias", DIM_D, DIM_ONE, NEED_FINAL_NORM, false},
    {ROLE_HEAD, "lm_head.weight", DIM_VOCAB, DIM_D, NEED_HEAD, false},
    {ROLE_NORM1_W, "h.%d.input_layernorm.weight", DIM_D, DIM_ONE, NEED_NORM, false},
    {ROLE_NORM1_B, "h.%d.input_layernorm.bias", DIM_D, DIM_ONE, NEED_NORM, false},
    {ROLE_QKV_W, "h.%d.self_attention.query_key_value.weight", DIM_3D, DIM_D, NEED_ALWAYS, false},
    {ROLE_QKV_B, "h.%d.self_attention.query_key_value.bias", DIM_3D, DIM_ONE, NEED_ATTENTION_BIAS,
     false},
    {ROLE_OUT_W, "h.%d.self_attention.dense.weight", DIM_D, DIM_D, NEED_ALWAYS, false},
    {ROLE_OUT_B, "h.%d.self_attention.dense.bias", DIM_D, DIM_ONE, NEED_ATTENTION_BIAS, false},
    {ROLE_NORM2_W, "h.%d.post_attention_layernorm.weight", DIM_D, DIM_ONE, NEED_NORM, false},
    {ROLE_NORM2_B, "h.%d.post_attention_layernorm.bias", DIM_D, DIM_ONE, NEED_NORM, false},
    {ROLE_FFN1_W, "h.%d.mlp.dense_h_to_4h.weight", DIM_FFN, DIM_D, NEED_ALWAYS, false},
    {ROLE_FFN1_B, "h.%d.mlp.dense_h_to_4h.bias", DIM_FFN, DIM_ONE, NEED_FFN_BIAS, false},
    {ROLE_FFN2_W, "h.%d.mlp.dense_4h_to_h.weight", DIM_D, DIM_FFN, NEED_ALWAYS, false},
    {ROLE_FFN2_B, "h.%d.mlp.dense_4h_to_h.bias", DIM_D, DIM_ONE, NEED_FFN_BIAS, false},
};

static const char *const ignored[] = {"self_attention.scale_mask_softmax.causal_mask", NULL};

const struct family_ops family_ops_bloom = {
    .prefix = "transformer.",
    .tensors = tensors,
    .n_tensors = ARRAY_LEN(tensors),
    .ignored = ignored,
    .read_config = read_config,
};
