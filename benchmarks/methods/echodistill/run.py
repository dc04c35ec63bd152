"""EchoDistill against its parts: noisy digits, the frozen teacher hears them clean.

    python -m benchmarks.methods.echodistill.prepare    # once, teaches the model
    python -m benchmarks.methods.echodistill.run --seeds 1 2 3

Each run is ``fit`` with configs/echodistill.yaml and what the method changes, then ``test`` of the
trained student on the same test questions without noise. ``results.jsonl`` holds every run;
``results.md`` the table. It goes on where it was stopped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.grid import Row, Run, fit_command
from benchmarks.intervals import interval
from benchmarks.methods.echodistill.prepare import FOLDER
from benchmarks.methods.lab import columns, read_before_after
from benchmarks.methods.own import gaps, run_study
from benchmarks.methods.report import DRAWS, answers, named

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
"""Configs and further options. Distillation alone samples nothing but what the step asks for."""


def grid(methods: Sequence[str], seeds: Sequence[int], steps: int, model: Path) -> list[Run]:
    """A run for each method and seed, and the untrained model without noise."""
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
    """Answers in noise before and after, and without noise, question by question."""
    lines = (folder / "out/echodistill/clean.jsonl").read_text(encoding="utf-8").splitlines()
    questions = {"clean": columns([json.loads(line) for line in lines])}
    path = folder / "out/echodistill/before_after.json"
    if path.exists():
        questions |= read_before_after(path)["questions"]
    return {"questions": questions}


def table(rows: Sequence[Row], methods: Sequence[str], draws: int = DRAWS) -> Iterator[str]:
    """Markdown: means over seeds and questions with 95% bootstrap intervals."""
    steps = rows[0]["steps"]
    yield (
        f"{steps} steps of 16 questions at -5 to 10 dB; Avg@4 with its mean and 95% interval over "
        "seeds and 200 test questions. One learning rate (3e-4) for all, tuned for none."
    )
    yield ""
    yield "| | seeds | in noise | without noise | length in noise | minutes |"
    yield "|---|---|---|---|---|---|"
    first, other = named(rows, UNTRAINED), named(rows, methods[0])
    cells = _cells(other, "before", first, draws)
    yield f"| {UNTRAINED} | {len(first)} | {cells} | |"
    for name in methods:
        runs = named(rows, name)
        minutes = sum(run["minutes"] for run in runs) / len(runs)
        yield f"| {name} | {len(runs)} | {_cells(runs, 'after', runs, draws)} | {minutes:.1f} |"
    yield ""
    for ours in (BOUNDED, "EchoDistill"):
        others = ("GRPO", "distillation alone", "on policy")
        yield from gaps(rows, ours, others, "Avg@4 in noise,", draws)


def _cells(noisy: Sequence[Row], when: str, clean: Sequence[Row], draws: int) -> str:
    found = [
        interval(answers(noisy, "avg", when), draws=draws).text(),
        interval(answers(clean, "avg", "clean"), draws=draws).text(),
        interval(answers(noisy, "length", when), draws=draws).text(scale=1),
    ]
    return " | ".join(found)


def main() -> None:
    about = (__doc__ or "").splitlines()[0]
    run_study(about, HERE, FOLDER, list(METHODS), grid, collect=collect, table=table)


if __name__ == "__main__":
    main()
