"""Completions under the teacher."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from lightning_sd.scoring import (
    LogitsSource,
    MixedScores,
    Scorer,
    Scores,
    insert_missing_rows,
    make_linear_mix,
)
from lightning_sd.scoring.layout import Ids
from lightning_sd.teachers.base import LiveTeacher, TeacherWeights


@torch.no_grad()
def teacher_scores(
    teacher: TeacherWeights,
    student: nn.Module,
    scorer: Scorer,
    prompts: Sequence[Ids | None],
    completions: Sequence[Ids],
) -> LogitsSource | None:
    """Score completions with the teacher's weights, from the teacher's prompts.

    Args:
        teacher: Whose weights.
        student: The module that takes them on.
        scorer: Of that module.
        prompts: One a row; None: the row is not scored, zeros stand in for it.
        completions: One a row.

    Returns:
        Of ``sum(lengths)`` tokens; None if no row has a prompt and a token.
    """
    present = [prompt is not None for prompt in prompts]
    chosen = [prompt for prompt in prompts if prompt is not None]
    texts = [ids for ids, here in zip(completions, present, strict=True) if here]
    if not any(map(len, texts)):
        return None
    lengths = [len(ids) for ids in completions]
    coefficients, parts = [], []
    for coefficient, weights in teacher.parts(student):
        with weights:
            parts.append(insert_missing_rows(scorer.score(chosen, texts), present, lengths))
        coefficients.append(coefficient)
    if len(parts) == 1:
        return parts[0]
    return MixedScores(tuple(parts), make_linear_mix(coefficients))


@torch.no_grad()
def both_scores(
    teacher: TeacherWeights,
    student: nn.Module,
    scorer: Scorer,
    student_prompts: Sequence[Ids],
    teacher_prompts: Sequence[Ids],
    completions: Sequence[Ids],
) -> tuple[LogitsSource, LogitsSource]:
    """Student's and teacher's scores without gradient; in one batch where the weights are the same.

    Args:
        teacher: Whose weights.
        student: The module that takes them on.
        scorer: Of that module.
        student_prompts: One a row.
        teacher_prompts: Likewise.
        completions: Likewise; at least one token in all.
    """
    if isinstance(teacher, LiveTeacher):
        both = scorer.score([*student_prompts, *teacher_prompts], [*completions, *completions])
        own, other = both.hidden.chunk(2)
        return Scores(own, both.head), Scores(other, both.head)
    found = teacher_scores(teacher, student, scorer, teacher_prompts, completions)
    assert found is not None
    return scorer.score(student_prompts, completions), found
