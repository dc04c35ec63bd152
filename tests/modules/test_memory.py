"""Smaller by a line of YAML: 8-bit optimizer states, a quantised model under its adapters."""

from __future__ import annotations

import pytest
import torch
import yaml

from lightning_sd.cli.main import main
from lightning_sd.models import LoRA, PretrainedModel
from tests.cli.test_configs import CONFIGS, TINY


def fit(tmp_path, monkeypatch, init_args):
    monkeypatch.chdir(tmp_path)
    overlay = {"model": {"class_path": "SelfDistillModule", "init_args": init_args}}
    (tmp_path / "overlay.yaml").write_text(yaml.safe_dump(overlay))
    files = [str(CONFIGS / "quickstart.yaml"), "overlay.yaml"]
    return main(["fit", *[word for f in files for word in ("--config", f)], *TINY]).trainer


def test_an_8_bit_optimizer(tmp_path, monkeypatch):
    pytest.importorskip("bitsandbytes")
    optimizer = {"class_path": "bitsandbytes.optim.AdamW8bit", "init_args": {"lr": 3e-4}}
    trainer = fit(tmp_path, monkeypatch, {"optimizer": optimizer})
    states = [s for s in trainer.optimizers[0].state.values() if "state1" in s]
    assert {s["state1"].dtype for s in states} >= {torch.uint8}
    assert trainer.callback_metrics["train/loss"].isfinite()


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_a_quantised_model_teaches_its_adapters(
    tmp_path, monkeypatch, quantization, make_llama, tokenizer
):
    """The teacher is the quantised model with its adapter off: no second model is held."""
    pytest.importorskip("bitsandbytes")
    pytest.importorskip("peft")
    # bitsandbytes packs 64 weights of a row at a time.
    make_llama(hidden_size=64, intermediate_size=128).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    lora = {"r": 4, "target_modules": ["q_proj", "down_proj"]}
    source = {
        "class_path": "PretrainedModel",
        "init_args": {
            "name": str(tmp_path / "model"),
            "quantization": quantization,
            "lora": lora,
        },
    }
    trainer = fit(tmp_path, monkeypatch, {"model": source})
    module = trainer.lightning_module
    kinds = {type(m).__name__ for m in module.student.modules()}
    assert kinds & {"Linear4bit", "Linear8bitLt"}
    assert all("lora_" in name for name, p in module.named_parameters() if p.requires_grad)
    assert module.teacher.state_dict() == {}
    assert trainer.callback_metrics["train/loss"].isfinite()


def test_sampling_leaves_a_4_bit_model_differentiable(tmp_path, make_llama, tokenizer, monkeypatch):
    """bitsandbytes packs weights in eval mode on some CPUs; gradients then stop in them."""
    bnb = pytest.importorskip("bitsandbytes")
    pytest.importorskip("peft")
    monkeypatch.setattr(bnb.nn.modules, "has_avx512bf16", lambda: True)
    make_llama(hidden_size=64, intermediate_size=128).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)

    def gradients(*, sampled_before):
        torch.manual_seed(0)
        lora = LoRA(r=4, target_modules=["q_proj", "down_proj"])
        model, _ = PretrainedModel(str(tmp_path), quantization="nf4", lora=lora).load()
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        ids = torch.arange(5, 15).unsqueeze(0)
        if sampled_before:
            with torch.no_grad():
                model.eval()(input_ids=ids)
        model.train()(input_ids=ids).logits.logsumexp(-1).sum().backward()
        return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}

    plain, sampled = gradients(sampled_before=False), gradients(sampled_before=True)
    assert plain.keys() == sampled.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(sampled[name], gradient, msg=name)
