"""Write tables and figures of the map from the raw rows.

python -m benchmarks.alignment_map.report
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

import torch
from torchmetrics.functional import spearman_corrcoef

from benchmarks.alignment_map import study
from benchmarks.alignment_map.cells import Cells, read_cells
from benchmarks.alignment_map.figures import plot_all
from benchmarks.alignment_map.intervals import (
    Interval,
    correct_by_holm,
    sign_flip_test,
    student_interval,
)
from benchmarks.grid import Row, read_rows

PRIMARY = ("critique", "random_order")


def write_report() -> str:
    """Write ``results.md`` and the figures into the folder of the rows; return the text."""
    admission, search, runs = (
        read_rows(study.RESULTS / f"{name}.jsonl") for name in ("admission", "search", "runs")
    )
    cells = read_cells(admission, runs)
    parts = ["# Results of the alignment map", "", *_write_admission(cells)]
    if cells.areas:
        parts += [*_write_map(cells), *_write_differences(cells), *_write_ranks(cells)]
    if any(name in study.MASKED for _, name in cells.areas):
        parts += _write_masks(cells)
    parts += _write_signal(read_rows(study.RESULTS / "signal.jsonl"))
    parts += _write_search(search, cells)
    text = "\n".join(parts)
    (study.RESULTS / "results.md").write_text(text, encoding="utf-8")
    plot_all(cells, study.RESULTS)
    return text


def _write_admission(cells: Cells) -> Iterator[str]:
    yield "## Admission"
    yield ""
    yield (
        "Probe, 64 validation questions with 4 attempts each, percent with its nominal 95% "
        "intervals. `unrelated` is the accuracy under another question's context, `failed` that "
        "under the own one on failed attempts, `continued` that from the right steps of failed "
        "attempts; under `random_order` the last one is the base's competence."
    )
    yield ""
    yield "| base | context | alone | unrelated | failed | continued | passed |"
    yield "|---|---|---|---|---|---|---|"
    for (base, name), probe in cells.probes.items():
        found = (
            _format(probe[key]) for key in ("student", "unrelated", "teacher_failed", "continued")
        )
        passed = ""
        if name in study.READ:
            passed = "no" if probe["unrelated_gain"]["low"] > 0 else "yes"
        yield f"| {base} | {name} | {' | '.join(found)} | {passed} |"
    yield ""


def _write_map(cells: Cells) -> Iterator[str]:
    yield "## Accuracy"
    yield ""
    yield (
        "Percent. AUC is the mean validation accuracy over a run's rollouts, test is Avg@4 after "
        "the last step. Student's 95% intervals over training seeds; competence in the heads."
    )
    for base in cells.bases:
        yield ""
        yield f"### {base}, competence {100 * cells.competence(base):.0f}%"
        yield ""
        yield "| condition | seeds | lr | AUC | after the last step | test |"
        yield "|---|---|---|---|---|---|"
        for name in cells.conditions(base):
            values = (
                student_interval(table[base, name]).format()
                for table in (cells.areas, cells.finals, cells.tests)
            )
            rate = f"{cells.rates[base, name]:g}" if (base, name) in cells.rates else ""
            number = len(cells.areas[base, name])
            yield f"| {name} | {number} | {rate} | {' | '.join(values)} |"
    yield ""


def _write_differences(cells: Cells) -> Iterator[str]:
    yield "## Critique minus the others"
    yield ""
    yield "AUC in points, paired by training seed. The first comparison is the primary one."
    yield ""
    names = [n for n in study.UNMASKED if n != PRIMARY[0]]
    names.sort(key=lambda name: name != PRIMARY[1])
    yield f"| base | competence | {' | '.join(names)} |"
    yield f"|---|---|{'---|' * len(names)}"
    for base in cells.bases:
        found = [
            cells.difference(base, PRIMARY[0], name).format()
            if (base, name) in cells.areas
            else "not run"
            for name in names
        ]
        yield f"| {base} | {100 * cells.competence(base):.0f}% | {' | '.join(found)} |"
    yield ""
    yield from _write_primaries(cells)


def _write_primaries(cells: Cells) -> Iterator[str]:
    """Write the comparisons that the protocol names; p-values where they can mean something."""
    tested = {}
    ignorant = [base for base in cells.bases if study.BASES[base].foreign == 0]
    if ignorant:
        tested["1, q = 0"] = [gap for base in ignorant for gap in cells.gaps(base, *PRIMARY)]
    masks = ("critique/from_error", "critique/before_error")
    masked = [base for base in cells.bases if all((base, name) in cells.areas for name in masks)]
    if masked:
        tested["3, from the error minus before it"] = [
            gap for base in masked for gap in cells.gaps(base, *masks)
        ]
    p_values = correct_by_holm([sign_flip_test(gaps) for gaps in tested.values()])
    yield "| primary | pairs | mean | p, Holm |"
    yield "|---|---|---|---|"
    for (name, gaps), p in zip(tested.items(), p_values, strict=True):
        # With three pairs no sign-flip test can fall below 0.25.
        shown = f"{p:.3f}" if len(gaps) >= 5 else "too few pairs"
        yield f"| {name} | {len(gaps)} | {student_interval(gaps).format()} | {shown} |"
    yield ""
    slope = fit_slope(
        [cells.competence(base) for base in cells.bases],
        [statistics.mean(cells.gaps(base, *PRIMARY)) for base in cells.bases],
    )
    yield (
        f"Primary 2, slope of the first comparison over competence, {len(cells.bases)} bases: "
        f"{slope:.2f} points per point of competence."
    )
    yield ""


def fit_slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the least-squares slope; nan for fewer than two different ``x``."""
    if len(set(x)) < 2:
        return float("nan")
    return statistics.linear_regression(x, y).slope


def _write_ranks(cells: Cells) -> Iterator[str]:
    yield "## Does the probe foretell the gain?"
    yield ""
    yield (
        "Spearman's correlation of what the probe says before training with the gain in AUC over "
        "the untrained base, over all pairs of base and context that were probed and trained."
    )
    yield ""
    yield "| probe | pairs | correlation |"
    yield "|---|---|---|"
    pairs = [key for key in cells.probes if key in cells.areas]
    gains = [
        statistics.mean(cells.areas[base, name]) - statistics.mean(cells.areas[base, "untrained"])
        for base, name in pairs
    ]
    for key in (
        "continued",
        "continued_gain",
        "teacher_failed",
        "gain_failed",
        "negative_from_error",
    ):
        told = [cells.probes[pair][key]["value"] for pair in pairs]
        yield f"| {key} | {len(pairs)} | {correlate_ranks(told, gains):.2f} |"
    yield ""


def correlate_ranks(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Spearman's rank correlation."""
    return float(spearman_corrcoef(torch.tensor(first).double(), torch.tensor(second).double()))


def _write_masks(cells: Cells) -> Iterator[str]:
    yield "## Training on a part of the signal"
    yield ""
    yield "AUC, percent, and points minus the same context without a mask."
    yield ""
    yield "| base | context | mask | AUC | minus unmasked |"
    yield "|---|---|---|---|---|"
    for base, name in cells.areas:
        if name in study.MASKED:
            context, mask = name.split("/")
            area = student_interval(cells.areas[base, name]).format()
            gap = cells.difference(base, name, context).format()
            yield f"| {base} | {context} | {mask} | {area} | {gap} |"
    yield ""


def _write_signal(rows: Sequence[Row]) -> Iterator[str]:
    yield "## What the signal pushes towards"
    yield ""
    yield (
        "Untrained bases on 200 attempts (`signal.py`, exploratory). Forward KL per token in nats, "
        "and in brackets the share of the advantages that are negative. A `result after own "
        "error` belongs to an operation that starts from the attempt's own wrong value; there the "
        "context shows the result of another operation. The last column is in nats per token."
    )
    yield ""
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    yield f"| base | context | {' | '.join(kinds)} | absolute advantage, right attempts |"
    yield f"|---|---|{'---|' * (len(kinds) + 1)}"
    for base, context in dict.fromkeys((row["base"], row["context"]) for row in rows):
        found = {r["kind"]: r for r in rows if (r["base"], r["context"]) == (base, context)}
        values = [f"{r['divergence']:.2f} ({100 * r['negative']:.0f}%)" for r in found.values()]
        size = found["all of right attempts"]["size"]
        yield f"| {base} | {context} | {' | '.join(values)} | {size:.2f} |"
    yield ""


def _write_search(search: Sequence[Row], cells: Cells) -> Iterator[str]:
    yield "## Learning rates"
    yield ""
    yield f"AUC, percent, seed {study.SEARCH_SEEDS[0]}."
    yield ""
    yield f"| base | condition | {' | '.join(f'{rate:g}' for rate in study.RATES)} |"
    yield f"|---|---|{'---|' * len(study.RATES)}"
    # An area begins with the untrained base, which an unfinished grid may not have run yet.
    begun = [row for row in search if row["base"] in cells.starts]
    for base, name in dict.fromkeys((row["base"], row["name"]) for row in begun):
        areas = []
        for rate in study.RATES:
            keys = (base, name, rate)
            found = [row for row in begun if (row["base"], row["name"], row["lr"]) == keys]
            area = [study.measure_area(row, cells.starts[base]) for row in found]
            areas.append(f"{100 * statistics.mean(area):.1f}" if area else "not run")
        yield f"| {base} | {name} | {' | '.join(areas)} |"
    yield ""


def _format(estimate: Row) -> str:
    return Interval(estimate["value"], estimate["low"], estimate["high"]).format()


if __name__ == "__main__":
    print(write_report())
