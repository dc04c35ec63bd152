from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from lightning_sd.functional.divergence import divergence
from lightning_sd.functional.divergence_spec import DivergenceSpec
from lightning_sd.functional.logprobs import token_logprobs
from lightning_sd.functional.shaping import population_advantages, shaped_rewards
from lightning_sd.objectives import EchoDistill, StepState
from lightning_sd.objectives.inputs import ObjectiveInputs
from lightning_sd.objectives.reduce import compute_loss
from lightning_sd.scoring import Scores
from tests.reference import echo as slow

VOCAB, SEEDS = 7, 5
OPTIONS: list[dict[str, Any]] = [
    {},
    {"kind": "reverse_kl"},
    {"bonus": 0.0, "clip": 0.05},
    {"policy": 0.0, "distill": 2.5},
    {"dual_clip": 1.3},
    {"policy": 0.7, "distill": 0.0, "bonus": 1.5},
    {"policy": 0.3, "distill": 1.7, "clip": 0.5},
]


def batch(
    seed: int, groups: int = 3, size: int = 4, *, texts: bool = True, spread: float = 0.15
) -> list[slow.Text]:
    """Random texts, near enough to the teacher that some ratios are clipped and some are not."""
    generator = torch.Generator().manual_seed(seed)

    def one(group: int, *, by_teacher: bool) -> slow.Text:
        length = int(torch.randint(1, 6, (), generator=generator))
        logits = torch.randn(length, VOCAB, generator=generator, dtype=torch.float64)
        other = logits + spread * torch.randn(
            length, VOCAB, generator=generator, dtype=torch.float64
        )
        ids = torch.randint(VOCAB, (length,), generator=generator).tolist()
        reward = [1.0, -1.0, 0.5, 0.0][int(torch.randint(4, (), generator=generator))]
        return slow.Text(group, logits.requires_grad_(), other, ids, reward, by_teacher)

    found = [one(g, by_teacher=False) for g in range(groups) for _ in range(size)]
    # The second question's teacher said nothing: no bonus, no distillation there.
    return found + [one(g, by_teacher=True) for g in range(groups) if texts and g != 1]


def make_inputs(texts: list[slow.Text], objective: EchoDistill) -> ObjectiveInputs:
    lengths = torch.tensor([len(text.ids) for text in texts])
    ids = torch.tensor([i for text in texts for i in text.ids], dtype=torch.long)
    student = torch.cat([text.student for text in texts]).detach()
    teacher = torch.cat([text.teacher for text in texts])
    spec = DivergenceSpec(kind=objective.kind)
    return ObjectiveInputs(
        rewards=torch.tensor([text.reward for text in texts], dtype=torch.float64),
        groups=torch.tensor([text.group for text in texts]),
        correct=torch.tensor([text.reward == 1 for text in texts]),
        finished=torch.ones(len(texts), dtype=torch.bool),
        lengths=lengths,
        by_student=torch.tensor([not text.by_teacher for text in texts]),
        has_view=torch.ones(len(texts), dtype=torch.bool),
        ids=ids,
        rows=torch.arange(len(texts)).repeat_interleave(lengths),
        positions=torch.cat([torch.arange(n) for n in lengths.tolist()]),
        student_logprobs=token_logprobs(student, ids),
        teacher_logprobs=token_logprobs(teacher, ids),
        **{objective.kind: divergence(student, teacher, ids, spec).value},
    )


def ours(texts: list[slow.Text], objective: EchoDistill) -> torch.Tensor:
    student = torch.cat([text.student for text in texts])
    teacher = torch.cat([text.teacher for text in texts])
    tokens = objective.apply_token_weights(make_inputs(texts, objective), StepState())
    lengths = [len(text.ids) for text in texts]
    output = compute_loss(objective, Scores(student, None), Scores(teacher, None), tokens, lengths)
    return output.total / output.count


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_loss_and_gradient_equal_the_slow_loop(options: dict[str, Any], seed: int) -> None:
    texts = batch(seed)
    found = ours(texts, EchoDistill(**options, chunk_tokens=5))
    expected = slow.loss(texts, **options)
    assert found.item() == pytest.approx(torch.as_tensor(expected).item(), abs=1e-10)
    leaves = [text.student for text in texts]
    gradients = torch.autograd.grad(found, leaves)
    expected_gradients = torch.autograd.grad(expected, leaves, allow_unused=True)
    for a, b in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(a, torch.zeros_like(a) if b is None else b, rtol=0, atol=1e-10)


def test_the_random_batches_meet_every_branch() -> None:
    """Ratios clipped from both sides and not at all, a teacher's text of one token: else the test
    above would prove little."""
    ratios = [
        float(slow.sequence_logprob(t.student, t.ids) - slow.sequence_logprob(t.teacher, t.ids))
        for seed in range(SEEDS)
        for t in batch(seed)
        if not t.by_teacher
    ]
    high, low = math.log(1.2), math.log(0.8)
    assert any(r > high for r in ratios)
    assert any(r < low for r in ratios)
    assert any(low < r < high for r in ratios)
    written = [t for seed in range(SEEDS) for t in batch(seed) if t.by_teacher]
    assert any(len(t.ids) == 1 for t in written)


def test_order_of_rollouts_does_not_matter() -> None:
    texts = batch(7)
    shuffled = [texts[i] for i in torch.randperm(len(texts)).tolist()]
    assert ours(texts, EchoDistill()).item() == pytest.approx(
        ours(shuffled, EchoDistill()).item(), abs=1e-12
    )


def test_shaping_by_hand() -> None:
    """Only right answers have a bonus; the clip at 2 and at -1."""
    rewards = torch.tensor([1.0, -1.0, 0.0, 0.5, 1.8, -3.0])
    found = shaped_rewards(rewards, torch.full((6,), 0.6), bonus=0.5)
    torch.testing.assert_close(found, torch.tensor([1.3, -1.0, 0.0, 0.8, 2.0, -1.0]))


def test_advantages_by_hand() -> None:
    """Two of four right: +1 and -1 with the population's deviation, whatever the bonus."""
    groups = torch.tensor([3, 3, 3, 3, 5, 5])
    rewards = torch.tensor([1.3, 1.3, -1.0, -1.0, 2.0, 1.0])
    torch.testing.assert_close(
        population_advantages(rewards, groups), torch.tensor([1.0, 1.0, -1.0, -1.0, 1.0, -1.0])
    )
    three = population_advantages(torch.tensor([1.0, 0.0, 0.0]), torch.zeros(3))
    torch.testing.assert_close(three, torch.tensor([2.0, -1.0, -1.0]) / math.sqrt(2))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8])
def test_equal_rewards_are_no_advantage_even_after_rounding(size: int) -> None:
    rewards = shaped_rewards(torch.ones(size), torch.full((size,), 0.123457), bonus=0.7)
    assert not population_advantages(rewards, torch.zeros(size)).any()


def test_the_ratio_is_of_the_whole_answer_and_clipped() -> None:
    """Two answers of two tokens; the student gives each token twice the teacher's probability."""
    even = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64).log()
    student = torch.stack([even, even]).requires_grad_()
    other = torch.stack([even, even]).clone().requires_grad_()
    quarter = torch.tensor([0.25, 0.25, 0.5], dtype=torch.float64).log().expand(2, 3)
    texts = [
        slow.Text(0, student, quarter, [0, 0], 1.0),
        slow.Text(0, other, quarter, [0, 0], 0.0),
    ]
    loss = ours(texts, EchoDistill(bonus=0.0))
    # Ratio 4. The good one is clipped to 1.2, the bad one is not: -(1.2 - 4) / 2.
    assert loss.item() == pytest.approx(1.4, abs=1e-12)
    good, bad = torch.autograd.grad(loss, [student, other])
    assert not good.any()
    # d/dlogit of 4 / 2 * log p(token), at each of both tokens.
    expected = 2 * torch.tensor([0.5, -0.25, -0.25], dtype=torch.float64).expand(2, 3)
    torch.testing.assert_close(bad, expected, rtol=0, atol=1e-12)


def test_teacher_s_texts_have_no_advantage_and_no_part_in_the_mean() -> None:
    texts = batch(1)
    silent = batch(1)
    for text in silent:
        text.reward = text.reward if not text.by_teacher else 100.0
    assert ours(texts, EchoDistill()).item() == ours(silent, EchoDistill()).item()


def test_no_text_of_the_teacher_is_a_policy_gradient_without_bonus() -> None:
    texts = batch(2, texts=False)
    assert ours(texts, EchoDistill()).item() == ours(texts, EchoDistill(bonus=9.0)).item()


@pytest.mark.parametrize("number", [0, 1])
def test_every_rank_sums_once_also_without_a_token(number: int) -> None:
    calls = []

    def total(value: torch.Tensor) -> torch.Tensor:
        calls.append(value)
        return 2 * value

    texts = batch(3, groups=number, size=2)
    empty: Any = {name: torch.zeros(0, dtype=torch.long) for name in ("ids", "rows", "positions")}
    bare: Any = {name: torch.zeros(0) for name in ("rewards", "groups", "lengths")}
    flags: Any = {
        name: torch.zeros(0, dtype=torch.bool)
        for name in ("correct", "finished", "by_student", "has_view")
    }
    objective = EchoDistill()
    found = make_inputs(texts, objective) if texts else ObjectiveInputs(**empty, **bare, **flags)
    objective.make_token_inputs(found, StepState(sum_over_ranks=total))
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "js"}, "kind='js'"),
        ({"reduction": "sequence"}, "averages of its own"),
        ({"bonus": -1.0}, "bonus=-1.0"),
        ({"clip": 1.0}, "clip=1.0"),
        ({"dual_clip": 1.1}, "dual_clip=1.1"),
    ],
)
def test_bad_settings_name_themselves(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EchoDistill(**settings)
