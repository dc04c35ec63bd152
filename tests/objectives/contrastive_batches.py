"""Random batches with right and wrong hints, scored as the module scores them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from lightning_sd.objectives import Objective, StepState, TokenWeight
from lightning_sd.objectives.gather import ScoredRollouts, gather_inputs
from lightning_sd.objectives.inputs import ObjectiveInputs
from lightning_sd.objectives.reduce import LossOutput, compute_loss
from lightning_sd.scoring import Scores
from lightning_sd.scoring.head import Head
from lightning_sd.types import Message, Question, Rollout, TeacherView, Verdict
from tests.reference.contrastive import Text

VOCAB, HIDDEN = 7, 5
PROMPT: tuple[Message, ...] = ({"role": "user", "content": "?"},)
QUESTION = Question("q", "?", PROMPT)


@dataclass(frozen=True)
class Given(TokenWeight):
    """Keeps the tokens that a test says."""

    kept: tuple[bool, ...] = ()
    is_mask: ClassVar[bool] = True

    def __call__(self, inputs: ObjectiveInputs, state: StepState) -> Tensor:
        return torch.tensor(self.kept, dtype=torch.bool)


def matrix(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(1000 + seed)
    found = torch.randn(VOCAB, HIDDEN, generator=generator, dtype=torch.float64)
    return found.requires_grad_()


def batch(seed: int, *, groups: int = 3, size: int = 4) -> list[Text]:
    """Hints that hardly differ on some tokens and much on others, 0 to 3 wrong ones a text."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def below(number: int) -> int:
        return int(torch.randint(number, (), generator=generator))

    texts = []
    for i in range(groups * size):
        length = below(6)
        student, right = normal(length, HIDDEN), normal(length, HIDDEN)
        spread = torch.where(normal(length, 1) > 0, 1.0, 0.02)
        spread = torch.where(normal(length, 1) > 0.5, 0.0001, spread)
        wrong = [right + spread * normal(length, HIDDEN) for _ in range(below(4))]
        correct = below(2) == 1
        texts.append(
            Text(
                group=i // size,
                reward=float(correct) + 0.7 * below(3),
                student=student.requires_grad_(),
                ids=torch.randint(VOCAB, (length,), generator=generator).tolist(),
                right=None if below(5) == 0 else right,
                wrong=wrong,
                mask=[below(4) > 0 for _ in range(length)],
                old=(-2 + 0.3 * normal(length)).tolist(),
                correct=correct,
            )
        )
    return texts


def takes_part(text: Text, objective: Objective) -> bool:
    if objective.inputs.reads_contrasts and not text.wrong:
        return False  # the context gives no view then
    return text.right is not None


def ours(
    texts: Sequence[Text],
    weight: Tensor,
    objective: Objective,
    *,
    head: bool = True,
    on_policy: bool = True,
    step: int = 0,
    **kwargs: object,
) -> LossOutput:
    """The way of :meth:`SelfDistillModule.loss`, over given hidden states."""
    seen = [takes_part(text, objective) for text in texts]
    active = [i for i in range(len(texts)) if seen[i] or objective.inputs.teacher != "required"]
    rollouts = [
        Rollout(
            QUESTION,
            tuple(text.ids),
            "",
            text.group,
            logprobs=tuple(text.old),
            verdict=Verdict(text.reward, text.correct),
        )
        for text in texts
    ]
    views = [
        TeacherView(PROMPT, contrasts=(PROMPT,) * len(text.wrong)) if is_seen else None
        for text, is_seen in zip(texts, seen, strict=True)
    ]
    if not any(len(texts[i].ids) for i in active):
        raise AssertionError("no tokens: test those through the module")

    def scores(parts: list[Tensor | None], *, student: bool = False) -> Scores:
        given = [
            torch.zeros(len(texts[i].ids), HIDDEN, dtype=torch.float64) if part is None else part
            for i, part in zip(active, parts, strict=True)
        ]
        hidden = torch.cat(given)
        used = weight if student else weight.detach()
        return Scores(hidden, Head(used)) if head else Scores(hidden @ used.T, None)

    student = scores([texts[i].student for i in active], student=True)
    teacher = scores([texts[i].right if seen[i] else None for i in active])
    contrasts = []
    if objective.inputs.reads_contrasts:
        for k in range(max(len(texts[i].wrong) for i in active)):
            rows = [texts[i].wrong[k] if k < len(texts[i].wrong) else None for i in active]
            contrasts.append(scores(rows))
    mask = tuple(kept for i in active for kept in texts[i].mask)
    objective = replace(objective, token_weights=(*objective.token_weights, Given(mask)))
    scored = ScoredRollouts(rollouts, views, active, student, teacher, contrasts)
    inputs = gather_inputs(objective, scored, torch.device("cpu"))
    state = StepState(step, None, kwargs.get("total", lambda value: value))  # type: ignore[arg-type]
    # In the precision of the reference; as samplers leave them out where they are not asked for.
    rewards = torch.tensor([text.reward for text in texts], dtype=torch.float64)
    old = torch.tensor([v for i in active for v in texts[i].old], dtype=torch.float64)
    inputs = replace(inputs, rewards=rewards, old_logprobs=None if on_policy else old)
    tokens = objective.apply_token_weights(inputs, state)
    spec = objective.inputs
    target = objective.build_target(teacher, contrasts) if spec.teacher_logits else None
    return compute_loss(objective, student, target, tokens, [len(texts[i].ids) for i in active])
