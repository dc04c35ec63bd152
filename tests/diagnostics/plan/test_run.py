"""``lightning-sd plan``: memory per layout, strategies and advice, without any weights."""

from __future__ import annotations

import json

import pytest
from torch import nn
from transformers import LlamaConfig

from lightning_sd import LoadedModel, LoRA, PretrainedModel, SelfDistillModule
from lightning_sd.cli.main import main
from lightning_sd.diagnostics.plan import plan
from lightning_sd.diagnostics.plan.memory import Layout, count_memory
from lightning_sd.diagnostics.plan.meta import measure_source
from lightning_sd.diagnostics.plan.work import Workload

GIB = 2**30


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A folder with the configuration of a model of 4 billion weights, and nothing else."""
    folder = tmp_path_factory.mktemp("large")
    config = LlamaConfig(
        hidden_size=8192,
        intermediate_size=28672,
        num_hidden_layers=4,
        num_attention_heads=64,
        num_key_value_heads=8,
        architectures=["LlamaForCausalLM"],
    )
    config.save_pretrained(folder)
    return str(folder)


def make_plan(name, source=None, *, samples=4, max_score_tokens=None, batch_size=2, **settings):
    module = SelfDistillModule(
        PretrainedModel(name, **(source or {})), samples=samples, max_score_tokens=max_score_tokens
    )
    return plan(module, batch_size=batch_size, answer_tokens=512, **settings)


def test_sizes_are_those_of_the_loaded_model():
    source = PretrainedModel("package:lightning_sd/lab/solver", lora=LoRA(r=2))
    model, _ = source.load()
    size = measure_source(source)
    assert size.weights == sum(p.nbytes for p in model.parameters())
    assert size.trained == sum(p.nbytes for p in model.parameters() if p.requires_grad)


def test_strategies_follow_the_number_of_devices(large):
    recomputed = {"gradient_checkpointing": True}
    report = make_plan(large, recomputed, hardware="h100", precision="bf16-mixed")
    chosen = {choice.devices: (choice.strategy, choice.fits) for choice in report.choices}
    assert not chosen[1][1]
    assert chosen[8] == ("fsdp2", True)
    assert "FSDP2Strategy" in " ".join(report.advice)
    peaks = [c.memory.peak for c in report.choices if c.strategy == "fsdp2"]
    assert peaks == sorted(peaks, reverse=True)


def test_several_nodes_hold_one_replica_each_if_it_fits(large):
    report = make_plan(large, {"gradient_checkpointing": True}, precision="bf16-mixed")
    found = {c.devices: (c.strategy, c.replicas) for c in report.choices if c.devices > 4}
    assert found == {8: ("fsdp2", 1)} | {n: ("fsdp2", n // 8) for n in (16, 32, 64)}
    seconds = {c.devices: c.seconds.network for c in report.choices}
    assert seconds[16] < 2 * seconds[8]  # weights stay within the nodes
    only = make_plan(
        large, {"gradient_checkpointing": True}, precision="bf16-mixed", devices=[16, 12]
    )
    assert "gather=model and replicas=2, one per node" in " ".join(only.advice)
    assert only.choices[1].replicas == 1  # 12 devices are no whole nodes


def test_a_token_budget_makes_a_micro_batch_fit(large):
    devices = {"hardware": "h100", "devices": [8], "precision": "bf16-mixed"}
    long = {"prompt_tokens": 2048, "samples": 64, "batch_size": 1}
    (whole,) = make_plan(large, **long, **devices).choices
    report = make_plan(large, max_score_tokens=8192, **long, **devices)
    (split,) = report.choices
    assert (whole.fits, split.fits) == (False, True)
    assert split.seconds.training > whole.seconds.training
    assert "at most 8192 tokens are scored together: 22 parts" in "".join(report.format_lines())
    assert split.strategy == "fsdp2"


def test_layers_are_not_planned_with_a_token_budget(large):
    settings = {"hardware": "l4", "devices": [8], "precision": "bf16-mixed"}
    (layers,) = make_plan(large, **settings).choices
    report = make_plan(large, max_score_tokens=4096, **settings)
    assert (layers.strategy, report.choices[0].strategy) == ("fsdp2 layers", "fsdp2")
    assert "max_score_tokens excludes" in " ".join(report.advice)


def test_advice_names_what_fits_one_small_card(large):
    report = make_plan(large, hardware="rtx4090", devices=[1], precision="bf16-mixed")
    assert not report.choices[0].fits
    sentence = next(text for text in report.advice if text.startswith("It fits"))
    assert "lora: {r: 16}" in sentence
    assert sentence.endswith("quantization: nf4.")
    fitting = make_plan(
        large,
        {"lora": LoRA(), "quantization": "nf4", "gradient_checkpointing": True},
        **{"hardware": "rtx4090", "devices": [1], "precision": "bf16-mixed"},
    )
    assert fitting.size.weights < 0.3 * report.size.weights


def test_shards_divide_what_is_held_between_steps(large):
    size = measure_source(PretrainedModel(large))
    work = Workload(questions=1, samples=1, prompt=8, teacher_prompt=16, answer=8)
    whole, shards = (
        count_memory(size, work, Layout(8, strategy, copies=1)).optimizer
        for strategy in ("ddp", "fsdp2")
    )
    assert whole - size.trained == pytest.approx(8 * shards)  # DDP holds buckets as well


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hardware": "abacus"}, "hardware='abacus': choose among h100"),
        ({"devices": [0]}, r"devices=\[0\]"),
        ({"prompt_tokens": 0}, "prompt_tokens=0"),
        ({"teacher_prompt_tokens": 5}, "teacher_prompt_tokens=5"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make_plan("package:lightning_sd/lab/solver", **settings)


def test_a_model_in_memory_is_refused(tokenizer):
    module = SelfDistillModule(LoadedModel(nn.Identity(), tokenizer))
    with pytest.raises(ValueError, match="it is in memory"):
        plan(module, batch_size=2)


def test_the_command_prints_a_table_and_writes_numbers(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    # The devices of the config are not at hand.
    strategy = ["--trainer.accelerator=gpu", "--trainer.devices=8", "--trainer.strategy=fsdp2"]
    main(["plan", "--config", "quickstart", *strategy, "--devices=[1,8]", "--hardware=l4"])
    printed = capsys.readouterr().out
    assert "Seconds are arithmetic, not measured" in printed
    numbers = json.loads((tmp_path / "out/plan.json").read_text())
    assert [choice["devices"] for choice in numbers["choices"]] == [1, 8]
