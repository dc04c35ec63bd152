"""TRL's self-distillation, as far as its functions can be called, beside ours.

Where TRL departs from the papers the tests say how.
"""

from __future__ import annotations

import os
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_sd.contexts import SiblingDemonstration
from lightning_sd.functional import group_advantages
from lightning_sd.functional.divergence import add_tail
from lightning_sd.objectives import Distillation, Objective, PolicyGradient, SampledToken, SkipFirst
from lightning_sd.objectives.reduce import compute_loss
from lightning_sd.scoring import Scores
from lightning_sd.types import Question, Rollout, Verdict, link_siblings
from tests.reference.inputs import STATE, make_inputs

pytest.importorskip("trl", minversion="1.16")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

from trl.experimental.sdpo import loss_utils, sdpo_trainer

LENGTHS = [3, 5, 1, 4]
LONGEST, VOCAB = max(LENGTHS), 7
MASK = torch.tensor([[t < n for t in range(LONGEST)] for n in LENGTHS])


def draw() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    shape = (len(LENGTHS), LONGEST, VOCAB)
    student, teacher = 2 * torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    ids = torch.randint(VOCAB, shape[:2], generator=generator)
    noise = 0.4 * torch.randn(*shape[:2], generator=generator, dtype=torch.float64)
    old = student.log_softmax(-1).gather(-1, ids[..., None]).squeeze(-1) + noise
    return student.requires_grad_(), teacher, ids, old


def ours(objective: Objective, **given: Any) -> Tensor:
    student, teacher, ids, old = draw()
    inputs = make_inputs(
        LENGTHS, ids=ids[MASK], old_logprobs=old[MASK], behavior_logprobs=old[MASK], **given
    )
    scores = Scores(student[MASK], None)
    other = Scores(teacher[MASK], None) if objective.inputs.uses_teacher else None
    result = compute_loss(
        objective, scores, other, objective.apply_token_weights(inputs, STATE), LENGTHS
    )
    (gradient,) = torch.autograd.grad(result.total / result.count, student)
    return torch.cat([(result.total / result.count).detach().reshape(1), gradient.flatten()])


def with_gradient(loss: Tensor, student: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(loss, student)
    return torch.cat([loss.detach().reshape(1), gradient.flatten()])


def peer_distillation(mode: str, alpha: float, mask: Tensor = MASK, **args: Any) -> Tensor:
    student, teacher, ids, old = draw()
    chosen = {
        "distillation_mode": mode,
        "distillation_alpha": alpha,
        "distillation_topk": None,
        "distillation_add_tail": True,
        "distillation_is_clip": None,
        **args,
    }
    trainer = SimpleNamespace(
        args=SimpleNamespace(**chosen),
        accelerator=SimpleNamespace(gather=lambda x: x),
        _log_self_distillation_metric=lambda *_: None,
    )
    logits = SimpleNamespace(
        student_logits=student, teacher_logits=teacher, completion_ids=ids, loss_mask=mask.double()
    )
    loss = sdpo_trainer.SDPOTrainer._compute_self_distillation_loss(
        trainer, SimpleNamespace(training=True), {"old_per_token_logps": old}, logits
    )
    return with_gradient(loss, student)


@pytest.mark.parametrize(
    ("objective", "mode", "alpha", "args"),
    [
        (Distillation(), "full_logits", 0.0, {}),
        (Distillation(kind="reverse_kl"), "full_logits", 1.0, {}),
        (Distillation(kind="js", beta=0.3), "full_logits", 0.3, {}),
        (Distillation(kind="js", top_k=3), "topk_logits", 0.5, {"distillation_topk": 3}),
        (
            Distillation(top_k=3, tail=False),
            "topk_logits",
            0.0,
            {"distillation_topk": 3, "distillation_add_tail": False},
        ),
        (
            Distillation(kind="reverse_kl", top_k=2, importance_clip=2.0),
            "topk_logits",
            1.0,
            {"distillation_topk": 2, "distillation_is_clip": 2.0},
        ),
        (SampledToken(), "sampled_token", 1.0, {}),
    ],
    ids=str,
)
def test_distillation_with_every_row_active(
    objective: Any, mode: str, alpha: float, args: Any
) -> None:
    """TRL averages over each row first, then over rows: our ``sequence``."""
    actual = ours(replace(objective, reduction="sequence"))
    torch.testing.assert_close(actual, peer_distillation(mode, alpha, **args), rtol=0, atol=1e-9)


def test_skipping_tokens_empties_rows_which_trl_still_counts() -> None:
    """SDFT's skip leaves two rows of four with nothing: TRL's loss is half of the mean of the rest.

    The paper averages over the tokens that count; a row without any is no zero loss.
    """
    skipped = MASK & (torch.arange(LONGEST) >= 3)
    assert skipped.any(1).tolist() == [False, True, False, True]
    peer = peer_distillation("full_logits", 0.0, skipped)
    actual = ours(Distillation(reduction="sequence", token_weights=[SkipFirst(3)]))
    torch.testing.assert_close(actual, 2 * peer, rtol=0, atol=1e-9)


def peer_policy(kind: str, advantages: Tensor) -> Tensor:
    student, _, ids, old = draw()
    trainer = SimpleNamespace(
        importance_sampling_level="token",
        epsilon_low=0.2,
        epsilon_high=0.28,
        loss_type=kind,
        max_completion_length=9,
        model=SimpleNamespace(training=True),
        _metrics={"train": {"self_distillation/policy_loss": []}},
        accelerator=SimpleNamespace(gather=lambda x: x),
    )
    batch = {
        "completion_ids": ids,
        "completion_mask": MASK.double(),
        "old_per_token_logps": old,
        "advantages": advantages,
    }
    return with_gradient(
        sdpo_trainer.SDPOTrainer._compute_policy_loss(trainer, batch, student), student
    )


REWARDS = torch.tensor([1.0, 0.0, 0.0, 0.25], dtype=torch.float64)
GROUPS = torch.tensor([0, 0, 1, 1])


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("grpo", {"reduction": "sequence"}),
        ("bnpo", {}),
        ("dapo", {}),
        ("dr_grpo", {"reduction": "constant", "constant_tokens": 9}),
    ],
)
def test_policy_gradient_of_one_whole_batch(kind: str, settings: Any) -> None:
    """TRL's ``dapo`` is a mean over the micro-batch's tokens; ours over the optimizer step's.

    They agree where a step has one micro-batch. That ours does not depend on how a step is cut is
    shown in test_module.py and test_loss.py.
    """
    objective = PolicyGradient(clip_high=0.28, **settings)
    advantages = group_advantages(REWARDS, GROUPS)
    grouped = REWARDS.view(2, 2)
    expected = (grouped - grouped.mean(1, keepdim=True)) / (grouped.std(1, keepdim=True) + 1e-4)
    torch.testing.assert_close(advantages, expected.flatten())
    actual = ours(objective, rewards=REWARDS, groups=GROUPS)
    torch.testing.assert_close(actual, peer_policy(kind, advantages), rtol=0, atol=1e-9)


def test_the_tail_is_the_same() -> None:
    logprobs = draw()[0].detach().log_softmax(-1).topk(3).values
    torch.testing.assert_close(add_tail(logprobs), loss_utils.add_tail_bucket(logprobs))


def peer_contexts(rewards: list[float], feedback: list[str] | None, **args: Any) -> list[str]:
    """The last user turns that TRL's builder writes, two rollouts a group."""
    written: list[Any] = []

    def tokenize(messages: list[Any]) -> list[list[int]]:
        written.extend(messages)
        return [[1] for _ in messages]

    number = len(rewards)
    trainer = SimpleNamespace(
        accelerator=SimpleNamespace(
            device="cpu", process_index=0, gather=lambda x: x, pad_across_processes=lambda x, **_: x
        ),
        model=SimpleNamespace(training=True),
        num_generations=4,
        _tokenizer=SimpleNamespace(pad_token_id=0),
        processing_class=SimpleNamespace(decode=lambda ids, **_: f"text {int(ids[0])}"),
        _tokenize_prompts_untruncated=tokenize,
        args=SimpleNamespace(
            success_reward_threshold=1.0,
            dont_reprompt_on_self_success=True,
            use_successful_as_teacher=True,
            remove_thinking_from_demonstration=True,
            max_reprompt_len=999,
            reprompt_template="{prompt}{solution}{feedback}",
            solution_template=" S:{successful_previous_attempt}",
            feedback_template=" F:{feedback_raw}",
            **args,
        ),
    )
    ids = torch.arange(1, number + 1).unsqueeze(1)
    output = {"completion_ids": ids, "completion_mask": torch.ones_like(ids)}
    builder = sdpo_trainer.SuccessfulRolloutTeacherContextBuilder(trainer)
    prompts = [[{"role": "user", "content": "q"}] for _ in rewards]
    mask = builder.build(output, prompts, torch.tensor(rewards), feedback)["self_distillation_mask"]
    texts = [message[-1]["content"] for message in written]
    return [text if on else "" for text, on in zip(texts, mask.tolist(), strict=True)]


@pytest.mark.parametrize("kind", ["never", "fallback", "always"])
@pytest.mark.parametrize(
    "rewards", [[0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 0, 0, 0, 0, 1]]
)
def test_the_same_siblings_and_the_same_feedback(rewards: Any, kind: Any) -> None:
    number = len(rewards)
    texts = [f"wrong {i}" for i in range(number)]
    # TRL words the feedback of a success as that of a failure; an environment gives it none.
    given = ["" if reward == 1 else text for reward, text in zip(rewards, texts, strict=True)]
    peer = peer_contexts(
        rewards,
        given,
        include_environment_feedback=kind != "never",
        environment_feedback_only_without_solution=kind == "fallback",
    )
    question = Question("q", "q", ({"role": "user", "content": "q"},))
    rollouts = link_siblings(
        [
            Rollout(
                question,
                (i + 1,),
                f"text {i + 1}",
                group=i // 4,
                verdict=Verdict(float(rewards[i]), rewards[i] == 1, feedback=texts[i]),
            )
            for i in range(number)
        ]
    )
    context = SiblingDemonstration(
        feedback=kind,
        template="{question}{solution}{feedback}",
        solution_template=" S:{solution}",
        feedback_template=" F:{feedback}",
    )
    actual = ["" if v is None else v.messages[-1]["content"] for v in context.views(rollouts)]
    assert actual == peer
