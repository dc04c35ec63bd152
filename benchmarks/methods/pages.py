"""Insert each method's lab results into its page in docs/methods, at the marked place.

    python -m benchmarks.methods.pages

The text between the two marks is replaced; the rest of the page is kept.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from benchmarks.grid import ROOT, Row, read_rows
from benchmarks.methods import lab
from benchmarks.methods.report import DRAWS, ROLLOUTS, format_scores, select_runs

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
"""Mark of each page, and the table rows that the page shows."""
OWN = ("echodistill", "rcsd")
"""Methods with a separate study; their page shows the whole table of that study."""
END = "<!-- end of results -->"
HEAD = "| | seeds | rollouts | Avg@12 | Pass@12 | Maj@12 | length |\n|---|---|---|---|---|---|---|"
STUDY = "[benchmarks/methods](../../benchmarks/methods/README.md)"


def fill(page: str, mark: str, block: str) -> str:
    """Return the page with the block inserted after its mark, replacing an earlier block.

    Raises:
        ValueError: The page has no such mark.
    """
    opened = f"<!-- {mark} -->"
    if page.count(opened) != 1:
        raise ValueError(f"The page holds {opened} {page.count(opened)} times: must be 1.")
    earlier = rf"{re.escape(opened)}\n(?:(?:(?!<!--).)*{re.escape(END)}\n)?"
    return re.sub(earlier, lambda _: f"{opened}\n{block}\n\n{END}\n", page, count=1, flags=re.S)


def block(name: str, methods: Sequence[str], rows: Sequence[Row], *, draws: int = DRAWS) -> str:
    """Format the block of one page: the conditions, and one row per method."""
    rare = name == "resd"
    steps, questions = (lab.RARE_STEPS, 32) if rare else (lab.STEPS, lab.QUESTIONS)
    rate = "" if rare else "One learning rate (3e-4) for all methods, tuned for none of these.\n"
    intro = (
        f"{steps} steps of {questions} questions; mean and 95% interval over seeds and 128 test "
        f"questions.\n{rate}Protocol, all methods, and limits: {STUDY}."
    )
    first = select_runs(rows, methods[0])
    lines = [f"| untrained | {len(first)} | | {format_scores(first, 'before', draws)} |"]
    for method in methods:
        runs = select_runs(rows, method)
        if runs:
            rollouts = steps * questions * (1 if rare else ROLLOUTS[method])
            cells = format_scores(runs, "after", draws)
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
