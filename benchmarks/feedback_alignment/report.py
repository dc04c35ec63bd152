"""Write tables and figures of the study from the raw results.

python -m benchmarks.feedback_alignment.report --solver lab
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.alignment_map.intervals import format_paired_seeds
from benchmarks.feedback_alignment import study
from benchmarks.feedback_alignment.figures import plot_all
from benchmarks.feedback_alignment.rows import (
    BUDGETS,
    best_within,
    build_curve,
    group_by_condition,
    mean_along,
    mean_spent,
    select_scores,
    spent_at,
)
from benchmarks.feedback_alignment.study import BASE, PLANS, PRIMARY, Plan
from benchmarks.grid import Row, read_rows
from lightning_sd.diagnostics.analysis.table import format_cell
from lightning_sd.metrics.intervals import difference_over_seeds, mean_over_seeds
from lightning_sd.metrics.measures import MEASURES

DRAWS = 10_000
Conditions = dict[str, list[Row]]


def write_report(plan: Plan, *, draws: int = DRAWS) -> str:
    """Write ``results.md`` and the figures into the folder of the raw results.

    Args:
        plan: Plan of one solver.
        draws: Bootstrap samples per interval.

    Returns:
        The text of ``results.md``.
    """
    folder = plan.results
    search, runs, analysis = (
        read_rows(folder / f"{name}.jsonl") for name in ("search", "runs", "analysis")
    )
    found = group_by_condition(runs)
    parts = [f"# Results: {plan.solver}", ""]
    if found:
        parts += [*_main(found, plan, draws), *_differences(found, draws), *_budgets(found, draws)]
    if search:
        parts += _search(search)
    if analysis:
        parts += _analysis(analysis)
    text = "\n".join(parts)
    (folder / "results.md").write_text(text, encoding="utf-8")
    plot_all(found, folder, plan, draws=draws)
    return text


def _main(found: Conditions, plan: Plan, draws: int) -> Iterator[str]:
    k = plan.k
    yield "## Test questions"
    yield ""
    yield (
        f"Means with nominal 95% bootstrap intervals over seeds and questions; {len(_test(found))} "
        "questions, read once with the checkpoint that was best in validation."
    )
    yield ""
    yield f"| | seeds | lr | step | Avg@{k} | Pass@{k} | Maj@{k} | length |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, runs in found.items():
        cells = [
            mean_over_seeds(select_scores(runs, m), draws=draws).format()
            for m in ("avg", "pass", "maj")
        ]
        length = mean_over_seeds(select_scores(runs, "length"), draws=draws).format(scale=1)
        step = statistics.mean(run["step"] for run in runs)
        rate = f"{runs[0]['lr']:g}" if "lr" in runs[0] else ""
        yield f"| {name} | {len(runs)} | {rate} | {step:g} | {' | '.join(cells)} | {length} |"
    yield ""


def _test(found: Conditions) -> Sequence[Any]:
    rows: Sequence[Any] = next(iter(found.values()))[0]["test"]
    return rows


def _differences(found: Conditions, draws: int) -> Iterator[str]:
    first, second = PRIMARY
    if first not in found:
        return
    yield "## Paired differences"
    yield ""
    yield (
        f"{first} minus the other, in points, on the same questions. The comparison named in "
        f"advance, in the lab, is {first} minus {second}, Avg, and near the ceiling `along`, the "
        "mean validation Avg over a run's rollouts. All others are exploratory and not corrected "
        "for their number. The last two columns were added later: Student's intervals of one "
        "difference per seed, which hold with few seeds "
        "([simulation](../../../alignment_map/coverage.md)). The others are too narrow where seeds "
        "differ much."
    )
    yield ""
    yield "| minus | Avg | Pass | Maj | length, tokens | Avg, Student | along, Student |"
    yield "|---|---|---|---|---|---|---|"
    starts = {run["seed"]: run for run in found.get(BASE, [])}
    ours = _mean_along(found[first], starts)
    for name, runs in found.items():
        if name == first:
            continue
        cells = []
        for metric in ("avg", "pass", "maj", "length"):
            pair = (select_scores(group, metric) for group in (found[first], runs))
            gap = difference_over_seeds(*pair, draws=draws)
            cells.append(gap.format(scale=1 if metric == "length" else 100))
        averages = (select_scores(group, "avg") for group in (found[first], runs))
        cells.append(format_paired_seeds(*averages))
        # The base is not trained, so it has no curve.
        cells.append(format_paired_seeds(ours, _mean_along(runs, starts)) if name != BASE else "")
        label = f"**{name}**" if name == second else name
        yield f"| {label} | {' | '.join(cells)} |"
    yield ""


def _mean_along(runs: Sequence[Row], starts: dict[int, Row]) -> list[list[float]]:
    """Return each run's mean validation accuracy over its rollouts, ``[seeds][1]``."""
    return [[mean_along(build_curve(run, starts.get(run["seed"]), "rollouts"))] for run in runs]


def _budgets(found: Conditions, draws: int) -> Iterator[str]:
    trained = {name: runs for name, runs in found.items() if name != BASE}
    if not trained:
        return
    least = {
        budget: min(mean_spent(runs, budget) for runs in trained.values()) for budget in BUDGETS
    }
    yield "## Budgets"
    yield ""
    yield (
        "Budget of a complete run (mean over seeds), and the best validation Avg within the "
        "smallest budget of any condition; `along` is the mean validation Avg over a run's "
        "rollouts, starting at the untrained solver. `read` counts the tokens of prompts and "
        "completions that student and teacher score; critiques of rules count as if a model had "
        "written them."
    )
    yield ""
    heads = [f"val at {least[b]:,.0f} {b.replace('_', ' ')}" for b in BUDGETS]
    yield (
        "| | rollouts | with teacher | sampled | critique | read | core seconds | "
        f"along | {' | '.join(heads)} |"
    )
    yield "|---" * (8 + len(heads)) + "|"
    starts = {run["seed"]: run for run in found.get(BASE, [])}
    columns = ("rollouts", "taught", "sampled", "written", "read", "cpu_seconds")
    for name, runs in trained.items():
        ends = [run["curve"][-1] for run in runs]
        means = [statistics.mean(spent_at(end, c) for end in ends) for c in columns]
        equal = [mean_over_seeds(_mean_along(runs, starts), draws=draws).format()]
        for budget in BUDGETS:
            curves = [build_curve(run, starts.get(run["seed"]), budget) for run in runs]
            best = statistics.mean(best_within(points, least[budget]) for points in curves)
            equal.append(f"{100 * best:.1f}")
        cells = [f"{mean:,.0f}" for mean in means]
        yield f"| {name} | {' | '.join(cells)} | {' | '.join(equal)} |"
    yield ""


def _search(search: Sequence[Row]) -> Iterator[str]:
    rates = sorted({row["lr"] for row in search})
    names = list(group_by_condition(search))
    yield "## Learning rates"
    yield ""
    yield "Best validation Avg per rate, in percent, with seeds that the tables do not use."
    yield ""
    yield f"| | {' | '.join(f'{rate:g}' for rate in rates)} | chosen |"
    yield "|---" * (len(rates) + 2) + "|"
    chosen = study.choose_rates(search, names)
    for name in names:
        cells = []
        for rate in rates:
            values = [r["val"] for r in search if (r["name"], r["lr"]) == (name, rate)]
            cells.append(f"{100 * statistics.mean(values):.1f}" if values else "")
        edge = " (edge of the grid)" if chosen[name] in (rates[0], rates[-1]) else ""
        found = f"{chosen[name]:g}{edge}" if all(cells) else "(unfinished)"
        yield f"| {name} | {' | '.join(cells)} | {found} |"
    yield ""


ANALYZED = (
    "negative_mass",
    "absolute_mass",
    "prefix_sign",
    "prefix_mean",
    "step_auroc",
    "token_auroc",
    "style_share",
    "mean_abs",
)


def _analysis(analysis: Sequence[Row]) -> Iterator[str]:
    yield "## Where the signal falls"
    yield ""
    summary = analysis[0]["summary"]
    yield (
        f"{summary['rollouts']} rollouts of the untrained solver to {summary['questions']} "
        f"validation questions, {summary['with_error']} with a wrong step; each value has its 95% "
        "interval over questions and its value by chance (the advantages in random order)."
    )
    yield ""
    heads = [MEASURES[name].label.replace("|", "\\|") for name in ANALYZED]
    yield f"| | scored | {' | '.join(heads)} |"
    yield "|---" * (2 + len(ANALYZED)) + "|"
    for row in analysis:
        for context, part in row["summary"]["contexts"].items():
            label = row["name"] if row["name"].startswith("weak") else study.NAMES[context]
            cells = [
                format_cell(part["measures"].get(name), MEASURES[name]).replace("\n", "; ")
                for name in ANALYZED
            ]
            yield f"| {label} | {part['scored']} | {' | '.join(cells)} |"
    yield ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--solver", choices=list(PLANS), default="lab")
    parser.add_argument("--results", type=Path, default=study.HERE / "results")
    args = parser.parse_args()
    print(write_report(study.with_folder(PLANS[args.solver], args.results)))


if __name__ == "__main__":
    main()
