"""What the analysis leaves on disk: one plain row a rollout, contexts side by side in it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_sd.metrics.rollout_measures import Share, rollout_figures
from lightning_sd.metrics.wrong_steps import Steps
from lightning_sd.types import Message, Rollout, TeacherView

Row = dict[str, Any]


def rollout_row(
    rollout: Rollout,
    steps: Steps,
    contexts: Mapping[str, tuple[TeacherView | None, tuple[float, ...] | None]],
    words: Sequence[str],
) -> Row:
    """Make the row of one rollout.

    Args:
        rollout: Judged.
        steps: Its tokens and steps.
        contexts: By name, what the teacher saw and the advantages it gave.
        words: Style words.

    Returns:
        Plain values. ``tokens`` are the texts that the tokens add, ``special`` the names of special
        ones, ``steps`` the first token of each step and the one behind its last, ``wrong`` the
        numbers of wrong steps from 1.
    """
    verdict, critique = rollout.verdict, rollout.critique
    return {
        "id": rollout.question.id,
        "question": rollout.question.text,
        "gold": rollout.question.answer,
        "attempt": rollout.text,
        "answer": verdict.answer if verdict else None,
        "correct": verdict.correct if verdict else None,
        "finished": rollout.finished,
        "refused": critique.refused if critique else None,
        "tokens": list(steps.pieces.texts),
        "special": {str(i): name for i, name in enumerate(steps.pieces.names) if name is not None},
        "steps": [list(span) for span in steps.tokens],
        "wrong": list(steps.wrong),
        "errors_by": steps.source,
        "contexts": {
            name: _context_row(view, advantages, steps, words)
            for name, (view, advantages) in contexts.items()
        },
    }


def _context_row(
    view: TeacherView | None,
    advantages: tuple[float, ...] | None,
    steps: Steps,
    words: Sequence[str],
) -> Row | None:
    if view is None or advantages is None:
        return None
    messages: list[Message] = list(view.messages)
    figures = rollout_figures(advantages, steps, words)
    return {
        "messages": messages,
        "advantages": list(advantages),
        "figures": {name: list(share) for name, share in figures.items()},
    }


def share(row: Row, context: str, figure: str) -> Share | None:
    """Read one figure out of a row; None: not defined for it."""
    found = row["contexts"].get(context)
    values = found["figures"].get(figure) if found else None
    return None if values is None else Share(*values)


def read_rows(*paths: Path) -> list[Row]:
    """Read rows from JSON lines, file after file."""
    return [json.loads(line) for path in paths for line in path.open(encoding="utf-8")]


def append_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write rows at the end of a file."""
    with path.open("a", encoding="utf-8") as file:
        # Escaped, so that half a surrogate pair in a model's text is no error.
        file.writelines(json.dumps(row) + "\n" for row in rows)
