"""FSDP2 on two processes (gloo) gives the weights of DDP, gathered whole and layer by layer."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import FSDPStrategy
from safetensors.torch import load_file

from lightning_sd import FSDP2Strategy
from lightning_sd.models.sharding import shard_model
from lightning_sd.modules.checks import check_strategy
from tests.modules.sharded_runs import change_size

ROOT = Path(__file__).parents[2]
CASES = 5 * 2 * 2 + 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = tmp_path_factory.mktemp("sharded")
    change_size(folder, devices=1, step=1)
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, str(ROOT / "tests/modules/sharded_runs.py"), str(folder)]
    ranks = []
    for rank in (0, 1):
        environment = {
            **os.environ,
            **{"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "LOCAL_RANK": str(rank)},
            **{"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)},
        }
        log = (folder / f"log.{rank}").open("w")
        ranks.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
    codes = [rank.wait(timeout=1500) for rank in ranks]
    assert codes == [0, 9], (folder / "log.0").read_text()[-3000:]  # rank 1 dies in the last run
    return folder


def load(path: Path) -> Any:
    return torch.load(path, weights_only=True)


@pytest.mark.slow
def test_every_run_equals_ddp(folder: Path) -> None:
    names = sorted(path.name.removesuffix(".ddp.pt") for path in folder.glob("*.ddp.pt"))
    assert len(names) == CASES
    for name in names:
        ddp = load(folder / f"{name}.ddp.pt")
        for kind in ("model", "layers"):
            other = load(folder / f"{name}.{kind}.pt")
            assert ddp.keys() == other.keys()
            for key, value in ddp.items():
                limit = 1e-6 if value.dtype == torch.float32 else 1e-12
                assert (value - other[key]).abs().max() < limit, (name, kind, key)


@pytest.mark.slow
def test_teachers_and_adapters_make_a_difference(folder: Path) -> None:
    """Else the comparison above would hold for a teacher that silently equals the student."""
    one = load(folder / "frozen-full-1.layers.pt")
    key = "model.layers.0.mlp.down_proj.weight"
    for other in ("ema-full-1", "live-full-1", "trust-full-1", "frozen-full-2", "silent_rank"):
        assert (one[key] - load(folder / f"{other}.layers.pt")[key]).abs().max() > 1e-7, other


@pytest.mark.slow
@pytest.mark.parametrize("name", ["full", "lora"])
def test_a_run_goes_on_under_another_strategy(folder: Path, name: str) -> None:
    unbroken = load(folder / f"chain-{name}-unbroken" / "weights.pt")
    resumed = load(folder / f"chain-{name}-4" / "weights.pt")
    before = load(folder / f"chain-{name}-3" / "weights.pt")
    for key, value in unbroken.items():
        assert (value - resumed[key]).abs().max() < 1e-12, key
    assert any((resumed[key] - before[key]).abs().max() > 1e-5 for key in before)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["full", "lora"])
def test_exports_and_predictions_are_equal(folder: Path, name: str) -> None:
    """The two runs end with equal weights; the others hold those of their step."""
    first, other = (folder / f"chain-{name}-{run}" for run in ("unbroken", 4))
    exported = load_file(first / "export" / "model.safetensors")
    for key, value in load_file(other / "export" / "model.safetensors").items():
        assert (value - exported[key]).abs().max() < 1e-12, key
    if name == "full":
        for run in (1, 2, 3, 4):
            link = folder / f"chain-{name}-{run}"
            weights = load(link / "weights.pt")
            for key, value in load_file(link / "export" / "model.safetensors").items():
                assert torch.equal(value, weights[key]), (run, key)
    for rank in (0, 1):
        rows = [load(link / f"predictions.{rank}.pt") for link in (first, other)]
        assert len(rows[0]) == 2 - rank
        for (question, advantages), (other_question, others) in zip(*rows, strict=True):
            assert question == other_question
            assert advantages == pytest.approx(others, abs=1e-9)


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(folder: Path) -> None:
    change_size(folder, devices=1, step=3)
    for step in (2, 3):
        before, after = (
            load(folder / f"size-{step - 1}/end.pt"),
            load(folder / f"size-{step}/start.pt"),
        )
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before), step


@pytest.mark.slow
def test_the_survivor_of_a_dead_rank_ends_with_an_error(folder: Path) -> None:
    assert "peer" in (folder / "error.txt").read_text()


def test_other_sharded_strategies_are_refused() -> None:
    with pytest.raises(ValueError, match="FSDPStrategy shards the weights"):
        check_strategy(FSDPStrategy())


def test_an_unknown_way_to_gather_is_refused() -> None:
    with pytest.raises(ValueError, match="gather='rows': choose auto, model or layers"):
        FSDP2Strategy(gather="rows")  # type: ignore[arg-type]


def test_tensor_parallel_processes_are_refused() -> None:
    class Mesh(dict[str, Any]):
        def size(self) -> int:
            return 2

    with pytest.raises(ValueError, match="tensor_parallel_size=2"):
        shard_model(torch.nn.Linear(1, 1), Mesh(tensor_parallel=Mesh(), data_parallel=Mesh()))
