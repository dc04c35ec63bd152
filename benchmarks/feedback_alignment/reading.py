"""Measure how well the study's solver reads each form of context, and write its card."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.feedback_alignment import contexts
from benchmarks.feedback_alignment.lesson import TAUGHT
from benchmarks.feedback_alignment.weak import WeakCritic
from lightning_sd.contexts import ReferenceSolution, StepAlignedCritique, TeacherContext
from lightning_sd.critique.base import Critic, CritiqueRequest
from lightning_sd.critique.critics.rule import RuleCritic
from lightning_sd.lab import ArithmeticTask
from lightning_sd.lab.recipe.evaluate import Report, Solver, evaluate
from lightning_sd.models import PretrainedModel
from lightning_sd.types import Rollout, link_siblings

CONTEXTS: dict[str, tuple[TeacherContext, Critic]] = {
    "partial (step_aligned)": (StepAlignedCritique(), RuleCritic()),
    "reference (refsol)": (ReferenceSolution(), RuleCritic()),
    "full_repetition": (contexts.FullRepetition(), RuleCritic()),
    "omission": (contexts.Omission(), RuleCritic()),
    "reference_phrasing": (contexts.ReferencePhrasing(), RuleCritic()),
    "no_answer": (contexts.NoAnswer(), RuleCritic()),
    "other_attempt (not trained separately)": (contexts.OtherAttempt(), RuleCritic()),
    "a false correction (not trained)": (StepAlignedCritique(), WeakCritic(1.0)),
}
SAMPLES = 12
_ATTEMPTS = 8


@dataclass(frozen=True)
class Reading:
    """Results of one form on failed attempts."""

    form: str
    right: float
    """Share of right answers."""
    repaired: float
    """Share of answers that equal the repaired attempt word for word."""
    attempts: int
    """Number of failed attempts with a prompt."""


def write_card(folder: Path, questions: int) -> None:
    """Measure the solver in ``folder`` and write its ``README.md`` and ``reading.json``."""
    model, tokenizer = PretrainedModel(str(folder)).load()
    solver = Solver(model.eval(), tokenizer, torch.Generator().manual_seed(0))
    task = ArithmeticTask(train_size=1, val_size=questions, test_size=1)
    alone = evaluate(solver, task, task.questions("val"), samples=SAMPLES)
    readings = read_forms(solver, task)
    training = json.loads((folder / "training.json").read_text())
    found = {"training": training, "alone": asdict(alone), "forms": [asdict(r) for r in readings]}
    (folder / "reading.json").write_text(json.dumps(found, indent=1) + "\n")
    parameters = sum(p.numel() for p in model.parameters())
    (folder / "README.md").write_text(_format_card(alone, readings, training, parameters))


def read_forms(solver: Solver, task: ArithmeticTask) -> list[Reading]:
    """Answer each failed attempt's prompt once per form."""
    questions = task.questions("val")
    groups = solver.sample_answers([question.messages for question in questions], _ATTEMPTS)
    rollouts = [
        Rollout(q, (), text, group, verdict=task.verify(q, text))
        for group, (q, texts) in enumerate(zip(questions, groups, strict=True))
        for text in texts
    ]
    repaired = [task.repair(r.question, r.text).text for r in rollouts]
    return [_read_form(solver, task, name, rollouts, repaired) for name in CONTEXTS]


def _read_form(
    solver: Solver,
    task: ArithmeticTask,
    name: str,
    rollouts: Sequence[Rollout],
    repaired: Sequence[str],
) -> Reading:
    context, critic = CONTEXTS[name]
    critic.setup(task)
    views = context.views(link_siblings(_add_critiques(critic, rollouts)))
    asked = [
        (rollout, target, view.messages[-1]["content"])
        for rollout, target, view in zip(rollouts, repaired, views, strict=True)
        if view is not None and rollout.verdict and not rollout.verdict.correct
    ]
    texts = solver.answer_each([prompt for _, _, prompt in asked])
    pairs = list(zip(asked, texts, strict=True))
    right = [task.verify(rollout.question, text).correct for (rollout, _, _), text in pairs]
    same = [text == target for (_, target, _), text in pairs]
    return Reading(name, sum(right) / len(pairs), sum(same) / len(pairs), len(pairs))


def _add_critiques(critic: Critic, rollouts: Sequence[Rollout]) -> list[Rollout]:
    requests = []
    for rollout in rollouts:
        assert rollout.verdict is not None
        requests.append(CritiqueRequest(rollout.question, rollout.text, rollout.verdict))
    critiques = critic.critique(requests)
    return [replace(r, critique=c) for r, c in zip(rollouts, critiques, strict=True)]


_CARD = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
---
# The solver of the feedback-alignment study

The embedded solver ({parameters:,} parameters), trained further with its own recipe
(`lightning_sd/lab/recipe`, generated data of the `pretrain` split alone) on other rows: half of
them are bare questions answered by the careless pupil; the other half hold a context, with
{number} forms in equal shares ({forms}).

For each form of a critique the target is the repaired attempt; for the reference it is a right
solution in notations drawn at random. Half of the rows with a failed attempt begin after its first
wrong result and continue as the attempt does. False corrections were never shown, and the critique
of another attempt is not a separate form: its text cannot be distinguished from the partial form.
**How the solver was trained to read contexts determines what it does with them.**

## Without a context

{samples} answers to each of {alone.questions} validation questions at temperature 1: right
{alone.avg:.1%} (Avg@{samples}), at least one {alone.passed:.1%}, most frequent
{alone.majority:.1%}; {alone.malformed:.2%} break the form; {alone.wrong_step:.1%} of the failed
answers have a wrong step.

## With a context, on failed attempts

One answer per failed attempt. "Repaired": the answer equals the attempt's repair word for word,
which requires the attempt's notation in the prompt.

| form | right | repaired | attempts |
|---|---|---|---|
{rows}

## How to reproduce it

```
python -m benchmarks.feedback_alignment.teach
```

{training[steps]:,} further optimizer steps took {training[minutes]:.0f} minutes of
{training[threads]} processor core. A different number of threads or version of torch may change
the last digits of the weights.
"""


def _format_card(
    alone: Report, readings: Sequence[Reading], training: dict[str, Any], parameters: int
) -> str:
    rows = [f"| {r.form} | {r.right:.1%} | {r.repaired:.1%} | {r.attempts} |" for r in readings]
    return _CARD.format(
        parameters=parameters,
        number=len(TAUGHT),
        forms=", ".join(f"`{name}`" for name in TAUGHT),
        samples=SAMPLES,
        alone=alone,
        rows="\n".join(rows),
        training=training,
    )
