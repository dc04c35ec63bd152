"""Check that an optional dependency is installed."""

from __future__ import annotations

import importlib.util


def require_extra(module: str, extra: str) -> None:
    """Raise an error that names the extra to install if a module is missing.

    Raises:
        ImportError: The module is not installed.
    """
    if importlib.util.find_spec(module) is None:
        raise ImportError(f'{module} is not installed: pip install "lightning_sd[{extra}]"')
