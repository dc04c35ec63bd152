"""Draw the pictures of the documentation from real output: terminals, and the report of analyze.

python -m benchmarks.pictures            # all of them; two runs of the quickstart's size
python -m benchmarks.pictures --only misspelled_option
"""

from __future__ import annotations

import argparse
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import CONSOLE_SVG_FORMAT, Console
from rich.text import Text

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "pictures"
WIDTH = 110
TERMINALS = {
    "quickstart": "fit --config quickstart",
    "failing_critic": "fit --config quickstart --data.critic=ServerCritic "
    "--data.critic.url=http://localhost:9/v1 --data.critic.model=my-critic",
    "misspelled_option": "fit --config quickstart --model.smaples=8",
}
ANALYZE = "analyze --config quickstart --contexts+=ReferenceSolution --samples=4"
CONTROL = re.compile(r"(\n|\r|\x1b\[\??\d*[A-Za-ln-z])")
"""A line break, or a control sequence other than a color."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=[*TERMINALS, "report"])
    parser.add_argument("--folder", type=Path, default=FOLDER)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    for name in [args.only] if args.only else [*TERMINALS, "report"]:
        with tempfile.TemporaryDirectory() as empty:
            if name == "report":
                run_command(ANALYZE, Path(empty))
                photograph_report(Path(empty) / "out/analysis/report.html", args.folder)
            else:
                output = run_command(TERMINALS[name], Path(empty))
                svg = draw_terminal(TERMINALS[name], output)
                (args.folder / f"{name}.svg").write_text(svg, encoding="utf-8")


def run_command(command: str, folder: Path) -> str:
    """Run a command of ours in an empty folder, and return what a terminal would be sent."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FORCE_COLOR": "1", "COLUMNS": str(WIDTH)}
    words = [sys.executable, "-m", "lightning_sd", *shlex.split(command)]
    done = subprocess.run(
        words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    return done.stdout.decode() + f"\n[exit status {done.returncode}]"


def replay(output: str) -> list[str]:
    """Return the lines that are left on a terminal, with their colors.

    Example:
        >>> replay("0%\\r50%\\nline\\x1b[1A\\x1b[2Kother\\n")
        ['other', 'line']
    """
    lines, row, at_start = [""], 0, True
    for part in CONTROL.split(output):
        if part in ("\n", "\r"):
            row, at_start = row + (part == "\n"), True
            lines += [""] * (row + 1 - len(lines))
        elif not CONTROL.fullmatch(part):
            lines[row] = part if at_start and part else lines[row] + part
            at_start = at_start and not part
        elif part.endswith("A"):
            row = max(0, row - int(part[2:-1] or 1))
        elif part.endswith("K"):
            lines[row] = ""
    return lines


def draw_terminal(command: str, output: str) -> str:
    """Draw a terminal as SVG, without fonts from the network."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), highlight=False)
    console.print(Text.assemble(("$ ", "bold green"), f"lightning-sd {command}"), soft_wrap=False)
    for line in replay(output.replace(f"{ROOT}/", "")):
        console.print(Text.from_ansi(line.rstrip()))
    svg_format = re.sub(r"@font-face \{\{.*?\n    \}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    return console.export_svg(title="lightning-sd", code_format=svg_format, unique_id="terminal")


def photograph_report(page: Path, folder: Path) -> None:
    """Save the report of analyze, with a rollout whose first wrong step is a later one."""
    from playwright.sync_api import sync_playwright

    browser = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    with sync_playwright() as play:
        window = play.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        for theme in ("light", "dark"):
            view = window.new_page(
                viewport={"width": 1280, "height": 1000},
                color_scheme=theme,
                device_scale_factor=1.5,
            )
            view.goto(page.as_uri())
            view.evaluate(CHOOSE)
            view.screenshot(path=folder / f"report_{theme}.png")
        window.close()


CHOOSE = """() => {
  const rows = JSON.parse(document.getElementById("data").textContent).rows;
  const color = (row) => Object.values(row.contexts)
    .reduce((sum, context) => sum + context.advantages.reduce((s, a) => s + Math.abs(a), 0), 0);
  const later = rows.map((row, index) => [row, index])
    .filter(([row]) => row.wrong.length && Math.min(...row.wrong) > 1 && row.finished)
    .sort(([a], [b]) => color(b) - color(a));
  document.getElementById(`row-${later[Math.floor(later.length / 4)][1]}`).click();
}"""
"""Show the rollout at the upper quarter of absolute advantage, among those with a later error."""


if __name__ == "__main__":
    main()
