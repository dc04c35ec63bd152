"""Rows that are too long are refused with the numbers, before anything is sampled."""

import pytest
import torch
from transformers import Phi3Config, Phi3ForCausalLM

from benchmarks.models.checks import flatten_gradient
from benchmarks.models.tiny import make_model
from lightning_sd import TransformersSampler
from lightning_sd.models.dropout import disable_dropout
from lightning_sd.models.limits import check_lengths, find_max_length, find_rope_switch
from lightning_sd.models.probing import compute_logits
from lightning_sd.scoring import Scorer


def make_phi3(switch=16):
    size = 32 // 4 // 2
    config = Phi3Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        original_max_position_embeddings=switch,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": [1.0] * size,
            "long_factor": [4.0] * size,
            "original_max_position_embeddings": switch,
        },
        initializer_range=0.3,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        resid_pdrop=0.0,
    )
    torch.manual_seed(0)
    return Phi3ForCausalLM(config)


def sample(model, prompts, new_tokens=4, samples=2, **settings):
    sampler = TransformersSampler(max_new_tokens=new_tokens, **settings)
    return sampler.sample(
        model, prompts, samples=samples, stop_ids=[3], generator=torch.Generator().manual_seed(0)
    )


@pytest.mark.parametrize("make", ["make_llama", "make_gpt2"])
def test_prompt_and_completion_beyond_the_models_length_are_refused(make, request):
    """GPT-2 would raise an IndexError, Llama would extrapolate without a word."""
    name = "n_positions" if make == "make_gpt2" else "max_position_embeddings"
    model = request.getfixturevalue(make)(**{name: 16})
    assert find_max_length(model) == 16
    sample(model, [[5] * 12], new_tokens=4)
    with pytest.raises(ValueError, match=r"at most 16 .*prompt has 13 .*max_new_tokens=4.* 17"):
        sample(model, [[5] * 13], new_tokens=4)
    with pytest.raises(ValueError, match=r"14 tokens .* 3 .*longer than the model's 16"):
        Scorer(model).score([[5] * 14], [[6, 7, 8]])


@pytest.mark.parametrize(
    ("rope", "length"),
    [
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}, 2048),
        ({"rope_type": "linear", "factor": 2.0}, 1024),
        ({"rope_type": "dynamic", "factor": 2.0}, 512),
        (None, 512),
    ],
)
def test_a_scaled_rotary_embedding_extends_the_length_but_dynamic_does_not(
    make_llama, rope, length
):
    settings = {} if rope is None else {"rope_parameters": {"rope_theta": 10000.0, **rope}}
    assert find_max_length(make_llama(max_position_embeddings=512, **settings)) == length


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("roberta", {"max_position_embeddings": 16, "pad_token_id": 1}),
        ("xmod", {"max_position_embeddings": 16}),
        ("data2vec-text", {"max_position_embeddings": 16}),
        ("mpt", {"max_seq_len": 16}),
        ("whisper", {"max_target_positions": 16}),
        ("opt", {"max_position_embeddings": 16}),
    ],
)
def test_the_limit_of_a_table_of_positions_is_what_the_model_can_run(family, settings):
    """Some tables begin with the padding index, some belong to ALiBi or to a decoder alone."""
    model = make_model(family, **settings).eval()
    limit = find_max_length(model)
    compute_logits(model, [[5] * limit])
    with pytest.raises((IndexError, RuntimeError)):
        compute_logits(model, [[5] * (limit + 1)])


@pytest.mark.parametrize("family", ["gemma3", "gemma4", "mllama"])
def test_the_limit_of_a_text_model_inside_another_configuration_is_found(family):
    assert find_max_length(make_model(family, max_position_embeddings=64)) == 64


@pytest.mark.parametrize(
    ("family", "settings"), [("falcon", {"alibi": True}), ("bloom", {}), ("mamba2", {})]
)
def test_alibi_and_recurrent_models_have_no_limit(family, settings):
    model = make_model(family, **settings)
    assert find_max_length(model) is None
    compute_logits(model, [[5] * 200])


def make_rotary(family, rope_type, factors=4, **settings):
    """A model whose rotary embedding depends on the length of the row."""
    rope = {"rope_type": rope_type, "rope_theta": 10000.0, "partial_rotary_factor": 1.0}
    if rope_type == "longrope":
        rope |= {"short_factor": [1.0] * factors, "long_factor": [4.0] * factors}
        settings["original_max_position_embeddings"] = 16
        rope["original_max_position_embeddings"] = 16
    model = make_model(family, rope_parameters=rope | {"factor": 4.0}, **settings)
    disable_dropout(model)
    return model


def check_scores_and_gradient(model, prompts, completions):
    logits = Scorer(model, call_cost=0).score(prompts, completions).logits()
    logits.sin().sum().backward()
    gradient = flatten_gradient(model)
    model.zero_grad()
    expected = torch.cat(
        [
            compute_logits(model, [[*p, *c]])[0, len(p) - 1 : -1]
            for p, c in zip(prompts, completions, strict=True)
        ]
    )
    expected.sin().sum().backward()
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert (flatten_gradient(model) - gradient).norm() < 1e-4 * gradient.norm()


@pytest.mark.parametrize("family", ["phi3", "llama", "minicpm3"])
def test_longrope_rows_on_both_sides_of_the_switch_equal_their_own_forward_pass(family):
    """In one batch the longer row would change the positions of the shorter one."""
    factors = 2 if family == "minicpm3" else 4
    model = make_phi3() if family == "phi3" else make_rotary(family, "longrope", factors)
    assert find_rope_switch(model) == 16
    prompts = [[5, 6, 7], list(range(5, 25)), [5, 6, 7]]
    check_scores_and_gradient(model, prompts, [[8, 9], [10, 11], [9]])


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt_neox"])
def test_a_dynamic_rotary_embedding_is_exact_up_to_the_limit(family):
    model = make_rotary(family, "dynamic", max_position_embeddings=16)
    check_scores_and_gradient(model, [[5, 6, 7] * 4] * 2 + [[8]], [[9, 10], [11] * 4, [12]])
    with pytest.raises(ValueError, match="longer than the model's 16"):
        Scorer(model).score([[5, 6, 7] * 4], [[9] * 5])


def test_longrope_samples_on_one_side_are_exact_and_crossing_is_refused():
    model = make_phi3()
    prompts = [[5, 6, 7], list(range(5, 25)), [9, 8]]
    for completion in sample(model, prompts):
        prompt = prompts[completion.prompt]
        logits = compute_logits(model.eval(), [[*prompt, *completion.ids]])[0, len(prompt) - 1 : -1]
        expected = logits.log_softmax(-1).gather(-1, torch.tensor(completion.ids)[:, None])[:, 0]
        torch.testing.assert_close(
            torch.tensor(completion.logprobs), expected, rtol=1e-4, atol=1e-4
        )
    with pytest.raises(ValueError, match=r"LongRoPE.* 16 .*has 14 .*max_new_tokens=4.* 18"):
        sample(model, [[5] * 14])


def test_the_limit_is_that_of_the_longest_prompt(make_llama):
    model = make_llama(max_position_embeddings=32)
    check_lengths(model, [[1] * 20, [1]], 12)
    with pytest.raises(ValueError, match="33"):
        check_lengths(model, [[1], [1] * 21], 12)
