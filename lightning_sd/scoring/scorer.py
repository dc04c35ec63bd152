"""Score completions: from (prompt, completion) ids to hidden states of the completion's tokens.

Only positions that predict a completion token leave this file, packed one after another without
padding, so nothing downstream can mistake a prompt or a pad for a token of the completion. The
output head is applied later, chunk by chunk, by whoever needs logits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from lightning_sd.models.cache import causal_lm
from lightning_sd.models.media import has_media, media_inputs
from lightning_sd.scoring.head import Head, head_of
from lightning_sd.scoring.layout import CALL_COST, Ids, buckets, pack
from lightning_sd.scoring.prefix import shared_prefix_hidden
from lightning_sd.scoring.sharing import Shared, cheapest


@dataclass(frozen=True)
class Scores:
    """One entry a completion token, rows one after another: ``sum(lengths)`` tokens."""

    hidden: Tensor
    """``[tokens, hidden]``; with ``head=None`` these are the logits, ``[tokens, vocab]``."""
    head: Head | None

    def __len__(self) -> int:
        """Tokens."""
        return len(self.hidden)

    def logits(self, chunk: slice = slice(None)) -> Tensor:
        """Logits of some of the tokens, ``[chunk, vocab]``."""
        return self.hidden[chunk] if self.head is None else self.head(self.hidden[chunk])


class Scorer:
    """Scores completions under a causal language model.

    Args:
        model: transformers' causal LM (peft or not), or any module that takes ``input_ids`` and
            returns an object with ``.logits``.
        share_prompts: Encode once what rows have in common (whole prompts, or their beginnings)
            where that costs less. False: lay every row out whole (the slow reference of the tests).
        call_cost: What a forward pass costs beside its tokens, in tokens.
    """

    def __init__(
        self, model: nn.Module, *, share_prompts: bool = True, call_cost: int = CALL_COST
    ) -> None:
        self.model = model
        self.share_prompts = share_prompts
        self.call_cost = call_cost
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
        if not self._head_checked:
            self._find_head()
        if self._split is None:
            return Scores(self._by_rows(prompts, completions, self._logits), None)
        backbone, linear = self._split
        if has_media(prompts):
            # The decoder alone knows nothing of sounds: the whole model but its head does.
            backbone = causal_lm(self.model).base_model
        shared = self._shared(prompts, completions)
        if shared is not None:
            hidden = shared_prefix_hidden(
                backbone, causal_lm(self.model).config, shared, [len(c) for c in completions]
            )
        else:
            hidden = self._by_rows(
                prompts,
                completions,
                lambda **inputs: backbone(**inputs, use_cache=False).last_hidden_state,
            )
        return Scores(hidden, head_of(linear, causal_lm(self.model).config))

    def _shared(self, prompts: Sequence[Ids], completions: Sequence[Ids]) -> Shared | None:
        """How rows share what they have in common; None: they don't."""
        # Recomputation in the backward pass would fill the cache a second time. Without gradients
        # older transformers drop the cache all the same, and student and teacher should be laid
        # out alike: then equal prompts give equal numbers to the last bit.
        checkpointing = any(
            module.training and getattr(module, "gradient_checkpointing", False)
            for module in self.model.modules()
        )
        whole = all(len(prompt) for prompt in prompts) and all(len(c) for c in completions)
        if not self.share_prompts or checkpointing or not whole:
            return None
        return cheapest(prompts, completions, call_cost=self.call_cost)

    def _by_rows(
        self,
        prompts: Sequence[Ids],
        completions: Sequence[Ids],
        forward: Callable[..., Tensor],
    ) -> Tensor:
        """Whole rows, those of like length together."""
        device = next(self.model.parameters()).device
        lengths = [len(p) + len(c) for p, c in zip(prompts, completions, strict=True)]
        parts: dict[int, Tensor] = {}
        for rows in buckets(lengths, call_cost=self.call_cost):
            chosen = [completions[row] for row in rows]
            asked = [prompts[row] for row in rows]
            batch, keep = pack(asked, chosen, device)
            found = forward(input_ids=batch, **media_inputs(asked, device)).flatten(0, 1)[keep]
            parts.update(zip(rows, found.split([len(c) for c in chosen]), strict=True))
        return torch.cat([parts[row] for row in range(len(prompts))])

    def _logits(self, **inputs: Tensor) -> Tensor:
        logits: Tensor = self.model(**inputs).logits
        return logits

    @torch.no_grad()
    def _find_head(self) -> None:
        """Split the model into backbone and head, if that provably gives the model's own logits."""
        self._head_checked = True
        base = causal_lm(self.model)
        linear = base.get_output_embeddings() if hasattr(base, "get_output_embeddings") else None
        backbone = base.get_decoder() if hasattr(base, "get_decoder") else None
        if type(linear) is not nn.Linear or backbone is None or backbone is base:
            return
        probe = torch.arange(1, 5, device=linear.weight.device).unsqueeze(0) % linear.out_features
        expected = self.model(input_ids=probe).logits.float()
        hidden = backbone(input_ids=probe, use_cache=False).last_hidden_state
        split = head_of(linear, base.config)(hidden).float()
        if torch.allclose(split, expected, rtol=1e-2, atol=1e-2 * expected.abs().max().item()):
            self._split = (backbone, linear)
        else:
            rank_zero_warn(
                f"{type(base).__name__}: its logits are not a linear map of its last hidden state "
                "that lightning_sd knows. Scoring works, but holds the logits of whole sequences."
            )
