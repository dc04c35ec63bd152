"""Checkpoints are written whole or not at all, and damaged ones are found and named."""

import os
import random
import resource
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_sd import AtomicCheckpointIO, DamagedCheckpointError, find_last_good
from lightning_sd.callbacks import checkpoint_files
from lightning_sd.callbacks.checkpoint_files import find_damage, write_checkpoint
from lightning_sd.cli.trainer import Trainer
from tests.stubs import LabData, SameAsStudent, module, trainer


def make_checkpoint(seed=0, size=1000):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(size, generator=generator)
    return {"state_dict": {"w": weight, "frozen": weight[:3].clone()}, "epoch": seed, "name": "a"}


def equal(a, b):
    same = all(torch.equal(a["state_dict"][n], b["state_dict"][n]) for n in ("w", "frozen"))
    return same and a["epoch"] == b["epoch"] and a["name"] == b["name"]


def load(path):
    return torch.load(path, weights_only=True)


def write_three(folder):
    """Three checkpoints, each newer than the one before."""
    paths = []
    for step in range(3):
        paths.append(folder / f"step={step}.ckpt")
        write_checkpoint(make_checkpoint(step), paths[-1])
        os.utime(paths[-1], (1000 + step, 1000 + step))
    return paths


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "deep" / "er" / "a.ckpt"
    AtomicCheckpointIO().save_checkpoint(make_checkpoint(), path)
    assert equal(AtomicCheckpointIO().load_checkpoint(str(path)), make_checkpoint())
    assert [p.name for p in path.parent.iterdir()] == ["a.ckpt"]


def test_the_temporary_file_is_on_the_disk_of_the_target(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    seen, fsync = [], os.fsync

    def record(handle):
        seen.extend(path.name for path in tmp_path.iterdir())
        fsync(handle)

    monkeypatch.setattr(checkpoint_files.os, "fsync", record)
    AtomicCheckpointIO().save_checkpoint(make_checkpoint(), tmp_path / "a.ckpt")
    assert seen == [".a.ckpt.part", "a.ckpt"]


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from lightning_sd.callbacks import checkpoint_files
    from tests.reliability.test_checkpoints import make_checkpoint

    def kill(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(checkpoint_files, "_drop_from_memory", kill)
    checkpoint_files.write_checkpoint(make_checkpoint(1), Path(sys.argv[1]))
"""


def test_a_kill_while_writing_keeps_the_older_file(tmp_path):
    path = tmp_path / "last.ckpt"
    write_checkpoint(make_checkpoint(0), path)
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(KILLED), str(path)])
    assert killed.returncode == -signal.SIGKILL
    assert sorted(p.name for p in tmp_path.iterdir()) == [".last.ckpt.part", "last.ckpt"]
    assert equal(load(path), make_checkpoint(0))
    # The next start removes what the killed process left.
    assert equal(AtomicCheckpointIO().load_checkpoint(path), make_checkpoint(0))
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_file_that_another_process_writes_is_no_leftover(tmp_path):
    part = tmp_path / ".a.ckpt.part"
    with part.open("wb") as file:
        checkpoint_files._lock(file)
        assert checkpoint_files.remove_leftovers(tmp_path) == []
        assert part.exists()
    assert checkpoint_files.remove_leftovers(tmp_path) == [part]
    assert not part.exists()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda content: b"", "it is empty"),
        (lambda content: content[: len(content) // 2], "it is incomplete"),
        (lambda content: content[:-1], "it is incomplete"),
        (lambda content: b"not a checkpoint", "it is incomplete or not a checkpoint"),
        (lambda content: _flip(content, content.index(b"frozen"), 0), "have changed"),
    ],
    ids=["empty", "half", "last byte", "text", "bit"],
)
def test_a_damaged_checkpoint_is_named_with_the_newest_good_one(tmp_path, damage, words):
    paths = write_three(tmp_path)
    paths[2].write_bytes(damage(paths[2].read_bytes()))
    with pytest.raises(DamagedCheckpointError) as error:
        AtomicCheckpointIO().load_checkpoint(paths[2])
    message = str(error.value)
    assert message.startswith(f"{paths[2]}: this checkpoint is damaged")
    assert words in message
    assert f"--ckpt_path {paths[1]}" in message
    assert find_last_good(tmp_path) == paths[1]


def test_no_good_checkpoint_is_an_error_that_lists_the_damaged(tmp_path):
    for path in write_three(tmp_path):
        path.write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"no good checkpoint.*step=2\.ckpt.*step=0\.ckpt"):
        find_last_good(tmp_path)
    with pytest.raises(DamagedCheckpointError, match="There is no good one in its folder"):
        AtomicCheckpointIO().load_checkpoint(path)


def test_a_flipped_bit_is_found_or_changes_nothing(tmp_path):
    path = tmp_path / "a.ckpt"
    write_checkpoint(make_checkpoint(size=50), path)
    content, found, rng = path.read_bytes(), 0, random.Random(0)
    places = range(len(content)) if len(content) < 400 else rng.sample(range(len(content)), 400)
    for place in places:
        path.write_bytes(_flip(content, place, rng.randrange(8)))
        if find_damage(path) is None:
            assert equal(load(path), make_checkpoint(size=50)), place
        else:
            found += 1
    assert found > 40


def _flip(content, place, bit):
    changed = bytearray(content)
    changed[place] ^= 1 << bit
    return bytes(changed)


@pytest.fixture
def small_files():
    """Files of more than 64 KiB cannot be written, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_keeps_the_older_file_and_names_path_and_size(tmp_path, small_files):
    path = tmp_path / "last.ckpt"
    write_checkpoint(make_checkpoint(0), path)
    with pytest.raises(OSError, match=r"last\.ckpt: the checkpoint of 7\.6 MiB could not be writ"):
        AtomicCheckpointIO().save_checkpoint(make_checkpoint(1, size=2_000_000), path)
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]
    assert equal(load(path), make_checkpoint(0))


def test_the_older_checkpoint_goes_only_after_the_newer_was_verified(
    make_llama, tokenizer, tmp_path, monkeypatch
):
    """A disk that loses the end of a file: the second checkpoint is refused, the first is kept."""
    kept = ModelCheckpoint(tmp_path / "kept", every_n_train_steps=1, save_top_k=1)
    run = trainer(
        tmp_path,
        SameAsStudent(),
        kept,
        enable_checkpointing=True,
        plugins=[AtomicCheckpointIO()],
    )
    drop = checkpoint_files._drop_from_memory

    def lose(file):
        drop(file)
        if run.global_step == 2:
            os.truncate(file.name, os.path.getsize(file.name) - 100)

    monkeypatch.setattr(checkpoint_files, "_drop_from_memory", lose)
    with pytest.raises(DamagedCheckpointError, match=r"step=2\.ckpt.*--ckpt_path .*step=1\.ckpt"):
        run.fit(module(make_llama(), tokenizer), datamodule=LabData())
    assert [p.name for p in (tmp_path / "kept").iterdir()] == ["epoch=0-step=1.ckpt"]


def test_our_trainer_writes_through_it_unless_another_is_given():
    assert isinstance(Trainer(logger=False).strategy.checkpoint_io, AtomicCheckpointIO)
    other = AtomicCheckpointIO()
    for given in (other, [other]):
        assert Trainer(logger=False, plugins=given).strategy.checkpoint_io is other


def test_urls_are_left_to_lightning(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "lightning.fabric.plugins.io.TorchCheckpointIO.save_checkpoint",
        lambda self, checkpoint, path, options: seen.append(path),
    )
    AtomicCheckpointIO().save_checkpoint({}, "memory://run/a.ckpt")
    assert seen == ["memory://run/a.ckpt"]
