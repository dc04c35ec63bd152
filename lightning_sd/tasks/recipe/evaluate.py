"""What the embedded solver can do: alone, with a critique, with a reference solution."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from lightning_sd.contexts.templates import REFERENCE, STEP_ALIGNED
from lightning_sd.data.chat import encode_prompt
from lightning_sd.rollout import TransformersSampler
from lightning_sd.tasks.arithmetic import ArithmeticTask
from lightning_sd.tasks.scribe import first_wrong_step
from lightning_sd.tasks.steps import parse_steps
from lightning_sd.types import Message, Question

_PROMPTS_AT_ONCE = 64


@dataclass(frozen=True)
class Report:
    """Shares between 0 and 1, all sampled at temperature 1 on questions never trained on."""

    questions: int
    samples: int
    """Answers sampled to each question."""
    avg: float
    """Right answers of the solver alone."""
    passed: float
    """Questions with at least one right answer."""
    majority: float
    """Questions whose most frequent answer is right."""
    malformed: float
    """Attempts that break the step format or leave a step out."""
    wrong_step: float
    """Failed attempts in which a wrong step is found."""
    with_critique: float
    """Right answers with the rule critique of a failed attempt, one answer a failed attempt."""
    verbatim: float
    """Those answers that repeat the critique word for word."""
    with_reference: float
    """Right answers with the reference solution, to the same questions as often."""


def evaluate(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    task: ArithmeticTask,
    questions: Sequence[Question],
    *,
    samples: int,
    seed: int,
) -> Report:
    """Sample and count.

    Args:
        model: The solver.
        tokenizer: Its tokenizer.
        task: Judges and repairs.
        questions: Fresh ones.
        samples: Answers to each.
        seed: Of the sampling.
    """
    generator = torch.Generator().manual_seed(seed)
    alone = _answers(model, tokenizer, [q.messages for q in questions], samples, generator)
    attempts = [(q, text) for q, texts in zip(questions, alone, strict=True) for text in texts]
    right = [[task.verify(q, a).correct for a in texts] for q, texts in zip(questions, alone, strict=True)]
    failed = [(q, text) for q, text in attempts if not task.verify(q, text).correct]
    critiques = [task.repair(q, text).text for q, text in failed]
    critiqued = _one_each(
        model,
        tokenizer,
        [
            STEP_ALIGNED.format(question=q.text, critique=c)
            for (q, _), c in zip(failed, critiques, strict=True)
        ],
        generator,
    )
    referenced = _one_each(
        model,
        tokenizer,
        [REFERENCE.format(question=q.text, reference=q.reference) for q, _ in failed],
        generator,
    )
    return Report(
        questions=len(questions),
        samples=samples,
        avg=1 - len(failed) / len(attempts),
        passed=_mean([any(row) for row in right]),
        majority=_mean([_majority(task, q, t) for q, t in zip(questions, alone, strict=True)]),
        malformed=_mean([_malformed(task, text) for _, text in attempts]),
        wrong_step=_mean([first_wrong_step(q.text, text) is not None for q, text in failed]),
        with_critique=_mean(
            [task.verify(q, a).correct for (q, _), a in zip(failed, critiqued, strict=True)]
        ),
        verbatim=_mean([a == c for a, c in zip(critiqued, critiques, strict=True)]),
        with_reference=_mean(
            [task.verify(q, a).correct for (q, _), a in zip(failed, referenced, strict=True)]
        ),
    )


def _answers(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[Message]],
    samples: int,
    generator: torch.Generator,
) -> list[list[str]]:
    sampler = TransformersSampler(max_new_tokens=96)
    texts: list[str] = []
    for start in range(0, len(prompts), _PROMPTS_AT_ONCE):
        ids = [encode_prompt(tokenizer, p) for p in prompts[start : start + _PROMPTS_AT_ONCE]]
        stops = [int(tokenizer.convert_tokens_to_ids("<end>"))]
        done = sampler.sample(model, ids, samples=samples, stop_ids=stops, generator=generator)
        texts += tokenizer.batch_decode([c.ids for c in done], skip_special_tokens=True)
    return [texts[i : i + samples] for i in range(0, len(texts), samples)]


def _one_each(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    generator: torch.Generator,
) -> list[str]:
    messages: list[list[Message]] = [[{"role": "user", "content": p}] for p in prompts]
    return [texts[0] for texts in _answers(model, tokenizer, messages, 1, generator)]


def _majority(task: ArithmeticTask, question: Question, texts: Sequence[str]) -> bool:
    answers = Counter(task.verify(question, text).answer for text in texts)
    return answers.most_common(1)[0][0] == question.answer


def _malformed(task: ArithmeticTask, text: str) -> bool:
    trace = parse_steps(text)
    return not trace.well_formed or len(trace.steps) != task.steps


def _mean(values: Sequence[bool]) -> float:
    return sum(values) / max(len(values), 1)
