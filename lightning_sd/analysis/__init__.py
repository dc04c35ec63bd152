"""Per-token advantages: where the teacher's signal falls, over hundreds of rollouts.

The parts are functions over plain numbers (:func:`localise`, :func:`style_mass`); ``python -m
lightning_sd analyze`` puts them together.
"""

from lightning_sd.analysis.errors import Steps, find_steps, first_wrong_token, wrong_steps
from lightning_sd.analysis.figures import FIGURES, Share, rollout_figures
from lightning_sd.analysis.localisation import Localisation, localise
from lightning_sd.analysis.spans import Pieces, step_tokens, token_pieces
from lightning_sd.analysis.style import STYLE_WORDS, StyleMass, style_mass, token_classes

__all__ = [
    "FIGURES",
    "STYLE_WORDS",
    "Localisation",
    "Pieces",
    "Share",
    "Steps",
    "StyleMass",
    "find_steps",
    "first_wrong_token",
    "localise",
    "rollout_figures",
    "step_tokens",
    "style_mass",
    "token_classes",
    "token_pieces",
    "wrong_steps",
]
