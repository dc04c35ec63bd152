"""Simulate how often 95% intervals hold the true difference with few training seeds.

    python -m benchmarks.alignment_map.coverage

Each simulated study has two methods with the same true mean, some seeds and 200 questions. Accuracy
varies by seed, by question and by both. The command writes ``coverage.md``.
"""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.alignment_map.intervals import paired_interval
from lightning_sd.metrics.intervals import difference_over_seeds

HERE = Path(__file__).parent
SEEDS = (2, 3, 5)
QUESTIONS = 200
SPREADS = (0.01, 0.03)
"""Standard deviations of a run's mean accuracy over seeds."""
STUDIES = 300
DRAWS = 200


def simulate_study(
    seeds: int, spread: float, generator: torch.Generator
) -> tuple[list[list[float]], list[list[float]]]:
    """Draw ``[seeds][questions]`` of two methods with equal true means."""

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    question = 0.7 + 0.25 * draw(1, QUESTIONS)
    first, second = (
        (question + spread * draw(seeds, 1) + 0.1 * draw(seeds, QUESTIONS)).tolist()
        for _ in range(2)
    )
    return first, second


def measure_coverage(seeds: int, spread: float, studies: int = STUDIES) -> tuple[float, float]:
    """Return the coverage of the bootstrap and of Student's interval."""
    generator = torch.Generator().manual_seed(seeds)
    held = [0, 0]
    for _ in range(studies):
        first, second = simulate_study(seeds, spread, generator)
        _, low, high = difference_over_seeds(first, second, draws=DRAWS).ends()
        held[0] += low <= 0 <= high
        means = [[sum(row) / QUESTIONS for row in table] for table in (first, second)]
        _, low, high = paired_interval(*means)
        held[1] += low <= 0 <= high
    return held[0] / studies, held[1] / studies


def write_table() -> str:
    """Return the table of coverages."""
    lines = [
        "# Coverage of 95% intervals with few seeds",
        "",
        f"{STUDIES} simulated studies per row, {QUESTIONS} questions, two methods whose true means "
        "are equal. `spread`: standard deviation of a run's mean accuracy over seeds, in points. "
        "Bootstrap: `difference_over_seeds`, which resamples seeds and questions. Student: "
        "`paired_interval`, with one difference per seed. "
        "`python -m benchmarks.alignment_map.coverage` writes this page.",
        "",
        "| seeds | spread | bootstrap | Student |",
        "|---|---|---|---|",
    ]
    for seeds in SEEDS:
        for spread in SPREADS:
            bootstrap, student = measure_coverage(seeds, spread)
            lines.append(f"| {seeds} | {100 * spread:g} | {bootstrap:.1%} | {student:.1%} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    torch.set_num_threads(1)
    text = write_table()
    (HERE / "coverage.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
