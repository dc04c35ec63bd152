"""Read transformers configurations, which may be nested."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def iterate_configs(config: Any) -> Iterator[Any]:
    """Yield a transformers configuration and the ones nested in it, the text model's first."""
    if config is None or not hasattr(config, "to_dict"):
        return
    seen: list[Any] = []
    text = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    for candidate in (text, config, *vars(config).values()):
        if hasattr(candidate, "to_dict") and not any(candidate is other for other in seen):
            seen.append(candidate)
            yield candidate
