"""FSDP2 on two processes (gloo) gives the weights of DDP, for every teacher."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import FSDPStrategy

from lightning_sd.models.sharding import shard_model
from lightning_sd.modules.checks import check_strategy

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("sharded")
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node=2",
        "--master-port=0",
        "--rdzv-backend=c10d",
        "--rdzv-endpoint=localhost:0",
        str(ROOT / "tests/modules/sharded_runs.py"),
        str(folder),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.slow
def test_every_run_equals_ddp(folder: Path) -> None:
    names = sorted({path.name.split(".")[0] for path in folder.iterdir()})
    assert len(names) == 5 * 2 * 2 + 3
    for name in names:
        ddp, model, layers = (
            torch.load(folder / f"{name}.{kind}.pt", weights_only=True)
            for kind in ("ddp", "model", "layers")
        )
        assert ddp.keys() == model.keys() == layers.keys()
        for key, value in ddp.items():
            assert (value - model[key]).abs().max() < 1e-12, (name, key)
            assert (value - layers[key]).abs().max() < 1e-12, (name, key)


@pytest.mark.slow
def test_teachers_and_adapters_make_a_difference(folder: Path) -> None:
    """Else the comparison above would hold for a teacher that silently equals the student."""

    def load(name: str) -> Any:
        return torch.load(folder / f"{name}.layers.pt", weights_only=True)

    one, key = load("frozen-full-1"), "model.layers.0.mlp.down_proj.weight"
    for other in ("ema-full-1", "live-full-1", "trust-full-1", "frozen-full-2", "silent_rank"):
        assert (one[key] - load(other)[key]).abs().max() > 1e-7, other


def test_other_sharded_strategies_are_refused() -> None:
    with pytest.raises(ValueError, match="FSDPStrategy shards the weights"):
        check_strategy(FSDPStrategy())


def test_tensor_parallel_processes_are_refused() -> None:
    class Mesh(dict[str, Any]):
        def size(self) -> int:
            return 2

    with pytest.raises(ValueError, match="tensor_parallel_size=2"):
        shard_model(torch.nn.Linear(1, 1), Mesh(tensor_parallel=Mesh(), data_parallel=Mesh()))
