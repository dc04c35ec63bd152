"""Measure whole training steps of ours and of TRL's SDPO on a random Qwen3 model.

    python -m benchmarks.accelerator.step --how ours --shape 0.5b --profile trace.json

Both start from the same weights in float32, train in bfloat16 autocast on a GPU, and sample with
the model itself. The roofline is the least time of a step's matrix products, with the rates that a
product and a copy reach on this device: scoring is bound by products, decoding by reading weights.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from benchmarks.accelerator.device import (
    SHAPES,
    build_model,
    emit,
    get_device,
    measure_rates,
    read_peak,
    reset_peak,
    synchronize,
)
from benchmarks.step_time import ours, peer
from benchmarks.step_time.flops import count_minimum
from benchmarks.step_time.shapes import Shape
from lightning_sd.data import CritiqueDataModule

LOSS, CONTEXT = "js", "sibling"


class Steps(pl.Callback):
    """Times steps between their ends, and records one with torch's profiler."""

    def __init__(self, profile: Path | None = None) -> None:
        self.ends: list[float] = []
        self.profile, self.profiler = profile, None if profile is None else make_profiler()
        self.summary: list[dict[str, Any]] = []

    def on_train_start(self, *args: Any) -> None:
        self.end_step()

    def on_train_batch_start(self, *args: Any) -> None:
        if self.profiler is not None and len(self.ends) == 2:
            self.profiler.start()

    def on_train_batch_end(self, *args: Any) -> None:
        self.end_step()
        if self.profiler is not None and self.profile is not None and len(self.ends) == 3:
            self.profiler.stop()
            self.profiler.export_chrome_trace(str(self.profile))
            self.summary = summarize(self.profiler)
            self.profiler = None

    def end_step(self) -> None:
        synchronize()
        self.ends.append(time.perf_counter())


def make_profiler() -> Any:
    """Return a profiler of the processor and the GPU."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    return torch.profiler.profile(activities=kinds)


def summarize(profiler: Any, number: int = 12) -> list[dict[str, Any]]:
    """Return the operations that took the most time on the device by themselves."""
    where = "self_device_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    rows = sorted(profiler.key_averages(), key=lambda row: -getattr(row, where))
    return [
        {"operation": row.key[:60], "calls": row.count, "ms": getattr(row, where) / 1000}
        for row in rows[:number]
    ]


def run_ours(shape: Shape, steps: int, profile: Path | None) -> Steps:
    """Train with our module."""
    watch, cuda = Steps(profile), get_device().type == "cuda"
    trainer = pl.Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="gpu" if cuda else "cpu",
        devices=1,
        precision="bf16-mixed" if cuda else "32-true",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=None if cuda else ours.CLIP,  # AMP does not clip for a fused optimizer
        callbacks=[ours.WordsForTeacher(shape, CONTEXT), watch],
        limit_val_batches=0,
        num_sanity_val_steps=0,
    )
    module = ours.make_module(shape, LOSS, build_model(shape))
    data = CritiqueDataModule(ours.Words(shape, shape.prompts * steps), batch_size=shape.prompts)
    trainer.fit(module, datamodule=data)
    return watch


def run_trl(shape: Shape, steps: int, folder: str) -> Steps:
    """Train with TRL's SDPOTrainer."""
    from transformers import TrainerCallback

    watch, cuda = Steps(), get_device().type == "cuda"

    class Watch(TrainerCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            watch.end_step()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            watch.end_step()

    peer.quiet()
    # TRL loads the teacher from the folder that the model came from.
    build_model(shape).save_pretrained(f"{folder}/model")
    peer.load_model = partial(load_model, f"{folder}/model")
    shared = peer.settings(shape, steps, folder, checkpointing=False)
    trainer = peer.make_trainer(
        "sdpo", shape, LOSS, steps, {**shared, "use_cpu": not cuda, "bf16": cuda}
    )
    trainer.add_callback(Watch())
    trainer.train()
    return watch


def load_model(folder: str, shape: Shape) -> Any:
    """Load the model of :func:`build_model` from a folder."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def compute_roofline(shape: Shape) -> dict[str, float]:
    """Return the least seconds of a step's scoring and decoding."""
    dtype = torch.bfloat16 if get_device().type == "cuda" else torch.float32
    rates = measure_rates(dtype)
    weights = shape.body + shape.head
    decoding = shape.completion * max(
        weights * dtype.itemsize / rates["bytes_per_second"],
        2 * weights * shape.rows / rates["flops_per_second"],
    )
    scoring = count_minimum(shape, CONTEXT) / rates["flops_per_second"]
    return {**rates, "scoring": scoring, "decoding": decoding}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--how", choices=["ours", "trl"], default="ours")
    parser.add_argument("--shape", choices=list(SHAPES), default="tiny")
    parser.add_argument("--steps", type=int, default=3, help="the first one warms up")
    parser.add_argument("--profile", type=Path, help="file for the trace of the second step")
    args = parser.parse_args()
    shape = SHAPES[args.shape]
    roofline = compute_roofline(shape)
    reset_peak()
    if args.how == "ours":
        watch = run_ours(shape, args.steps, args.profile)
    else:
        watch = run_trl(shape, args.steps, "out/accelerator/trl")
    seconds = [b - a for a, b in zip(watch.ends, watch.ends[1:], strict=False)][1:]
    emit(
        {
            "how": args.how,
            "shape": args.shape,
            "seconds": seconds,
            "tokens_per_second": shape.tokens * len(seconds) / sum(seconds),
            "peak_mib": read_peak(),
            "roofline": roofline,
            "profile": watch.summary,
        }
    )


if __name__ == "__main__":
    main()
