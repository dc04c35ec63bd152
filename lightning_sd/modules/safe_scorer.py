"""Score rows in parts: within a token budget, and after running out of memory."""

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
    outputs: tuple[Tensor, ...] | None
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
    """A scorer that splits its rows to keep a token budget, and after an out-of-memory error.

    With gradients each part is computed again in the backward pass, so that the activations of one
    part are held at a time. If memory runs out in the backward pass itself, parameters that already
    have the gradient of the part keep it, and the part is split for the others. This works in a
    single process only: with several, hooks reduce gradients while the pass runs, so the error ends
    the run.

    Gradients arrive in ``.grad`` (``backward``); ``torch.autograd.grad`` does not see parameters.

    Args:
        model: See :class:`~lightning_sd.scoring.Scorer`.
        limits: What was learned so far; updated on an error.
        max_tokens: Most tokens per part, prompts included; None: no limit. A row with more is a
            part of its own.

    Raises:
        ValueError: ``max_tokens`` is set for a model that is gathered layer by layer.
    """

    def __init__(
        self, model: nn.Module, limits: MemoryLimits, max_tokens: int | None = None
    ) -> None:
        super().__init__(model)
        self.limits, self.max_tokens = limits, max_tokens
        if max_tokens is not None and gathers_layers(model):
            raise ValueError(
                f"max_score_tokens={max_tokens} with FSDP2's gather=layers: ranks would make "
                "different numbers of backward passes. Set gather to model, or leave "
                "max_score_tokens out."
            )
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

        def score(rows: range) -> tuple[Tensor, ...]:
            some = slice(rows.start, rows.stop)
            scores = super(MemorySafeScorer, self).score(prompts[some], completions[some])
            heads.append(scores.head)
            return scores.hidden, *scores.router_logits

        lengths = [(len(c), len(p) + len(c)) for p, c in zip(prompts, completions, strict=True)]
        work = PartialBackward(score, self.model, self.limits, lengths, self.max_tokens)
        hidden, *router_logits = work.score_all()
        return Scores(hidden, heads[0], tuple(router_logits))


def fill(sizes: Sequence[int], budget: int | None) -> list[range]:
    """Group neighboring rows whose sizes add up to a budget at most.

    Args:
        sizes: Size of each row.
        budget: Largest sum of a group, which only a single row may exceed; None: one group.

    Example:
        >>> fill([3, 4, 9, 1], 8)
        [range(0, 2), range(2, 3), range(3, 4)]
    """
    starts, total = [0], 0
    for row, size in enumerate(sizes):
        total += size
        if budget is not None and total > budget and row > starts[-1]:
            starts.append(row)
            total = size
    return [range(*pair) for pair in zip(starts, [*starts[1:], len(sizes)], strict=True)]


class PartialBackward:
    """Scores rows with a backward pass that goes on in smaller parts if memory runs out.

    Args:
        score: Scores some of the rows: hidden states ``[tokens, hidden]`` of their completions, and
            router logits ``[row tokens, experts]`` per layer if their loss is trained.
        model: The model.
        limits: What was learned so far; updated on an error.
        lengths: Tokens of each row's completion, and of the whole row.
        max_tokens: Most tokens per part; see :class:`MemorySafeScorer`.
    """

    def __init__(
        self,
        score: Callable[[range], tuple[Tensor, ...]],
        model: nn.Module,
        limits: MemoryLimits,
        lengths: Sequence[tuple[int, int]],
        max_tokens: int | None = None,
    ) -> None:
        self.score, self.limits, self.lengths = score, limits, lengths
        self.max_tokens = max_tokens
        self.parameters = [parameter for _, parameter in list_trainable(model)]
        self.device = next(model.parameters()).device
        kind = self.device.type
        self.autocast = (kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))
        self.parts: list[Part] = []

    def score_all(self) -> tuple[Tensor, ...]:
        """Score all rows; see ``score``."""
        alone = not (torch.distributed.is_available() and torch.distributed.is_initialized())
        if torch.is_grad_enabled() and self.parameters and alone:
            marker = torch.empty(0, device=self.device, requires_grad=True)
            outputs: tuple[Tensor, ...] = _BackwardInParts.apply(marker, self)
            return outputs
        return self.score_parts()

    def score_parts(self) -> tuple[Tensor, ...]:
        """Score all rows in parts that fit, and keep the parts with their graphs."""
        whole = Part(range(len(self.lengths)), None, self.parameters)

        def attempt(limit: int | None) -> list[Part]:
            sizes = [length for _, length in self.lengths]
            parts = [Part(rows, None, self.parameters) for rows in fill(sizes, self.max_tokens)]
            if limit is not None:
                parts = [smaller for part in parts for smaller in part.split(limit)]
            if len(parts) < 2:
                return [replace(whole, outputs=self.score(whole.rows))]
            return [replace(part, outputs=self._score_without_activations(part)) for part in parts]

        self.parts = self.limits.run("scoring", len(whole.rows), attempt)
        outputs = [part.outputs for part in self.parts if part.outputs is not None]
        return tuple(map(torch.cat, zip(*outputs, strict=True)))

    def backpropagate(self, gradients: Sequence[Tensor]) -> None:
        """Add to the parameters' gradients, given those of all scores; see ``score``."""
        sizes = list(zip(*self.lengths, strict=True))
        per_row = [g.split(sizes[min(k, 1)]) for k, g in enumerate(gradients)]
        waiting, self.parts = self.parts, []
        while waiting:
            part, limit = waiting.pop(), self.limits.scoring
            if limit is not None and limit < len(part.rows):
                waiting += part.split(limit)
                continue
            versions = [_get_version(parameter) for parameter in part.parameters]
            try:
                some = slice(part.rows.start, part.rows.stop)
                self._backpropagate_part(part, [torch.cat(rows[some]) for rows in per_row])
                continue
            except torch.OutOfMemoryError as error:
                reason = str(error)
            pairs = zip(part.parameters, versions, strict=True)
            missing = [p for p, version in pairs if _get_version(p) == version]
            part = Part(part.rows, None, missing)
            self.limits.halve("scoring", len(part.rows), reason, "the backward pass")
            waiting.append(part)

    def _backpropagate_part(self, part: Part, gradients: Sequence[Tensor]) -> None:
        outputs, inputs = part.outputs, None
        if outputs is None:
            if not part.parameters:
                return
            with torch.enable_grad(), torch.autocast(*self.autocast):
                outputs, inputs = self.score(part.rows), part.parameters
        trained = [k for k, output in enumerate(outputs) if output.requires_grad]
        if trained:  # else only the head is trained
            torch.autograd.backward(
                [outputs[k] for k in trained], [gradients[k] for k in trained], inputs=inputs
            )

    def _score_without_activations(self, part: Part) -> tuple[Tensor, ...]:
        if not torch.is_grad_enabled():
            return self.score(part.rows)
        # Its device tells `checkpoint` which random state to restore.
        marker = torch.empty(0, device=self.device)
        outputs: tuple[Tensor, ...] = checkpoint(
            lambda _: self.score(part.rows), marker, use_reentrant=False
        )
        return outputs


class _BackwardInParts(torch.autograd.Function):
    """Hides the graphs of the parts from autograd, so that an error in them can be caught."""

    @staticmethod
    def forward(ctx: Any, marker: Tensor, work: PartialBackward) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            outputs = work.score_parts()
        ctx.work = work
        return tuple(output.detach() for output in outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None]:
        ctx.work.backpropagate(gradients)
        return None, None


def _get_version(parameter: nn.Parameter) -> tuple[int, int] | None:
    """Return what changes when autograd adds to the gradient."""
    grad = parameter.grad
    return None if grad is None else (id(grad), grad._version)
