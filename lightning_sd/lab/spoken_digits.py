"""Spoken digits in noise: the student hears the noisy sound, the teacher the clean one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from lightning_sd.lab.sounds import NoiseKind, Sound, add_noise, synthesize_digits
from lightning_sd.tasks.base import Split, Task
from lightning_sd.tasks.judges.extract import extract_answer, restore_thinking
from lightning_sd.types import Message, Question, Verdict

Kind = Literal["number", "choice"]
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LETTERS = "ABCD"


class SpokenDigitsTask(Task):
    """Questions that ask which digits are spoken in a noisy sound.

    The last message of a question holds the noisy sound and a text, in transformers' multimodal
    format. ``Question.extra["clean"]`` holds the clean sound for the context
    :class:`~lightning_sd.contexts.CleanInput`. Sounds are synthesized when a question is read and
    depend only on its id. The model's tokenizer must be a processor that takes sound at 16 kHz.

    The rewards follow EchoDistill: 1 for the right answer, -1 for a wrong choice, the share of
    right digits for a wrong number, and 0 without an answer.

    Args:
        digits: Spoken digits per question.
        kinds: ``number`` asks for the digits. ``choice`` asks for one of four options.
        snrs: Signal-to-noise ratios in dB. One is drawn per question.
        noises: Kinds of noise. One is drawn per question. See
            :func:`~lightning_sd.lab.sounds.make_noise`.
        seconds: Length of a sound in seconds.
        clean: Whether the student hears the clean sound as well, to pretrain or measure a model.
        train_size: Number of training questions.
        val_size: Number of validation questions.
        test_size: Number of test questions.
        seed: Selects all sounds. The splits may share numbers, but no sound.

    Raises:
        ValueError: An option is out of range.

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
            raise ValueError("snrs=[]: give one or more signal-to-noise ratios in dB.")
        self.digits, self.kinds, self.snrs = digits, tuple(kinds), tuple(snrs)
        self.noises, self.seconds, self.clean = tuple(noises), seconds, clean
        self.train_size, self.val_size, self.test_size = train_size, val_size, test_size
        self.seed, self._sizes = seed, sizes

    def questions(self, split: Split) -> Sequence[Question]:
        """Return the questions of one split. See :meth:`.Task.questions`."""
        if split not in self._sizes:
            raise ValueError(f"split={split!r}: choose one of {get_args(Split)}.")
        return SpokenQuestions(self, split, self._sizes[split])

    def question(self, split: Split, number: int) -> Question:
        """Build one question and synthesize its sounds.

        Args:
            split: The split.
            number: Index of the question in the split.

        Returns:
            The question.
        """
        identity = f"spoken/{self.seed}/{split}/{number}"
        digest = hashlib.sha256(identity.encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
        digits = "".join(str(d) for d in rng.integers(0, 10, self.digits))
        kind = self.kinds[int(rng.integers(len(self.kinds)))]
        snr = self.snrs[int(rng.integers(len(self.snrs)))]
        disturbance = self.noises[int(rng.integers(len(self.noises)))]
        text, answer = "Which number do you hear?", digits
        if kind == "choice":
            options = _draw_options(digits, rng)
            answer = LETTERS[options.index(digits)]
            named = " ".join(f"{a}:{b}" for a, b in zip(LETTERS, options, strict=True))
            text = f"Which of these do you hear? {named}"
        clean = synthesize_digits(digits, rng, seconds=self.seconds)
        heard = clean if self.clean else add_noise(clean, disturbance, snr, rng)
        said = " ".join(WORDS[int(d)] for d in digits)
        return Question(
            id=identity,
            text=text,
            messages=(Message(role="user", content=[_audio_part(heard), _text_part(text)]),),
            reference=f"I hear {said}.<answer>{answer}</answer>",
            answer=answer,
            extra={"kind": kind, "snr": snr, "noise": disturbance, "clean": [_audio_part(clean)]},
        )

    def verify(self, question: Question, completion: str) -> Verdict:
        """Score the final answer. See the class."""
        answer = extract_answer(restore_thinking(question, completion))
        if answer is None:
            return Verdict(reward=0.0, correct=False, status="no_answer")
        if question.answer is None:
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
    """The questions of one split, each built when it is read."""

    task: SpokenDigitsTask
    split: Split
    size: int

    def __len__(self) -> int:
        """Return the number of questions."""
        return self.size

    def __getitem__(self, index: Any) -> Any:
        """Return one question, or the questions of a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.size))]
        place = index + self.size if index < 0 else index
        if not 0 <= place < self.size:
            raise IndexError(index)
        return self.task.question(self.split, place)


def _draw_options(digits: str, rng: np.random.Generator) -> list[str]:
    """Draw three other numbers of the same length and shuffle all four."""
    options = [digits]
    while len(options) < len(LETTERS):
        other = "".join(str(d) for d in rng.integers(0, 10, len(digits)))
        if other not in options:
            options.append(other)
    return [options[int(i)] for i in rng.permutation(len(options))]


def _audio_part(sound: Sound) -> dict[str, Any]:
    return {"type": "audio", "audio": sound}


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}
