"""A critic that is a causal language model, run in this process."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import torch

from lightning_sd._serialize import build, describe_arguments
from lightning_sd.critique.base import Critic, CritiqueRequest
from lightning_sd.critique.check import CHECK_VERSION, check_critique
from lightning_sd.critique.critics.continuous_batching import (
    check_continuous_batching,
    decode_continuously,
)
from lightning_sd.critique.critics.prompts import (
    FAITHFUL_SCRIBE,
    MAX_PROMPT_CHARS,
    check_prompt,
    write_prompt,
)
from lightning_sd.critique.reasons import PROMPT_TOO_LONG
from lightning_sd.models import ModelSource, PretrainedModel
from lightning_sd.models.chat import encode_prompt
from lightning_sd.models.fingerprint import fingerprint_module, fingerprint_source
from lightning_sd.models.stop_ids import find_stop_ids
from lightning_sd.rollout import Completion, TransformersSampler
from lightning_sd.text.thinking import strip_thinking
from lightning_sd.types import Critique, Message

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase


class LMCritic(Critic):
    """Prompts any causal language model and decodes greedily, in batches.

    The model is loaded at the first request, so a run with all critiques in the cache never loads
    it. The model is not part of the LightningModule: it is in no checkpoint and gets no gradient.
    For 4 or 8 bit use ``PretrainedModel(..., quantization="nf4")``.

    Args:
        model: Source of the model; a string is short for ``PretrainedModel(name)``.
        max_new_tokens: Maximum number of generated tokens per critique, thinking included.
        batch_size: Requests per batch.
        prompt: Template with the fields ``{question}``, ``{reference}``, ``{attempt}`` and
            ``{verdict}``. The default is the faithful scribe.
        include_reference: True shows the critic the reference solution (or the bare answer).
        device: Device of the model, such as ``cuda:1``. ``auto`` takes the current GPU if there is
            one, otherwise the CPU.
        continuous_batching_config: Fields of transformers' ``ContinuousBatchingConfig``; ``{}``
            takes its defaults. All requests are then handed over together, and each critique is
            cached as soon as it ends. On a GPU transformers takes up to 90 percent of the free
            memory during this time; ``{"max_memory_percent": 0.3}`` leaves room for a student.
            None decodes ``batch_size`` requests at a time. Measured on a CPU only.

    Raises:
        ImportError: ``continuous_batching_config`` is set and transformers does not support it.
        ValueError: An option is out of range, or the prompt lacks a field.
    """

    def __init__(
        self,
        model: ModelSource | str,
        max_new_tokens: int = 1024,
        batch_size: int = 16,
        prompt: str = FAITHFUL_SCRIBE,
        include_reference: bool = True,
        device: str = "auto",
        continuous_batching_config: dict[str, Any] | None = None,
    ) -> None:
        for name, value in (("max_new_tokens", max_new_tokens), ("batch_size", batch_size)):
            if value < 1:
                raise ValueError(f"{name}={value}: must be at least 1.")
        check_prompt(prompt)
        if continuous_batching_config is not None:
            check_continuous_batching(continuous_batching_config)
        self.model: ModelSource = PretrainedModel(model) if isinstance(model, str) else build(model)
        self.max_new_tokens = max_new_tokens
        self.batch_size = batch_size
        self.prompt = prompt
        self.include_reference = include_reference
        self.device = device
        self.continuous_batching_config = continuous_batching_config
        self._loaded: tuple[nn.Module, PreTrainedTokenizerBase] | None = None
        self._weights: str | None = None

    def identity(self) -> Mapping[str, Any]:
        """Return the model, its weights, quantization, dtype, prompt and decoding settings."""
        source = describe_arguments({"model": self.model}).get("model")
        return {
            "critic": "lm",
            "model": source or type(self.model).__name__,
            "weights": self._compute_fingerprint(),
            "prompt": self.prompt,
            "include_reference": self.include_reference,
            "decoding": {"greedy": True, "max_new_tokens": self.max_new_tokens},
            "check": CHECK_VERSION,
        }

    def critique(self, requests: Sequence[CritiqueRequest]) -> list[Critique]:
        """Write the critiques of one batch; see :meth:`Critic.critique`."""
        critiques = dict(self._generate(requests))
        return [critiques[i] for i in range(len(requests))]

    def stream(self, requests: Sequence[CritiqueRequest]) -> Iterator[tuple[int, Critique]]:
        """Yield critiques batch by batch; with continuous batching, each as soon as it ends."""
        if self.continuous_batching_config is None:
            return super().stream(requests)
        return self._generate(requests)

    def _generate(self, requests: Sequence[CritiqueRequest]) -> Iterator[tuple[int, Critique]]:
        start = time.perf_counter()
        model, tokenizer = self._get_model()
        prompts = [self._encode(tokenizer, request) for request in requests]
        limit = getattr(getattr(model, "config", None), "max_position_embeddings", None)
        longest = math.inf if limit is None else limit - self.max_new_tokens
        fitting = []
        for i, ids in enumerate(prompts):
            if ids and len(ids) <= longest:
                fitting.append(i)
            else:
                yield i, Critique("", "", refused=PROMPT_TOO_LONG)
        with closing(self._decode(model, tokenizer, [prompts[i] for i in fitting])) as batches:
            for batch in batches:
                seconds = (time.perf_counter() - start) / len(batch)
                for completion in batch:
                    i = fitting[completion.prompt]
                    text = read_text(tokenizer, prompts[i], completion.ids)
                    yield (
                        i,
                        check_critique(
                            text,
                            requests[i],
                            tokens=len(completion.ids),
                            seconds=seconds,
                            complete=completion.finished,
                        ),
                    )
                start = time.perf_counter()

    def __getstate__(self) -> dict[str, Any]:
        # A copy loads the model again when it needs it.
        return {**self.__dict__, "_loaded": None}

    def _get_model(self) -> tuple[nn.Module, PreTrainedTokenizerBase]:
        if self._loaded is None:
            model, tokenizer = self.model.load()
            model.requires_grad_(False)
            # bitsandbytes has already placed its weights and refuses to move them.
            if not getattr(model, "is_quantized", False):
                model = model.to(self._choose_device())
            self._loaded = (model.eval(), tokenizer)
        return self._loaded

    def _choose_device(self) -> torch.device:
        if self.device != "auto":
            return torch.device(self.device)
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("cpu")

    def _compute_fingerprint(self) -> str:
        if self._weights is None:
            self._weights = fingerprint_source(self.model) or fingerprint_module(
                self._get_model()[0]
            )
        return self._weights

    def _encode(self, tokenizer: PreTrainedTokenizerBase, request: CritiqueRequest) -> list[int]:
        """Tokenize the prompt. A prompt of more than ``MAX_PROMPT_CHARS`` gives no tokens."""
        text = write_prompt(self.prompt, request, include_reference=self.include_reference)
        if len(text) > MAX_PROMPT_CHARS:
            return []
        return encode_prompt(tokenizer, [Message(role="user", content=text)])

    def _decode(
        self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[list[int]]
    ) -> Generator[list[Completion], None, None]:
        """Yield lists of completions that were finished together."""
        if not prompts:
            return
        stops = find_stop_ids(model, tokenizer)
        if self.continuous_batching_config is not None:
            for completion in decode_continuously(
                model,
                prompts,
                max_new_tokens=self.max_new_tokens,
                stop_ids=stops,
                settings=self.continuous_batching_config,
            ):
                yield [completion]
            return
        sampler = TransformersSampler(max_new_tokens=self.max_new_tokens, temperature=0.0)
        device = next(model.parameters()).device
        # The trainer's precision is not part of the critic's identity, so it must have no effect.
        with torch.autocast(device.type, enabled=False):
            completions = sampler.sample(
                model, prompts, samples=1, stop_ids=stops, generator=torch.Generator(device)
            )
        yield completions


def read_text(tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int], ids: Sequence[int]) -> str:
    """Decode a critique and remove its thinking.

    Some tokenizers treat the think tags as special tokens and drop them when decoding, which would
    leave the thinking in the text. It is therefore cut by the token id of the closing tag first.
    """
    prompt_end = str(tokenizer.decode(list(prompt[-8:]), skip_special_tokens=False))
    opened = prompt_end.rstrip().endswith("<think>")
    end = tokenizer.convert_tokens_to_ids("</think>")
    if isinstance(end, int) and end != tokenizer.unk_token_id and end in ids:
        ids = ids[len(ids) - list(reversed(ids)).index(end) :]
        opened = False
    text = str(tokenizer.decode(list(ids), skip_special_tokens=True))
    return strip_thinking(text, opened=opened)
