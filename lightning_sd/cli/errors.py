"""Turn errors of the parser and of constructors into one line: field, value, remedy."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn, get_type_hints

import lightning_sd
from lightning_sd.cli.run import DEBUG_VARIABLE
from lightning_sd.text.cleaning import clean_text, hide_credentials

_NESTED_KEY = re.compile(r'Parser key "([^"]+)"')
_REFUSED_OPTION = re.compile(r"(?:Option|does not accept option) '([^']+)'(?: is not accepted)?")
_CLASS_PATH = re.compile(r"(?:given class_path |Namespace\(class_path=)'([^']+)'")
_WRONG_CLASS = re.compile(r"Expected a dot import path string: (\S+)")
_BASE_CLASS = re.compile(r"\b((?:lightning|lightning_sd|torch\.optim)\.[\w.]*[A-Z]\w*)")
_TYPES = re.compile(r"Subtypes: \[(.+)\]|Expected a (.+?)\. Got value: ")
_VALUE = re.compile(r"(?:Given value|Got value): (.+?)(?:\. Got value: |$)", re.MULTILINE)
_CAUSE = re.compile(
    r"^ *- (?!Expected |Does not validate|Problem with |Type |Not a valid|a (?:class path|dict))"
    r"(.+)$",
    re.MULTILINE,
)
_RAISED = re.compile(
    r"Problem with given class_path '[^']+':\n +(?!Does not validate|Parser key|- )(\S.*)"
)
"""What a constructor has raised, in its first line."""
_REQUIREMENT = re.compile(r"Requirement '(\w+)[^']*' not met")
_LOGGER_EXTRAS = {"tensorboard": "report", "wandb": "wandb", "mlflow": "mlflow"}
"""Packages that loggers of Lightning need, and the extra that installs each."""
_UNKNOWN_ARGUMENTS = re.compile(r"unrecognized arguments: (--[\w.+]+)")


def is_debug() -> bool:
    """Return whether the usage text and tracebacks are shown as well."""
    return bool(os.environ.get(DEBUG_VARIABLE))


class OneLineErrors:
    """Makes a parser of jsonargparse print the cause of an error in one line.

    Passwords in URLs are hidden, because an error quotes the settings. ``--debug`` shows the usage
    and the whole text.
    """

    exit_on_error: bool

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the error and exit with status 2."""
        if is_debug() or not self.exit_on_error:
            super().error(clean_text(hide_credentials(message)), ex)  # type: ignore[misc]
        parser = getattr(ex, "subcommand_parser", None) or self
        text = condense(message, list_options(parser))
        sys.stderr.write(f"error: {clean_text(hide_credentials(text))}\n")
        sys.exit(2)


def condense(message: str, options: Iterable[str] = ()) -> str:
    """Reduce an error of jsonargparse, which prints the whole tree of alternatives, to its cause.

    Args:
        message: The text of the error.
        options: Option strings of the parser, to suggest one for a misspelled option.

    Returns:
        One line with the option, its value and the valid names.
    """
    keys = _find_nested_keys(message)
    key = ".".join(match[1] for match in keys)
    cause = message[keys[-1].end() :] if keys else message
    if match := _UNKNOWN_ARGUMENTS.search(message):
        return _explain_argument(match[1], options)
    if match := _REFUSED_OPTION.search(message):
        if not keys:
            return _explain_argument(f"--{match[1]}", options)
        return _explain_option(key, match[1], _find_owner(message, match))
    types, value = _TYPES.search(cause), _VALUE.search(cause)
    if match := _WRONG_CLASS.search(cause):
        owner = _find_owner(message[: keys[-1].start()])
        bases = _BASE_CLASS.findall(types[0]) if types else _read_hint(owner, keys[-1][1])
        if bases:
            return _explain_class(key, match[1], bases[-1])
    if value and "but is abstract" in cause:
        missing = ", ".join(sorted(getattr(_load(value[1]), "__abstractmethods__", ())))
        return f"{key}={value[1]}: the class is abstract; define {missing}."
    if raised := _find_raised(cause):
        return f"{key}: {raised}" if key else raised
    if types and value:
        return _explain_value(key, types[1] or types[2], value[1])
    if "arguments are required" in message:
        return f"{message}; give them, or a config such as --config quickstart"
    text = " ".join(cause.split())
    return f"{key}: {text}" if key else text


def _find_raised(cause: str) -> str | None:
    """Return what a constructor has raised; if a package is missing, the extra that installs it."""
    for package in _REQUIREMENT.findall(cause):
        if package in _LOGGER_EXTRAS:
            extra = _LOGGER_EXTRAS[package]
            return f'{package} is not installed: pip install "lightning_sd[{extra}]"'
    match = _CAUSE.search(cause) or _RAISED.search(cause)
    return match[1] if match else None


def suggest(name: str, choices: Iterable[str]) -> str:
    """Return the end of a sentence: ``; did you mean X?`` with the closest choice, or a period.

    Example:
        >>> suggest("smaples", ["samples", "seed"])
        '; did you mean samples?'
        >>> suggest("zzz", ["samples"])
        '.'
    """
    lowered = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.6)
    return f"; did you mean {lowered[close[0]]}?" if close else "."


def list_classes(base: str) -> list[str]:
    """List the classes that can be named where a base class is expected.

    Args:
        base: Import path of the base class.

    Returns:
        The public classes of this package, and those of the base class's package if it is another,
        such as torch's optimizers. Contexts are listed for their own option only.
    """
    parent = _load(base)
    if parent is None:
        return []
    kind = lightning_sd.TeacherContext
    own = [
        name
        for name in lightning_sd.__all__
        if _is_choice(found := getattr(lightning_sd, name), parent)
        and issubclass(found, kind) == issubclass(parent, kind)
    ]
    return own if base.startswith("lightning_sd.") else [*own, *_list_neighbors(parent)]


def _list_neighbors(parent: type) -> list[str]:
    """List the classes beside a base class: in its module and in its package."""
    module = parent.__module__
    package = importlib.import_module(module.rpartition(".")[0])
    found = {**vars(package), **vars(importlib.import_module(module))}
    names = [name for name, value in found.items() if _is_choice(value, parent)]
    return sorted(name for name in names if found[name] is not parent and name[0] != "_")


def _is_choice(value: Any, parent: type) -> bool:
    return inspect.isclass(value) and issubclass(value, parent) and not inspect.isabstract(value)


def _find_nested_keys(message: str) -> list[re.Match[str]]:
    """Return the keys from the outermost to the one at fault, which are indented more and more."""
    keys: list[re.Match[str]] = []
    depth = -1
    for match in _NESTED_KEY.finditer(message):
        line = message[message.rfind("\n", 0, match.start()) + 1 : match.start()]
        indent = len(line) - len(line.lstrip())
        if indent > depth:
            keys.append(match)
            depth = indent
    return keys


def _find_owner(message: str, option: re.Match[str] | None = None) -> str | None:
    """Return the class that a refused option, or what follows a message, belongs to."""
    if option is not None:
        rest = message[option.end() :].partition("\n")[0]
        if given := _CLASS_PATH.search(rest):
            return given[1]
        message = message[: option.start()]
    found = _CLASS_PATH.findall(message)
    return found[-1] if found else None


def _read_hint(owner: str | None, argument: str) -> list[str]:
    """Return the classes in the annotation of a class's argument."""
    kind = _load(owner) if owner else None
    hint = str(get_type_hints(kind.__init__).get(argument, "")) if kind else ""
    return _BASE_CLASS.findall(hint)


def _explain_option(key: str, name: str, owner: str | None) -> str:
    valid = _list_arguments(owner) if owner else []
    where = f" of {owner.rpartition('.')[2]}" if owner else ""
    listed = f" Options{where}: {', '.join(valid)}." if valid else ""
    return f"{key}.{name}: unknown option{where}{suggest(name, valid)}{listed}"


def _explain_argument(argument: str, options: Iterable[str]) -> str:
    known = [_strip(option) for option in options]
    name = _strip(argument)
    roots = sorted({option.split(".")[0] for option in known})
    root, _, rest = name.partition(".")
    if root in roots:
        return f"{argument}: unknown option{suggest(name, known)}"
    hint = suggest(root, roots)
    if rest:
        hint = hint.replace("?", f".{rest}?")
    return f"{argument}: unknown option{hint} Options start with {', '.join(roots)}."


def _explain_class(key: str, name: str, base: str) -> str:
    choices = list_classes(base)
    return (
        f"{key}={name}: there is no such class{suggest(name, choices)} Choose from "
        f"{', '.join(choices)}, or give an import path of your own class."
    )


def _explain_value(key: str, types: str, value: str) -> str:
    """Name the values that an option takes.

    Args:
        key: The option.
        types: Types as Python writes them, such as ``<class 'int'>, <class 'NoneType'>``.
        value: What was given.
    """
    choices = re.findall(r"'([^']+)'", "".join(re.findall(r"Literal\[(.+?)\]", types)))
    if choices:
        return f"{key}={value}: choose one of {', '.join(choices)}{suggest(value, choices)}"
    names = re.findall(r"<class '(\w+)'>", types) or [types]
    kinds = " or ".join("null" if name == "NoneType" else name for name in names)
    return f"{key}={value}: must be of type {kinds}."


def _list_arguments(class_path: str) -> list[str]:
    kind = _load(class_path)
    names = inspect.signature(kind).parameters if kind else ()
    return [name for name in names if name not in ("self", "kwargs", "params")]


def _load(path: str) -> Any:
    """Import a class by its path; None if there is none."""
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return None


def _strip(option: str) -> str:
    return option.lstrip("-").rstrip("+")


def list_options(parser: Any) -> Sequence[str]:
    """List the option strings of a parser."""
    return [o for action in parser._actions for o in action.option_strings if o.startswith("--")]
