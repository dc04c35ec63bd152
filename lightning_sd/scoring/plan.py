"""Choose how a model is scored exactly: its split into backbone and head, padding, and sharing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from lightning_sd.models.cache import get_causal_lm, make_cache
from lightning_sd.models.experts import RouterLoss, find_router_loss, make_router_loss_error
from lightning_sd.models.limits import find_max_length, find_rope_switch
from lightning_sd.models.probing import Probe, compute_logits, eval_mode, make_probe
from lightning_sd.scoring.head import Scaling, find_scaling, get_head
from lightning_sd.scoring.prefix import compute_shared_hidden
from lightning_sd.scoring.sharing import SharedRows

log = logging.getLogger(__name__)

SHARED_LAYERS = ("DynamicLayer", "DynamicSlidingWindowLayer", "DummyLayer")
"""Cache layers through which prefixes are shared: their gradient flows, unlike that of a recurrent
state, which is overwritten in place."""


@dataclass(frozen=True)
class Split:
    """A model as a backbone, which computes hidden states, and a linear head."""

    backbone: nn.Module
    linear: nn.Linear
    scaling: Scaling


@dataclass(frozen=True)
class ScoringPlan:
    """How a model is scored so that every row gets the logits of its own forward pass."""

    split: Split | None
    """Backbone and head; None if the model is called whole."""
    padded: bool
    """Whether rows of different lengths may be in one batch."""
    shared: bool
    """Whether prefixes may be encoded once for several rows."""
    max_length: int | None
    """Most tokens per row; None without a limit."""
    rope_switch: int | None
    """Length above which the model's positions change; rows on both sides are never batched."""
    router_loss: RouterLoss | None
    """The routers' auxiliary loss; None if the configuration does not ask for it."""


def plan_scoring(model: nn.Module) -> ScoringPlan:
    """Find the fastest exact way to score with a model, by comparing short rows.

    Args:
        model: The model.

    Raises:
        ValueError: The model is not causal, it is random in train mode, or its configuration asks
            for an auxiliary loss that its router logits do not give.
        FloatingPointError: Its logits are NaN or infinite.
    """
    with torch.no_grad():
        with eval_mode(model):
            probe = make_probe(model)
            split = _find_split(model, probe)
            padded = _try(lambda: _scores_padded(model, probe))
            router_loss = _find_router_loss(model, split, probe)
            # The auxiliary loss is a mean over the tokens of whole rows.
            shared = (
                split is not None
                and router_loss is None
                and _try(lambda: _scores_shared(model, split, probe))
            )
        _check_train_mode(model, probe)
    name = type(get_causal_lm(model)).__name__
    if not padded:
        log.warning("%s does not support padding: rows of equal length are scored together.", name)
    elif split is not None and not shared:
        log.info("%s does not share prompts between rows: every row is scored whole.", name)
    return ScoringPlan(
        split, padded, shared, find_max_length(model), find_rope_switch(model), router_loss
    )


def _try(check: Callable[[], bool]) -> bool:
    """Run a check; a model that raises an error in it does not pass."""
    try:
        return check()
    except Exception as error:
        log.debug("A way to score fails with %r.", error)
        return False


def _find_split(model: nn.Module, probe: Probe) -> Split | None:
    """Split the model into backbone and head if they reproduce the model's logits."""
    base: Any = get_causal_lm(model)
    linear = base.get_output_embeddings() if hasattr(base, "get_output_embeddings") else None
    backbone = base.get_decoder() if hasattr(base, "get_decoder") else None
    if type(linear) is not nn.Linear or backbone is None or backbone is base:
        return None
    row = torch.tensor([*probe.prompts[0], *probe.completions[0]], device=linear.weight.device)
    scaling = None
    try:
        hidden = backbone(input_ids=row.unsqueeze(0), use_cache=False).last_hidden_state[0]
        outputs = linear(hidden[len(probe.prompts[0]) - 1 :])
        scaling = find_scaling(outputs, probe.logits[0], base.config, coarse=probe.coarse)
    except Exception as error:
        log.debug("The backbone fails with %r.", error)
    if scaling is None:
        rank_zero_warn(
            f"{type(base).__name__} computes its logits from the last hidden state in an "
            "unknown way. Scoring works, but needs memory for the logits of whole sequences."
        )
        return None
    return Split(backbone, linear, scaling)


def _find_router_loss(model: Any, split: Split | None, probe: Probe) -> RouterLoss | None:
    """Find the routers' auxiliary loss, and compare it with that of the model's forward pass."""
    router_loss = find_router_loss(model)
    if router_loss is None:
        return None
    device = next(model.parameters()).device
    ids = torch.tensor(probe.prompts[0] + probe.completions[0], device=device).unsqueeze(0)
    expected = model(input_ids=ids, output_router_logits=True).aux_loss
    part = model if split is None else split.backbone
    logits = part(input_ids=ids, output_router_logits=True).router_logits
    try:
        torch.testing.assert_close(router_loss.compute(logits), expected, rtol=1e-3, atol=0.0)
    except (AssertionError, RuntimeError, TypeError) as error:
        raise make_router_loss_error(model) from error
    return router_loss


def _scores_padded(model: nn.Module, probe: Probe) -> bool:
    rows = [[*p, *c] for p, c in zip(probe.prompts, probe.completions, strict=True)]
    batch = compute_logits(model, rows)
    ends = zip(batch, rows, probe.prompts, strict=True)
    return probe.matches([logits[len(p) - 1 : len(row)] for logits, row, p in ends])


def _scores_shared(model: nn.Module, split: Split | None, probe: Probe) -> bool:
    base: Any = get_causal_lm(model)
    kinds = {type(layer).__name__ for layer in make_cache(base.config).layers}
    if split is None or not kinds <= set(SHARED_LAYERS):
        return False
    tails = [probe.completions[0], probe.completions[0][:2], probe.completions[2]]
    rows = SharedRows([probe.prompts[0], probe.prompts[2]], [0, 0, 1], tails)
    hidden = compute_shared_hidden(split.backbone, base.config, rows, [len(t) for t in tails])
    parts: tuple[Tensor, ...] = get_head(split.linear, split.scaling)(hidden).split(
        [len(tail) for tail in tails]
    )
    return probe.matches(parts, [0, 0, 2])


def _check_train_mode(model: nn.Module, probe: Probe) -> None:
    """Refuse a model whose train mode adds noise of its own.

    Adapters may have a dropout, and 8-bit layers multiply with other kernels in train mode.
    """
    quantized = any(p.dtype in (torch.int8, torch.uint8) for p in model.parameters())
    if quantized or any(isinstance(m, nn.Dropout) and m.p > 0 for m in model.modules()):
        return
    row = [*probe.prompts[0], *probe.completions[0]]
    logits = compute_logits(model, [row])[0, len(probe.prompts[0]) - 1 :]
    if not probe.matches([logits], [0]):
        raise ValueError(
            f"{type(get_causal_lm(model)).__name__} gives other logits in train mode than in eval "
            "mode: it has a dropout or noise that is not disabled. Set it to 0 in the model's "
            "configuration."
        )
