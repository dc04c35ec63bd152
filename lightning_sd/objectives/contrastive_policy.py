"""RLCSD: group advantages, moved token by token by how a right hint differs from wrong ones."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lightning_sd.functional.contrastive import clamp_to_sign, contrastive_residual
from lightning_sd.objectives.anchored import AnchoredPolicy
from lightning_sd.objectives.base import TokenInputs, check_positive
from lightning_sd.objectives.inputs import ObjectiveInputs, StepState
from lightning_sd.objectives.spec import InputSpec


@dataclass(frozen=True)
class ContrastivePolicy(AnchoredPolicy):
    """RLCSD's loss; its context is ``ContrastiveHints``, its teacher ``SnapshotTeacher(10)``.

    With ``e = log p_c - log mean_k p_w^k`` at the sampled token and ``r = lam tanh(e / tau)``,
    tokens with ``|r| > delta`` are moved: their advantage is A + r, never across 0. Moved tokens
    and the others are averaged separately, and the two means are added, the first times ``eta``.

    ``reduction: token`` takes both means over the tokens of the batch, as the authors' code does;
    ``sequence`` takes them over each rollout's tokens and then over rollouts (the paper's eq. 15).
    The batch is that of all ranks; with ``accumulate_grad_batches`` above 1 every micro-batch
    splits its own tokens. Masks among ``token_weights`` apply before anything is counted.
    """

    tau: float = 0.02
    """Evidence, in nats, at which a token's residual nears its bound."""
    lam: float = 0.5
    """Bound of the residual (beta * lam of the paper, which sets beta to 1)."""
    delta: float = 0.02
    """Only tokens with a residual above this are moved."""
    eta: float = 1.0
    """Weight of the moved tokens' mean."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "tau")
        for name in ("lam", "delta", "eta"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: must not be negative.")
        if self.reduction == "constant":
            raise ValueError(
                "reduction='constant' has no mean that could be split in two: choose token or "
                "sequence."
            )

    @property
    def inputs(self) -> InputSpec:
        """Log-probabilities under the right hint and under the wrong ones."""
        return super().inputs.add("contrast_logprobs")

    def compute_residual(self, inputs: ObjectiveInputs) -> Tensor:
        """Return the residual, ``[N]``; 0 for tokens that are not moved."""
        residual = contrastive_residual(
            self.compare_hints(inputs), tau=self.tau, lam=self.lam, beta=1.0, clip=math.inf
        )
        return torch.where(residual.abs() > self.delta, residual, 0.0)

    def make_token_inputs(self, inputs: ObjectiveInputs, state: StepState) -> TokenInputs:
        """Move group advantages where the evidence is strong."""
        tokens = super().make_token_inputs(inputs, state)
        assert tokens.advantages is not None
        moved = clamp_to_sign(tokens.advantages, self.compute_residual(inputs))
        kept = ~torch.isnan(self.compare_hints(inputs))
        return replace(tokens, advantages=moved, kept=kept)

    def apply_token_weights(self, inputs: ObjectiveInputs, state: StepState) -> TokenInputs:
        """Apply the token weights, and split the one mean in two."""
        tokens = super().apply_token_weights(inputs, state)
        assert tokens.kept is not None
        scale = self._split_mean(self.compute_residual(inputs) != 0, tokens.kept, inputs, state)
        return replace(tokens, scale=scale if tokens.scale is None else tokens.scale * scale)

    def _split_mean(
        self, moved: Tensor, kept: Tensor, inputs: ObjectiveInputs, state: StepState
    ) -> Tensor:
        """Return factors that make one mean over all tokens the sum of two means: ``[N]``."""
        paths = torch.stack([~moved & kept, moved & kept]).double()
        if self.reduction == "token":
            sizes = state.sum_over_ranks(paths.sum(-1)).unsqueeze(-1)
        else:
            expand_to_tokens = paths.new_zeros(2, len(inputs.lengths))
            sizes = expand_to_tokens.index_add_(1, inputs.rows, paths)[:, inputs.rows]
        factors = sizes.sum(0) / sizes.clamp(min=1)
        return torch.where(moved, self.eta * factors[1], factors[0])
