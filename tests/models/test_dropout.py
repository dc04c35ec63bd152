"""Dropout that is no nn.Dropout, layer drop and router jitter are disabled, or named."""

import pytest
import torch
from transformers import Starcoder2Config, Starcoder2ForCausalLM

from benchmarks.models.tiny import make_config, make_model
from lightning_sd.models.dropout import disable_dropout, list_rates
from lightning_sd.models.probing import compute_logits
from lightning_sd.scoring import Scorer

FAMILIES = ["starcoder2", "phimoe", "opt", "gpt2", "biogpt", "mixtral", "falcon", "jetmoe"]


@pytest.mark.parametrize("family", FAMILIES)
def test_train_mode_equals_eval_mode_after_disabling(family):
    rates = dict.fromkeys(list_rates(make_config(family), zero=True), 0.3)
    assert rates
    model = make_model(family, **rates)
    noisy = [compute_logits(model, [[5, 6, 7, 8] * 3]) for _ in range(2)]
    disable_dropout(model)
    quiet = [compute_logits(model.train(), [[5, 6, 7, 8] * 3]) for _ in range(2)]
    assert torch.equal(quiet[0], quiet[1])
    torch.testing.assert_close(quiet[0], compute_logits(model.eval(), [[5, 6, 7, 8] * 3]))
    if family != "jetmoe":  # its configuration has rates that no layer reads
        assert not torch.equal(noisy[0], noisy[1])


def test_two_scorings_of_starcoder_agree():
    torch.manual_seed(0)
    config = Starcoder2Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        residual_dropout=0.1,
        embedding_dropout=0.1,
        attention_dropout=0.1,
        initializer_range=0.3,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = Starcoder2ForCausalLM(config).train()
    with pytest.raises(ValueError, match="train mode"):
        Scorer(model).score([[5, 6]], [[7, 8]])
    disable_dropout(model)
    scorer = Scorer(model)
    first, second = (scorer.score([[5, 6]], [[7, 8]]).logits() for _ in range(2))
    assert torch.equal(first, second)
