"""Hyperparameters that a checkpoint may hold: plain data only, and components rebuilt from it.

Lightning reads checkpoints with ``weights_only=True``, which refuses any object of ours; a
component is therefore saved as YAML names it, ``{class_path, init_args}``.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import sys
from collections.abc import Mapping
from typing import Any

NUMBERS = (bool, int, float)


class NotPlainError(Exception):
    """A value that no plain data describe, such as a module in memory or a function."""


def describe(value: Any) -> Any:
    """Describe a value by plain data.

    A component is described if it keeps each of its ``__init__`` arguments under the same name.

    Args:
        value: Numbers, strings, lists, dicts, or a component.

    Returns:
        The same, components as ``{"class_path": ..., "init_args": {...}}``.

    Raises:
        NotPlainError: It can't be described.

    Example:
        >>> from lightning_sd.teachers import EMATeacher
        >>> describe(EMATeacher(0.5))
        {'class_path': 'lightning_sd.teachers.ema.EMATeacher', 'init_args': {'rate': 0.5}}
    """
    if value is None or isinstance(value, (str, *NUMBERS)):
        return _bare(value)
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [describe(item) for item in value]
    kind = type(value)
    names = None if _is_torch_module(value) else _arguments(kind)
    if names is None or not all(hasattr(value, name) for name in names):
        raise NotPlainError(f"{kind.__name__} has no plain description.")
    return {
        "class_path": f"{kind.__module__}.{kind.__qualname__}",
        "init_args": {name: describe(getattr(value, name)) for name in names},
    }


def _is_torch_module(value: Any) -> bool:
    """Tell whether a value is a module, without importing torch: a module exists only after it."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)


def _bare(value: Any) -> Any:
    """Without the type that numpy or an enum adds, which a checkpoint could not be read with."""
    for kind in NUMBERS:
        if isinstance(value, kind):
            return kind(value)
    return value if value is None else str.__str__(value)


def _arguments(kind: type) -> list[str] | None:
    """Names of a class's arguments; None: it can't be found again, or made, by its name."""
    if kind.__module__.split(".")[0] in ("torch", "builtins") or "." in kind.__qualname__:
        return None
    try:
        return list(inspect.signature(kind).parameters)
    except ValueError:
        return None


def describable(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that plain data describe; the others must be passed again on loading."""
    result = {}
    for name, value in arguments.items():
        try:
            result[name] = describe(value)
        except NotPlainError:
            continue
    return result


def build(value: Any) -> Any:
    """The components that a description names; anything else as it is.

    Example:
        >>> build({"class_path": "lightning_sd.teachers.EMATeacher", "init_args": {}}).rate
        0.01
    """
    if isinstance(value, list):
        return [build(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    if "class_path" not in value:
        return {key: build(item) for key, item in value.items()}
    module, _, name = value["class_path"].rpartition(".")
    arguments = {key: build(item) for key, item in value.get("init_args", {}).items()}
    return getattr(importlib.import_module(module), name)(**arguments)


def canonical_json(value: Any) -> str:
    """Write plain values so that equal ones give equal text.

    Raises:
        TypeError: A value that is not plain.
        ValueError: Not a number, or infinite.

    Example:
        >>> canonical_json({"b": [1, None], "a": "x"})
        '{"a":"x","b":[1,null]}'
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )


def identity_digest(identity: Mapping[str, Any]) -> bytes:
    """Hash a critic's identity.

    Raises:
        TypeError: The identity holds something other than plain JSON values.
    """
    try:
        return hashlib.sha256(canonical_json(dict(identity)).encode()).digest()
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"A critic's identity() must hold plain JSON values only, but gave {dict(identity)!r}: "
            f"{error}"
        ) from error


def clean(text: str) -> str:
    """Replace lone surrogates, which JSON may carry and UTF-8 (so SQLite) may not."""
    return text.encode("utf-8", "replace").decode("utf-8")
