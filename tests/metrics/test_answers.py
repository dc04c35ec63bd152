from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from lightning_sd.metrics import (
    AvgAtK,
    MajAtK,
    MeanLength,
    MeanReward,
    PassAtK,
    build_answer_metrics,
)
from lightning_sd.types import Question, Rollout, Verdict

QUESTION = Question(id="q", text="2+2?", messages=({"role": "user", "content": "2+2?"},))


def group(answers: str, right: str = "R", length: int = 3) -> list[Rollout]:
    """One rollout a letter; ``-`` has no answer, and only ``right`` is right."""
    return [
        Rollout(
            QUESTION,
            ids=(0,) * length,
            text="",
            group=0,
            verdict=Verdict(
                reward=float(letter == right),
                correct=letter == right,
                answer=None if letter == "-" else letter,
            ),
        )
        for letter in answers
    ]


def value(metric: Any, *groups: list[Rollout]) -> float:
    for each in groups:
        metric.update(each)
    result: float = metric.compute().item()
    return result


# answers, average, any right, majority
CASES = [
    ("RRRR", 1, 1, 1),
    ("aaaa", 0, 0, 0),
    ("Rabc", 0.25, 1, 0.25),
    ("RRab", 0.5, 1, 1),
    ("Raab", 0.25, 1, 0),
    ("RRaa", 0.5, 1, 0.5),
    ("RRaabb", 2 / 6, 1, 1 / 3),
    ("aabb", 0, 0, 0),
    ("----", 0, 0, 0),
    ("R---", 0.25, 1, 1),
    ("RR--aab", 2 / 7, 1, 0.5),
    ("a---", 0, 0, 0),
    ("R", 1, 1, 1),
    ("a", 0, 0, 0),
    ("-", 0, 0, 0),
]


@pytest.mark.parametrize(("answers", "average", "any_right", "majority"), CASES)
def test_by_hand(answers: str, average: float, any_right: float, majority: float) -> None:
    """A tie counts for the right winners' share, and no answer is no vote."""
    assert value(AvgAtK(), group(answers)) == pytest.approx(average)
    assert value(PassAtK(), group(answers)) == any_right
    assert value(MajAtK(), group(answers)) == pytest.approx(majority)


def test_each_question_weighs_the_same_however_many_answers_it_has() -> None:
    groups = group("RRRR"), group("a"), group("Ra")
    assert value(AvgAtK(), *groups) == pytest.approx((1 + 0 + 0.5) / 3)
    assert value(PassAtK(), *groups) == pytest.approx(2 / 3)
    assert value(MajAtK(), *groups) == pytest.approx((1 + 0 + 0.5) / 3)


def test_two_spellings_that_are_both_right_win_together() -> None:
    """The verifier may accept more than one normalised answer."""
    both = [*group("RRaa"), *group("XX", right="X")]
    assert value(MajAtK(), both) == pytest.approx(2 / 3)


def test_a_right_completion_without_an_answer_counts_but_does_not_vote() -> None:
    odd = group("-aa")
    verdict = Verdict(reward=1.0, correct=True, answer=None)
    right = Rollout(QUESTION, ids=(0,), text="", group=0, verdict=verdict)
    assert value(PassAtK(), [right, *odd]) == 1
    assert value(MajAtK(), [right, *odd]) == 0


def test_mean_length_in_tokens() -> None:
    assert value(MeanLength(), [*group("a", length=1), *group("b", length=4)]) == 2.5


def test_mean_reward_counts_what_is_partly_right() -> None:
    def rewarded(reward: float) -> Rollout:
        return Rollout(QUESTION, ids=(0,), text="", group=0, verdict=Verdict(reward, correct=False))

    assert value(MeanReward(), [rewarded(0.5), rewarded(-1.0)], [rewarded(1.0)]) == 0.375
    assert value(AvgAtK(), [rewarded(0.5)]) == 0


def test_k_answers_are_not_resampled_into_fewer() -> None:
    """Pass@k is of the k that were drawn: with one right among twelve it is 1."""
    assert value(PassAtK(), group("R" + "a" * 11)) == 1


def test_nothing_seen_is_nan_and_reset_forgets() -> None:
    metric = AvgAtK()
    metric.update(group("R"))
    metric.reset()
    assert math.isnan(metric.compute().item())


def test_halves_on_two_ranks_are_the_whole() -> None:
    """Ranks add up sums and counts; a mean of their means would weigh the smaller one more."""
    first, second, whole = AvgAtK(), AvgAtK(), AvgAtK()
    first.update(group("R"))
    for each in ("aa", "ab", "ac"):
        second.update(group(each))
        whole.update(group(each))
    whole.update(group("R"))
    total = first.total + second.total
    number = first.number + second.number
    assert (total / number).item() == whole.compute().item() == 0.25


def test_the_collection_is_named_after_k() -> None:
    metrics = build_answer_metrics(4, prefix="val/")
    for metric in metrics.values():
        metric.update(group("RRab"))
    found = {name: tensor.item() for name, tensor in metrics.compute().items()}
    assert found == {
        "val/avg@4": 0.5,
        "val/pass@4": 1,
        "val/maj@4": 1,
        "val/reward": 0.5,
        "val/length": 3,
    }


@pytest.mark.parametrize("kind", [AvgAtK, PassAtK, MajAtK, MeanLength, MeanReward])
def test_a_group_without_rollouts_or_verdicts_is_refused(kind: Any) -> None:
    with pytest.raises(ValueError, match="at least one rollout"):
        kind().update([])
    with pytest.raises(ValueError, match="verdict"):
        kind().update([Rollout(QUESTION, ids=(0,), text="", group=0)])


def test_means_are_exact_over_many_questions() -> None:
    metric = AvgAtK()
    for _ in range(1000):
        metric.update(group("Rab"))
    assert metric.compute().dtype == torch.float64
    assert metric.compute().item() == pytest.approx(1 / 3, abs=1e-12)
