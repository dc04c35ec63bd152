"""Snapshot and trust region, against what they say they are."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_sd.models import LoRA
from lightning_sd.models.lora import add_lora
from lightning_sd.objectives import Distillation, TokenInputs
from lightning_sd.objectives.reduce import compute_loss
from lightning_sd.scoring import MixedScores, Scorer, Scores
from lightning_sd.teachers import (
    LiveTeacher,
    SnapshotTeacher,
    TrustRegionTeacher,
    score_teacher,
)
from tests.teachers.test_teachers import train, weights_of

PROMPTS = [[5, 6], None, [9, 8, 7]]
COMPLETIONS = [[7, 8, 9], [4, 4], [3]]


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("rate", [0.01, 0.4])
def test_a_trust_region_is_the_geometric_mean_of_two_policies(
    make_llama: Any, rate: float, lora: bool
) -> None:
    model = make_llama(dtype=torch.float64)
    student = add_lora(model, LoRA(r=4)) if lora else model
    teacher = TrustRegionTeacher(rate)
    teacher.setup(student)
    train(student, teacher, 5)
    scorer = Scorer(student)
    chosen = [p for p in PROMPTS if p is not None]
    texts = [COMPLETIONS[0], COMPLETIONS[2]]
    with torch.no_grad():
        current = scorer.score(chosen, texts).logits().softmax(-1)
        with teacher.swap_in(student):
            initial = scorer.score(chosen, texts).logits().softmax(-1)
    assert (current - initial).abs().max() > 1e-3
    mixed = initial ** (1 - rate) * current**rate
    mixed = mixed / mixed.sum(-1, keepdim=True)
    scores = score_teacher(teacher, student, scorer, PROMPTS, COMPLETIONS)
    assert isinstance(scores, MixedScores)
    assert len(scores) == 6

    ids = torch.tensor([7, 8, 9, 4, 4, 3])
    kept = torch.tensor([True, True, True, False, False, True])
    own = Scores(torch.randn(6, 320, dtype=torch.float64), None)
    explicit = torch.zeros(6, 320, dtype=torch.float64)
    explicit[kept] = mixed.log()
    for settings in ({}, {"kind": "js", "top_k": 7, "chunk_tokens": 2}):
        losses = [
            compute_loss(
                Distillation(**settings), own, other, TokenInputs(ids, kept=kept), [3, 2, 1]
            )
            for other in (scores, Scores(explicit, None))
        ]
        assert losses[0].total > 0.1
        torch.testing.assert_close(losses[0].total, losses[1].total, rtol=0, atol=1e-10)
        torch.testing.assert_close(
            losses[0].tokens.teacher_logprobs[kept],
            losses[1].tokens.teacher_logprobs[kept],
            rtol=0,
            atol=1e-10,
        )


def test_before_any_step_a_trust_region_is_the_student(make_llama: Any) -> None:
    student = make_llama(dtype=torch.float64)
    teacher = TrustRegionTeacher(0.3)
    teacher.setup(student)
    scorer = Scorer(student)
    scores = score_teacher(teacher, student, scorer, [[5, 6]], [[7, 8]])
    output = compute_loss(
        Distillation(),
        scorer.score([[5, 6]], [[7, 8]]),
        scores,
        TokenInputs(torch.tensor([7, 8])),
        [2],
    )
    assert output.total.abs() < 1e-12


def test_a_snapshot_is_the_student_of_the_last_multiple(make_llama: Any) -> None:
    student = make_llama()
    start = weights_of(student)
    teacher = SnapshotTeacher(3)
    teacher.setup(student)
    history = [start, *train(student, teacher, 8)]
    with teacher.swap_in(student):
        held = weights_of(student)
    assert all(torch.equal(held[name], history[6][name]) for name in held)
    resumed = SnapshotTeacher(3)
    resumed.setup(student)
    resumed.load_state_dict(teacher.state_dict())
    last = train(student, LiveTeacher(), 1)[0]
    for each in (teacher, resumed):
        each.after_step(student)  # the ninth
        with each.swap_in(student):
            held = weights_of(student)
        assert all(torch.equal(held[name], last[name]) for name in held)


def test_a_snapshot_of_other_weights_is_refused(make_llama: Any) -> None:
    teacher, other = SnapshotTeacher(), SnapshotTeacher()
    teacher.setup(make_llama())
    other.setup(make_llama(num_hidden_layers=1))
    with pytest.raises(ValueError, match="snapshot covers other parameters"):
        other.load_state_dict(teacher.state_dict())


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        (SnapshotTeacher, {"every": 0}, "every=0"),
        (TrustRegionTeacher, {"rate": 0.0}, "rate=0.0"),
        (TrustRegionTeacher, {"rate": 1.0}, "rate=1.0"),
    ],
)
def test_settings_out_of_range_are_named(kind: Any, settings: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        kind(**settings)
