"""``lightning-sd export``: a checkpoint as a transformers folder with a model card."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lightning_sd.callbacks.checkpoint_files import check_checkpoint
from lightning_sd.callbacks.export import export_pretrained
from lightning_sd.callbacks.model_card import write_model_card
from lightning_sd.callbacks.report import compare_answers
from lightning_sd.cli.hub import push_folder
from lightning_sd.modules import SelfDistillModule, SupervisedModule


def export_checkpoint(
    ckpt_path: str,
    out: str,
    *,
    merge: bool = False,
    model: str | None = None,
    push_to_hub: str | None = None,
    private: bool = False,
) -> None:
    """Write the student of a checkpoint as a transformers folder with a model card.

    Args:
        ckpt_path: The checkpoint.
        out: The folder.
        merge: With LoRA, merge the adapter into the model. False: write only the adapter.
        model: Model that was trained, if the checkpoint does not name it because it was in memory.
        push_to_hub: ``USER/NAME`` to upload the folder to. None: no upload.
        private: Create the repository as a private one.

    Raises:
        FileNotFoundError: There is no such checkpoint.
        ValueError: The checkpoint does not name its model, and neither does ``model``.
    """
    if not Path(ckpt_path).is_file():
        raise FileNotFoundError(f"ckpt_path={ckpt_path}: there is no such file; give its path.")
    check_checkpoint(Path(ckpt_path))
    checkpoint = torch.load(ckpt_path, map_location="cpu", weights_only=True, mmap=True)
    hparams = checkpoint["hyper_parameters"]
    if model is None and "model" not in hparams:
        raise ValueError(f"ckpt_path={ckpt_path}: its model was in memory; name it with --model.")
    kind: Any = SelfDistillModule if "objective" in hparams else SupervisedModule
    module = kind.load_from_checkpoint(
        ckpt_path, map_location="cpu", weights_only=True, **({"model": model} if model else {})
    )
    export_pretrained(module.student, module.tokenizer, out, merge=merge)
    settings = read_settings(checkpoint)
    step = checkpoint["global_step"]
    write_model_card(out, settings, step, read_answers(settings, step), push_to_hub)
    print(f"The student of step {step} is in {out}.")
    if push_to_hub is not None:
        print(f"Uploaded to {push_folder(out, push_to_hub, 'model', private=private)}.")


def read_settings(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the run that wrote a checkpoint, as in a config."""
    config = checkpoint["callbacks"].get("ExactResume", {}).get("config")
    return config or {
        "model": {"init_args": checkpoint["hyper_parameters"]},
        "data": {"init_args": checkpoint.get("datamodule_hyper_parameters", {})},
    }


def read_answers(settings: Mapping[str, Any], step: int) -> list[tuple[str, ...]]:
    """Compare the held-out answers that the run's ``BeforeAfter`` wrote.

    Args:
        settings: Settings of the run.
        step: Step of the checkpoint.

    Returns:
        Rows as of :func:`~lightning_sd.callbacks.report.compare_answers`; empty if there is no
        file, or if it was measured at another step.
    """
    for callback in settings.get("trainer", {}).get("callbacks") or []:
        path = callback.get("init_args", {}).get("path")
        if callback["class_path"].endswith(".BeforeAfter") and path and Path(path).is_file():
            measured = json.loads(Path(path).read_text(encoding="utf-8"))
            if measured["steps"] == step:
                return compare_answers(measured["questions"])
    return []


def main(words: Sequence[str]) -> None:
    """Run the command.

    Args:
        words: The word ``export`` and its options.
    """
    export_checkpoint(**vars(build_parser().parse_args(words[1:])))


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    parser = argparse.ArgumentParser(
        prog="lightning-sd export",
        description="Write the student of a checkpoint as a transformers folder with a model card.",
    )
    parser.add_argument("--ckpt_path", required=True, help="the checkpoint")
    parser.add_argument("--out", default="out/export", help="the folder (%(default)s)")
    parser.add_argument(
        "--merge", action="store_true", help="merge a LoRA adapter into the model; else it is alone"
    )
    parser.add_argument("--model", help="model that was trained, if it was in memory")
    parser.add_argument("--push_to_hub", metavar="USER/NAME", help="upload the folder")
    parser.add_argument("--private", action="store_true", help="create a private repository")
    return parser
