"""Measure the embedded solver: alone, with a critique, with a reference solution."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lightning_sd.contexts.templates import REFERENCE, STEP_ALIGNED
from lightning_sd.lab.arithmetic import ArithmeticTask
from lightning_sd.lab.step_repair import find_wrong_step
from lightning_sd.models.chat import encode_prompt
from lightning_sd.rollout import TransformersSampler
from lightning_sd.text.steps import parse_steps
from lightning_sd.types import Message, Question

MAX_NEW_TOKENS = 96
_PROMPTS_AT_ONCE = 64


@dataclass(frozen=True)
class Report:
    """Shares in [0, 1], from answers sampled at temperature 1 to held-out questions."""

    questions: int
    """Number of questions."""
    samples: int
    """Answers per question."""
    avg: float
    """Share of the answers without a context that are right (Avg@k)."""
    passed: float
    """Share of the questions with at least one right answer (Pass@k)."""
    majority: float
    """Share of the questions for which the most frequent answer is right (Maj@k)."""
    malformed: float
    """Share of the attempts that break the step format, omit a step or add one."""
    wrong_step: float
    """Share of the failed attempts that contain a wrong step."""
    with_critique: float
    """Share of right answers given the critique of a failed attempt, one answer per attempt."""
    verbatim: float
    """Share of these answers that repeat the critique word for word."""
    with_reference: float
    """Share of right answers given the reference, one answer per failed attempt."""


@dataclass(frozen=True)
class Solver:
    """A model that answers prompts at temperature 1."""

    model: nn.Module
    tokenizer: Any
    generator: torch.Generator

    def sample_answers(self, prompts: Sequence[Sequence[Message]], samples: int) -> list[list[str]]:
        """Sample answers.

        Args:
            prompts: Chat messages per prompt.
            samples: Answers per prompt.

        Returns:
            The decoded answers, one list per prompt.
        """
        sampler = TransformersSampler(max_new_tokens=MAX_NEW_TOKENS)
        texts: list[str] = []
        for start in range(0, len(prompts), _PROMPTS_AT_ONCE):
            chunk = prompts[start : start + _PROMPTS_AT_ONCE]
            completions = sampler.sample(
                self.model,
                [encode_prompt(self.tokenizer, messages) for messages in chunk],
                samples=samples,
                stop_ids=[self.tokenizer.eos_token_id],
                generator=self.generator,
            )
            ids = [list(completion.ids) for completion in completions]
            texts += self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [texts[i : i + samples] for i in range(0, len(texts), samples)]

    def answer_each(self, prompts: Sequence[str]) -> list[str]:
        """Sample one answer per user message."""
        messages: list[list[Message]] = [[{"role": "user", "content": p}] for p in prompts]
        return [texts[0] for texts in self.sample_answers(messages, 1)]


def evaluate(
    solver: Solver, task: ArithmeticTask, questions: Sequence[Question], *, samples: int
) -> Report:
    """Measure a solver.

    Args:
        solver: The solver.
        task: Judges the answers and repairs the failed attempts.
        questions: Questions that the solver was not trained on.
        samples: Answers per question.

    Returns:
        The measured shares.
    """
    groups = solver.sample_answers([question.messages for question in questions], samples)
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
        majority=_mean([_wins_vote(task, q, t) for q, t in zip(questions, groups, strict=True)]),
        malformed=_mean([_is_malformed(task, text) for _, text in pairs]),
        wrong_step=_mean([find_wrong_step(q.text, text) is not None for q, text in failed]),
        with_critique=_mean(_judge_each(task, asked, critiqued)),
        verbatim=_mean([a == c for a, c in zip(critiqued, critiques, strict=True)]),
        with_reference=_mean(_judge_each(task, asked, referenced)),
    )


def _judge_each(
    task: ArithmeticTask, asked: Sequence[Question], texts: Sequence[str]
) -> list[bool]:
    return [task.verify(q, text).correct for q, text in zip(asked, texts, strict=True)]


def _wins_vote(task: ArithmeticTask, question: Question, texts: Sequence[str]) -> bool:
    answers = Counter(task.verify(question, text).answer for text in texts)
    return answers.most_common(1)[0][0] == question.answer


def _is_malformed(task: ArithmeticTask, text: str) -> bool:
    trace = parse_steps(text)
    return not trace.well_formed or len(trace.steps) != task.steps


def _mean(values: Sequence[bool]) -> float:
    return sum(values) / max(len(values), 1)
