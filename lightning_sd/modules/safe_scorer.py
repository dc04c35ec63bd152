"""Score rows in parts, forward and backward, after an out-of-memory error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from lightning_sd.models.sharding import gather_parameters, gathers_layers, is_sharded
from lightning_sd.models.trainable import list_trainable
from lightning_sd.modules.memory import MemoryLimits
from lightning_sd.scoring import Scorer, Scores
from lightning_sd.scoring.layout import Ids


@dataclass(frozen=True)
class Part:
    """Rows that are scored together."""

    rows: range
    hidden: Tensor | None
    """Their scores with a graph; None: to be computed again."""
    parameters: Sequence[nn.Parameter]
    """Parameters that still miss the gradient of these rows."""

    def split(self, size: int) -> list[Part]:
        """Split the rows into parts of at most ``size`` rows, to be computed again."""
        starts = range(self.rows.start, self.rows.stop, size)
        stops = (min(start + size, self.rows.stop) for start in starts)
        rows = (range(*pair) for pair in zip(starts, stops, strict=True))
        return [Part(some, None, self.parameters) for some in rows]


class MemorySafeScorer(Scorer):
    """A scorer that splits its rows after an out-of-memory error.

    With gradients each part is computed again in the backward pass, so that the activations of one
    part are held at a time. If memory runs out in the backward pass itself, parameters that already
    have the gradient of the part keep it, and the part is split for the others. This works in a
    single process only: with several, hooks reduce gradients while the pass runs, so the error ends
    the run.

    Gradients arrive in ``.grad`` (``backward``); ``torch.autograd.grad`` does not see parameters.

    Args:
        model: See :class:`~lightning_sd.scoring.Scorer`.
        limits: What was learned so far; updated on an error.
    """

    def __init__(self, model: nn.Module, limits: MemoryLimits) -> None:
        super().__init__(model)
        self.limits = limits
        if is_sharded(model):
            with gather_parameters(model):
                self.prepare()  # its passes are without gradients, unlike those of training

    def score(self, prompts: Sequence[Ids], completions: Sequence[Ids]) -> Scores:
        """Score completions; see :meth:`Scorer.score`.

        A model that is gathered layer by layer gets no second attempt: other ranks would wait for
        the passes of the first.
        """
        if gathers_layers(self.model):
            return super().score(prompts, completions)
        self.prepare()  # outside of what is repeated
        heads = []

        def score(rows: range) -> Tensor:
            some = slice(rows.start, rows.stop)
            scores = super(MemorySafeScorer, self).score(prompts[some], completions[some])
            heads.append(scores.head)
            return scores.hidden

        work = PartialBackward(score, self.model, self.limits, [len(c) for c in completions])
        hidden = work.score_all()
        return Scores(hidden, heads[0])


class PartialBackward:
    """Scores rows with a backward pass that goes on in smaller parts if memory runs out.

    Args:
        score: Scores some of the rows, ``[tokens, hidden]``.
        model: The model.
        limits: What was learned so far; updated on an error.
        lengths: Tokens of each row.
    """

    def __init__(
        self,
        score: Callable[[range], Tensor],
        model: nn.Module,
        limits: MemoryLimits,
        lengths: Sequence[int],
    ) -> None:
        self.score, self.limits, self.lengths = score, limits, lengths
        self.parameters = [parameter for _, parameter in list_trainable(model)]
        self.device = next(model.parameters()).device
        kind = self.device.type
        self.autocast = (kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))
        self.parts: list[Part] = []

    def score_all(self) -> Tensor:
        """Score all rows, ``[tokens, hidden]``."""
        alone = not (torch.distributed.is_available() and torch.distributed.is_initialized())
        if torch.is_grad_enabled() and self.parameters and alone:
            marker = torch.empty(0, device=self.device, requires_grad=True)
            hidden: Tensor = _BackwardInParts.apply(marker, self)
            return hidden
        return self.score_parts()

    def score_parts(self) -> Tensor:
        """Score all rows in parts that fit, and keep the parts with their graphs."""
        whole = Part(range(len(self.lengths)), None, self.parameters)

        def attempt(limit: int | None) -> list[Part]:
            if limit is None or limit >= len(whole.rows):
                return [replace(whole, hidden=self.score(whole.rows))]
            parts = whole.split(limit)
            return [replace(part, hidden=self._score_without_activations(part)) for part in parts]

        self.parts = self.limits.run("scoring", len(whole.rows), attempt)
        return torch.cat([part.hidden for part in self.parts if part.hidden is not None])

    def backpropagate(self, gradient: Tensor) -> None:
        """Add to the parameters' gradients, given that of all scores ``[tokens, hidden]``."""
        per_row = gradient.split(list(self.lengths))
        waiting, self.parts = self.parts, []
        while waiting:
            part, limit = waiting.pop(), self.limits.scoring
            if limit is not None and limit < len(part.rows):
                waiting += part.split(limit)
                continue
            versions = [_get_version(parameter) for parameter in part.parameters]
            try:
                self._backpropagate_part(part, torch.cat(per_row[part.rows.start : part.rows.stop]))
                continue
            except torch.OutOfMemoryError as error:
                reason = str(error)
            pairs = zip(part.parameters, versions, strict=True)
            missing = [p for p, version in pairs if _get_version(p) == version]
            part = Part(part.rows, None, missing)
            self.limits.halve("scoring", len(part.rows), reason, "the backward pass")
            waiting.append(part)

    def _backpropagate_part(self, part: Part, gradient: Tensor) -> None:
        if part.hidden is not None:
            if part.hidden.requires_grad:  # else only the head is trained
                part.hidden.backward(gradient)
        elif part.parameters:
            with torch.enable_grad(), torch.autocast(*self.autocast):
                hidden = self.score(part.rows)
            hidden.backward(gradient, inputs=part.parameters)

    def _score_without_activations(self, part: Part) -> Tensor:
        if not torch.is_grad_enabled():
            return self.score(part.rows)
        # Its device tells `checkpoint` which random state to restore.
        marker = torch.empty(0, device=self.device)
        hidden: Tensor = checkpoint(lambda _: self.score(part.rows), marker, use_reentrant=False)
        return hidden


class _BackwardInParts(torch.autograd.Function):
    """Hides the graphs of the parts from autograd, so that an error in them can be caught."""

    @staticmethod
    def forward(ctx: Any, marker: Tensor, work: PartialBackward) -> Tensor:
        with torch.enable_grad():
            hidden = work.score_parts()
        ctx.work = work
        return hidden.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None]:
        ctx.work.backpropagate(gradients[0])
        return None, None


def _get_version(parameter: nn.Parameter) -> tuple[int, int] | None:
    """Return what changes when autograd adds to the gradient."""
    grad = parameter.grad
    return None if grad is None else (id(grad), grad._version)
