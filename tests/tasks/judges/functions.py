"""Judges that a test's worker process imports."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time

from lightning_sd.types import Question, Verdict


def misbehave(how: str) -> str:
    """Do what the argument says, or return it."""
    if how == "hang":
        time.sleep(600)
    if how == "spin":
        9**9**9  # holds the interpreter's lock all the time
    if how == "eat memory":
        blocks = []
        while True:
            blocks.append(bytearray(10_000_000))
    if how == "segfault":
        ctypes.string_at(0)
    if how == "exit":
        os._exit(3)
    if how == "raise":
        raise KeyError("no\nsuch key")
    if how == "print":
        print("x" * 100_000)
        sys.stdout.flush()
    if how == "start a child":
        subprocess.run(["sleep", "600"], check=False)
    return how


def judge_verdict(question: Question, completion: str) -> Verdict:
    misbehave(completion)
    return Verdict(reward=0.25, correct=completion == question.answer, answer=completion)


def judge_number(question: Question, completion: str) -> float:
    return float(completion)


def judge_text(question: Question, completion: str) -> str:
    return completion


class Close:
    """A judge with an option."""

    def __init__(self, width: float) -> None:
        self.width = width

    def __call__(self, question: Question, completion: str) -> float:
        return max(0.0, 1 - abs(float(completion) - float(question.answer or 0)) / self.width)


def reward_length(completions: list[str], **kwargs: object) -> list[float]:
    return [-abs(3.0 - len(text)) for text in completions]


def reward_rank(prompts: list[str], completions: list[str], **kwargs: object) -> list[float]:
    """Depends on the whole batch."""
    for text in completions:
        misbehave(text)
    return [float(sorted(completions).index(text)) for text in completions]


def reward_solution(completions: list[list[dict[str, str]]], solution: list[str]) -> list[float]:
    contents = [messages[0]["content"] for messages in completions]
    return [float(a == b) for a, b in zip(contents, solution, strict=True)]


def reward_short(prompts: list[str], completions: list[str]) -> list[float]:
    return [0.0]


def reward_none(prompts: list[str], completions: list[str]) -> list[float | None]:
    return [None, float("nan"), 7][: len(completions)]
