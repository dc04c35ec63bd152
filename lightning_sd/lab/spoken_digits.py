"""Digits spoken in noise: a task with sound in the prompt, and the clean sound for the teacher."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from lightning_sd.lab.sounds import NoiseKind, Sound, noisy, spoken
from lightning_sd.tasks.answers import extract_answer
from lightning_sd.tasks.base import Split, Task
from lightning_sd.types import Message, Question, Verdict

Kind = Literal["number", "choice"]
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LETTERS = "ABCD"


class SpokenDigitsTask(Task):
    """Which digits are spoken? The student hears them in noise.

    A question's last message holds the noisy sound and a text, in transformers' multimodal form;
    ``extra["clean"]`` has the clean sound for the context
    :class:`~lightning_sd.contexts.CleanInput`. Sounds are made when a question is read, the same
    for the same id. The model's tokenizer must be a processor that takes sound at 16 kHz.

    Rewards are EchoDistill's: 1 for the right answer, -1 for a wrong choice, for a wrong number the
    share of its digits that are right, and 0 without an answer.

    Args:
        digits: Spoken digits a question.
        kinds: ``number``: say what was heard. ``choice``: choose it among four.
        snrs: Signal-to-noise ratios in dB, one of which is drawn for each question.
        noises: Kinds of noise, likewise; see :func:`~lightning_sd.lab.sounds.noise`.
        seconds: Length of a sound.
        clean: Let the student, too, hear the clean sound (to teach a model, or to measure it).
        train_size: Questions to train on.
        val_size: Questions to validate on.
        test_size: Questions to test on.
        seed: Decides all sounds. Splits are drawn apart: they share numbers, but no sound.

    Raises:
        ValueError: An option out of range.

    Example:
        >>> task = SpokenDigitsTask(train_size=1, val_size=1, test_size=1)
        >>> question = task.questions("train")[0]
        >>> question.messages[-1]["content"][0]["audio"].shape
        (16000,)
        >>> task.verify(question, f"<answer>{question.answer}</answer>").reward
        1.0
    """

    def __init__(
        self,
        digits: int = 2,
        kinds: Sequence[Kind] = ("number", "choice"),
        snrs: Sequence[float] = (-10.0, -5.0, 0.0, 5.0),
        noises: Sequence[NoiseKind] = ("white", "pink", "hum", "babble"),
        seconds: float = 1.0,
        clean: bool = False,
        train_size: int = 2000,
        val_size: int = 200,
        test_size: int = 400,
        seed: int = 0,
    ) -> None:
        sizes: dict[Split, int] = {"train": train_size, "val": val_size, "test": test_size}
        for name, value in {"digits": digits, **{f"{k}_size": v for k, v in sizes.items()}}.items():
            if value < 1:
                raise ValueError(f"{name}={value}: must be at least 1.")
        if seconds < 0.2 * digits:
            raise ValueError(f"seconds={seconds}: needs at least 0.2 for each of {digits} digits.")
        for name, chosen, known in (
            ("kinds", kinds, get_args(Kind)),
            ("noises", noises, get_args(NoiseKind)),
        ):
            if not chosen or set(chosen) - set(known):
                raise ValueError(f"{name}={chosen!r}: choose one or more of {known}.")
        if not snrs:
            raise ValueError("snrs is empty: give one or more, in dB.")
        self.digits, self.kinds, self.snrs = digits, tuple(kinds), tuple(snrs)
        self.noises, self.seconds, self.clean = tuple(noises), seconds, clean
        self.train_size, self.val_size, self.test_size = train_size, val_size, test_size
        self.seed, self._sizes = seed, sizes

    def questions(self, split: Split) -> Sequence[Question]:
        """The questions of one split; see :class:`Task`."""
        if split not in self._sizes:
            raise ValueError(f"split={split!r}: choose one of {get_args(Split)}.")
        return SpokenQuestions(self, split, self._sizes[split])

    def question(self, split: Split, number: int) -> Question:
        """One question, its sounds made now."""
        identity = f"spoken/{self.seed}/{split}/{number}"
        digest = hashlib.sha256(identity.encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
        digits = "".join(str(d) for d in rng.integers(0, 10, self.digits))
        kind = self.kinds[int(rng.integers(len(self.kinds)))]
        snr = self.snrs[int(rng.integers(len(self.snrs)))]
        disturbance = self.noises[int(rng.integers(len(self.noises)))]
        text, answer = "Which number do you hear?", digits
        if kind == "choice":
            options = _options(digits, rng)
            answer = LETTERS[options.index(digits)]
            named = " ".join(f"{a}:{b}" for a, b in zip(LETTERS, options, strict=True))
            text = f"Which of these do you hear? {named}"
        clean = spoken(digits, rng, seconds=self.seconds)
        heard = clean if self.clean else noisy(clean, disturbance, snr, rng)
        said = " ".join(WORDS[int(d)] for d in digits)
        return Question(
            id=identity,
            text=text,
            messages=(Message(role="user", content=[_audio(heard), _text(text)]),),
            reference=f"I hear {said}.<answer>{answer}</answer>",
            answer=answer,
            extra={"kind": kind, "snr": snr, "noise": disturbance, "clean": [_audio(clean)]},
        )

    def verify(self, question: Question, completion: str) -> Verdict:
        """The rewards of the class's description."""
        answer = extract_answer(completion)
        if answer is None or question.answer is None:
            return Verdict(reward=0.0, correct=False, answer=answer)
        if answer == question.answer:
            return Verdict(reward=1.0, correct=True, answer=answer)
        if question.extra.get("kind") == "choice":
            return Verdict(reward=-1.0, correct=False, answer=answer)
        right = sum(a == b for a, b in zip(answer, question.answer, strict=False))
        share = right / max(len(answer), len(question.answer))
        return Verdict(reward=share, correct=False, answer=answer)


@dataclass(frozen=True)
class SpokenQuestions(Sequence[Question]):
    """The questions of one split, each made when it is read."""

    task: SpokenDigitsTask
    split: Split
    size: int

    def __len__(self) -> int:
        """Questions."""
        return self.size

    def __getitem__(self, index: Any) -> Any:
        """One question, or those of a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.size))]
        place = index + self.size if index < 0 else index
        if not 0 <= place < self.size:
            raise IndexError(index)
        return self.task.question(self.split, place)


def _options(digits: str, rng: np.random.Generator) -> list[str]:
    """The number and three others of as many digits, in any order."""
    options = [digits]
    while len(options) < len(LETTERS):
        other = "".join(str(d) for d in rng.integers(0, 10, len(digits)))
        if other not in options:
            options.append(other)
    return [options[int(i)] for i in rng.permutation(len(options))]


def _audio(sound: Sound) -> dict[str, Any]:
    return {"type": "audio", "audio": sound}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}
