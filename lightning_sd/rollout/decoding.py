"""Decode step by step, with a key-value cache where it gives the model's own logits."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn

from lightning_sd.models.cache import find_call_cost, get_cache_argument, get_causal_lm, left_pad
from lightning_sd.models.limits import find_rope_switch
from lightning_sd.models.media import collect_media_inputs, has_media
from lightning_sd.models.probing import Probe, accepts, compute_logits, eval_mode, make_probe

log = logging.getLogger(__name__)

Prompts = Sequence[Sequence[int]]


class Decoding(Protocol):
    """The state between two decoding steps, with one entry per active row."""

    logits: Tensor
    """Logits of the next token, ``[rows, vocab]``."""

    def select(self, rows: Tensor) -> None:
        """Keep the rows with these indices."""

    def advance(self, model: nn.Module, ids: Tensor) -> None:
        """Append one token per row, ``[rows]``, and compute the next logits."""


@dataclass(frozen=True)
class DecodingPlan:
    """How a model decodes exactly."""

    cached: bool
    """Whether a key-value cache (or a recurrent state) is used; if not, each step computes the
    whole rows again."""
    padded: bool
    """Whether rows of different lengths may be in one batch."""
    shared: bool = False
    """Whether a beginning that all prompts have in common may be encoded once."""

    def group(self, prompts: Prompts, switch: int | None) -> list[list[int]]:
        """Group the prompts that may be decoded together.

        Args:
            prompts: Token ids of each prompt.
            switch: Length at which the model's positions change; the two sides are separate groups.

        Returns:
            Indices of the prompts of each group.
        """
        groups: dict[Any, list[int]] = {}
        for i, prompt in enumerate(prompts):
            side = switch is not None and len(prompt) > switch
            groups.setdefault(side if self.padded else len(prompt), []).append(i)
        return list(groups.values())

    def prefill(self, model: nn.Module, prompts: Prompts, samples: int) -> Decoding:
        """Compute the logits after each prompt once, and repeat the state for its samples."""
        if not self.cached:
            return PlainDecoding.prefill(model, prompts, samples)
        call_cost = find_call_cost(next(model.parameters()).device)
        common = count_common(prompts, call_cost) if self.shared else 0
        return CachedDecoding.prefill(model, prompts, samples, common=common)


_PLANS: WeakKeyDictionary[nn.Module, DecodingPlan] = WeakKeyDictionary()


def plan_decoding(model: nn.Module) -> DecodingPlan:
    """Find the fastest way to decode that gives the logits of the model's plain forward pass.

    Compares, on short rows and once per model: a cache with padded rows (and a shared beginning), a
    cache with rows of equal length, no cache with padded rows. Without these, rows of equal length
    are computed whole.

    Args:
        model: The model.

    Raises:
        ValueError: The model is not causal.
    """
    if model not in _PLANS:
        with eval_mode(model), torch.no_grad():
            _PLANS[model] = _probe_plan(model)
    return _PLANS[model]


def find_groups(model: nn.Module, plan: DecodingPlan, prompts: Prompts) -> list[list[int]]:
    """Group prompts by the plan; prompts with sounds or images stay together."""
    if has_media(prompts):
        return [list(range(len(prompts)))]
    return plan.group(prompts, find_rope_switch(model))


def count_common(prompts: Prompts, call_cost: int) -> int:
    """Count the tokens with which all prompts begin, if encoding them once costs less; else 0."""
    if len(prompts) < 2 or has_media(prompts):
        return 0
    # No two prompts differ earlier than the first and the last in lexicographic order.
    first, last = min(map(tuple, prompts)), max(map(tuple, prompts))
    limit = min(map(len, prompts)) - 1  # at least one token of each prompt is left
    common = next((i for i in range(limit) if first[i] != last[i]), limit)
    return common if common * (len(prompts) - 1) > call_cost else 0


def _probe_plan(model: nn.Module) -> DecodingPlan:
    probe = make_probe(model)
    name = type(get_causal_lm(model)).__name__
    if _try(lambda: _decodes(model, probe, [0, 1, 2], CachedDecoding.prefill)):
        return DecodingPlan(True, True, shared=_try(lambda: _shares(model, probe)))
    if _try(lambda: _decodes(model, probe, [0, 1], CachedDecoding.prefill)):
        _report(f"{name} does not support padded prompts: prompts of equal length decode together.")
        return DecodingPlan(cached=True, padded=False)
    _report(
        f"{name} decodes without a cache, because its cached steps differ from its forward pass "
        "over the whole row: each step computes the rows again."
    )
    padded = _try(lambda: _decodes(model, probe, [0, 1, 2], PlainDecoding.prefill))
    return DecodingPlan(cached=False, padded=padded)


@rank_zero_only
def _report(text: str) -> None:
    log.warning(text)


def _try(check: Callable[[], bool]) -> bool:
    """Run a check; a model that raises an error in it does not pass."""
    try:
        return check()
    except Exception as error:
        log.debug("A way to decode fails with %r.", error)
        return False


def _shares(model: nn.Module, probe: Probe) -> bool:
    """Return whether rows may continue a beginning that was encoded once.

    Padding then stands between the beginning and the rest, which windows and recurrent states do
    not pass over.
    """
    from lightning_sd.models.growing_cache import GrowingLayer, make_growing_cache

    layers = make_growing_cache(getattr(model, "config", None)).layers
    if not all(type(layer) is GrowingLayer for layer in layers):
        return False
    start = probe.prompts[0]
    prompts = [[*start, *prompt] for prompt in probe.prompts]
    rows = zip(prompts, probe.completions, strict=True)
    logits = [compute_logits(model, [[*p, *c]])[0, len(p) - 1 :] for p, c in rows]
    longer = replace(probe, prompts=prompts, logits=logits)
    prefill = partial(CachedDecoding.prefill, common=len(start))
    return _decodes(model, longer, [0, 1, 2], prefill)


def _decodes(
    model: nn.Module, probe: Probe, rows: list[int], prefill: Callable[..., Decoding]
) -> bool:
    """Return whether decoding the probe's rows, moved around on the way, gives its logits."""
    device = next(model.parameters()).device
    state = prefill(model, [probe.prompts[row] for row in rows], 2)
    active = [row for row in rows for _ in range(2)]
    kept: dict[int, list[Tensor]] = {row: [] for row in rows}
    for step in range(len(probe.completions[0]) + 1):
        for row in rows:
            kept[row].append(state.logits[active.index(row)])
        if step == 1:
            order = [*range(1, len(active), 2)][::-1]
            state.select(torch.tensor(order, device=device))
            active = [active[i] for i in order]
        if step < len(probe.completions[0]):
            ids = [probe.completions[row][step] for row in active]
            state.advance(model, torch.tensor(ids, device=device))
    return probe.matches([torch.stack(kept[row]) for row in rows], rows)


@dataclass
class CachedDecoding:
    """Decodes with a key-value cache or recurrent states, prompts padded on the left."""

    logits: Tensor
    cache: Any
    mask: Tensor | None
    positions: Tensor

    @classmethod
    def prefill(
        cls, model: nn.Module, prompts: Prompts, samples: int, *, common: int = 0
    ) -> CachedDecoding:
        """Encode each prompt once.

        Args:
            model: The model.
            prompts: Token ids of each prompt.
            samples: Rows per prompt.
            common: Length of a beginning of all prompts, which is encoded once for all.
        """
        # Imported here because transformers takes seconds to import.
        from lightning_sd.models.growing_cache import make_growing_cache

        device = next(model.parameters()).device
        ids, mask, positions = left_pad([prompt[common:] for prompt in prompts], device)
        cache = make_growing_cache(getattr(model, "config", None))
        state = cls(ids.new_empty(0), cache, None, positions[:1])
        extra: dict[str, Any] = {"logits_to_keep": 1} if accepts(model, "logits_to_keep") else {}
        if common:
            beginning, _, state.positions = left_pad([prompts[0][:common]], device)
            state._forward(model, beginning, **extra)
            state.select(torch.zeros(len(prompts), dtype=torch.long, device=device))
            if mask is not None:
                mask = torch.cat([mask.new_ones(len(prompts), common), mask], 1)
        else:
            extra |= collect_media_inputs(prompts, device)
        state.mask, state.positions = mask, positions + common
        state._forward(model, ids, **extra)
        state.positions = state.positions[:, -1:] + 1
        rows = torch.arange(len(prompts), device=device).repeat_interleave(samples)
        state.logits = state.logits[rows]
        state.select(rows)
        return state

    def select(self, rows: Tensor) -> None:
        """Keep the rows with these indices."""
        self.cache.reorder_cache(rows)
        self.mask = self.mask if self.mask is None else self.mask[rows]
        self.positions = self.positions[rows]

    def advance(self, model: nn.Module, ids: Tensor) -> None:
        """Append one token per row, ``[rows]``, and compute the next logits."""
        if self.mask is not None:
            self.mask = torch.cat([self.mask, self.mask.new_ones(len(ids), 1)], 1)
        self._forward(model, ids.unsqueeze(1))
        self.positions = self.positions + 1

    def _forward(self, model: nn.Module, ids: Tensor, **extra: Any) -> None:
        if accepts(model, "output_router_logits"):
            # The auxiliary loss fails with the mask of all tokens and the router logits of one.
            extra["output_router_logits"] = False
        out = model(
            input_ids=ids,
            attention_mask=self.mask,
            position_ids=self.positions,
            use_cache=True,
            **extra,
            **{get_cache_argument(model): self.cache},
        )
        self.logits = out.logits[:, -1]


@dataclass
class PlainDecoding:
    """Decodes without a cache: each step runs the whole rows, padded on the right."""

    logits: Tensor
    rows: list[list[int]]

    @classmethod
    def prefill(cls, model: nn.Module, prompts: Prompts, samples: int) -> PlainDecoding:
        """Run each prompt once.

        Raises:
            ValueError: A prompt has sounds or images.
        """
        if has_media(prompts):
            raise ValueError(
                f"{type(get_causal_lm(model)).__name__} needs a working key-value cache to sample "
                "from prompts with sounds or images."
            )
        state = cls(torch.empty(0), [list(prompt) for prompt in prompts])
        state._forward(model)
        index = [i for i in range(len(prompts)) for _ in range(samples)]
        state.logits, state.rows = state.logits[index], [list(state.rows[i]) for i in index]
        return state

    def select(self, rows: Tensor) -> None:
        """Keep the rows with these indices."""
        self.rows = [list(self.rows[i]) for i in rows.tolist()]

    def advance(self, model: nn.Module, ids: Tensor) -> None:
        """Append one token per row, ``[rows]``, and compute the next logits."""
        for row, token in zip(self.rows, ids.tolist(), strict=True):
            row.append(token)
        self._forward(model)

    def _forward(self, model: nn.Module) -> None:
        logits = compute_logits(model, self.rows)
        last = torch.tensor([len(row) - 1 for row in self.rows], device=logits.device)
        self.logits = logits[torch.arange(len(last), device=logits.device), last]
