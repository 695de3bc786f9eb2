#!/usr/bin/env python3
"""Makes tests/golden/families: tiny random models of every setting in config.json that changes the forward pass, with the
logits of Hugging Face transformers (made with torch 2.15 and transformers 5.23, fp32, eager attention).

    pip install torch transformers safetensors && python3 tests/golden/make_families.py
"""
import pathlib

import torch
from safetensors.torch import save_file
from transformers import (BloomConfig, BloomForCausalLM, GPT2Config, GPT2LMHeadModel, GPTNeoXConfig,
                          GPTNeoXForCausalLM, OPTConfig, OPTForCausalLM)

VOCAB, LENGTH, BATCH = 29, 40, 2
GPT2 = dict(n_embd=12, n_layer=2, n_head=3, vocab_size=VOCAB, n_positions=LENGTH)
OPT = dict(hidden_size=12, num_hidden_layers=2, num_attention_heads=3, ffn_dim=20, vocab_size=VOCAB,
           max_position_embeddings=LENGTH, word_embed_proj_dim=12)
NEOX = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20,
            vocab_size=VOCAB, max_position_embeddings=LENGTH)
BLOOM = dict(hidden_size=12, n_layer=2, n_head=3, vocab_size=VOCAB)

GPT2_SETTINGS = {
    "gpt2-no-scale": dict(scale_attn_weights=False),
    "gpt2-scale-by-layer": dict(scale_attn_by_inverse_layer_idx=True),
    "gpt2-upcast": dict(reorder_and_upcast_attn=True, scale_attn_by_inverse_layer_idx=True),
    "gpt2-untied-inner-relu": dict(tie_word_embeddings=False, n_inner=20, activation_function="relu"),
    "gpt2-gelu-eps": dict(activation_function="gelu", layer_norm_epsilon=1e-3),
}
OPT_SETTINGS = {
    "opt-no-bias": dict(enable_bias=False),
    "opt-no-affine": dict(layer_norm_elementwise_affine=False),
    "opt-no-final-norm": dict(_remove_final_layer_norm=True),
    "opt-postnorm": dict(do_layer_norm_before=False),
    "opt-postnorm-proj-untied-gelu": dict(do_layer_norm_before=False, word_embed_proj_dim=8,
                                          tie_word_embeddings=False, activation_function="gelu"),
    "opt-prenorm-proj": dict(word_embed_proj_dim=8),
}
NEOX_SETTINGS = {
    "neox-no-attention-bias": dict(attention_bias=False),
    "neox-full-rotary-base": dict(rotary_pct=1.0, rotary_emb_base=50000),
    "neox-sequential-tied": dict(use_parallel_residual=False, tie_word_embeddings=True, rotary_pct=0.5),
    "neox-gelu-new-eps": dict(hidden_act="gelu_new", layer_norm_eps=1e-3),
    "neox-state-dict": {},
    "neox-gelu-fast": dict(hidden_act="gelu_fast"),
}
BLOOM_SETTINGS = {
    "bloom-residual-normed": dict(apply_residual_connection_post_layernorm=True),
    "bloom-untied-eps": dict(tie_word_embeddings=False, layer_norm_epsilon=1e-3),
    "bloom-5-heads": dict(hidden_size=20, n_head=5),
}
FAMILIES = [(GPT2Config, GPT2LMHeadModel, GPT2, GPT2_SETTINGS), (OPTConfig, OPTForCausalLM, OPT, OPT_SETTINGS),
            (GPTNeoXConfig, GPTNeoXForCausalLM, NEOX, NEOX_SETTINGS),
            (BloomConfig, BloomForCausalLM, BLOOM, BLOOM_SETTINGS)]


def randomize(model):
    """Weights large enough that a bias, a norm or a scale left out shows at once."""
    for name, p in model.named_parameters():
        is_gain = name.endswith("weight") and ("norm" in name or "ln_" in name)
        p.copy_(torch.randn_like(p) * 0.25 + (1.0 if is_gain else 0.0))


@torch.no_grad()
def make(folder, config_class, model_class, settings):
    torch.manual_seed(sum(map(ord, folder.name)))
    model = model_class(config_class(**settings)).eval().float()
    model.set_attn_implementation("eager")
    randomize(model)
    model.save_pretrained(folder)
    if folder.name.endswith("-state-dict"):  # the names inside transformers 5 instead of the published ones
        save_file({name: p.contiguous() for name, p in model.state_dict().items()}, folder / "model.safetensors")
    (folder / "generation_config.json").unlink(missing_ok=True)
    ids = torch.randint(VOCAB, (BATCH, LENGTH))
    save_file({"input_ids": ids.to(torch.int32), "logits_fp32": model(ids).logits.contiguous()},
              folder / "expected.safetensors")


for config_class, model_class, base, variants in FAMILIES:
    for name, changes in variants.items():
        make(pathlib.Path(__file__).parent / "families" / name, config_class, model_class, {**base, **changes})
