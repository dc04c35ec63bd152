"""RLCSD, RLSD, SRPO and contrastive OPSD against slow loops, by hand, and by their invariances."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from lightning_sd._serialize import build, describe
from lightning_sd.objectives import (
    ContrastiveDistillation,
    ContrastivePolicy,
    Distillation,
    MixedGroups,
    Objective,
    PolicyGradient,
    RoutedPolicy,
    SignAnchoredPolicy,
    StepState,
    TokenInputs,
)
from lightning_sd.objectives.inputs import ObjectiveInputs
from lightning_sd.objectives.reduce import compute_loss
from lightning_sd.scoring import Scores
from tests.objectives.contrastive_batches import batch, matrix, ours
from tests.reference import contrastive as slow
from tests.reference.divergence import Settings

SEEDS = range(4)


def check(objective: Objective, expected: Any, seed: int, **kwargs: Any) -> None:
    """Value and gradients, of the hidden states and of the head, on both ways to the loss."""
    for head in (True, False):
        texts, weight = batch(seed), matrix(seed)
        output = ours(texts, weight, replace(objective, chunk_tokens=5), head=head, **kwargs)
        found = output.total / output.count
        reference = expected(texts, weight)
        assert found.item() == pytest.approx(reference.item(), abs=1e-10)
        leaves = [weight, *(text.student for text in texts)]
        given = torch.autograd.grad(found, leaves, allow_unused=True)
        wanted = torch.autograd.grad(reference, leaves, allow_unused=True)
        for leaf, a, b in zip(leaves, given, wanted, strict=True):
            none = torch.zeros_like(leaf)
            torch.testing.assert_close(
                none if a is None else a, none if b is None else b, rtol=0, atol=1e-10
            )


RLCSD: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"reduction": "sequence"}, {"per_rollout": True}),
    ({"eta": 0.3, "reduction": "sequence"}, {"eta": 0.3, "per_rollout": True}),
    ({"tau": 1.3, "eta": 0.5, "delta": 0.1}, {"tau": 1.3, "eta": 0.5, "delta": 0.1}),
    (
        {"lam": 2.1},
        {"lam": 2.1, "beta": 1.0, "clip": 9.0},
    ),
    ({"temperature": 1.4}, {"temperature": 1.4}),
]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("options", "settings"), RLCSD, ids=str)
def test_rlcsd_equals_the_slow_loop(
    options: dict[str, Any], settings: dict[str, Any], seed: int
) -> None:
    def expected(texts: Any, weight: Any) -> Any:
        return slow.rlcsd(texts, weight, **settings)

    check(ContrastivePolicy(**options), expected, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_rlcsd_off_policy_is_clipped_as_ppo_is(seed: int) -> None:
    def expected(texts: Any, weight: Any) -> Any:
        return slow.rlcsd(texts, weight, on_policy=False)

    check(ContrastivePolicy(), expected, seed, on_policy=False)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("contrast", [False, True])
@pytest.mark.parametrize(
    ("options", "step", "settings"),
    [
        ({}, 0, {}),
        ({}, 20, {"lam": 0.3}),
        ({}, 50, {"lam": 0.0}),
        ({}, 900, {"lam": 0.0}),
        ({"decay_steps": None, "lam": 1.0, "weight_clip": 0.9}, 70, {"lam": 1.0, "clip": 0.9}),
    ],
)
def test_rlsd_equals_the_slow_loop(
    options: dict[str, Any], step: int, settings: dict[str, Any], contrast: bool, seed: int
) -> None:
    def expected(texts: Any, weight: Any) -> Any:
        return slow.rlsd(texts, weight, contrasted=contrast, **settings)

    check(SignAnchoredPolicy(contrast=contrast, **options), expected, seed, step=step)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ({}, {"settings": Settings("js", top_k=5)}),
        ({"entropy_beta": 0.0}, {"beta": 0.0, "settings": Settings("js", top_k=5)}),
        (
            {"entropy_beta": 2.5, "route": "correct"},
            {"beta": 2.5, "by_verdict": True, "settings": Settings("js", top_k=5)},
        ),
    ],
    ids=str,
)
def test_srpo_equals_the_slow_loop(
    options: dict[str, Any], settings: dict[str, Any], seed: int
) -> None:
    terms = (PolicyGradient(), Distillation(kind="js", top_k=5))

    def expected(texts: Any, weight: Any) -> Any:
        return slow.srpo(texts, weight, **settings)

    check(RoutedPolicy(terms=terms, coefficients=(1.0, 1.0), **options), expected, seed)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ({}, {"settings": Settings()}),
        ({"element_clip": 0.05}, {"settings": Settings(element_clip=0.05)}),
        (
            {"alpha": 0.0, "gate_tau": None},
            {"alpha": 0.0, "gate_tau": None, "settings": Settings()},
        ),
        (
            {"alpha": 2.0, "gate_tau": 0.1, "kind": "reverse_kl", "top_k": 3, "floor": -1.5},
            {
                "alpha": 2.0,
                "gate_tau": 0.1,
                "floor": -1.5,
                "settings": Settings("reverse_kl", top_k=3),
            },
        ),
        (
            {"kind": "js", "top_k": 3, "support": "teacher", "tail": False},
            {"settings": Settings("js", top_k=3, support="teacher", tail=False)},
        ),
    ],
    ids=str,
)
def test_contrastive_opsd_equals_the_slow_loop(
    options: dict[str, Any], settings: dict[str, Any], seed: int
) -> None:
    def expected(texts: Any, weight: Any) -> Any:
        return slow.opsd_contrast(texts, weight, **settings)

    check(ContrastiveDistillation(**options), expected, seed)


def test_the_random_batches_meet_every_branch() -> None:
    """Moved and unmoved tokens, clamped signs, 1 to 3 wrong hints, lone and missing views."""
    cases = set()
    for seed in SEEDS:
        texts, weight = batch(seed), matrix(seed)
        for text, advantage in zip(texts, slow.advantages(texts), strict=True):
            cases.add(("view", text.right is not None and bool(text.wrong)))
            cases.add(("tokens", bool(text.ids)))
            if text.right is None or not text.wrong:
                continue
            cases.add(("wrong", len(text.wrong)))
            for t in range(len(text.ids)):
                shaped, moved = slow.rlcsd_advantage(advantage, slow.contrast(text, t, weight))
                cases.add(("moved", moved))
                cases.add(("kept", text.mask[t]))
                cases.add(("clamped", shaped == 0 and advantage != 0, advantage > 0))
    wanted = {("wrong", k) for k in (1, 2, 3)}
    wanted |= {
        (name, flag) for name in ("view", "tokens", "moved", "kept") for flag in (True, False)
    }
    wanted |= {("clamped", flag, sign) for flag in (True, False) for sign in (True, False)}
    assert wanted <= cases


def inputs(**fields: Any) -> ObjectiveInputs:
    """One group: rollout 0 is right, 1 is wrong; two tokens each, 4 of a vocabulary."""
    given = {
        "rewards": torch.tensor([1.0, 0.0]),
        "groups": torch.tensor([0, 0]),
        "correct": torch.tensor([True, False]),
        "finished": torch.ones(2, dtype=torch.bool),
        "lengths": torch.tensor([2, 2]),
        "by_student": torch.ones(2, dtype=torch.bool),
        "has_view": torch.ones(2, dtype=torch.bool),
        "ids": torch.tensor([0, 1, 2, 3]),
        "rows": torch.tensor([0, 0, 1, 1]),
        "positions": torch.tensor([0, 1, 0, 1]),
    }
    return ObjectiveInputs(**{**given, **fields})


def test_sign_clamp_and_two_means_by_hand() -> None:
    """Advantages are +-0.5 (no division by std). Evidence: none, strongly for, against, none.

    Token 1 moves from 0.5 to 1.0; token 2 of the wrong rollout from -0.5 to -1.0; the others stay.
    Residuals of 0.8 the other way would turn both advantages over: they become 0.
    """
    nan = torch.nan
    right = torch.tensor([0.5, 0.8, 0.1, 0.3]).log()
    wrong = torch.tensor([[0.5, nan], [0.1, 0.3], [0.9, 0.7], [0.3, 0.3]]).log()
    given = inputs(teacher_logprobs=right, contrast_logprobs=wrong)
    tokens = ContrastivePolicy(scale="none", eta=3.0).apply_token_weights(given, StepState())
    torch.testing.assert_close(tokens.advantages, torch.tensor([0.5, 1.0, -1.0, -0.5]))
    # Two of four tokens on each path: N / N_k = 2, the moved ones times eta.
    assert tokens.scale is not None
    assert tokens.scale.tolist() == [2.0, 6.0, 6.0, 2.0]
    wrong = torch.tensor([[0.5, nan], [0.95, 0.93], [0.05, nan], [0.3, 0.3]]).log()
    against = inputs(teacher_logprobs=right, contrast_logprobs=wrong)
    flipped = ContrastivePolicy(scale="none", lam=0.8).apply_token_weights(against, StepState())
    assert flipped.advantages is not None
    assert flipped.advantages.tolist() == [0.5, 0.0, 0.0, -0.5]


def test_a_missing_wrong_hint_leaves_its_tokens_out() -> None:
    right = torch.tensor([0.5, 0.8, 0.1, 0.3]).log()
    wrong = torch.tensor([[0.5], [0.1], [torch.nan], [torch.nan]]).log()
    given = inputs(teacher_logprobs=right, contrast_logprobs=wrong)
    for objective in (ContrastivePolicy(), SignAnchoredPolicy(contrast=True)):
        tokens = objective.apply_token_weights(given, StepState())
        assert tokens.kept is not None
        assert tokens.advantages is not None
        assert tokens.kept.tolist() == [True, True, False, False]
        assert tokens.advantages.isfinite().all()


@pytest.mark.parametrize("reduction", ["token", "sequence"])
@pytest.mark.parametrize("seed", SEEDS)
def test_without_any_moved_token_it_is_grpo_to_the_last_bit(seed: int, reduction: Any) -> None:
    """On the rollouts that have hints; advantages compare all of them, as GRPO's do."""
    texts, weight = batch(seed), matrix(seed)
    whole = [replace(t, right=t.student.detach(), wrong=[t.student.detach()]) for t in texts]
    losses = []
    for objective in (
        ContrastivePolicy(delta=0.5, reduction=reduction),
        PolicyGradient(reduction=reduction),
    ):
        output = ours(whole, weight, objective)
        grads = torch.autograd.grad(output.total / output.count, [weight])
        losses.append((output.total, output.count, grads[0]))
    assert losses[0][0] == losses[1][0]
    assert losses[0][1] == losses[1][1]
    assert torch.equal(losses[0][2], losses[1][2])


@pytest.mark.parametrize("seed", SEEDS)
def test_rlsd_is_grpo_once_lambda_is_gone(seed: int) -> None:
    texts, weight = batch(seed), matrix(seed)
    texts = [replace(t, right=t.student.detach()) for t in texts]
    anchored = ours(texts, weight, SignAnchoredPolicy(), step=50)
    assert anchored.total == ours(texts, weight, PolicyGradient()).total


@pytest.mark.parametrize(
    "objective",
    [ContrastivePolicy(), RoutedPolicy(), ContrastiveDistillation(), SignAnchoredPolicy()],
    ids=lambda objective: type(objective).__name__,
)
def test_order_of_rollouts_and_of_hints_does_not_matter(objective: Objective) -> None:
    texts, weight = batch(5), matrix(5)
    shuffled = [texts[i] for i in torch.randperm(len(texts)).tolist()]
    shuffled = [replace(t, wrong=t.wrong[::-1]) for t in shuffled]
    a, b = ours(texts, weight, objective), ours(shuffled, weight, objective)
    assert a.count == b.count
    assert a.total.item() == pytest.approx(b.total.item(), rel=1e-12)


@pytest.mark.parametrize("objective", [ContrastivePolicy(), SignAnchoredPolicy(contrast=True)])
def test_columns_that_nobody_fills_change_nothing(objective: Objective) -> None:
    right = torch.tensor([0.5, 0.8, 0.1, 0.3]).log()
    wrong = torch.tensor([[0.5], [0.1], [0.9], [0.3]]).log()
    padded = torch.cat([wrong, torch.full((4, 2), torch.nan)], -1)
    found = [
        objective.apply_token_weights(
            inputs(teacher_logprobs=right, contrast_logprobs=columns), StepState()
        )
        for columns in (wrong, padded)
    ]
    assert found[0].advantages is not None
    assert found[1].advantages is not None
    assert torch.equal(found[0].advantages, found[1].advantages)


@pytest.mark.parametrize("objective", [ContrastivePolicy(), ContrastivePolicy(eta=0.4)])
@pytest.mark.parametrize("seed", SEEDS)
def test_halves_that_add_up_their_counts_make_the_whole(
    objective: ContrastivePolicy, seed: int
) -> None:
    """What two ranks do: sums of both, divided by the count of both."""
    texts, weight = batch(seed, groups=4), matrix(seed)
    whole = ours(texts, weight, objective)
    halves = [texts[:8], texts[8:]]
    seen: list[torch.Tensor] = []

    def note(value: torch.Tensor) -> torch.Tensor:
        seen.append(value)
        return value

    for half in halves:
        ours(half, weight, objective, total=note)
    assert len(seen) == 2  # once a rank
    both = seen[0] + seen[1]
    parts = [ours(half, weight, objective, total=lambda _: both) for half in halves]
    total = sum(part.total.item() for part in parts)
    count = sum(part.count for part in parts)
    assert total / count == pytest.approx((whole.total / whole.count).item(), rel=1e-12)


def test_srpo_weights_are_averaged_over_all_ranks() -> None:
    texts, weight = batch(3, groups=4), matrix(3)
    whole = ours(texts, weight, RoutedPolicy())
    halves, seen = [texts[:8], texts[8:]], []
    for half in halves:
        ours(half, weight, RoutedPolicy(), total=lambda v: seen.append(v) or v)
    assert len(seen) == 2
    both = seen[0] + seen[1]
    parts = [ours(half, weight, RoutedPolicy(), total=lambda _: both) for half in halves]
    total, count = sum(p.total.item() for p in parts), sum(p.count for p in parts)
    assert total / count == pytest.approx((whole.total / whole.count).item(), rel=1e-12)


def test_masked_groups_leave_both_means() -> None:
    """MixedGroups drops what ground-truth hints keep: questions that nobody got right."""
    right = torch.tensor([0.5, 0.8, 0.1, 0.3]).log()
    wrong = torch.tensor([[0.5], [0.1], [0.9], [0.3]]).log()
    given = inputs(
        teacher_logprobs=right,
        contrast_logprobs=wrong,
        groups=torch.tensor([0, 1]),
        correct=torch.tensor([False, False]),
    )
    assert ContrastivePolicy().apply_token_weights(given, StepState()).kept.all()  # type: ignore[union-attr]
    masked = ContrastivePolicy(token_weights=[MixedGroups()]).apply_token_weights(
        given, StepState()
    )
    assert not masked.kept.any()  # type: ignore[union-attr]


def test_no_teacher_logits_are_formed_for_shaped_advantages() -> None:
    assert not ContrastivePolicy().inputs.teacher_logits
    assert not SignAnchoredPolicy().inputs.teacher_logits


@pytest.mark.parametrize("objective", [ContrastivePolicy(), SignAnchoredPolicy(contrast=True)])
def test_a_context_without_contrasts_is_named(objective: Objective) -> None:
    with pytest.raises(ValueError, match="ContrastiveHints"):
        objective.apply_token_weights(inputs(teacher_logprobs=torch.zeros(4)), StepState())


def test_contrastive_opsd_names_a_context_without_contrasts() -> None:
    with pytest.raises(ValueError, match="ContrastiveHints"):
        ContrastiveDistillation().build_target(Scores(torch.zeros(1, 3), None), [])


@pytest.mark.parametrize(
    ("kind", "options", "named"),
    [
        (ContrastivePolicy, {"tau": 0.0}, "tau=0.0"),
        (ContrastivePolicy, {"delta": -0.1}, "delta=-0.1"),
        (ContrastivePolicy, {"kl": 0.1}, "kl=0.1"),
        (ContrastivePolicy, {"reduction": "constant", "constant_tokens": 8}, "constant"),
        (SignAnchoredPolicy, {"lam": 1.5}, "lam=1.5"),
        (SignAnchoredPolicy, {"weight_clip": -0.1}, "weight_clip"),
        (SignAnchoredPolicy, {"decay_steps": 0}, "decay_steps=0"),
        (RoutedPolicy, {"entropy_beta": -1.0}, "entropy_beta"),
        (RoutedPolicy, {"route": "luck"}, "route='luck'"),
        (
            RoutedPolicy,
            {"terms": (Distillation(), Distillation()), "coefficients": (1, 1)},
            "terms",
        ),
        (ContrastiveDistillation, {"alpha": -0.5}, "alpha"),
        (ContrastiveDistillation, {"gate_tau": 0.0}, "gate_tau"),
    ],
)
def test_bad_settings_name_themselves(kind: Any, options: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        kind(**options)


@pytest.mark.parametrize(
    "objective",
    [
        ContrastivePolicy(tau=0.5),
        SignAnchoredPolicy(contrast=True),
        RoutedPolicy(entropy_beta=2.0),
        ContrastiveDistillation(kind="js"),
    ],
    ids=lambda objective: type(objective).__name__,
)
def test_settings_survive_a_checkpoint(objective: Objective) -> None:
    assert build(describe(objective)) == objective


def test_equal_hints_teach_nothing() -> None:
    """The gate is shut where the hints agree, whatever the student thinks."""
    scores = Scores(torch.randn(3, 6, dtype=torch.float64), None)
    student = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    objective = ContrastiveDistillation()
    output = compute_loss(
        objective,
        Scores(student, None),
        objective.build_target(scores, [scores, scores]),
        TokenInputs(torch.zeros(3, dtype=torch.long)),
        [3],
    )
    assert output.total.abs() < 1e-12
