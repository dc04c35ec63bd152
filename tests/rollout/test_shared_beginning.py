"""Prompts with a common beginning: encoded once, with the logits of whole prompts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_sd.models.probing import compute_logits
from lightning_sd.rollout import TransformersSampler, decoding
from lightning_sd.rollout.decoding import CachedDecoding, count_common, plan_decoding
from tests.scoring.test_scoring import small

START = [5, 6, 7, 8, 9, 10]
PROMPTS = [[*START, 11], [*START, 12, 13, 14], [*START, 11, 15]]
EQUAL = [[*START, 11], [*START, 12]]


@pytest.mark.parametrize("prompts", [PROMPTS, EQUAL])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_logits_equal_those_of_whole_rows(
    prompts: list[list[int]], dtype: torch.dtype, error: float, make_llama: Any
) -> None:
    model, rows = make_llama(dtype=dtype).eval(), [list(p) for p in prompts for _ in range(2)]
    with torch.no_grad():
        state = CachedDecoding.prefill(model, prompts, 2, common=len(START))
        for step in range(4):
            expected = torch.stack([compute_logits(model, [row])[0, -1] for row in rows])
            torch.testing.assert_close(state.logits, expected, rtol=error, atol=error)
            ids = torch.arange(len(rows)) + 20 + step
            state.advance(model, ids)
            for row, token in zip(rows, ids.tolist(), strict=True):
                row.append(token)


def test_the_common_beginning_leaves_a_token_of_each_prompt() -> None:
    assert count_common(PROMPTS, 5) == len(START)
    assert count_common([(1, 2, 3, 4, 5, 6, 7)] * 3, 5) == 6
    assert count_common([PROMPTS[0]], 5) == 0
    assert count_common([[1, 2], [2, 2]], 5) == 0
    assert count_common([[1, 2, 3], [1, 2, 4], [1, 2]], 5) == 0, "two tokens are not worth a call"


def count_tokens(model: Any, sampler: TransformersSampler) -> tuple[int, list[Any]]:
    tokens = 0

    def add(module: Any, inputs: tuple[Tensor, ...]) -> None:
        nonlocal tokens
        tokens += inputs[0].numel()

    hook = model.get_input_embeddings().register_forward_pre_hook(add)
    arguments = {"samples": 2, "stop_ids": [], "generator": torch.Generator().manual_seed(0)}
    completions = sampler.sample(model, PROMPTS, **arguments)
    hook.remove()
    return tokens, [c.ids for c in completions]


def test_a_sampler_encodes_it_once_and_draws_the_same(make_llama: Any, monkeypatch: Any) -> None:
    model, sampler = make_llama(), TransformersSampler(max_new_tokens=3)
    plan_decoding(model)
    whole, expected = count_tokens(model, sampler)
    monkeypatch.setattr(decoding, "find_call_cost", lambda device: 5)
    shared, ids = count_tokens(model, sampler)
    # Padded prompts of 9 tokens, or a beginning of 6 and rests of 3; then 2 steps of 6 rows.
    assert (whole, shared) == (3 * 9 + 2 * 6, 6 + 3 * 3 + 2 * 6)
    assert ids == expected


@pytest.mark.parametrize("kind", ["Mistral", "Gemma2"])
def test_windows_do_not_pass_over_the_padding_between(kind: str) -> None:
    assert not plan_decoding(small(kind, sliding_window=3)).shared
    assert plan_decoding(small("Qwen2")).shared
