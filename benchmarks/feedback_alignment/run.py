"""Run the study or a part of it; an interrupted run continues where it stopped.

    python -m benchmarks.feedback_alignment.run --solver lab --part table --jobs 2
    python -m benchmarks.feedback_alignment.run --solver lab --part all --smoke out/smoke

Parts: ``lr`` searches the learning rates of all conditions; ``table`` runs the base and the three
main conditions, including their search; ``ablations`` does the same for the other conditions;
``analysis`` measures where the signal falls under each context; ``all`` runs everything. Each part
ends with the report.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.feedback_alignment import study
from benchmarks.feedback_alignment.report import write_report
from benchmarks.feedback_alignment.study import PLANS, Plan
from benchmarks.grid import run_grid

PARTS = ("table", "ablations", "lr", "analysis", "all")


def run_part(plan: Plan, part: str, scratch: Path, *, jobs: int) -> None:
    """Run the missing cells of one part."""
    plan.results.mkdir(parents=True, exist_ok=True)
    if part in ("table", "all"):
        conditions = [name for name in plan.conditions if name in study.TABLE]
        train(plan, conditions, scratch, jobs=jobs, base=True)
    if part in ("ablations", "all"):
        conditions = [name for name in plan.conditions if name in study.ABLATIONS]
        train(plan, conditions, scratch, jobs=jobs, base=False)
    if part == "lr":
        search(plan, plan.conditions, scratch, jobs=jobs)
    if part in ("analysis", "all"):
        run_grid(
            study.analysis_runs(plan),
            study.collect_analysis,
            plan.results / "analysis.jsonl",
            scratch,
            jobs=jobs,
        )


def train(plan: Plan, conditions: Sequence[str], scratch: Path, *, jobs: int, base: bool) -> None:
    """Search and choose learning rates, then train and test with every seed."""
    rates = search(plan, conditions, scratch, jobs=jobs)
    runs = [*(study.base_runs(plan) if base else []), *study.study_runs(plan, conditions, rates)]
    run_grid(runs, study.collect, plan.results / "runs.jsonl", scratch, jobs=jobs)


def search(plan: Plan, conditions: Sequence[str], scratch: Path, *, jobs: int) -> dict[str, float]:
    """Choose the learning rate of each condition by validation alone."""
    runs = study.search_runs(plan, conditions)
    rows = run_grid(runs, study.collect, plan.results / "search.jsonl", scratch, jobs=jobs)
    return study.choose_rates(rows, conditions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--solver", choices=list(PLANS), default="lab")
    parser.add_argument("--part", choices=PARTS, default="table")
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, one thread each")
    parser.add_argument("--scratch", type=Path, default=Path("out/feedback_alignment"))
    parser.add_argument(
        "--smoke", type=Path, metavar="DIR", help="tiny runs whose results go to DIR"
    )
    args = parser.parse_args()
    plan = PLANS[args.solver]
    if args.smoke:
        plan = study.smoke(plan, args.smoke)
    run_part(plan, args.part, args.scratch.resolve() / args.solver, jobs=args.jobs)
    print(write_report(plan))


if __name__ == "__main__":
    main()
