"""Where the rubric comes from that a teacher is shown: the sources of RCSD and of its ablations."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_sd._serialize import build
from lightning_sd.contexts.rubrics.rubric import Rubric
from lightning_sd.contexts.rubrics.store import TextStore, text_key
from lightning_sd.types import Question

GENERIC = (
    ("Correct", "What it states is right.", 10),
    ("Complete", "Every part of the question is answered.", 8),
    ("Reasoned", "Each conclusion follows from what stands before it.", 6),
    ("To the point", "Nothing stands there that the question does not ask for.", 4),
    ("Clear", "A reader who knows the subject follows it at the first reading.", 3),
    ("Error", "It contradicts itself or states something false.", -1),
)
"""Title, description and weight of six criteria that fit any question."""


class RubricSource(ABC):
    """Gives each question of a batch its rubric."""

    @abstractmethod
    def rubrics(self, questions: Sequence[Question]) -> list[Rubric | None]:
        """One a question; None: there is none.

        Args:
            questions: The different questions of a batch.
        """


class GroundTruthRubric(RubricSource):
    """The rubric that stands with the data, in ``question.extra["rubric"]``."""

    def rubrics(self, questions: Sequence[Question]) -> list[Rubric | None]:
        """See :class:`RubricSource`.

        Raises:
            ValueError: The data's rubric is none.
        """
        return [stored_rubric(question) for question in questions]


class GeneratedRubric(RubricSource):
    """Rubrics that a generator wrote beforehand: ``python -m lightning_sd.contexts.rubrics``.

    A question whose rubric was refused, or was never written, has none.

    Args:
        path: The file that was written.
        generator: Which generator's, if the file holds several: the beginning of its digest.

    Raises:
        FileNotFoundError: There is no such file.
    """

    def __init__(self, path: str, generator: str | None = None) -> None:
        if not Path(path).expanduser().is_file():
            raise FileNotFoundError(
                f"path={path!r}: there are no generated rubrics. Write them first: "
                "python -m lightning_sd.contexts.rubrics --help."
            )
        self.path, self.generator = path, generator
        self._store = TextStore(path)
        self._chosen: str | None = None

    def rubrics(self, questions: Sequence[Question]) -> list[Rubric | None]:
        """See :class:`RubricSource`.

        Raises:
            ValueError: The file has rubrics of several generators, or none of the one named.
        """
        if self._chosen is None:
            self._chosen = self._one_generator()
        found = [self._store.get(rubric_key(self._chosen, question)) for question in questions]
        return [Rubric.of(e["rubric"]) if e and e.get("rubric") else None for e in found]

    def _one_generator(self) -> str:
        known = sorted({str(entry.get("generator")) for _, entry in self._store.entries()})
        chosen = [digest for digest in known if digest.startswith(self.generator or "")]
        if len(chosen) != 1:
            raise ValueError(
                f"generator={self.generator!r}: {self.path} has rubrics of the generators "
                f"{[digest[:12] for digest in known]}; name exactly one by how its digest begins."
            )
        return chosen[0]


class GenericRubric(RubricSource):
    """The same rubric for all questions.

    Args:
        criteria: Mappings with ``title``, ``description`` and ``weight``; None: six of ours.

    Raises:
        ValueError: They make no rubric.
    """

    def __init__(self, criteria: list[dict[str, Any]] | None = None) -> None:
        names = ("title", "description", "weight")
        ours = [dict(zip(names, item, strict=True)) for item in GENERIC]
        self.criteria = criteria
        self._rubric = Rubric.of(criteria or ours)

    def rubrics(self, questions: Sequence[Question]) -> list[Rubric | None]:
        """See :class:`RubricSource`."""
        return [self._rubric] * len(questions)


class RandomRubric(RubricSource):
    """The rubric of another question of the batch, decided by the questions' ids alone.

    Args:
        base: Where that question's rubric comes from; None: the ground truth.
    """

    def __init__(self, base: RubricSource | None = None) -> None:
        self.base: RubricSource = build(base) or GroundTruthRubric()

    def rubrics(self, questions: Sequence[Question]) -> list[Rubric | None]:
        """See :class:`RubricSource`; None where no other question has a rubric."""
        found = self.base.rubrics(questions)
        pairs = [(q.id, rubric) for q, rubric in zip(questions, found, strict=True) if rubric]
        result: list[Rubric | None] = []
        for question in questions:
            others = [pair for pair in pairs if pair[0] != question.id]
            drawn = min(others, key=lambda pair: _draw(question.id, pair[0]), default=None)
            result.append(drawn[1] if drawn else None)
        return result


class ReducedRubric(RubricSource):
    """The weightiest criteria only; negative ones stay.

    Args:
        base: Whose rubrics; None: the ground truth.
        keep: Positive criteria to keep.

    Raises:
        ValueError: Fewer than one.
    """

    def __init__(self, base: RubricSource | None = None, keep: int = 3) -> None:
        if keep < 1:
            raise ValueError(f"keep={keep}: must be at least 1.")
        self.base: RubricSource = build(base) or GroundTruthRubric()
        self.keep = keep

    def rubrics(self, questions: Sequence[Question]) -> list[Rubric | None]:
        """See :class:`RubricSource`."""
        return [rubric and self._reduced(rubric) for rubric in self.base.rubrics(questions)]

    def _reduced(self, rubric: Rubric) -> Rubric:
        wanted = [c for c in rubric.criteria if c.weight > 0]
        kept = sorted(wanted, key=lambda criterion: -criterion.weight)[: self.keep]
        return Rubric(tuple(c for c in rubric.criteria if c.weight < 0 or c in kept))


def stored_rubric(question: Question) -> Rubric | None:
    """The ground truth that stands with a question.

    Raises:
        ValueError: It is no rubric.
    """
    value = question.extra.get("rubric")
    if value is None:
        return None
    try:
        return Rubric.of(value)
    except ValueError as error:
        raise ValueError(
            f"Question {question.id!r}: extra['rubric'] is no rubric ({error}). Give an array of "
            "objects with title, description and weight."
        ) from error


def rubric_key(generator: str, question: Question) -> str:
    """The key of a generated rubric: who wrote it, and from what."""
    return text_key(generator=generator, question=question.text, reference=question.reference)


def _draw(asking: str, other: str) -> bytes:
    return hashlib.sha256(f"{asking}\0{other}".encode(errors="replace")).digest()
