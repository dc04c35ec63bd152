"""Any LightningModule hosts a context: plain questions, evidence when it is needed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader

from lightning_sd.contexts import (
    CleanInput,
    ContrastiveHints,
    CritiqueReflector,
    Demonstration,
    ReferenceSolution,
    Reflection,
    SiblingDemonstration,
    StepAlignedCritique,
    TeacherContext,
)
from lightning_sd.types import Question, Rollout, Verdict
from tests.stubs import LabData, trainer


class Plain(pl.LightningModule):
    """Knows nothing of this package but a rollout and two calls."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__()
        self.tokenizer, self.teacher_context = tokenizer, None
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[Any] = []

    def training_step(self, batch: list[Question], batch_idx: int) -> torch.Tensor:
        assert type(batch) is list
        rollouts = [
            Rollout(question, (5, group, i), text, group)
            for group, question in enumerate(batch)
            for i, text in enumerate(self.answers(question))
        ]
        context: Any = self.teacher_context
        self.seen += context.views(context.prepare_batch(rollouts))
        return self.weight.sum()

    def answers(self, question: Question) -> list[str]:
        right = question.reference or ""
        return [right, right + " ", "<step_1>1+1=3</step_1><answer>77</answer>"]

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class PlainData(LabData):
    """Gives plain lists of questions."""

    def train_dataloader(self) -> DataLoader:  # type: ignore[type-arg]
        return DataLoader(self.questions("train"), batch_size=2, collate_fn=list)


CONTEXTS = [
    ReferenceSolution(),
    StepAlignedCritique(),
    SiblingDemonstration(),
    ContrastiveHints(),
    Reflection(CritiqueReflector()),
]


@pytest.mark.parametrize("context", CONTEXTS, ids=lambda context: type(context).__name__)
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_plain_module_gets_views_of_plain_questions(
    tokenizer: Any, tmp_path: Any, context: TeacherContext, precision: Any
) -> None:
    module, data = Plain(tokenizer), PlainData()
    trainer(tmp_path, context, max_steps=1, precision=precision).fit(module, datamodule=data)
    assert len(module.seen) == 6
    assert any(view is not None for view in module.seen)


@pytest.mark.parametrize("context", CONTEXTS[1:], ids=lambda context: type(context).__name__)
def test_without_a_data_module_that_judges_the_error_says_who_must(
    tokenizer: Any, tmp_path: Any, context: TeacherContext
) -> None:
    loader = DataLoader(LabData().questions("train"), batch_size=2, collate_fn=list)
    with pytest.raises(TypeError, match=rf"{type(context).__name__} reads \['.*CritiqueDataModule"):
        trainer(tmp_path, context, max_steps=1).fit(Plain(tokenizer), loader)


def test_evidence_that_is_there_is_not_asked_for_again(tokenizer: Any, tmp_path: Any) -> None:
    context, data = StepAlignedCritique(), LabData()
    context.setup(trainer(tmp_path), Plain(tokenizer), "fit")
    assert context._trainer is not None
    context._trainer.datamodule = data  # type: ignore[attr-defined]
    questions = data.questions("train")[:2]
    bare = [Rollout(question, (5,), "7", group) for group, question in enumerate(questions)]
    complete = context.gather_missing(bare)
    assert data.asked["critique"] == 1
    assert all(rollout.verdict and rollout.critique for rollout in complete)
    # One that the critic left out is no reason to ask for all of them again.
    some = [complete[0], replace(complete[1], critique=None)]
    assert context.gather_missing(some) == some
    assert data.asked["critique"] == 1


def test_siblings_come_with_the_evidence_and_teachers_texts_stay_as_they_are(
    tokenizer: Any, tmp_path: Any
) -> None:
    context, data = SiblingDemonstration(), LabData()
    context.setup(trainer(tmp_path), Plain(tokenizer), "fit")
    context._trainer.datamodule = data  # type: ignore[union-attr]
    question = data.questions("train")[0]
    texts = [question.reference or "", "no", "written"]
    rollouts = [Rollout(question, (i,), text, 0) for i, text in enumerate(texts)]
    rollouts[2] = replace(rollouts[2], origin="teacher")
    first, second, teachers = context.gather_missing(rollouts)
    assert [first.verdict.correct, second.verdict.correct] == [True, False]  # type: ignore[union-attr]
    assert [r.text for r in (*first.siblings, *second.siblings)] == ["no", texts[0]]
    assert teachers is rollouts[2]


class Rows(pl.LightningDataModule):
    def __init__(self, *questions: Question) -> None:
        super().__init__()
        self.train_questions = questions


BARE = Question("0", "7+5?", ({"role": "user", "content": "7+5?"},), answer="2")
EXTRA = {"clean": ["7"], "demonstration": "It is 2."}


@pytest.mark.parametrize(
    ("context", "complete"),
    [
        (ReferenceSolution(), replace(BARE, reference="It is 2.")),
        (ContrastiveHints(hint="reference"), replace(BARE, reference="It is 2.")),
        (Demonstration(), replace(BARE, reference="It is 2.")),
        (Demonstration(), replace(BARE, extra=EXTRA)),
        (CleanInput(), replace(BARE, extra=EXTRA)),
        (ContrastiveHints(), BARE),
        (StepAlignedCritique(), BARE),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, TeacherContext) else "",
)
def test_data_that_lack_what_the_context_shows_are_refused_before_sampling(
    tokenizer: Any, tmp_path: Any, context: TeacherContext, complete: Question
) -> None:
    def setup(stage: str, *questions: Question) -> None:
        run = trainer(tmp_path)
        run.datamodule = Rows(*questions)  # type: ignore[attr-defined]
        context.setup(run, Plain(tokenizer), stage)

    setup("fit", BARE, complete)
    if complete is not BARE:
        setup("validate", BARE)
        words = rf"{type(context).__name__} shows what none of the first 2 training questions has"
        with pytest.raises(ValueError, match=words):
            setup("fit", BARE, BARE)


def test_a_tokenizer_of_its_own_comes_before_the_module_s(tokenizer: Any, tmp_path: Any) -> None:
    context, own = ReferenceSolution(), object()
    assert context.tokenizer is None
    context.setup(trainer(tmp_path), Plain(tokenizer), "fit")
    assert context.tokenizer is tokenizer
    context.tokenizer = own
    assert context.tokenizer is own


def test_without_a_module_nothing_is_asked(tokenizer: Any) -> None:
    question = LabData().questions("train")[0]
    rollout = Rollout(question, (5,), "7", 0, verdict=Verdict(0.0, False))
    assert StepAlignedCritique().views([rollout]) == [None]
