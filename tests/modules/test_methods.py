"""Each preset's loss, through ``prepare`` and ``compute_loss``, against a slow float64 loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_sd.objectives import (
    Distillation,
    FinishedOnly,
    MixedGroups,
    Mixture,
    Objective,
    PassRate,
    PolicyGradient,
    Position,
    Rebalance,
    SampledToken,
    SkipFirst,
    TokenWeight,
)
from lightning_sd.objectives.inputs import ObjectiveInputs, StepState
from lightning_sd.objectives.reduce import compute_loss
from lightning_sd.scoring import Head, Scores
from tests.reference import policy as slow
from tests.reference.divergence import Settings, softmax, token_loss
from tests.reference.inputs import STATE, make_inputs, slow_mean

VOCAB = 6
LENGTHS = [4, 1, 5, 0, 3, 6]
GROUPS = [0, 0, 0, 1, 1, 1]
REWARDS = [1.0, 0.0, 0.5, 1.0, 1.0, 0.25]
FINISHED = [True, True, False, True, True, True]
NUMBER = sum(LENGTHS)
ROW_OF = [row for row, length in enumerate(LENGTHS) for _ in range(length)]
PLACE = [t for length in LENGTHS for t in range(length)]


@dataclass(frozen=True)
class Only(TokenWeight):
    """A random mask."""

    is_mask = True
    seed: int = 0

    def __call__(self, inputs: ObjectiveInputs, state: StepState) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        return torch.rand(len(inputs.ids), generator=generator) < 0.7


MASK = [bool(x) for x in Only()(make_inputs(LENGTHS), STATE)]


@dataclass(frozen=True)
class Batch:
    student: Tensor
    teacher: Tensor
    ids: Tensor
    old: Tensor
    seen: Tensor
    behavior: Tensor | None = None

    def inputs(self) -> ObjectiveInputs:
        return make_inputs(
            LENGTHS,
            ids=self.ids,
            groups=torch.tensor(GROUPS),
            rewards=torch.tensor(REWARDS, dtype=torch.float64),
            correct=torch.tensor(REWARDS) == 1,
            finished=torch.tensor(FINISHED),
            old_logprobs=self.old,
            behavior_logprobs=self.old if self.behavior is None else self.behavior,
            has_view=self.seen,
        )


def batch(seen: bool = True) -> Batch:
    generator = torch.Generator().manual_seed(1)
    logits = 2 * torch.randn(2, NUMBER, VOCAB, generator=generator, dtype=torch.float64)
    ids = torch.randint(VOCAB, (NUMBER,), generator=generator)
    noise = 0.4 * torch.randn(NUMBER, generator=generator, dtype=torch.float64)
    old = logits[0].log_softmax(-1).gather(-1, ids[:, None]).squeeze(-1) + noise
    rows = torch.tensor([True, seen, True, seen, True, True])
    return Batch(logits[0].requires_grad_(), logits[1], ids, old, rows)


def found(objective: Objective, of: Batch, head: Head | None) -> Tensor:
    tokens = objective.apply_token_weights(of.inputs(), STATE)
    teacher = Scores(of.teacher, head) if objective.inputs.uses_teacher else None
    output = compute_loss(objective, Scores(of.student, head), teacher, tokens, LENGTHS)
    return output.total / output.count


def compare(actual: Tensor, expected: Tensor, student: Tensor) -> None:
    (gradient,) = torch.autograd.grad(actual, student)
    (wanted,) = torch.autograd.grad(expected, student)
    assert expected.abs() > 1e-3
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(gradient, wanted, rtol=0, atol=1e-10)


def distilled(of: Batch, **settings: Any) -> list[Tensor]:
    chosen = Settings(**settings)
    return [
        token_loss(
            of.student[i], of.teacher[i], chosen, token=int(of.ids[i]), old_logprob=float(of.old[i])
        )
        for i in range(NUMBER)
    ]


def logprob(logits: Tensor, token: int) -> Tensor:
    return softmax(logits)[token].log()


def policy(
    of: Batch,
    *,
    rewards: list[float] = REWARDS,
    scale: str = "std",
    high: float = 0.2,
    kl: float = 0.0,
) -> list[Tensor]:
    advantages = slow.group_advantages(rewards, GROUPS, scale=scale, eps=1e-4)
    losses = []
    for i in range(NUMBER):
        loss = slow.surrogate(
            of.student[i],
            int(of.ids[i]),
            old_logprob=float(of.old[i]),
            advantage=advantages[ROW_OF[i]],
            clip_low=0.2,
            clip_high=high,
        )
        if kl:
            d = logprob(of.teacher[i], int(of.ids[i])) - logprob(of.student[i], int(of.ids[i]))
            loss = loss + kl * (d.exp() - d - 1)
        losses.append(loss)
    return losses


def sampled(of: Batch) -> list[Tensor]:
    losses = []
    for i in range(NUMBER):
        own = logprob(of.student[i], int(of.ids[i]))
        advantage = logprob(of.teacher[i], int(of.ids[i])).item() - own.item()
        losses.append(-advantage * own)
    return losses


def overlong(limit: int, margin: int) -> list[float]:
    penalties = [min(max(n - (limit - margin), 0) / margin, 1) for n in LENGTHS]
    return [reward - penalty for reward, penalty in zip(REWARDS, penalties, strict=True)]


Slow = Callable[[Batch], Tensor]
NOT_FIRST = [m and place >= 3 for m, place in zip(MASK, PLACE, strict=True)]
WHOLE = [m and FINISHED[row] for m, row in zip(MASK, ROW_OF, strict=True)]
RATE = torch.tensor([1 / 3, 2 / 3])  # in float32, as weights are
WEIGHT = [float(RATE[GROUPS[row]] * (1 - RATE[GROUPS[row]])) for row in ROW_OF]
PRESETS: list[tuple[str, Objective, Slow]] = [
    (
        "sdpo",
        Distillation(kind="js", beta=0.5, top_k=3, importance_clip=2.0, token_weights=[Only()]),
        lambda b: slow_mean(
            distilled(b, kind="js", beta=0.5, top_k=3, importance_clip=2.0), LENGTHS, kept=MASK
        ),
    ),
    (
        "sdpo_feedback",
        Distillation(kind="reverse_kl", top_k=2, importance_clip=2.0, token_weights=[Only()]),
        lambda b: slow_mean(
            distilled(b, kind="reverse_kl", top_k=2, importance_clip=2.0), LENGTHS, kept=MASK
        ),
    ),
    (
        "sdft",
        Distillation(reduction="sequence", token_weights=[SkipFirst(3), Only()]),
        lambda b: slow_mean(distilled(b), LENGTHS, kept=NOT_FIRST, reduction="sequence"),
    ),
    (
        "sdft as the paper writes it",
        Distillation(kind="reverse_kl", reduction="sequence", token_weights=[SkipFirst(3), Only()]),
        lambda b: slow_mean(
            distilled(b, kind="reverse_kl"), LENGTHS, kept=NOT_FIRST, reduction="sequence"
        ),
    ),
    (
        "opsd",
        Distillation(element_clip=0.05, token_weights=[Only()]),
        lambda b: slow_mean(distilled(b, element_clip=0.05), LENGTHS, kept=MASK),
    ),
    (
        "grpo",
        PolicyGradient(reduction="sequence", token_weights=[Only()]),
        lambda b: slow_mean(policy(b), LENGTHS, kept=MASK, reduction="sequence"),
    ),
    (
        "grpo with a reference policy",
        PolicyGradient(kl=0.3, token_weights=[Only(), PassRate()]),
        lambda b: slow_mean(policy(b, kl=0.3), LENGTHS, kept=MASK, scale=WEIGHT),
    ),
    (
        "dr_grpo",
        PolicyGradient(
            scale="none", reduction="constant", constant_tokens=9, token_weights=[Only()]
        ),
        lambda b: slow_mean(
            policy(b, scale="none"), LENGTHS, kept=MASK, reduction="constant", constant=9
        ),
    ),
    (
        "dapo",
        PolicyGradient(
            clip_high=0.28,
            overlong_limit=5,
            overlong_margin=2,
            token_weights=[Only(), MixedGroups(), FinishedOnly()],
        ),
        lambda b: slow_mean(policy(b, rewards=overlong(5, 2), high=0.28), LENGTHS, kept=WHOLE),
    ),
    (
        "sdpo's hybrid",
        Mixture(
            terms=[PolicyGradient(scale="none"), SampledToken()],
            coefficients=[0.75, 0.25],
            token_weights=[Only()],
        ),
        lambda b: slow_mean(
            [
                0.75 * reward + (0.25 * teacher if b.seen[row] else 0)
                for reward, teacher, row in zip(
                    policy(b, scale="none"), sampled(b), ROW_OF, strict=True
                )
            ],
            LENGTHS,
            kept=MASK,
        ),
    ),
]


@pytest.mark.parametrize(
    "head", [None, Head(torch.eye(VOCAB, dtype=torch.float64))], ids=["logits", "linear"]
)
@pytest.mark.parametrize(
    ("objective", "expected"), [p[1:] for p in PRESETS], ids=[p[0] for p in PRESETS]
)
def test_a_preset_is_its_formula(objective: Objective, expected: Slow, head: Any) -> None:
    of = batch(seen=not isinstance(objective, Mixture))
    compare(found(objective, of, head), expected(of), of.student)


def test_hybrid_is_a_policy_gradient_on_the_mixed_advantage() -> None:
    """A = lam A_GRPO + (1 - lam) A_SDPO (SDPO), once on policy."""
    of = batch()
    plain = Batch(of.student, of.teacher, of.ids, None, of.seen)  # type: ignore[arg-type]
    mixture = Mixture(
        terms=[PolicyGradient(scale="none"), SampledToken()], coefficients=[0.75, 0.25]
    )
    (gradient,) = torch.autograd.grad(found(mixture, plain, None), of.student)
    reward = slow.group_advantages(REWARDS, GROUPS, scale="none", eps=0.0)
    losses = []
    for i in range(NUMBER):
        own = logprob(of.student[i], int(of.ids[i]))
        teacher = logprob(of.teacher[i], int(of.ids[i])).item() - own.item()
        losses.append(-(0.75 * reward[ROW_OF[i]] + 0.25 * teacher) * own)
    (wanted,) = torch.autograd.grad(slow_mean(losses, LENGTHS), of.student)
    torch.testing.assert_close(gradient, wanted, rtol=0, atol=1e-10)


def test_without_any_teacher_a_hybrid_is_its_policy_gradient() -> None:
    of = batch()
    inputs = make_inputs(
        LENGTHS,
        ids=of.ids,
        groups=torch.tensor(GROUPS),
        rewards=torch.tensor(REWARDS, dtype=torch.float64),
        has_view=torch.zeros(len(LENGTHS), dtype=torch.bool),
    )
    mixture = Mixture(terms=[SampledToken(), PolicyGradient()], coefficients=[0.5, 0.5])
    both = [
        compute_loss(
            o, Scores(of.student, None), None, o.apply_token_weights(inputs, STATE), LENGTHS
        ).total
        for o in (mixture, PolicyGradient())
    ]
    torch.testing.assert_close(both[0], 0.5 * both[1])


def test_terms_keep_their_own_advantages_masks_and_scales() -> None:
    @dataclass(frozen=True)
    class Half(PolicyGradient):
        def make_token_inputs(self, inputs: ObjectiveInputs, state: StepState) -> Any:
            kept = inputs.positions % 2 == 0
            return replace(
                super().make_token_inputs(inputs, state), kept=kept, scale=3 * torch.ones(len(kept))
            )

    of = batch()
    mixture = Mixture(terms=[PolicyGradient(), Half(scale="none")], coefficients=[1.0, 0.5])
    even = [place % 2 == 0 for place in PLACE]
    losses = [
        a + (1.5 * b if e else 0)
        for a, b, e in zip(policy(of), policy(of, scale="none"), even, strict=True)
    ]
    compare(found(mixture, of, None), slow_mean(losses, LENGTHS), of.student)


@pytest.mark.parametrize(
    ("terms", "coefficients", "words"),
    [
        ([], [], "one or more terms"),
        ([SampledToken()], [1.0, 2.0], r"terms \(1\) and coefficients \(2\)"),
        ([SampledToken(temperature=2.0)], [1.0], "sets temperature"),
        ([Distillation(token_weights=[SkipFirst()])], [1.0], "sets token_weights"),
        ([Mixture(terms=[SampledToken()], coefficients=[1.0])], [1.0], "no mixtures inside"),
    ],
)
def test_mixtures_that_can_t_be_are_refused(terms: Any, coefficients: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Mixture(terms=terms, coefficients=coefficients)


def test_constant_means_by_hand() -> None:
    """Sums of 2 and 1 tokens over 10, the mean of the two rows that have any kept token."""
    logits = torch.zeros(5, VOCAB, dtype=torch.float64, requires_grad=True)
    objective = PolicyGradient(scale="none", reduction="constant", constant_tokens=10)
    inputs = make_inputs(
        [2, 0, 1, 2], groups=torch.zeros(4, dtype=torch.long), rewards=torch.tensor([1.0, 0, 1, 0])
    )
    tokens = objective.apply_token_weights(inputs, STATE)
    kept = torch.tensor([True, True, True, False, False])
    output = compute_loss(
        objective, Scores(logits, None), None, replace(tokens, kept=kept), [2, 0, 1, 2]
    )
    assert output.count == 2 * 10
    assert (output.total / output.count).item() == pytest.approx(-(0.5 * 2 + 0.5) / 20, abs=1e-6)


def test_a_constant_is_asked_for_where_it_is_needed_and_only_there() -> None:
    for settings in ({"reduction": "constant"}, {"constant_tokens": 5}):
        with pytest.raises(ValueError, match="constant_tokens"):
            PolicyGradient(**settings)  # type: ignore[arg-type]


def test_unknown_probabilities_of_the_sampling_policy_give_weight_one() -> None:
    of = batch()
    unknown = torch.full_like(of.old, torch.nan)
    nothing = Batch(of.student, of.teacher, of.ids, None, of.seen, unknown)  # type: ignore[arg-type]
    for objective in (
        Distillation(importance_clip=0.5),
        SampledToken(importance_clip=0.5),
        PolicyGradient(importance_clip=2.0),
    ):
        plain = replace(objective, importance_clip=None)
        on_policy = Batch(of.student, of.teacher, of.ids, None, of.seen)  # type: ignore[arg-type]
        expected = found(plain, on_policy, None)
        got = found(objective, nothing, None)
        if not isinstance(objective, PolicyGradient):
            expected = expected * 0.5  # the clip is below 1
        torch.testing.assert_close(got, expected)


LOCAL = [SkipFirst(1), FinishedOnly(), MixedGroups(), PassRate(), Position(0.5, 2.0)]
"""Masks and weights that read no more than a group."""
WEIGHTED = [
    Distillation(kind="js", token_weights=LOCAL),
    Distillation(reduction="sequence", token_weights=LOCAL),
    PolicyGradient(reduction="constant", constant_tokens=7, token_weights=LOCAL),
    PolicyGradient(kl=0.1, token_weights=LOCAL),
    Mixture(terms=[PolicyGradient(), SampledToken()], coefficients=[0.5, 0.5], token_weights=LOCAL),
]


def part(of: Batch, objective: Objective, rows: list[int]) -> tuple[Tensor, float]:
    """Total and count of some of the rows, in that order."""
    lengths = [LENGTHS[r] for r in rows]
    starts = [sum(LENGTHS[:r]) for r in rows]
    at = [s + t for s, n in zip(starts, lengths, strict=True) for t in range(n)]
    inputs = make_inputs(
        lengths,
        ids=of.ids[at],
        groups=torch.tensor(GROUPS)[rows],
        rewards=torch.tensor(REWARDS, dtype=torch.float64)[rows],
        correct=torch.tensor(REWARDS)[rows] == 1,
        finished=torch.tensor(FINISHED)[rows],
        has_view=of.seen[rows],
    )
    teacher = Scores(of.teacher[at], None) if objective.inputs.uses_teacher else None
    output = compute_loss(
        objective,
        Scores(of.student[at], None),
        teacher,
        objective.apply_token_weights(inputs, STATE),
        lengths,
    )
    return output.total, output.count


@pytest.mark.parametrize("objective", WEIGHTED, ids=lambda o: type(o).__name__ + o.reduction)
def test_the_order_of_rollouts_and_the_cut_into_batches_change_nothing(
    objective: Objective,
) -> None:
    of = batch(seen=False)
    whole, count = part(of, objective, list(range(6)))
    (gradient,) = torch.autograd.grad(whole / count, of.student)
    assert gradient.abs().max() > 1e-3
    shuffled = part(of, objective, [4, 0, 3, 2, 5, 1])
    pieces = [part(of, objective, rows) for rows in ([0, 1, 2], [3, 4, 5])]
    cut = (pieces[0][0] + pieces[1][0], pieces[0][1] + pieces[1][1])
    for total, number in (shuffled, cut):
        assert number == count
        (other,) = torch.autograd.grad(total / number, of.student)
        torch.testing.assert_close(total, whole, rtol=0, atol=1e-12)
        torch.testing.assert_close(other, gradient, rtol=0, atol=1e-12)


def test_rebalancing_is_blind_to_order_too() -> None:
    of, objective = batch(), Distillation(token_weights=[Rebalance()])
    whole, shuffled = (part(of, objective, rows) for rows in (list(range(6)), [5, 3, 1, 0, 2, 4]))
    torch.testing.assert_close(whole[0], shuffled[0], rtol=0, atol=1e-12)
