"""What a kill has cut off after a step is done by the resumed run: validation, exports."""

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_sd import ArithmeticTask, CritiqueDataModule, ExactResume, ReferenceSolution
from tests.reliability.test_resume import Rows
from tests.stubs import equal, module, trainer

BATCHES = 3
"""Batches per epoch."""


class Diary(Callback):
    """Writes down what a run does, and crashes when a hook is called for the n-th time."""

    def __init__(self, hook=None, number=1):
        self.hook, self.left, self.entries = hook, number, []

    def write(self, trainer, hook):
        if hook == self.hook:
            self.left -= 1
            if self.left == 0:
                raise InterruptedError
        self.entries.append((hook, trainer.global_step, trainer.current_epoch))

    def on_validation_start(self, trainer, pl_module):
        self.write(trainer, "validation")

    def on_validation_batch_end(self, trainer, pl_module, *_):
        self.write(trainer, "validation batch")

    def on_train_epoch_end(self, trainer, pl_module):
        self.write(trainer, "epoch end")

    def on_train_end(self, trainer, pl_module):
        self.write(trainer, "end")


def run(make_llama, tokenizer, folder, rows, diary, resume=False, **settings):
    saver = ModelCheckpoint(folder / "ckpt", save_last=True, every_n_train_steps=1, save_top_k=-1)
    fit = trainer(
        folder,
        ReferenceSolution(),
        diary,
        saver,
        ExactResume(),
        enable_checkpointing=True,
        logger=Rows(rows),
        log_every_n_steps=1,
        **{"limit_val_batches": 2, **settings},
    )
    task = ArithmeticTask(train_size=2 * BATCHES, val_size=4, test_size=2)
    student = module(make_llama(), tokenizer)
    torch.manual_seed(1)
    path = folder / "ckpt" / "last.ckpt" if resume else None
    data = CritiqueDataModule(task, batch_size=2, eval_batch_size=2)
    fit.fit(student, datamodule=data, ckpt_path=path)


EPOCHS = {"max_steps": -1, "max_epochs": 2}
WITHIN_AN_EPOCH = {"max_steps": BATCHES + 2, "max_epochs": -1}
EVERY_FIVE = {"val_check_interval": 5, "check_val_every_n_epoch": None}


@pytest.mark.parametrize(
    ("settings", "hook", "number"),
    [
        (EPOCHS, "validation", 1),
        (EPOCHS, "validation batch", 4),
        (EPOCHS, "epoch end", 2),
        (EPOCHS | {"limit_val_batches": 0}, "epoch end", 1),
        (EPOCHS | {"limit_val_batches": 0}, "epoch end", 2),
        (EPOCHS | {"accumulate_grad_batches": 2, "val_check_interval": 2}, "validation", 1),
        (EPOCHS | {"max_steps": BATCHES}, "validation", 1),
        (WITHIN_AN_EPOCH | EVERY_FIVE, "validation", 1),
        (WITHIN_AN_EPOCH | EVERY_FIVE, "end", 1),
        (WITHIN_AN_EPOCH | {"limit_val_batches": 0}, "end", 1),
    ],
)
def test_a_resumed_run_does_what_the_unbroken_one_did(
    make_llama, tokenizer, tmp_path, settings, hook, number
):
    def train(name, rows, diary, resume=False):
        folder = tmp_path / name
        run(make_llama, tokenizer, folder, rows, diary, resume, **settings)
        return torch.load(folder / "ckpt" / "last.ckpt")["state_dict"]

    rows, diary = {}, Diary()
    unbroken = train("unbroken", rows, diary)
    broken_rows, broken_diary, resumed_diary = {}, Diary(hook, number), Diary()
    with pytest.raises(InterruptedError):
        train("broken", broken_rows, broken_diary)
    assert equal(unbroken, train("broken", broken_rows, resumed_diary, resume=True))
    assert rows == broken_rows
    assert set(diary.entries) == {*broken_diary.entries, *resumed_diary.entries}
    assert resumed_diary.entries[-1] == diary.entries[-1]
    folders = [tmp_path / name / "ckpt" for name in ("unbroken", "broken")]
    first, second = ({path.name for path in folder.iterdir()} for folder in folders)
    assert first == second


def test_a_finished_run_does_its_end_again_and_says_so(make_llama, tokenizer, tmp_path, caplog):
    run(make_llama, tokenizer, tmp_path, {}, Diary(), **WITHIN_AN_EPOCH)
    diary = Diary()
    with caplog.at_level("INFO"):
        run(make_llama, tokenizer, tmp_path, {}, diary, resume=True, **WITHIN_AN_EPOCH)
    assert "at step 5, the last one: only what follows it is done" in caplog.text
    assert [entry[0] for entry in diary.entries] == ["epoch end", "end"]


def test_a_checkpoint_beyond_the_last_step_is_refused(make_llama, tokenizer, tmp_path):
    run(make_llama, tokenizer, tmp_path, {}, Diary(), **EPOCHS)
    with pytest.raises(ValueError, match="max_steps=4: the checkpoint is at step 6 already"):
        run(make_llama, tokenizer, tmp_path, {}, Diary(), resume=True, max_steps=4)
