"""The result of a probe."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_sd.diagnostics.probe.attempt import Attempt
from lightning_sd.diagnostics.probe.estimates import estimate_means, list_questions
from lightning_sd.diagnostics.probe.table import ROWS, print_report
from lightning_sd.diagnostics.probe.verdict import Judgment, Thresholds, judge
from lightning_sd.metrics.intervals import Estimate

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Costs:
    """Tokens and seconds of a probe."""

    student_tokens: int = 0
    teacher_tokens: int = 0
    critic_tokens: int = 0
    student_seconds: float = 0.0
    """Time for sampling, judging, critiques and scoring of the student's attempts."""
    critic_seconds: float = 0.0
    """The critic's share of ``student_seconds``."""
    teacher_seconds: float = 0.0
    """Time for the teacher's own answers and for examining all answers."""


@dataclass(frozen=True)
class ProbeReport:
    """What :func:`~lightning_sd.probe` measured."""

    context: str
    """Class name of the teacher context."""
    teacher: str
    """Class name of the teacher's parameters."""
    questions: int
    """Number of validation questions."""
    samples: int
    """Attempts per question."""
    estimates: Mapping[str, Estimate]
    """Means with 95% intervals over questions, by name."""
    missing: Mapping[str, int]
    """Number of attempts without a teacher, by reason."""
    phrases: Mapping[str, int]
    """Number of the teacher's answers that contain each phrase."""
    costs: Costs
    thresholds: Thresholds
    verdict: Judgment

    def to_frame(self) -> pd.DataFrame:
        """Return the estimates as a table.

        Returns:
            One row per estimate, indexed by its name, with the columns ``label``, ``value``,
            ``low``, ``high`` (the 95% interval), ``number`` (items that the mean is over) and
            ``questions``. Shares are between 0 and 1, advantages in nats.
        """
        import pandas as pd

        labels = {row.estimate: row.label.strip() for row in ROWS}
        rows = {
            name: {"label": labels.get(name, name), **asdict(estimate)}
            for name, estimate in self.estimates.items()
        }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("estimate")

    def show(self) -> None:
        """Print the table, the costs and the verdict."""
        print_report(self)

    def save(self, path: str | Path) -> None:
        """Write all fields as JSON.

        Args:
            path: The file; it is overwritten.
        """
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False)
        target.write_text(text + "\n", encoding="utf-8")


def summarize_attempts(
    attempts: Sequence[Attempt],
    *,
    context: str,
    teacher: str,
    costs: Costs,
    thresholds: Thresholds,
) -> ProbeReport:
    """Estimate the means of a probe and judge the context.

    Args:
        attempts: The same number per question, at least two.
        context: Class name of the teacher context.
        teacher: Class name of the teacher's parameters.
        costs: Tokens and seconds.
        thresholds: Thresholds of the verdict.
    """
    questions = list_questions(attempts)
    estimates = estimate_means(attempts)
    missing = Counter(attempt.missing for attempt in attempts if attempt.missing)
    phrases = Counter(p for a in attempts if a.teacher for p in a.teacher.leaks)
    return ProbeReport(
        context=context,
        teacher=teacher,
        questions=len(questions),
        samples=len(attempts) // len(questions),
        estimates=estimates,
        missing=dict(missing.most_common()),
        phrases=dict(phrases.most_common()),
        costs=costs,
        thresholds=thresholds,
        verdict=judge(estimates, thresholds),
    )
