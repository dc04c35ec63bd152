"""Compare how fast three engines sample from SmolLM2-135M on one processor thread.

    python -m benchmarks.engines.throughput --model SMOLLM2_FOLDER

Runs where vLLM is installed. Each measurement is a process of its own, which samples once to warm
up and is then timed: 4 prompts x 8 completions x 128 tokens at temperature 1, float32, no stop
token. The engines take turns, so that all suffer alike from other work on the machine; the last
column says how many cores that work used. ``python -m benchmarks.step_time.shapes --shape
smollm2`` writes the model and prints its folder.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.step_time.clock import Machine, name_processor

HERE = Path(__file__).parent
PROMPTS, SAMPLES, PROMPT_TOKENS, NEW_TOKENS = 4, 8, 128, 128
COLUMNS = ("processor", "engine", "round", "tokens_per_second", "seconds", "processor_seconds")
COLUMNS += ("others",)


def make_prompts(vocab: int) -> list[list[int]]:
    """Draw prompts of random tokens."""
    import torch

    generator = torch.Generator().manual_seed(0)
    return torch.randint(1000, vocab, (PROMPTS, PROMPT_TOKENS), generator=generator).tolist()


def sample_with(sampler: Any, model: Any, prompts: list[list[int]]) -> int:
    """Sample with one of our samplers; return the number of tokens."""
    import torch

    generator = torch.Generator().manual_seed(0)
    drawn = sampler.sample(model, prompts, samples=SAMPLES, stop_ids=(), generator=generator)
    return sum(len(completion.ids) for completion in drawn)


def run_transformers(model: Any, prompts: list[list[int]]) -> int:
    from lightning_sd import TransformersSampler

    return sample_with(TransformersSampler(max_new_tokens=NEW_TOKENS), model, prompts)


def run_vllm(model: Any, prompts: list[list[int]]) -> int:
    from lightning_sd import VLLMSampler

    engine = {"max_model_len": 512, "disable_log_stats": True}
    return sample_with(VLLMSampler(max_new_tokens=NEW_TOKENS, engine=engine), model, prompts)


def run_continuous(model: Any, prompts: list[list[int]]) -> int:
    from transformers import GenerationConfig
    from transformers.generation import ContinuousBatchingConfig

    # Its default takes most of the machine's memory. A page holds 256 tokens.
    pages = ContinuousBatchingConfig(num_blocks=3 * PROMPTS * SAMPLES, max_batch_tokens=1024)
    config = GenerationConfig(
        max_new_tokens=NEW_TOKENS, do_sample=True, eos_token_id=-1, pad_token_id=0
    )
    rows = [prompt for prompt in prompts for _ in range(SAMPLES)]
    outputs = model.generate_batch(rows, generation_config=config, continuous_batching_config=pages)
    return sum(len(output.generated_tokens) for output in outputs.values())


ENGINES: dict[str, Callable[[Any, list[list[int]]], int]] = {
    "TransformersSampler": run_transformers,
    "VLLMSampler": run_vllm,
    "continuous batching": run_continuous,
}


def measure(engine: str, folder: str) -> dict[str, Any]:
    """Warm up, then time one batch in this process."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None
    if engine == "continuous batching":
        model.set_attn_implementation("paged|sdpa")
    prompts = make_prompts(model.config.vocab_size)
    ENGINES[engine](model, prompts[:1])
    before = Machine.now()
    tokens = ENGINES[engine](model, prompts)
    after = Machine.now()
    seconds = after.wall - before.wall
    assert tokens == PROMPTS * SAMPLES * NEW_TOKENS, tokens
    return {
        "tokens_per_second": round(tokens / seconds, 1),
        "seconds": round(seconds, 2),
        "processor_seconds": round(after.own - before.own, 2),
        "others": after.others(before),
    }


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def format_table(rows: list[dict[str, str]]) -> str:
    """Format the median over rounds as Markdown, with the processor time of a batch."""
    lines = [
        "| processor | engine | rounds | tokens/s, median (range) | per processor second | others, "
        "cores |",
        "|---|---|---|---|---|---|",
    ]
    tokens = PROMPTS * SAMPLES * NEW_TOKENS
    places = dict.fromkeys((row["processor"], row["engine"]) for row in rows)
    for processor, engine in sorted(places, key=lambda place: place[0]):
        own = [row for row in rows if (row["processor"], row["engine"]) == (processor, engine)]
        rates = [float(row["tokens_per_second"]) for row in own]
        work = statistics.median(tokens / float(row["processor_seconds"]) for row in own)
        others = statistics.mean(float(row["others"]) for row in own)
        lines.append(
            f"| {processor} | {engine} | {len(own)} | {statistics.median(rates):.0f} "
            f"({min(rates):.0f} to {max(rates):.0f}) | {work:.0f} | {others:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="folder of SmolLM2's weights")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engine", choices=list(ENGINES), help=argparse.SUPPRESS)
    args = parser.parse_args()
    path = HERE / "throughput.csv"
    if args.engine:
        place = {"processor": name_processor(), "engine": args.engine, "round": args.rounds}
        row = {**place, **measure(args.engine, args.model)}
        with path.open("a", newline="") as file:
            csv.DictWriter(file, COLUMNS).writerow(row)
        return
    if args.model:
        kept = [row for row in read_rows(path) if row["processor"] != name_processor()]
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(kept)
    one = {"OMP_NUM_THREADS": "1", "VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_LOGGING_LEVEL": "ERROR"}
    for number in range(args.rounds if args.model else 0):
        for engine in ENGINES:
            begun = time.monotonic()
            options = ["--engine", engine, "--model", args.model, "--rounds", str(number)]
            module = [sys.executable, "-m", "benchmarks.engines.throughput"]
            subprocess.run([*module, *options], check=True, env={**os.environ, **one})
            print(f"round {number}: {engine}, {time.monotonic() - begun:.0f} s", flush=True)
    print(format_table(read_rows(path)))


if __name__ == "__main__":
    main()
