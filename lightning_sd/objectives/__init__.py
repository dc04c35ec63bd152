"""How the signal becomes a loss: small settings objects over :mod:`lightning_sd.functional`."""

from lightning_sd.objectives.anchored import SignAnchoredPolicy
from lightning_sd.objectives.at_sampled import AtSampled
from lightning_sd.objectives.base import Objective, Reduction, TokenLoss, Tokens
from lightning_sd.objectives.contrastive_distillation import ContrastiveDistillation
from lightning_sd.objectives.contrastive_policy import ContrastivePolicy
from lightning_sd.objectives.distillation import Distillation
from lightning_sd.objectives.echo import EchoDistill
from lightning_sd.objectives.liger import LigerDistillation
from lightning_sd.objectives.mixture import Mixture
from lightning_sd.objectives.policy_gradient import PolicyGradient
from lightning_sd.objectives.routed import RoutedPolicy
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
    "AtSampled",
    "ContrastiveDistillation",
    "ContrastivePolicy",
    "Distillation",
    "EchoDistill",
    "FinishedOnly",
    "LigerDistillation",
    "MixedGroups",
    "Mixture",
    "Objective",
    "PassRate",
    "PolicyGradient",
    "Position",
    "Rebalance",
    "Reduction",
    "RoutedPolicy",
    "SampledToken",
    "SignAnchoredPolicy",
    "SkipFirst",
    "TokenLoss",
    "TokenWeight",
    "Tokens",
    "Top",
]
