"""The model card of the embedded solver, written by its training run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from lightning_sd.contexts.templates import REFERENCE, STEP_ALIGNED
from lightning_sd.lab.recipe.careless_solver import ERROR_RATES
from lightning_sd.lab.recipe.evaluate import Report
from lightning_sd.lab.recipe.train import Recipe
from lightning_sd.lab.recipe.training_rows import CONTINUED_SHARE, CRITIQUE_SHARE

_CARD = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
---
# The embedded solver

A language model of {parameters:,} parameters ({layers} layers, hidden size {width}) that solves the
arithmetic task of lightning_sd: {operations} operations modulo 10. It is a starting point for
training: without a context it often answers incorrectly because of a wrong step, and it can use a
critique or a reference solution in its prompt. It is of no use outside this task.

## Training data

All rows are generated from the `pretrain` split of the task, which the task never returns. They
contain no training, validation or test question. Half of the rows are of kind 1. Of the other half,
{critique:.0%} are of kind 2 and {reference:.0%} of kind 3.

1. A bare question, answered by a simulated solver that makes errors. Its error rate depends on the
   operation (digit, operator, digit), of which there are 300:
   {kinds}.
   A wrong result differs from the true one by 1 or 2. The simulated solver continues from a wrong
   result as if it were right, and writes each step in one of 8 notations at random.
2. A question with the repaired version of an attempt, answered by the same text:
   `{step_aligned}`
3. A question with the reference solution, answered correctly in the notations of kind 1:
   `{referenced}`

Of the rows with a context and a failed attempt, {continued:.0%} start after its first wrong result
and continue as the attempt does. As the teacher of a failed attempt, the solver therefore gives a
low probability to the wrong step and not to the steps that follow from it.

## Measurements

Measured at the end of the training run: {samples} answers to each of {questions} questions of the
`val` split, sampled at temperature 1.

| | |
|---|---|
| correct without a context (Avg@{samples}) | {avg:.1%} |
| at least one of {samples} correct (Pass@{samples}) | {passed:.1%} |
| most frequent answer correct (Maj@{samples}) | {majority:.1%} |
| attempts that break the step format | {malformed:.2%} |
| failed attempts that contain a wrong step | {wrong_step:.1%} |
| correct on failed attempts, given the critique | {with_critique:.1%} |
| the same, repeating the critique word for word | {verbatim:.1%} |
| correct on failed attempts, given the reference | {with_reference:.1%} |

## How to reproduce it

```
{command}
```

{steps:,} optimizer steps of {batch_size} rows (AdamW, peak learning rate {lr}) took {minutes:.0f}
minutes on {threads} processor thread(s), seed {seed}. Another number of threads or version of torch
may change the last digits of the weights.
"""


def write_card(
    out: Path, recipe: Recipe, report: Report, *, parameters: int, minutes: float, threads: int
) -> None:
    """Write ``README.md``.

    Args:
        out: Folder of the solver.
        recipe: Settings of the training run.
        report: Measurements after training.
        parameters: Number of parameters of the model.
        minutes: Duration of the training.
        threads: Processor threads of the training.
    """
    text = _CARD.format(
        **asdict(recipe),
        **asdict(report),
        parameters=parameters,
        minutes=minutes,
        threads=threads,
        continued=CONTINUED_SHARE,
        critique=CRITIQUE_SHARE,
        reference=1 - CRITIQUE_SHARE,
        kinds=", ".join(
            f"{share:.0%} of them fail {rate:.0%} of the time" for share, rate in ERROR_RATES
        ),
        step_aligned=STEP_ALIGNED.replace("\n", "⏎"),
        referenced=REFERENCE.replace("\n", "⏎"),
        command=" ".join(
            [
                f"python -m lightning_sd.lab.recipe --out DIR --threads {threads}",
                *_list_changes(recipe),
            ]
        ),
    )
    (out / "README.md").write_text(text, encoding="utf-8")


def _list_changes(recipe: Recipe) -> list[str]:
    """Return the command-line options that differ from the defaults."""
    default = asdict(Recipe())
    return [f"--recipe.{k} {v}" for k, v in asdict(recipe).items() if v != default[k]]
