"""``python -m lightning_sd.cli.rubrics``: write the rubrics of a task with a generator."""

from __future__ import annotations

import json
from dataclasses import asdict

# Imported so that the command line may name their classes without their paths.
import lightning_sd.rollout
import lightning_sd.tasks.dataset
import lightning_sd.tasks.programs
import lightning_sd.tasks.reasoning_gym
import lightning_sd.tasks.rubric_writing
import lightning_sd.tasks.stream  # noqa: F401
from lightning_sd.contexts.rubrics.generate import Generator, write_rubrics
from lightning_sd.contexts.rubrics.prompts import DESIGN
from lightning_sd.contexts.rubrics.store import TextStore
from lightning_sd.models import PretrainedModel
from lightning_sd.rollout import Sampler, TransformersSampler
from lightning_sd.tasks import Split, Task

SAMPLER = TransformersSampler(max_new_tokens=1024, temperature=0.7)


def main(
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
    """Let a generator write the rubrics of a task's questions; what is there is not written again.

    Args:
        model: The generator, such as the folder that stage I exported.
        task: Whose questions; they need reference answers.
        path: JSON lines file of the rubrics, which ``GeneratedRubric`` reads.
        split: Which questions.
        design: Wording of the prompt, as in stage I.
        sampler: With what settings.
        batch_size: Questions at once.
        asks: How often a question is asked for whose text was no rubric.
        seed: Of sampling.
    """
    student, tokenizer = model.load()
    generator = Generator(student, tokenizer, sampler, design)
    report = write_rubrics(
        generator,
        task.questions(split),
        TextStore(path),
        batch_size=batch_size,
        asks=asks,
        seed=seed,
    )
    print(json.dumps(asdict(report), indent=1))


if __name__ == "__main__":
    from jsonargparse import auto_cli

    auto_cli(main, as_positional=False)
