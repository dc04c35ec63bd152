"""Scoring: the same completion tokens under student and teacher."""

from lightning_sd.scoring.head import Head
from lightning_sd.scoring.layout import buckets, pack
from lightning_sd.scoring.mixed import LogitsSource, MixedScores, spread, weighted
from lightning_sd.scoring.scorer import Scorer, Scores
from lightning_sd.scoring.sharing import shared_prompts

__all__ = [
    "Head",
    "LogitsSource",
    "MixedScores",
    "Scorer",
    "Scores",
    "buckets",
    "pack",
    "shared_prompts",
    "spread",
    "weighted",
]
