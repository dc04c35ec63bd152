"""RLCSD: group advantages, moved token by token by what a right hint says beyond wrong ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lightning_sd.functional.contrastive import clamp_to_sign, contrastive_residual
from lightning_sd.objectives.anchored import AnchoredPolicy
from lightning_sd.objectives.base import Tokens, check_above_zero
from lightning_sd.objectives.inputs import Signals


@dataclass(frozen=True)
class ContrastivePolicy(AnchoredPolicy):
    """RLCSD's loss; its context is ``ContrastiveHints``, its teacher ``SnapshotTeacher(10)``.

    With ``e = log p_c - log mean_k p_w^k`` at the sampled token and ``r = beta lam tanh(e / tau)``,
    tokens with ``|r| > delta`` are moved: their advantage is A + r, never across 0. Moved tokens
    and the others are averaged apart and the two means added, the first times ``eta``.

    ``reduction: token`` takes both means over the tokens of the batch, as the authors' code does;
    ``sequence`` over each rollout's tokens first and then over rollouts, as the paper's eq. 15 has
    it. The batch is that of all ranks, but with ``accumulate_grad_batches`` above 1 every
    micro-batch splits its own tokens. Masks among ``weights`` apply before anything is counted.
    """

    tau: float = 0.02
    """Evidence, in nats, at which a token's residual nears its bound."""
    lam: float = 0.5
    """Bound of the residual (with ``beta``)."""
    beta: float = 1.0
    """Another factor of the residual."""
    residual_clip: float = 2.0
    """Bound of the residual's absolute value; without effect up to beta * lam."""
    delta: float = 0.02
    """Only tokens whose residual exceeds this are moved."""
    eta: float = 1.0
    """Weight of the moved tokens' mean."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_above_zero(self, "tau", "residual_clip")
        for name in ("lam", "beta", "delta", "eta"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: must not be negative.")
        if self.reduction == "constant":
            raise ValueError(
                "reduction='constant' has no mean that could be split in two: choose token or "
                "sequence."
            )

    @property
    def reads(self) -> frozenset[str]:
        """The right hint's view and the wrong ones'."""
        return super().reads | {"teacher", "contrasts"}

    def residual(self, signals: Signals) -> Tensor:
        """``[N]``; 0 where a token is not moved."""
        found = contrastive_residual(
            self.contrast_evidence(signals),
            tau=self.tau,
            lam=self.lam,
            beta=self.beta,
            clip=self.residual_clip,
        )
        return torch.where(found.abs() > self.delta, found, 0.0)

    def tokens(self, signals: Signals) -> Tokens:
        """Group advantages, moved where the evidence is strong."""
        tokens = super().tokens(signals)
        assert tokens.advantages is not None
        moved = clamp_to_sign(tokens.advantages, self.residual(signals))
        kept = ~torch.isnan(self.contrast_evidence(signals))
        return replace(tokens, advantages=moved, kept=kept)

    def prepare(self, signals: Signals) -> Tokens:
        """The same with the weights on it, and the one mean split in two."""
        tokens = super().prepare(signals)
        assert tokens.kept is not None
        scale = self._two_means(self.residual(signals) != 0, tokens.kept, signals)
        return replace(tokens, scale=scale if tokens.scale is None else tokens.scale * scale)

    def _two_means(self, moved: Tensor, kept: Tensor, signals: Signals) -> Tensor:
        """``[N]``: by what to scale tokens so that one mean over all is the sum of two means."""
        paths = torch.stack([~moved & kept, moved & kept]).double()
        if self.reduction == "token":
            sizes = signals.total(paths.sum(-1)).unsqueeze(-1)
        else:
            of_rows = paths.new_zeros(2, len(signals.lengths))
            sizes = of_rows.index_add_(1, signals.rows, paths)[:, signals.rows]
        factors = sizes.sum(0) / sizes.clamp(min=1)
        return torch.where(moved, self.eta * factors[1], factors[0])
