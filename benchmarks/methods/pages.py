"""Puts each method's lab line into its page under docs/methods, where the page has a marked place.

    python -m benchmarks.methods.pages

What stands between the mark and the end mark is made anew; what is written around it stays.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from benchmarks.grid import ROOT, Row, read_rows
from benchmarks.methods import lab
from benchmarks.methods.report import DRAWS, ROLLOUTS, named, score_cells

PAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "grpo": ("results: grpo", ("GRPO", "Dr. GRPO", "DAPO")),
    "opsd": ("results: opsd", ("OPSD", "OPSD, no clip", "RefSol")),
    "sdft": ("results: sdft", ("SDFT",)),
    "sdpo": ("results: sdpo", ("SDPO", "SDPO, feedback")),
    "srpo": ("lab result: srpo", ("SRPO",)),
    "rlsd": ("lab result: rlsd", ("RLSD", "RLSD + contrast")),
    "rlcsd": (
        "lab result: rlcsd",
        ("RLCSD", "RLCSD, reference hints", "OPSD + contrast", "OPSD + contrast, no clip"),
    ),
    "resd": ("lab results", tuple(lab.RARE)),
}
"""A page's mark, and the rows that it gets."""
OWN = ("echodistill", "rcsd")
"""Methods with a study of their own, whose table their page gets as it stands."""
END = "<!-- end of results -->"
HEAD = "| | seeds | rollouts | Avg@12 | Pass@12 | Maj@12 | length |\n|---|---|---|---|---|---|---|"
STUDY = "[benchmarks/methods](../../benchmarks/methods/README.md)"


def fill(page: str, mark: str, block: str) -> str:
    """The page with the block behind its mark, in the place of an earlier one.

    Raises:
        ValueError: The page has no such mark.
    """
    opened = f"<!-- {mark} -->"
    if page.count(opened) != 1:
        raise ValueError(f"{opened} must stand in the page once.")
    earlier = rf"{re.escape(opened)}\n(?:(?:(?!<!--).)*{re.escape(END)}\n)?"
    return re.sub(earlier, lambda _: f"{opened}\n{block}\n\n{END}\n", page, count=1, flags=re.S)


def block(name: str, methods: Sequence[str], rows: Sequence[Row], *, draws: int = DRAWS) -> str:
    """What is written into one page: the conditions, and a row a method."""
    rare = name == "resd"
    steps, questions = (lab.RARE_STEPS, 32) if rare else (lab.STEPS, lab.QUESTIONS)
    rate = "" if rare else "One learning rate (3e-4) for all methods, tuned for none of these.\n"
    intro = (
        f"{steps} steps of {questions} questions; mean and 95% interval over seeds and 128 test "
        f"questions.\n{rate}Protocol, all methods, and what it does not say: {STUDY}."
    )
    first = named(rows, methods[0])
    lines = [f"| untrained | {len(first)} | | {score_cells(first, 'before', draws)} |"]
    for method in methods:
        runs = named(rows, method)
        if runs:
            rollouts = steps * questions * (1 if rare else ROLLOUTS[method])
            cells = score_cells(runs, "after", draws)
            lines.append(f"| {method} | {len(runs)} | {rollouts:,} | {cells} |")
    return "\n".join([intro, "", HEAD, *lines])


def main() -> None:
    raw = lab.HERE / "raw"
    for name, (mark, methods) in PAGES.items():
        rows = read_rows(raw / ("rare.jsonl" if name == "resd" else "lab.jsonl"))
        _write(name, mark, block(name, methods, rows))
    for name in OWN:
        table = lab.HERE / name / "results.md"
        if table.exists():
            _write(name, f"results: {name}", table.read_text(encoding="utf-8").rstrip())


def _write(name: str, mark: str, text: str) -> None:
    path: Path = ROOT / "docs" / "methods" / f"{name}.md"
    path.write_text(fill(path.read_text(encoding="utf-8"), mark, text), encoding="utf-8")


if __name__ == "__main__":
    main()
