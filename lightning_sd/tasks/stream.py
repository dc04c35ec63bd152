"""Questions that are read as they are needed, from sources too large to download."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any, get_args

import torch

from lightning_sd.tasks.answers import Judge
from lightning_sd.tasks.base import Split, Task
from lightning_sd.tasks.instructions import STEP_INSTRUCTION
from lightning_sd.tasks.rows import RowReader
from lightning_sd.tasks.sources import open_stream
from lightning_sd.tasks.splits import fraction_of
from lightning_sd.types import Question, Verdict

_SAMPLE = 50


class StreamTask(Task):
    """Training questions from a stream; validation and test from its beginning.

    A hash of the question decides to which split it belongs, so the splits share none, however
    often a question is repeated. Training questions are shuffled in blocks, which, other than a
    shuffle buffer, can be taken up again exactly.

    Args:
        path: See :class:`~lightning_sd.tasks.DatasetTask`.
        columns: See there.
        epoch_size: Training questions that count as one epoch. The next one goes on in the stream,
            which begins anew when it ends.
        name: The data set's configuration.
        data_files: Files for a path that names a format.
        split: Of the source.
        val_size: Validation questions.
        test_size: Test questions.
        held_out: Share of all questions that is kept from training; the first of them are used.
        block: Questions that are shuffled with one another; 1: the stream's own order.
        answer_pattern: See :class:`~lightning_sd.tasks.DatasetTask`.
        judge: ``exact`` or ``math``.
        instruction: System message that explains the form of a solution; none: no system message.
        seed: Decides what is held out, and the order.

    Raises:
        ValueError: A column or option that does not exist, or too few questions to hold out.
    """

    def __init__(
        self,
        path: str,
        columns: dict[str, str],
        epoch_size: int,
        name: str | None = None,
        data_files: str | list[str] | dict[str, str] | None = None,
        split: str = "train",
        val_size: int = 100,
        test_size: int = 200,
        held_out: float = 0.05,
        block: int = 1000,
        answer_pattern: str | None = None,
        judge: Judge = "exact",
        instruction: str | None = STEP_INSTRUCTION,
        seed: int = 0,
    ) -> None:
        sizes = {"epoch_size": epoch_size, "val_size": val_size, "test_size": test_size}
        for option, value in {**sizes, "block": block}.items():
            if value < 1:
                raise ValueError(f"{option}={value}: must be at least 1.")
        if not 0 < held_out < 1:
            raise ValueError(f"held_out={held_out}: a share between 0 and 1.")
        self.path, self.columns, self.epoch_size = path, columns, epoch_size
        self.name, self.data_files, self.split = name, data_files, split
        self.val_size, self.test_size, self.held_out = val_size, test_size, held_out
        self.block = block
        self.answer_pattern, self.judge = answer_pattern, judge
        self.instruction, self.seed = instruction, seed
        self._reader = RowReader(columns, answer_pattern, judge, instruction)
        self._held_out = self._collect()

    def questions(self, split: Split) -> Sequence[Question]:
        """The held-out questions.

        Raises:
            TypeError: For ``train``, which is a stream: see :meth:`stream`.
        """
        if split == "train":
            raise TypeError("StreamTask: the training questions are a stream; use stream().")
        if split not in self._held_out:
            raise ValueError(f"split={split!r}: choose one of {get_args(Split)}.")
        return self._held_out[split]

    def verify(self, question: Question, completion: str) -> Verdict:
        """Judge the final answer against the row's."""
        return self._reader.verify(question, completion)

    def stream(self) -> QuestionStream:
        """The training questions, from the beginning and without an end."""
        return QuestionStream(self)

    def open(self) -> Any:
        """The source, as a fresh ``datasets.IterableDataset``."""
        return open_stream(self.path, name=self.name, data_files=self.data_files, split=self.split)

    def build(self, row: Mapping[str, Any], number: int) -> Question:
        """The question of the source's row of that number."""
        return self._reader.build(row, f"{self.split}/{number}")

    def split_of(self, question: str) -> Split:
        """To which split a question belongs."""
        place = fraction_of(question, self.seed)
        share = self.held_out * self.test_size / (self.test_size + self.val_size)
        return "test" if place < share else "val" if place < self.held_out else "train"

    def _collect(self) -> dict[Split, list[Question]]:
        wanted: dict[Split, int] = {"val": self.val_size, "test": self.test_size}
        found: dict[Split, list[Question]] = {"val": [], "test": []}
        seen: set[str] = set()
        rows = self.open()
        sample = list(islice(rows, _SAMPLE))
        if not sample:
            raise ValueError(f"path={self.path!r}: the stream is empty.")
        self._reader.check_columns(sorted(sample[0]), repr(self.path))
        self._reader.check_answers(sample)
        for number, row in enumerate(rows):
            question = self.build(row, number)
            split = self.split_of(question.text)
            if split != "train" and question.text not in seen and len(found[split]) < wanted[split]:
                seen.add(question.text)
                found[split].append(question)
            if all(len(found[key]) == wanted[key] for key in wanted):
                return {"val": found["val"], "test": found["test"]}
        raise ValueError(
            f"held_out={self.held_out}: {self.path!r} gave only {len(found['val'])} validation and "
            f"{len(found['test'])} test questions; raise held_out, or lower val_size and test_size."
        )


@dataclass(frozen=True)
class Position:
    """Where in a stream: everything that is needed to go on exactly there."""

    round: int = 0
    """How often the source has ended."""
    block: int = 0
    """Number of the block in this round."""
    rows: int = 0
    """Rows of the source before the block."""
    source: Any = None
    """The source's own state before the block; None: its beginning."""
    taken: int = 0
    """Questions handed out of the block."""


class QuestionStream:
    """Training questions without end, whose position can be saved and restored exactly.

    Args:
        task: Whose questions.
    """

    def __init__(self, task: StreamTask) -> None:
        self._task = task
        self._position = Position()

    def __iter__(self) -> Iterator[Question]:
        position = self._position
        while True:
            source = self._task.open()
            if position.source is not None:
                source.load_state_dict(position.source)
            rows = iter(source)
            block, read = self._read(rows, position.rows)
            while block:
                after = source.state_dict()
                for place, index in enumerate(self._order(position, len(block))):
                    if place >= position.taken:
                        self._position = replace(position, taken=place + 1)
                        yield block[index]
                number = position.block + 1
                position = Position(position.round, number, position.rows + read, after)
                block, read = self._read(rows, position.rows)
            if position.block == 0:
                raise ValueError(f"path={self._task.path!r}: no question is left to train on.")
            position = Position(position.round + 1)

    def state_dict(self) -> dict[str, Any]:
        """The position, as plain values."""
        return asdict(self._position)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next iteration begin at a position."""
        self._position = Position(**state)

    def _read(self, rows: Iterator[Mapping[str, Any]], first: int) -> tuple[list[Question], int]:
        """One block of training questions, and the number of rows that it took."""
        block: list[Question] = []
        read = 0
        for row in rows:
            question = self._task.build(row, first + read)
            read += 1
            if self._task.split_of(question.text) == "train":
                block.append(question)
            if len(block) == self._task.block:
                break
        return block, read

    def _order(self, position: Position, size: int) -> list[int]:
        if self._task.block == 1:
            return list(range(size))
        seed = (self._task.seed * 1_000_003 + position.round * 7_919 + position.block) % 2**63
        order: list[int] = torch.randperm(
            size, generator=torch.Generator().manual_seed(seed)
        ).tolist()
        return order
