"""Check settings against each other before a model is loaded."""

from __future__ import annotations

from pathlib import Path
from string import Formatter
from typing import Any

from lightning_sd.cli.checkpoint_path import SEARCHED
from lightning_sd.cli.errors import suggest
from lightning_sd.contexts.base import TeacherContext
from lightning_sd.critique import VLLMCritic
from lightning_sd.models import PretrainedModel
from lightning_sd.models.extras import require_extra
from lightning_sd.rollout import VLLMSampler
from lightning_sd.rollout.stored import get_attempt
from lightning_sd.tasks import StreamTask, Task

OPTIONAL: dict[type, str] = {VLLMSampler: "vllm", VLLMCritic: "vllm"}
"""Classes that need a package which an extra of the same name installs."""


def check_settings(verb: str, model: Any, data: Any, callbacks: list[Any]) -> None:
    """Refuse settings that could only fail later.

    Args:
        verb: The subcommand.
        model: The LightningModule.
        data: The data module.
        callbacks: The teacher context and other callbacks.

    Raises:
        ValueError: A template uses an unknown field or none of its context's fields, the data lack
            the stored attempts, or a quantized model would be trained without adapters.
        ImportError: An optional dependency is missing.
        FileNotFoundError: A local model does not exist.
    """
    for context in callbacks:
        if isinstance(context, TeacherContext):
            check_template(context)
    names = ("sampler", "eval_sampler")
    for part in (*(getattr(model, name, None) for name in names), getattr(data, "critic", None)):
        extra = OPTIONAL.get(type(part))
        if extra is not None:
            require_extra(extra, extra)
    if verb == "fit" and getattr(model, "attempts", None) == "stored":
        task = getattr(data, "task", None)
        if isinstance(task, Task) and not isinstance(task, StreamTask):
            get_attempt(task.questions("train")[0])
    source = getattr(model, "source", None)
    if isinstance(source, PretrainedModel):
        check_source(verb, source)


def check_source(verb: str, source: PretrainedModel) -> None:
    """Refuse a model source that could not be loaded or trained; see :func:`check_settings`."""
    if source.lora is not None:
        require_extra("peft", "lora")
    if source.name.endswith(".gguf"):
        require_extra("gguf", "gguf")
    if verb == "fit" and source.quantization is not None and source.lora is None:
        raise ValueError(
            f"model.model.quantization={source.quantization}: quantized weights cannot be trained; "
            "add adapters with --model.model.lora=LoRA, or leave quantization out."
        )
    source.path()


def check_template(context: TeacherContext) -> None:
    """Refuse a template with an unknown field, or with none of its context's fields.

    Args:
        context: The context.

    Raises:
        ValueError: The template is refused.
    """
    known = _list_fields(type(context).template) | {"question", *context.cut_fields}
    used = _list_fields(context.template)
    name = type(context).__name__
    for field in sorted(used - known):
        raise ValueError(
            f"teacher_context.template: {name} has no field {{{field}}}{suggest(field, known)} "
            f"Fields: {', '.join(sorted(known))}."
        )
    required = known - {"question"}
    if required and not used & required:
        fields = " or ".join(f"{{{field}}}" for field in sorted(required))
        raise ValueError(
            f"teacher_context.template={context.template!r}: it holds none of {name}'s fields, so "
            f"the teacher would see nothing new; add {fields}."
        )


def check_checkpoint_path(path: str | None) -> None:
    """Refuse a checkpoint path that does not exist, before a model is loaded.

    Args:
        path: Value of ``ckpt_path``.

    Raises:
        FileNotFoundError: There is no such file.
    """
    if path is None or path in (*SEARCHED, "best") or path.startswith("registry"):
        return
    file = Path(path).expanduser()
    if "://" in path or file.exists():
        return
    nearby = sorted(p.name for p in file.parent.glob("*.ckpt")) if file.parent.is_dir() else []
    listed = f" {file.parent} holds {', '.join(nearby)}." if nearby else ""
    raise FileNotFoundError(
        f"ckpt_path={path}: there is no such file{suggest(file.name, nearby)}{listed} Give a "
        "checkpoint, `last`, or leave ckpt_path out."
    )


def _list_fields(template: str) -> set[str]:
    return {field for _, field, _, _ in Formatter().parse(template) if field}
