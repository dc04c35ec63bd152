"""Train with two ranks (gloo), one of which meets a fault; write how both ended.

``python -m tests.reliability.rank_faults FOLDER TIMEOUT FAULT...``. Both ranks of each run are
forked from this process, so that torch is imported once. FOLDER/FAULT.json holds the exit code and
the output of each rank; the checkpoints are in FOLDER/FAULT. A rank that hangs is killed once the
other has ended.
"""

import errno
import json
import os
import signal
import socket
import sys
import time
import traceback
from datetime import timedelta
from pathlib import Path

import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy
from transformers import LlamaConfig, LlamaForCausalLM

from lightning_sd import ReferenceSolution
from lightning_sd.callbacks import checkpoint_files
from lightning_sd.cli.trainer import Trainer
from tests.conftest import VOCABULARY, make_tokenizer
from tests.stubs import LabData, module

FAULTY = {"killed": 1, "hanging": 1, "disk full": 0, "signal": 1}
"""Fault to the rank that meets it; rank 0 writes the checkpoints."""
LIMIT = 60.0
"""Seconds within which a rank must end by itself."""


class Fault(Callback):
    """Lets one rank meet the fault in the batch after step 2, or when that step is saved."""

    def __init__(self, fault):
        self.fault = fault

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 2 and trainer.global_rank == FAULTY[self.fault]:
            if self.fault == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.fault == "hanging":
                time.sleep(600)
            if self.fault == "signal":
                signal.raise_signal(signal.SIGTERM)

    def on_train_batch_end(self, trainer, *_):
        if self.fault == "disk full" and trainer.global_step == 2:
            checkpoint_files.os.fsync = refuse


def refuse(handle):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def train(fault, folder, seconds):
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        eos_token_id=1,
        pad_token_id=0,
        bos_token_id=None,
    )
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy=DDPStrategy(timeout=timedelta(seconds=seconds)),
        max_steps=4,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[
            ReferenceSolution(),
            Fault(fault),
            ModelCheckpoint(folder, save_last=True, every_n_train_steps=1),
        ],
    )
    student = module(LlamaForCausalLM(config), make_tokenizer())
    trainer.fit(student, datamodule=LabData(batch_size=2))


def start(fault, rank, port, folder, seconds):
    """Fork one rank; return its process id."""
    child = os.fork()
    if child:
        return child
    with output_of(folder, rank).open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    try:
        train(fault, folder, seconds)
    except SystemExit as end:
        sys.stderr.flush()
        os._exit(end.code)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def output_of(folder, rank):
    return folder.with_name(f"{folder.name}.{rank}.txt")


def run(fault, folder, seconds):
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    began, codes = time.monotonic(), {}
    ranks = {start(fault, rank, port, folder, seconds): rank for rank in (0, 1)}
    while ranks:
        child, status = os.waitpid(-1, os.WNOHANG)
        if child:
            codes[ranks.pop(child)] = os.waitstatus_to_exitcode(status)
        survivor_ended = 1 - FAULTY[fault] in codes
        if ranks and ((survivor_ended and fault == "hanging") or time.monotonic() - began > LIMIT):
            for child in ranks:
                os.kill(child, signal.SIGKILL)
        time.sleep(0.02)
    ends = [{"code": codes[rank], "output": output_of(folder, rank).read_text()} for rank in (0, 1)]
    folder.with_suffix(".json").write_text(json.dumps(ends))


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[3:]:
        run(name, Path(sys.argv[1]) / name, float(sys.argv[2]))
