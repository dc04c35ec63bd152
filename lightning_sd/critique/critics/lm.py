"""A language model as critic, in this process."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import torch

from lightning_sd._serialize import build, describable
from lightning_sd.critique.base import Critic, CritiqueRequest
from lightning_sd.critique.check import CHECK_VERSION, checked
from lightning_sd.critique.critics.continuous import check_continuous_batching, write_continuously
from lightning_sd.critique.critics.wording import FAITHFUL_SCRIBE, check_prompt, write_prompt
from lightning_sd.models import ModelSource, PretrainedModel
from lightning_sd.models.chat import encode_prompt
from lightning_sd.models.fingerprint import module_fingerprint, source_fingerprint
from lightning_sd.models.stop_ids import stop_ids
from lightning_sd.rollout import Completion, TransformersSampler
from lightning_sd.text.thinking import strip_thinking
from lightning_sd.types import Critique, Message

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase


class LMCritic(Critic):
    """Any causal language model, decoding greedily, in batches.

    The model is loaded when it is first asked: a run whose critiques are all cached never loads it.
    It belongs to no LightningModule, so no checkpoint and no gradient ever sees it. For 4 or 8 bit
    give ``PretrainedModel(..., quantization="nf4")``.

    Args:
        model: Where the model comes from; a name stands for ``PretrainedModel(name)``.
        max_new_tokens: Longest critique, its thinking included.
        batch_size: Requests at once.
        prompt: Wording, with the fields ``{question}``, ``{reference}``, ``{attempt}`` and
            ``{verdict}``. Default: the faithful scribe.
        include_reference: Let the critic see the reference solution (or the bare answer).
        device: Such as ``cuda:1``; ``auto``: the current GPU if there is one, else the CPU.
        continuous_batching_config: Settings of transformers' ``ContinuousBatchingConfig``, ``{}``
            for its own choice: all requests are handed over at once, each is cached when it is
            done, and the next takes its place. On a GPU transformers takes up to 90 percent of the
            free memory meanwhile; ``{"max_memory_percent": 0.3}`` leaves room for a student. None:
            ``batch_size`` at a time. Run by us on a CPU only.

    Raises:
        ImportError: ``continuous_batching_config`` with a transformers that cannot do it.
        ValueError: A setting out of range, or a prompt that cannot work.
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
        """Model, weights, quantisation, dtype, prompt and decoding."""
        source = describable({"model": self.model}).get("model")
        return {
            "critic": "lm",
            "model": source or type(self.model).__name__,
            "weights": self._fingerprint(),
            "prompt": self.prompt,
            "include_reference": self.include_reference,
            "decoding": {"greedy": True, "max_new_tokens": self.max_new_tokens},
            "check": CHECK_VERSION,
        }

    def critique(self, requests: Sequence[CritiqueRequest]) -> list[Critique]:
        """Write the critiques of one batch; see :meth:`Critic.critique`."""
        found = dict(self._written(requests))
        return [found[i] for i in range(len(requests))]

    def stream(self, requests: Sequence[CritiqueRequest]) -> Iterator[tuple[int, Critique]]:
        """Critiques batch by batch, or by continuous batching each when it is done."""
        if self.continuous_batching_config is None:
            return super().stream(requests)
        return self._written(requests)

    def _written(self, requests: Sequence[CritiqueRequest]) -> Iterator[tuple[int, Critique]]:
        since = time.perf_counter()
        model, tokenizer = self._model()
        prompts = [self._encode(tokenizer, request) for request in requests]
        limit = getattr(getattr(model, "config", None), "max_position_embeddings", None)
        asked = []
        for i, ids in enumerate(prompts):
            if limit is None or len(ids) + self.max_new_tokens <= limit:
                asked.append(i)
            else:
                reason = f"its prompt of {len(ids)} tokens is too long for the critic"
                yield i, Critique("", "", refused=reason)
        with closing(self._write(model, tokenizer, [prompts[i] for i in asked])) as batches:
            for together in batches:
                seconds = (time.perf_counter() - since) / len(together)
                for completion in together:
                    i = asked[completion.prompt]
                    yield i, self._checked(tokenizer, prompts[i], requests[i], completion, seconds)
                since = time.perf_counter()

    def __getstate__(self) -> dict[str, Any]:
        # The model is loaded anew by whoever needs it.
        return {**self.__dict__, "_loaded": None}

    def _model(self) -> tuple[nn.Module, PreTrainedTokenizerBase]:
        if self._loaded is None:
            model, tokenizer = self.model.load()
            model.requires_grad_(False)
            # bitsandbytes has placed its weights already, and refuses to move them.
            if not getattr(model, "is_quantized", False):
                model = model.to(self._device())
            self._loaded = (model.eval(), tokenizer)
        return self._loaded

    def _device(self) -> torch.device:
        if self.device != "auto":
            return torch.device(self.device)
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("cpu")

    def _fingerprint(self) -> str:
        if self._weights is None:
            self._weights = source_fingerprint(self.model) or module_fingerprint(self._model()[0])
        return self._weights

    def _encode(self, tokenizer: PreTrainedTokenizerBase, request: CritiqueRequest) -> list[int]:
        text = write_prompt(self.prompt, request, include_reference=self.include_reference)
        return encode_prompt(tokenizer, [Message(role="user", content=text)])

    def _write(
        self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[list[int]]
    ) -> Generator[list[Completion], None, None]:
        """Completions, those that came together in one list."""
        if not prompts:
            return
        stops = stop_ids(model, tokenizer)
        if self.continuous_batching_config is not None:
            for completion in write_continuously(
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
        # The trainer's precision is no part of the critic's identity, and must decide nothing.
        with torch.autocast(device.type, enabled=False):
            completions = sampler.sample(
                model, prompts, samples=1, stop_ids=stops, generator=torch.Generator(device)
            )
        yield completions

    def _checked(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompt: Sequence[int],
        request: CritiqueRequest,
        completion: Completion,
        seconds: float,
    ) -> Critique:
        return checked(
            self._decode(tokenizer, prompt, completion.ids),
            request,
            tokens=len(completion.ids),
            seconds=seconds,
            complete=completion.finished,
        )

    def _decode(
        self, tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int], ids: Sequence[int]
    ) -> str:
        """The critique's text, its thinking removed.

        Some tokenizers count the think tags as special and drop them when decoding, which would
        leave the thinking in the text; so it is cut off before, by the id of the closing tag.
        """
        opened = _text(tokenizer, prompt[-8:], special=True).rstrip().endswith("<think>")
        end = tokenizer.convert_tokens_to_ids("</think>")
        if isinstance(end, int) and end != tokenizer.unk_token_id and end in ids:
            ids = ids[len(ids) - list(reversed(ids)).index(end) :]
            opened = False
        return strip_thinking(_text(tokenizer, ids, special=False), opened=opened)


def _text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], *, special: bool) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=not special))
