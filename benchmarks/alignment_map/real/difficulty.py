"""Measure how hard sums and products are for a warmed-up base, to choose the task's mix.

python -m benchmarks.alignment_map.real.difficulty --base out/real/base

The questions are of the warm-up's split but drawn with another seed; no counted run sees them.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from pathlib import Path

import torch

from benchmarks.alignment_map.real.rows import SMALL
from benchmarks.alignment_map.real.sums import NAMES, draw_question, follow_attempt, read_kinds
from benchmarks.alignment_map.real.task import SumsTask, build_question
from lightning_sd import PretrainedModel, TransformersSampler
from lightning_sd.models import encode_prompt
from lightning_sd.text.steps import parse_steps

MIXES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of products to choose from."""
TARGET = 0.3
"""Wanted accuracy: all three results right."""


def choose_mix(sum_right: float, product_right: float) -> float:
    """Return the share of products whose predicted accuracy is nearest to the target."""
    return min(
        MIXES, key=lambda h: abs((h * product_right + (1 - h) * sum_right) ** len(NAMES) - TARGET)
    )


def measure_base(base: Path, number: int) -> dict[str, float]:
    """Return the share of right results of each kind, and of well-formed and right solutions."""
    model, tokenizer = PretrainedModel(str(base)).load()
    rng = random.Random("difficulty")
    questions = [build_question(draw_question("pretrain", SMALL, rng)) for _ in range(number)]
    completions = TransformersSampler(max_new_tokens=34).sample(
        model.eval(),
        [encode_prompt(tokenizer, question.messages) for question in questions],
        samples=1,
        stop_ids=[tokenizer.eos_token_id],
        generator=torch.Generator().manual_seed(0),
    )
    right: dict[str, list[bool]] = {kind: [] for kind in SMALL}
    formed, solved, tokens = [], [], []
    task = SumsTask(1, 1, 1)
    for question, completion in zip(questions, completions, strict=True):
        text = tokenizer.decode(completion.ids, skip_special_tokens=True)
        trace = parse_steps(text)
        places = {p.name: p.right for p in follow_attempt(question.text, trace.steps)}
        for name, kind in read_kinds(question.text).items():
            right[kind].append(places.get(name, False))
        formed.append(trace.well_formed)
        solved.append(task.verify(question, text).correct)
        tokens.append(len(completion.ids))
    shares = {kind: statistics.mean(map(float, values)) for kind, values in right.items()}
    return {
        **shares,
        "well_formed": statistics.mean(map(float, formed)),
        "solved": statistics.mean(map(float, solved)),
        "tokens": statistics.mean(tokens),
        "mix": choose_mix(shares["sum"], shares["product"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", type=Path, default=Path("out/real/base"))
    parser.add_argument("--questions", type=int, default=64)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps(measure_base(args.base, args.questions), indent=1))


if __name__ == "__main__":
    main()
