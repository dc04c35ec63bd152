"""The widened solver of the comparison of engines, and its tables."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from benchmarks.engines import recipe, throughput
from benchmarks.engines.servable import SOLVER, widen_heads
from benchmarks.grid import ROOT
from lightning_sd.models import PretrainedModel


def test_the_widened_solver_computes_the_same_function_and_its_zeros_stay():
    model, _ = PretrainedModel(SOLVER).load()
    wide = widen_heads(model, 32)
    ids = torch.randint(2, 300, (2, 60), generator=torch.Generator().manual_seed(0))
    logits = wide(input_ids=ids).logits
    torch.testing.assert_close(logits, model(input_ids=ids).logits, rtol=0, atol=1e-4)
    logits.logsumexp(-1).sum().backward()
    query = wide.model.layers[0].self_attn.q_proj
    added = query.weight.grad.unflatten(0, (-1, 2, 16))[:, :, 12:]
    assert not added.any()
    assert query.weight.grad.any()


@pytest.mark.parametrize(
    ("part", "page"),
    [(recipe, "benchmarks/engines/README.md"), (throughput, "docs/engines.md")],
    ids=["recipe", "throughput"],
)
def test_the_page_shows_the_table_of_its_rows(part, page):
    path = Path(part.__file__).with_suffix(".csv")
    with path.open(newline="") as file:
        table = part.format_table(list(csv.DictReader(file)))
    assert table in (ROOT / page).read_text()
