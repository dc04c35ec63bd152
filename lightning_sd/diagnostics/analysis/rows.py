"""The rows of an analysis: one plain dict per rollout, with all contexts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_sd.metrics.measures import Share, measure_rollout
from lightning_sd.metrics.wrong_steps import Steps
from lightning_sd.types import Message, Rollout, TeacherView

Row = dict[str, Any]


def build_row(
    rollout: Rollout,
    steps: Steps,
    contexts: Mapping[str, tuple[TeacherView | None, tuple[float, ...] | None]],
    words: Sequence[str],
) -> Row:
    """Build the row of one rollout.

    Args:
        rollout: A judged rollout.
        steps: Its tokens and steps, from :func:`~lightning_sd.metrics.wrong_steps.find_steps`.
        contexts: By context name, the teacher's view and the advantages under it.
        words: Style words.

    Returns:
        Plain values. ``tokens``: the text that each token adds. ``special``: names of special
        tokens by index. ``steps``: (first token, last token + 1) of each step. ``wrong``: numbers
        of the wrong steps, counted from 1. ``errors_by``: where these come from (``task``,
        ``critique`` or None). ``contexts``: per context ``messages``, ``advantages`` in nats and
        ``measures``, or None where the context gave no view.
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
            name: _build_context(view, advantages, steps, words)
            for name, (view, advantages) in contexts.items()
        },
    }


def get_share(row: Row, context: str, measure: str) -> Share | None:
    """Read one measure of a row.

    Args:
        row: The row.
        context: Name of the context.
        measure: Key in ``MEASURES``.

    Returns:
        The rollout's share; None if the context gave no view or the measure is not defined.
    """
    scored = row["contexts"].get(context)
    values = scored["measures"].get(measure) if scored else None
    return None if values is None else Share(*values)


def read_rows(*paths: Path) -> list[Row]:
    """Read rows from JSON lines.

    Args:
        *paths: Files, read one after another.
    """
    return [json.loads(line) for path in paths for line in path.open(encoding="utf-8")]


def append_rows(path: Path, rows: Sequence[Row]) -> None:
    """Append rows to a file as JSON lines.

    Args:
        path: The file.
        rows: The rows.
    """
    with path.open("a", encoding="utf-8") as file:
        # ASCII only, because a model's text may hold half of a surrogate pair.
        file.writelines(json.dumps(row) + "\n" for row in rows)


def _build_context(
    view: TeacherView | None,
    advantages: tuple[float, ...] | None,
    steps: Steps,
    words: Sequence[str],
) -> Row | None:
    if view is None or advantages is None:
        return None
    messages: list[Message] = list(view.messages)
    measures = measure_rollout(advantages, steps, words)
    return {
        "messages": messages,
        "advantages": list(advantages),
        "measures": {name: list(share) for name, share in measures.items()},
    }
