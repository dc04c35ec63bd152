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

from benchmarks.models.sizes import LAYER_TYPES, OVERRIDES, SIZES
from lightning_sd.models.configs import iterate_configs

LARGEST = 3_000_000


def list_families() -> list[str]:
    """List the model types of all causal families, one per model class."""
    families: dict[str, str] = {}
    for kind, name in CAUSAL.items():
        if name not in families or kind.endswith("_text"):
            families[name] = kind
    return sorted(families.values())


def make_config(kind: str, **changes: Any) -> Any:
    """Make a tiny configuration of a family; changes are made in nested ones that know them too."""
    return _shrink(CONFIG_MAPPING[kind], changes, changes)


def _shrink(cls: Any, changes: dict[str, Any], own: dict[str, Any]) -> Any:
    own = {**OVERRIDES.get(cls.model_type, {}), **own}
    default = cls(**{name: value for name, value in own.items() if isinstance(value, dict)})
    mapped = getattr(cls, "attribute_map", {})
    names = {n for c in cls.__mro__ for n in inspect.signature(c.__init__).parameters}
    names |= {*vars(default), *mapped}
    settings = {name: value for name, value in SIZES.items() if name in names}
    settings = {n: v for n, v in settings.items() if not (n in mapped and mapped[n] in settings)}
    types = getattr(default, "layer_types", None)
    if types and "layer_types" in vars(default):
        present = [name for name in LAYER_TYPES if name in types]
        settings["layer_types"] = LAYER_TYPES[present[0]] if present else [types[0]] * 4
    if "qk_rope_head_dim" in names:
        settings |= {"head_dim": SIZES["qk_rope_head_dim"], "num_key_value_heads": 4}
    settings |= {name: value for name, value in changes.items() if name in names} | own
    for name, part in vars(default).items():
        if hasattr(part, "to_dict"):
            settings[name] = _shrink(type(part), changes, own.get(name, {}))
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
    # Some text models are registered under the configuration of a model around them.
    parts = [config, *iterate_configs(config)]
    config = next((part for part in parts if isinstance(part, cls.config_class)), config)
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
