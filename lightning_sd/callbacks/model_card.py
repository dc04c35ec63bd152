"""Write the model card of an exported student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from lightning_sd.callbacks.report import list_versions
from lightning_sd.text.cleaning import hide_credentials

_LEFT_OUT = frozenset(
    {"cache_dir", "url", "api_key_env", "num_workers", "overlap", "check_every", "max_score_tokens"}
)
"""Settings that are not published: paths, addresses, and what does not change the model."""
_TRAINER = (
    *("max_steps", "max_epochs", "accumulate_grad_batches", "gradient_clip_val"),
    *("precision", "devices", "num_nodes", "strategy"),
)
"""Settings of the trainer that may change the model."""
_ADAPTER = """from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

model = AutoPeftModelForCausalLM.from_pretrained("{name}")
tokenizer = AutoTokenizer.from_pretrained("{name}")"""
_WHOLE = """from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{name}")
tokenizer = AutoTokenizer.from_pretrained("{name}")"""
_CARD = """---
{front}---

# {title}

Trained with [lightning_sd](https://pypi.org/project/lightning-sd/) from `{base}`, {step} optimizer
steps.

```python
{usage}
```

## Results

{results}

## Method

```yaml
{method}```

## Data

```yaml
{data}```

## Training

```yaml
{training}```

Versions: {versions}.
"""


def write_model_card(
    folder: str | Path,
    settings: Mapping[str, Any],
    step: int,
    answers: Sequence[Sequence[str]] = (),
    name: str | None = None,
) -> None:
    """Write ``README.md`` into an exported folder.

    Args:
        folder: The folder of :func:`~lightning_sd.callbacks.export.export_pretrained`.
        settings: Settings of the run as in a config: ``model``, ``data``, ``teacher_context``,
            ``trainer``. Paths of callbacks and loggers and addresses of servers are left out.
        step: Number of optimizer steps.
        answers: Rows of :func:`~lightning_sd.callbacks.report.compare_answers`.
        name: Name on the hub. Default: the folder.
    """
    folder = Path(folder)
    is_adapter = (folder / "adapter_config.json").is_file()
    module = dict(settings.get("model", {}).get("init_args", {}))
    base = _name_base(module.pop("model", None))
    training = {key: module.pop(key) for key in ("optimizer", "scheduler") if key in module}
    data = settings.get("data", {}).get("init_args", {})
    training["trainer"] = {key: settings.get("trainer", {}).get(key) for key in _TRAINER}
    text = _CARD.format(
        front=_dump(_describe_front(base, is_adapter)),
        title=name or folder.name,
        base=base,
        step=step,
        usage=(_ADAPTER if is_adapter else _WHOLE).format(name=name or folder),
        results=_format_results(answers),
        method=_dump({"teacher_context": settings.get("teacher_context"), "model": module}),
        data=_dump(data),
        training=_dump(training),
        versions=", ".join(f"{key} {value}" for key, value in list_versions().items()),
    )
    (folder / "README.md").write_text(hide_credentials(text), encoding="utf-8")


def _name_base(source: Any) -> str:
    """Return the name of the model that was trained."""
    if isinstance(source, Mapping):
        source = source.get("init_args", {}).get("name")
    return source or "a model in memory"


def _describe_front(base: str, is_adapter: bool) -> dict[str, Any]:
    """Return the values that the hub reads."""
    on_hub = base.count("/") == 1 and ":" not in base and not Path(base).expanduser().exists()
    return {
        "library_name": "peft" if is_adapter else "transformers",
        "tags": ["lightning_sd", "self-distillation"],
        "base_model": base if on_hub else None,
    }


def _format_results(answers: Sequence[Sequence[str]]) -> str:
    if not answers:
        return "No held-out measurement is stored with this run."
    rows = ["| held-out questions | before | after | after minus before |", "|---|---|---|---|"]
    rows += [f"| {' | '.join(row)} |" for row in answers]
    return "\n".join([*rows, "", "In brackets: 95% intervals, bootstrap over questions."])


def _dump(value: Mapping[str, Any]) -> str:
    text: str = yaml.safe_dump(_prune(value), sort_keys=False, allow_unicode=True, width=100)
    return text


def _prune(value: Any) -> Any:
    """Leave out what is not set, and what is not published."""
    if isinstance(value, list):
        return [_prune(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    items = {key: _prune(item) for key, item in value.items() if key not in _LEFT_OUT}
    return {key: item for key, item in items.items() if item not in (None, [], {})}
