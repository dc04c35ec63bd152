"""Write ``results.md`` and the figures from the raw rows.

python -m benchmarks.methods.report
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from benchmarks.alignment_map.intervals import format_paired_seeds
from benchmarks.grid import Row, read_rows
from benchmarks.methods import continual, lab
from benchmarks.methods.figures import plot_continual, plot_lab
from lightning_sd.metrics.intervals import (
    Bootstrap,
    Estimate,
    Sums,
    Table,
    difference_over_seeds,
    mean_over_seeds,
    sum_per_question,
)

DRAWS = 4_000
PARTS = ("lab", "style", "rare", "continual")
COMPARED = (
    *("OPSD", "OPSD, no clip", "OPSD + contrast", "OPSD + contrast, no clip"),
    *("RLSD", "RLSD + contrast", "RLCSD", "RLCSD, reference hints", "GRPO"),
)
SIGNALS = ("one_sided", "contrast")
ROLLOUTS = {
    **dict.fromkeys(lab.METHODS, 8),
    **dict.fromkeys(("OPSD", "OPSD, no clip", "SDFT"), 1),
    **dict.fromkeys(("StepAlignFB", "RefSol"), 4),
}


def write_report(raw: Path, folder: Path, *, draws: int = DRAWS) -> str:
    """Write ``results.md`` and the figures for the parts that have rows.

    Args:
        raw: Folder of the raw rows.
        folder: Folder to write to.
        draws: Bootstrap samples per interval.

    Returns:
        The text of ``results.md``.
    """
    rows = {
        part: read_rows(raw / f"{part}.jsonl") for part in ("lab", "style", "rare", "continual")
    }
    parts = ["# Results", "", "Protocol: [README.md](README.md). Raw rows: `raw/`.", ""]
    if rows["lab"]:
        parts += [*format_lab(rows["lab"], draws), *format_lengths(rows["lab"], draws)]
        plot_lab(rows["lab"], folder / "lab.svg", draws=draws)
    if rows["style"]:
        parts += format_style(rows["style"], draws)
    if rows["rare"]:
        parts += format_rare(rows["rare"], draws)
    if rows["continual"]:
        parts += format_continual(rows["continual"], draws)
        plot_continual(rows["continual"], folder / "continual.svg")
    text = "\n".join(parts)
    (folder / "results.md").write_text(text, encoding="utf-8")
    return text


def select_runs(rows: Sequence[Row], name: str, **facts: object) -> list[Row]:
    """Select the runs of one method, ordered by seed."""
    own = [r for r in rows if r["name"] == name and all(r[k] == v for k, v in facts.items())]
    return sorted(own, key=lambda row: int(row["seed"]))


def select_answers(runs: Sequence[Row], metric: str, when: str = "after") -> list[list[float]]:
    """Return one metric as ``[seeds][questions]``.

    Raises:
        ValueError: The runs answered different test questions.
    """
    tables = [run["questions"][when] for run in runs]
    return _align(tables, metric)


def select_task(runs: Sequence[Row], task: str, metric: str = "avg") -> list[list[float]]:
    """Return ``[seeds][questions]`` of one task of the continual study, such as ``first``."""
    return _align([run[task] for run in runs], metric)


def _align(tables: Sequence[Row], metric: str) -> list[list[float]]:
    if any(table["id"] != tables[0]["id"] for table in tables):
        raise ValueError("Runs answered different test questions and cannot be compared.")
    return [table[metric] for table in tables]


def format_lab(rows: Sequence[Row], draws: int) -> Iterator[str]:
    """Format the table of all methods on the lab task."""
    steps = rows[0]["steps"]
    yield "## All text methods on the lab task"
    yield ""
    yield (
        f"{steps} optimizer steps of {lab.QUESTIONS} questions, one learning rate (3e-4) for "
        "all, chosen for StepAlignFB. **Not a ranking**: nothing is tuned for the others, rollouts "
        "differ. Mean and 95% interval over seeds and questions. `taught`: share of the training "
        "rollouts with a teacher."
    )
    yield ""
    yield "| | seeds | rollouts | taught | Avg@12 | Pass@12 | Maj@12 | length | minutes |"
    yield "|---|---|---|---|---|---|---|---|---|"
    first = select_runs(rows, next(name for name in lab.METHODS if select_runs(rows, name)))
    yield f"| untrained | {len(first)} | | | {format_scores(first, 'before', draws)} | |"
    for name in lab.METHODS:
        runs = select_runs(rows, name)
        if not runs:
            continue
        total = ROLLOUTS[name] * lab.QUESTIONS * steps
        taught = [run["train"]["has_teacher"] for run in runs if "has_teacher" in run["train"]]
        share = f"{100 * statistics.mean(taught):.0f}%" if taught else ""
        minutes = statistics.mean(run["minutes"] for run in runs)
        cells = format_scores(runs, "after", draws)
        yield f"| {name} | {len(runs)} | {total:,} | {share} | {cells} | {minutes:.1f} |"
    yield ""
    yield "Minutes are wall-clock minutes, with two concurrent runs on a shared machine of 2 cores."
    yield ""
    yield "![Accuracy and change of length, method by method](lab.svg)"
    yield ""


def format_scores(runs: Sequence[Row], when: str, draws: int) -> str:
    """Format Avg, Pass, Maj and length with intervals, ``before`` or ``after`` training."""
    shares = [
        mean_over_seeds(select_answers(runs, m, when), draws=draws).format()
        for m in ("avg", "pass", "maj")
    ]
    length = mean_over_seeds(select_answers(runs, "length", when), draws=draws).format(scale=1)
    return " | ".join([*shares, length])


def format_gap(first: Table, second: Table, draws: int) -> str:
    """Format a difference with its bootstrap interval, and with Student's of one value per seed.

    The bootstrap's is too narrow where seeds differ much.
    """
    gap = difference_over_seeds(first, second, draws=draws).format()
    return f"{gap}, Student over seeds {format_paired_seeds(first, second)}"


def measure_length_change(runs: Sequence[Row], draws: int) -> Estimate:
    """Return the change in tokens relative to the untrained solver, on the same questions."""
    return difference_over_seeds(
        select_answers(runs, "length"), select_answers(runs, "length", "before"), draws=draws
    )


def format_lengths(rows: Sequence[Row], draws: int) -> Iterator[str]:
    """Format the length of RLCSD and its plug-ins beside the one-sided methods."""
    yield "## RLCSD against OPSD: length"
    yield ""
    yield "| | change in tokens from untrained | minus RLCSD |"
    yield "|---|---|---|"
    rlcsd = select_runs(rows, "RLCSD")
    for name in COMPARED:
        runs = select_runs(rows, name)
        if not runs:
            continue
        gap = ""
        if rlcsd and name != "RLCSD":
            found = difference_over_seeds(
                select_answers(runs, "length"), select_answers(rlcsd, "length"), draws=draws
            )
            gap = found.format(scale=1, digits=2)
        yield f"| {name} | {measure_length_change(runs, draws).format(scale=1, digits=2)} | {gap} |"
    yield ""


def format_style(rows: Sequence[Row], draws: int) -> Iterator[str]:
    """Format where the one-sided signal and the contrast fall."""
    yield "## RLCSD against OPSD: style in the signal"
    yield ""
    yield "Mean absolute signal in nats per token, and its share on style words."
    yield ""
    yield "| right hint | signal | rollouts | share on style | style token | other token | ratio |"
    yield "|---|---|---|---|---|---|---|"
    for hint in sorted({str(row["hint"]) for row in rows}, reverse=True):
        own = [row for row in rows if row["hint"] == hint]
        for signal in SIGNALS:
            found = measure_style(own, signal, draws)
            cells = [found["share"].format(), *(found[n].format(1, 3) for n in ("style", "task"))]
            ratio = found["ratio"].format(1, 2)
            label = signal.replace("_", "-")
            yield f"| {hint} | {label} | {len(own)} | {' | '.join(cells)} | {ratio} |"
        tokens = torch.tensor([[r["tokens"]["style"], r["tokens"]["task"]] for r in own]).sum(0)
        share = 100 * tokens[0] / tokens.sum()
        yield f"| {hint} | (share of the tokens) | {len(own)} | {share:.1f} | | | |"
    yield ""
    yield "95% intervals over questions."
    yield ""


def measure_style(rows: Sequence[Row], signal: str, draws: int) -> dict[str, Estimate]:
    """Return the share on style and mean absolute signals, with a bootstrap over questions."""
    questions = list(dict.fromkeys(str(row["question"]) for row in rows))
    bootstrap = Bootstrap(len(questions), draws)

    def add_up(total: Callable[[Row], float], count: Callable[[Row], float]) -> Sums:
        parts = ((str(row["question"]), (total(row), count(row))) for row in rows)
        return sum_per_question(parts, questions)

    style = add_up(lambda row: row[signal]["style"], lambda row: row["tokens"]["style"])
    task = add_up(lambda row: row[signal]["task"], lambda row: row["tokens"]["task"])
    share = add_up(
        lambda row: row[signal]["style"], lambda row: row[signal]["style"] + row[signal]["task"]
    )
    return {
        "share": bootstrap.mean(share),
        "style": bootstrap.mean(style),
        "task": bootstrap.mean(task),
        "ratio": bootstrap.ratio(style, task),
    }


def format_rare(rows: Sequence[Row], draws: int) -> Iterator[str]:
    """Format RESD beside SDPO."""
    yield "## RESD against SDPO where success is rare, one rollout per question"
    yield ""
    steps = rows[0]["steps"]
    yield f"{steps} optimizer steps of 32 questions; every step of an answer must be right."
    yield ""
    yield "| | seeds | taught | silent steps | Avg@12 | Pass@12 | Maj@12 | length | minutes |"
    yield "|---|---|---|---|---|---|---|---|---|"
    first = select_runs(rows, str(rows[0]["name"]))
    yield f"| untrained | {len(first)} | | | {format_scores(first, 'before', draws)} | |"
    for name in lab.RARE:
        runs = select_runs(rows, name)
        if not runs:
            continue
        taught, silent = (
            100 * statistics.mean(run["train"][key] for run in runs)
            for key in ("has_teacher", "silent")
        )
        minutes = statistics.mean(run["minutes"] for run in runs)
        cells = format_scores(runs, "after", draws)
        yield f"| {name} | {len(runs)} | {taught:.0f}% | {silent:.0f}% | {cells} | {minutes:.1f} |"
    a, b = (select_runs(rows, name) for name in lab.RARE)
    if a and b:
        yield ""
        gap = format_gap(select_answers(a, "avg"), select_answers(b, "avg"), draws)
        yield f"RESD minus SDPO, Avg@12 in points: {gap}."
    yield ""


def format_continual(rows: Sequence[Row], draws: int) -> Iterator[str]:
    """Format both tasks after training on the second, at every learning rate."""
    chosen = continual.choose_rates(rows)
    yield "## SDFT against SFT: accuracy on a second task and on the first"
    yield ""
    yield (
        f"Avg@12 on test questions after {continual.STEPS} steps on the dialect; the rate "
        "with the best validation on the dialect is bold. `dialect unasked`: questions without the "
        "dialect's marker, judged by the dialect; `length`: length of answers to the first task."
    )
    yield ""
    yield "| | lr | seeds | second task | first task | change | dialect unasked | length |"
    yield "|---|---|---|---|---|---|---|---|"
    base = select_runs(rows, continual.BASE)
    if base:
        cells = (_pair_cells(base, draws), _last_cells(base, draws))
        yield f"| untrained | | {len(base)} | {cells[0]} | | {cells[1]} |"
    for name, best in chosen.items():
        for rate in sorted({row["lr"] for row in rows if row["name"] == name}):
            runs = select_runs(rows, name, lr=rate)
            mark = "**" if rate == best else ""
            change = ""
            if base:
                first = (select_task(group, "first") for group in (runs, base))
                change = difference_over_seeds(*first, draws=draws).format()
            pair, last = _pair_cells(runs, draws), _last_cells(runs, draws)
            yield (
                f"| {mark}{name}{mark} | {mark}{rate:g}{mark} | {len(runs)} | {pair} "
                f"| {change} | {last} |"
            )
    yield ""
    yield from _format_continual_gaps(rows, chosen, draws)
    yield "![Second task learned against first task kept](continual.svg)"
    yield ""


def _format_continual_gaps(
    rows: Sequence[Row], chosen: dict[str, float], draws: int
) -> Iterator[str]:
    for other in list(continual.METHODS)[1:]:
        if other not in chosen or "SDFT" not in chosen:
            continue
        a, b = (select_runs(rows, name, lr=chosen[name]) for name in ("SDFT", other))
        first, second = (
            format_gap(select_task(a, task), select_task(b, task), draws)
            for task in ("first", "second")
        )
        gaps = f"first task {first}, second task {second}"
        yield f"SDFT minus {other} at the chosen rates, in points: {gaps}."
        yield ""


def _pair_cells(runs: Sequence[Row], draws: int) -> str:
    cells = [
        mean_over_seeds(select_task(runs, task), draws=draws).format()
        for task in ("second", "first")
    ]
    return " | ".join(cells)


def _last_cells(runs: Sequence[Row], draws: int) -> str:
    length = mean_over_seeds(select_task(runs, "first", "length"), draws=draws).format(scale=1)
    return f"{mean_over_seeds(select_task(runs, 'unmarked'), draws=draws).format()} | {length}"


if __name__ == "__main__":
    print(write_report(lab.HERE / "raw", lab.HERE))
