"""The embedded solver's card, written by the run that made it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from lightning_sd.contexts.templates import REFERENCE, STEP_ALIGNED
from lightning_sd.lab.recipe.evaluate import Report
from lightning_sd.lab.recipe.pupil import KINDS
from lightning_sd.lab.recipe.rows import CONTINUED_SHARE, CRITIQUE_SHARE
from lightning_sd.lab.recipe.train import Recipe

_CARD = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
---
# The embedded solver

A language model of {parameters:,} parameters ({layers} layers, {width} wide) that solves the lab
task of lightning_sd, arithmetic modulo 10 in {operations} steps. It was made to be improved: alone
it gives many wrong answers, by wrong steps, and it can use a critique or a reference solution in
its prompt. It is of no use outside this task.

## What went into it

Generated data only, drawn from the task's `pretrain` split, which the task never hands out;
training, validation and test questions were not in it. Half of the rows are of the first kind; of
the other half, {critique:.0%} are of the second and {reference:.0%} of the third:

1. A bare question, answered by a careless pupil. It knows the 300 facts (digit, operation, digit)
   unequally well:
   {kinds}.
   Its wrong results are one or two beside the truth, it goes on from them as if they were right,
   and it writes each step in one of 8 notations at random.
2. A question with the repaired version of a pupil's attempt, answered by that very text:
   `{step_aligned}`
3. A question with the reference solution, answered rightly in notations of the solver's own:
   `{referenced}`

Of the rows with a context whose attempt fails, {continued:.0%} begin behind its first wrong result
and go on as the attempt does. As a teacher of an attempt that has gone wrong, the solver therefore
objects to the wrong step and not to what follows from it.

## What it can do

Measured at the end of the run that made it, {samples} answers to each of {questions} questions of
the `val` split, sampled at temperature 1:

| | |
|---|---|
| right, alone (Avg@{samples}) | {avg:.1%} |
| at least one of {samples} right (Pass@{samples}) | {passed:.1%} |
| most frequent answer right (Maj@{samples}) | {majority:.1%} |
| attempts that break the step format | {malformed:.2%} |
| failed attempts with a wrong step | {wrong_step:.1%} |
| right on failed attempts, given the critique | {with_critique:.1%} |
| the same, repeating the critique word for word | {verbatim:.1%} |
| right on failed attempts, given the reference | {with_reference:.1%} |

## How to make it again

```
{command}
```

{steps:,} optimizer steps of {batch_size} rows (AdamW, peak learning rate {lr}) took {minutes:.0f}
minutes on {threads} processor thread(s), seed {seed}. Another number of threads or version of torch
may change the weights in their last digits.
"""


def write_card(
    out: Path, recipe: Recipe, report: Report, *, parameters: int, minutes: float, threads: int
) -> None:
    """Write ``README.md``.

    Args:
        out: The solver's folder.
        recipe: What was run.
        report: What was measured.
        parameters: Size of the model.
        minutes: How long training took.
        threads: On how many.
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
            f"{share:.0%} of them fail {rate:.0%} of the time" for share, rate in KINDS
        ),
        step_aligned=STEP_ALIGNED.replace("\n", "⏎"),
        referenced=REFERENCE.replace("\n", "⏎"),
        command=" ".join(
            [
                f"python -m lightning_sd.lab.recipe --out DIR --threads {threads}",
                *_changes(recipe),
            ]
        ),
    )
    (out / "README.md").write_text(text, encoding="utf-8")


def _changes(recipe: Recipe) -> list[str]:
    """Options that differ from the recipe's defaults."""
    default = asdict(Recipe())
    return [f"--recipe.{k} {v}" for k, v in asdict(recipe).items() if v != default[k]]
