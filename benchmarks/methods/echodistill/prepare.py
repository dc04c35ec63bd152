"""Train a small Qwen2-Audio to recognize clean spoken digits, and save it.

    python -m benchmarks.methods.echodistill.prepare

One core, about ten minutes. The weights are not committed: configs/echodistill.yaml reads them
from ``out/echodistill/model``.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from benchmarks.methods.echodistill.model import audio_model, audio_processor, texts
from lightning_sd.lab.spoken_digits import SpokenDigitsTask
from lightning_sd.models.chat import encode_prompt
from lightning_sd.models.media import collect_media_inputs
from lightning_sd.models.tokenizer import prepare_tokenizer
from lightning_sd.rollout import TransformersSampler
from lightning_sd.scoring import pack_rows
from lightning_sd.types import Question

FOLDER = Path("out/echodistill/model")
Row = tuple[list[int], list[int]]


def rows(questions: list[Question], tokenizer: Any) -> list[Row]:
    """Encode prompt and target of each question."""
    found = []
    for question in questions:
        target = tokenizer(question.reference, add_special_tokens=False).input_ids
        prompt = encode_prompt(tokenizer, question.messages)
        found.append((prompt, [*target, tokenizer.eos_token_id]))
    return found


def train_model(
    model: Any, known: list[Row], *, steps: int, batch: int, lr: float, seed: int
) -> None:
    """Train on the targets by next-token prediction, in place."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr, total_steps=steps, pct_start=0.05, cycle_momentum=False
    )
    generator = torch.Generator().manual_seed(seed)
    start, mean = time.monotonic(), 0.0
    for step in range(1, steps + 1):
        chosen = [known[i] for i in torch.randint(len(known), (batch,), generator=generator)]
        prompts, targets = [row[0] for row in chosen], [row[1] for row in chosen]
        ids, keep = pack_rows(prompts, targets, torch.device("cpu"))
        logits = model(input_ids=ids, **collect_media_inputs(prompts, ids.device)).logits
        wanted = torch.tensor([token for target in targets for token in target])
        loss = cross_entropy(logits.flatten(0, 1)[keep], wanted)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        mean += loss.item() / 200
        if step % 200 == 0:
            print(f"step {step}: loss {mean:.3f}, {time.monotonic() - start:.0f} s", flush=True)
            mean = 0.0


def accuracy(model: Any, tokenizer: Any, task: SpokenDigitsTask, number: int) -> dict[str, float]:
    """Return greedy accuracy on the first test questions, in total and per kind of question."""
    sampler = TransformersSampler(max_new_tokens=24, temperature=0)
    right: dict[str, list[float]] = {}
    questions = task.questions("test")[:number]
    for first in range(0, len(questions), 50):
        part = questions[first : first + 50]
        found = sampler.sample(
            model,
            [encode_prompt(tokenizer, q.messages) for q in part],
            samples=1,
            stop_ids=[tokenizer.eos_token_id],
            generator=torch.Generator(),
        )
        for question, completion in zip(part, found, strict=True):
            text = tokenizer.decode(completion.ids, skip_special_tokens=True)
            correct = float(task.verify(question, text).correct)
            for name in ("all", question.extra["kind"]):
                right.setdefault(name, []).append(correct)
    return {name: round(sum(values) / len(values), 4) for name, values in right.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--sounds", type=int, default=8000)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--measure", type=int, default=200, help="test questions for the accuracy")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    args = parser.parse_args()
    # Differs from the study's seed, so no sound of the study is used here.
    task = SpokenDigitsTask(clean=True, train_size=args.sounds, test_size=args.measure, seed=1000)
    questions = list(task.questions("train"))
    processor = audio_processor(texts(questions))
    tokenizer = prepare_tokenizer(processor, "echodistill")
    model = audio_model(processor, seed=args.seed)
    known = rows(questions, tokenizer)
    train_model(model, known, steps=args.steps, batch=args.batch, lr=args.lr, seed=args.seed)
    model.save_pretrained(args.folder)
    processor.save_pretrained(args.folder)
    found = {"clean": accuracy(model, tokenizer, task, args.measure)}
    for snr in (-10.0, -5.0, 0.0, 5.0, 10.0):
        loud = SpokenDigitsTask(snrs=(snr,), test_size=args.measure, seed=1000)
        found[f"{snr:+.0f} dB"] = accuracy(model, tokenizer, loud, args.measure)
    print(json.dumps(found, indent=1))
    (args.folder / "accuracy.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
