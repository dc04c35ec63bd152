"""Batches with nothing to learn from: a zero with a graph, counted, and no NaN, for each method."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
from lightning.pytorch import Callback

from lightning_sd import (
    ArithmeticTask,
    Distillation,
    EMATeacher,
    FrozenTeacher,
    Mixture,
    NoContext,
    PolicyGradient,
    ReferenceSolution,
    SampledToken,
    StepAlignedCritique,
    TrustRegionTeacher,
)
from lightning_sd.contexts import Demonstration, SameQuestion, SiblingDemonstration
from lightning_sd.objectives import FinishedOnly, MixedGroups, SkipFirst, TopTokens
from lightning_sd.rollout import Completion
from tests.stubs import LabData, equal, module, trainer, weights

SDPO = Distillation(kind="js", top_k=5, importance_clip=2.0)
METHODS: dict[str, tuple[Any, Any, Any]] = {
    "sdpo": (SiblingDemonstration, EMATeacher, SDPO),
    "sdpo, trust region": (
        SiblingDemonstration,
        TrustRegionTeacher,
        replace(SDPO, token_weights=[TopTokens(by="gap")]),
    ),
    "sdpo with feedback": (
        lambda: SiblingDemonstration(feedback="always", own_success=True),
        EMATeacher,
        replace(SDPO, kind="reverse_kl"),
    ),
    "hybrid": (
        SiblingDemonstration,
        EMATeacher,
        Mixture(
            terms=[PolicyGradient(scale="none"), SampledToken()],
            coefficients=[0.9, 0.1],
            token_weights=[TopTokens(0.5, "gap")],
        ),
    ),
    "sdft": (
        Demonstration,
        EMATeacher,
        Distillation(reduction="sequence", token_weights=[SkipFirst(3)]),
    ),
    "opsd": (ReferenceSolution, FrozenTeacher, Distillation(element_clip=0.05)),
    "step-aligned": (StepAlignedCritique, FrozenTeacher, Distillation()),
    "grpo": (NoContext, FrozenTeacher, PolicyGradient(reduction="sequence")),
    "grpo, reference policy": (SameQuestion, FrozenTeacher, PolicyGradient(kl=0.1)),
    "dr_grpo": (
        NoContext,
        FrozenTeacher,
        PolicyGradient(scale="none", reduction="constant", constant_tokens=12),
    ),
    "dapo": (
        NoContext,
        FrozenTeacher,
        PolicyGradient(
            clip_high=0.28,
            overlong_limit=12,
            overlong_margin=2,
            token_weights=[MixedGroups(), FinishedOnly()],
        ),
    ),
}
POLICY = {"grpo", "dr_grpo", "dapo"}
SILENT = {
    "no success": {"sdpo", "sdpo, trust region", "hybrid", *POLICY},
    "all success": POLICY,
    "alone": {"sdpo", "sdpo, trust region", "hybrid", *POLICY},
    "empty": set(METHODS),
    # An empty solution is no demonstration.
    "only the end": {"sdft", "sdpo", "sdpo, trust region"},
    "no context": set(METHODS) - {*POLICY, "hybrid"},
}


@dataclass
class Fixed:
    """A sampler whose completions are given."""

    ids: tuple[int, ...]
    temperature: float = 1.0

    def sample(self, model: Any, prompts: Any, *, samples: int, **_: Any) -> list[Completion]:
        known = tuple(-1.0 for _ in self.ids)
        number = range(len(prompts))
        return [Completion(i, self.ids, known, True) for i in number for _ in range(samples)]


class Judged(LabData):
    """Rewards as the case says, and feedback."""

    def __init__(self, case: str, *, explain: bool) -> None:
        super().__init__(batch_size=2, train_size=4)
        self.case = case
        self.task = ArithmeticTask(train_size=4, val_size=2, test_size=2, explain=explain)

    def evidence(self, rollouts: Any, needs: Any) -> Any:
        right = {"no success": "never", "all success": "always"}.get(self.case, "first")
        found = []
        for i, rollout in enumerate(super().evidence(rollouts, needs)):
            on = right == "always" or (right == "first" and i % max(len(rollouts) // 2, 1) == 0)
            verdict = replace(rollout.verdict, reward=float(on), correct=on)
            found.append(replace(rollout, verdict=verdict))
        return found


class Grads(Callback):
    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.grads = {
            n: None if p.grad is None else p.grad.clone()
            for n, p in pl_module.student.named_parameters()
        }


@pytest.mark.parametrize("case", SILENT)
@pytest.mark.parametrize("name", METHODS)
def test_a_step_on_next_to_nothing(make_llama, tokenizer, tmp_path, name, case):
    context, teacher, objective = METHODS[name]
    context = context()
    if case == "no context":
        context.fields = lambda rollout: None
    sampler = Fixed({"empty": (), "only the end": (1,)}.get(case, (9, 12, 30, 44, 1)))
    student = module(
        make_llama(),
        tokenizer,
        objective=objective,
        teacher=teacher(),
        sampler=sampler,
        samples=1 if case == "alone" else 3,
    )
    student.configure_model()
    before, grads = weights(student.student), Grads()
    run = trainer(tmp_path, context, grads, max_steps=1)
    run.fit(student, datamodule=Judged(case, explain="feedback" in name))
    after = weights(student.student)
    assert all(value.isfinite().all() for value in after.values())
    assert grads.grads.keys() == before.keys()
    assert all(grad is not None and grad.isfinite().all() for grad in grads.grads.values())
    silent = name in SILENT[case]
    assert run.callback_metrics["train/silent"] == float(silent)
    if silent:
        assert run.callback_metrics.get("train/loss", 0.0) == 0
        assert all((grad == 0).all() for grad in grads.grads.values())
        assert equal(before, after)
    elif name != "grpo, reference policy":  # whose KL is 0 before the first step
        assert not equal(before, after)
