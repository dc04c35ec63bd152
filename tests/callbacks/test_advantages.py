"""The callback: figures logged while training and after predicting."""

from __future__ import annotations

import csv

import pytest
from lightning.pytorch.loggers import CSVLogger

from lightning_sd import ReferenceSolution
from lightning_sd.callbacks.advantages import AdvantageAnalysis
from lightning_sd.metrics.measures import measure_rollout
from lightning_sd.metrics.wrong_steps import find_steps
from tests.stubs import LabData, module, trainer

ATTEMPT = "<step_1>1+1=2</step_1><step_2>2+2=9</step_2><answer>9</answer>"


class Kept(AdvantageAnalysis):
    """Remembers what was analysed, by step."""

    def __init__(self, **options):
        super().__init__(**options)
        self.seen = []

    def _update(self, trainer, pl_module, output):
        self.seen.append((trainer.global_step, output))
        super()._update(trainer, pl_module, output)


def test_all_micro_batches_of_every_nth_step_are_logged(make_llama, tokenizer, tmp_path):
    callback = Kept(every_n_steps=2)
    student = module(make_llama(), tokenizer, attempts="stored")
    data = LabData(batch_size=2, train_size=16, attempts=[ATTEMPT])
    run = trainer(
        tmp_path,
        ReferenceSolution(),
        callback,
        max_steps=4,
        accumulate_grad_batches=2,
        logger=CSVLogger(tmp_path, "csv"),
        log_every_n_steps=3,
    )
    run.fit(student, datamodule=data)
    # Two micro-batches of step 2 and two of step 4; the first of each ends a step earlier.
    assert [step for step, _ in callback.seen] == [1, 2, 3, 4]
    expected = [
        measure_rollout(advantages, find_steps(rollout, tokenizer, data.task))["mean_abs"]
        for _, output in callback.seen[2:]
        for rollout, advantages in zip(output.rollouts, output.advantages, strict=True)
    ]
    assert len(expected) == 4
    logged = run.callback_metrics
    # The whole signal is on task tokens here, so that its mean is the mean of all.
    total = sum(share.total for share in expected) / sum(share.number for share in expected)
    assert logged["advantage/task_abs"].item() == pytest.approx(total, rel=1e-5)
    assert 0 <= logged["advantage/negative_mass"] <= 1
    assert 0 < logged["advantage/negative_mass_chance"] <= 1
    assert "advantage/style_abs" not in logged  # no style token at all
    with next((tmp_path / "csv").rglob("metrics.csv")).open() as file:
        written = [row for row in csv.DictReader(file) if row["advantage/task_abs"]]
    assert [row["step"] for row in written] == ["1", "3"]
    assert float(written[1]["advantage/task_abs"]) == pytest.approx(total, rel=1e-5)


def test_predictions_end_in_a_table(make_llama, tokenizer, tmp_path, capsys):
    student = module(make_llama(), tokenizer)
    logger = CSVLogger(tmp_path, "csv")
    run = trainer(tmp_path, ReferenceSolution(), AdvantageAnalysis(), logger=logger)
    run.predict(student, datamodule=LabData())
    assert "Where the teacher's signal falls" in capsys.readouterr().out
    logger.save()
    assert "advantage/task_abs" in next((tmp_path / "csv").rglob("metrics.csv")).read_text()


def test_bad_numbers_name_themselves():
    with pytest.raises(ValueError, match="every_n_steps"):
        AdvantageAnalysis(every_n_steps=0)
