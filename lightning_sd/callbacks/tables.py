"""Send a table of texts to any logger that can show one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

Rows = Sequence[Sequence[str]]


def log_table(
    loggers: Iterable[Any], name: str, columns: Sequence[str], rows: Rows, step: int
) -> None:
    """Log a table to TensorBoard, Weights & Biases, MLflow, Trackio and similar loggers.

    TensorBoard and MLflow get Markdown, the others their own kind of table. Loggers without texts,
    such as the CSV logger, are left out.

    Args:
        loggers: Lightning loggers.
        name: Name of the table.
        columns: Names of the columns.
        rows: Cells, row by row.
        step: Optimizer step.
    """
    for logger in loggers:
        experiment: Any = getattr(logger, "experiment", None)
        if hasattr(logger, "log_table") and not hasattr(logger, "log_text"):
            logger.log_table(name, columns, rows, step)
        elif hasattr(logger, "log_text"):
            logger.log_text(name, columns=list(columns), data=[list(r) for r in rows], step=step)
        elif hasattr(experiment, "add_text"):
            experiment.add_text(name, format_markdown(columns, rows), step)
        elif hasattr(experiment, "log_text"):
            path = f"{name}/step_{step:06d}.md"
            experiment.log_text(logger.run_id, format_markdown(columns, rows), path)


def format_markdown(columns: Sequence[str], rows: Rows) -> str:
    r"""Format a table as Markdown that shows any text as it is.

    Args:
        columns: Names of the columns.
        rows: Cells, row by row.

    Example:
        >>> print(format_markdown(["attempt"], [["a|b\n<step_1>"]]))
        | attempt |
        |---|
        | a&#124;b<br>&lt;step&#95;1&gt; |
    """
    lines = [_format_row(columns), "|" + "---|" * len(columns)]
    return "\n".join([*lines, *map(_format_row, rows)])


def _format_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(_escape, cells)) + " |"


_ENTITIES = {
    **{ord(c): f"&#{ord(c)};" for c in "|*_`[]\\~#$"},
    **str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "\n": "<br>", "\r": ""}),
}
"""Characters with a meaning in Markdown or HTML, and what shows them."""


def _escape(text: str) -> str:
    return text.translate(_ENTITIES)
