"""``lightning-sd rubrics``: write the rubrics of a task with a generator."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from lightning_sd.cli.main import load_public_classes
from lightning_sd.contexts.rubrics.generate import Generator, write_rubrics
from lightning_sd.contexts.rubrics.prompts import DESIGN
from lightning_sd.contexts.rubrics.store import TextStore
from lightning_sd.models import PretrainedModel
from lightning_sd.rollout import Sampler, TransformersSampler
from lightning_sd.tasks import Split, Task

SAMPLER = TransformersSampler(max_new_tokens=1024, temperature=0.7)


def write_task_rubrics(
    model: PretrainedModel,
    task: Task,
    path: str,
    split: Split = "train",
    design: str = DESIGN,
    sampler: Sampler = SAMPLER,
    batch_size: int = 16,
    asks: int = 1,
    seed: int = 0,
) -> None:
    """Write one rubric per question with a model; existing rubrics are kept.

    Args:
        model: The generator, such as the folder that stage I exported.
        task: Gives the questions, which need reference answers.
        path: JSON lines file of the rubrics, which ``GeneratedRubric`` reads.
        split: Split of the questions.
        design: Wording of the prompt, as in stage I.
        sampler: How to sample.
        batch_size: Questions per batch.
        asks: Maximum number of attempts at a question whose text is not a rubric.
        seed: Seed of sampling.
    """
    student, tokenizer = model.load()
    report = write_rubrics(
        Generator(student, tokenizer, sampler, design),
        task.questions(split),
        TextStore(path),
        batch_size=batch_size,
        asks=asks,
        seed=seed,
    )
    print(json.dumps(asdict(report), indent=1))


def main(args: Sequence[str]) -> None:
    """Run the command.

    Args:
        args: The word ``rubrics`` and its options.
    """
    from jsonargparse import auto_cli

    load_public_classes()
    auto_cli(
        write_task_rubrics, as_positional=False, args=list(args[1:]), prog="lightning-sd rubrics"
    )
