"""Build tiny random models of every causal family in transformers."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
import transformers
from torch import nn
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL,
)

VOCAB = 96
LARGEST = 3_000_000
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "n_embd": 32,
    "d_model": 32,
    "emb_dim": 32,
    "embedding_size": 32,
    "intermediate_size": 48,
    "n_inner": 48,
    "dff": 48,
    "ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "encoder_ffn_dim": 48,
    "feed_forward_size": 48,
    "ffn_hidden_size": 48,
    "dim_ff": 48,
    "intermediate_size_mlp": 48,
    "num_hidden_layers": 4,
    "n_layer": 2,
    "n_layers": 2,
    "num_layers": 2,
    "decoder_layers": 2,
    "encoder_layers": 2,
    "num_attention_heads": 4,
    "n_head": 4,
    "n_heads": 4,
    "num_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "dim_head": 8,
    "attention_head_size": 8,
    "rotary_dim": 4,
    "max_position_embeddings": 128,
    "n_positions": 128,
    "max_seq_len": 128,
    "sliding_window": 6,
    "attention_chunk_size": 16,
    "window_size": 6,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "num_experts_per_token": 2,
    "moe_topk": 2,
    "moe_k": 2,
    "moe_intermediate_size": 16,
    "expert_ffn_hidden_size": 16,
    "moe_shared_expert_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "shared_intermediate_size": 16,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "qk_head_dim": 12,
    "v_head_dim": 8,
    "index_n_heads": 2,
    "index_head_dim": 8,
    "index_topk": 64,
    "mamba_n_heads": 8,
    "mamba_num_heads": 8,
    "mamba_d_head": 8,
    "mamba_head_dim": 8,
    "mamba_d_state": 8,
    "mamba_d_ssm": 64,
    "mamba_dt_rank": 4,
    "mamba_chunk_size": 8,
    "state_size": 8,
    "ssm_state_size": 8,
    "time_step_rank": 4,
    "chunk_size": 8,
    "n_groups": 1,
    "mamba_n_groups": 1,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "attn_layer_period": 2,
    "attn_layer_offset": 1,
    "expert_layer_period": 2,
    "expert_layer_offset": 1,
    "lru_width": 32,
    "attention_window_size": 6,
    "attention_hidden_size": 32,
    "initializer_range": 0.2,
    "init_std": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "is_decoder": True,
    "add_cross_attention": False,
    "is_encoder_decoder": False,
    "use_mamba_kernels": False,
    "output_router_logits": False,
}
"""Settings by name, for every configuration that has the name."""

LAYER_TYPES = {
    "linear_attention": ["linear_attention", "full_attention"] * 2,
    "conv": ["conv", "full_attention"] * 2,
    "sliding_attention": ["sliding_attention", "full_attention"] * 2,
}

OVERRIDES: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1, 3]},
    "qwen3_5_text": {"head_dim": 8},
    "falcon": {"new_decoder_architecture": False, "alibi": False},
    "nemotron_h": {
        "layers_block_type": ["linear_attention", "moe", "full_attention", "mlp"],
        "num_hidden_layers": None,
    },
    "mamba2": {"num_heads": 8, "head_dim": 8, "hidden_size": 32, "expand": 2},
    "granitemoehybrid": {
        "position_embedding_type": "rope",
        "layer_types": LAYER_TYPES["linear_attention"],
    },
    "lfm2": {"block_auto_adjust_ff_dim": False, "layer_types": LAYER_TYPES["conv"]},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 6},
    "phi3": {"original_max_position_embeddings": 128},
    "gptj": {"rotary_dim": 4},
    "codegen": {"rotary_dim": 4},
    "xlm": {"causal": True, "is_encoder": False},
    "lfm2_moe": {"layer_types": LAYER_TYPES["conv"]},
    "zaya": {"num_experts_per_tok": 1},
    "dots1": {"routed_scaling_factor": 1.0},
    "reformer": {"axial_pos_embds_dim": [16, 16], "axial_pos_shape": [8, 16]},
}
"""Settings of single families, by model type; None removes a setting."""


def list_families() -> list[str]:
    """List the model types of all causal families, one per model class."""
    families: dict[str, str] = {}
    for kind, name in CAUSAL.items():
        if name not in families or kind.endswith("_text"):
            families[name] = kind
    return sorted(families.values())


def make_config(kind: str, **changes: Any) -> Any:
    """Make a tiny configuration of a family."""
    cls = CONFIG_MAPPING[kind]
    default = cls()
    names = {n for c in cls.__mro__ for n in inspect.signature(c.__init__).parameters}
    names |= set(vars(default)) | set(getattr(cls, "attribute_map", {}))
    settings = {name: value for name, value in SIZES.items() if name in names}
    mapped = getattr(cls, "attribute_map", {})
    settings = {n: v for n, v in settings.items() if not (n in mapped and mapped[n] in settings)}
    types = getattr(default, "layer_types", None)
    if types and "layer_types" in vars(default):
        present = [name for name in LAYER_TYPES if name in types]
        settings["layer_types"] = LAYER_TYPES[present[0]] if present else [types[0]] * 4
    if "qk_rope_head_dim" in names:
        settings |= {"head_dim": SIZES["qk_rope_head_dim"], "num_key_value_heads": 4}
    settings.update(OVERRIDES.get(kind, {}))
    settings.update(changes)
    return cls(**{n: v for n, v in settings.items() if v is not None})


def make_model(
    kind: str, *, seed: int = 0, dtype: torch.dtype = torch.float32, **changes: Any
) -> nn.Module:
    """Make a tiny random model of a family, in train mode.

    Raises:
        ValueError: The family has sizes that the settings here do not shrink.
    """
    config = make_config(kind, **changes)
    cls = getattr(transformers, CAUSAL[kind])
    with torch.device("meta"):
        size = sum(parameter.numel() for parameter in cls(copy.deepcopy(config)).parameters())
    if size > LARGEST:
        raise ValueError(f"{kind} has {size} parameters with the settings known here.")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: nn.Module = cls._from_config(config)
        for parameter in model.parameters():
            # Weights that start at zero (gates, biases) would hide what a cache forgets.
            if parameter.ndim == 1 and bool((parameter == 0).all()):
                nn.init.normal_(parameter, std=0.1)
    return model.to(dtype).train()
