"""The command line: resuming, refusing, predicting, and a context that a user wrote."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import docstring_parser.attrdoc
import pytest
import torch
import yaml

from lightning_sd.cli.main import SelfDistillCLI, main
from tests.cli.test_configs import CONFIGS, SAVING, TINY

QUICK = ["--config", str(CONFIGS / "quickstart.yaml"), *TINY]

USER_CONTEXT = '''
"""A hint, written by a user."""
from lightning_sd import TeacherContext


class AnswerHint(TeacherContext):
    template = "{question}\\nThe answer is {answer}."
    cut_fields = ("answer",)

    def fields(self, rollout):
        return {"answer": rollout.question.answer}
'''


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_command_line_beats_the_checkpoint(capsys):
    """Lightning would train on with the checkpoint's rate without a word."""
    ema = ["--model.init_args.teacher=EMATeacher"]
    main(["fit", *QUICK, *SAVING, *ema, "--model.init_args.teacher.init_args.rate=0.5"])
    resumed = main(
        [
            *["fit", *QUICK, *SAVING, *ema, "--model.init_args.teacher.init_args.rate=0.25"],
            *["--trainer.max_steps=2", "--ckpt_path=ckpt/last.ckpt"],
        ]
    )
    assert resumed.model.teacher.rate == 0.25
    assert resumed.trainer.global_step == 2
    # And by its other spelling, with the same result.
    again = main(
        [
            *["fit", *QUICK, *SAVING, *ema, "--model.init_args.teacher.init_args.rate=0.125"],
            *["--trainer.max_steps=3", "--ckpt_path=last"],
        ]
    )
    assert again.model.teacher.rate == 0.125
    assert again.trainer.global_step == 3


def test_last_without_a_checkpoint_is_an_error():
    with pytest.raises(FileNotFoundError, match="ckpt_path=last"):
        main(["fit", *QUICK, *SAVING, "--ckpt_path=last"])


def test_a_checkpoint_holds_plain_data_only():
    cli = main(["fit", *QUICK, *SAVING])
    saved = torch.load("ckpt/last.ckpt", weights_only=True)
    assert saved["hyper_parameters"]["objective"]["class_path"].endswith("Distillation")
    loaded = type(cli.model).load_from_checkpoint("ckpt/last.ckpt", weights_only=True)
    for name, value in cli.model.student.state_dict().items():
        assert torch.equal(value, loaded.student.state_dict()[name])


def test_predict_writes_answers_with_advantages():
    writer = ["--trainer.callbacks=PredictionWriter", "--trainer.callbacks.path=p.jsonl"]
    main(["predict", *QUICK, *writer, "--model.init_args.eval_samples=3"])
    rows = [json.loads(line) for line in Path("p.jsonl").read_text().splitlines()]
    assert len(rows) == 2 * 3
    for row in rows:
        assert len(row["tokens"]) == len(row["advantages"])
        assert row["critique"]


def test_critique_fills_the_cache_and_writes_attempts(capsys):
    args = ["critique", *QUICK, "--model.init_args.eval_samples=2", "--out=attempts.jsonl"]
    cli = main(args)
    rows = [json.loads(line) for line in Path("attempts.jsonl").read_text().splitlines()]
    assert len(rows) == 4 * 2
    assert {row["id"] for row in rows} == {q.id for q in cli.datamodule.task.questions("train")}
    assert all(row["critique"] for row in rows)
    # Stored attempts are criticised as they are; what was written can be trained on.
    columns = {
        "question": "question",
        "reference": "reference",
        "answer": "gold",
        "attempt": "attempt",
    }
    config = yaml.safe_load((CONFIGS / "quickstart.yaml").read_text())
    config["data"]["init_args"]["task"] = {
        "class_path": "DatasetTask",
        "init_args": {
            "path": "attempts.jsonl",
            "columns": columns,
            "val_fraction": 0.25,
            "test_fraction": 0.25,
            "instruction": None,
        },
    }
    config["data"]["init_args"]["critic"] = None
    config["teacher_context"] = {"class_path": "ReferenceSolution"}
    config["model"]["init_args"]["attempts"] = "stored"
    Path("offline.yaml").write_text(yaml.safe_dump(config))
    small = [word for word in TINY if "task" not in word and "batch_size" not in word]
    offline = main(["fit", "--config=offline.yaml", *small, "--data.init_args.batch_size=1"])
    assert offline.trainer.global_step == 1


def test_a_second_run_asks_the_critic_nothing(monkeypatch):
    from lightning_sd import RuleCritic

    asked = []
    original = RuleCritic.critique
    monkeypatch.setattr(
        RuleCritic,
        "critique",
        lambda self, requests: asked.extend(requests) or original(self, requests),
    )
    main(["fit", *QUICK])
    first = len(asked)
    assert first > 0
    main(["fit", *QUICK])
    assert len(asked) == first


def test_a_users_context_trains_from_yaml_without_touching_the_package(monkeypatch, tmp_path):
    assert len(USER_CONTEXT.strip().splitlines()) <= 15
    Path("my_hint.py").write_text(USER_CONTEXT)
    monkeypatch.syspath_prepend(str(tmp_path))
    cli = main(["fit", *QUICK, "--teacher_context=my_hint.AnswerHint"])
    assert type(cli.model.teacher_context).__name__ == "AnswerHint"
    assert cli.trainer.callback_metrics["train/has_teacher"] == 1
    assert cli.trainer.callback_metrics["train/loss"] > 0


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("--model.init_args.objective.init_args.kind=forwards", "kind"),
        ("--model.init_args.objective.init_args.top_k=0", "top_k"),
        ("--model.init_args.samples=0", "samples"),
        ("--model.init_args.sampler.init_args.temperature=-1", "temperature"),
        ("--teacher_context.init_args.template=none", "template"),
        ("--data.init_args.on_refusal=shrug", "on_refusal"),
        ("--no_such_option=1", "no_such_option"),
    ],
)
def test_bad_options_are_refused_at_configuration(option, named, capsys):
    with pytest.raises((SystemExit, ValueError)) as stopped:
        main(["fit", *QUICK, option])
    assert named in capsys.readouterr().err + str(stopped.value)


def test_a_context_without_its_critic_is_refused_before_training():
    with pytest.raises(ValueError, match="critic"):
        main(["fit", *QUICK, "--data.init_args.critic=null"])


def test_importing_the_package_loads_no_other():
    code = (
        "import sys; before = set(sys.modules); import lightning_sd\n"
        "loaded = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(loaded - set(sys.stdlib_module_names)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "['lightning_sd']\n"


def test_a_run_builds_one_parser_and_reads_no_source_for_help(monkeypatch):
    parsers = []
    prepare = SelfDistillCLI._prepare_subcommand_parser

    def count_parser(self, klass, verb, **options):
        parsers.append(verb)
        return prepare(self, klass, verb, **options)

    def refuse(self, part):
        raise AssertionError(f"the source of {part} was read for a help text")

    monkeypatch.setattr(SelfDistillCLI, "_prepare_subcommand_parser", count_parser)
    monkeypatch.setattr(docstring_parser.attrdoc.AttributeDocstrings, "get_attr_docs", refuse)
    with pytest.raises(SystemExit):
        main(["fit", *QUICK, "--no_such_option=1"])
    assert parsers == ["fit"]


@pytest.mark.slow
def test_help_and_import_do_not_load_what_they_do_not_need():
    code = (
        "import sys, lightning_sd; assert 'torch' not in sys.modules\n"
        "from lightning_sd.cli.run import run\n"
        "try: run(['fit', '--help_all'])\n"
        "except SystemExit: pass\n"
        "heavy = {'peft', 'bitsandbytes', 'datasets', 'reasoning_gym', 'math_verify', 'vllm'}\n"
        "print('LOADED', sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--trainer.reload_dataloaders_every_n_epochs" in found.stdout
    assert "LOADED []" in found.stdout


@pytest.mark.slow
def test_two_ranks_sample_different_answers(tmp_path):
    """Under DDP by gloo: the same weights on both ranks after training, other rollouts on each."""
    script = Path(tmp_path / "two.py")
    script.write_text(
        "import json, sys\n"
        "from lightning_sd.cli.main import main\n"
        "from lightning.pytorch import Callback\n"
        "import lightning_sd.modules.self_distill as m\n"
        "seen = []\n"
        "step = m.SelfDistillModule.training_step\n"
        "def spy(self, batch, index):\n"
        "    out = step(self, batch, index)\n"
        "    seen.extend([r.question.id, list(r.ids)] for r in out['step'].rollouts)\n"
        "    return out\n"
        "m.SelfDistillModule.training_step = spy\n"
        f"cli = main({['fit', *QUICK]!r} + ['--trainer.devices=2', '--trainer.strategy=ddp',\n"
        "    '--trainer.max_steps=1'])\n"
        "total = sum(float(p.double().sum()) for p in cli.model.student.parameters())\n"
        "rank = cli.trainer.global_rank\n"
        "json.dump({'seen': seen, 'total': total}, open(f'rank{rank}.json', 'w'))\n"
    )
    subprocess.run([sys.executable, str(script)], check=True, cwd=tmp_path, timeout=300)
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert ranks[0]["total"] == ranks[1]["total"]
    assert {i for i, _ in ranks[0]["seen"]}.isdisjoint({i for i, _ in ranks[1]["seen"]})
    assert [ids for _, ids in ranks[0]["seen"]] != [ids for _, ids in ranks[1]["seen"]]


def test_the_fields_of_dataclasses_are_explained(capsys):
    words = ["fit", "--model", "SelfDistillModule", "--model.sampler.help", "TransformersSampler"]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    assert "Divisor of the logits" in capsys.readouterr().out
