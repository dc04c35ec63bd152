"""Compare EchoDistill with its parts: noisy digits, and a frozen teacher that hears them clean.

    python -m benchmarks.methods.echodistill.prepare    # once, trains the model
    python -m benchmarks.methods.echodistill.run --seeds 1 2 3

Each run is ``fit`` with configs/echodistill.yaml and the method's options, then ``test`` of the
trained student on the same test questions without noise. ``results.jsonl`` holds every run,
``results.md`` the table. An interrupted run continues where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.grid import Row, Run, fit_command
from benchmarks.methods.echodistill.prepare import FOLDER
from benchmarks.methods.lab import columns, read_before_after
from benchmarks.methods.report import DRAWS, select_answers, select_runs
from benchmarks.methods.standalone import format_gaps, run_study
from lightning_sd.metrics.intervals import mean_over_seeds

HERE = Path(__file__).parent
OBJECTIVE = "--model.init_args.objective.init_args"
ROWS = HERE / "rows.yaml"
UNTRAINED, BOUNDED = "untrained", "EchoDistill, bounded"
METHODS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "GRPO": (("echodistill", "grpo"), ()),
    "distillation alone": (
        ("echodistill",),
        (f"{OBJECTIVE}.policy=0", "--model.init_args.samples=1"),
    ),
    "EchoDistill": (("echodistill",), ()),
    BOUNDED: (("echodistill",), (f"{OBJECTIVE}.dual_clip=3",)),
    "on policy": (("echodistill", "echodistill_onpolicy"), ()),
}
"""Configs and further options. Distillation alone samples one rollout per question."""


def build_grid(methods: Sequence[str], seeds: Sequence[int], steps: int, model: Path) -> list[Run]:
    """List one run per method and seed, and the untrained model without noise."""
    facts = {"steps": steps}
    runs = [
        Run(UNTRAINED, seed, [_test(("echodistill", ROWS), (), _common(seed, model))], facts)
        for seed in seeds
    ]
    for seed in seeds:
        for name in methods:
            configs, options = METHODS[name]
            fit = (
                f"--trainer.max_steps={steps}",
                f"--data.init_args.seed={seed}",
                "--trainer.limit_val_batches=0",
            )
            common = _common(seed, model)
            trained = (*options, "--ckpt_path=out/echodistill/checkpoints/last.ckpt")
            commands = [
                fit_command(configs, *options, *common, *fit),
                _test((*configs, ROWS), trained, common),
            ]
            runs.append(Run(name, seed, commands, facts))
    return runs


def _common(seed: int, model: Path) -> tuple[str, ...]:
    return (
        f"--seed_everything={seed}",
        f"--model.init_args.model.init_args.name={model.resolve()}",
    )


def _test(
    configs: Sequence[str | Path], options: Sequence[str], common: Sequence[str]
) -> list[str]:
    clean = "--data.init_args.task.init_args.clean=true"
    return fit_command(configs, *options, *common, clean, verb="test")


def collect(run: Run, folder: Path) -> Row:
    """Read the answers per question: in noise before and after training, and without noise."""
    lines = (folder / "out/echodistill/clean.jsonl").read_text(encoding="utf-8").splitlines()
    questions = {"clean": columns([json.loads(line) for line in lines])}
    path = folder / "out/echodistill/before_after.json"
    if path.exists():
        questions |= read_before_after(path)["questions"]
    return {"questions": questions}


def format_table(rows: Sequence[Row], methods: Sequence[str], draws: int = DRAWS) -> Iterator[str]:
    """Format means over seeds and questions with 95% bootstrap intervals as Markdown."""
    steps = rows[0]["steps"]
    yield (
        f"{steps} steps of 16 questions at -5 to 10 dB; Avg@4 with its mean and 95% interval over "
        "seeds and 200 test questions. One learning rate (3e-4) for all, tuned for none."
    )
    yield ""
    yield "| | seeds | in noise | without noise | length in noise | minutes |"
    yield "|---|---|---|---|---|---|"
    first, other = select_runs(rows, UNTRAINED), select_runs(rows, methods[0])
    cells = _format_cells(other, "before", first, draws)
    yield f"| {UNTRAINED} | {len(first)} | {cells} | |"
    for name in methods:
        runs = select_runs(rows, name)
        minutes = sum(run["minutes"] for run in runs) / len(runs)
        cells = _format_cells(runs, "after", runs, draws)
        yield f"| {name} | {len(runs)} | {cells} | {minutes:.1f} |"
    yield ""
    for ours in (BOUNDED, "EchoDistill"):
        others = ("GRPO", "distillation alone", "on policy")
        yield from format_gaps(rows, ours, others, "Avg@4 in noise,", draws)


def _format_cells(noisy: Sequence[Row], when: str, clean: Sequence[Row], draws: int) -> str:
    found = [
        mean_over_seeds(select_answers(noisy, "avg", when), draws=draws).format(),
        mean_over_seeds(select_answers(clean, "avg", "clean"), draws=draws).format(),
        mean_over_seeds(select_answers(noisy, "length", when), draws=draws).format(scale=1),
    ]
    return " | ".join(found)


def main() -> None:
    about = (__doc__ or "").splitlines()[0]
    run_study(about, HERE, FOLDER, list(METHODS), build_grid, collect=collect, table=format_table)


if __name__ == "__main__":
    main()
