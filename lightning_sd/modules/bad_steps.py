"""Write the batch of a skipped optimizer step to a file, so that its cause can be found."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_sd.objectives import LossOutput
from lightning_sd.objectives.scored import ScoredRollouts
from lightning_sd.types import Question, Rollout, TeacherView

Describe = Callable[[], Any]
"""Describes one micro-batch by plain data; called only if its optimizer step is skipped."""


def write_bad_step(folder: Path, facts: dict[str, Any], batches: Sequence[Describe]) -> Path:
    """Write one rank's micro-batches of a skipped optimizer step as JSON.

    Args:
        folder: The run's folder; created if it is missing.
        facts: ``step``, ``rank`` and why the step was skipped.
        batches: One description per micro-batch.

    Returns:
        The file, ``bad_step_STEP_rank_RANK.json``. Numbers that are not finite are written as
        ``"nan"``, ``"inf"`` and ``"-inf"``, so that the file is valid JSON.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"bad_step_{facts['step']}_rank_{facts['rank']}.json"
    content = make_plain({**facts, "micro_batches": [describe() for describe in batches]})
    path.write_text(json.dumps(content, indent=1, default=repr, allow_nan=False), "utf-8")
    return path


def describe_step(scored: ScoredRollouts, loss: LossOutput) -> dict[str, Any]:
    """Describe a micro-batch: questions, rollouts, views, and the values of each token.

    Args:
        scored: The micro-batch.
        loss: Its loss.
    """
    rows: list[dict[str, Any]] = [
        {**describe_rollout(rollout), "view": _describe_view(view), "tokens": None}
        for rollout, view in zip(scored.rollouts, scored.views, strict=True)
    ]
    values = {name: value for name, value in vars(loss.tokens).items() if value is not None}
    if all(len(value) == sum(scored.lengths) for value in values.values()):
        parts = {name: _split(value, scored.lengths) for name, value in values.items()}
        for place, i in enumerate(scored.active):
            rows[i]["tokens"] = {name: part[place] for name, part in parts.items()}
    return {"loss_sum": float(loss.total.detach()), "count": loss.count, "rollouts": rows}


def describe_question(question: Question) -> dict[str, Any]:
    """Describe a question by plain data."""
    return dict(vars(question))


def describe_rollout(rollout: Rollout) -> dict[str, Any]:
    """Describe a rollout with its question and its evidence, but without its siblings."""
    evidence = {
        name: None if value is None else dict(vars(value))
        for name, value in (("verdict", rollout.verdict), ("critique", rollout.critique))
    }
    names = ("ids", "text", "group", "finished", "logprobs", "origin")
    own = {name: getattr(rollout, name) for name in names}
    return {"question": describe_question(rollout.question), **own, **evidence}


def make_plain(value: Any) -> Any:
    """Replace floats that are not finite by text, in dicts, lists and tuples of any depth.

    Example:
        >>> make_plain({"loss": float("nan"), "tokens": (1.0, float("-inf"))})
        {'loss': 'nan', 'tokens': [1.0, '-inf']}
    """
    if isinstance(value, dict):
        return {str(key): make_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [make_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _describe_view(view: TeacherView | None) -> dict[str, Any] | None:
    return None if view is None else dict(vars(view))


def _split(values: Tensor, lengths: Sequence[int]) -> list[list[float]]:
    return [part.tolist() for part in values.detach().float().cpu().split(list(lengths))]
