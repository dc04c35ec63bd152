"""Write ``results.md`` and the plots from ``results.csv``, and ``shared.md`` from ``shared.csv``.

python -m benchmarks.step_time.report --folder benchmarks/step_time
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.step_time.distance import list_distances
from benchmarks.step_time.plots import plot_all
from benchmarks.step_time.run import DISTURBED
from benchmarks.step_time.table import (
    PHASES,
    Entry,
    list_processors,
    markdown,
    pairs,
    read,
    shown,
)

HERE = Path(__file__).parent
LIBRARIES = ("torch", "transformers", "trl", "lightning")
HOW = """\
Written by `python -m benchmarks.step_time.run`. Each number is the median over processes of the
median step per process. Ours and TRL's ran in turn with 2 threads each in float32, with the same
weights, questions, number and length of completions (no end token can be sampled), teacher's
prompt, AdamW and clipping of the gradient norm. In both, torch allocates on huge pages, as
`python -m lightning_sd` sets it; *plain pages*: in neither. Before the first measurement `check`
runs one step of each of TRL's trainers and verifies that ours has the same loss and gradients.

`sdpo`: TRL's SDPOTrainer; the teacher sees the group's first right completion other than its own.
`sdft`: SDFTTrainer; the teacher sees a text stored with the question. `stable`:
DistillationTrainer; the teacher sees the question alone. The teacher is the initial model in all.
*own*: a different text for every rollout, so that the teacher's prompts of two rollouts share no
more than the question; TRL's time does not depend on it."""

HOW_SHARED = """\
Written by `python -m benchmarks.step_time.run --shared`, for a machine that other work shares:
seconds are those of the processor, with one thread each. Models, trainers and settings are those of
[results.md](results.md). Processes took turns: ours, the floor, TRL's. Each number is the median
over processes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=HERE)
    folder = parser.parse_args().folder
    if (folder / "results.csv").exists():
        write_report(folder)
    if (folder / "shared.csv").exists():
        write_shared(folder)
    print(f"Wrote the tables and plots in {folder}.")


def write_report(folder: Path) -> None:
    """Write ``results.md`` and the plots of the folder's ``results.csv`` into the folder."""
    entries = read(folder / "results.csv")
    sections = [
        "# Speed and memory of a training step",
        HOW,
        format_setting(entries),
        format_steps(entries),
        format_own(entries),
        format_phases(entries),
        format_floors(entries),
        format_losses(entries),
        format_flops(entries),
        format_curves(entries),
    ]
    text = "\n\n".join(section for section in sections if section)
    (folder / "results.md").write_text(text + "\n")
    plot_all(entries, folder)


def write_shared(folder: Path) -> None:
    """Write ``shared.md`` from ``shared.csv``: JS against floor and TRL, and all other tables."""
    path = folder / "shared.csv"
    found = {processor: read(path, processor) for processor in list_processors(path)}
    sections = ["# Processor seconds of a training step", HOW_SHARED, format_summary(found)]
    for processor, entries in found.items():
        sections += [f"## {processor}", format_setting(entries)]
        # Others always use a core here, which processor seconds leave out: no row is marked.
        unmarked = [replace(entry, others=()) for entry in entries]
        tables = (format_floors, format_distances, format_steps, format_phases, format_curves)
        for format_table in tables:
            sections.append(format_table(unmarked).replace("## ", "### "))
    (folder / "shared.md").write_text("\n\n".join(filter(None, sections)) + "\n")


def format_summary(found: Mapping[str, Sequence[Entry]]) -> str:
    """Format our step with JS, its floors, and TRL's step, per processor and shape."""
    rows = []
    for processor, entries in found.items():
        floors = {e["shape"]: e for e in entries if e["part"] == "floor"}
        for our, peer in pairs(entries):
            floor = floors.get(our["shape"])
            if our["loss"] != "js" or floor is None:
                continue
            each = {r: _sum_floors(result) for r, result in floor.rounds.items()}
            row = [processor, our["shape"], len(our.rounds), our.step]
            for kind in (0, 1):
                ratios = [our.steps[r] / each[r][kind] for r in our.steps if r in each]
                row.append(statistics.median(both[kind] for both in each.values()))
                row.append(_format_range(ratios))
            times = [step / our.steps[r] for r, step in peer.steps.items() if r in our.steps]
            memory = our.median("peak_mib") / peer.median("peak_mib")
            rows.append([*row, peer.step, _format_range(times), len(times), f"{memory:.2f}x"])
    head = ("processor", "shape", "processes", "ours, s", "floor", "relative to floor")
    head += ("floor with packed decoding", "relative to it", "TRL's SDPOTrainer, s", "speed")
    note = "Median over rounds of the ratio within a round, and the range."
    return _section("JS, all shapes", (*head, "TRL's processes", "memory"), rows, note)


def _sum_floors(result: Mapping[str, Any]) -> tuple[float, float]:
    """Return the floor of one process, with attention, and the one with packed decoding."""
    whole = result["floor"] + result["attention"]
    return whole, whole - result["parts"]["decode"] + result["packed"]


def _format_range(values: Sequence[float]) -> str:
    middle = f"{statistics.median(values):.2f}x"
    return middle if len(values) == 1 else f"{middle} ({min(values):.2f} to {max(values):.2f})"


def format_setting(entries: Sequence[Entry]) -> str:
    """Format versions, commits, and the load of the machine."""
    commits = sorted({name for entry in entries for name in entry.commits})
    others = sorted(cores for entry in entries for cores in entry.others)
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return (
        f"{libraries}; lightning_sd at {', '.join(commits)} (`+`: with changes). Cores used by "
        f"other processes: median {others[len(others) // 2]:.2f}, largest "
        f"{others[-1]:.2f}; marked `!` above {DISTURBED}."
    )


def format_steps(entries: Sequence[Entry]) -> str:
    rows = []
    for our, peer in pairs(entries):
        both = [peer.steps[r] / our.steps[r] for r in peer.steps if r in our.steps]
        rows.append(
            [
                our["shape"],
                peer.who,
                our["loss"],
                len(our.rounds),
                _step_cell(our),
                _step_cell(peer),
                f"**{peer.step / our.step:.2f}x**",
                f"{min(both):.2f} to {max(both):.2f}" if both else "",
                our.median("tokens_per_second"),
                peer.median("tokens_per_second"),
                our.median("peak_mib"),
                peer.median("peak_mib"),
                f"**{our.median('peak_mib') / peer.median('peak_mib'):.2f}x**",
            ]
        )
    head = ("shape", "TRL's trainer", "loss", "processes", "ours, s", "TRL, s", "speed")
    head += ("in single rounds", "ours, tokens/s", "TRL, tokens/s", "ours, peak MiB")
    return _section("A whole step", (*head, "TRL, peak MiB", "memory"), rows)


def format_own(entries: Sequence[Entry]) -> str:
    """Format ours for teacher's prompts that share no more than the question."""
    trl = {(p["shape"], p["loss"]): p for _, p in pairs(entries) if p.who == "sdpo"}
    rows = []
    for entry in entries:
        peer = trl.get((entry["shape"], entry["loss"]))
        if entry["part"] == "step" and entry["context"] == "own" and peer is not None:
            speed = f"{peer.step / entry.step:.2f}x"
            rows.append([entry["shape"], entry["loss"], entry.step, peer.step, speed])
    head = ("shape", "loss", "ours, s", "TRL, s", "speed")
    return _section("A whole step, a different context for every rollout", head, rows)


def format_phases(entries: Sequence[Entry]) -> str:
    rows = []
    for entry in entries:
        if entry["part"] == "step":
            found = entry.phases
            facts = [entry["shape"], entry["loss"], entry["context"], entry.who]
            rows.append([*facts, *(float(found[p]) for p in PHASES), sum(found.values())])
    head = ("shape", "loss", "context", "who", *PHASES, "step")
    note = (
        "Seconds of the median step. Forward passes of ours and of `stable` end at the hidden "
        "states: both heads and their gradients are in `loss` (for `stable` also in `backward`). "
        "`sdpo` and `sdft` compute all logits in the forward passes."
    )
    return _section("Phases", head, rows, note)


def format_floors(entries: Sequence[Entry]) -> str:
    rows = []
    for entry in entries:
        if entry["part"] != "floor":
            continue
        names = tuple(next(iter(entry.rounds.values()))["parts"])
        parts = [_median_part(entry, name) for name in names]
        attention, packed = entry.median("attention"), entry.median("packed")
        floors = zip(*map(_sum_floors, entry.rounds.values()), strict=True)
        whole, stricter = map(statistics.median, floors)
        found: list[Any] = [entry["shape"], len(entry.rounds), *parts, attention, whole, packed]
        for who in ("ours", "sdpo"):
            step = _step(entries, entry["shape"], who)
            found.append(step)
            found.append(None if step is None else f"**{step / whole:.2f}x**")
            found.append(None if step is None else f"{step / stricter:.2f}x")
        rows.append(found)
    if not rows:
        return ""
    head = ("shape", "processes", *names, "attention", "floor", "packed decode")
    for who in ("ours", "TRL"):
        head += (f"{who} (JS)", "relative to floor", "to stricter floor")
    note = (
        "Seconds of bare matrix products (`torch.mm`, for attention `torch.bmm`) that no step can "
        "avoid. Ours decodes faster than `torch.mm`, with weights reordered for oneDNN "
        "(`packed decode`); the stricter floor uses that instead of `decode`."
    )
    return _section("The floor", head, rows, note)


def _median_part(floor: Entry, name: str) -> float:
    return statistics.median(float(found["parts"][name]) for found in floor.rounds.values())


def _step(entries: Sequence[Entry], shape: str, who: str) -> float | None:
    wanted = {"part": "step", "shape": shape, "loss": "js", "context": "sibling"}
    for entry in entries:
        same = all(entry[name] == value for name, value in wanted.items())
        if same and entry.who == who:
            return entry.step
    return None


def format_distances(entries: Sequence[Entry]) -> str:
    head = ("shape", "phase", "ours, s", "its products, s", "above them, s", "share")
    note = (
        "Our phases with JS beside the products that each must compute, decoding packed: medians "
        "over processes. `share`: part of the sum of the differences. Attention's products are "
        "not in the products here."
    )
    return _section("Distance to the floor by phase", head, list_distances(entries), note)


def format_losses(entries: Sequence[Entry]) -> str:
    found = [e for e in entries if e["part"] == "loss"]
    groups: dict[tuple[Any, ...], dict[str, Entry]] = {}
    for entry in found:
        case = tuple(entry[name] for name in ("vocab", "width", "tokens", "kind"))
        groups.setdefault(case, {})[entry["how"]] = entry
    rows = []
    for case, ways in groups.items():
        for how, entry in ways.items():
            time, memory = entry.median("seconds"), entry.median("grown_mib")
            row = [*case, how, time, memory]
            if "ours" in ways:
                row.append(f"{time / ways['ours'].median('seconds'):.2f}x")
                row.append(f"{memory / max(1.0, ways['ours'].median('grown_mib')):.2f}x")
            rows.append(row)
    head = ("vocabulary", "hidden", "tokens", "loss", "way", "seconds", "MiB", "time", "memory")
    note = (
        "From hidden states to the gradients of hidden states and head. MiB: growth of the "
        "process, gradients included. The last two columns are relative to ours. `dense`: "
        "log-softmax of full logits; `sdpo`: the loss of TRL's SDPOTrainer; `chunked`: the loss of "
        "its stable trainer."
    )
    return _section("The loss alone", head, rows, note)


def format_flops(entries: Sequence[Entry]) -> str:
    names = ("context", "samples", "teacher_prompt", "counted", "least", "ratio", "ratio_trl")
    rows = [
        [found.get(name) for name in names]
        for entry in entries
        if entry["part"] == "flops"
        for found in next(iter(entry.rounds.values()))["flops"]
    ]
    head = ("context", "G", "teacher's prompt", "ours, FLOPs", "minimum", "ours", "TRL (SDFT)")
    note = (
        "Forward and backward passes of student and teacher, counted by torch, relative to the "
        "minimum, which encodes every distinct prompt once (see `flops.py`)."
    )
    return _section("Work counted", head, rows, note)


def format_curves(entries: Sequence[Entry]) -> str:
    rows = []
    for entry in entries:
        if entry["part"] == "curve":
            facts = [entry["curve"], entry[entry["curve"]], entry.who]
            rows.append([*facts, entry.step, entry.median("peak_mib")])
    return _section("Growth", ("size", "value", "who", "step, s", "peak MiB"), rows)


def _step_cell(entry: Entry) -> str:
    return shown(entry.step) + (" !" if max(entry.others, default=0.0) > DISTURBED else "")


def _section(title: str, head: Sequence[str], rows: Sequence[Any], note: str = "") -> str:
    if not rows:
        return ""
    return "\n\n".join(part for part in (f"## {title}", note, markdown(head, rows)) if part)


if __name__ == "__main__":
    main()
