"""RCSD against OPSD and GRPO on open answers that a rubric judges, stage I included.

    python -m benchmarks.methods.rcsd.prepare    # once, teaches the solver
    python -m benchmarks.methods.rcsd.run --seeds 1 2 3

Each run is ``fit`` with configs/rcsd.yaml and what the method changes. "Generated rubrics" is the
whole method: stage I, the command that writes the rubrics, stage II. ``results.jsonl`` holds every
run, ``results.md`` the tables. It goes on where it was stopped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.grid import Row, Run, fit_command
from benchmarks.intervals import interval
from benchmarks.methods.lab import read_before_after
from benchmarks.methods.own import gaps, run_study
from benchmarks.methods.rcsd.prepare import FOLDER
from benchmarks.methods.rcsd.wording import DESIGN
from benchmarks.methods.report import DRAWS, answers, named, score_cells

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
"""Each method's overlay behind configs/rcsd.yaml, or options."""
ROLLOUTS = {"GRPO": 8}
"""A question; all others 4."""


def grid(methods: Sequence[str], seeds: Sequence[int], steps: int, model: Path) -> list[Run]:
    """A run for each method and seed."""
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
        *("-m", "lightning_sd.contexts.rubrics", "--model.name", "out/rcsd/rubrics/hf"),
        *("--task", "RubricTask", "--path", RUBRICS, "--design", DESIGN, f"--seed={seed}"),
        *("--sampler.max_new_tokens=128", "--batch_size=64"),
    ]
    return [fit_command(["rcsd_rubrics"], *common), write, fit]


def collect(run: Run, folder: Path) -> Row:
    """Answers before and after, question by question; of stage I the same, and what was refused."""
    row = read_before_after(folder / "out/rcsd/run/before_after.json")
    stage = folder / "out/rcsd/rubrics/before_after.json"
    if stage.exists():
        lines = (folder / RUBRICS).read_text(encoding="utf-8").splitlines()
        written = [json.loads(line)["rubric"] is not None for line in lines]
        row |= {"stage": read_before_after(stage), "rubrics": sum(written) / len(written)}
    return row


def table(rows: Sequence[Row], methods: Sequence[str], draws: int = DRAWS) -> Iterator[str]:
    """Markdown: right answers and the rubric's reward, and the differences from RCSD."""
    steps = rows[0]["steps"]
    yield (
        f"{steps} steps of 32 questions; mean and 95% interval over seeds and 128 test questions. "
        "`reward`: the share of the rubric that an answer earned; Avg: answers that earned all."
    )
    yield ""
    yield "| | seeds | rollouts | reward | Avg@12 | Pass@12 | Maj@12 | length | minutes |"
    yield "|---|---|---|---|---|---|---|---|---|"
    first = named(rows, methods[0])
    reward = interval(answers(first, "reward", "before"), draws=draws).text()
    yield f"| untrained | {len(first)} | | {reward} | {score_cells(first, 'before', draws)} | |"
    for name in methods:
        runs = named(rows, name)
        reward = interval(answers(runs, "reward"), draws=draws).text()
        total = ROLLOUTS.get(name, 4) * 32 * steps
        minutes = sum(run["minutes"] for run in runs) / len(runs)
        cells = f"{reward} | {score_cells(runs, 'after', draws)} | {minutes:.1f}"
        yield f"| {name} | {len(runs)} | {total:,} | {cells} |"
    yield ""
    yield from gaps(rows, "RCSD", ("OPSD", "GRPO"), "Avg@12", draws)
    yield from stage_table(named(rows, GENERATED), draws)


def stage_table(runs: Sequence[Row], draws: int) -> Iterator[str]:
    """Stage I: how well the generator's rubrics agree with the expert's."""
    if not runs:
        return
    stages = [run["stage"] for run in runs]
    yield (
        f"Stage I, {stages[0]['steps']} steps: agreement with the expert's rubric (F1 of criteria) "
        "on the test questions, 4 texts each."
    )
    yield ""
    yield "| | agreement | texts that are a whole right rubric |"
    yield "|---|---|---|"
    for when in ("before", "after"):
        cells = [interval(answers(stages, m, when), draws=draws).text() for m in ("reward", "avg")]
        yield f"| {when} | {' | '.join(cells)} |"
    share = 100 * sum(run["rubrics"] for run in runs) / len(runs)
    yield ""
    yield f"Of the training questions {share:.1f}% got a rubric that could be read."


def main() -> None:
    about = (__doc__ or "").splitlines()[0]
    run_study(about, HERE, FOLDER, list(METHODS), grid, collect=collect, table=table)


if __name__ == "__main__":
    main()
