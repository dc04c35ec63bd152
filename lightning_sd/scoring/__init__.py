"""Score the same completion tokens under student and teacher."""

from lightning_sd.scoring.head import Head
from lightning_sd.scoring.layout import bucket_rows, pack_rows
from lightning_sd.scoring.mixed import (
    LogitsSource,
    MixedScores,
    insert_missing_rows,
    make_linear_mix,
)
from lightning_sd.scoring.scorer import Scorer, Scores
from lightning_sd.scoring.sharing import deduplicate_prompts

__all__ = [
    "Head",
    "LogitsSource",
    "MixedScores",
    "Scorer",
    "Scores",
    "bucket_rows",
    "deduplicate_prompts",
    "insert_missing_rows",
    "make_linear_mix",
    "pack_rows",
]
