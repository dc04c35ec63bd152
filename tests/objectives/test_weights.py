"""Every mask and weight by hand or by a slow loop, and on batches with nothing in them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_sd.objectives import (
    AdvantageSign,
    AfterMarker,
    Distillation,
    FinishedOnly,
    MixedGroups,
    PassRate,
    Position,
    Rebalance,
    SkipFirst,
    StepState,
    TopTokens,
)
from tests.reference.inputs import STATE, make_inputs

LENGTHS = [3, 0, 2, 4]
CORRECT = torch.tensor([True, False, False, False])
GROUPS = torch.tensor([7, 7, 7, 2])
ALL = [
    AdvantageSign(),
    SkipFirst(),
    FinishedOnly(),
    MixedGroups(),
    AfterMarker(),
    TopTokens(),
    TopTokens(by="gap"),
    Position(),
    PassRate(),
    Rebalance(),
]


def test_skip_first() -> None:
    kept = SkipFirst(2)(make_inputs(LENGTHS), STATE)
    assert kept.tolist() == [False, False, True, False, False, False, False, True, True]


def test_finished_only() -> None:
    inputs = make_inputs(LENGTHS, finished=torch.tensor([True, True, False, True]))
    assert FinishedOnly()(inputs, STATE).tolist() == [True] * 3 + [False] * 2 + [True] * 4


def test_mixed_groups_leaves_out_what_has_no_contrast() -> None:
    inputs = make_inputs(LENGTHS, groups=GROUPS, correct=CORRECT)
    assert MixedGroups()(inputs, STATE).tolist() == [True] * 5 + [False] * 4
    right = make_inputs(LENGTHS, groups=GROUPS, correct=torch.ones(4, dtype=torch.bool))
    assert not MixedGroups()(right, STATE).any()
    # A teacher's text is not a sibling: without it the first group has no success.
    brought = torch.tensor([False, True, True, True])
    inputs = make_inputs(LENGTHS, groups=GROUPS, correct=CORRECT, by_student=brought)
    assert not MixedGroups()(inputs, STATE).any()


def test_after_the_first_marker(tokenizer: Any) -> None:
    texts = ["hm</think>so</think>", "no marker", "</think>", ""]
    rows = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    inputs = make_inputs(
        [len(row) for row in rows],
        ids=torch.tensor([i for row in rows for i in row]),
    )
    kept = AfterMarker()(inputs, StepState(tokenizer=tokenizer))
    assert tokenizer.decode(inputs.ids[kept]) == "so</think>"
    with pytest.raises(ValueError, match="marker=''"):
        AfterMarker("")(inputs, StepState(tokenizer=tokenizer))


@pytest.mark.parametrize(("share", "number"), [(0.01, 1), (0.34, 3), (0.5, 4), (1.0, 9)])
def test_top_share_by_entropy(share: float, number: int) -> None:
    entropy = torch.tensor([0.3, 0.9, 0.1, 0.8, 0.2, 0.7, 0.4, 0.6, 0.5])
    kept = TopTokens(share)(make_inputs(LENGTHS, student_entropy=entropy), STATE)
    assert set(entropy[kept].tolist()) == set(sorted(entropy.tolist())[-number:])


def test_top_share_by_gap_takes_no_tokens_without_teacher() -> None:
    student = torch.full((9,), -5.0)
    teacher = torch.tensor([-5.1, -5.9, -5.0, 0.0, 0.0, -4.0, -5.2, -5.0, -5.3])
    seen = torch.tensor([True, True, False, True])
    inputs = make_inputs(LENGTHS, student_logprobs=student, teacher_logprobs=teacher, has_view=seen)
    assert TopTokens(0.22, "gap")(inputs, STATE).nonzero().flatten().tolist() == [1, 5]
    assert TopTokens(by="gap").statistics == {"student_logprobs", "teacher_logprobs"}
    assert Distillation(token_weights=[TopTokens()]).inputs.statistics == {"student_entropy"}
    # No view in the whole batch, as a mixture with a policy gradient may have it.
    assert TopTokens(0.1, "gap")(make_inputs(LENGTHS, student_logprobs=student), STATE).all()


def test_the_sign_of_the_advantage_leaves_out_tokens_without_a_teacher() -> None:
    student = torch.full((9,), -5.0)
    teacher = torch.tensor([-5.1, -4.9, -5.0, 0.0, 0.0, -4.0, -5.2, -5.0, -float("inf")])
    seen = torch.tensor([True, True, False, True])
    inputs = make_inputs(LENGTHS, student_logprobs=student, teacher_logprobs=teacher, has_view=seen)
    assert AdvantageSign()(inputs, STATE).nonzero().flatten().tolist() == [1, 5]
    assert AdvantageSign("negative")(inputs, STATE).nonzero().flatten().tolist() == [0, 6, 8]
    without = make_inputs(LENGTHS, student_logprobs=student)
    assert not any(AdvantageSign(sign)(without, STATE).any() for sign in ("positive", "negative"))
    with pytest.raises(ValueError, match="sign='up'"):
        AdvantageSign("up")  # type: ignore[arg-type]


def test_position_rises_along_each_completion() -> None:
    weight = Position(0.5, 2.0)(make_inputs([3, 0, 1, 2]), STATE)
    assert weight.tolist() == [0.5, 1.25, 2.0, 0.5, 0.5, 2.0]


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_pass_rate(power: float) -> None:
    weight = PassRate(power)(make_inputs(LENGTHS, groups=GROUPS, correct=CORRECT), STATE)
    expected = (1 / 3 * 2 / 3) ** power
    assert weight.tolist() == pytest.approx([expected] * 5 + [0.0] * 4)


@pytest.mark.parametrize("right", range(6))
@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (0.5, 2.0)])
def test_rebalance_by_a_slow_loop(right: int, a: float, b: float) -> None:
    number = 5
    correct = [i < right for i in range(number)]
    share = min(max(right / number, 1 / number), 1 - 1 / number)
    raw = [(1 - share) ** a if c else share**b for c in correct]
    expected = [w / (sum(raw) / number) for w in raw]
    weight = Rebalance(a, b)(make_inputs([1] * number, correct=torch.tensor(correct)), STATE)
    assert weight.tolist() == pytest.approx(expected)


def test_rebalance_counts_all_ranks_and_asks_them_once() -> None:
    asked = []

    def total(value: Any) -> Any:
        asked.append(value)
        return value + torch.tensor([3.0, 0.0])

    inputs = make_inputs([1, 1], correct=torch.tensor([True, False]))
    state = StepState(sum_over_ranks=total)
    # 4 right of 5: weights 0.2 and 0.8, of mean (4 * 0.2 + 0.8) / 5.
    assert Rebalance()(inputs, state).tolist() == pytest.approx([0.2 / 0.32, 0.8 / 0.32])
    Rebalance()(make_inputs([]), state)
    assert len(asked) == 2


@pytest.mark.parametrize("weight", ALL, ids=str)
@pytest.mark.parametrize("lengths", [[], [0], [0, 0], [1], [1, 0]])
def test_nothing_breaks_on_batches_with_next_to_nothing(
    weight: Any, lengths: list[int], tokenizer: Any
) -> None:
    number = sum(lengths)
    some = {"student_logprobs": torch.zeros(number), "student_entropy": torch.zeros(number)}
    given = some if number else {}
    value = weight(make_inputs(lengths, **given), StepState(tokenizer=tokenizer))
    assert value.shape == (number,)
    assert value.dtype == torch.bool if weight.is_mask else value.isfinite().all()


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        (SkipFirst, {"tokens": 0}, "tokens=0"),
        (TopTokens, {"share": 0.0}, "share=0.0"),
        (TopTokens, {"by": "luck"}, "by='luck'"),
        (Position, {"first": -1.0}, "first=-1.0"),
        (PassRate, {"power": 0.0}, "power=0.0"),
    ],
)
def test_settings_out_of_range_are_named(kind: Any, settings: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        kind(**settings)
