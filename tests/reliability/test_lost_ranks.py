"""Two ranks, one of which is killed, hangs, or has a full disk: the other ends with a reason."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from lightning_sd import EndOnLostRank, find_last_good
from lightning_sd.callbacks.lost_ranks import find_lost_rank
from lightning_sd.callbacks.signals import INTERRUPTED
from tests.reliability.rank_faults import FAULTY

TIMEOUT = 8
GLOO = (
    "[/src/third_party/gloo/gloo/transport/tcp/pair.cc:1] Connection closed by peer [::1]:5. GLHF!"
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "tests.reliability.rank_faults", str(folder), str(TIMEOUT)]
    subprocess.run([*command, *FAULTY], check=True, timeout=300)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "words", "saved"),
    [
        ("killed", "Connection ", 2),  # reset or closed
        ("hanging", f"Timed out waiting {TIMEOUT}000ms", 2),
        ("disk full", "Connection ", 1),
    ],
)
def test_the_other_rank_ends_with_a_reason_and_the_last_checkpoint_is_good(
    runs, fault, words, saved
):
    other = json.loads((runs / f"{fault}.json").read_text())[1 - FAULTY[fault]]
    assert other["code"] == 1  # -9: it did not end by itself
    (line,) = [line for line in other["output"].splitlines() if line.startswith("error: ")]
    assert "because another rank has ended or does not answer" in line
    assert words in line
    best = find_last_good(runs / fault)
    assert torch.load(best, weights_only=True)["global_step"] == saved
    assert not list((runs / fault).glob(".*"))


@pytest.mark.slow
def test_the_rank_whose_disk_is_full_names_the_path(runs):
    rank = json.loads((runs / "disk full.json").read_text())[0]
    assert rank["code"] == 1
    assert "epoch=0-step=2.ckpt: the checkpoint of" in rank["output"]
    assert "No space left on device" in rank["output"]


@pytest.mark.slow
def test_a_signal_to_one_rank_ends_both_with_a_checkpoint(runs):
    ranks = json.loads((runs / "signal.json").read_text())
    assert [rank["code"] for rank in ranks] == [143, 143], ranks
    saved = torch.load(runs / "signal" / INTERRUPTED, weights_only=True)
    assert saved["global_step"] == 3  # that of the running batch


def make_trainer(launcher, world_size=2):
    strategy = SimpleNamespace(launcher=launcher)
    return SimpleNamespace(
        world_size=world_size,
        global_rank=0,
        global_step=3,
        strategy=strategy,
        lightning_module=None,
    )


def test_processes_that_lightning_started_do_not_stay_behind(capsys):
    launcher = _SubprocessScriptLauncher(LightningEnvironment(), 2, 1)
    launcher.procs = [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])]
    EndOnLostRank().on_exception(make_trainer(launcher), None, RuntimeError(GLOO))
    assert launcher.procs[0].wait(timeout=30) == -9
    assert "rank 0 ends at step 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "world_size"),
    [(ValueError("samples=0"), 2), (RuntimeError("shape"), 2), (RuntimeError(GLOO), 1)],
)
def test_other_errors_are_left_alone(capsys, error, world_size):
    launcher = _SubprocessScriptLauncher(LightningEnvironment(), 2, 1)
    launcher.procs = [SimpleNamespace(send_signal=lambda number: pytest.fail("killed"))]
    EndOnLostRank().on_exception(make_trainer(launcher, world_size), None, error)
    assert capsys.readouterr().err == ""


def test_the_reason_is_one_line_without_source_files():
    assert find_lost_rank(RuntimeError(GLOO)) == "Connection closed by peer [::1]:5"
    store = torch.distributed.DistStoreError("wait timeout after 8000ms, keys: /a\nframe #0")
    assert find_lost_rank(store) == "wait timeout after 8000ms, keys: /a"
