"""Measure what the signal of a context pushes towards, by kind of token, before any training.

    python -m benchmarks.alignment_map.signal

Each base samples one attempt at training questions. A context's teacher then scores the attempts.
This is exploratory: it was written after the first runs had ended at 0%.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.alignment_map import contexts, study
from benchmarks.alignment_map.derivations import NOTATIONS, follow_attempt
from benchmarks.alignment_map.task import DerivationTask
from benchmarks.alignment_map.teach import MAX_NEW_TOKENS
from benchmarks.grid import Row, read_rows
from lightning_sd import StepAlignedCritique, TransformersSampler
from lightning_sd.metrics.spans import split_tokens
from lightning_sd.models import PretrainedModel
from lightning_sd.models.chat import encode_prompt
from lightning_sd.scoring import Scorer
from lightning_sd.text.steps import parse_steps
from lightning_sd.types import Message, Rollout

CONTEXTS = {
    "critique": StepAlignedCritique,
    "same_order": contexts.SameOrder,
    "random_order": contexts.RandomOrder,
}
KINDS = ("order", "notation", "right result", "wrong result", "result after own error", "other")


def classify_tokens(text: str, solution: str, spans: Sequence[tuple[int, int]]) -> list[str]:
    """Return the kind of each token of an attempt; see :data:`KINDS`.

    Args:
        text: The question.
        solution: The attempt.
        spans: Begin and end of each token in the attempt.
    """
    trace = parse_steps(solution)
    kinds = ["other"] * len(spans)
    failed: set[str] = set()
    for (_, step_end), place in zip(trace.spans, follow_attempt(text, trace.steps), strict=False):
        if place.step is None:
            continue
        end = solution.rfind(place.step.write(), 0, step_end) + len(place.step.write())
        begin = end - len(place.step.write())
        for at, span in enumerate(spans):
            if span == (begin, begin + 1):
                kinds[at] = "order"
            elif begin <= span[0] < end and solution[slice(*span)] in NOTATIONS:
                kinds[at] = "notation"
            elif span == (end - 1, end):
                right = "result after own error" if place.step.name in failed else "right result"
                kinds[at] = right if place.right else "wrong result"
        if not place.right:
            failed.add(place.step.name)
    return kinds


def sample_attempts(model: Any, tokenizer: Any, task: DerivationTask) -> list[Rollout]:
    """Sample one attempt per training question, with the exact critique of each."""
    questions = task.questions("train")
    completions = TransformersSampler(max_new_tokens=MAX_NEW_TOKENS).sample(
        model,
        [encode_prompt(tokenizer, question.messages) for question in questions],
        samples=1,
        stop_ids=[tokenizer.eos_token_id],
        generator=torch.Generator().manual_seed(0),
    )
    attempts = []
    for group, (question, completion) in enumerate(zip(questions, completions, strict=True)):
        text = tokenizer.decode(completion.ids, skip_special_tokens=True)
        critique = task.repair(question, text)
        attempts.append(Rollout(question, completion.ids, text, group, critique=critique))
    return attempts


def measure_base(folder: Path, number: int) -> Iterator[Row]:
    """Yield one row per context and kind of token; divergence and advantage are in nats."""
    model, tokenizer = PretrainedModel(str(folder)).load()
    task, scorer = DerivationTask(train_size=number), Scorer(model.eval())
    attempts = sample_attempts(model, tokenizer, task)
    rows = [list(rollout.ids) for rollout in attempts]
    kinds = [
        kind
        for r in attempts
        for kind in classify_tokens(r.question.text, r.text, split_tokens(tokenizer, r.ids).spans)
    ]
    masks = {kind: torch.tensor([own == kind for own in kinds]) for kind in KINDS}
    right = [task.verify(r.question, r.text).correct for r in attempts for _ in r.ids]
    masks["all of right attempts"] = torch.tensor(right)
    ids = torch.tensor([token for row in rows for token in row])

    def score(messages: Sequence[tuple[Message, ...]]) -> Tensor:
        prompts = [encode_prompt(tokenizer, turns) for turns in messages]
        with torch.no_grad():
            return scorer.score(prompts, rows).logits().double().log_softmax(-1)

    student = score([rollout.question.messages for rollout in attempts])
    for name, make_context in CONTEXTS.items():
        views = make_context().views(attempts)
        teacher = score([view.messages for view in views if view is not None])
        divergence = (teacher.exp() * (teacher - student)).sum(-1)
        advantage = (teacher - student).gather(-1, ids[:, None])[:, 0]
        for kind, mask in masks.items():
            yield {
                "context": name,
                "kind": kind,
                "tokens": mask.double().mean().item(),
                "divergence": divergence[mask].mean().item(),
                "share": (divergence[mask].sum() / divergence.sum()).item(),
                "advantage": advantage[mask].mean().item(),
                "size": advantage[mask].abs().mean().item(),
                "negative": (advantage[mask] < 0).double().mean().item(),
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bases", nargs="+", choices=study.BASES, default=list(study.BASES))
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--scratch", type=Path, default=Path("out/alignment_map"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    path = study.RESULTS / "signal.jsonl"
    measured = {row["base"] for row in read_rows(path)}
    for base in args.bases:
        if base not in measured:
            rows = list(measure_base(study.base_folder(args.scratch, base), args.questions))
            with path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps({"base": base, **row}) + "\n" for row in rows)


if __name__ == "__main__":
    main()
