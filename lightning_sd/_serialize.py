"""Describe components by plain data, for checkpoints and for hashes.

Lightning reads checkpoints with ``weights_only=True``, which refuses objects of this package. A
component is therefore saved in the form that YAML uses, ``{class_path, init_args}``.
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
_PACKAGE = __name__.split(".")[0]


class NotPlainError(Exception):
    """Raised for a value that plain data cannot describe, such as a module or a function."""


def describe(value: Any) -> Any:
    """Describe a value by plain data.

    A component can be described if each of its ``__init__`` arguments is kept in an attribute of
    the same name.

    Args:
        value: Numbers, strings, lists, dicts, or a component.

    Returns:
        The same value, with components as ``{"class_path": ..., "init_args": {...}}``.

    Raises:
        NotPlainError: The value cannot be described.

    Example:
        >>> from lightning_sd.teachers import EMATeacher
        >>> describe(EMATeacher(0.5))
        {'class_path': 'lightning_sd.teachers.ema.EMATeacher', 'init_args': {'rate': 0.5}}
    """
    if value is None or isinstance(value, (str, *NUMBERS)):
        return _to_builtin(value)
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [describe(item) for item in value]
    kind = type(value)
    names = None if _is_torch_module(value) else _list_arguments(kind)
    if names is None or not all(hasattr(value, name) for name in names):
        raise NotPlainError(f"{kind.__name__} has no plain description.")
    return {
        "class_path": f"{kind.__module__}.{kind.__qualname__}",
        "init_args": {name: describe(getattr(value, name)) for name in names},
    }


def _is_torch_module(value: Any) -> bool:
    """Return whether a value is a module; without importing torch, which a module requires."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)


def _to_builtin(value: Any) -> Any:
    """Convert subclasses of numpy or enum to builtin types, which ``weights_only`` can read."""
    for kind in NUMBERS:
        if isinstance(value, kind):
            return kind(value)
    return value if value is None else str.__str__(value)


def _list_arguments(kind: type) -> list[str] | None:
    """List the argument names of a class; None if its name cannot find or rebuild it."""
    if kind.__module__.split(".")[0] in ("torch", "builtins") or "." in kind.__qualname__:
        return None
    try:
        return list(inspect.signature(kind).parameters)
    except ValueError:
        return None


def describe_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Describe arguments by plain data, and leave out those that have no plain description.

    The arguments left out must be passed again when the checkpoint is loaded.
    """
    result = {}
    for name, value in arguments.items():
        try:
            result[name] = describe(value)
        except NotPlainError:
            continue
    return result


def build(value: Any, *, any_callable: bool = False) -> Any:
    """Build the components that a description names; return any other value unchanged.

    A description may come from a checkpoint, so it cannot name any callable: only classes of this
    package and classes that derive from one of them are built.

    Args:
        value: A description, a list or mapping with descriptions, or any other value.
        any_callable: Let the outermost description name anything. Only for values that a user
            wrote, never for those of a checkpoint.

    Raises:
        ValueError: ``class_path`` names something else.

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
    kind = _find_component(value["class_path"], any_callable)
    return kind(**{key: build(item) for key, item in value.get("init_args", {}).items()})


def _find_component(class_path: str, any_callable: bool) -> Any:
    """Return the class of a component; see :func:`build`."""
    module, _, name = class_path.rpartition(".")
    kind = getattr(importlib.import_module(module), name)
    bases = kind.__mro__ if isinstance(kind, type) else ()
    if not any_callable and not any(b.__module__.split(".")[0] == _PACKAGE for b in bases):
        raise ValueError(
            f"class_path={class_path!r}: not a class of {_PACKAGE} and not derived from one. Build "
            "it yourself and pass the object."
        )
    return kind


def write_canonical_json(value: Any) -> str:
    """Write plain values as JSON so that equal values give equal text.

    Raises:
        TypeError: A value is not plain.
        ValueError: A number is NaN or infinite.

    Example:
        >>> write_canonical_json({"b": [1, None], "a": "x"})
        '{"a":"x","b":[1,null]}'
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )


def hash_identity(identity: Mapping[str, Any]) -> bytes:
    """Hash a critic's identity.

    Args:
        identity: The settings that decide what the critic writes.

    Raises:
        TypeError: The identity holds something other than plain JSON values.
    """
    try:
        return hashlib.sha256(write_canonical_json(dict(identity)).encode()).digest()
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"A critic's identity() must hold plain JSON values only, but gave {dict(identity)!r}: "
            f"{error}"
        ) from error


def replace_surrogates(text: str) -> str:
    """Replace lone surrogates by ``?``: JSON can hold them, but UTF-8 (and SQLite) cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")
