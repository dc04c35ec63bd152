"""Sources of the rubrics that a teacher sees: those of RCSD and of its ablations."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_sd._serialize import build
from lightning_sd.contexts.rubrics.rubric import Rubric
from lightning_sd.contexts.rubrics.store import TextStore, make_text_key
from lightning_sd.types import Question

GENERIC = (
    ("Correct", "What it states is right.", 10),
    ("Complete", "Every part of the question is answered.", 8),
    ("Reasoned", "Each conclusion follows from what stands before it.", 6),
    ("To the point", "Nothing stands there that the question does not ask for.", 4),
    ("Clear", "A reader who knows the subject follows it at the first reading.", 3),
    ("Error", "It contradicts itself or states something false.", -1),
)
"""Title, description and weight of six criteria that suit any question."""


class RubricSource(ABC):
    """Gives each question of a batch its rubric."""

    @abstractmethod
    def read_rubrics(self, questions: Sequence[Question]) -> list[Rubric | None]:
        """Return one rubric per question; None: the question has none.

        Args:
            questions: The different questions of a batch.
        """


class GroundTruthRubric(RubricSource):
    """The dataset's own rubric, in ``question.extra["rubric"]``."""

    def read_rubrics(self, questions: Sequence[Question]) -> list[Rubric | None]:
        """Return one rubric per question; see :class:`RubricSource`.

        Raises:
            ValueError: The dataset holds a malformed rubric.
        """
        return [read_rubric(question) for question in questions]


class GeneratedRubric(RubricSource):
    """Rubrics that a generator wrote before training: ``python -m lightning_sd rubrics``.

    A question has no rubric if the generator's text was refused or was never written.

    Args:
        path: JSON lines file that the generator wrote.
        generator: Beginning of the generator's digest. Needed only if the file holds rubrics of
            several generators.

    Raises:
        FileNotFoundError: The file does not exist.
    """

    def __init__(self, path: str, generator: str | None = None) -> None:
        if not Path(path).expanduser().is_file():
            raise FileNotFoundError(
                f"path={path!r}: no such file. Write the rubrics first: "
                "python -m lightning_sd rubrics --help."
            )
        self.path, self.generator = path, generator
        self._store = TextStore(path)
        self._chosen: str | None = None

    def read_rubrics(self, questions: Sequence[Question]) -> list[Rubric | None]:
        """Return one rubric per question; see :class:`RubricSource`.

        Raises:
            ValueError: ``generator`` does not select exactly one generator of the file.
        """
        if self._chosen is None:
            self._chosen = self._choose_generator()
        entries = [self._store.get(make_rubric_key(self._chosen, q)) for q in questions]
        return [Rubric.from_list(e["rubric"]) if e and e.get("rubric") else None for e in entries]

    def _choose_generator(self) -> str:
        known = sorted({str(entry.get("generator")) for _, entry in self._store.iterate()})
        chosen = [digest for digest in known if digest.startswith(self.generator or "")]
        if len(chosen) != 1:
            raise ValueError(
                f"generator={self.generator!r}: {self.path} has rubrics of the generators "
                f"{[digest[:12] for digest in known]}; give the beginning of exactly one digest."
            )
        return chosen[0]


class GenericRubric(RubricSource):
    """One rubric for all questions.

    Args:
        criteria: Mappings with ``title``, ``description`` and ``weight``. Default: six criteria
            that suit any question (:data:`GENERIC`).

    Raises:
        ValueError: The criteria are not a valid rubric.
    """

    def __init__(self, criteria: list[dict[str, Any]] | None = None) -> None:
        names = ("title", "description", "weight")
        default = [dict(zip(names, item, strict=True)) for item in GENERIC]
        self.criteria = criteria
        self._rubric = Rubric.from_list(criteria or default)

    def read_rubrics(self, questions: Sequence[Question]) -> list[Rubric | None]:
        """Return the same rubric for each question."""
        return [self._rubric] * len(questions)


class RandomRubric(RubricSource):
    """The rubric of another question of the batch, chosen by the questions' ids alone.

    Args:
        base: Source of that question's rubric. Default: the ground truth.
    """

    def __init__(self, base: RubricSource | None = None) -> None:
        self.base: RubricSource = build(base) or GroundTruthRubric()

    def read_rubrics(self, questions: Sequence[Question]) -> list[Rubric | None]:
        """Return another question's rubric for each question; None if no other one has any."""
        rubrics = self.base.read_rubrics(questions)
        pairs = [(q.id, rubric) for q, rubric in zip(questions, rubrics, strict=True) if rubric]
        result: list[Rubric | None] = []
        for question in questions:
            others = [pair for pair in pairs if pair[0] != question.id]
            drawn = min(others, key=lambda pair: _hash_pair(question.id, pair[0]), default=None)
            result.append(drawn[1] if drawn else None)
        return result


class ReducedRubric(RubricSource):
    """Rubrics reduced to the positive criteria of highest weight and all negative ones.

    Args:
        base: Source of the full rubrics. Default: the ground truth.
        keep: Number of positive criteria to keep.

    Raises:
        ValueError: ``keep`` below 1.
    """

    def __init__(self, base: RubricSource | None = None, keep: int = 3) -> None:
        if keep < 1:
            raise ValueError(f"keep={keep}: must be at least 1.")
        self.base: RubricSource = build(base) or GroundTruthRubric()
        self.keep = keep

    def read_rubrics(self, questions: Sequence[Question]) -> list[Rubric | None]:
        """Return the reduced rubric of each question; None: the question has none."""
        return [rubric and self._reduce(rubric) for rubric in self.base.read_rubrics(questions)]

    def _reduce(self, rubric: Rubric) -> Rubric:
        positive = [c for c in rubric.criteria if c.weight > 0]
        kept = sorted(positive, key=lambda criterion: -criterion.weight)[: self.keep]
        return Rubric(tuple(c for c in rubric.criteria if c.weight < 0 or c in kept))


def read_rubric(question: Question) -> Rubric | None:
    """Return the rubric that the dataset holds for a question, or None.

    Raises:
        ValueError: ``question.extra["rubric"]`` is not a valid rubric.
    """
    value = question.extra.get("rubric")
    if value is None:
        return None
    try:
        return Rubric.from_list(value)
    except ValueError as error:
        raise ValueError(
            f"Question {question.id!r}: extra['rubric'] is not a rubric ({error}). Give an array "
            "of objects with title, description and weight."
        ) from error


def make_rubric_key(generator: str, question: Question) -> str:
    """Make the key of a generated rubric.

    Args:
        generator: Digest of the generator.
        question: The question; its text and reference are part of the key.
    """
    return make_text_key(generator=generator, question=question.text, reference=question.reference)


def _hash_pair(asking: str, other: str) -> bytes:
    return hashlib.sha256(f"{asking}\0{other}".encode(errors="replace")).digest()
