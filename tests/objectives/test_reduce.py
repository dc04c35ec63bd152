from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_sd.objectives import (
    Distillation,
    Objective,
    PolicyGradient,
    SampledToken,
    TokenInputs,
    TokenLoss,
)
from lightning_sd.objectives.reduce import LossOutput, compute_loss
from lightning_sd.scoring import Head, Scores
from tests.reference.divergence import Settings, mean_loss

ROWS, LONGEST, VOCAB, HIDDEN = 4, 5, 6, 3


@dataclass(frozen=True)
class Batch:
    """Padded tensors with a random mask, for the slow loops, and the same packed."""

    student: Tensor
    teacher: Tensor
    mask: Tensor
    ids: Tensor
    old: Tensor

    @property
    def lengths(self) -> list[int]:
        return [int(n) for n in self.mask.sum(1)]

    def loss(
        self, objective: Objective, *, old: bool = False, head: Head | None = None
    ) -> LossOutput:
        """The packed loss; with the identity as a head the logits are hidden states."""
        behavior = self.old[self.mask] if old else None
        tokens = TokenInputs(self.ids[self.mask], behavior_logprobs=behavior)
        student, teacher = self.student[self.mask], self.teacher[self.mask]
        return compute_loss(
            objective, Scores(student, head), Scores(teacher, head), tokens, self.lengths
        )


IDENTITY = Head(torch.eye(VOCAB, dtype=torch.float64))
CAPPED = Head(IDENTITY.weight, softcap=1e9)
"""Sends the loss along the way of heads that are not linear."""


def random_batch(seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    mask = torch.rand(ROWS, LONGEST, generator=generator) < 0.6
    mask[1] = False
    mask[2, :4] = True
    return Batch(
        (2 * normal(ROWS, LONGEST, VOCAB)).requires_grad_(),
        2 * normal(ROWS, LONGEST, VOCAB),
        mask,
        torch.randint(VOCAB, (ROWS, LONGEST), generator=generator),
        -normal(ROWS, LONGEST).abs() - 0.5,
    )


SETTINGS: list[dict[str, Any]] = [
    {},
    {"reduction": "sequence"},
    {"kind": "reverse_kl", "temperature": 1.3},
    {"kind": "js", "beta": 0.3, "temperature": 0.7, "reduction": "sequence"},
    {"token_clip": 0.5},
    {"element_clip": 0.05, "token_clip": 0.02, "reduction": "sequence"},
    {"kind": "js", "beta": 0.9, "top_k": 2, "importance_clip": 2.0},
    {"kind": "reverse_kl", "top_k": 2, "support": "teacher", "importance_clip": 1.1},
    {"top_k": 3, "tail": False, "element_clip": 0.1, "temperature": 1.1, "importance_clip": 2.0},
    {"kind": "js", "token_clip": 0.1, "importance_clip": 0.5, "reduction": "sequence"},
    {"kind": "reverse_kl", "top_k": 3, "ratio_low": 0.5, "ratio_high": 2.0, "importance_clip": 2.0},
    {"kind": "js", "top_k": 3, "ratio_low": 0.7, "temperature": 1.1},
]


@pytest.mark.parametrize("head", [None, IDENTITY, CAPPED], ids=["logits", "linear", "capped"])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_mean_and_gradient_equal_the_slow_loop(settings: dict[str, Any], head: Any) -> None:
    batch = random_batch()
    output = batch.loss(Distillation(**settings, chunk_tokens=3), old=True, head=head)
    mean = output.total / output.count
    (gradient,) = torch.autograd.grad(mean, batch.student)
    expected = mean_loss(
        batch.student,
        batch.teacher,
        batch.mask,
        Settings(**settings),
        ids=batch.ids,
        old_logprobs=batch.old,
    )
    (expected_gradient,) = torch.autograd.grad(expected, batch.student)
    atol = 1e-7 if head is CAPPED else 1e-10
    assert mean.item() == pytest.approx(expected.item(), abs=atol)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=atol)


@pytest.mark.parametrize("clip", ["token_clip", "importance_clip"])
def test_the_clips_above_bite_on_some_tokens(clip: str) -> None:
    batch = random_batch()
    bound = 0.5 if clip == "token_clip" else 1.1
    free = batch.loss(Distillation(importance_clip=1e9 if clip != "token_clip" else None), old=True)
    clipped = batch.loss(Distillation(**{clip: bound}), old=True)
    changed = (free.tokens.loss - clipped.tokens.loss).abs() > 1e-9
    assert changed.any()
    assert not changed.all()


def test_counts_tokens_or_the_sequences_that_have_any() -> None:
    batch = random_batch()
    assert batch.lengths[1] == 0
    assert batch.loss(Distillation()).count == batch.mask.sum()
    assert batch.loss(Distillation(reduction="sequence")).count == sum(n > 0 for n in batch.lengths)


@pytest.mark.parametrize("reduction", ["token", "sequence"])
def test_sums_of_parts_make_the_mean_of_the_whole(reduction: Any) -> None:
    """A defect elsewhere: a mean of means weighs a short micro-batch's tokens more."""
    batch = random_batch()
    whole = batch.loss(Distillation(reduction=reduction))
    parts = []
    for rows in (slice(0, 1), slice(1, 4)):
        parts.append(
            Batch(
                batch.student[rows],
                batch.teacher[rows],
                batch.mask[rows],
                batch.ids[rows],
                batch.old[rows],
            ).loss(Distillation(reduction=reduction))
        )
    total, count = sum(p.total for p in parts), sum(p.count for p in parts)
    assert count == whole.count
    torch.testing.assert_close(total, whole.total, rtol=0, atol=1e-12)
    of_means = sum(p.total / p.count for p in parts) / 2
    assert abs(of_means - whole.total / whole.count) > 1e-2


def test_rows_without_a_teacher_do_not_dilute_the_loss() -> None:
    """Left out is left out of the count too: half the rows, the same mean per token."""
    batch = random_batch()
    twice = Batch(*(torch.cat([x, x]) for x in vars(batch).values()))
    one, two = batch.loss(Distillation()), twice.loss(Distillation())
    torch.testing.assert_close(one.total / one.count, two.total / two.count)


@pytest.mark.parametrize("objective", [Distillation(), SampledToken(), PolicyGradient()], ids=str)
def test_per_token_values_are_those_of_the_tokens(objective: Objective) -> None:
    batch = random_batch()
    number = int(batch.mask.sum())
    tokens = TokenInputs(batch.ids[batch.mask], advantages=torch.ones(number, dtype=torch.float64))
    teacher = (
        Scores(batch.teacher[batch.mask], None) if objective.inputs.teacher == "required" else None
    )
    output = compute_loss(
        objective, Scores(batch.student[batch.mask], None), teacher, tokens, batch.lengths
    )
    logs = batch.student[batch.mask].detach().log_softmax(-1)
    rows = torch.arange(number)
    torch.testing.assert_close(output.tokens.student_logprobs, logs[rows, tokens.ids])
    torch.testing.assert_close(output.tokens.entropy, -(logs.exp() * logs).sum(-1))
    torch.testing.assert_close(output.tokens.loss.sum(), output.total.detach())
    if teacher is None:
        assert output.tokens.teacher_logprobs is None
        assert output.advantages is None
    else:
        expected = batch.teacher[batch.mask].log_softmax(-1)[rows, tokens.ids]
        torch.testing.assert_close(output.tokens.teacher_logprobs, expected)
        torch.testing.assert_close(output.advantages, expected - output.tokens.student_logprobs)
    assert output.total.requires_grad
    assert not output.tokens.loss.requires_grad


def heads(
    dtype: torch.dtype = torch.float64, softcap: float | None = None
) -> tuple[Tensor, Tensor, Head, Head]:
    generator = torch.Generator().manual_seed(3)
    hidden, other = torch.randn(2, 9, HIDDEN, generator=generator, dtype=torch.float64).to(dtype)
    weight, teacher = torch.randn(2, VOCAB, HIDDEN, generator=generator, dtype=torch.float64)
    return (
        hidden.requires_grad_(),
        other,
        Head(weight.to(dtype).requires_grad_(), scale=0.5, softcap=softcap),
        Head(teacher.to(dtype), scale=0.5, softcap=softcap),
    )


class Squared(Objective):
    """An objective as a user writes it: a cost, and autograd for the rest."""

    def token_loss(
        self, student_logits: Tensor, teacher_logits: Tensor | None, tokens: TokenInputs
    ) -> TokenLoss:
        assert teacher_logits is not None
        logs, logt = student_logits.log_softmax(-1), teacher_logits.log_softmax(-1)
        at = tokens.ids.unsqueeze(-1)
        student, teacher = logs.gather(-1, at).squeeze(-1), logt.gather(-1, at).squeeze(-1)
        entropy = -(logs.exp() * logs).sum(-1)
        return TokenLoss((student - teacher) ** 2, student.detach(), teacher, entropy.detach())


@pytest.mark.parametrize("kind", [Distillation, SampledToken, Squared])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("chunk", [1, 4, 100, None])
def test_student_and_teacher_each_have_their_own_head(
    kind: Any, softcap: float | None, chunk: int | None
) -> None:
    hidden, other, student, teacher = heads(softcap=softcap)
    objective = kind(temperature=1.2, chunk_tokens=chunk, reduction="sequence")
    ids = torch.arange(9) % VOCAB
    output = compute_loss(
        objective, Scores(hidden, student), Scores(other, teacher), TokenInputs(ids), [4, 5]
    )
    gradients = torch.autograd.grad(output.total, [hidden, student.weight])

    def logits(states: Tensor, head: Head) -> Tensor:
        plain = 0.5 * states @ head.weight.T
        return (plain if softcap is None else softcap * torch.tanh(plain / softcap)) / 1.2

    dense = Scores(logits(hidden, student), None), Scores(logits(other, teacher), None)
    plain = compute_loss(kind(reduction="sequence"), *dense, TokenInputs(ids), [4, 5])
    expected = torch.autograd.grad(plain.total, [hidden, student.weight])
    torch.testing.assert_close(output.total, plain.total, rtol=0, atol=1e-10)
    for gradient, expected_gradient in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-10)


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("objective", [Distillation(), SampledToken(), PolicyGradient()], ids=str)
def test_autocast_rounds_logits_and_nothing_else(
    objective: Objective, softcap: float | None
) -> None:
    hidden, other, student, teacher = heads(torch.float32, softcap)
    tokens = TokenInputs(torch.arange(9) % VOCAB, advantages=torch.linspace(-1, 1, 9))
    scores = (
        Scores(hidden, student),
        Scores(other, teacher) if objective.inputs.teacher == "required" else None,
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = compute_loss(objective, *scores, tokens, [4, 5])
        rounded = [None if s is None else Scores(s.logits().detach(), None) for s in scores]
    for tensor in (
        output.total,
        output.tokens.loss,
        output.tokens.student_logprobs,
        output.tokens.entropy,
    ):
        assert tensor.dtype == torch.float32
    expected = compute_loss(objective, rounded[0], rounded[1], tokens, [4, 5])
    torch.testing.assert_close(output.tokens.loss, expected.tokens.loss, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(output.tokens.entropy, expected.tokens.entropy, rtol=1e-5, atol=1e-6)
    exact = compute_loss(objective, *scores, tokens, [4, 5])
    torch.testing.assert_close(output.total, exact.total, rtol=3e-2, atol=3e-2)
    found = torch.autograd.grad(output.total, [hidden, student.weight])
    wanted = torch.autograd.grad(exact.total, [hidden, student.weight])
    for gradient, expected_gradient in zip(found, wanted, strict=True):
        assert gradient.dtype == torch.float32
        atol = 3e-2 * expected_gradient.abs().max().item()
        torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=atol)


def test_weights_of_sequences_are_exact_in_bfloat16() -> None:
    hidden = torch.zeros(300, VOCAB, dtype=torch.bfloat16)
    teacher = torch.tensor([[1.0, 0, 0, 0, 0, 0]]).expand(300, VOCAB)
    output = compute_loss(
        Distillation(reduction="sequence"),
        Scores(hidden, None),
        Scores(teacher, None),
        TokenInputs(torch.zeros(300, dtype=torch.long)),
        [299, 1],
    )
    torch.testing.assert_close(output.total, 2 * output.tokens.loss[0], rtol=1e-5, atol=0)


@pytest.mark.parametrize("head", [None, IDENTITY], ids=["logits", "linear"])
def test_no_tokens_at_all_are_a_zero_with_a_graph(head: Head | None) -> None:
    batch = random_batch()
    nothing = Batch(
        batch.student, batch.teacher, torch.zeros_like(batch.mask), batch.ids, batch.old
    )
    output = nothing.loss(Distillation(reduction="sequence"), head=head)
    (gradient,) = torch.autograd.grad(output.total, batch.student)
    assert output.total == 0
    assert output.count == 0
    assert (gradient == 0).all()


@pytest.mark.parametrize("short", ["student", "teacher", "ids", "lengths"])
def test_tokens_that_do_not_match_are_refused(short: str) -> None:
    sizes = {"student": 4, "teacher": 4, "ids": 4, "lengths": 4}
    sizes[short] -= 1
    with pytest.raises(ValueError, match="cover different tokens"):
        compute_loss(
            Distillation(),
            Scores(torch.zeros(sizes["student"], VOCAB), None),
            Scores(torch.zeros(sizes["teacher"], VOCAB), None),
            TokenInputs(torch.zeros(sizes["ids"], dtype=torch.long)),
            [sizes["lengths"]],
        )
