"""Questions from any source that the ``datasets`` library can read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from lightning_sd.tasks.base import Split, Task
from lightning_sd.tasks.instructions import STEP_INSTRUCTION
from lightning_sd.tasks.judges.build import JudgeSpec, build_judge, needs_answer
from lightning_sd.tasks.judges.process import JudgeLimits
from lightning_sd.tasks.layouts import recognize_layout
from lightning_sd.tasks.row_reader import RowReader
from lightning_sd.tasks.sources import load_rows, load_split
from lightning_sd.tasks.splits import SplitRows, make_disjoint_splits
from lightning_sd.types import Question, Verdict

_CHECKED_ROWS = 50
"""Number of rows that are checked for answers at construction."""


class DatasetTask(Task):
    """Questions from the rows of a data set.

    If the source has no validation or test split, it is cut from the training split by a hash of
    the question. A question that occurs in several splits is kept only in the first of ``test``,
    ``val`` and ``train``, so that no training question is ever tested.

    Args:
        path: Hub name, folder, or a ``.jsonl``, ``.json``, ``.parquet`` or ``.csv`` file. With
            ``data_files``, the name of a format.
        columns: Column of each field, or part of a column such as ``reward_model.ground_truth``.
            ``question`` is required, and ``answer`` (the final answer, or a list of accepted ones)
            or ``reference`` (a worked solution that holds the answer). The others are optional:
            ``attempt`` (a stored attempt), ``critique`` (its critique), ``finished`` (whether the
            attempt is complete) and ``id`` (a unique text). Questions and solutions may be chat
            messages. None recognizes the layouts of
            :func:`~lightning_sd.tasks.layouts.recognize_layout`, such as those of TRL and verl.
        name: Configuration of the data set, such as ``main`` of ``openai/gsm8k``.
        data_files: Files, as ``datasets.load_dataset`` takes them, if ``path`` names a format.
        splits: The source's names of ``train``, ``val`` and ``test``. A split that is not mapped is
            cut from ``train``.
        val_fraction: Share of the training questions that becomes ``val`` if it is not mapped.
        test_fraction: Share of the training questions that becomes ``test`` if it is not mapped.
        sizes: Largest number of questions per split. The first ones are used.
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
        seed: Selects the held-out questions.

    Raises:
        ValueError: A column, split or option does not exist.
    """

    def __init__(
        self,
        path: str,
        columns: dict[str, str] | None = None,
        name: str | None = None,
        data_files: str | list[str] | dict[str, str] | None = None,
        splits: dict[str, str] | None = None,
        val_fraction: float = 0.05,
        test_fraction: float = 0.1,
        sizes: dict[str, int] | None = None,
        answer_pattern: str | None = None,
        judge: JudgeSpec = "number",
        judge_weights: list[float] | None = None,
        judge_limits: JudgeLimits | None = None,
        completion_pattern: str | list[str] | None = None,
        extra_columns: list[str] | None = None,
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
        self.judge_weights, self.judge_limits = judge_weights, judge_limits
        self.completion_pattern, self.extra_columns = completion_pattern, extra_columns
        self._judge = build_judge(
            judge,
            weights=judge_weights,
            completion_pattern=completion_pattern,
            limits=judge_limits or JudgeLimits(),
            columns=extra_columns or [],
        )
        self._check_splits()
        if columns is not None:
            self._build_reader(columns)  # refuses unknown fields before anything is downloaded
        tables = self._load_tables()
        existing = tables["train"].column_names
        self._reader = self._build_reader(columns or recognize_layout(existing, repr(path)))
        self._rows = self._split(tables)

    def questions(self, split: Split) -> Sequence[Question]:
        """Return the questions of one split, each built when it is read."""
        if split not in self._rows:
            raise ValueError(f"split={split!r}: choose one of {get_args(Split)}.")
        return _Questions(self._reader, self._rows[split])

    def verify(self, question: Question, completion: str) -> Verdict:
        """Judge one completion. See :class:`~lightning_sd.tasks.judges.Judge`."""
        return self.verify_batch([question], [completion])[0]

    def verify_batch(
        self, questions: Sequence[Question], completions: Sequence[str]
    ) -> list[Verdict]:
        """Judge the completions of a batch. See :class:`~lightning_sd.tasks.judges.Judge`."""
        return self._judge.judge(questions, completions)

    def _build_reader(self, columns: Mapping[str, str]) -> RowReader:
        return RowReader(
            columns,
            self.answer_pattern,
            self.instruction,
            self.extra_columns or [],
            needs_answer(self._judge),
        )

    def _load_tables(self) -> dict[str, Any]:
        names = self.splits or {"train": "train"}
        source = self._open_source()
        return {key: load_split(source, name, key, self.path) for key, name in names.items()}

    def _open_source(self) -> Any:
        return load_rows(self.path, name=self.name, data_files=self.data_files)

    def _split(self, tables: Mapping[str, Any]) -> dict[Split, SplitRows]:
        for key, table in tables.items():
            self._reader.check_columns(table.column_names, f"{self.path!r} ({key})")
        result = make_disjoint_splits(
            tables,
            {key: self._reader.read_questions(table) for key, table in tables.items()},
            fractions={"val": self.val_fraction, "test": self.test_fraction},
            sizes=self.sizes or {},
            seed=self.seed,
        )
        train = result["train"]
        self._reader.check_answers(train.table[int(i)] for i in train.indices[:_CHECKED_ROWS])
        return result

    def _check_splits(self) -> None:
        if "train" not in (self.splits or {"train": ""}):
            raise ValueError(f"splits={self.splits}: add the source's name of `train`.")
        for name, option in (("splits", self.splits), ("sizes", self.sizes)):
            unknown = sorted(set(option or ()) - set(get_args(Split)))
            if unknown:
                raise ValueError(f"{name}: {unknown} is unknown. Use only {get_args(Split)}.")


class _Questions(Sequence[Question]):
    """Questions of some rows, each built when it is read."""

    def __init__(self, reader: RowReader, rows: SplitRows) -> None:
        self._reader, self._rows = reader, rows

    def __len__(self) -> int:
        return len(self._rows.indices)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row = self._rows.indices[index]
        return self._reader.build(self._rows.table[int(row)], f"{self._rows.source}/{row}")
