"""Questions from rows in memory."""

from __future__ import annotations

from typing import Any

from lightning_sd.tasks.dataset import DatasetTask


class RowsTask(DatasetTask):
    """A :class:`DatasetTask` whose rows are in memory.

    Args:
        rows: A ``datasets.Dataset`` or ``DatasetDict``, or a list of rows, each a mapping from
            columns to values.
        options: Options of :class:`DatasetTask` other than ``path``, ``name`` and ``data_files``.

    Raises:
        ValueError: A column, split or option does not exist, or there are no rows.

    Example:
        >>> rows = [{"question": f"{n}+1", "answer": str(n + 1)} for n in range(100)]
        >>> task = RowsTask(rows, val_fraction=0.1)
        >>> task.verify(task.questions("train")[0], "<answer>1</answer>").status
        'judged'
    """

    def __init__(self, rows: Any, **options: Any) -> None:
        self.rows = rows
        super().__init__("rows", **options)

    def _open_source(self) -> Any:
        import datasets

        if not isinstance(self.rows, list):
            return self.rows
        if not self.rows:
            raise ValueError("rows=[]: give at least one row per split.")
        return datasets.Dataset.from_list(self.rows)
