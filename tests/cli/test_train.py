"""Training by a method's name from Python, and the methods' one definition."""

from __future__ import annotations

import datasets
import pytest
import yaml

from lightning_sd import (
    ArithmeticTask,
    Distillation,
    EMATeacher,
    PretrainedModel,
    RuleCritic,
    describe_method,
    list_methods,
    train,
)
from lightning_sd._serialize import describe
from lightning_sd.cli.methods import build_method, read_method
from lightning_sd.tasks.rows import RowsTask
from tests.cli.test_configs import CONFIGS, METHODS, printed

SOLVER = "package:lightning_sd/lab/solver"
ROWS = [
    {"question": f"{n}+1", "solution": f"<answer>{(n + 1) % 10}</answer>", "answer": str(n)}
    for n in range(100)
]
QUIET = {"enable_progress_bar": False, "enable_model_summary": False}
FULL = {"step_aligned": "quickstart", "resd": "resd", "rcsd": "rcsd", "echodistill": "echodistill"}


def small(dataset, method, **options):
    return train(
        SOLVER,
        dataset,
        method,
        **{"max_steps": 1, "batch_size": 2, "measure": False, "trainer_kwargs": QUIET, **options},
    )


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_run_trains_and_gives_metrics():
    task = ArithmeticTask(train_size=8, val_size=2, test_size=2)
    result = small(
        task, "step_aligned", critic=RuleCritic(), measure=True, module_kwargs={"eval_samples": 2}
    )
    assert result.trainer.global_step == 1
    assert result.metrics["train/loss"] > 0
    assert set(result.before) == set(result.after) == {"avg@2", "pass@2", "maj@2", "length"}
    initial, _ = PretrainedModel(SOLVER).load()
    trained = dict(result.module.student.named_parameters())
    assert any(not p.equal(trained[name]) for name, p in initial.named_parameters())


def test_the_rate_and_the_seed_are_those_given():
    task = ArithmeticTask(train_size=8, val_size=2, test_size=2)
    losses = [
        small(task, "reference", learning_rate=0.5, seed=seed).metrics["train/loss"]
        for seed in (3, 3, 4)
    ]
    assert losses[0] == losses[1] != losses[2]
    result = small(task, "reference", learning_rate=0.5)
    assert result.trainer.optimizers[0].param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize(
    "rows", [ROWS, datasets.Dataset.from_list(ROWS)], ids=["list", "datasets.Dataset"]
)
def test_rows_in_memory_are_a_dataset(rows):
    result = small(rows, "reference", module_kwargs={"samples": 1, "teacher": EMATeacher(0.5)})
    assert isinstance(result.trainer.datamodule.task, RowsTask)
    assert result.module.samples == 1
    assert result.module.teacher.rate == 0.5


def test_a_path_is_a_dataset(tmp_path):
    datasets.Dataset.from_list(ROWS).to_json(tmp_path / "rows.jsonl")
    assert small(str(tmp_path / "rows.jsonl"), "reference").trainer.global_step == 1


def test_no_rows_are_refused():
    with pytest.raises(ValueError, match="at least one row"):
        RowsTask([])


def test_a_module_in_memory_needs_its_tokenizer():
    model, tokenizer = PretrainedModel(SOLVER).load()
    task = ArithmeticTask(train_size=8, val_size=2, test_size=2)
    options = {"max_steps": 1, "measure": False, "trainer_kwargs": QUIET}
    with pytest.raises(TypeError, match="tokenizer=None"):
        train(model, task, "reference", **options)
    result = train(model, task, "reference", tokenizer=tokenizer, **options)
    assert result.module.student is model


def test_an_unknown_method_lists_the_names():
    with pytest.raises(ValueError, match="did you mean opsd") as refused:
        train(SOLVER, ROWS, "osd")
    assert all(name in str(refused.value) for name in list_methods())


def test_a_method_without_its_critic_is_refused():
    with pytest.raises(ValueError, match="critic"):
        small(ROWS, "step_aligned")


def test_every_method_config_has_a_name():
    named = {path.stem for path in METHODS} | set(FULL) | {"echodistill_onpolicy"}
    assert set(list_methods()) == named


def is_part(written, built):
    """Whether all that is written in a config is in a description, which has the defaults too."""
    if isinstance(written, dict):
        return all(is_part(value, built[key]) for key, value in written.items())
    if isinstance(written, list):
        return all(is_part(*pair) for pair in zip(written, built, strict=True))
    if isinstance(written, str):  # class paths may have a module
        return written.rpartition(".")[2] == built.rpartition(".")[2]
    return written == built


@pytest.mark.parametrize("name", list_methods())
def test_the_composition_is_that_of_the_config(name):
    config = yaml.safe_load((CONFIGS / f"{FULL.get(name, name)}.yaml").read_text())
    composition = read_method(name)
    assert yaml.safe_load(describe_method(name)) == composition
    assert is_part(composition, config)
    if name not in FULL:  # an overlay holds the method, and sometimes a setting of the lab's task
        config.pop("data", None)
        assert composition == config


@pytest.mark.parametrize("name", ["dapo", "resd"])
def test_the_command_line_reads_what_is_printed(name, tmp_path):
    (tmp_path / "method.yaml").write_text(describe_method(name))
    base = ["fit", "--config", FULL.get(name, "quickstart")]
    shipped = printed([*base, "--config", name])
    assert printed([*base, "--config", "method.yaml"]) == shipped


@pytest.mark.parametrize("name", list_methods())
def test_the_parts_are_those_of_the_composition(name):
    context, arguments = build_method(name)
    composition = read_method(name)
    assert type(context).__name__ == composition["teacher_context"]["class_path"]
    written = composition.get("model", {"init_args": {}})["init_args"]
    assert is_part(written, {key: describe(value) for key, value in arguments.items()})
    assert set(arguments) == set(written)


def test_arguments_win_over_the_method():
    result = small(ROWS, "opsd", module_kwargs={"objective": Distillation(kind="js")})
    assert result.module.objective.kind == "js"
