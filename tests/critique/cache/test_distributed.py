"""Two real processes (gloo): who sees which questions, and what is asked of the critic."""

import json
import sys
import textwrap

import pytest

SCRIPT = textwrap.dedent(
    """
    import json, os, sys
    import lightning.pytorch as pl, torch
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning_sd.data.module import CritiqueDataModule
    from tests.critique.cache.fakes import EchoCritic, NumberTask
    from tests.data.test_module import Student

    folder, steps, resume = sys.argv[1], int(sys.argv[2]), sys.argv[3] or None
    torch.set_num_threads(1)
    critic, student = EchoCritic(), Student()
    data = CritiqueDataModule(NumberTask(test=7), critic, folder, 2, 2, num_workers=1)
    saver = ModelCheckpoint(folder, "{step}", save_top_k=-1, every_n_train_steps=1)
    trainer = pl.Trainer(
        default_root_dir=folder, accelerator="cpu", devices=2, strategy="ddp", logger=False,
        enable_progress_bar=False, enable_model_summary=False, max_steps=steps,
        num_sanity_val_steps=0, callbacks=[saver],
    )
    trainer.fit(student, data, ckpt_path=resume)
    trainer.test(student, data, verbose=False)
    trainer.predict(student, data)
    out = {"seen": student.seen, "asked": [r.question.id for r in critic.asked]}
    with open(f"{folder}/rank{trainer.global_rank}_{steps}_{bool(resume)}.json", "w") as stream:
        json.dump(out, stream)
    # A rank that ends while the other still holds its connection may abort.
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    """
)


def run(folder, steps, resume=""):
    import os
    import subprocess

    (folder / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(folder / "script.py"), str(folder), str(steps), str(resume)]
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, timeout=900, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    paths = [folder / f"rank{rank}_{steps}_{bool(resume)}.json" for rank in (0, 1)]
    return [json.loads(path.read_text()) for path in paths]


@pytest.mark.slow
def test_two_ranks(tmp_path):
    ranks = run(tmp_path, 8)
    train = [rank["seen"]["train"] for rank in ranks]
    # 20 questions, global batches of 4: an epoch of 5 steps, then 3 steps of the next.
    assert [len(seen) for seen in train] == [16, 16]
    assert sorted(train[0][:10] + train[1][:10], key=int) == [str(i) for i in range(20)]
    assert len(set(train[0][10:] + train[1][10:])) == 12
    for split in ("test", "predict"):
        seen = [q for rank in ranks for q in rank["seen"][split]]
        assert sorted(seen) == [str(2000 + i) for i in range(7)], split
    # The second epoch was in the cache already, whichever rank asked first.
    asked = [q for rank in ranks for q in rank["asked"]]
    assert sorted(asked, key=int) == [str(i) for i in range(20)]

    resumed = run(tmp_path, 8, tmp_path / "step=3.ckpt")
    for rank, again in zip(ranks, resumed, strict=True):
        assert again["seen"]["train"] == rank["seen"]["train"][6:]
        assert again["asked"] == []
