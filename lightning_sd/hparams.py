"""Hyperparameters that a checkpoint may hold: plain data only, and components rebuilt from it.

Lightning reads checkpoints with ``weights_only=True``, which refuses any object of ours; a
component is therefore saved as YAML names it, ``{class_path, init_args}``.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

PLAIN = (str, int, float, bool, type(None))


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
        {'class_path': 'lightning_sd.teachers.EMATeacher', 'init_args': {'rate': 0.5}}
    """
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [describe(item) for item in value]
    kind = type(value)
    if not kind.__module__.startswith("torch") and not inspect.isroutine(value):
        names = [name for name in inspect.signature(kind).parameters if name != "self"]
        if all(hasattr(value, name) for name in names):
            return {
                "class_path": f"{kind.__module__}.{kind.__qualname__}",
                "init_args": {name: describe(getattr(value, name)) for name in names},
            }
    raise NotPlainError(f"{kind.__name__} has no plain description.")


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
    """The component that a description names; anything else as it is.

    Example:
        >>> build({"class_path": "lightning_sd.teachers.EMATeacher", "init_args": {}}).rate
        0.01
    """
    if isinstance(value, Mapping) and "class_path" in value:
        module, _, name = value["class_path"].rpartition(".")
        arguments = {key: build(item) for key, item in value.get("init_args", {}).items()}
        return getattr(importlib.import_module(module), name)(**arguments)
    return value
