"""Turn errors of the parser and of constructors into one line: field, value, remedy."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import re
from collections.abc import Iterable, Sequence
from typing import Any

import lightning_sd
from lightning_sd.cli.run import DEBUG_VARIABLE

_NESTED_KEY = re.compile(r'Parser key "([^"]+)"')
_REFUSED_OPTION = re.compile(r"Option '([^']+)' is not accepted")
_CLASS_IN_ERROR = re.compile(r"Problem with given class_path '([^']+)'")
_WRONG_CLASS = re.compile(r"Expected a dot import path string: (\S+)")
_BASE_CLASS = re.compile(r"<class '(lightning[\w.]*)'>|(lightning[\w.]+\.[A-Z]\w+)")
_WRONG_TYPE = re.compile(r"Expected a (.+?)\. Got value: (.+)")
_UNKNOWN_ARGUMENTS = re.compile(r"unrecognized arguments: (--[\w.+]+)")
_NOISE = re.compile(
    r"Does not validate against|Subtypes:|Errors:|Given value|Expected a (<class|list|dict)|"
    r"Problem with given class_path|Parser key|Validation failed|Expected a path but"
)


def is_debug() -> bool:
    """Return whether the usage text and tracebacks are shown as well."""
    return bool(os.environ.get(DEBUG_VARIABLE))


def condense(message: str, options: Iterable[str] = ()) -> str:
    """Reduce an error of jsonargparse, which prints the whole tree of alternatives, to its cause.

    Args:
        message: The text of the error.
        options: Option strings of the parser, to suggest one for a misspelled option.

    Returns:
        One line with the option, its value and the valid names.
    """
    key = ".".join(_NESTED_KEY.findall(message))
    if match := _REFUSED_OPTION.search(message):
        owners = _CLASS_IN_ERROR.findall(message[: match.start()])
        return _explain_option(key, match[1], owners[-1] if owners else None, options)
    if match := _UNKNOWN_ARGUMENTS.search(message):
        return _explain_argument(match[1], options)
    if match := _WRONG_CLASS.search(message):
        bases = _BASE_CLASS.findall(message[: match.start()])
        return _explain_class(key, match[1], "".join(bases[-1]) if bases else None)
    if "arguments are required" in message:
        return f"{message}; give them, or a config such as --config quickstart"
    if match := _WRONG_TYPE.search(message):
        return _explain_value(key, *match.groups())
    message = _NESTED_KEY.sub("", message)
    causes = [line.strip(" -:\n") for line in message.splitlines() if not _NOISE.search(line)]
    causes = [line for line in causes if line]
    text = causes[0] if causes else " ".join(message.split())
    return f"{key}: {text}" if key and not text.startswith(key) else text


def suggest(name: str, choices: Iterable[str]) -> str:
    """Return ``; did you mean X?`` for the closest choice, or nothing.

    Example:
        >>> suggest("smaples", ["samples", "seed"])
        '; did you mean samples?'
        >>> suggest("zzz", ["samples"])
        ''
    """
    lowered = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.6)
    return f"; did you mean {lowered[close[0]]}?" if close else ""


def list_classes(base: str) -> list[str]:
    """List the public classes that can be named where a base class is expected.

    Args:
        base: Import path of the base class.
    """
    module, _, name = base.rpartition(".")
    try:
        parent = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return []
    classes = ((n, getattr(lightning_sd, n)) for n in lightning_sd.__all__)
    return [
        n
        for n, c in classes
        if inspect.isclass(c) and issubclass(c, parent) and not inspect.isabstract(c)
    ]


def _explain_option(key: str, name: str, owner: str | None, options: Iterable[str]) -> str:
    valid = _list_arguments(owner) if owner else [_strip(option) for option in options]
    where = f" of {owner.rpartition('.')[2]}" if owner else ""
    full = f"{key}.{name}" if key else name
    listed = f" Options{where}: {', '.join(valid)}." if owner else ""
    return f"{full}: unknown option{where}{suggest(name, valid)}{listed}"


def _explain_argument(argument: str, options: Iterable[str]) -> str:
    known = [_strip(option) for option in options]
    name = argument.lstrip("-")
    roots = sorted({option.split(".")[0] for option in known})
    root, _, rest = name.partition(".")
    if root in roots:
        return f"{argument}: unknown option{suggest(name, known)}"
    hint = suggest(root, roots)
    if hint and rest:
        hint = f"{hint.rstrip('?')}.{rest}?"
    return f"{argument}: unknown option{hint} Options start with {', '.join(roots)}."


def _explain_class(key: str, name: str, base: str | None) -> str:
    choices = list_classes(base) if base else []
    text = f"{key}={name}: there is no such class{suggest(name, choices)}"
    if choices:
        text += f" Choose from {', '.join(choices)}, or give an import path of your own class."
    return text


def _explain_value(key: str, expected: str, value: str) -> str:
    if expected.startswith("typing.Literal"):
        choices = re.findall(r"'([^']+)'", expected)
        return f"{key}={value}: choose one of {', '.join(choices)}{suggest(value, choices)}"
    kind = re.sub(r"<class '(\w+)'>", r"\1", expected)
    return f"{key}={value}: must be of type {kind}."


def _list_arguments(class_path: str) -> list[str]:
    module, _, name = class_path.rpartition(".")
    try:
        loaded: Any = getattr(importlib.import_module(module), name)
        return [p for p in inspect.signature(loaded).parameters if p not in ("self", "kwargs")]
    except (ImportError, AttributeError, ValueError):
        return []


def _strip(option: str) -> str:
    return option.lstrip("-").rstrip("+")


def list_options(parser: Any) -> Sequence[str]:
    """List the option strings of a parser."""
    return [o for action in parser._actions for o in action.option_strings if o.startswith("--")]
