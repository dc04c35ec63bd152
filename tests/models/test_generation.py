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


@pytest.mark.parametrize(
    ("part", "number"), [("layers.1.", 9), ("model.norm", 1), ("lm_head", 1), ("q_proj", 2)]
)
def test_a_checkpoint_with_missing_weights_is_refused(
    make_llama, tokenizer, tmp_path, part, number
):
    """Without the check, a missing layer would be random."""
    change_weights(
        make_llama(tie_word_embeddings=False),
        tokenizer,
        tmp_path,
        lambda name, value: None if part in name else value,
    )
    with pytest.raises(ValueError, match=f"lacks {number} of the model's weights.*{part}"):
        PretrainedModel(str(tmp_path)).load()


def test_weights_of_another_shape_are_refused_although_transformers_ignores_them(
    make_llama, tokenizer, tmp_path
):
    change_weights(
        make_llama(),
        tokenizer,
        tmp_path,
        lambda name, value: value[:-1].clone() if "up_proj" in name else value,
    )
    source = PretrainedModel(str(tmp_path), model_kwargs={"ignore_mismatched_sizes": True})
    with pytest.raises(ValueError, match=r"lacks 2 of the model's weights.*up_proj"):
        source.load()


def change_weights(model, tokenizer, folder, change):
    """Save a model, and leave out or change some of its weights in the file."""
    from safetensors.torch import load_file, save_file

    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    PretrainedModel(str(folder)).load()
    path = folder / "model.safetensors"
    changed = {name: change(name, value) for name, value in load_file(path).items()}
    kept = {name: value for name, value in changed.items() if value is not None}
    save_file(kept, path, metadata={"format": "pt"})


@pytest.mark.parametrize("tied", [True, False])
def test_tied_heads_are_no_missing_weights(make_llama, tokenizer, tmp_path, tied):
    make_llama(tie_word_embeddings=tied).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    PretrainedModel(str(tmp_path)).load()
