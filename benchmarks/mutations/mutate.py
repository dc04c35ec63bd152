"""List the mutants of a source file: copies of its syntax tree with one small change each."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
HARMLESS = ("cast", "rank_zero_info", "info", "debug", "overload", "runtime_checkable")
"""Calls and decorators that do not change results."""
Edit = tuple[str, Callable[[ast.AST], ast.AST | None]]
"""Description, and a function that edits a node in place or returns its replacement."""


@dataclass(frozen=True)
class Mutant:
    """One change of a file."""

    line: int
    statement: int
    """First line of the enclosing statement."""
    change: str
    """Description, such as ``Add -> Sub``."""
    tree: ast.Module
    """The unchanged file."""
    index: int
    """Place of the changed node in the tree."""
    edit: Callable[[ast.AST], ast.AST | None]

    def build(self) -> ast.Module:
        """Return the changed file."""
        mutant = copy.deepcopy(self.tree)
        target, _ = list(_walk(mutant, 0))[self.index]
        replacement = self.edit(target)
        if replacement is not None:
            mutant = _Replace(target, replacement).visit(mutant)
        return ast.fix_missing_locations(mutant)


def list_mutants(source: str) -> Iterator[Mutant]:
    """Yield all mutants of a source text in the order of its syntax tree."""
    tree = ast.parse(source)
    for index, (node, statement) in enumerate(_walk(tree, 0)):
        line = getattr(node, "lineno", statement)
        for change, edit in _list_edits(node):
            yield Mutant(line, statement, change, tree, index, edit)


def _walk(node: ast.AST, statement: int) -> Iterator[tuple[ast.AST, int]]:
    """Yield the nodes that decide results, with the line of their statement.

    Left out are annotations, docstrings, messages, arguments of ``dataclass``, and ``strict`` of
    ``zip``.
    """
    if isinstance(node, ast.stmt):
        statement = node.lineno
    yield node, statement
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "type_params") or isinstance(node, ast.Raise):
            continue
        children = value if isinstance(value, list) else [value]
        for child in children:
            if isinstance(child, ast.AST) and not _is_text(child):
                yield from _walk(child, statement)


def _is_text(node: ast.AST) -> bool:
    if isinstance(node, ast.Expr):
        value = node.value
        is_string = isinstance(value, ast.Constant) and isinstance(value.value, str)
        return is_string or (isinstance(value, ast.Call) and _name(value.func) in HARMLESS)
    if isinstance(node, ast.Call) and _name(node.func) == "dataclass":
        return True
    if isinstance(node, ast.keyword) and node.arg == "strict":
        return True
    if isinstance(node, ast.If) and _name(node.test) == "TYPE_CHECKING":
        return True
    return isinstance(node, ast.Import | ast.ImportFrom | ast.JoinedStr)


def _name(function: ast.AST) -> str:
    return str(getattr(function, "attr", getattr(function, "id", "")))


def _list_edits(node: ast.AST) -> Iterator[Edit]:
    yield from _list_operator_edits(node)
    yield from _list_call_edits(node)
    yield from _list_statement_edits(node)


def _list_operator_edits(node: ast.AST) -> Iterator[Edit]:
    if isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp) and type(node.op) in SWAPS:
        yield _swap_operator(type(node.op))
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        yield _swap_comparison(type(node.ops[0]))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not | ast.Invert):
        yield f"drop {type(node.op).__name__}", lambda n: n.operand  # type: ignore[attr-defined]
    if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
        yield _change_constant(node.value)
    if isinstance(node, ast.IfExp):
        yield "swap branches", _swap_branches


def _list_call_edits(node: ast.AST) -> Iterator[Edit]:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield f"drop call of {_name(node.value.func)}", lambda n: ast.Pass()
    if isinstance(node, ast.Call):
        for place, keyword in enumerate(node.keywords):
            if keyword.arg and not isinstance(keyword.value, ast.Constant):
                yield f"drop argument {keyword.arg}", _drop_keyword(place)


def _list_statement_edits(node: ast.AST) -> Iterator[Edit]:
    if isinstance(node, ast.If | ast.While):
        yield "condition is False", _set_test(False)
    if isinstance(node, ast.With):
        yield "drop with", lambda n: ast.If(ast.Constant(True), n.body, [])  # type: ignore[attr-defined]
    if isinstance(node, ast.FunctionDef):
        for place, decorator in enumerate(node.decorator_list):
            if isinstance(decorator, ast.Call) and _name(decorator.func) == "no_grad":
                yield "drop no_grad", _drop_decorator(place)
    if isinstance(node, ast.Return) and not _is_none(node.value):
        yield "return None", lambda n: ast.Return(ast.Constant(None))


def _is_none(value: ast.expr | None) -> bool:
    return value is None or (isinstance(value, ast.Constant) and value.value is None)


def _swap_operator(kind: type[ast.AST]) -> Edit:
    other = SWAPS[kind]

    def edit(node: ast.AST) -> None:
        node.op = other()  # type: ignore[attr-defined]

    return f"{kind.__name__} -> {other.__name__}", edit


def _swap_comparison(kind: type[ast.AST]) -> Edit:
    other = SWAPS[kind]

    def edit(node: ast.AST) -> None:
        node.ops[0] = other()  # type: ignore[attr-defined]

    return f"{kind.__name__} -> {other.__name__}", edit


def _change_constant(value: bool | float) -> Edit:
    changed = not value if isinstance(value, bool) else value + 1
    return f"{value} -> {changed}", lambda node: ast.Constant(changed)


def _swap_branches(node: ast.AST) -> None:
    node.body, node.orelse = node.orelse, node.body  # type: ignore[attr-defined]


def _set_test(value: bool) -> Callable[[ast.AST], None]:
    def edit(node: ast.AST) -> None:
        node.test = ast.Constant(value)  # type: ignore[attr-defined]

    return edit


def _drop_keyword(place: int) -> Callable[[ast.AST], None]:
    def edit(node: ast.AST) -> None:
        del node.keywords[place]  # type: ignore[attr-defined]

    return edit


def _drop_decorator(place: int) -> Callable[[ast.AST], None]:
    def edit(node: ast.AST) -> None:
        del node.decorator_list[place]  # type: ignore[attr-defined]

    return edit


class _Replace(ast.NodeTransformer):
    def __init__(self, target: ast.AST, replacement: ast.AST) -> None:
        self.target, self.replacement = target, replacement

    def visit(self, node: ast.AST) -> ast.AST:
        if node is self.target:
            return ast.copy_location(self.replacement, node)
        return self.generic_visit(node)
