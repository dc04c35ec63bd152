"""Score completions: compute the hidden states that predict their tokens.

The result holds only positions that predict a completion token, one after another without padding,
so that no later step can count a prompt token or padding. The output head is applied later, chunk
by chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from lightning_sd.models.cache import get_causal_lm
from lightning_sd.models.media import collect_media_inputs, has_media
from lightning_sd.scoring.head import Head, get_head
from lightning_sd.scoring.layout import CALL_COST, Ids, bucket_rows, pack_rows
from lightning_sd.scoring.prefix import compute_shared_hidden
from lightning_sd.scoring.sharing import SharedRows, find_cheapest_sharing


@dataclass(frozen=True)
class Scores:
    """One entry per completion token, rows one after another: ``sum(lengths)`` tokens."""

    hidden: Tensor
    """Hidden states ``[tokens, hidden]``; the logits ``[tokens, vocab]`` if ``head`` is None."""
    head: Head | None
    """The output head; None if ``hidden`` holds logits."""

    def __len__(self) -> int:
        """Return the number of tokens."""
        return len(self.hidden)

    @property
    def vocab_size(self) -> int:
        """Number of logits per token."""
        return self.hidden.shape[-1] if self.head is None else self.head.weight.shape[0]

    def logits(self, chunk: slice = slice(None)) -> Tensor:
        """Compute the logits of a slice of the tokens, ``[chunk, vocab]``."""
        return self.hidden[chunk] if self.head is None else self.head(self.hidden[chunk])


class Scorer:
    """Scores completions under a causal language model.

    Args:
        model: A transformers causal LM (with or without peft), or a module that takes
            ``input_ids`` and returns an object with ``.logits``.
        share_prompts: Encode shared prompts or prefixes once where that costs less. False encodes
            every row whole, which is slower and serves as the reference in tests.
        call_cost: Cost of a forward pass beside its tokens, in tokens.
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
        """Compute the hidden states that predict each completion token.

        The completion's ids are used unchanged after any prompt, so that student and teacher score
        the same tokens. Gradients flow if they are enabled.

        Args:
            prompts: Token ids, one prompt per row, with at least one token each.
            completions: Token ids, one completion per row; an empty one gives no entry.

        Returns:
            Scores in which entry ``sum(lengths[:row]) + t`` predicts token ``t`` of that row.

        Raises:
            ValueError: A prompt is empty, so that nothing predicts the first completion token.
        """
        if not self._head_checked:
            self._find_head()
        if self._split is None:
            return Scores(self._forward_rows(prompts, completions, self._compute_logits), None)
        backbone, linear = self._split
        if has_media(prompts):
            # The text decoder takes no sounds; the whole model without its head does.
            backbone = get_causal_lm(self.model).base_model
        shared = self._find_shared(prompts, completions)
        if shared is not None:
            hidden = compute_shared_hidden(
                backbone, get_causal_lm(self.model).config, shared, [len(c) for c in completions]
            )
        else:
            hidden = self._forward_rows(
                prompts,
                completions,
                lambda **inputs: backbone(**inputs, use_cache=False).last_hidden_state,
            )
        return Scores(hidden, get_head(linear, get_causal_lm(self.model).config))

    def _find_shared(self, prompts: Sequence[Ids], completions: Sequence[Ids]) -> SharedRows | None:
        """Split rows into shared prefixes and tails; None to encode whole rows."""
        # With checkpointing the backward pass would fill the cache a second time. This holds for
        # calls without gradients too, so that student and teacher have the same layout.
        checkpointing = any(
            module.training and getattr(module, "gradient_checkpointing", False)
            for module in self.model.modules()
        )
        whole = all(len(prompt) for prompt in prompts) and all(len(c) for c in completions)
        if not self.share_prompts or checkpointing or not whole:
            return None
        return find_cheapest_sharing(prompts, completions, call_cost=self.call_cost)

    def _forward_rows(
        self,
        prompts: Sequence[Ids],
        completions: Sequence[Ids],
        forward: Callable[..., Tensor],
    ) -> Tensor:
        """Run whole rows through the model, rows of similar length together."""
        device = next(self.model.parameters()).device
        lengths = [len(p) + len(c) for p, c in zip(prompts, completions, strict=True)]
        parts: dict[int, Tensor] = {}
        for rows in bucket_rows(lengths, call_cost=self.call_cost):
            row_completions = [completions[row] for row in rows]
            row_prompts = [prompts[row] for row in rows]
            batch, keep = pack_rows(row_prompts, row_completions, device)
            inputs = collect_media_inputs(row_prompts, device)
            hidden = forward(input_ids=batch, **inputs).flatten(0, 1)[keep]
            parts.update(zip(rows, hidden.split([len(c) for c in row_completions]), strict=True))
        return torch.cat([parts[row] for row in range(len(prompts))])

    def _compute_logits(self, **inputs: Tensor) -> Tensor:
        logits: Tensor = self.model(**inputs).logits
        return logits

    @torch.no_grad()
    def _find_head(self) -> None:
        """Split the model into backbone and head if they reproduce the model's logits."""
        self._head_checked = True
        base = get_causal_lm(self.model)
        linear = base.get_output_embeddings() if hasattr(base, "get_output_embeddings") else None
        backbone = base.get_decoder() if hasattr(base, "get_decoder") else None
        if type(linear) is not nn.Linear or backbone is None or backbone is base:
            return
        probe = torch.arange(1, 5, device=linear.weight.device).unsqueeze(0) % linear.out_features
        expected = self.model(input_ids=probe).logits.float()
        hidden = backbone(input_ids=probe, use_cache=False).last_hidden_state
        split = get_head(linear, base.config)(hidden).float()
        if torch.allclose(split, expected, rtol=1e-2, atol=1e-2 * expected.abs().max().item()):
            self._split = (backbone, linear)
        else:
            rank_zero_warn(
                f"{type(base).__name__} computes its logits from the last hidden state in an "
                "unknown way. Scoring works, but needs memory for the logits of whole sequences."
            )
