"""Two processes (gloo) end with the weights of one: DDP, and FSDP2 gathered in both ways."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from safetensors.torch import load_file

from lightning_sd import FSDP2Strategy
from lightning_sd.models.sharding import fits_whole, shard_model
from lightning_sd.modules.checks import check_strategy
from tests.modules.sharded_runs import (
    SHARDED,
    change_size,
    list_cases,
    list_grid,
    sample_ahead,
)

ROOT = Path(__file__).parents[2]
LIMITS = {torch.float64: 1e-12, torch.float32: 1e-6}


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
    for name, run in list_grid().items():  # while the ranks are at it
        torch.save(run("one"), folder / f"{name}.one.pt")
    codes = [rank.wait(timeout=1500) for rank in ranks]
    assert codes == [0, 9], (folder / "log.0").read_text()[-3000:]  # rank 1 dies in the last run
    return folder


def load(path: Path) -> Any:
    return torch.load(path, weights_only=True)


def find_gap(folder: Path, name: str, other: str) -> float:
    """Return the largest difference from the weights under DDP, as a share of what is allowed."""
    ddp, weights = (load(folder / f"{name}.{kind}.pt") for kind in ("ddp", other))
    assert ddp.keys() == weights.keys()
    return max(
        float((value - weights[key]).abs().max()) / LIMITS[value.dtype]
        for key, value in ddp.items()
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", SHARDED)
def test_every_run_equals_ddp(folder: Path, kind: str) -> None:
    gaps = {name: find_gap(folder, name, kind) for name in list_cases()}
    assert not {name: gap for name, gap in gaps.items() if gap >= 1}


@pytest.mark.slow
def test_every_run_of_the_grid_equals_one_process(folder: Path) -> None:
    gaps = {name: find_gap(folder, name, "one") for name in list_grid()}
    assert len(gaps) == 5 * 2 * 2  # teachers, LoRA or not, precisions
    assert not {name: gap for name, gap in gaps.items() if gap >= 1}


@pytest.mark.slow
def test_a_token_budget_changes_nothing(folder: Path) -> None:
    """FSDP2, with each row scored in a part of its own."""
    assert find_gap(folder, "ema-full-float64", "budget") < 1


@pytest.mark.slow
def test_hybrid_sharding_equals_ddp(folder: Path) -> None:
    """Two replicas of one shard; four processes, two by two, were run by hand."""
    assert find_gap(folder, "ema-full-float64", "hybrid") < 1


@pytest.mark.slow
def test_the_student_is_gathered_three_times_per_micro_batch(folder: Path) -> None:
    """For the rollout, the teacher and the student: what a plan counts as network traffic."""
    assert load(folder / "gathers.pt") == 2 * 3 + 1  # and once where the scorer measures the model


@pytest.mark.slow
def test_teachers_make_a_difference(folder: Path) -> None:
    """Else the comparison above would hold for a teacher that silently equals the student."""
    key = "model.layers.0.mlp.down_proj.weight"
    weights = {
        name: load(folder / f"{name}-full-float64.layers.pt")[key]
        for name in ("frozen", "ema", "snapshot", "live", "trust")
    }
    for one, other in itertools.combinations(weights, 2):
        assert (weights[one] - weights[other]).abs().max() > 1e-7, (one, other)


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
@pytest.mark.parametrize("rank", [0, 1])
def test_values_of_all_ranks_are_logged_without_a_warning(folder: Path, rank: int) -> None:
    log = (folder / f"log.{rank}").read_text()
    assert "max_steps=1` reached" in log or rank == 1
    assert "sync_dist" not in log


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
def test_sampling_ahead_on_two_ranks_equals_one_process(folder: Path) -> None:
    sample_ahead(folder, devices=1)
    batches, staleness, weights = load(folder / "ahead-1.0.pt")
    ranks = [load(folder / f"ahead-2.{rank}.pt") for rank in (0, 1)]
    assert [
        first | second for first, second in zip(ranks[0][0], ranks[1][0], strict=True)
    ] == batches
    assert ranks[0][1] == ranks[1][1] == staleness == [0, 1, 1, 0]
    for key, value in weights.items():
        assert (value - ranks[0][2][key]).abs().max() < 1e-12, key


@pytest.mark.slow
def test_the_survivor_of_a_dead_rank_ends_with_an_error(folder: Path) -> None:
    assert "peer" in (folder / "error.txt").read_text()


def test_other_sharded_strategies_are_refused() -> None:
    with pytest.raises(ValueError, match="FSDPStrategy shards the weights"):
        check_strategy(FSDPStrategy())


def test_a_model_fits_whole_if_weights_and_gradients_take_half_of_the_memory() -> None:
    model = torch.nn.Linear(10, 10)  # 440 bytes
    assert fits_whole(model, 4 * 440)
    assert not fits_whole(model, 4 * 440 - 1)
    model.weight.requires_grad_(False)  # only the bias has a gradient, of 40 bytes
    assert fits_whole(model, 2 * 480)
    assert not fits_whole(model, 2 * 480 - 1)


@pytest.mark.parametrize("chosen", [None, False, True])
def test_large_checkpoints_are_written_in_shards(
    chosen: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ModelParallelStrategy, "setup", lambda self, trainer: None)
    model = torch.nn.Linear(10, 10)  # 440 bytes of weights, and twice that of Adam's moments
    for limit, sharded in ((3 * 440, False), (3 * 440 - 1, True)):
        monkeypatch.setattr("lightning_sd.modules.strategy.LARGE_CHECKPOINT", limit)
        strategy = FSDP2Strategy(save_distributed_checkpoint=chosen)
        strategy._model = model
        strategy.setup(Trainer(logger=False, accelerator="cpu"))
        assert strategy._save_distributed_checkpoint == (sharded if chosen is None else chosen)


def test_an_unknown_way_to_gather_is_refused() -> None:
    with pytest.raises(ValueError, match="gather='rows': choose auto, model or layers"):
        FSDP2Strategy(gather="rows")  # type: ignore[arg-type]


@pytest.mark.parametrize("replicas", [0, 3])
def test_replicas_that_do_not_divide_the_processes_are_refused(replicas: int) -> None:
    strategy = FSDP2Strategy(replicas=replicas)
    strategy.parallel_devices = [torch.device("cpu")] * 4
    with pytest.raises(ValueError, match=f"replicas={replicas}: it must divide the 4 processes"):
        strategy.setup_environment()


def test_tensor_parallel_processes_are_refused() -> None:
    class Mesh(dict[str, Any]):
        def size(self) -> int:
            return 2

    with pytest.raises(ValueError, match="tensor_parallel_size=2"):
        shard_model(torch.nn.Linear(1, 1), Mesh(tensor_parallel=Mesh(), data_parallel=Mesh()))
