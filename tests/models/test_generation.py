"""Generation configs: penalties are named as ignored, invalid ones do not cost the weights."""

import warnings

import pytest
from transformers import AutoModelForCausalLM, GenerationConfig

from lightning_sd import LoadedModel, PretrainedModel
from lightning_sd.models.generation import check_generation_config


@pytest.mark.parametrize(
    "setting",
    [
        {"repetition_penalty": 1.2},
        {"bad_words_ids": [[5]]},
        {"suppress_tokens": [4, 5]},
        {"no_repeat_ngram_size": 3},
        {"min_new_tokens": 4},
    ],
)
def test_settings_that_change_the_distribution_are_named(make_llama, tokenizer, setting):
    model = make_llama()
    model.generation_config = GenerationConfig(eos_token_id=1, **setting)
    with pytest.warns(UserWarning, match=f"{next(iter(setting))}.*sampling ignores"):
        LoadedModel(model, tokenizer).load()


def test_a_plain_config_says_nothing(make_llama):
    model = make_llama()
    model.generation_config = GenerationConfig(eos_token_id=1, do_sample=True, temperature=0.6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_generation_config(model)
    assert model.generation_config.temperature == 0.6


@pytest.mark.parametrize(
    "setting",
    [
        {"do_sample": False, "temperature": 0.6},
        {"do_sample": False, "top_p": 0.9},
        {"do_sample": False, "top_k": 20, "min_p": 0.1},
    ],
)
def test_an_invalid_config_is_repaired_at_the_start_and_the_model_saves(
    make_llama, tokenizer, tmp_path, setting
):
    model = make_llama()
    model.generation_config = GenerationConfig(eos_token_id=[1, 2], pad_token_id=0, **setting)
    with pytest.raises(ValueError, match="invalid"):
        model.save_pretrained(tmp_path / "before")
    with pytest.warns(UserWarning, match="invalid and could not be saved"):
        LoadedModel(model, tokenizer).load()
    model.save_pretrained(tmp_path / "after")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "after")
    assert loaded.generation_config.eos_token_id == [1, 2]


def test_a_checkpoint_with_missing_weights_is_refused(make_llama, tokenizer, tmp_path):
    """Without the check, a missing layer would be random."""
    from safetensors.torch import load_file, save_file

    make_llama().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    PretrainedModel(str(tmp_path)).load()
    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "layers.1" not in name}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 9 of the model's weights.*layers\.1"):
        PretrainedModel(str(tmp_path)).load()


@pytest.mark.parametrize("tied", [True, False])
def test_tied_heads_are_no_missing_weights(make_llama, tokenizer, tmp_path, tied):
    make_llama(tie_word_embeddings=tied).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    PretrainedModel(str(tmp_path)).load()
