"""A critic that counts, and requests made up from numbers."""

import re
import time
from dataclasses import replace

from lightning_sd.critique.base import Critic, CritiqueRequest
from lightning_sd.tasks.base import Task
from lightning_sd.types import Critique, Question, Rollout, Verdict


class EchoCritic(Critic):
    """Answers with the attempt in brackets; remembers what it was asked."""

    def __init__(self, name="echo", batch_size=4, seconds=0.0, answer=None):
        self.name, self.batch_size, self.seconds = name, batch_size, seconds
        self.answer = answer
        self._asked = []

    @property
    def asked(self):
        return self._asked

    def identity(self):
        return {"critic": self.name}

    def critique(self, requests):
        self._asked.extend(requests)
        time.sleep(self.seconds * len(requests))
        return [self.answer(r) if self.answer else echo(r) for r in requests]


def echo(request):
    return Critique(f"[{request.attempt}]", "D", (1,), (2,), (3,), tokens=5, seconds=0.25)


class NumberTask(Task):
    """``What is 3?`` -> ``3``. No ``repair``."""

    def __init__(self, train=20, val=5, test=7, attempts=False, extra=None):
        self.train, self.val, self.test, self.attempts = train, val, test, attempts
        self.extra = extra

    def questions(self, split):
        first = {"train": 0, "val": 1000, "test": 2000}[split]
        return [
            replace(
                number_question(first + i, f"attempt {i}" if self.attempts else None),
                extra=self.extra or {},
            )
            for i in range(getattr(self, split))
        ]

    def verify(self, question, completion):
        correct = completion == question.answer
        return Verdict(float(correct), correct, completion)


class CatastrophicTask(NumberTask):
    """Its rules hold a pattern that takes longer than the universe for some attempts."""

    def repair(self, question, attempt):
        re.match(r"(a+)+$", attempt)
        return echo(CritiqueRequest(question, attempt, Verdict(0.0, False)))


def number_question(i, attempt=None):
    text = f"What is {i}?"
    message = {"role": "user", "content": text}
    return Question(
        str(i), text, (message,), reference=f"It is {i}.", answer=str(i), attempt=attempt
    )


def request(i=0, attempt="wrong", correct=False, finished=True):
    verdict = Verdict(float(correct), correct)
    return CritiqueRequest(number_question(i), attempt, verdict, finished)


def rollout(i=0, text="wrong", finished=True):
    return Rollout(number_question(i), (1, 2), text, group=i, finished=finished)
