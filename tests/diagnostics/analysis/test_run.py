"""The verb, from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lightning_sd.cli.main import main
from lightning_sd.contexts import TeacherContext
from lightning_sd.diagnostics.analysis.rows import read_rows
from lightning_sd.rollout import TransformersSampler
from tests.cli.test_configs import CONFIGS, TINY

QUICK = ["--config", str(CONFIGS / "quickstart.yaml"), *TINY]
BOTH = ["analyze", *QUICK, "--contexts+=ReferenceSolution", "--samples=3"]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


class Wrote(TeacherContext):
    """Shows a text that the model wrote for this batch."""

    template = "{question} {text}"

    def prepare_batch(self, rollouts):
        prompts = [rollout.question.messages for rollout in rollouts]
        texts = self.write(prompts, sampler=TransformersSampler(max_new_tokens=3), teacher=True)
        self.texts = [self.tokenizer.decode(text.ids) for text in texts]
        return [*rollouts, rollouts[0]]

    def fields(self, rollout):
        return {"text": self.texts[0]}


def test_a_context_that_writes_is_let_write(tmp_path):
    main([*BOTH[:-2], f"--contexts+={__name__}.Wrote", "--samples=2", "--out=written"])
    rows = read_rows(Path("written/rows.jsonl"))
    assert len(rows) == 2 * 2
    for row in rows:
        found = row["contexts"]["Wrote"]
        assert len(found["advantages"]) == len(row["tokens"])
        assert len(found["messages"][-1]["content"]) > len(row["question"])


def test_two_contexts_score_the_same_rollouts(capsys):
    cli = main([*BOTH, "--out=found", "--words=[then]"])
    out = Path("found")
    assert {path.name for path in out.iterdir()} == {
        *("rows.jsonl", "summary.json", "report.html", "figure.png")
    }
    rows = read_rows(out / "rows.jsonl")
    assert len(rows) == 2 * 3
    assert {row["id"] for row in rows} == {q.id for q in cli.datamodule.task.questions("val")}
    for row in rows:
        assert list(row["contexts"]) == ["StepAlignedCritique", "ReferenceSolution"]
        assert row["errors_by"] == "task"
        for name, found in row["contexts"].items():
            assert len(found["advantages"]) == len(row["tokens"])
            words = "checked" if name == "StepAlignedCritique" else "reference"
            assert words in found["messages"][-1]["content"]
    assert json.loads((out / "summary.json").read_text())["rollouts"] == 6
    assert "ReferenceSolution" in capsys.readouterr().out
    # The module is as it was.
    assert cli.model.eval_samples == 12
    assert cli.model.extra_evidence == frozenset()


def test_a_context_alone_gives_what_it_gives_beside_others():
    main([*BOTH, "--out=both"])
    main(["analyze", *QUICK, "--teacher_context=ReferenceSolution", "--samples=3", "--out=one"])
    for both, one in zip(
        read_rows(Path("both/rows.jsonl")), read_rows(Path("one/rows.jsonl")), strict=True
    ):
        assert both["tokens"] == one["tokens"]
        expected = one["contexts"]["ReferenceSolution"]["advantages"]
        found = both["contexts"]["ReferenceSolution"]["advantages"]
        assert found == pytest.approx(expected, abs=1e-5)


def test_a_method_without_a_context_is_analysed_under_further_ones():
    grpo = ["--config", str(CONFIGS / "grpo.yaml")]
    main(["analyze", *QUICK, *grpo, "--contexts+=ReferenceSolution", "--split=test", "--out=g"])
    assert {name for row in read_rows(Path("g/rows.jsonl")) for name in row["contexts"]} == {
        "ReferenceSolution"
    }


def test_a_checkpoint_is_analysed(tmp_path):
    saving = [
        "--trainer.enable_checkpointing=true",
        "--trainer.callbacks=ModelCheckpoint",
        "--trainer.callbacks.dirpath=ckpt",
        "--trainer.callbacks.save_last=true",
        "--model.init_args.optimizer.init_args.lr=0.01",
    ]
    main(["fit", *QUICK, *saving])
    main([*BOTH, "--out=before"])
    main([*BOTH, "--out=after", "--ckpt_path=ckpt/last.ckpt"])
    before, after = (read_rows(Path(name, "rows.jsonl")) for name in ("before", "after"))
    assert [row["id"] for row in before] == [row["id"] for row in after]
    assert [row["contexts"] for row in before] != [row["contexts"] for row in after]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--config", str(CONFIGS / "grpo.yaml")], "contexts"),
        (["--questions=0"], "questions"),
        (["--samples=0"], "samples"),
        (["--split=train"], "split"),
        (["--trainer.devices=2"], "devices=1"),
        (["--contexts+=StepAlignedCritique", "--data.init_args.critic=null"], "critic"),
    ],
)
def test_what_cannot_be_analysed_is_refused(options, named, capsys):
    with pytest.raises((SystemExit, ValueError)) as stopped:
        main(["analyze", *QUICK, *options])
    assert named in capsys.readouterr().err + str(stopped.value)
    assert not Path("out/analysis").exists()
