"""A model trained with the routers' auxiliary loss does not lose it silently."""

import warnings

import pytest

from benchmarks.models.tiny import make_model
from lightning_sd import LoadedModel

FAMILIES = ["mixtral", "qwen3_moe", "jamba", "gpt_oss"]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_auxiliary_loss_is_named_as_left_out(family, tokenizer):
    with pytest.warns(UserWarning, match=r"output_router_logits=True.*not part of the objective"):
        LoadedModel(make_model(family, output_router_logits=True), tokenizer).load()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        LoadedModel(make_model(family, output_router_logits=False), tokenizer).load()
