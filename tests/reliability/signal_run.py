"""A run in a process of its own, which sends itself a signal at a named moment.

``python -m tests.reliability.signal_run FOLDER SIGNAL MOMENT NUMBER [last]``; MOMENT is a hook of
Lightning's callbacks, NUMBER how often it must have been called. The log goes to FOLDER/rows.json.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from transformers import LlamaConfig, LlamaForCausalLM

from lightning_sd import ArithmeticTask, CritiqueDataModule, EMATeacher, ReferenceSolution
from lightning_sd.cli.checkpoint_path import find_last_checkpoint
from lightning_sd.cli.trainer import Trainer
from tests.conftest import VOCABULARY, make_tokenizer
from tests.reliability.test_resume import Rows
from tests.stubs import module

HOOKS = (
    "on_train_batch_start",
    "on_train_batch_end",
    "on_before_optimizer_step",
    "on_validation_start",
    "on_validation_batch_end",
    "on_train_start",
)


class Sender(Callback):
    def __init__(self, name, moment, number):
        self.signal, self.moment, self.left = getattr(signal, name, None), moment, int(number)

    def send(self, *_):
        self.left -= 1
        if self.left == 0 and self.signal is not None:
            os.kill(os.getpid(), self.signal)


for hook in HOOKS:

    def call(self, *args, hook=hook, **kwargs):
        if hook == self.moment:
            self.send()

    setattr(Sender, hook, call)


def main(folder, name, moment, number, resume=None):
    folder = Path(folder)
    torch.set_num_threads(1)
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        initializer_range=0.3,
        eos_token_id=1,
        pad_token_id=0,
        bos_token_id=None,
    )
    settings = {"optimizer": lambda parameters: torch.optim.AdamW(parameters, lr=1e-2)}
    student = module(
        LlamaForCausalLM(config), make_tokenizer(), teacher=EMATeacher(0.3), **settings
    )
    path = folder / "rows.json"
    rows = {int(k): v for k, v in json.loads(path.read_text()).items()} if path.exists() else {}
    saver = ModelCheckpoint(folder / "ckpt", save_last=True, every_n_train_steps=100)
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        devices=1,
        callbacks=[ReferenceSolution(), Sender(name, moment, number), saver],
        logger=Rows(rows),
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        val_check_interval=2,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    task = ArithmeticTask(train_size=8, val_size=4, test_size=2)
    data = CritiqueDataModule(task, batch_size=2, eval_batch_size=2)
    ckpt_path = find_last_checkpoint(trainer.checkpoint_callbacks) if resume else None
    try:
        trainer.fit(student, datamodule=data, ckpt_path=ckpt_path)
    finally:
        path.write_text(json.dumps({k: _plain(v) for k, v in rows.items()}))
    torch.save(student.student.state_dict(), folder / "weights.pt")


def _plain(metrics):
    return {name: float(value) for name, value in metrics.items()}


if __name__ == "__main__":
    main(*sys.argv[1:])
