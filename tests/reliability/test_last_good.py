"""The command line resumes from the newest checkpoint that is not damaged."""

from pathlib import Path

import pytest

from lightning_sd import DamagedCheckpointError
from lightning_sd.cli.main import main
from tests.cli.test_main import QUICK, SAVING

KEEP_ALL = ["--trainer.callbacks.save_top_k=-1"]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_damaged_last_checkpoint_is_refused_and_last_good_goes_on():
    main(["fit", *QUICK, *SAVING, *KEEP_ALL, "--trainer.max_steps=2"])
    for name in ("last.ckpt", "epoch=0-step=2.ckpt"):
        path = Path("ckpt") / name
        path.write_bytes(path.read_bytes()[:1000])
    more = ["--trainer.max_steps=3", "--trainer.enable_progress_bar=false"]
    for given in ("last", "ckpt/last.ckpt"):
        with pytest.raises(DamagedCheckpointError, match=r"last\.ckpt.*step=1\.ckpt.*last_good"):
            main(["fit", *QUICK, *SAVING, *KEEP_ALL, *more, f"--ckpt_path={given}"])
    resumed = main(["fit", *QUICK, *SAVING, *KEEP_ALL, *more, "--ckpt_path=last_good"])
    assert resumed.trainer.ckpt_path.endswith("step=1.ckpt")
    assert resumed.trainer.global_step == 3


def test_last_good_serves_every_verb():
    main(["fit", *QUICK, *SAVING])
    Path("ckpt/last.ckpt").write_bytes(b"")
    tested = main(["test", *QUICK, *SAVING, "--ckpt_path=last_good"])
    assert tested.trainer.ckpt_path.endswith("step=1.ckpt")


def test_last_good_without_a_checkpoint_is_an_error():
    with pytest.raises(FileNotFoundError, match="ckpt_path=last_good: no good checkpoint"):
        main(["fit", *QUICK, *SAVING, "--ckpt_path=last_good"])
