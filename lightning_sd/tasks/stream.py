"""Questions from a source that is read as a stream, because it is too large to download."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any, get_args

import torch

from lightning_sd.tasks.base import Split, Task
from lightning_sd.tasks.instructions import STEP_INSTRUCTION
from lightning_sd.tasks.judges.build import JudgeSpec, build_judge, needs_answer
from lightning_sd.tasks.judges.process import JudgeLimits
from lightning_sd.tasks.layouts import recognize_layout
from lightning_sd.tasks.row_reader import RowReader
from lightning_sd.tasks.sources import open_stream
from lightning_sd.tasks.splits import hash_to_fraction
from lightning_sd.text.content import render_question
from lightning_sd.types import Question, Verdict

_CHECKED_ROWS = 50
"""Number of rows that are checked for answers at construction."""


class StreamTask(Task):
    """Training questions from a stream, with held-out questions from its beginning.

    A hash of the question selects its split, so the splits share no question. Training questions
    are shuffled within blocks. Unlike a shuffle buffer, a block can be resumed exactly.

    Args:
        path: Source of the rows, as in :class:`~lightning_sd.tasks.DatasetTask`.
        columns: Column of each field, as in :class:`~lightning_sd.tasks.DatasetTask`.
        epoch_size: Training questions per epoch. The next epoch continues in the stream, which
            restarts at its end.
        name: Configuration of the data set.
        data_files: Files, if ``path`` names a format.
        split: The source's name of the split to read.
        val_size: Number of validation questions.
        test_size: Number of test questions.
        held_out: Share of all questions that is never used for training. The first of them become
            the validation and test questions.
        block: Number of consecutive questions that are shuffled together. 1 keeps the order of the
            stream.
        answer_pattern: Format of the answer in the ``answer`` column, or in the ``reference`` if
            ``answer`` is not mapped: a name, or a regular expression with one group, such as
            ``#### (.+)``. See :func:`~lightning_sd.tasks.judges.extract_answer`.
        judge: ``number``, ``exact`` or ``math`` (see
            :class:`~lightning_sd.tasks.judges.AnswerJudge`), the import path of a function,
            ``{class_path, init_args}``, or a list of them, with the rewards added. See
            :class:`~lightning_sd.tasks.judges.RewardJudge` for functions.
        judge_weights: Factor of each judge's reward, if ``judge`` is a list. Default: 1.
        judge_limits: Time and memory limits of judges that run in a worker process.
        completion_pattern: Format of the answer in a completion, or several in order of preference.
            None tries ``answer_tag``, ``boxed`` and ``gsm8k``.
        extra_columns: Columns to keep in ``Question.extra``, for judges and contexts.
        instruction: System message that explains the format of a solution. None adds no system
            message.
        seed: Selects the held-out questions and the order.

    Raises:
        ValueError: A column or option does not exist, or there are too few held-out questions.
    """

    def __init__(
        self,
        path: str,
        columns: dict[str, str] | None,
        epoch_size: int,
        name: str | None = None,
        data_files: str | list[str] | dict[str, str] | None = None,
        split: str = "train",
        val_size: int = 100,
        test_size: int = 200,
        held_out: float = 0.05,
        block: int = 1000,
        answer_pattern: str | None = None,
        judge: JudgeSpec = "number",
        judge_weights: list[float] | None = None,
        judge_limits: JudgeLimits | None = None,
        completion_pattern: str | list[str] | None = None,
        extra_columns: list[str] | None = None,
        instruction: str | None = STEP_INSTRUCTION,
        seed: int = 0,
    ) -> None:
        sizes = {"epoch_size": epoch_size, "val_size": val_size, "test_size": test_size}
        for option, value in {**sizes, "block": block}.items():
            if value < 1:
                raise ValueError(f"{option}={value}: must be at least 1.")
        if not 0 < held_out < 1:
            raise ValueError(f"held_out={held_out}: must be a share between 0 and 1.")
        self.path, self.columns, self.epoch_size = path, columns, epoch_size
        self.name, self.data_files, self.split = name, data_files, split
        self.val_size, self.test_size, self.held_out = val_size, test_size, held_out
        self.block = block
        self.answer_pattern, self.judge = answer_pattern, judge
        self.instruction, self.seed = instruction, seed
        self.judge_weights, self.judge_limits = judge_weights, judge_limits
        self.completion_pattern, self.extra_columns = completion_pattern, extra_columns
        self._judge = build_judge(
            judge,
            weights=judge_weights,
            completion_pattern=completion_pattern,
            limits=judge_limits or JudgeLimits(),
            columns=extra_columns or [],
        )
        if columns is not None:
            self._build_reader(columns)  # refuses unknown fields before anything is downloaded
        sample = self._read_sample()
        self._reader = self._build_reader(columns or recognize_layout(sample[0], repr(path)))
        self._reader.check_columns(sorted(sample[0]), repr(path))
        self._reader.check_answers(sample)
        self._held_out = self._collect()

    def questions(self, split: Split) -> Sequence[Question]:
        """Return the questions of a held-out split.

        Args:
            split: ``val`` or ``test``.

        Returns:
            The questions.

        Raises:
            TypeError: ``split`` is ``train``. The training questions are a stream, see
                :meth:`stream`.
        """
        if split == "train":
            raise TypeError("split='train': the training questions are a stream. Use stream().")
        if split not in self._held_out:
            raise ValueError(f"split={split!r}: choose one of {get_args(Split)}.")
        return self._held_out[split]

    def verify(self, question: Question, completion: str) -> Verdict:
        """Judge one completion. See :class:`~lightning_sd.tasks.judges.Judge`."""
        return self.verify_batch([question], [completion])[0]

    def verify_batch(
        self, questions: Sequence[Question], completions: Sequence[str]
    ) -> list[Verdict]:
        """Judge the completions of a batch. See :class:`~lightning_sd.tasks.judges.Judge`."""
        return self._judge.judge(questions, completions)

    def stream(self) -> QuestionStream:
        """Return the training questions, from the beginning of the stream and without end."""
        return QuestionStream(self)

    def open(self) -> Any:
        """Open the source as a new ``datasets.IterableDataset``."""
        return open_stream(self.path, name=self.name, data_files=self.data_files, split=self.split)

    def build(self, row: Mapping[str, Any], number: int) -> Question:
        """Build the question of one row.

        Args:
            row: The row.
            number: Its number in the source, part of the default question id.

        Returns:
            The question.
        """
        return self._reader.build(row, f"{self.split}/{number}")

    def assign_split(self, question: str) -> Split:
        """Return the split of a question, by a hash of its text and the seed."""
        place = hash_to_fraction(question, self.seed)
        share = self.held_out * self.test_size / (self.test_size + self.val_size)
        return "test" if place < share else "val" if place < self.held_out else "train"

    def _build_reader(self, columns: Mapping[str, str]) -> RowReader:
        return RowReader(
            columns,
            self.answer_pattern,
            self.instruction,
            self.extra_columns or [],
            needs_answer(self._judge),
        )

    def _read_sample(self) -> list[Mapping[str, Any]]:
        sample = list(islice(self.open(), _CHECKED_ROWS))
        if not sample:
            raise ValueError(f"path={self.path!r}: the stream is empty. Choose another source.")
        return sample

    def _collect(self) -> dict[Split, list[Question]]:
        wanted: dict[Split, int] = {"val": self.val_size, "test": self.test_size}
        collected: dict[Split, list[Question]] = {"val": [], "test": []}
        seen: set[str] = set()
        for number, row in enumerate(self.open()):
            question = self.build(row, number)
            text = render_question(question)
            split = self.assign_split(text)
            if split != "train" and text not in seen and len(collected[split]) < wanted[split]:
                seen.add(text)
                collected[split].append(question)
            if all(len(collected[key]) == wanted[key] for key in wanted):
                return {"val": collected["val"], "test": collected["test"]}
        val, test = len(collected["val"]), len(collected["test"])
        raise ValueError(
            f"held_out={self.held_out}: {self.path!r} gave only {val} validation and {test} test "
            "questions. Raise held_out, or lower val_size and test_size."
        )


@dataclass(frozen=True)
class StreamPosition:
    """A position in a stream, sufficient to resume exactly there."""

    round: int = 0
    """Number of times the source has ended."""
    block: int = 0
    """Index of the block in this round."""
    rows: int = 0
    """Number of rows of the source before the block."""
    source: Any = None
    """State of the source before the block. None means its beginning."""
    taken: int = 0
    """Number of questions of the block that were already yielded."""


class QuestionStream:
    """Endless training questions with a position that can be saved and restored exactly.

    Args:
        task: The task that opens the source and builds the questions.
    """

    def __init__(self, task: StreamTask) -> None:
        self._task = task
        self._position = StreamPosition()

    def __iter__(self) -> Iterator[Question]:
        position = self._position
        while True:
            source = self._task.open()
            if position.source is not None:
                source.load_state_dict(position.source)
            rows = iter(source)
            block, read = self._read_block(rows, position.rows)
            while block:
                after = source.state_dict()
                for place, index in enumerate(self._draw_order(position, len(block))):
                    if place >= position.taken:
                        self._position = replace(position, taken=place + 1)
                        yield block[index]
                number = position.block + 1
                position = StreamPosition(position.round, number, position.rows + read, after)
                block, read = self._read_block(rows, position.rows)
            if position.block == 0:
                raise ValueError(
                    f"held_out={self._task.held_out}: no question of {self._task.path!r} is left "
                    "for training. Lower held_out."
                )
            position = StreamPosition(position.round + 1)

    def state_dict(self) -> dict[str, Any]:
        """Return the position as plain values."""
        return asdict(self._position)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Start the next iteration at a saved position."""
        self._position = StreamPosition(**state)

    def _read_block(
        self, rows: Iterator[Mapping[str, Any]], first: int
    ) -> tuple[list[Question], int]:
        """Return one block of training questions and the number of rows that were read."""
        block: list[Question] = []
        read = 0
        for row in rows:
            question = self._task.build(row, first + read)
            read += 1
            if self._task.assign_split(render_question(question)) == "train":
                block.append(question)
            if len(block) == self._task.block:
                break
        return block, read

    def _draw_order(self, position: StreamPosition, size: int) -> list[int]:
        if self._task.block == 1:
            return list(range(size))
        seed = (self._task.seed * 1_000_003 + position.round * 7_919 + position.block) % 2**63
        order: list[int] = torch.randperm(
            size, generator=torch.Generator().manual_seed(seed)
        ).tolist()
        return order
