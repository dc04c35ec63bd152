"""Score completions: compute the hidden states that predict their tokens.

The result holds only positions that predict a completion token, one after another without padding,
so that no later step can count a prompt token or padding. The output head is applied later, chunk
by chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_sd.models.cache import find_call_cost, get_causal_lm
from lightning_sd.models.media import collect_media_inputs, has_media
from lightning_sd.models.probing import make_plain_arguments
from lightning_sd.models.sharding import is_sharded
from lightning_sd.scoring.head import Head, get_head
from lightning_sd.scoring.layout import Ids, bucket_rows, pack_rows
from lightning_sd.scoring.plan import ScoringPlan, plan_scoring
from lightning_sd.scoring.prefix import compute_shared_hidden
from lightning_sd.scoring.sharing import SharedRows, find_cheapest_sharing


@dataclass(frozen=True)
class Scores:
    """One entry per completion token, rows one after another: ``sum(lengths)`` tokens."""

    hidden: Tensor
    """Hidden states ``[tokens, hidden]``; the logits ``[tokens, vocab]`` if ``head`` is None."""
    head: Head | None
    """The output head; None if ``hidden`` holds logits."""
    router_logits: tuple[Tensor, ...] = ()
    """With gradients, of a mixture of experts with an auxiliary loss: one tensor per layer
    ``[row tokens, experts]``, over all tokens of prompts and completions."""

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
        call_cost: Cost of a forward pass beside its tokens, in tokens. Default: by the device.
    """

    def __init__(
        self, model: nn.Module, *, share_prompts: bool = True, call_cost: int | None = None
    ) -> None:
        self.model = model
        self.share_prompts = share_prompts
        self.call_cost = call_cost
        self._plan: ScoringPlan | None = None

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
            ValueError: A prompt is empty, so that nothing predicts the first completion token, or
                it has sounds or images, which this version of transformers cannot score.
        """
        plan, lengths = self.prepare(), [len(c) for c in completions]
        _check_row_lengths(plan, prompts, completions)
        if plan.split is None:
            whole = partial(self.model, **make_plain_arguments(self.model))
            logits, router_logits = self._forward_rows(plan, prompts, completions, whole, "logits")
            return Scores(logits, None, router_logits)
        config = get_causal_lm(self.model).config
        backbone = self._find_media_model() if has_media(prompts) else plan.split.backbone
        shared = self._find_shared(plan, prompts, completions)
        if shared is not None:
            hidden, router_logits = compute_shared_hidden(backbone, config, shared, lengths), ()
        else:
            forward = partial(backbone, use_cache=False)
            hidden, router_logits = self._forward_rows(
                plan, prompts, completions, forward, "last_hidden_state"
            )
        head = get_head(plan.split.linear, plan.split.scaling, copy=is_sharded(self.model))
        return Scores(hidden, head, router_logits)

    def prepare(self) -> ScoringPlan:
        """Measure once what the model's forward pass supports; :meth:`score` does it if needed."""
        if self._plan is None:
            self._plan = plan_scoring(self.model)
        return self._plan

    def _find_call_cost(self) -> int:
        if self.call_cost is not None:
            return self.call_cost
        return find_call_cost(next(self.model.parameters()).device)

    def _find_media_model(self) -> nn.Module:
        """Return the model without its head: it takes sounds, the text decoder does not."""
        model = get_causal_lm(self.model)
        inner: nn.Module = model.base_model
        if inner is model:
            raise ValueError(
                f"{type(model).__name__} has no part without the output head in this version of "
                "transformers, so prompts with sounds or images cannot be scored; update it."
            )
        return inner

    def _find_shared(
        self, plan: ScoringPlan, prompts: Sequence[Ids], completions: Sequence[Ids]
    ) -> SharedRows | None:
        """Split rows into shared prefixes and tails; None to encode whole rows."""
        # With checkpointing the backward pass would fill the cache a second time. This holds for
        # calls without gradients too, so that student and teacher have the same layout.
        checkpointing = any(
            module.training and getattr(module, "gradient_checkpointing", False)
            for module in self.model.modules()
        )
        empty = not (prompts and all(map(len, prompts)) and all(map(len, completions)))
        longest = max(
            (len(p) + len(c) for p, c in zip(prompts, completions, strict=True)), default=0
        )
        switches = plan.rope_switch is not None and longest > plan.rope_switch
        if not (self.share_prompts and plan.shared) or checkpointing or empty or switches:
            return None
        return find_cheapest_sharing(prompts, completions, call_cost=self._find_call_cost())

    def _forward_rows(
        self,
        plan: ScoringPlan,
        prompts: Sequence[Ids],
        completions: Sequence[Ids],
        forward: Callable[..., Any],
        output: str,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run whole rows through the model, rows of similar length together.

        Args:
            plan: How the model is scored.
            prompts: Token ids per row.
            completions: Token ids per row.
            forward: The model or its backbone.
            output: Name of the output that is kept for the completions.

        Returns:
            The output ``[tokens, size]``, and the router logits if their loss is trained.
        """
        device = next(self.model.parameters()).device
        lengths = [len(p) + len(c) for p, c in zip(prompts, completions, strict=True)]
        routed = plan.router_loss is not None and torch.is_grad_enabled()
        parts: dict[int, Tensor] = {}
        router_parts: dict[int, tuple[Tensor, ...]] = {}
        for rows in _group_rows(plan, lengths, self._find_call_cost()):
            row_completions = [completions[row] for row in rows]
            row_prompts = [prompts[row] for row in rows]
            batch, keep = pack_rows(row_prompts, row_completions, device)
            inputs: dict[str, Any] = dict(collect_media_inputs(row_prompts, device))
            if routed:
                inputs["output_router_logits"] = True
            outputs = forward(input_ids=batch, **inputs)
            hidden = getattr(outputs, output).flatten(0, 1)[keep]
            parts.update(zip(rows, hidden.split([len(c) for c in row_completions]), strict=True))
            if routed:
                ends = torch.tensor([lengths[row] for row in rows], device=device)
                real = (torch.arange(batch.shape[1], device=device) < ends.unsqueeze(1)).flatten()
                layers = [
                    t.flatten(0, -2)[real].split(ends.tolist()) for t in outputs.router_logits
                ]
                router_parts.update(zip(rows, zip(*layers, strict=True), strict=True))
        ordered = [router_parts[row] for row in sorted(router_parts)]
        return (
            torch.cat([parts[row] for row in range(len(prompts))]),
            tuple(torch.cat(layer) for layer in zip(*ordered, strict=True)),
        )


def _group_rows(plan: ScoringPlan, lengths: Sequence[int], call_cost: int) -> list[list[int]]:
    """Group the rows that may be in one batch."""
    sides: dict[Any, list[int]] = {}
    for row, length in enumerate(lengths):
        above = plan.rope_switch is not None and length > plan.rope_switch
        sides.setdefault(above if plan.padded else length, []).append(row)
    return [
        [side[i] for i in group]
        for side in sides.values()
        for group in bucket_rows([lengths[row] for row in side], call_cost=call_cost)
    ]


def _check_row_lengths(
    plan: ScoringPlan, prompts: Sequence[Ids], completions: Sequence[Ids]
) -> None:
    for prompt, completion in zip(prompts, completions, strict=True):
        if plan.max_length is not None and len(prompt) + len(completion) > plan.max_length:
            raise ValueError(
                f"A prompt of {len(prompt)} tokens and its completion of {len(completion)} are "
                f"longer than the model's {plan.max_length} (max_position_embeddings): shorten the "
                "context that the teacher sees, or the completions."
            )
