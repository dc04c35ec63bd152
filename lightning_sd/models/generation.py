"""Check a model's generation config: what sampling ignores, and whether it can be saved."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

NEUTRAL: dict[str, Any] = {
    "repetition_penalty": (None, 1.0),
    "encoder_repetition_penalty": (None, 1.0),
    "no_repeat_ngram_size": (None, 0),
    "bad_words_ids": (None, []),
    "force_words_ids": (None, []),
    "suppress_tokens": (None, []),
    "begin_suppress_tokens": (None, []),
    "sequence_bias": (None, {}),
    "forced_bos_token_id": (None,),
    "forced_eos_token_id": (None,),
    "exponential_decay_length_penalty": (None,),
    "min_length": (None, 0),
    "min_new_tokens": (None, 0),
    "guidance_scale": (None, 1.0),
}
"""Settings that change the distribution, and the values with which they do nothing."""
KEPT = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")


def check_generation_config(model: Any) -> None:
    """Name the settings that sampling ignores, and repair a config that could not be saved.

    On-policy training needs samples from the model's own distribution, so that penalties and
    forbidden tokens are never applied. ``save_pretrained`` refuses an invalid config, which would
    lose the trained weights; the invalid settings are dropped now, with a warning.

    Args:
        model: A transformers model; its generation config may be replaced.
    """
    config = getattr(model, "generation_config", None)
    if config is None:
        return
    name = type(model).__name__
    ignored = {
        key: getattr(config, key)
        for key, neutral in NEUTRAL.items()
        if getattr(config, key, None) not in neutral
    }
    if ignored:
        rank_zero_warn(
            f"The generation config of {name} sets {ignored}, which sampling ignores: rollouts "
            "come from the model's own distribution."
        )
    try:
        config.validate(strict=True)
    except ValueError as error:
        model.generation_config = _repair(config)
        reason = " ".join(str(error).split())[:300]
        rank_zero_warn(
            f"The generation config of {name} is invalid and could not be saved: {reason} Its "
            "sampling settings are dropped; the ids of its special tokens are kept."
        )


def _repair(config: Any) -> Any:
    """Make a valid config with the special tokens of an invalid one."""
    return type(config)(**{name: getattr(config, name, None) for name in KEPT})
