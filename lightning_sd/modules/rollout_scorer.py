"""Score rollouts under the student, the teacher and contrasting views."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_sd.models.probing import is_coarse
from lightning_sd.models.sharding import hold_parameters, is_sharded, pad_passes
from lightning_sd.objectives import InputSpec
from lightning_sd.objectives.scored import ScoredRollouts
from lightning_sd.rollout import Sampler
from lightning_sd.scoring import LogitsSource, Scorer
from lightning_sd.scoring.consistency import check_sampled_logprobs
from lightning_sd.scoring.statistics import compute_token_statistics
from lightning_sd.teachers import TeacherWeights, score_both, score_teacher
from lightning_sd.types import Message, Rollout, TeacherView, select_contrast

Encode = Callable[[Sequence[Message], Mapping[str, Any] | None], list[int]]
"""Chat messages and arguments of the chat template (None: the student's) to prompt ids."""


@dataclass(frozen=True)
class RolloutScorer:
    """Scores rollouts with one student and its teacher."""

    student: nn.Module
    teacher: TeacherWeights
    scorer: Scorer
    encode: Encode

    def score(
        self,
        rollouts: Sequence[Rollout],
        views: Sequence[TeacherView | None],
        spec: InputSpec,
    ) -> ScoredRollouts:
        """Score the rollouts that take part, under every model that an objective reads.

        Args:
            rollouts: A micro-batch. Rollouts without a view are left out if ``spec`` requires a
                teacher.
            views: What the teacher sees of each rollout.
            spec: What the objective reads.
        """
        active = [i for i, view in enumerate(views) if view or spec.teacher != "required"]
        completions = [rollouts[i].ids for i in active]
        seen = [views[i] for i in active]
        # The teacher comes first: the student's graph is not held while the teacher runs.
        teacher = self._score_view(seen, completions) if spec.uses_teacher else None
        contrasts = self._score_contrasts(seen, completions) if spec.reads_contrasts else []
        student = None
        hold_parameters(self.student)
        if any(map(len, completions)):
            student = self.scorer.score(self._encode_students(rollouts, active), completions)
        padding = pad_passes(self.student)
        zero = 0.0 if padding is None else padding
        return ScoredRollouts(rollouts, views, active, student, teacher, contrasts, zero)

    def check_sampler(self, scored: ScoredRollouts, sampler: Sampler) -> float | None:
        """Compare the log-probabilities of sampled rollouts with the student's scores.

        Adapters with a dropout are not compared, because it is part of the scores only.

        Args:
            scored: A micro-batch, scored with the weights that sampled it.
            sampler: The sampler.

        Returns:
            The mean absolute gap in nats per token; None if nothing was compared.
        """
        noisy = any(isinstance(m, nn.Dropout) and m.p > 0 for m in self.student.modules())
        if noisy or scored.student is None:
            return None
        active = [scored.rollouts[i] for i in scored.active]
        return check_sampled_logprobs(
            scored.student,
            scored.completions,
            [r.logprobs if r.origin == "student" else None for r in active],
            getattr(sampler, "temperature", 1.0),
            coarse=is_coarse(self.student),
        )

    def compute_advantages(
        self, rollouts: Sequence[Rollout], views: Sequence[TeacherView | None]
    ) -> list[tuple[float, ...] | None]:
        """Compute log p_T(y_t) - log p_S(y_t) of each token at temperature 1.

        Args:
            rollouts: Any rollouts.
            views: What the teacher sees of each.

        Returns:
            One entry per rollout; None for rollouts without a view or without a token.
        """
        active = [i for i, view in enumerate(views) if view is not None and rollouts[i].ids]
        result: list[tuple[float, ...] | None] = [None] * len(rollouts)
        if not active:
            return result
        completions = [rollouts[i].ids for i in active]
        student, teacher = score_both(
            self.teacher,
            self.student,
            self.scorer,
            self._encode_students(rollouts, active),
            [self._encode_view(view) for i in active if (view := views[i]) is not None],
            completions,
        )
        device = next(self.student.parameters()).device
        ids = torch.tensor([token for row in completions for token in row], device=device)
        gap = _sampled_logprobs(teacher, ids) - _sampled_logprobs(student, ids)
        for i, part in zip(active, gap.split([len(row) for row in completions]), strict=True):
            result[i] = tuple(part.tolist())
        return result

    def _encode_students(
        self, rollouts: Sequence[Rollout], active: Sequence[int]
    ) -> list[list[int]]:
        # Rollouts of one question have the same prompt, which is encoded once.
        questions = {id(rollouts[i].question): rollouts[i].question for i in active}
        prompts = {key: self.encode(asked.messages, None) for key, asked in questions.items()}
        return [prompts[id(rollouts[i].question)] for i in active]

    def _encode_view(self, view: TeacherView) -> list[int]:
        return self.encode(view.messages, view.template_kwargs)

    def _score_view(
        self, views: Sequence[TeacherView | None], completions: Sequence[Sequence[int]]
    ) -> LogitsSource | None:
        prompts = [None if view is None else self._encode_view(view) for view in views]
        return score_teacher(self.teacher, self.student, self.scorer, prompts, completions)

    def _score_contrasts(
        self, views: Sequence[TeacherView | None], completions: Sequence[Sequence[int]]
    ) -> list[LogitsSource]:
        number = max((len(view.contrasts) for view in views if view), default=0)
        if is_sharded(self.student):
            number = _find_largest(number, next(self.student.parameters()).device)
        scores = [
            self._score_view([select_contrast(view, k) for view in views], completions)
            for k in range(number)
        ]
        return [found for found in scores if found is not None]


def _sampled_logprobs(scores: LogitsSource, ids: Tensor) -> Tensor:
    return compute_token_statistics(scores, ids)[0]


def _find_largest(number: int, device: torch.device) -> int:
    """Return the largest number of any rank: scoring a sharded teacher takes every rank."""
    largest = torch.tensor(number, device=device)
    torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
    return int(largest)
