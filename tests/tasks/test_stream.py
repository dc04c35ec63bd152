import json
from collections import Counter
from itertools import islice

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_sd.data.module import CritiqueDataModule
from lightning_sd.data.stream_loader import StreamLoader
from lightning_sd.tasks.stream import StreamTask
from tests.data.test_module import Student

COLUMNS = {"question": "problem", "answer": "solution"}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    datasets.disable_progress_bars()


def rows(number=90):
    return [{"problem": f"What is {i}+1?", "solution": f"#### {i + 1}"} for i in range(number)]


def as_jsonl(folder):
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
    return str(folder / "a.jsonl")


def as_parquet(folder):
    import datasets

    datasets.Dataset.from_list(rows()).to_parquet(str(folder / "a.parquet"), batch_size=16)
    return str(folder / "a.parquet")


def as_saved(folder):
    import datasets

    datasets.Dataset.from_list(rows()).save_to_disk(str(folder / "saved"))
    return str(folder / "saved")


def task(path, **options):
    defaults = {
        "epoch_size": 24,
        "val_size": 3,
        "test_size": 5,
        "held_out": 0.3,
        "block": 10,
        "answer_pattern": "#### (.+)",
    }
    return StreamTask(path, COLUMNS, **{**defaults, **options})


@pytest.mark.parametrize("source", [as_jsonl, as_parquet, as_saved])
def test_a_round_gives_each_training_question_once(source, tmp_path):
    one = task(source(tmp_path))
    held = [q.text for split in ("val", "test") for q in one.questions(split)]
    assert len(held) == len(set(held)) == 8
    wanted = [r["problem"] for r in rows() if one.assign_split(r["problem"]) == "train"]
    assert not set(wanted) & set(held)
    stream = iter(one.stream())
    first = [q.text for q in islice(stream, len(wanted))]
    second = [q.text for q in islice(stream, len(wanted))]
    assert Counter(first) == Counter(second) == Counter(wanted)
    assert first != second != wanted
    question = next(stream)
    assert question.answer == str(int(question.text[8:-3]) + 1)
    assert question.id == f"train/{int(question.answer) - 1}"
    assert one.verify(question, f"<answer>{question.answer}</answer>").correct


def test_blocks_of_one_keep_the_order(tmp_path):
    one = task(as_jsonl(tmp_path), block=1)
    wanted = [r["problem"] for r in rows() if one.assign_split(r["problem"]) == "train"]
    assert [q.text for q in islice(one.stream(), len(wanted))] == wanted


@pytest.mark.parametrize("source", [as_jsonl, as_parquet, as_saved])
@pytest.mark.parametrize("at", [1, 9, 10, 11, 47, 75, 130])
def test_goes_on_exactly_where_it_was(source, at, tmp_path):
    one = task(source(tmp_path))
    unbroken = [q.id for q in islice(one.stream(), at + 30)]
    stream = one.stream()
    assert [q.id for q in islice(stream, at)] == unbroken[:at]
    state = torch.load(save(tmp_path, stream.state_dict()), weights_only=True)
    again = one.stream()
    again.load_state_dict(state)
    assert [q.id for q in islice(again, 30)] == unbroken[at:]


def save(folder, state):
    torch.save(state, folder / "state.pt")
    return folder / "state.pt"


def test_ranks_share_each_global_batch(tmp_path):
    one = task(as_jsonl(tmp_path))
    whole = [[q.id for q in batch] for batch in StreamLoader(one.stream(), 6, 4)]
    ranks = [
        [[q.id for q in b] for b in StreamLoader(one.stream(), 3, 4, rank=rank, world_size=2)]
        for rank in (0, 1)
    ]
    assert whole == [a + b for a, b in zip(*ranks, strict=True)]


@pytest.mark.parametrize("repeat", [1, 2])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_look_at_the_next_batch_does_not_move_the_position(tmp_path, repeat, at):
    one = task(as_jsonl(tmp_path))
    unbroken = [[q.id for q in b] for b in StreamLoader(one.stream(), 4, 6, repeat=repeat)]
    first, taken = StreamLoader(one.stream(), 4, 6, repeat=repeat), []
    for batch in first:
        taken.append([q.id for q in batch])
        assert [q.id for q in first.peek()] == unbroken[len(taken)]
        if len(taken) == at:
            break
    assert taken == unbroken[:at]
    second = StreamLoader(one.stream(), 4, 6, repeat=repeat)
    second.load_state_dict(first.state_dict())
    assert [[q.id for q in batch] for batch in second] == unbroken[at:]


def fit(folder, path, steps, ckpt_path=None, **options):
    student = Student()
    student.training_step = lambda batch, batch_idx: (
        student.note("train", batch) or student.weight * 1
    )
    data = CritiqueDataModule(task(path), None, str(folder), 4, 2, **options)
    trainer = pl.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_steps=steps,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ModelCheckpoint(folder, "{step}", save_top_k=-1, every_n_train_steps=1)],
    )
    trainer.fit(student, data, ckpt_path=ckpt_path)
    return student.seen["train"]


@pytest.mark.filterwarnings("ignore:The dirpath has changed", "ignore:Checkpoint directory")
def test_a_resumed_fit_sees_what_an_unbroken_one_sees(tmp_path):
    path = as_jsonl(tmp_path)
    unbroken = fit(tmp_path, path, 15)
    assert len(unbroken) == 60
    for step in (1, 5, 6, 7, 11, 12):
        resumed = fit(tmp_path / "b", path, 15, tmp_path / f"step={step}.ckpt")
        assert resumed == unbroken[4 * step :], step


@pytest.mark.filterwarnings("ignore:The dirpath has changed", "ignore:Checkpoint directory")
def test_a_resumed_fit_goes_on_in_the_middle_of_a_repeated_batch(tmp_path):
    path = as_jsonl(tmp_path)
    once = fit(tmp_path / "once", path, 6)
    unbroken = fit(tmp_path, path, 18, repeat_batches=3)
    assert unbroken == [q for i in range(0, 24, 4) for _ in range(3) for q in once[i : i + 4]]
    for step in (1, 2, 3, 5, 14, 15, 16):
        last = tmp_path / f"step={step}.ckpt"
        resumed = fit(tmp_path / "b", path, 18, last, repeat_batches=3)
        assert resumed == unbroken[4 * step :], step


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epoch_size": 0}, "epoch_size=0"),
        ({"block": 0}, "block=0"),
        ({"held_out": 1.0}, r"held_out=1\.0"),
        ({"held_out": 0.01}, "Raise held_out"),
        ({"answer_pattern": "@@ (.+)"}, "no answer was found"),
    ],
)
def test_bad_options_are_named(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        task(as_jsonl(tmp_path), **options)


def test_missing_columns_and_splits_are_named(tmp_path):
    path = as_jsonl(tmp_path)
    with pytest.raises(ValueError, match=r"'text' is not a column of.*problem"):
        StreamTask(path, {"question": "text", "answer": "solution"}, 10)
    with pytest.raises(TypeError, match=r"stream\(\)"):
        task(path).questions("train")


def test_an_epoch_without_a_batch(tmp_path):
    with pytest.raises(ValueError, match="epoch_size"):
        CritiqueDataModule(task(as_jsonl(tmp_path)), batch_size=30).train_dataloader()
