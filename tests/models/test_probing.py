"""Models whose forward pass can't be trusted with rows of text are refused by name."""

import pytest
import torch
from transformers import XLMConfig, XLMWithLMHeadModel

from benchmarks.models.tiny import make_model
from lightning_sd.models.probing import eval_mode, make_probe


def probe(model):
    with torch.no_grad(), eval_mode(model):
        return make_probe(model)


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ("gemma4_assistant", "shared_kv_states"),
        ("musicgen", "invalid for input of size 2"),
        ("musicgen_melody", "invalid for input of size 2"),
    ],
)
def test_a_model_that_needs_more_than_token_ids_is_refused(family, reason):
    """An assistant reads another model's states; a music model has four codebooks per step."""
    model = make_model(family)
    with pytest.raises(ValueError, match=f"{type(model).__name__}.*{reason}.*of text"):
        probe(model)


class LastToken(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids):
        out = self.model(input_ids)
        out.logits = out.logits[:, -1]
        return out


def test_logits_of_the_last_token_alone_are_refused(make_llama):
    with pytest.raises(ValueError, match=r"LastToken.*the shape \(1, 320\)"):
        probe(LastToken(make_llama()))


def test_a_model_that_counts_padding_tokens_is_refused():
    """XLM takes the number of other tokens for a row's length, and erases what is beyond it."""
    config = XLMConfig(vocab_size=64, emb_dim=32, n_layers=1, n_heads=2, causal=True, pad_index=0)
    config.pad_token_id = 0
    model = XLMWithLMHeadModel(config)
    with pytest.raises(ValueError, match=r"XLM.* padding token \(pad_token_id=0\)"):
        probe(model)
    model.config.pad_token_id = None  # the network still has its own
    probe(model)
