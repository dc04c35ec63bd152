"""Give the functions of an imported module the code of a mutant."""

from __future__ import annotations

import ast
import gc
import inspect
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType

from benchmarks.grid import ROOT

Place = tuple[str, int]
"""Qualified name and first line."""


def index_functions() -> dict[str, list[FunctionType]]:
    """List the live functions of the package by file. Call it before ``gc.freeze``."""
    functions = defaultdict(list)
    package = str(ROOT / "lightning_sd")
    for thing in gc.get_objects():
        if type(thing) is FunctionType and thing.__code__.co_filename.startswith(package):
            functions[thing.__code__.co_filename].append(thing)
    return functions


def patch(functions: list[FunctionType], path: Path, tree: ast.Module) -> bool:
    """Change the code of a file's functions to that of a mutant.

    Returns:
        False, and nothing is changed, if the mutant changes what runs at import: it has to be
        imported then.
    """
    source = path.read_text(encoding="utf-8")
    old = {_locate(code): code for code in _walk(compile(ast.parse(source), str(path), "exec"))}
    new = {_locate(code): code for code in _walk(compile(tree, str(path), "exec"))}
    changed = [place for place in old.keys() | new.keys() if not _equal(old, new, place)]
    if any(not code.co_flags & inspect.CO_OPTIMIZED for code in _pick(changed, old, new)):
        return False
    chosen = [f for f in functions if _contains(old.get(_locate(f.__code__)), changed)]
    codes = [new.get(_locate(function.__code__)) for function in chosen]
    for function, code in zip(chosen, codes, strict=True):
        if code is None or code.co_freevars != function.__code__.co_freevars:
            return False
    for function, code in zip(chosen, codes, strict=True):
        assert code is not None
        function.__code__ = code
    return bool(chosen)


def _walk(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _walk(constant)


def _locate(code: CodeType) -> Place:
    return code.co_qualname, code.co_firstlineno


def _equal(old: dict[Place, CodeType], new: dict[Place, CodeType], place: Place) -> bool:
    """Compare two pieces of code, without those nested in them."""
    return place in old and place in new and _describe(old[place]) == _describe(new[place])


def _describe(code: CodeType) -> tuple[object, ...]:
    constants = [(type(c), c) for c in code.co_consts if not isinstance(c, CodeType)]
    return code.co_code, code.co_names, code.co_varnames, code.co_freevars, repr(constants)


def _pick(
    places: list[Place], old: dict[Place, CodeType], new: dict[Place, CodeType]
) -> Iterator[CodeType]:
    return (codes[place] for codes in (old, new) for place in places if place in codes)


def _contains(code: CodeType | None, places: list[Place]) -> bool:
    return code is not None and any(_locate(inner) in places for inner in _walk(code))
