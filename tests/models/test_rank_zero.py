"""Only rank 0 reads a model that is sharded; every rank ends with the same bits."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_sd.models.rank_zero import _pack
from tests.models.rank_zero_runs import CASES

ROOT = Path(__file__).parents[2]
ROPE = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, make_llama: Any, tokenizer: Any) -> Any:
    folder: Path = tmp_path_factory.mktemp("rank_zero")
    (folder / "empty").mkdir()
    for name, tied in (("tied", True), ("untied", False)):
        make_llama(tie_word_embeddings=tied, rope_parameters=ROPE).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    script = [sys.executable, str(ROOT / "tests/models/rank_zero_runs.py"), str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    address = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    ranks = [
        subprocess.Popen(script, env={**environment, **address, "LOCAL_RANK": str(rank)})
        for rank in (0, 1)
    ]
    assert [rank.wait(timeout=600) for rank in ranks] == [0, 0]
    return [torch.load(folder / f"results.{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_weights_buffers_and_logits_are_those_of_the_source(results: Any, case: str) -> None:
    first, second = (rank[case] for rank in results)
    for rank in (first, second):
        assert rank["differing"] == []
        for part in ("names", "trained", "buffers", "logits"):
            assert rank[part], part
        assert rank["tied"] == (case == "tied")
    assert (first["loads"], first["on_meta"]) == (1, 0)
    assert second["loads"] == (1 if case == "not_sent" else 0)
    assert (second["on_meta"] > 0) == (case != "not_sent")


@pytest.mark.slow
def test_other_ranks_say_why_rank_0_could_not_load(results: Any) -> None:
    own, other = (rank["error"] for rank in results)
    assert set(own) == {"FileNotFoundError"}
    (reason,) = own.values()
    assert other == {"RuntimeError": f"Rank 0 could not load the model: {reason}"}


def test_tied_parameters_stay_one_and_values_are_left_out() -> None:
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(300, 300), "b": torch.nn.Linear(300, 300)})
    model["b"].weight = model["a"].weight
    packed = _pack((model, "tokenizer"))
    assert packed is not None
    assert len(packed) < 10_000  # a weight has 360,000 bytes
    copy, tokenizer = pickle.loads(packed)
    assert tokenizer == "tokenizer"
    assert copy["b"].weight is copy["a"].weight
    assert copy["a"].weight.is_meta


def test_parameters_with_further_parts_are_not_sent() -> None:
    class Quantized(torch.nn.Parameter):
        pass

    model = torch.nn.Linear(2, 2)
    model.weight = Quantized(torch.ones(2, 2))
    assert _pack((model, None)) is None
