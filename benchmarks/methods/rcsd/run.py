"""Compare RCSD with OPSD and GRPO on open answers judged by a rubric, including stage I.

    python -m benchmarks.methods.rcsd.prepare    # once, trains the solver
    python -m benchmarks.methods.rcsd.run --seeds 1 2 3

Each run is ``fit`` with configs/rcsd.yaml and the method's options. "Generated rubrics" is the
complete method: stage I, the command that writes the rubrics, stage II. ``results.jsonl`` holds
every run, ``results.md`` the tables. An interrupted run continues where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.grid import Row, Run, fit_command
from benchmarks.methods.lab import read_before_after
from benchmarks.methods.rcsd.prepare import FOLDER
from benchmarks.methods.rcsd.wording import DESIGN
from benchmarks.methods.report import DRAWS, format_scores, select_answers, select_runs
from benchmarks.methods.standalone import format_gaps, run_study
from lightning_sd.metrics.intervals import mean_over_seeds

HERE = Path(__file__).parent
RUBRICS = "out/rcsd/rubrics.jsonl"
SOURCE = "--teacher_context.init_args.rubrics"
CLIP = "--model.init_args.objective.init_args.element_clip=0.05"
GENERATED = "RCSD, generated rubrics"
METHODS: dict[str, tuple[str, ...]] = {
    "GRPO": ("grpo",),
    "OPSD": ("opsd",),
    "OPSD, clip 0.05": ("opsd", CLIP),
    "RCSD": (),
    "RCSD, clip 0.05": (CLIP,),
    GENERATED: (f"{SOURCE}=GeneratedRubric", f"{SOURCE}.init_args.path={RUBRICS}"),
    "RCSD, random rubrics": (f"{SOURCE}=RandomRubric",),
}
"""Each method's overlay over configs/rcsd.yaml, or options."""
ROLLOUTS = {"GRPO": 8}
"""Rollouts per question; 4 for all other methods."""


def build_grid(methods: Sequence[str], seeds: Sequence[int], steps: int, model: Path) -> list[Run]:
    """List one run per method and seed."""
    return [
        Run(name, seed, _commands(name, seed, steps, model), {"steps": steps})
        for seed in seeds
        for name in methods
    ]


def _commands(name: str, seed: int, steps: int, model: Path) -> list[list[str]]:
    common = (
        f"--seed_everything={seed}",
        f"--data.init_args.seed={seed}",
        f"--model.init_args.model.init_args.name={model.resolve()}",
    )
    overlays = [HERE / f"{word}.yaml" for word in METHODS[name] if not word.startswith("--")]
    options = [word for word in METHODS[name] if word.startswith("--")]
    fit = fit_command(["rcsd", *overlays], *options, *common, f"--trainer.max_steps={steps}")
    if name != GENERATED:
        return [fit]
    write = [
        *("-m", "lightning_sd", "rubrics", "--model.name", "out/rcsd/rubrics/hf"),
        *("--task", "CreatureTask", "--path", RUBRICS, "--design", DESIGN, f"--seed={seed}"),
        *("--sampler.max_new_tokens=128", "--batch_size=64"),
    ]
    return [fit_command(["rcsd_rubrics"], *common), write, fit]


def collect(run: Run, folder: Path) -> Row:
    """Read the answers per question before and after training, and the same of stage I."""
    row = read_before_after(folder / "out/rcsd/run/before_after.json")
    stage = folder / "out/rcsd/rubrics/before_after.json"
    if stage.exists():
        lines = (folder / RUBRICS).read_text(encoding="utf-8").splitlines()
        written = [json.loads(line)["rubric"] is not None for line in lines]
        row |= {"stage": read_before_after(stage), "rubrics": sum(written) / len(written)}
    return row


def format_table(rows: Sequence[Row], methods: Sequence[str], draws: int = DRAWS) -> Iterator[str]:
    """Format right answers, rubric rewards and the differences from RCSD as Markdown."""
    steps = rows[0]["steps"]
    yield (
        f"{steps} steps of 32 questions; mean and 95% interval over seeds and 128 test questions. "
        "`reward`: the earned share of the rubric; Avg: answers that earned the whole rubric."
    )
    yield ""
    yield "| | seeds | rollouts | reward | Avg@12 | Pass@12 | Maj@12 | length | minutes |"
    yield "|---|---|---|---|---|---|---|---|---|"
    first = select_runs(rows, methods[0])
    reward = mean_over_seeds(select_answers(first, "reward", "before"), draws=draws).format()
    yield f"| untrained | {len(first)} | | {reward} | {format_scores(first, 'before', draws)} | |"
    for name in methods:
        runs = select_runs(rows, name)
        reward = mean_over_seeds(select_answers(runs, "reward"), draws=draws).format()
        total = ROLLOUTS.get(name, 4) * 32 * steps
        minutes = sum(run["minutes"] for run in runs) / len(runs)
        cells = f"{reward} | {format_scores(runs, 'after', draws)} | {minutes:.1f}"
        yield f"| {name} | {len(runs)} | {total:,} | {cells} |"
    yield ""
    yield from format_gaps(rows, "RCSD", ("OPSD", "GRPO"), "Avg@12", draws)
    yield from format_stage(select_runs(rows, GENERATED), draws)


def format_stage(runs: Sequence[Row], draws: int) -> Iterator[str]:
    """Format stage I: agreement of the generator's rubrics with the expert's."""
    if not runs:
        return
    stages = [run["stage"] for run in runs]
    yield (
        f"Stage I, {stages[0]['steps']} steps: agreement with the expert's rubric (F1 of criteria) "
        "on the test questions, 4 texts each."
    )
    yield ""
    yield "| | agreement | texts that are a completely right rubric |"
    yield "|---|---|---|"
    for when in ("before", "after"):
        cells = [
            mean_over_seeds(select_answers(stages, m, when), draws=draws).format()
            for m in ("reward", "avg")
        ]
        yield f"| {when} | {' | '.join(cells)} |"
    share = 100 * sum(run["rubrics"] for run in runs) / len(runs)
    yield ""
    yield f"{share:.1f}% of the training questions got a rubric that could be parsed."


def main() -> None:
    about = (__doc__ or "").splitlines()[0]
    run_study(about, HERE, FOLDER, list(METHODS), build_grid, collect=collect, table=format_table)


if __name__ == "__main__":
    main()
