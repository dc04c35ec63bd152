from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_sd.functional.logits import widen
from lightning_sd.functional.logprobs import sampled_logprobs, token_logprobs

LOGITS = 4 * torch.randn(8, 500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
IDS = torch.arange(8)
FUNCTIONS = [token_logprobs, lambda logits, ids: sampled_logprobs(logits, ids)[0]]


@pytest.mark.parametrize("function", FUNCTIONS, ids=["token", "sampled"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_narrow_logits_are_widened_before_the_sum(function: Any, dtype: torch.dtype) -> None:
    """A log-probability in bfloat16 has steps of 1/16 at 10 nats."""
    narrow = LOGITS.to(dtype)
    found = function(narrow, IDS)
    assert found.dtype == torch.float32
    exact = narrow.double().log_softmax(-1).gather(-1, IDS[:, None]).squeeze(-1)
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-5)


def test_the_entropy_of_narrow_logits_is_that_of_the_wide_ones() -> None:
    narrow = LOGITS.bfloat16()
    _, entropy = sampled_logprobs(narrow, IDS)
    exact = narrow.double().log_softmax(-1)
    torch.testing.assert_close(entropy.double(), -(exact.exp() * exact).sum(-1), rtol=0, atol=1e-5)


def test_wider_logits_stay_as_wide_as_they_are() -> None:
    assert widen(LOGITS).dtype == token_logprobs(LOGITS, IDS).dtype == torch.float64


def test_a_token_that_cannot_occur_adds_nothing_to_the_entropy() -> None:
    """The bound of the logits is per token, so a column that is -inf everywhere is harmless."""
    logits = torch.cat([LOGITS[:, :4], torch.full((8, 1), -torch.inf).double()], -1)
    _, entropy = sampled_logprobs(logits, IDS % 4)
    torch.testing.assert_close(entropy, sampled_logprobs(LOGITS[:, :4], IDS % 4)[1])


def test_autocast_does_not_narrow_the_entropy() -> None:
    logits = LOGITS.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, entropy = sampled_logprobs(logits, IDS)
    assert torch.equal(entropy, sampled_logprobs(logits, IDS)[1])
