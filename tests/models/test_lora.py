"""LoRA says what it adapts: fused experts, routers, and Mamba's output projections."""

import logging
import warnings

import pytest
import torch

from benchmarks.models.tiny import make_model
from lightning_sd import LoRA
from lightning_sd.models.lora import add_lora


def list_adapted(model):
    return {name.rpartition(".")[2] for name, m in model.named_modules() if hasattr(m, "lora_A")}


@pytest.mark.parametrize("family", ["gpt_oss", "mixtral", "qwen3_moe"])
def test_fused_experts_without_adapters_are_named_and_the_setting_adapts_them(family):
    with pytest.warns(UserWarning, match="target_parameters") as caught:
        add_lora(make_model(family), LoRA(r=2))
    text = next(str(w.message) for w in caught if "target_parameters" in str(w.message))
    targets = eval(text.partition("target_parameters=")[2].rpartition(")")[0])
    model = add_lora(make_model(family), LoRA(r=2, target_parameters=targets))
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert any("experts" in name for name in trained)


@pytest.mark.parametrize("family", ["jetmoe", "longcat_flash"])
def test_adapted_routers_are_named(family):
    with pytest.warns(UserWarning, match=r"routers of the experts as well \(.*router"):
        add_lora(make_model(family), LoRA(r=2))


def test_a_dense_model_has_nothing_to_be_named(make_llama):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("ignore", FutureWarning)
        add_lora(make_llama(), LoRA(r=2))


@pytest.mark.parametrize("family", ["mamba2", "falcon_h1", "bamba"])
def test_the_output_projection_of_mamba_layers_has_no_adapter(family):
    """Mamba's kernels read that weight directly, so that an adapter would do nothing."""
    model = add_lora(make_model(family), LoRA(r=2))
    names = [name for name, m in model.named_modules() if hasattr(m, "lora_A")]
    assert names
    assert not any(name.endswith(("mamba.out_proj", "mixer.out_proj")) for name in names)


def test_the_adapted_layers_are_logged(make_llama, caplog):
    with caplog.at_level(logging.INFO, logger="lightning_sd"):
        add_lora(make_llama(), LoRA(r=2, target_modules=["q_proj", "down_proj"]))
    assert "LoRA adapts 2 down_proj, 2 q_proj" in caplog.text


@pytest.mark.parametrize("family", ["llama4_text", "phimoe"])
def test_a_router_that_returns_a_tuple_has_no_adapter(family):
    """peft would wrap it as a linear layer, and fail in the first forward pass."""
    model = add_lora(make_model(family), LoRA(r=2))
    model(input_ids=torch.tensor([[5, 6, 7]]))


def test_weights_that_gemma_3n_reads_directly_have_no_adapter():
    model = add_lora(make_model("gemma3n_text"), LoRA(r=2))
    names = list_adapted(model)
    assert "prediction_coefs" in names
    assert "correction_coefs" not in names


def test_adapters_of_reversible_layers_get_a_gradient():
    model = add_lora(make_model("reformer", hidden_dropout_prob=0.0), LoRA(r=2))
    model(input_ids=torch.tensor([[5, 6, 7]])).logits.sum().backward()
    gradients = [p.grad for name, p in model.named_parameters() if "lora_B" in name]
    assert all(gradient is not None and bool(gradient.any()) for gradient in gradients)
