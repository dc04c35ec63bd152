"""Questions from any source that the ``datasets`` library reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from lightning_sd.tasks.answers import Judge
from lightning_sd.tasks.base import Split, Task
from lightning_sd.tasks.instructions import STEP_INSTRUCTION
from lightning_sd.tasks.rows import RowReader
from lightning_sd.tasks.sources import load_rows, load_split
from lightning_sd.tasks.splits import Rows, disjoint_splits
from lightning_sd.types import Question, Verdict

_SAMPLE = 50
"""Rows whose answers are looked for before training."""


class DatasetTask(Task):
    """Rows of a data set, their columns mapped to the parts of a question.

    Splits that the source lacks are cut from its training split by a hash of the question, and a
    question that stands in several splits stays in the first of ``test``, ``val``, ``train`` only:
    whatever the source looks like, nothing is tested that was trained on.

    Args:
        path: Hub name, folder, or ``.jsonl``, ``.json``, ``.parquet`` or ``.csv`` file; or the name
            of a format together with ``data_files``.
        columns: Which column holds the ``question`` and, if there is one, the worked ``reference``,
            the final ``answer``, a stored ``attempt`` with its ``critique`` and whether it came to
            its end (``finished``), a unique ``id``. Without ``answer`` it is read out of the
            reference.
        name: The data set's configuration, such as ``main`` of ``openai/gsm8k``.
        data_files: Files for a path that names a format, as ``load_dataset`` takes them.
        splits: The source's own names of ``train``, ``val`` and ``test``; those it has not are left
            out and cut from ``train``.
        val_fraction: Share of the questions that become ``val`` if the source has none.
        test_fraction: Share that become ``test`` if the source has none.
        sizes: Use only so many questions of a split.
        answer_pattern: Regular expression whose first group is the answer within the answer column
            (or the reference), such as ``#### (.+)``.
        judge: ``exact`` or ``math``; see :func:`~lightning_sd.tasks.answers.judge`.
        instruction: System message that explains the form of a solution; none: no system message.
        seed: Decides which questions are held out.

    Raises:
        ValueError: A column, split or option that does not exist.
    """

    def __init__(
        self,
        path: str,
        columns: dict[str, str],
        name: str | None = None,
        data_files: str | list[str] | dict[str, str] | None = None,
        splits: dict[str, str] | None = None,
        val_fraction: float = 0.05,
        test_fraction: float = 0.1,
        sizes: dict[str, int] | None = None,
        answer_pattern: str | None = None,
        judge: Judge = "exact",
        instruction: str | None = STEP_INSTRUCTION,
        seed: int = 0,
    ) -> None:
        self.path, self.name, self.data_files = path, name, data_files
        self.columns = columns
        self.splits = splits
        self.val_fraction, self.test_fraction, self.sizes = val_fraction, test_fraction, sizes
        self.answer_pattern = answer_pattern
        self.judge = judge
        self.instruction = instruction
        self.seed = seed
        self._reader = RowReader(columns, answer_pattern, judge, instruction)
        self._check_splits()
        self._rows = self._load()

    def questions(self, split: Split) -> Sequence[Question]:
        """The questions of one split, each built when it is read; see :class:`Task`."""
        if split not in self._rows:
            raise ValueError(f"split={split!r}: choose one of {get_args(Split)}.")
        return _Questions(self._reader, self._rows[split])

    def verify(self, question: Question, completion: str) -> Verdict:
        """Judge the final answer against the row's."""
        return self._reader.verify(question, completion)

    def _load(self) -> dict[Split, Rows]:
        named = self.splits or {"train": "train"}
        source = load_rows(self.path, name=self.name, data_files=self.data_files)
        rows = {key: load_split(source, own, key, self.path) for key, own in named.items()}
        for key, table in rows.items():
            self._reader.check_columns(table.column_names, f"{self.path!r} ({key})")
        result = disjoint_splits(
            rows,
            self.columns["question"],
            fractions={"val": self.val_fraction, "test": self.test_fraction},
            sizes=self.sizes or {},
            seed=self.seed,
        )
        train = result["train"]
        self._reader.check_answers(train.table[int(i)] for i in train.indices[:_SAMPLE])
        return result

    def _check_splits(self) -> None:
        if "train" not in (self.splits or {"train": ""}):
            raise ValueError(f"splits={self.splits}: say which split of the source is `train`.")
        for option in (self.splits or {}, self.sizes or {}):
            if set(option) - set(get_args(Split)):
                raise ValueError(f"splits, sizes: {option} may only name {get_args(Split)}.")


class _Questions(Sequence[Question]):
    """Rows as questions, built when they are read."""

    def __init__(self, reader: RowReader, rows: Rows) -> None:
        self._reader, self._rows = reader, rows

    def __len__(self) -> int:
        return len(self._rows.indices)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row = self._rows.indices[index]
        return self._reader.build(self._rows.table[int(row)], f"{self._rows.source}/{row}")
