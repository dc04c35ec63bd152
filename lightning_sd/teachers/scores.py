"""Score completions under the teacher."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from lightning_sd.models.sharding import gather_parameters, is_sharded
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
def score_teacher(
    teacher: TeacherWeights,
    student: nn.Module,
    scorer: Scorer,
    prompts: Sequence[Ids | None],
    completions: Sequence[Ids],
) -> LogitsSource | None:
    """Score completions with the teacher's parameters, after the teacher's prompts.

    Args:
        teacher: The teacher.
        student: The module into which its parameters are swapped.
        scorer: Scorer of that module.
        prompts: Prompt ids per row; None: the row is not scored and its scores are zeros.
        completions: Completion ids per row.

    Returns:
        Scores of ``sum(lengths)`` tokens; None if no row has a prompt and a token.
    """
    present = [prompt is not None for prompt in prompts]
    chosen = [prompt for prompt in prompts if prompt is not None]
    texts = [ids for ids, here in zip(completions, present, strict=True) if here]
    if not any(map(len, texts)):
        if is_sharded(student):
            _help_score_teacher(teacher, student)
        return None
    lengths = [len(ids) for ids in completions]
    coefficients, parts = [], []
    for coefficient, weights in teacher.list_policies(student):
        with weights, gather_parameters(student):
            parts.append(insert_missing_rows(scorer.score(chosen, texts), present, lengths))
        coefficients.append(coefficient)
    if len(parts) == 1:
        return parts[0]
    return MixedScores(tuple(parts), make_linear_mix(coefficients))


@torch.no_grad()
def score_both(
    teacher: TeacherWeights,
    student: nn.Module,
    scorer: Scorer,
    student_prompts: Sequence[Ids],
    teacher_prompts: Sequence[Ids],
    completions: Sequence[Ids],
) -> tuple[LogitsSource, LogitsSource]:
    """Score completions under student and teacher without gradient.

    A live teacher has the student's parameters, so both are scored in one batch.

    Args:
        teacher: The teacher.
        student: The module into which its parameters are swapped.
        scorer: Scorer of that module.
        student_prompts: Prompt ids per row.
        teacher_prompts: Prompt ids per row.
        completions: Completion ids per row, with at least one token in all.

    Returns:
        Scores of the student and of the teacher.
    """
    if isinstance(teacher, LiveTeacher):
        with gather_parameters(student):
            both = scorer.score([*student_prompts, *teacher_prompts], [*completions, *completions])
        own, other = both.hidden.chunk(2)
        return Scores(own, both.head), Scores(other, both.head)
    found = score_teacher(teacher, student, scorer, teacher_prompts, completions)
    assert found is not None
    with gather_parameters(student):
        return scorer.score(student_prompts, completions), found


def help_score_both(teacher: TeacherWeights, student: nn.Module) -> None:
    """Take part in the :func:`score_both` of other ranks, which gather a sharded student."""
    if not isinstance(teacher, LiveTeacher):
        _help_score_teacher(teacher, student)
    with gather_parameters(student):
        pass


def _help_score_teacher(teacher: TeacherWeights, student: nn.Module) -> None:
    for _, policy in teacher.list_policies(student):
        with policy, gather_parameters(student):
            pass
