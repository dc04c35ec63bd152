"""The plan against what was measured: it is computed again, the measurements are stored."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.grid import ROOT
from benchmarks.memory import check_plan, ranks
from benchmarks.memory.watch import PHASES

PAGE = (ROOT / "benchmarks/memory/README.md").read_text()


@pytest.mark.parametrize("name", check_plan.CONFIGS)
def test_flops_and_peak_are_within_a_tenth(name: str) -> None:
    stored = check_plan.read_results(check_plan.RESULTS)[name]
    plan = check_plan.predict(check_plan.CONFIGS[name])
    assert plan == pytest.approx(stored["plan"])
    for what in ("FLOPs", "peak MiB"):
        assert plan[what] == pytest.approx(stored["measured"][what], rel=0.1), what


@pytest.mark.parametrize("name", ranks.LAYOUTS)
def test_each_phase_of_each_rank_is_within_a_tenth(name: str) -> None:
    stored = check_plan.read_results(ranks.RESULTS)[name]
    plan = ranks.predict(ranks.LAYOUTS[name])
    assert plan == pytest.approx(stored["plan"])
    assert len(stored["measured"]) == ranks.LAYOUTS[name].devices
    for measured in stored["measured"]:
        for phase in PHASES:
            assert plan[phase] == pytest.approx(measured[phase], rel=0.1), phase


@pytest.mark.parametrize("part", [check_plan, ranks], ids=["check_plan", "ranks"])
def test_the_page_shows_the_table(part: Any) -> None:
    assert part.format_table(check_plan.read_results(part.RESULTS)) in PAGE
