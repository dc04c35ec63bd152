"""Several objectives on the same tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from lightning_sd.objectives.base import Objective, TokenInputs, TokenLoss
from lightning_sd.objectives.inputs import ObjectiveInputs, StepState
from lightning_sd.objectives.spec import InputSpec, merge_specs


@dataclass(frozen=True)
class Mixture(Objective):
    """A weighted sum of objectives under one average.

    SDPO's hybrid, A = lam A_GRPO + (1 - lam) A_SDPO, is ``PolicyGradient`` and ``SampledToken`` (or
    a reverse KL, whose gradient is the same in expectation) with coefficients lam and 1 - lam:
    policy gradients are linear in the advantage. Rollouts without a teacher view get the policy
    gradient alone, and are counted too. A term's masks and scales apply to its own share only.

    Raises:
        ValueError: Coefficients and terms differ in number; a term sets what only the mixture may
            set (reduction, temperature, chunk_tokens, token_weights), is a mixture itself, or
            builds a target of its own.
    """

    terms: Sequence[Objective] = ()
    coefficients: Sequence[float] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "terms", tuple(self.terms))
        object.__setattr__(self, "coefficients", tuple(self.coefficients))
        if not self.terms or len(self.terms) != len(self.coefficients):
            raise ValueError(
                f"terms ({len(self.terms)}) and coefficients ({len(self.coefficients)}): give one "
                "or more terms and a coefficient for each."
            )
        for term in self.terms:
            if isinstance(term, Mixture) or type(term).build_target is not Objective.build_target:
                raise ValueError(
                    f"terms: {type(term).__name__} can't be one of them: a mixture has one target "
                    "for all its terms, and no mixtures inside."
                )
            for field in fields(Objective):
                if getattr(term, field.name) != field.default:
                    raise ValueError(
                        f"terms: {type(term).__name__} sets {field.name}, which is the mixture's "
                        "to set: move it there."
                    )

    @property
    def inputs(self) -> InputSpec:
        """What the terms and the token weights read."""
        merged = merge_specs([term.inputs for term in self.terms])
        return merged.add(*super().inputs.statistics)

    def make_token_inputs(self, inputs: ObjectiveInputs, state: StepState) -> TokenInputs:
        """Return the terms' advantages, and each term's share of each token."""
        parts = [term.make_token_inputs(inputs, state) for term in self.terms]
        has_view = inputs.expand_to_tokens(inputs.has_view)
        shares, advantages = [], []
        for term, part, coefficient in zip(self.terms, parts, self.coefficients, strict=True):
            share = (
                coefficient
                * (has_view if _requires_teacher(term) else torch.ones_like(has_view)).float()
            )
            for factor in (part.kept, part.scale):
                share = share if factor is None else share * factor
            shares.append(share)
            none = torch.zeros_like(share)
            advantages.append(none if part.advantages is None else part.advantages)
        given = any(part.advantages is not None for part in parts)
        return TokenInputs(
            inputs.ids,
            inputs.old_logprobs,
            torch.stack(advantages, -1) if given else None,
            shares=torch.stack(shares, -1),
            behavior_logprobs=_stack_behavior_logprobs(parts),
        )

    def token_loss(
        self, student_logits: Tensor, teacher_logits: Tensor | None, tokens: TokenInputs
    ) -> TokenLoss:
        """Return the weighted sum; see :class:`Objective`."""
        assert tokens.shares is not None
        results = []
        for i, (term, share) in enumerate(zip(self.terms, tokens.shares.unbind(-1), strict=True)):
            if teacher_logits is not None or not _requires_teacher(term):
                given = None if tokens.advantages is None else tokens.advantages[:, i]
                behavior = tokens.behavior_logprobs
                behavior = None if behavior is None else behavior[:, i]
                own = replace(tokens, advantages=given, shares=None, behavior_logprobs=behavior)
                results.append((term.token_loss(student_logits, teacher_logits, own), share))
        losses = [share.to(result.loss.dtype) * result.loss for result, share in results]
        teachers = [r.teacher_logprobs for r, _ in results if r.teacher_logprobs is not None]
        return replace(
            results[0][0],
            loss=torch.stack(losses).sum(0),
            teacher_logprobs=teachers[0] if teachers else None,
        )


def _stack_behavior_logprobs(parts: Sequence[TokenInputs]) -> Tensor | None:
    """Stack each term's denominator of the importance weights, ``[tokens, terms]``; NaN: none."""
    found = [p.behavior_logprobs for p in parts if p.behavior_logprobs is not None]
    if not found:
        return None
    none = torch.full_like(found[0], torch.nan)
    columns = [none if p.behavior_logprobs is None else p.behavior_logprobs for p in parts]
    return torch.stack(columns, -1)


def _requires_teacher(term: Objective) -> bool:
    return term.inputs.teacher == "required"
