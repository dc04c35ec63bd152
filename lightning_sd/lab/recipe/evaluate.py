"""What the embedded solver can do: alone, with a critique, with a reference solution."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lightning_sd.contexts.templates import REFERENCE, STEP_ALIGNED
from lightning_sd.lab.arithmetic import ArithmeticTask
from lightning_sd.lab.scribe import first_wrong_step
from lightning_sd.models.chat import encode_prompt
from lightning_sd.rollout import TransformersSampler
from lightning_sd.text.steps import parse_steps
from lightning_sd.types import Message, Question

MAX_NEW_TOKENS = 96
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
    """Attempts that break the step format, leave a step out or add one."""
    wrong_step: float
    """Failed attempts in which a wrong step is found."""
    with_critique: float
    """Right answers with the rule critique of a failed attempt, one answer a failed attempt."""
    verbatim: float
    """Those answers that repeat the critique word for word."""
    with_reference: float
    """Right answers with the reference solution, to the same questions as often."""


@dataclass(frozen=True)
class Solver:
    """A model, its tokenizer and a source of randomness."""

    model: nn.Module
    tokenizer: Any
    generator: torch.Generator

    def answers(self, prompts: Sequence[Sequence[Message]], samples: int) -> list[list[str]]:
        """Sample ``samples`` answers to each prompt at temperature 1."""
        sampler = TransformersSampler(max_new_tokens=MAX_NEW_TOKENS)
        texts: list[str] = []
        for start in range(0, len(prompts), _PROMPTS_AT_ONCE):
            some = prompts[start : start + _PROMPTS_AT_ONCE]
            completions = sampler.sample(
                self.model,
                [encode_prompt(self.tokenizer, messages) for messages in some],
                samples=samples,
                stop_ids=[self.tokenizer.eos_token_id],
                generator=self.generator,
            )
            ids = [list(completion.ids) for completion in completions]
            texts += self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [texts[i : i + samples] for i in range(0, len(texts), samples)]

    def answer_each(self, prompts: Sequence[str]) -> list[str]:
        """One answer to each prompt, given as the user's words."""
        messages: list[list[Message]] = [[{"role": "user", "content": p}] for p in prompts]
        return [texts[0] for texts in self.answers(messages, 1)]


def evaluate(
    solver: Solver, task: ArithmeticTask, questions: Sequence[Question], *, samples: int
) -> Report:
    """Sample and count.

    Args:
        solver: Who answers.
        task: Judges and repairs.
        questions: Fresh ones.
        samples: Answers to each.

    Returns:
        What was counted.
    """
    groups = solver.answers([question.messages for question in questions], samples)
    pairs = [(q, text) for q, texts in zip(questions, groups, strict=True) for text in texts]
    right = [task.verify(question, text).correct for question, text in pairs]
    failed = [pair for pair, ok in zip(pairs, right, strict=True) if not ok]
    asked = [question for question, _ in failed]
    critiques = [task.repair(question, text).text for question, text in failed]
    critiqued = solver.answer_each(
        [
            STEP_ALIGNED.format(question=q.text, critique=c)
            for q, c in zip(asked, critiques, strict=True)
        ]
    )
    referenced = solver.answer_each(
        [REFERENCE.format(question=q.text, reference=q.reference) for q in asked]
    )
    return Report(
        questions=len(questions),
        samples=samples,
        avg=_mean(right),
        passed=_mean([any(right[i : i + samples]) for i in range(0, len(right), samples)]),
        majority=_mean([_majority(task, q, t) for q, t in zip(questions, groups, strict=True)]),
        malformed=_mean([_malformed(task, text) for _, text in pairs]),
        wrong_step=_mean([first_wrong_step(q.text, text) is not None for q, text in failed]),
        with_critique=_mean(_correct(task, asked, critiqued)),
        verbatim=_mean([a == c for a, c in zip(critiqued, critiques, strict=True)]),
        with_reference=_mean(_correct(task, asked, referenced)),
    )


def _correct(task: ArithmeticTask, asked: Sequence[Question], texts: Sequence[str]) -> list[bool]:
    return [task.verify(q, text).correct for q, text in zip(asked, texts, strict=True)]


def _majority(task: ArithmeticTask, question: Question, texts: Sequence[str]) -> bool:
    answers = Counter(task.verify(question, text).answer for text in texts)
    return answers.most_common(1)[0][0] == question.answer


def _malformed(task: ArithmeticTask, text: str) -> bool:
    trace = parse_steps(text)
    return not trace.well_formed or len(trace.steps) != task.steps


def _mean(values: Sequence[bool]) -> float:
    return sum(values) / max(len(values), 1)
