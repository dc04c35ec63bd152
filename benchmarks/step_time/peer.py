"""Measure TRL's training step in the same way as ours.

    python -m benchmarks.step_time.peer --trainer sdpo --shape random32k --loss js

``sdpo`` and ``sdft`` are TRL's experimental self-distillation trainers, ``stable`` is its
DistillationTrainer with the chunked divergence; its teacher sees the same as the student. The
teacher is the initial model in all three, loaded from the same folder. Forward passes of ``sdpo``
and ``sdft`` include the output head, those of ``stable`` end at the hidden states.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from typing import Any

from benchmarks.step_time.clock import (
    Clock,
    by_grad_mode,
    emit,
    peak_mib,
    read_clock,
    set_threads,
)
from benchmarks.step_time.shapes import (
    Context,
    Shape,
    add_arguments,
    chosen,
    load_model,
    load_tokenizer,
    text,
)

TRAINERS = ("sdpo", "sdft", "stable")
EXTRAS: dict[str, dict[str, Any]] = {
    "liger": {"use_liger_kernel": True},
    "vllm": {"use_vllm": True, "vllm_mode": "colocate", "vllm_gpu_memory_utilization": 0.1},
}
"""Settings of TRL for the kernels and the engine that it can use. Neither runs on a CPU."""
LEARNING_RATE = 1e-5
LOSSES: dict[str, dict[str, Any]] = {
    "js": {"distillation_mode": "full_logits", "distillation_alpha": 0.5},
    "forward_kl": {"distillation_mode": "full_logits", "distillation_alpha": 0.0},
    "reverse_kl": {"distillation_mode": "full_logits", "distillation_alpha": 1.0},
    "top100_js": {
        "distillation_mode": "topk_logits",
        "distillation_alpha": 0.5,
        "distillation_topk": 100,
        "distillation_add_tail": True,
    },
    "sampled": {"distillation_mode": "sampled_token", "distillation_alpha": 1.0},
}


def context_of(trainer: str) -> Context:
    """Return the context of a trainer's teacher; ours uses the same."""
    kinds: dict[str, Context] = {"sdpo": "sibling", "sdft": "column", "stable": "same"}
    return kinds[trainer]


def settings(shape: Shape, steps: int, folder: str, *, checkpointing: bool) -> dict[str, Any]:
    """Return the settings that the three trainers share."""
    return {
        "output_dir": folder,
        "per_device_train_batch_size": shape.rows,
        "gradient_accumulation_steps": 1,
        "max_steps": steps,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "optim": "adamw_torch_fused",
        "max_grad_norm": 1.0,
        "max_completion_length": shape.completion,
        "temperature": 1.0,
        "shuffle_dataset": False,
        "gradient_checkpointing": checkpointing,
        "bf16": False,
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "report_to": "none",
        "logging_strategy": "no",
        "save_strategy": "no",
        "disable_tqdm": True,
        "seed": 0,
    }


def dataset(shape: Shape, steps: int, *, repeats: int = 1, context: bool = False) -> Any:
    """Build the questions of our run in the same order, each ``repeats`` times."""
    from datasets import Dataset

    rows = []
    for i in range(shape.prompts * steps):
        asked = {"role": "user", "content": text(shape, shape.prompt, "question", i)}
        row: dict[str, Any] = {"prompt": [asked]}
        if context:
            row["privileged_context"] = text(shape, shape.context_words("column"), "context", i)
        rows += [row] * repeats
    return Dataset.from_list(rows)


def make_trainer(kind: str, shape: Shape, loss: str, steps: int, shared: dict[str, Any]) -> Any:
    from transformers import PrinterCallback

    trainer = _make_trainer(kind, shape, loss, steps, shared)
    trainer.remove_callback(PrinterCallback)
    return trainer


def _make_trainer(kind: str, shape: Shape, loss: str, steps: int, shared: dict[str, Any]) -> Any:
    model, tokenizer = load_model(shape), load_tokenizer(shape)
    if kind == "stable":
        return _stable(shape, loss, steps, shared, model, tokenizer)
    own = {
        "num_generations": shape.samples,
        "max_prompt_length": None,
        "teacher_model_kind": "base",
        **LOSSES[loss],
    }
    common = {
        "model": model,
        "processing_class": tokenizer,
        "train_dataset": dataset(shape, steps, context=kind == "sdft"),
    }
    if kind == "sdft":
        from trl.experimental.sdft import SDFTConfig, SDFTTrainer

        template = "{prompt} {privileged_context}"
        config = SDFTConfig(**shared, **own, teacher_prompt_template=template)
        return SDFTTrainer(args=config, **common)
    from trl.experimental.sdpo import SDPOConfig, SDPOTrainer

    tail = text(shape, shape.context_words("sibling"), "tail")
    config = SDPOConfig(
        **shared,
        **own,
        reprompt_template="{prompt} {solution}{feedback} " + tail,
        solution_template="{successful_previous_attempt}",
    )
    return SDPOTrainer(args=config, reward_funcs=all_right, **common)


def all_right(completions: list[Any], **_: Any) -> list[float]:
    """Reward every answer with 1, so that every rollout has a sibling to learn from."""
    return [1.0] * len(completions)


def _stable(
    shape: Shape, loss: str, steps: int, shared: dict[str, Any], model: Any, tokenizer: Any
) -> Any:
    from trl import DistillationConfig, DistillationTrainer

    beta = {"js": 0.5, "forward_kl": 0.0, "reverse_kl": 1.0}[loss]
    return DistillationTrainer(
        model=model,
        teacher_model=load_model(shape),
        args=DistillationConfig(**shared, beta=beta),
        # It samples once per prompt, so each prompt occurs once per rollout.
        train_dataset=dataset(shape, steps, repeats=shape.samples),
        processing_class=tokenizer,
    )


def instrument(trainer: Any, kind: str, clock: Clock, seen: dict[str, int]) -> None:
    """Wrap the phases; ``seen`` collects the actual lengths."""
    trainer._generate = clock.wrap(trainer._generate, "rollout")
    trainer.accelerator.backward = clock.wrap(trainer.accelerator.backward, "backward")
    if kind == "stable":
        import trl.trainer.distillation_trainer as file

        trainer._get_last_hidden_state = clock.wrap(trainer._get_last_hidden_state, by_grad_mode)
        file._chunked_divergence_loss = clock.wrap(file._chunked_divergence_loss, "loss")
    else:
        loss = "_compute_self_distillation_loss"
        trainer._forward_logits = clock.wrap(trainer._forward_logits, by_grad_mode)
        setattr(trainer, loss, clock.wrap(getattr(trainer, loss), "loss"))
    compute = trainer.compute_loss

    def noted(model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        mask = inputs["completion_mask"]
        active = inputs.get("self_distillation_mask")
        teacher = inputs.get("teacher_input_ids")
        seen["student_prompt"] = inputs["prompt_ids"].shape[1]
        seen["shortest"] = min(seen.get("shortest", 10**9), int(mask.sum(1).min()))
        seen["active"] = len(mask) if active is None else int(active.sum())
        seen["teacher_prompt"] = (
            seen["student_prompt"] if teacher is None else teacher.shape[1] - mask.shape[1]
        )
        return compute(model, inputs, *args, **kwargs)

    trainer.compute_loss = noted
    trainer.add_callback(watch(clock))


def watch(clock: Clock) -> Any:
    """Ends a step where transformers does, and times the optimizer between its hooks."""
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        begun = 0.0

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            clock.start()

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kw: Any) -> None:
            self.begun = read_clock()

        def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            clock.add("optimizer", read_clock() - self.begun)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            clock.step_done()

    return Watch()


def quiet() -> None:
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")


def measure(
    kind: str,
    shape: Shape,
    loss: str,
    warm_up: int,
    counted: int,
    *,
    checkpointing: bool,
    extra: dict[str, Any],
) -> dict[str, Any]:
    quiet()
    clock, seen = Clock(), dict[str, int]()
    with tempfile.TemporaryDirectory() as folder:
        shared = settings(shape, warm_up + counted, folder, checkpointing=checkpointing) | extra
        trainer = make_trainer(kind, shape, loss, warm_up + counted, shared)
        instrument(trainer, kind, clock, seen)
        before = peak_mib()
        trainer.train()
    return {**clock.result(warm_up, shape.tokens), "before_mib": round(before, 1), "seen": seen}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--trainer", default="sdpo", choices=TRAINERS)
    parser.add_argument("--loss", default="js", choices=list(LOSSES))
    parser.add_argument("--checkpointing", action="store_true", help="TRL's default, ours too")
    parser.add_argument("--with", dest="extra", choices=list(EXTRAS), help="with Liger or vLLM")
    parser.add_argument("--warm-up", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3)
    args = parser.parse_args()
    set_threads()
    found = measure(
        args.trainer,
        chosen(args),
        args.loss,
        args.warm_up,
        args.steps,
        checkpointing=args.checkpointing,
        extra=EXTRAS.get(args.extra, {}),
    )
    emit(found)


if __name__ == "__main__":
    main()
