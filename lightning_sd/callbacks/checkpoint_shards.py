"""Join a checkpoint that each rank wrote a shard of, for runs without FSDP2."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.load import _METADATA_FILENAME, _load_distributed_checkpoint


def is_sharded_checkpoint(path: str | Path) -> bool:
    """Tell whether a path is a folder of shards that is complete."""
    return (Path(path) / _METADATA_FILENAME).is_file()


def join_shards(folder: str | Path) -> dict[str, Any]:
    """Read a folder of shards as one checkpoint, as a run without FSDP2 would have written it.

    Args:
        folder: What ``FSDP2Strategy(save_distributed_checkpoint=True)`` wrote. All of it must fit
            the memory of this process.

    Returns:
        The checkpoint; it holds frozen parameters as well.

    Example::

        torch.save(join_shards("out/run/checkpoints/last.ckpt"), "out/run/whole.ckpt")
    """
    checkpoint = _load_distributed_checkpoint(Path(folder))
    names = sorted(name for name in checkpoint if re.fullmatch(r"optimizer_\d+", name))
    checkpoint["optimizer_states"] = [_number_parameters(checkpoint.pop(name)) for name in names]
    return checkpoint


def _number_parameters(state: dict[str, Any]) -> dict[str, Any]:
    """Name the parameters of an optimizer by numbers instead of names."""
    names = [name for group in state["param_groups"] for name in group["params"]]
    numbers = {name: number for number, name in enumerate(names)}
    groups = [{**g, "params": [numbers[n] for n in g["params"]]} for g in state["param_groups"]]
    values = {numbers[name]: entry for name, entry in state["state"].items()}
    return {"state": values, "param_groups": groups}
