"""Sample from a transformers model; the G completions of a prompt share its prefill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lightning_sd.models.finite import raise_non_finite_logits
from lightning_sd.models.limits import check_lengths
from lightning_sd.models.probing import eval_mode
from lightning_sd.rollout.base import Completion
from lightning_sd.rollout.decoding import Decoding, find_groups, plan_decoding
from lightning_sd.rollout.draw import draw, find_excluded_tokens
from lightning_sd.rollout.packed import use_packed_linears
from lightning_sd.rollout.settings import SamplingSettings
from lightning_sd.rollout.stopping import StopRule

SHRINK_AT = 0.125
"""Share of finished rows at which they are removed; each costs a copy of at most one row."""


@dataclass(frozen=True)
class TransformersSampler(SamplingSettings):
    """Samples with the model's own forward pass and a key-value cache.

    Raises:
        ValueError: A setting is out of range.
    """

    stop_strings: Sequence[str] = ()
    """Texts that end a completion; the token that completes one is the last."""

    def __post_init__(self) -> None:
        super().__post_init__()
        strings: Any = self.stop_strings
        if isinstance(strings, str) or not all(strings):
            raise ValueError(
                f"stop_strings={self.stop_strings!r}: must be a list of texts that are not empty."
            )
        object.__setattr__(self, "stop_strings", tuple(strings))

    @torch.no_grad()
    def sample(
        self,
        model: nn.Module,
        prompts: Sequence[Sequence[int]],
        *,
        samples: int,
        stop_ids: Sequence[int],
        generator: torch.Generator,
    ) -> list[Completion]:
        """Sample from each prompt; see :meth:`Sampler.sample`.

        Raises:
            ValueError: The model is not causal, or a prompt and its completion can be longer than
                the model allows.
            FloatingPointError: The logits are NaN or infinite.
        """
        check_lengths(model, prompts, self.max_new_tokens)
        plan = plan_decoding(model)
        stop = StopRule.build(stop_ids, self.stop_token_ids, self.stop_strings)
        completions: list[Completion] = []
        with eval_mode(model), use_packed_linears(model, len(prompts) * samples):
            for group in find_groups(model, plan, prompts):
                state = plan.prefill(model, [prompts[i] for i in group], samples)
                completions += self._decode(model, state, group, samples, stop, generator)
        return sorted(completions, key=lambda completion: completion.prompt)

    def _decode(
        self,
        model: nn.Module,
        state: Decoding,
        group: Sequence[int],
        samples: int,
        stop: StopRule,
        generator: torch.Generator,
    ) -> list[Completion]:
        """Sample the completions of one group of prompts."""
        rows = _Rows(len(group) * samples, state.logits.device)
        for step in range(self.max_new_tokens):
            ids, logprobs = self.pick(state.logits, generator)
            running = rows.add(ids, logprobs, stop)
            if running < 0:
                raise_non_finite_logits(model)
            if not running or step + 1 == self.max_new_tokens:
                break
            keep = rows.shrink(running)
            if keep is not None:
                state.select(keep)
                ids = ids[keep]
            state.advance(model, ids)
        return rows.list_completions(group, samples)

    def pick(self, logits: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw one token per row.

        Args:
            logits: ``[rows, vocab]``.
            generator: A generator on the logits' device.

        Returns:
            Ids ``[rows]`` and their log-probabilities before top-k and top-p, ``[rows]``.
        """
        scaled = logits.float()
        if self.temperature not in (0, 1):
            # The difference first: logits divided by a small temperature may overflow.
            scaled = (scaled - scaled.amax(-1, keepdim=True)).div_(self.temperature)
        probs = scaled.softmax(-1)
        if self.temperature == 0:
            ids = scaled.argmax(-1)
        else:
            excluded = find_excluded_tokens(scaled, top_k=self.top_k, top_p=self.top_p)
            ids = draw(probs if excluded is None else probs.masked_fill(excluded, 0), generator)
        return ids, probs.gather(-1, ids.unsqueeze(-1)).squeeze(-1).log_()


@dataclass
class _Rows:
    """The tokens sampled so far; ``live`` maps the rows of the batch to completions."""

    number: int
    device: torch.device
    ids: list[Tensor] = field(default_factory=list)
    logprobs: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.live = torch.arange(self.number, device=self.device)
        self.alive = torch.ones(self.number, dtype=torch.bool, device=self.device)
        self.lengths = torch.zeros(self.number, dtype=torch.long, device=self.device)

    def add(self, ids: Tensor, logprobs: Tensor, stop: StopRule) -> int:
        """Append one token per active row.

        Returns:
            The number of unfinished completions; -1 if a log-probability is NaN.
        """
        for store, values in ((self.ids, ids), (self.logprobs, logprobs)):
            column = torch.zeros(self.number, dtype=values.dtype, device=self.device)
            column[self.live] = values
            store.append(column)
        running = self.alive[self.live]
        self.lengths[self.live] += running.long()
        self.alive[self.live] = running & ~torch.isin(ids, stop.ids.to(ids.device))
        self._stop_at_strings(stop)
        # One transfer from the device answers both questions.
        return int(torch.where(logprobs.isnan().any(), -1, self.alive.sum()))

    def _stop_at_strings(self, stop: StopRule) -> None:
        if not stop.strings:
            return
        recent = torch.stack(self.ids[-stop.window :], 1)
        for row in self.alive.nonzero().squeeze(1).tolist():
            if stop.matches(recent[row].tolist()):
                self.alive[row] = False

    def shrink(self, running: int) -> Tensor | None:
        """Return the rows to keep, or None if too few are finished to be worth a copy.

        The last unfinished rows take the places of finished ones, so that no other row is copied.
        """
        if len(self.live) - running < SHRINK_AT * len(self.live):
            return None
        alive = self.alive[self.live]
        unfinished = alive.nonzero().squeeze(1)
        keep = torch.arange(running, device=self.device)
        keep[~alive[:running]] = unfinished[unfinished >= running]
        self.live = self.live[keep]
        return keep

    def list_completions(self, prompts: Sequence[int], samples: int) -> list[Completion]:
        """Return the completions, ``samples`` for each prompt of the group."""
        ids, logprobs = torch.stack(self.ids, 1).tolist(), torch.stack(self.logprobs, 1).tolist()
        lengths, alive = self.lengths.tolist(), self.alive.tolist()
        return [
            Completion(
                prompt=prompts[row // samples],
                ids=tuple(ids[row][: lengths[row]]),
                logprobs=tuple(logprobs[row][: lengths[row]]),
                finished=not alive[row],
            )
            for row in range(self.number)
        ]
