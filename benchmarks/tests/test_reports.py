"""The committed reports are what the committed rows give."""

from __future__ import annotations

import shutil
from importlib.metadata import PackageNotFoundError, version

import pytest

from benchmarks.feedback_alignment import study
from benchmarks.feedback_alignment.report import write_report as write_alignment
from benchmarks.grid import read_rows
from benchmarks.methods import lab
from benchmarks.methods.echodistill import run as echodistill
from benchmarks.methods.rcsd import run as rcsd
from benchmarks.methods.report import write_report as write_methods
from benchmarks.quickstart import run as quickstart
from benchmarks.step_time import report as step_time

pytestmark = pytest.mark.slow


def test_methods(tmp_path):
    write_methods(lab.HERE / "raw", tmp_path)
    committed = (lab.HERE / "results.md").read_text(encoding="utf-8")
    assert (tmp_path / "results.md").read_text(encoding="utf-8") == committed


@pytest.mark.parametrize("module", [echodistill, rcsd], ids=["echodistill", "rcsd"])
def test_studies_with_a_model_of_their_own(module):
    rows = read_rows(module.HERE / "results.jsonl")
    names = [name for name in module.METHODS if any(row["name"] == name for row in rows)]
    text = "\n".join(module.format_table(rows, names)).rstrip() + "\n"
    assert text == (module.HERE / "results.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("solver", list(study.PLANS))
def test_feedback_alignment(solver, tmp_path):
    plan = study.PLANS[solver]
    shutil.copytree(plan.results, tmp_path / solver)
    committed = (plan.results / "results.md").read_text(encoding="utf-8")
    assert write_alignment(study.with_folder(plan, tmp_path)) == committed


def test_quickstart():
    rows = quickstart.read_rows(quickstart.HERE / "results.csv")
    committed = (quickstart.HERE / "results.md").read_text(encoding="utf-8")
    assert quickstart.format_table(rows) + "\n" == committed


def test_step_time(tmp_path):
    """All but the versions of the libraries, which are those of the reader's machine."""
    try:
        version("trl")
    except PackageNotFoundError:
        pytest.skip("needs trl, the extra bench")
    shutil.copy(step_time.HERE / "results.csv", tmp_path)
    step_time.write_report(tmp_path)
    texts = [(folder / "results.md").read_text() for folder in (tmp_path, step_time.HERE)]
    ours, committed = (
        [line for line in text.splitlines() if not line.startswith("torch ")] for text in texts
    )
    assert ours == committed
