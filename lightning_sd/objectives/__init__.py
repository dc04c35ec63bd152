"""Objectives: how the teacher's signal becomes a loss."""

from lightning_sd.objectives.anchored import SignAnchoredPolicy
from lightning_sd.objectives.base import Objective, Reduction, TokenInputs, TokenLoss
from lightning_sd.objectives.contrastive_distillation import ContrastiveDistillation
from lightning_sd.objectives.contrastive_policy import ContrastivePolicy
from lightning_sd.objectives.distillation import Distillation
from lightning_sd.objectives.echo import EchoDistill
from lightning_sd.objectives.inputs import ObjectiveInputs, StepState
from lightning_sd.objectives.logprob_objective import LogprobObjective
from lightning_sd.objectives.mixture import Mixture
from lightning_sd.objectives.policy_gradient import PolicyGradient
from lightning_sd.objectives.reduce import LossOutput, compute_loss
from lightning_sd.objectives.routed import RoutedPolicy
from lightning_sd.objectives.sampled_token import SampledToken
from lightning_sd.objectives.spec import InputSpec
from lightning_sd.objectives.token_weights import (
    AdvantageSign,
    AfterMarker,
    FinishedOnly,
    MixedGroups,
    PassRate,
    Position,
    Rebalance,
    SkipFirst,
    TokenWeight,
    TopTokens,
)

__all__ = [
    "AdvantageSign",
    "AfterMarker",
    "ContrastiveDistillation",
    "ContrastivePolicy",
    "Distillation",
    "EchoDistill",
    "FinishedOnly",
    "InputSpec",
    "LogprobObjective",
    "LossOutput",
    "MixedGroups",
    "Mixture",
    "Objective",
    "ObjectiveInputs",
    "PassRate",
    "PolicyGradient",
    "Position",
    "Rebalance",
    "Reduction",
    "RoutedPolicy",
    "SampledToken",
    "SignAnchoredPolicy",
    "SkipFirst",
    "StepState",
    "TokenInputs",
    "TokenLoss",
    "TokenWeight",
    "TopTokens",
    "compute_loss",
]
