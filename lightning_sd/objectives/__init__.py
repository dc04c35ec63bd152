"""How the signal becomes a loss: small settings objects over :mod:`lightning_sd.functional`."""

from lightning_sd.objectives.base import Objective, Reduction, TokenLoss, Tokens
from lightning_sd.objectives.distillation import Distillation
from lightning_sd.objectives.logprobs import sampled_logprobs, token_logprobs
from lightning_sd.objectives.mixture import Mixture
from lightning_sd.objectives.policy_gradient import PolicyGradient
from lightning_sd.objectives.sampled_token import SampledToken
from lightning_sd.objectives.weights import (
    AfterMarker,
    FinishedOnly,
    MixedGroups,
    PassRate,
    Position,
    Rebalance,
    SkipFirst,
    TokenWeight,
    Top,
)

__all__ = [
    "AfterMarker",
    "Distillation",
    "FinishedOnly",
    "MixedGroups",
    "Mixture",
    "Objective",
    "PassRate",
    "PolicyGradient",
    "Position",
    "Rebalance",
    "Reduction",
    "SampledToken",
    "SkipFirst",
    "TokenLoss",
    "TokenWeight",
    "Tokens",
    "Top",
    "sampled_logprobs",
    "token_logprobs",
]
