"""RCSD's loss against a loop that is written from its description alone, in float64.

Both distributions at temperature 1.2, softmaxed over the teacher's 20 likeliest tokens and no tail;
forward KL element by element, each element at most 0.05; the sum over all response tokens divided
by their number.
"""

from __future__ import annotations

import math

import pytest
import torch

from lightning_sd.objectives import AfterMarker, Distillation, StepState, TokenInputs
from lightning_sd.objectives.reduce import compute_loss
from lightning_sd.scoring import Scores
from tests.reference.inputs import make_inputs

RCSD = Distillation(top_k=20, support="teacher", tail=False, element_clip=0.05, temperature=1.2)
VOCAB = 37
LENGTHS = [3, 1, 0, 5, 4]
NUMBER = sum(LENGTHS)


def slow_token(student, teacher):
    order = sorted(range(VOCAB), key=lambda v: -teacher[v].item())[:20]
    weights = [math.exp(teacher[v].item() / 1.2) for v in order]
    exps = [torch.exp(student[v] / 1.2) for v in order]
    total = sum(exps[1:], exps[0])
    loss = torch.zeros((), dtype=torch.float64)
    for weight, value in zip(weights, exps, strict=True):
        t, s = weight / sum(weights), value / total
        element = t * (math.log(t) - torch.log(s))
        # A clamped element is a number: it has no gradient.
        loss = loss + (element if element.item() <= 0.05 else 0.05)
    return loss


def inputs(seed):
    generator = torch.Generator().manual_seed(seed)
    shape = (NUMBER, VOCAB)
    teacher = 3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    student = teacher + torch.randn(shape, generator=generator, dtype=torch.float64)
    ids = torch.randint(VOCAB, (NUMBER,), generator=generator)
    kept = torch.rand(NUMBER, generator=generator) < 0.6
    return student.requires_grad_(), teacher, ids, kept


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_loss_and_gradient_equal_the_slow_loop(seed, masked):
    student, teacher, ids, kept = inputs(seed)
    tokens = TokenInputs(ids, kept=kept if masked else None)
    output = compute_loss(RCSD, Scores(student, None), Scores(teacher, None), tokens, LENGTHS)
    (gradient,) = torch.autograd.grad(output.total / output.count, student)

    used = [i for i in range(NUMBER) if not masked or kept[i]]
    losses = [slow_token(student[i], teacher[i]) for i in used]
    expected = torch.stack(losses).sum() / len(losses)
    (wanted,) = torch.autograd.grad(expected, student)
    torch.testing.assert_close(output.total / output.count, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradient, wanted, rtol=1e-10, atol=1e-10)


def test_by_hand_a_clamped_token_turns_negative():
    """Two tokens that count, teacher 1/2 and 1/2, student 1/10 and 9/10; the rest is far away."""
    student = torch.full((1, 4), -60.0, dtype=torch.float64)
    teacher = student.clone()
    student[0, :2] = 1.2 * torch.tensor([0.1, 0.9], dtype=torch.float64).log()
    teacher[0, :2] = 1.2 * torch.tensor([0.5, 0.5], dtype=torch.float64).log()
    objective = Distillation(
        top_k=2, support="teacher", tail=False, element_clip=0.05, temperature=1.2
    )
    student.requires_grad_()
    scores = Scores(student, None), Scores(teacher, None)
    output = compute_loss(objective, *scores, TokenInputs(torch.tensor([0])), [1])
    # 0.5 log(0.5 / 0.1) = 0.80 is clamped to 0.05; 0.5 log(0.5 / 0.9) = -0.2939 stays.
    assert output.total.item() == pytest.approx(0.05 + 0.5 * math.log(5 / 9), abs=1e-12)
    (gradient,) = torch.autograd.grad(output.total, student)
    # Of the second element alone: -0.5 d log s_1, and d log s_1 / d z = (onehot - s) / 1.2.
    wanted = torch.tensor([[0.5 * 0.1 / 1.2, -0.5 * (1 - 0.9) / 1.2, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(gradient, wanted, rtol=1e-10, atol=1e-10)


def test_only_what_follows_the_thinking_counts(tokenizer):
    end = tokenizer("</think>", add_special_tokens=False).input_ids
    rows = [[7, *end, 8, 9], [7, 8, 9], [*end]]
    ids = torch.tensor([token for row in rows for token in row])
    inputs = make_inputs([len(row) for row in rows], ids=ids)
    objective = Distillation(token_weights=[AfterMarker()])
    kept = objective.apply_token_weights(inputs, StepState(tokenizer=tokenizer)).kept.tolist()
    assert kept == [False] * (1 + len(end)) + [True] * 2 + [False] * 3 + [False] * len(end)
