"""Score completions: from (prompt, completion) ids to hidden states of the completion's tokens.

Only positions that predict a completion token leave this file, packed one after another without
padding, so nothing downstream can mistake a prompt or a pad for a token of the completion. The
output head is applied later, chunk by chunk, by whoever needs logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

Ids = Sequence[int]


@dataclass(frozen=True)
class Head:
    """The map from hidden states to logits: ``softcap(scale * (h W^T + b))``."""

    weight: Tensor
    """``[vocab, hidden]``."""
    bias: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None

    def __call__(self, hidden: Tensor) -> Tensor:
        """``[tokens, hidden]`` to ``[tokens, vocab]``."""
        logits = nn.functional.linear(hidden, self.weight, self.bias)
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.softcap is not None:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return logits

    def trainable(self) -> list[Tensor]:
        """Those of its tensors that want a gradient."""
        return [t for t in (self.weight, self.bias) if t is not None and t.requires_grad]


@dataclass(frozen=True)
class Scores:
    """One entry a completion token, rows one after another: ``sum(lengths)`` tokens."""

    hidden: Tensor
    """``[tokens, hidden]``; with ``head=None`` these are the logits, ``[tokens, vocab]``."""
    head: Head | None

    def logits(self, chunk: slice = slice(None)) -> Tensor:
        """Logits of some of the tokens, ``[chunk, vocab]``."""
        return self.hidden[chunk] if self.head is None else self.head(self.hidden[chunk])


class Scorer:
    """Scores completions under a causal language model.

    Args:
        model: transformers' causal LM (peft or not), or any module that takes ``input_ids`` and
            returns an object with ``.logits``.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._head_checked = False
        self._split: tuple[nn.Module, nn.Linear] | None = None

    def score(self, prompts: Sequence[Ids], completions: Sequence[Ids]) -> Scores:
        """Hidden states from which each completion token is predicted.

        The completion's ids are taken as they are, whatever the prompt: student and teacher score
        the same tokens. Gradients flow if they are enabled.

        Args:
            prompts: One a row, at least one token each.
            completions: One a row; an empty one gives no entry.

        Returns:
            Entry ``sum(lengths[:row]) + t`` predicts token ``t`` of that row.

        Raises:
            ValueError: An empty prompt: nothing predicts the first completion token.
        """
        batch, keep = pack(prompts, completions, next(self.model.parameters()).device)
        if not self._head_checked:
            self._find_head()
        if self._split is None:
            logits = self.model(input_ids=batch).logits
            return Scores(logits.flatten(0, 1)[keep], None)
        backbone, linear = self._split
        hidden = backbone(input_ids=batch, use_cache=False).last_hidden_state
        return Scores(hidden.flatten(0, 1)[keep], self._head(linear))

    def _head(self, linear: nn.Linear) -> Head:
        config = _causal_lm(self.model).config
        # Cohere multiplies the logits, Granite divides them, Gemma caps them.
        scale = float(getattr(config, "logit_scale", None) or 1.0)
        scale /= float(getattr(config, "logits_scaling", None) or 1.0)
        trainable = linear.weight.requires_grad and torch.is_grad_enabled()
        # Detached when no gradient is wanted: it then also survives a swap of the weights.
        weight = linear.weight if trainable else linear.weight.detach()
        bias = linear.bias if trainable or linear.bias is None else linear.bias.detach()
        return Head(weight, bias, scale, getattr(config, "final_logit_softcapping", None))

    @torch.no_grad()
    def _find_head(self) -> None:
        """Split the model into backbone and head, if that provably gives the model's own logits."""
        self._head_checked = True
        base = _causal_lm(self.model)
        linear = base.get_output_embeddings() if hasattr(base, "get_output_embeddings") else None
        backbone = base.get_decoder() if hasattr(base, "get_decoder") else None
        if type(linear) is not nn.Linear or backbone is None or backbone is base:
            return
        probe = torch.arange(1, 5, device=linear.weight.device).unsqueeze(0) % linear.out_features
        expected = self.model(input_ids=probe).logits.float()
        split = self._head(linear)(
            backbone(input_ids=probe, use_cache=False).last_hidden_state
        ).float()
        if torch.allclose(split, expected, rtol=1e-2, atol=1e-2 * expected.abs().max().item()):
            self._split = (backbone, linear)
        else:
            rank_zero_warn(
                f"{type(base).__name__}: its logits are not a linear map of its last hidden state "
                "that lightning_sd knows. Scoring works, but holds the logits of whole sequences."
            )


def pack(
    prompts: Sequence[Ids], completions: Sequence[Ids], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Join prompts and completions into one right-padded batch.

    Padding stands on the right, so positions count from 0 and causal attention never sees it:
    no attention mask is needed.

    Args:
        prompts: One a row.
        completions: One a row.
        device: Where the tensors go.

    Returns:
        Ids ``[rows, longest]``, and for each completion token the index of the position that
        predicts it in the flattened batch, ``[tokens]``.

    Raises:
        ValueError: An empty prompt.

    Example:
        >>> pack([[5], [5, 6]], [[7, 8], [9]], torch.device("cpu"))
        (tensor([[5, 7, 8],
                [5, 6, 9]]), tensor([0, 1, 4]))
    """
    if not all(len(prompt) for prompt in prompts):
        raise ValueError("A prompt is empty: the chat template gave no tokens for its messages.")
    longest = max(len(p) + len(c) for p, c in zip(prompts, completions, strict=True))
    batch = torch.zeros(len(prompts), longest, dtype=torch.long)
    keep = []
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        joined = torch.tensor([*prompt, *completion])
        batch[row, : len(joined)] = joined
        start = row * longest + len(prompt) - 1
        keep.append(torch.arange(start, start + len(completion)))
    return batch.to(device), torch.cat(keep).to(device)


def _causal_lm(model: nn.Module) -> Any:
    """The transformers model inside a peft wrapper, or the model itself."""
    wrapper: Any = model
    return wrapper.get_base_model() if hasattr(model, "get_base_model") else model
