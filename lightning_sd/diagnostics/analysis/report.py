"""The result of an analysis."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.utilities import rank_zero_warn

from lightning_sd.diagnostics.analysis.figure import draw_figure
from lightning_sd.diagnostics.analysis.html import write_page
from lightning_sd.diagnostics.analysis.rows import Row
from lightning_sd.diagnostics.analysis.summary import summarize_rows
from lightning_sd.diagnostics.analysis.table import print_summary
from lightning_sd.metrics.measures import MEASURES

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class AnalysisReport:
    """What :func:`~lightning_sd.analyze` measured."""

    rows: Sequence[Row]
    """One dict per rollout; :func:`.rows.build_row` documents its keys."""
    summary: Mapping[str, Any]
    """Means over rollouts; :func:`.summary.summarize_rows` documents its keys."""

    @classmethod
    def from_rows(cls, rows: Sequence[Row]) -> AnalysisReport:
        """Summarize rows, which may come from :func:`.rows.read_rows`.

        Args:
            rows: At least one row.
        """
        return cls(rows, summarize_rows(rows))

    def to_frame(self) -> pd.DataFrame:
        """Return the means of all contexts as a table.

        Returns:
            One row per context and measure, indexed by both, with the columns ``label``, ``value``,
            ``low``, ``high`` (the 95% interval), ``chance`` (expected value under a random order of
            the advantages), ``rollouts`` and ``questions``.
        """
        import pandas as pd

        rows = [
            {"context": name, "measure": measure, "label": MEASURES[measure].label, **mean}
            for name, context in self.summary["contexts"].items()
            for measure, mean in context["measures"].items()
        ]
        columns = ["label", "value", "low", "high", "chance", "rollouts", "questions"]
        frame = pd.DataFrame(rows, columns=["context", "measure", *columns])
        return frame.set_index(["context", "measure"])

    def tokens_to_frame(self) -> pd.DataFrame:
        """Return the advantage of every token under every context.

        Returns:
            One row per context, rollout and token, with the columns ``context``, ``rollout`` (index
            in ``rows``), ``question`` (its id), ``position``, ``token`` (its text), ``step``
            (counted from 1; 0 outside of all steps), ``wrong`` (whether the step is wrong) and
            ``advantage`` in nats.
        """
        import pandas as pd

        return pd.DataFrame(
            [token for i, row in enumerate(self.rows) for token in _list_tokens(i, row)],
            columns=[
                *("context", "rollout", "question", "position"),
                *("token", "step", "wrong", "advantage"),
            ],
        )

    def show(self) -> None:
        """Print the means of all contexts, and the differences between them."""
        print_summary(self.summary)

    def save(self, folder: str | Path) -> None:
        """Write ``summary.json``, the page ``report.html`` and ``figure.png``.

        Without matplotlib the figure is left out with a warning.

        Args:
            folder: Existing files of these names are overwritten.
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        (target / "summary.json").write_text(json.dumps(self.summary, indent=1) + "\n")
        write_page(self.rows, self.summary, target / "report.html")
        try:
            draw_figure(self.rows, target / "figure.png")
        except ImportError as error:
            rank_zero_warn(f"figure.png is left out: {error}")


def _list_tokens(index: int, row: Row) -> list[dict[str, Any]]:
    owner = {
        position: number
        for number, (start, end) in enumerate(row["steps"], start=1)
        for position in range(start, end)
    }
    return [
        {
            "context": name,
            "rollout": index,
            "question": row["id"],
            "position": position,
            "token": row["special"].get(str(position), text),
            "step": owner.get(position, 0),
            "wrong": owner.get(position) in row["wrong"],
            "advantage": advantage,
        }
        for name, scored in row["contexts"].items()
        if scored
        for position, (text, advantage) in enumerate(
            zip(row["tokens"], scored["advantages"], strict=True)
        )
    ]
