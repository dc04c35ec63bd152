"""A language model as critic, in this process."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from lightning_sd.critics.base import Critic, CritiqueRequest
from lightning_sd.critics.check import CHECK_VERSION, checked, strip_thinking
from lightning_sd.critics.fingerprint import module_fingerprint, source_fingerprint
from lightning_sd.critics.prompts import FAITHFUL_SCRIBE, check_prompt, write_prompt
from lightning_sd.data.chat import encode_prompt
from lightning_sd.hparams import build, describable
from lightning_sd.models import ModelSource, PretrainedModel
from lightning_sd.rollout import Completion, TransformersSampler
from lightning_sd.student import stop_ids
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

    Raises:
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
    ) -> None:
        for name, value in (("max_new_tokens", max_new_tokens), ("batch_size", batch_size)):
            if value < 1:
                raise ValueError(f"{name}={value}: must be at least 1.")
        check_prompt(prompt)
        self.model: ModelSource = PretrainedModel(model) if isinstance(model, str) else build(model)
        self.max_new_tokens = max_new_tokens
        self.batch_size = batch_size
        self.prompt = prompt
        self.include_reference = include_reference
        self.device = device
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
        start = time.perf_counter()
        model, tokenizer = self._model()
        prompts = [self._encode(tokenizer, request) for request in requests]
        limit = getattr(getattr(model, "config", None), "max_position_embeddings", None)
        room = None if limit is None else limit - self.max_new_tokens
        asked = [i for i, ids in enumerate(prompts) if room is None or len(ids) <= room]
        completions = self._write(model, tokenizer, [prompts[i] for i in asked])
        seconds = (time.perf_counter() - start) / max(len(requests), 1)
        critiques = [
            Critique("", "", refused=f"its prompt of {len(ids)} tokens is too long for the critic")
            for ids in prompts
        ]
        for i, completion in zip(asked, completions, strict=True):
            critiques[i] = checked(
                self._decode(tokenizer, prompts[i], completion.ids),
                requests[i],
                tokens=len(completion.ids),
                seconds=seconds,
                complete=completion.finished,
            )
        return critiques

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
    ) -> list[Completion]:
        if not prompts:
            return []
        device = next(model.parameters()).device
        return TransformersSampler(max_new_tokens=self.max_new_tokens, temperature=0.0).sample(
            model,
            prompts,
            samples=1,
            stop_ids=stop_ids(model, tokenizer),
            generator=torch.Generator(device),
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
