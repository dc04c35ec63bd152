"""Compare a plan with counted FLOPs and measured memory on this machine.

    python -m benchmarks.memory.check_plan

Each configuration trains three steps of a random model in a process of its own: memory is measured
in the first two, FLOPs in the third, because the counter keeps tensors.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch.utils.flop_counter import (
    FlopCounterMode,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from benchmarks.memory.watch import PHASES, PeakWatch
from benchmarks.step_time import ours
from benchmarks.step_time.shapes import Shape, load_tokenizer
from lightning_sd import EMATeacher, LoRA, SelfDistillModule, TransformersSampler
from lightning_sd.data import CritiqueDataModule
from lightning_sd.diagnostics.plan.memory import Layout, count_memory
from lightning_sd.diagnostics.plan.size import measure_size
from lightning_sd.diagnostics.plan.work import Workload, count_flops
from lightning_sd.models import LoadedModel
from lightning_sd.models.lora import add_lora

MIB = 2**20
RESULTS = Path(__file__).with_name("plan.json")
BASE = {"layers": 8, "width": 512, "inner": 1536, "heads": 8, "kv_heads": 8, "vocab": 8000}
CONFIGS: dict[str, dict[str, Any]] = {
    "full": {**BASE, "prompts": 2, "samples": 4, "prompt": 128, "completion": 128},
    "lora": {**BASE, "prompts": 2, "samples": 4, "prompt": 128, "completion": 128, "lora": True},
    "checkpointing": {
        **BASE,
        "prompts": 2,
        "samples": 8,
        "prompt": 64,
        "completion": 192,
        "checkpointing": True,
    },
    "long prompt": {**BASE, "prompts": 1, "samples": 4, "prompt": 768, "completion": 64},
    "large vocabulary": {
        **BASE,
        "layers": 4,
        "vocab": 64000,
        "prompts": 2,
        "samples": 2,
        "prompt": 64,
        "completion": 96,
    },
    "grouped queries": {
        **BASE,
        "kv_heads": 2,
        "inner": 2048,
        "prompts": 4,
        "samples": 2,
        "prompt": 96,
        "completion": 160,
    },
}
OWN = ("lora", "checkpointing")
TINY = {"layers": 1, "width": 64, "inner": 64, "heads": 4, "kv_heads": 4, "vocab": 8000}
TINY |= {"prompts": 1, "samples": 2, "prompt": 64, "completion": 4}


def make_model(config: dict[str, Any], device: str) -> tuple[Any, Shape]:
    """Build the random model of a configuration; on the meta device without memory."""
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    shape = Shape(
        **{k: v for k, v in config.items() if k not in OWN}, teacher_prompt=config["prompt"] + 96
    )
    settings = LlamaConfig(
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        vocab_size=shape.vocab,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    torch.manual_seed(0)
    with torch.device(device):
        model: Any = LlamaForCausalLM(settings).train()
    model.generation_config = GenerationConfig(
        eos_token_id=shape.vocab, pad_token_id=shape.vocab + 1
    )
    if config.get("lora"):
        model = add_lora(model, LoRA(r=16))
    if config.get("checkpointing"):
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.train(), shape


def predict(config: dict[str, Any]) -> dict[str, float]:
    """Return FLOPs and MiB by phase, from the model on the meta device."""
    model, shape = make_model(config, "meta")
    checkpointing = bool(config.get("checkpointing"))
    size = measure_size(model, checkpointing=checkpointing)
    work = Workload(
        shape.prompts,
        shape.samples,
        shape.prompt,
        shape.teacher_prompt,
        shape.completion,
        checkpointing=checkpointing,
    )
    flops = count_flops(size, work)
    memory = count_memory(size, work, Layout(cpu=True))
    phases = {f"{name} MiB": getattr(memory, name) / MIB for name in PHASES}
    return {"FLOPs": flops.total, "peak MiB": memory.peak / MIB, **phases}


def measure(config: dict[str, Any]) -> dict[str, float]:
    """Return the FLOPs of a step and the MiB of each phase."""
    train({**config, **TINY})  # imports what a run imports, which is not counted
    return train(config)


def train(config: dict[str, Any]) -> dict[str, float]:
    watch = PeakWatch()
    counter = FlopCounterMode(display=False, custom_mapping=COUNTED)
    fit(config, watch, CountThird(counter, watch), max_steps=3, devices=1)
    phases = {f"{name} MiB": watch.peaks[name] for name in PHASES}
    return {"FLOPs": float(counter.get_total_flops()), "peak MiB": max(phases.values()), **phases}


def fit(config: dict[str, Any], *callbacks: pl.Callback, max_steps: int, **settings: Any) -> None:
    """Train a random model; ``settings`` are those of the trainer that tell devices."""
    model, shape = make_model(config, "cpu")
    module = SelfDistillModule(
        LoadedModel(model, load_tokenizer(shape)),
        teacher=EMATeacher(),
        sampler=TransformersSampler(max_new_tokens=shape.completion),
        samples=shape.samples,
        seed=0,
        check_every=0,
    )
    trainer = pl.Trainer(
        max_steps=max_steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        callbacks=[ours.WordsForTeacher(shape, "own"), *callbacks],
        **settings,
    )
    batches = max_steps * trainer.accumulate_grad_batches * trainer.world_size
    words = ours.Words(shape, batches * shape.prompts)
    trainer.fit(module, datamodule=CritiqueDataModule(words, batch_size=shape.prompts))


class CountThird(pl.Callback):
    """Counts the FLOPs of the third step, and ends the measurement of memory before it."""

    def __init__(self, counter: FlopCounterMode, watch: PeakWatch) -> None:
        self.counter, self.watch = counter, watch

    def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
        if trainer.global_step == 2:
            self.watch.end()
            self.counter.__enter__()

    def on_train_end(self, *args: Any) -> None:
        self.counter.__exit__(None, None, None)


def _addmm(self_shape: Any, a: Any, b: Any, *args: Any, **kwargs: Any) -> int:
    return int(2 * a[0] * a[1] * b[1])


def _packed(x: Any, weight: Any, *args: Any, out_val: Any = None, **kwargs: Any) -> int:
    tokens = 1
    for length in x[:-1]:
        tokens *= length
    return int(2 * tokens * weight[0] * weight[1])


def _attend(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _attend_backward(grad: Any, query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    return int(sdpa_backward_flop_count(grad, query, key, value))


COUNTED = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attend,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attend_backward,
    torch.ops.aten.addmm_: _addmm,
    torch.ops.mkldnn._linear_pointwise: _packed,
}
"""Products that torch's counter does not know on a CPU."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--only", nargs="+", default=[], help="measure these configurations again")
    args = parser.parse_args()
    if args.one:
        print("RESULT " + json.dumps(measure(CONFIGS[args.one])))
        return
    print(format_table(update_results(RESULTS, CONFIGS, args.only, predict, run)))


def run(name: str) -> dict[str, float]:
    """Measure a configuration in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.memory.check_plan", "--one", name]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    line = next(x for x in done.stdout.splitlines() if x.startswith("RESULT "))
    return dict(json.loads(line.removeprefix("RESULT ")))


def update_results(
    path: Path,
    cases: Mapping[str, Any],
    only: Sequence[str],
    predict: Callable[[Any], Any],
    measure: Callable[[str], Any],
) -> dict[str, Any]:
    """Plan every case again and measure those of ``only``, or all; write each as it ends."""
    results = read_results(path)
    for name, case in cases.items():
        again = not only or name in only
        measured = measure(name) if again else results[name]["measured"]
        results[name] = {"plan": predict(case), "measured": measured}
        print(json.dumps({name: results[name]}), flush=True)
        path.write_text(json.dumps(results, indent=1) + "\n")
    return results


def read_results(path: Path) -> dict[str, Any]:
    """Read what was planned and measured, by the name of the case."""
    return dict(json.loads(path.read_text())) if path.exists() else {}


def format_table(results: dict[str, Any]) -> str:
    """Format the FLOPs and the peaks as the page shows them."""
    lines = [
        "| configuration | FLOPs, plan | counted | | peak MiB, plan | measured | |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in CONFIGS:
        cells = []
        for what, digits in (("FLOPs", ".4g"), ("peak MiB", ".0f")):
            plan, measured = (results[name][side][what] for side in ("plan", "measured"))
            cells += [f"{plan:{digits}}", f"{measured:{digits}}", f"{plan / measured - 1:+.1%}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
