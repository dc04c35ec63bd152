"""Pre-train a base of the map: a trunk from random weights, then branches that go on from it.

    python -m benchmarks.alignment_map.teach --out out/trunk-0
    python -m benchmarks.alignment_map.teach --trunk out/trunk-0 --foreign 0.1 --out out/q0.1-0

All bases of a pre-training seed share a trunk, which never sees a prefix in another order than its
context. A branch has its own share q of such prefixes (``--foreign``), its own scale of the
solver's errors (``--error-scale``), which sets the initial accuracy, and its own rows (``--mix``).
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import seed_everything
from transformers import PreTrainedTokenizerFast

from benchmarks.alignment_map.rows import MIXES, DerivationRows
from lightning_sd.lab.expressions import Operation
from lightning_sd.lab.recipe import train
from lightning_sd.lab.recipe.careless_solver import CarelessSolver, FactBelief
from lightning_sd.lab.recipe.vocabulary import build_tokenizer
from lightning_sd.models import PretrainedModel

MAX_ERROR_RATE = 0.9
MAX_NEW_TOKENS = 64


TRUNK_STEPS = 4000
BRANCH_STEPS = 1500
TRUNK_LR = 3e-3
BRANCH_LR = 1e-3


@dataclass(frozen=True)
class Recipe:
    """All settings that determine a base, but for its trunk."""

    foreign: float = 0.0
    """Share q of references whose row starts in another order."""
    seed: int = 0
    """Selects the initial weights, the rows and the solver's errors."""
    error_scale: float = 1.0
    """Factor of the error rates: the larger, the lower the initial accuracy."""
    steps: int = TRUNK_STEPS
    """Optimizer steps."""
    batch_size: int = 32
    """Rows per optimizer step."""
    lr: float = TRUNK_LR
    """Peak learning rate. It rises over the first 5% of the steps and then falls to zero."""
    first_row: int = 0
    """Rows that the trunk has seen."""
    mix: str = "all"
    """Rows with a context; see :data:`.MIXES`."""


def make_branch(
    foreign: float, seed: int, error_scale: float = 1.0, mix: str = Recipe.mix
) -> Recipe:
    """Return the recipe of a branch, which goes on after the rows of its trunk."""
    seen = TRUNK_STEPS * Recipe.batch_size
    return Recipe(foreign, seed, error_scale, BRANCH_STEPS, lr=BRANCH_LR, first_row=seen, mix=mix)


def make_lesson(seed: int, mix: str) -> Recipe:
    """Return the recipe of a lesson in reading, which goes on from a trunk."""
    return Recipe(1.0, seed, steps=BRANCH_STEPS, mix=mix)


def scale_errors(seed: int, scale: float) -> dict[Operation, FactBelief]:
    """Return the simulated solver's beliefs with its error rates multiplied."""
    return {
        operation: FactBelief(min(belief.error_rate * scale, MAX_ERROR_RATE), belief.wrong_result)
        for operation, belief in CarelessSolver.from_seed(seed).facts.items()
    }


def build_rows(recipe: Recipe) -> DerivationRows:
    """Return the rows of a recipe."""
    return DerivationRows(
        beliefs=scale_errors(recipe.seed, recipe.error_scale),
        foreign_share=recipe.foreign,
        seed=recipe.seed,
        length=recipe.steps * recipe.batch_size,
        block=recipe.batch_size // 2,
        first=recipe.first_row,
        mix=MIXES[recipe.mix],
    )


def build_row_tokenizer(rows: DerivationRows) -> PreTrainedTokenizerFast:
    """Train a tokenizer on the first rows; each piece of a solution is one token."""
    sample = (rows[i] for i in range(min(500, len(rows))))
    texts = (text for row in sample for text in (row.messages[0]["content"], row.reference or ""))
    return build_tokenizer(texts)


def teach(recipe: Recipe, out: Path, trunk: Path | None = None) -> None:
    """Pre-train a base; write weights, tokenizer, recipe and processor minutes.

    Args:
        recipe: The settings.
        out: Folder of the base.
        trunk: Folder of the base to go on from. None starts from random weights.
    """
    start = time.process_time()
    seed_everything(recipe.seed)
    rows = build_rows(recipe)
    if trunk is None:
        tokenizer = build_row_tokenizer(rows)
        model: Any = train.build_model(train.Recipe(), tokenizer)
        model.generation_config.max_new_tokens = MAX_NEW_TOKENS
    else:
        model, tokenizer = PretrainedModel(str(trunk)).load()
    train.fit_rows(model, tokenizer, rows, block=rows.block, steps=recipe.steps, lr=recipe.lr)
    out.mkdir(parents=True, exist_ok=True)
    model.eval().save_pretrained(out)
    tokenizer.save_pretrained(out)
    minutes = (time.process_time() - start) / 60
    record = {"recipe": asdict(recipe), "minutes": round(minutes, 1)}
    (out / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--foreign", type=float, default=Recipe.foreign)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--error-scale", type=float, default=Recipe.error_scale)
    parser.add_argument("--trunk", type=Path, help="folder to go on from; none trains a trunk")
    parser.add_argument("--mix", choices=MIXES, default=Recipe.mix, help="rows with a context")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    recipe = Recipe(seed=args.seed)
    if not MIXES[args.mix].has_bare:
        recipe = make_lesson(args.seed, args.mix)
    elif args.trunk is not None:
        recipe = make_branch(args.foreign, args.seed, args.error_scale, args.mix)
    teach(recipe, args.out, args.trunk)


if __name__ == "__main__":
    main()
