"""Tokenizer and tiny models in memory that the tests share.

A test that changes a model builds its own with ``make_llama`` or ``make_gpt2``. ``tiny_llama`` is
shared and only for tests that read it.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.oldest import SKIPPED, find_reason

MakeModel = Callable[..., Any]

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|{{ message['role'] }}|>{{ message['content'] }}<|end|>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL_TOKENS = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
CORPUS = [
    "<step_1>7+5=2</step_1><step_2>2*3=6</step_2><answer>6</answer>",
    "Here is a reference solution, step by step. Now solve the question.",
]
VOCABULARY = 320


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what the oldest allowed versions lack, each with its reason."""
    versions = {}
    for package, _ in SKIPPED:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    for item in items:
        if reason := find_reason(item.nodeid, versions):
            item.add_marker(pytest.mark.skip(reason=reason))


def make_tokenizer() -> Any:
    """Build a byte-level tokenizer that decodes any text exactly, with merges and a chat template.

    At most 320 tokens; ids 0..4 are pad, end (the eos), system, user, assistant.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    inner.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """See :func:`make_tokenizer`."""
    return make_tokenizer()


@pytest.fixture(scope="session")
def make_llama() -> MakeModel:
    """Build random Llamas (rotary positions): 2 layers, 32 wide, grouped-query attention.

    ``make_llama(seed=1, dtype=torch.float64, vocab_size=64, tie_word_embeddings=True, ...)``;
    other keywords go to ``LlamaConfig``. Weights are large, so distributions are far from uniform.
    The model is in train mode, as the student is.
    """

    def make(*, seed: int = 0, dtype: torch.dtype = torch.float32, **config: Any) -> Any:
        from transformers import LlamaConfig, LlamaForCausalLM

        defaults = {
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "initializer_range": 0.3,
            "bos_token_id": None,
            "eos_token_id": 1,
            "pad_token_id": 0,
            "tie_word_embeddings": False,
        }
        return _seeded_model(LlamaForCausalLM, LlamaConfig(**{**defaults, **config}), seed, dtype)

    return make


@pytest.fixture(scope="session")
def make_gpt2() -> MakeModel:
    """Build random GPT-2s (learned positions, tied head) without dropout; see ``make_llama``."""

    def make(*, seed: int = 0, dtype: torch.dtype = torch.float32, **config: Any) -> Any:
        from transformers import GPT2Config, GPT2LMHeadModel

        defaults = {
            "vocab_size": VOCABULARY,
            "n_positions": 256,
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 4,
            "initializer_range": 0.3,
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
            "bos_token_id": 1,
            "eos_token_id": 1,
            "pad_token_id": 0,
        }
        return _seeded_model(GPT2LMHeadModel, GPT2Config(**{**defaults, **config}), seed, dtype)

    return make


@pytest.fixture(scope="session")
def tiny_llama(make_llama: MakeModel) -> Any:
    """Build the float32 Llama for tests that do not change it; vocabulary of ``tokenizer``."""
    return make_llama()


def _seeded_model(kind: Any, config: Any, seed: int, dtype: torch.dtype) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind(config)
    return model.to(dtype).train()
