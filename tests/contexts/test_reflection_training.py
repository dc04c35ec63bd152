"""RESD in training: resume, degenerate batches, two ranks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_sd import Distillation, TransformersSampler
from lightning_sd.cli.main import main
from lightning_sd.contexts import (
    CritiqueReflector,
    InsightCurator,
    LMCurator,
    LMReflector,
    Reflection,
)
from lightning_sd.contexts.reflection import Concise
from lightning_sd.critique import RuleCritic
from lightning_sd.data import CritiqueDataModule
from lightning_sd.lab import ArithmeticTask
from lightning_sd.objectives import Rebalance
from lightning_sd.teachers import EMATeacher
from lightning_sd.types import Verdict
from tests.cli.test_configs import CONFIGS, TINY
from tests.stubs import LabData, equal, module, trainer, weights


def resd(model: Any, tokenizer: Any, **kwargs: Any) -> Any:
    objective = Distillation(
        kind="reverse_kl", top_k=20, ratio_low=0.2, importance_clip=2.0, token_weights=[Rebalance()]
    )
    settings = {
        "objective": objective,
        "teacher": EMATeacher(0.1),
        "samples": 1,
        "optimizer": lambda parameters: torch.optim.AdamW(parameters, lr=1e-2),
    }
    return module(model, tokenizer, **{**settings, **kwargs})


class HalfRight(ArithmeticTask):
    """Rewards by the completion's length, so that a random model succeeds now and then."""

    def verify(self, question: Any, completion: str) -> Verdict:
        right = len(completion) % 2 == 0
        return Verdict(float(right), correct=right, feedback=None if right else "too odd")


def data(folder: Path) -> CritiqueDataModule:
    task = HalfRight(train_size=8, val_size=2, test_size=2)
    return CritiqueDataModule(task, RuleCritic(), str(folder), batch_size=4, repeat_batches=3)


def context() -> Reflection:
    return Reflection(
        CritiqueReflector(), InsightCurator(), Concise("staleness", every=2, max_items=6)
    )


class Losses(ModelCheckpoint):
    """Saves at each step, and remembers the losses."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "{step}", save_top_k=-1, every_n_train_steps=1)
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: Any, *args: Any, **kwargs: Any) -> None:
        self.losses.append(float(trainer.callback_metrics["train/loss"]))
        super().on_train_batch_end(trainer, *args, **kwargs)


def fitted(
    make_llama: Any, tokenizer: Any, folder: Path, ckpt: Path | None = None
) -> tuple[Any, Reflection, list[float]]:
    student, own = resd(make_llama(dtype=torch.float64), tokenizer), context()
    saver = Losses(folder / "ckpt")
    run = trainer(folder, own, saver, max_steps=8, max_epochs=-1, enable_checkpointing=True)
    run.fit(student, datamodule=data(folder / "cache"), ckpt_path=ckpt)
    return student, own, saver.losses


@pytest.mark.filterwarnings("ignore:The dirpath has changed", "ignore:Checkpoint directory")
def test_resume_in_the_middle_of_a_repeated_batch_equals_the_unbroken_run(
    make_llama: Any, tokenizer: Any, tmp_path: Path
) -> None:
    """Playbook, buffer, teacher, data and losses go on as if nothing had happened."""
    student, whole, losses = fitted(make_llama, tokenizer, tmp_path / "a")
    assert len(whole.playbook) > 0
    assert len(whole.buffer) > 0
    assert whole.playbook.update == len(losses) == 8
    assert all(loss > 0 for loss in losses)
    for step in (2, 4):
        ckpt = tmp_path / "a" / "ckpt" / f"step={step}.ckpt"
        again, resumed, rest = fitted(make_llama, tokenizer, tmp_path / "b", ckpt)
        assert rest == losses[step:]
        assert resumed.state_dict() == whole.state_dict()
        assert equal(weights(student.student), weights(again.student))


def test_the_playbook_matters_for_that() -> None:
    """Two contexts that differ in what they remember show different things."""
    one, other = context(), context()
    one.buffer.add("q", "solved")
    assert one.state_dict() != other.state_dict()
    other.load_state_dict(json.loads(json.dumps(one.state_dict())))
    assert one.state_dict() == other.state_dict()


class Judged(LabData):
    """Judges every attempt alike."""

    def __init__(self, reward: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.reward = reward

    def evidence(self, rollouts: Any, needs: Any) -> Any:
        from dataclasses import replace

        verdict = Verdict(self.reward, correct=self.reward >= 1)
        return [replace(r, verdict=verdict) for r in super().evidence(rollouts, needs)]


CONTEXTS = {
    "rule": context,
    "nothing": Reflection,
    "others": lambda: Reflection(own_success=False),
    "no room": lambda: Reflection(CritiqueReflector(), max_prompt_tokens=3),
}
SEEN = {("rule", 0.0), ("rule", 1.0), ("nothing", 1.0)}
"""Contexts that see something where all fail (0) or all succeed (1), one rollout a question."""


@pytest.mark.parametrize("name", CONTEXTS)
@pytest.mark.parametrize("reward", [0.0, 1.0])
@pytest.mark.parametrize("attempt", [None, "", "word"])
def test_degenerate_batches_give_a_finite_loss_with_a_graph(
    make_llama: Any, tokenizer: Any, tmp_path: Path, name: str, reward: float, attempt: str | None
) -> None:
    """All right, all wrong, one rollout, only the end token, every context missing."""
    objective = Distillation(kind="js", top_k=20, ratio_low=0.2, token_weights=[Rebalance()])
    student = resd(
        make_llama(),
        tokenizer,
        objective=objective,
        attempts="sampled" if attempt is None else "stored",
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    )
    student.configure_model()
    before = weights(student.student)
    run = trainer(tmp_path, CONTEXTS[name](), max_steps=1)  # type: ignore[operator]
    attempts = None if attempt is None else [attempt]
    run.fit(student, datamodule=Judged(reward, attempts=attempts))
    # A solution without a word is none.
    seen = (name, reward) in SEEN and not (attempt == "" and reward == 1)
    assert run.callback_metrics["train/has_teacher"] == float(seen)
    assert run.callback_metrics["train/silent"] == float(not seen)
    # Nothing was counted, so there is no mean to log.
    assert (run.callback_metrics.get("train/loss", 0.0) > 0) == seen
    assert equal(before, weights(student.student)) != seen
    assert all(p.isfinite().all() and p.grad is not None for p in student.student.parameters())


def test_a_random_student_writes_reflections_that_are_refused(
    make_llama: Any, tokenizer: Any, tmp_path: Path
) -> None:
    short = TransformersSampler(max_new_tokens=8)
    own = Reflection(LMReflector(short), LMCurator(short))
    model = make_llama(max_position_embeddings=4096)
    run = trainer(tmp_path, own, max_steps=1)
    run.fit(resd(model, tokenizer), datamodule=Judged(0.0))
    assert run.callback_metrics["train/reflections_refused"] == 4
    assert run.callback_metrics["train/reflections"] == 0
    assert run.callback_metrics["train/silent"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("baseline", [False, True])
def test_the_config_trains(tmp_path: Path, monkeypatch: Any, baseline: bool) -> None:
    monkeypatch.chdir(tmp_path)
    files = [CONFIGS / "resd.yaml", *([CONFIGS / "resd_sdpo.yaml"] if baseline else [])]
    tiny = [word for word in TINY if "samples" not in word]
    cli = main(["fit", *[word for f in files for word in ("--config", str(f))], *tiny])
    assert cli.trainer.global_step == 1
    if not baseline:
        assert cli.trainer.callback_metrics["train/loss"] > 0
        assert cli.trainer.callback_metrics["train/has_teacher"] == 1


SCRIPT = textwrap.dedent(
    """
    import json, sys
    import torch
    from torch import distributed
    from lightning_sd.contexts import Reflection
    from lightning_sd.contexts.reflection import Addition, Concise, Curator, Note, Reflector
    from lightning_sd.types import Question, Rollout, Verdict

    rank, folder = int(sys.argv[1]), sys.argv[2]
    distributed.init_process_group("gloo", f"file://{folder}/store", world_size=2, rank=rank)

    class Rank(Reflector):
        def reflect(self, rollouts, playbook, write):
            tags = {item.id: "helpful" for item in playbook.items[: rank + 1]}
            return [Note(r.question.text, r.text, f"{r.text} of {rank}", tags) for r in rollouts]

    class Once(Curator):
        asked = 0
        def curate(self, notes, playbook, write):
            self.asked += 1
            return [(Addition("others", note.insight),) for note in notes]

    def rollout(i, reward):
        name = f"q{rank}{i}"
        return Rollout(
            Question(name, name, ({"role": "user", "content": name},)), (i,), f"text {i}", i,
            verdict=Verdict(reward, correct=reward == 1.0),
        )

    curator = Once()
    context = Reflection(Rank(), curator, Concise("prioritized", every=2, max_items=3))
    for step in range(4):
        # Rank 1 has a failure more, and in the last step rank 0 has nothing at all.
        rewards = [1.0, 0.0] if rank == 0 else [1.0, 0.0, 0.0]
        context.prepare_batch([] if step == 3 and rank == 0 else
                        [rollout(10 * step + i, r) for i, r in enumerate(rewards)])
    out = {"state": context.state_dict(), "asked": curator.asked,
           "notes": sorted(note.text for note in context._notes.values())}
    open(f"{folder}/rank{rank}.json", "w").write(json.dumps(out))
    distributed.destroy_process_group()
    """
)


def test_two_ranks_keep_one_playbook_and_one_buffer(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(tmp_path / "script.py")]
    ranks = [
        subprocess.Popen([*command, str(rank), str(tmp_path)], env=environment) for rank in (0, 1)
    ]
    assert [process.wait(timeout=120) for process in ranks] == [0, 0]
    first, second = (json.loads((tmp_path / f"rank{r}.json").read_text()) for r in (0, 1))
    assert first["state"] == second["state"]
    assert (first["asked"], second["asked"]) == (4, 0)
    # The notes on a rank are on its own failures.
    assert (first["notes"], second["notes"]) == ([], ["text 31", "text 32"])
    texts = [item["text"] for item in first["state"]["playbook"]["items"]]
    assert {"text 31 of 1", "text 32 of 1"} <= set(texts)
    questions = {key for key, _ in first["state"]["buffer"]["solutions"]}
    assert questions == {"q00", "q010", "q020", "q10", "q110", "q120", "q130"}
